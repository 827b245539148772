//! Whether what a `NodeConfig` probes holds on the host.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use edict_core::config::probes::Probe;

use super::activate::{Failure, Orders};
use super::round::Round;
use crate::state::State;
use crate::units::{Active, Manager, Units};

/// How often a probe is tried that does not hold yet.
const LOOK: Duration = Duration::from_millis(250);
/// How long one try may take: the host is one hop away.
const TRY: Duration = Duration::from_secs(5);
/// How long the last one may take at least.
const TRY_MIN: Duration = Duration::from_secs(1);
/// The most bytes of an answer until its status has to be there.
const HEAD_MAX: usize = 8 * 1024;

impl Round<'_> {
    /// What the layer of this uid probes, where it is another revision than the one in force. In an image
    /// nothing is, nor where units have yet to be restarted for it.
    pub(super) fn probes<'e>(&self, uid: &str, end: &'e State, orders: &Orders) -> &'e [Probe] {
        let probed = end.layers.get(uid).and_then(|held| {
            let before = self.state.layers.get(uid);
            let known = before.is_some_and(|before| before.layer.digest == held.layer.digest);
            held.layer.config.probes.as_ref().filter(|_| !known)
        });
        match (&self.agent.manager, probed) {
            (Manager::Offline, _) | (_, None) => &[],
            _ if !orders.pending.is_empty() => &[],
            (_, Some(probes)) => &probes.0,
        }
    }

    /// Has these hold.
    pub(super) fn probe(&self, probes: &[Probe]) -> Result<(), Failure> {
        let manager = &self.agent.manager;
        let units = manager.units().ok_or(manager.why().unwrap_or_default());
        // Where nobody knows the host's address, no operator sends any.
        let address = self.agent.address.unwrap_or(Ipv4Addr::LOCALHOST.into());
        hold(probes, address, units)
    }
}

/// Tries these until each has held once, all together: it takes as long as the one that may take the longest.
/// `address` is the host's own; units are asked where they can be, and it is said why they can't.
fn hold(probes: &[Probe], address: IpAddr, units: Result<&dyn Units, &str>) -> Result<(), Failure> {
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
            let asked = probe.unit.as_ref().zip(units.ok());
            return Err(Failure {
                unit: what(probe, address),
                what: format!("does not hold within {} s: {why}", probe.seconds()),
                lines: asked.map_or_else(Vec::new, |(unit, units)| units.journal(unit)),
            });
        }
        if open.is_empty() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

fn what(probe: &Probe, address: IpAddr) -> String {
    let what = match probe {
        Probe { tcp: Some(tcp), .. } => at(address, tcp.port).to_string(),
        Probe {
            http: Some(http), ..
        } => format!("http://{}{}", at(address, http.port), http.path()),
        _ => probe.unit.clone().unwrap_or_default(),
    };
    format!("the probe of {what}")
}

/// The guard lets no other port through than those there are; nobody listens on 0.
fn at(address: IpAddr, port: u32) -> SocketAddr {
    SocketAddr::new(address, u16::try_from(port).unwrap_or(0))
}

fn holds(
    probe: &Probe,
    address: IpAddr,
    units: Result<&dyn Units, &str>,
    within: Duration,
) -> Result<(), String> {
    if let Some(unit) = &probe.unit {
        let shown = units?.show(unit).map_err(|error| error.to_string())?;
        if let Some(why) = shown.load.why_not() {
            return Err(format!("it {why}"));
        }
        return match shown.active {
            Active::Active => Ok(()),
            Active::Changing => Err("it is not ready".to_owned()),
            Active::Inactive => Err("it does not run".to_owned()),
            Active::Failed => Err("it has failed".to_owned()),
        };
    }
    let deadline = Instant::now() + within;
    if let Some(tcp) = &probe.tcp {
        let connected = connect(at(address, tcp.port), deadline);
        return connected.map(drop).map_err(|error| said(&error));
    }
    if let Some(http) = &probe.http {
        let status =
            status(at(address, http.port), http.path(), deadline).map_err(|error| said(&error))?;
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

fn connect(to: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, left(deadline)?)
}

fn status(of: SocketAddr, path: &str, deadline: Instant) -> io::Result<u32> {
    let mut stream = connect(of, deadline)?;
    // The guard lets no path through that has more than one line.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {of}\r\nUser-Agent: edict-agent\r\nConnection: close\r\n\r\n",
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
