//! Whether what a `NodeConfig` probes holds on the host.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use edict_core::config::probes::{Http, Probe};

use crate::units::{Active, Units};

/// How often a probe is tried that does not hold yet.
const LOOK: Duration = Duration::from_millis(250);
/// How long one try may take: the host is one hop away.
const TRY: Duration = Duration::from_secs(5);
/// The most bytes of an answer until its status has to be there.
const HEAD_MAX: usize = 8 * 1024;

/// A probe that does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is probed, in words.
    pub what: String,
    /// What is there instead.
    pub why: String,
    /// The unit that is meant, where one is.
    pub unit: Option<String>,
}

/// Tries each of these until it holds, all from now on: they take no longer than the one that may take the
/// longest. `address` is the host's own; units are asked where they can be.
pub fn hold(probes: &[Probe], address: IpAddr, units: Option<&dyn Units>) -> Result<(), Failure> {
    let begun = Instant::now();
    for probe in probes {
        let deadline = begun + Duration::from_secs(probe.seconds().into());
        while let Err(why) = holds(probe, address, units) {
            if Instant::now() >= deadline {
                let (seconds, unit) = (probe.seconds(), probe.unit.clone());
                let why = format!("{why}, for {seconds} s");
                let what = what(probe, address);
                return Err(Failure { what, why, unit });
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn what(probe: &Probe, address: IpAddr) -> String {
    let at = |port: u32| match address {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    };
    match probe {
        Probe { tcp: Some(tcp), .. } => format!("the probe of {}", at(tcp.port)),
        Probe {
            http: Some(http), ..
        } => format!("the probe of http://{}{}", at(http.port), http.path()),
        _ => format!("the probe of {}", probe.unit.as_deref().unwrap_or_default()),
    }
}

fn holds(probe: &Probe, address: IpAddr, units: Option<&dyn Units>) -> Result<(), String> {
    if let Some(unit) = &probe.unit {
        let units = units.ok_or("systemd is out of reach")?;
        let shown = units.show(unit).map_err(|error| error.to_string())?;
        return match shown.active {
            Active::Active => Ok(()),
            Active::Changing => Err("it is not ready".to_owned()),
            Active::Inactive => Err("it does not run".to_owned()),
            Active::Failed => Err("it has failed".to_owned()),
        };
    }
    if let Some(tcp) = &probe.tcp {
        return connect(address, tcp.port)
            .map(drop)
            .map_err(|error| said(&error));
    }
    if let Some(http) = &probe.http {
        let status = status(address, http).map_err(|error| said(&error))?;
        if status != http.status() {
            return Err(format!("it answers with {status}"));
        }
    }
    Ok(())
}

fn connect(address: IpAddr, port: u32) -> io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(|_| io::Error::other("there is no such port"))?;
    TcpStream::connect_timeout(&SocketAddr::new(address, port), TRY)
}

fn status(address: IpAddr, http: &Http) -> io::Result<u32> {
    let mut stream = connect(address, http.port)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.set_write_timeout(Some(TRY))?;
    // The guard lets no path through that has more than one line.
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: edict-agent\r\nConnection: close\r\n\r\n",
        http.path(),
        SocketAddr::new(address, u16::try_from(http.port).unwrap_or(0)),
    );
    stream.write_all(request.as_bytes())?;
    let (deadline, mut head) = (Instant::now() + TRY, Vec::new());
    let mut room = [0; 1024];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head) {
            // What comes before is no answer yet.
            Ok(_) if answer.code.is_some_and(|code| code >= 200) => {
                return Ok(answer.code.unwrap_or_default().into());
            }
            Ok(httparse::Status::Complete(length)) => {
                drop(head.drain(..length));
                continue;
            }
            // Whatever stands in the headers.
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {}
            Err(_) => return Err(io::Error::other("it does not answer in HTTP")),
        }
        if head.len() > HEAD_MAX || Instant::now() >= deadline {
            return Err(io::Error::other("it does not answer"));
        }
        match stream.read(&mut room)? {
            0 => return Err(io::Error::other("it ends the connection without an answer")),
            length => head.extend_from_slice(&room[..length]),
        }
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}
