//! An agent that has nothing to do, with twenty files in force, beside a process that has no more than a
//! tokio runtime and a TLS server: the agent as its image has it, the other as cargo builds it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};

use crate::ansible::{apply, manifest};

/// The other side, a package of its own.
const SERVER: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("server/Cargo.toml")),
    ("Cargo.lock", include_str!("../../../Cargo.lock")),
    ("main.rs", include_str!("server/main.rs")),
];
/// How long wake-ups are counted, and how long it takes until there is nothing more to do: tokio keeps a
/// thread that nothing was asked of for ten seconds.
const QUIET: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(15);
const STARTED: Duration = Duration::from_secs(10);

/// The most bytes that an image may have.
const LARGEST: u64 = 10_000_000;

/// How the agent of the image is built, for the other side.
const ALIKE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    (
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs",
    ),
];

/// What the agent has, and the other side.
pub struct Rest {
    /// Resident memory, in KiB.
    pub kib: [u64; 2],
    /// That of another side that is built as the agent is.
    pub alike: u64,
    /// How often they woke within [`QUIET`].
    pub wakes: [u64; 2],
    /// What the agent's image has in it, in bytes.
    pub image: u64,
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
    let program = shipped()?;
    let (plain, alike) = (server("plain", &[])?, server("alike", &ALIKE)?);
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
    let (ours, theirs, third) = (free()?, free()?, free()?);
    let serve = ["serve", "--node", "node", "--log", "warn"];
    let agent = Command::new(&program)
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
    let serves = |program: &Path, address: SocketAddr| {
        let mut server = Command::new(program);
        let server = server.arg(address.to_string()).arg(&tls).spawn();
        server.map(Running)
    };
    let agent = Running(agent);
    let (other, alike) = (serves(&plain, theirs)?, serves(&alike, third)?);
    for address in [ours, theirs, third] {
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
        alike: resident(alike.0.id())?,
        wakes: [since(0), since(1)],
        image: fs::metadata(program)?.len(),
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

/// Says what the agent's image has in it, which is what every node loads.
pub fn say_image(bytes: u64) -> io::Result<bool> {
    let verdict = if bytes <= LARGEST { "ok" } else { "MISSED" };
    writeln!(
        io::stdout(),
        "{:<54} {bytes:>10} {LARGEST:>10}        at most {verdict}",
        "the agent's image, bytes",
    )?;
    Ok(bytes <= LARGEST)
}

/// The agent as it is in the image, compiled by who makes images.
fn shipped() -> io::Result<PathBuf> {
    let said = cargo()
        .args(["run", "--quiet", "--package", "e2e", "--", "build"])
        .stderr(Stdio::inherit())
        .output()?;
    let folder = String::from_utf8(said.stdout).map_err(io::Error::other)?;
    if !said.status.success() {
        return Err(io::Error::other("the agent of the image can't be built"));
    }
    Ok(Path::new(folder.trim_end()).join("edict-agent"))
}

/// The other side, with the versions that the agent has, as cargo builds it with these settings alone.
fn server(name: &str, settings: &[(&str, &str)]) -> io::Result<PathBuf> {
    let deps = std::env::current_exe()?;
    // target/release/deps/<this program>
    let target = deps.ancestors().nth(3).expect("cargo puts it there");
    let folder = target.join("server");
    fs::create_dir_all(&folder)?;
    for (name, text) in SERVER {
        fs::write(folder.join(name), text)?;
    }
    let built = cargo()
        .args(["build", "--quiet", "--release", "--target-dir", name])
        .env_remove("RUSTFLAGS")
        .envs(settings.iter().copied())
        .current_dir(&folder)
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the other side can't be built"));
    }
    Ok(folder.join(name).join("release/server"))
}

/// What cargo tells this benchmark is not meant for another one, and what somebody has set is for neither side.
const OTHERS: [&str; 5] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_PROFILE_",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
];

/// Cargo, without all that.
fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OTHERS.iter().any(|other| text.starts_with(other)) {
            cargo.env_remove(&name);
        }
    }
    cargo
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
