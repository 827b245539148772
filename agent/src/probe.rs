//! Whether what a `NodeConfig` probes holds on the host.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use edict_core::config::probes::{Http, Probe};

use crate::units::{Active, Load, Units};

/// How often a probe is tried that does not hold yet.
const LOOK: Duration = Duration::from_millis(250);
/// How long one try may take: the host is one hop away.
const TRY: Duration = Duration::from_secs(5);
/// How long the last one may take at least.
const TRY_MIN: Duration = Duration::from_secs(1);
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

/// Tries these until each has held once, all together: it takes as long as the one that may take the longest.
/// `address` is the host's own; units are asked where they can be, and it is said why they can't.
pub fn hold(
    probes: &[Probe],
    address: IpAddr,
    units: Result<&dyn Units, &str>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut open: Vec<_> = probes.iter().collect();
    loop {
        let mut failed = None;
        open.retain(|probe| {
            let within = Duration::from_secs(probe.seconds().into());
            let left = within.saturating_sub(begun.elapsed());
            let Err(why) = holds(probe, address, units, left.clamp(TRY_MIN, TRY)) else {
                return false;
            };
            let hopeless = probe.unit.is_some() && units.is_err();
            if hopeless || begun.elapsed() >= within {
                failed.get_or_insert((*probe, why));
            }
            true
        });
        if let Some((probe, why)) = failed {
            let (unit, what) = (probe.unit.clone(), what(probe, address));
            let why = format!("does not hold within {} s: {why}", probe.seconds());
            return Err(Failure { what, why, unit });
        }
        if open.is_empty() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

fn what(probe: &Probe, address: IpAddr) -> String {
    let at = |port: u32| match address {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    };
    let what = match probe {
        Probe { tcp: Some(tcp), .. } => at(tcp.port),
        Probe {
            http: Some(http), ..
        } => format!("http://{}{}", at(http.port), http.path()),
        _ => probe.unit.clone().unwrap_or_default(),
    };
    format!("the probe of {what}")
}

fn holds(
    probe: &Probe,
    address: IpAddr,
    units: Result<&dyn Units, &str>,
    within: Duration,
) -> Result<(), String> {
    if let Some(unit) = &probe.unit {
        let shown = units?.show(unit).map_err(|error| error.to_string())?;
        return match (shown.load, shown.active) {
            (Load::Absent, _) => Err("it is not on this node".to_owned()),
            (Load::Broken(how), _) => Err(format!("it can't run on this node: it is {how}")),
            (Load::Loaded, Active::Active) => Ok(()),
            (Load::Loaded, Active::Changing) => Err("it is not ready".to_owned()),
            (Load::Loaded, Active::Inactive) => Err("it does not run".to_owned()),
            (Load::Loaded, Active::Failed) => Err("it has failed".to_owned()),
        };
    }
    let deadline = Instant::now() + within;
    if let Some(tcp) = &probe.tcp {
        let connected = connect(address, tcp.port, deadline);
        return connected.map(drop).map_err(|error| said(&error));
    }
    if let Some(http) = &probe.http {
        let status = status(address, http, deadline).map_err(|error| said(&error))?;
        if status != http.status() {
            return Err(format!("it answers with {status}"));
        }
    }
    Ok(())
}

/// What is left of the time that one try may take.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn connect(address: IpAddr, port: u32, deadline: Instant) -> io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(|_| io::Error::other("there is no such port"))?;
    TcpStream::connect_timeout(&SocketAddr::new(address, port), left(deadline)?)
}

fn status(address: IpAddr, http: &Http, deadline: Instant) -> io::Result<u32> {
    let mut stream = connect(address, http.port, deadline)?;
    // The guard lets no path through that has more than one line.
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: edict-agent\r\nConnection: close\r\n\r\n",
        http.path(),
        SocketAddr::new(address, u16::try_from(http.port).unwrap_or(0)),
    );
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut room = [0; 1024];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        let read = answer.parse(&head);
        match (answer.code, read) {
            // The status is what is asked for, whatever stands behind it.
            (Some(code), _) if code >= 200 => return Ok(code.into()),
            // What comes before is no answer yet.
            (_, Ok(httparse::Status::Complete(length))) => {
                drop(head.drain(..length));
                continue;
            }
            (_, Ok(httparse::Status::Partial)) => {}
            (_, Err(_)) => return Err(io::Error::other("it does not answer in HTTP")),
        }
        if head.len() > HEAD_MAX {
            return Err(io::Error::other("it does not answer"));
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
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
