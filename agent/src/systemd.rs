//! systemd, over its own socket: peer to peer, there on every host with systemd, with or without a
//! D-Bus daemon. Source of names and signatures: org.freedesktop.systemd1(5).

mod program;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use edict_core::config::sysctl;
use edict_core::resource::Action;
use rustbus::connection::Timeout;
use rustbus::connection::ll_conn::{DuplexConn, force_finish_on_error};
use rustbus::message_builder::{MarshalledMessage, MessageBuilder, MessageType};
use rustbus::wire::ObjectPath;
use rustbus::wire::unmarshal::traits::Variant;
use rustbus::{RpcConn, Unmarshal};

use crate::units::{Active, Error, Load, Manager, Mark, Shown, Units};

/// The name of the socket in systemd's folder.
const SOCKET: &str = "private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const ROOT: &str = "/org/freedesktop/systemd1";

/// How long systemd may take to answer. It is one process with one thread, and may be reading all
/// unit files.
const ANSWER: Duration = Duration::from_secs(25);
/// How long a job may take: a stop and a start at systemd's own limits (`DefaultTimeoutStopSec` and
/// `DefaultTimeoutStartSec`, 90 s each).
const JOB: Duration = Duration::from_mins(3);
/// How long a unit is watched that was told something: one that ends at once is started again five
/// times by systemd's own limit (`DefaultStartLimitBurst`), 0.1 s apart.
const SETTLING: Duration = Duration::from_secs(3);
/// How long until a first call is followed by another one.
const NUDGE: Duration = Duration::from_millis(20);
/// How long the journal may be searched.
const JOURNAL: Duration = Duration::from_secs(10);
/// The most bytes that a program may say.
const OUTPUT_MAX: u64 = 64 * 1024;
/// The most lines of a unit that are kept.
const LINES: usize = 5;
/// How long it may take to ask for settings of the kernel, or to set one.
const SETTINGS: Duration = Duration::from_secs(10);
/// A setting that every kernel has.
const ALWAYS: &str = "/proc/sys/kernel/ostype";
/// What reads the journal.
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// What loads modules, where the kernel itself looks for it. Source: the kernel's admin-guide/sysctl,
/// `kernel.modprobe`.
const MODPROBE: &str = "/sbin/modprobe";
/// What sets them when the host starts. Source: systemd-sysctl.service(8), which names this program and
/// the files that it takes.
const SYSCTL: &str = "/usr/lib/systemd/systemd-sysctl";

/// The host's systemd.
#[derive(Clone, Debug)]
pub struct Systemd {
    socket: PathBuf,
    /// Where programs that run on the host leave what they say; the same path here and there.
    output: PathBuf,
}

impl Systemd {
    /// The one whose folder (`/run/systemd` on the host) is at `folder`, if there is one; `shared` is a
    /// folder that has the same path here and on the host, the agent's state folder for instance.
    pub fn find(folder: &Path, shared: &Path) -> Option<Manager> {
        let systemd = Self {
            socket: folder.join(SOCKET),
            output: shared.join("output"),
        };
        let there = systemd.socket.exists();
        there.then(|| Manager::Runs(Arc::new(systemd)))
    }

    /// The folder that both sides see, for root alone.
    fn scratch(&self) -> std::io::Result<&Path> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.output)?;
        Ok(&self.output)
    }

    fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.socket)
    }

    /// What was said just now may be on its way yet. A journal that can't say so is read all the same.
    fn sync_journal(&self, unit: &str) {
        if let Err(error) = self.run(unit, &[JOURNALCTL, "--sync"], JOURNAL, false, OUTPUT_MAX) {
            tracing::debug!(%error, "the journal is not told to keep up");
        }
    }

    fn last_lines(&self, which: &str) -> Result<Vec<String>, Error> {
        let name = format!("edict-journal-{}.service", std::process::id());
        let lines = format!("--lines={LINES}");
        let argv = [JOURNALCTL, "--no-pager", "--quiet", "--boot"];
        let argv = [&argv[..], &["--output=cat", "--reverse", &lines, which]].concat();
        let said = self.run(&name, &argv, JOURNAL, true, OUTPUT_MAX)?;
        let said = String::from_utf8_lossy(&said);
        Ok(said.lines().map(ToOwned::to_owned).collect())
    }
}

impl Units for Systemd {
    fn show(&self, unit: &str) -> Result<Shown, Error> {
        self.connect()?.show(unit)
    }

    fn daemon_reload(&self) -> Result<(), Error> {
        let mut connection = self.connect()?;
        connection.call("read all units again", &mut manager("Reload"), JOB)?;
        Ok(())
    }

    fn tell(&self, unit: &str, action: Action) -> Result<(), Error> {
        let method = match action {
            // It is done for all units at once, before.
            Action::Reread => return Ok(()),
            Action::Reload => "ReloadUnit",
            Action::Restart => "RestartUnit",
        };
        let mut connection = self.connect()?;
        // A unit that has failed too often is not started again otherwise.
        connection.reset(unit)?;
        let mut call = manager(method);
        push(&mut call, unit)?;
        push(&mut call, "replace")?;
        connection.job(&format!("{action} {unit}"), call)
    }

    fn settling(&self) -> Duration {
        SETTLING
    }

    fn settings(&self, paths: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let name = format!("edict-settings-{}.service", std::process::id());
        // With its name before each. What is not there fails, and the others are said all the same.
        let argv = ["/usr/bin/head", "--verbose", "--lines=64", "--", ALWAYS];
        let argv = [&argv[..], paths].concat();
        let said = self.run(&name, &argv, SETTINGS, false, OUTPUT_MAX)?;
        let values = values(&String::from_utf8_lossy(&said));
        // Nothing that is not said may be taken for something that is not there.
        if said.len() as u64 >= OUTPUT_MAX || !values.contains_key(ALWAYS) {
            let why = format!(
                "{} on the host says nothing of {ALWAYS}, or too much",
                argv[0]
            );
            return Err(Error::Unreachable(why));
        }
        Ok(values)
    }

    fn set(&self, path: &str, value: &str) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Unreachable(error.to_string());
        let name = format!("edict-sysctl-{}.service", std::process::id());
        let file = self.scratch().map_err(broken)?.join(format!("{name}.conf"));
        let key = path.strip_prefix(sysctl::ROOT).unwrap_or(path);
        fs::write(
            &file,
            format!("{} = {value}\n", key.trim_start_matches('/')),
        )
        .map_err(broken)?;
        let shown = file.display().to_string();
        let done = self.run(&name, &[SYSCTL, &shown], SETTINGS, true, OUTPUT_MAX);
        let _ = fs::remove_file(&file);
        done.map(drop)
    }

    fn table(&self) -> Result<Option<String>, Error> {
        self.loaded()
    }

    fn load(&self, script: &str) -> Result<(), Error> {
        self.nft_reads(script)
    }

    fn chains(&self) -> Result<String, Error> {
        self.nft(&["--json", "list", "chains"], table::RULES_MAX)
    }

    fn rules(&self, family: &str, table: &str) -> Result<String, Error> {
        let words = ["--json", "--stateless", "list", "table", family, table];
        self.nft(&words, table::RULES_MAX)
    }

    fn lacks(&self, modules: &[&str]) -> Result<Vec<String>, Error> {
        let name = format!("edict-modules-{}.service", std::process::id());
        let mut lacking = Vec::new();
        for module in modules {
            match self.run(
                &name,
                &[MODPROBE, "--dry-run", module],
                SETTINGS,
                true,
                OUTPUT_MAX,
            ) {
                Ok(_) => {}
                Err(Error::Job { .. }) => lacking.push((*module).to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(lacking)
    }

    fn journal(&self, unit: &str) -> Vec<String> {
        // Before anything else: systemd may start it once more meanwhile.
        let shown = self.show(unit).ok().map(|shown| shown.mark.invocation);
        let name = format!("edict-journal-{}.service", std::process::id());
        self.sync_journal(&name);
        // What its own processes said in this run says more than what systemd says of them.
        let run = shown.filter(|invocation| !invocation.is_empty());
        let run = run.map(|invocation| format!("_SYSTEMD_INVOCATION_ID={invocation}"));
        let of = format!("--unit={unit}");
        for which in run.into_iter().chain([of]) {
            match self.last_lines(&which) {
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => return lines,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, unit, "the journal can't be read");
                    break;
                }
            }
        }
        Vec::new()
    }
}

/// What `head --verbose` says: the name of each file, and behind it what is in it.
fn values(said: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut at = None;
    for line in said.lines() {
        let named = line
            .strip_prefix("==> ")
            .and_then(|rest| rest.strip_suffix(" <=="));
        if let Some(name) = named {
            at = Some(name);
            values.insert(name.to_owned(), String::new());
        } else if let Some(value) = at.and_then(|name| values.get_mut(name)) {
            for word in line.split_whitespace() {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(word);
            }
        }
    }
    values
}

struct Connection(RpcConn);

impl Connection {
    /// Connects, and waits until systemd answers.
    fn open(socket: &Path) -> Result<Self, Error> {
        let (done, opened) = mpsc::channel();
        let path = socket.to_owned();
        // Nothing limits how long it takes to connect: a systemd that hangs may have this thread.
        thread::spawn(move || {
            let address = nix::sys::socket::UnixAddr::new(&path);
            let connected = address
                .map_err(|error| error.to_string())
                .and_then(|address| {
                    DuplexConn::connect_to_bus(address, false).map_err(|error| error.to_string())
                });
            let _ = done.send(connected);
        });
        let connection = match opened.recv_timeout(ANSWER) {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(Error::Unreachable(format!("{}: {error}", socket.display())));
            }
            Err(_) => return Err(silent(ANSWER)),
        };
        let mut connection = Self(RpcConn::new(connection));
        connection.greet()?;
        Ok(connection)
    }

    /// The first call may come together with the end of the handshake; systemd then leaves it lying
    /// until more comes. So it is followed by others until there is an answer. Subscribing has the
    /// ends of jobs told.
    fn greet(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            let serial = self.send(&mut manager("Subscribe"))?;
            match self.0.wait_response(serial, Timeout::Duration(NUDGE)) {
                // A second one is refused, which is an answer.
                Ok(_) => return Ok(()),
                Err(rustbus::connection::Error::TimedOut) => {}
                Err(error) => return Err(garbled(&error)),
            }
        }
        Err(silent(ANSWER))
    }

    fn send(&mut self, message: &mut MarshalledMessage) -> Result<u32, Error> {
        self.0
            .send_message(message)
            .map_err(|error| garbled(&error))?
            .write(Timeout::Duration(ANSWER))
            .map_err(|failed| garbled(&force_finish_on_error(failed)))
    }

    fn call(
        &mut self,
        doing: &str,
        message: &mut MarshalledMessage,
        within: Duration,
    ) -> Result<MarshalledMessage, Error> {
        let serial = self.send(message)?;
        let answer = match self.0.wait_response(serial, Timeout::Duration(within)) {
            Ok(answer) => answer,
            Err(rustbus::connection::Error::TimedOut) => return Err(silent(within)),
            Err(error) => return Err(garbled(&error)),
        };
        if answer.typ == MessageType::Error {
            let said = answer.body.parser().get::<String>().unwrap_or_default();
            let name = answer.dynheader.error_name.unwrap_or_default();
            return Err(Error::Refused {
                doing: doing.to_owned(),
                said: if said.is_empty() { name } else { said },
            });
        }
        Ok(answer)
    }

    /// Starts a job, and waits for its end.
    fn job(&mut self, doing: &str, mut message: MarshalledMessage) -> Result<(), Error> {
        let deadline = Instant::now() + JOB;
        let answer = self.call(doing, &mut message, ANSWER)?;
        let job: ObjectPath<String> = read(&answer)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let signal = match self.0.wait_signal(Timeout::Duration(left)) {
                Ok(signal) => signal,
                Err(rustbus::connection::Error::TimedOut) => {
                    return Err(Error::Job {
                        doing: doing.to_owned(),
                        result: format!("not done within {} s", JOB.as_secs()),
                    });
                }
                Err(error) => return Err(garbled(&error)),
            };
            if signal.dynheader.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            let (_, path, _, result): (u32, ObjectPath<String>, String, String) = signal
                .body
                .parser()
                .get4()
                .map_err(|error| garbled(&error))?;
            if path == job {
                return match result.as_str() {
                    "done" => Ok(()),
                    _ => Err(Error::Job {
                        doing: doing.to_owned(),
                        result,
                    }),
                };
            }
        }
    }

    /// Where systemd has a unit, also one that there is not.
    fn load(&mut self, unit: &str) -> Result<ObjectPath<String>, Error> {
        let mut load = manager("LoadUnit");
        push(&mut load, unit)?;
        read(&self.call(&format!("load {unit}"), &mut load, ANSWER)?)
    }

    /// Forgets that a unit has failed; one that has not, or is not there, makes no difference.
    fn reset(&mut self, unit: &str) -> Result<(), Error> {
        let mut reset = manager("ResetFailedUnit");
        push(&mut reset, unit)?;
        let _ = self.call("reset", &mut reset, ANSWER);
        Ok(())
    }

    fn show(&mut self, unit: &str) -> Result<Shown, Error> {
        let path = self.load(unit)?;
        let path = path.as_ref();
        let load: String = self.property(path, UNIT, "LoadState")?;
        let active: String = self.property(path, UNIT, "ActiveState")?;
        let sub: String = self.property(path, UNIT, "SubState")?;
        let invocation: Vec<u8> = self.property(path, UNIT, "InvocationID")?;
        let changed = self.property(path, UNIT, "StateChangeTimestampMonotonic")?;
        let is_service = unit.ends_with(".service") && load == "loaded";
        let oneshot = is_service && self.property::<String>(path, SERVICE, "Type")? == "oneshot";
        Ok(Shown {
            load: match load.as_str() {
                "loaded" => Load::Loaded,
                "not-found" => Load::Absent,
                _ => Load::Broken(load),
            },
            active: match active.as_str() {
                // It has ended, and systemd waits until it starts it anew.
                _ if sub.starts_with("auto-restart") => Active::Failed,
                "active" => Active::Active,
                "inactive" => Active::Inactive,
                "failed" => Active::Failed,
                _ => Active::Changing,
            },
            oneshot,
            mark: Mark {
                invocation: hex(&invocation),
                changed,
            },
        })
    }

    fn property<T>(&mut self, path: &str, interface: &str, name: &str) -> Result<T, Error>
    where
        T: for<'buf, 'fds> Unmarshal<'buf, 'fds>,
    {
        let mut get = MessageBuilder::new()
            .call("Get")
            .with_interface("org.freedesktop.DBus.Properties")
            .on(path)
            .build();
        get.body
            .push_param2(interface, name)
            .map_err(|error| garbled(&error))?;
        let answer = self.call(&format!("tell {name}"), &mut get, ANSWER)?;
        let value: Variant<'_, '_> = answer
            .body
            .parser()
            .get()
            .map_err(|error| garbled(&error))?;
        value.get().map_err(|error| garbled(&error))
    }
}

fn manager(method: &str) -> MarshalledMessage {
    MessageBuilder::new()
        .call(method)
        .with_interface(MANAGER)
        .on(ROOT)
        .build()
}

fn push(message: &mut MarshalledMessage, text: &str) -> Result<(), Error> {
    message
        .body
        .push_param(text)
        .map_err(|error| garbled(&error))
}

fn read<T>(answer: &MarshalledMessage) -> Result<T, Error>
where
    T: for<'buf, 'fds> Unmarshal<'buf, 'fds>,
{
    answer.body.parser().get().map_err(|error| garbled(&error))
}

fn silent(within: Duration) -> Error {
    Error::Unreachable(format!("no answer within {} s", within.as_secs()))
}

fn garbled(error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable(error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
