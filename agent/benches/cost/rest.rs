//! An agent that has nothing to do, with twenty files in force, beside a process that has no more than a
//! tokio runtime and a TLS server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ansible::{apply, manifest};

const AGENT: &str = env!("CARGO_BIN_EXE_edict-agent");
/// Where the other side is told what to do.
const ADDRESS: &str = "EDICT_BENCH_ADDRESS";
const TLS: &str = "EDICT_BENCH_TLS";
/// How long wake-ups are counted, and how long it takes until there is nothing more to do: tokio keeps a
/// thread that nothing was asked of for ten seconds.
const QUIET: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(15);
const STARTED: Duration = Duration::from_secs(10);

/// What both have.
pub struct Rest {
    /// Resident memory, in KiB.
    pub kib: [u64; 2],
    /// How often they woke within [`QUIET`].
    pub wakes: [u64; 2],
}

/// Ends with what it holds.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures both, side by side.
pub fn measure(folder: &Path) -> io::Result<Rest> {
    let folder = folder.join("rest");
    let (root, tls) = (folder.join("root"), folder.join("tls"));
    for each in [root.join("etc"), tls.clone()] {
        fs::create_dir_all(each)?;
    }
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["edict-agent".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    for (name, text) in [
        ("tls.crt", &certificate),
        ("tls.key", &key.serialize_pem()),
        ("ca.crt", &certificate),
    ] {
        fs::write(tls.join(name), text)?;
    }
    apply(&root, &manifest(&folder)?)?;
    let (ours, theirs) = (free()?, free()?);
    let serve = ["serve", "--node", "node", "--log", "warn"];
    let agent = Command::new(AGENT)
        .args(serve)
        .args(["--listen", &ours.to_string()])
        .arg("--etc")
        .arg(root.join("etc"))
        .arg("--state")
        .arg(root.join("var/lib/edict"))
        .arg("--tls")
        .arg(&tls)
        .stderr(Stdio::inherit())
        .spawn()?;
    let other = Command::new(std::env::current_exe()?)
        .env(ADDRESS, theirs.to_string())
        .env(TLS, &tls)
        .spawn()?;
    let (agent, other) = (Running(agent), Running(other));
    for address in [ours, theirs] {
        answers(address)?;
    }
    // What is done at the start is done.
    std::thread::sleep(SETTLED);
    let all = [agent.0.id(), other.0.id()];
    let before = [wakes(all[0])?, wakes(all[1])?];
    std::thread::sleep(QUIET);
    let after = [wakes(all[0])?, wakes(all[1])?];
    let since = |which: usize| {
        let threads = after[which].iter();
        let more = threads.map(|(thread, now)| now - before[which].get(thread).unwrap_or(&0));
        more.sum()
    };
    Ok(Rest {
        kib: [resident(all[0])?, resident(all[1])?],
        wakes: [since(0), since(1)],
    })
}

/// Says how often both woke: an agent at rest does not.
pub fn say_wakes([ours, theirs]: [u64; 2]) -> io::Result<bool> {
    let verdict = if ours == 0 { "ok" } else { "MISSED" };
    writeln!(
        io::stdout(),
        "{:<54} {ours:>10} {theirs:>10}           none {verdict}",
        format!("at rest, wake-ups within {} s", QUIET.as_secs()),
    )?;
    Ok(ours == 0)
}

fn free() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn answers(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + STARTED;
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// A number of a line of `/proc/PID/status`, of `proc_pid_status(5)`.
fn number(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.unwrap().parse().unwrap()
}

fn resident(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    Ok(number(&status.replace(':', " :"), "VmRSS"))
}

/// How often each thread of a process has waited for something, and woken.
fn wakes(process: u32) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut all = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let status = fs::read_to_string(thread.join("status"))?;
        let count = number(&status.replace(':', " :"), "voluntary_ctxt_switches");
        all.insert(thread, count);
    }
    Ok(all)
}

/// Whether this process is to be the other side.
pub fn is_other_side() -> bool {
    std::env::var_os(ADDRESS).is_some()
}

/// Serves TLS, and has nothing to say. Never ends.
pub fn other_side() -> io::Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variable = |name| std::env::var(name).map_err(io::Error::other);
    let tls = PathBuf::from(variable(TLS)?);
    let address: SocketAddr = variable(ADDRESS)?.parse().map_err(io::Error::other)?;
    let certificate = CertificateDer::from_pem_file(tls.join("tls.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls.join("tls.key")).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let accepting = acceptor.clone().accept(stream);
            tokio::spawn(async move { drop(accepting.await) });
        }
    })
}
