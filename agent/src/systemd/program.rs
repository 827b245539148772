//! Programs that run on the host as units of their own: those that somebody waits for, and those that
//! outlive whoever started them.

use std::fs;
use std::io::Read as _;
use std::time::Duration;

use edict_core::catalogue::Program;
use rustbus::message_builder::MarshalledMessage;
use rustbus::wire::ObjectPath;
use rustbus::{Marshal, Signature};

use super::{ANSWER, Connection, JOURNAL, JOURNALCTL, SERVICE, Systemd, UNIT};
use super::{garbled, hex, manager, push};
use crate::units::{Ended, Error, Programs};

/// Names this run of the host. Source: proc(5).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// How long a request may lie that nobody has answered: systemd does one thing after the other.
const SOON: Duration = Duration::from_secs(10);
/// How long a program has to end once it is told to.
const STOP: Duration = Duration::from_secs(10);
/// How many lines of a unit the journal takes within that time, at least. It says nothing of those that it
/// does not take. Source: journald.conf(5), `RateLimitBurst`.
const BURST: u32 = 10_000;
const BURST_WITHIN: Duration = Duration::from_secs(30);
/// What is said where that may have been more.
const MAY_LACK: &str =
    "\n[… the journal takes 10000 lines within 30 s: there may have been more …]\n";
/// The most bytes that are read of the beginning of what it said: more than the most that is kept.
const HEAD_MAX: u64 = 128 * 1024;
/// The most bytes that are read of the end.
const TAIL_MAX: u64 = 4 * 1024 * 1024;

impl Programs for Systemd {
    fn boot(&self) -> String {
        // The kernel's own: the same in a container.
        let id = fs::read_to_string(BOOT).unwrap_or_default();
        id.trim().to_owned()
    }

    fn launch(&self, unit: &str, program: &Program) -> Result<(), Error> {
        let within = Duration::from_secs(program.timeout_seconds.into());
        let memory = u64::from(program.memory_mib) * 1024 * 1024;
        let properties = [
            (
                "Description",
                Value::text(&format!("Edict command {}", program.name)),
            ),
            ("Type", Value::text("oneshot")),
            // Whoever comes later finds how it ended.
            ("RemainAfterExit", Value::Flag(true)),
            ("ExecStart", Value::exec(&program.argv, false)),
            ("TimeoutStartUSec", Value::time(within)),
            ("TimeoutStopUSec", Value::time(STOP)),
            ("MemoryMax", Value::Number(memory)),
            ("TasksMax", Value::Number(program.tasks.into())),
            // In the journal it is bounded by what the host gives that, and outlives the agent.
            ("StandardOutput", Value::text("journal")),
            ("StandardError", Value::text("journal")),
            ("LogRateLimitIntervalUSec", Value::time(BURST_WITHIN)),
            ("LogRateLimitBurst", Value::Count(BURST)),
            // Who finds that it speaks to the journal may do so past its own output, and is not
            // known there any more once it has ended.
            (
                "UnsetEnvironment",
                Value::Words(vec!["JOURNAL_STREAM".to_owned()]),
            ),
        ];
        let mut call = transient(unit, "fail", properties)?;
        let mut connection = self.connect()?;
        connection.call(&format!("start {}", program.name), &mut call, ANSWER)?;
        Ok(())
    }

    fn patience(&self) -> Duration {
        SOON
    }

    fn ended(&self, unit: &str) -> Result<Option<Option<Ended>>, Error> {
        let mut connection = self.connect()?;
        let path = connection.load(unit)?;
        let path = path.as_ref();
        if connection.property::<String>(path, UNIT, "LoadState")? == "not-found" {
            return Ok(None);
        }
        let active: String = connection.property(path, UNIT, "ActiveState")?;
        match active.as_str() {
            "active" | "failed" => connection.end_of(path).map(|ended| Some(Some(ended))),
            "inactive" => {
                let job: (u32, ObjectPath<String>) = connection.property(path, UNIT, "Job")?;
                // About to be started; or stopped by somebody else.
                Ok((job.0 != 0).then_some(None))
            }
            _ => Ok(Some(None)),
        }
    }

    fn said(&self, ended: &Ended) -> Result<Vec<u8>, Error> {
        let name = format!("edict-output-{}.service", std::process::id());
        self.sync_journal(&name);
        let which = format!("_SYSTEMD_INVOCATION_ID={}", ended.invocation);
        let read = |lines: &[&str], most: u64| {
            let argv = [JOURNALCTL, "--no-pager", "--quiet", "--all", "--output=cat"];
            let argv = [&argv[..], lines, &[&*which]].concat();
            // Ended at its limit, what it has said until then is what there is.
            self.run(&name, &argv, JOURNAL, false, most)
        };
        let mut said = read(&["--lines=all"], HEAD_MAX)?;
        let mut lines = count(&said);
        if said.len() as u64 >= HEAD_MAX {
            // The newest first: what is cut off is not the end.
            let newest = format!("--lines={BURST}");
            let tail = read(&["--reverse", &newest], TAIL_MAX)?;
            lines = lines.max(count(&tail));
            for line in tail.split(|byte| *byte == b'\n').rev() {
                said.push(b'\n');
                said.extend_from_slice(line);
            }
            said.push(b'\n');
        }
        if lines >= usize::try_from(BURST).unwrap_or(usize::MAX) {
            said.extend_from_slice(MAY_LACK.as_bytes());
        }
        Ok(said)
    }

    fn discard(&self, unit: &str) {
        let discarded = self.connect().and_then(|mut connection| {
            connection.reset(unit)?;
            let mut stop = manager("StopUnit");
            push(&mut stop, unit)?;
            push(&mut stop, "replace")?;
            // One that had failed is gone once it is reset.
            let _ = connection.call(&format!("stop {unit}"), &mut stop, ANSWER);
            Ok(())
        });
        if let Err(error) = discarded {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, unit, "systemd keeps a unit that is over");
        }
    }
}

fn count(said: &[u8]) -> usize {
    said.split(|byte| *byte == b'\n').count() - 1
}

impl Systemd {
    /// Runs a program on the host, as a unit of its own, and gives what it says. Where it is not `strict`
    /// its exit code says nothing. It is ended where it says more than `most` bytes.
    pub(super) fn run(
        &self,
        unit: &str,
        argv: &[&str],
        within: Duration,
        strict: bool,
        most: u64,
    ) -> Result<Vec<u8>, Error> {
        let broken = |error: std::io::Error| Error::Unreachable(error.to_string());
        let output = self.scratch().map_err(broken)?.join(unit);
        let mut connection = self.connect()?;
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let exec = Value::exec(&argv, !strict);
        let output_file = Value::text(&output.display().to_string());
        let properties = [
            ("Type", Value::text("oneshot")),
            ("ExecStart", exec),
            ("TimeoutStartUSec", Value::time(within)),
            ("StandardOutputFileToTruncate", output_file),
            // It would go where the output goes.
            ("StandardError", Value::text("journal")),
            ("LimitFSIZE", Value::Number(most)),
            ("CollectMode", Value::text("inactive-or-failed")),
        ];
        let doing = format!("run {unit}");
        let call = transient(unit, "replace", properties)?;
        let said = connection.job(&doing, call);
        let content = fs::File::open(&output).and_then(|file| {
            let mut content = Vec::new();
            file.take(most).read_to_end(&mut content).map(|_| content)
        });
        let content = content.map_err(broken);
        let _ = fs::remove_file(&output);
        said?;
        content
    }
}

/// A value of a unit's property.
#[derive(Marshal, Signature)]
enum Value {
    Text(String),
    Number(u64),
    Count(u32),
    Flag(bool),
    Words(Vec<String>),
    /// Path, argv, whether a failure is none.
    Exec(Vec<(String, Vec<String>, bool)>),
}

impl Value {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// In microseconds, as all times of systemd are.
    fn time(time: Duration) -> Self {
        Self::Number(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    /// What is executed, as it is written: in arguments, unlike in a path, systemd has values of its own
    /// environment stand for $NAME and ${NAME}, and $ for $$. Source: systemd.service(5), command lines.
    fn exec(argv: &[String], forgiving: bool) -> Self {
        let path = argv.first().cloned().unwrap_or_default();
        let escaped = argv.iter().map(|argument| argument.replace('$', "$$"));
        Self::Exec(vec![(path, escaped.collect(), forgiving)])
    }
}

/// The call that starts a unit that is in no file. `mode` says what becomes of a job that it has already.
fn transient<const N: usize>(
    unit: &str,
    mode: &str,
    properties: [(&str, Value); N],
) -> Result<MarshalledMessage, Error> {
    let owned = |(name, value): (&str, Value)| (name.to_owned(), value);
    let properties: Vec<(String, Value)> = properties.into_iter().map(owned).collect();
    let none: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    let mut call = manager("StartTransientUnit");
    call.body
        .push_param4(unit, mode, properties, none)
        .map_err(|error| garbled(&error))?;
    Ok(call)
}

/// The codes of a process that has exited by itself, and of one that a signal ended. Source: the kernel's
/// `asm-generic/siginfo.h`, `CLD_EXITED` and those behind it.
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

impl Connection {
    fn end_of(&mut self, path: &str) -> Result<Ended, Error> {
        let result: String = self.property(path, SERVICE, "Result")?;
        let code: i32 = self.property(path, SERVICE, "ExecMainCode")?;
        let status: i32 = self.property(path, SERVICE, "ExecMainStatus")?;
        let began: u64 = self.property(path, SERVICE, "ExecMainStartTimestampMonotonic")?;
        let ended: u64 = self.property(path, SERVICE, "ExecMainExitTimestampMonotonic")?;
        let invocation: Vec<u8> = self.property(path, UNIT, "InvocationID")?;
        Ok(Ended {
            result,
            exit_code: (code == EXITED).then_some(status),
            signal: [KILLED, DUMPED].contains(&code).then_some(status),
            milliseconds: ended.saturating_sub(began) / 1000,
            invocation: hex(&invocation),
        })
    }
}
