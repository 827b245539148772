//! Runs the commands of what is in force, one after the other, as units of the host.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use edict_core::catalogue::Program;
use edict_core::wire::{CommandOutcome, CommandReport, PlannedCommand, Push, Report};
use jiff::Timestamp;

use super::{Agent, locked};
use crate::command::{Begun, End, InForce, Which, kept, planned};
use crate::state::{self, State};
use crate::units::{self, Ended, Programs};

/// How often a command is looked at that was just started; each time twice as long, up to [`SELDOM`].
const SOON: Duration = Duration::from_millis(50);
/// How often a command is looked at that takes long.
const SELDOM: Duration = Duration::from_secs(1);
/// How much longer than it may take a command is looked for where systemd can't be asked.
const PATIENCE: Duration = Duration::from_mins(5);
/// What nothing survives. Source: signal(7).
const SIGKILL: i32 = 9;
/// What is said where a command's unit is there no more.
const LOST: &str = "it was started, or was about to be, when the agent ended, and systemd knows nothing \
    of it: how far it came is not known, and it is not run again";
/// What is said where the host started anew.
const REBOOTED: &str =
    "the node started anew over it: how far it came is not known, and it is not run again";

impl State {
    /// The revision of each layer that is in force. Of what is being changed nobody knows.
    fn revisions(&self) -> InForce {
        let layers = self.layers.iter().filter(|_| !self.open);
        let digest =
            |(uid, held): (&String, &state::InForce)| (uid.clone(), held.layer.digest.clone());
        layers.map(digest).collect()
    }
}

impl Agent {
    /// Writes down what the layers of a push run, before anything of it is in force: what is written down
    /// and in force is run.
    pub(super) fn expect_commands(&self, push: &Push) -> Result<(), state::Error> {
        let in_force = locked(&self.state).revisions();
        let mut commands = locked(&self.commands);
        let mut next = commands.clone();
        let mut news = false;
        for layer in &push.layers {
            let is_new = layer.config.commands.is_some() && !next.knows(&layer.uid, &layer.digest);
            if is_new && layer.check(&push.policy).is_empty() {
                let programs = layer.config.programs(&push.policy);
                news |= next.expect(&layer.uid, &layer.name, &layer.digest, programs);
            }
        }
        if news {
            next.forget(&in_force);
            self.store.save_commands(&next)?;
            *commands = next;
        }
        Ok(())
    }

    /// What became of the commands of what is in force.
    pub fn commands(&self) -> Vec<CommandReport> {
        let in_force = locked(&self.state).revisions();
        locked(&self.commands).reports(&in_force)
    }

    /// The commands that a push would run, once all of it that `report` says is in force.
    pub(super) fn plan_commands(&self, push: &Push, report: &Report) -> Vec<PlannedCommand> {
        let commands = locked(&self.commands);
        let in_force: BTreeSet<_> = report
            .layers
            .iter()
            .filter(|layer| layer.in_force.as_ref() == Some(&layer.digest))
            .map(|layer| &layer.uid)
            .collect();
        let layers = push.layers.iter().filter(|layer| {
            in_force.contains(&layer.uid) && !commands.knows(&layer.uid, &layer.digest)
        });
        layers
            .flat_map(|layer| planned(&layer.name, layer.config.programs(&push.policy)))
            .collect()
    }

    /// Runs what is to be run, and looks after what an agent before this one has started, until nothing is
    /// left. Each is written down before it is started, and again when it is over.
    pub fn run_commands(&self) {
        loop {
            let in_force = locked(&self.state).revisions();
            let next = locked(&self.commands)
                .next(&in_force)
                .map(|(which, run)| (which, run.clone()));
            let Some((which, run)) = next else {
                return;
            };
            let programs = match self.manager.programs() {
                // A root without a host: it is run when there is one.
                None => return,
                Some(Ok(programs)) => programs,
                Some(Err(why)) => {
                    let end = End::because(format!("it can't be run: {why}"));
                    if !self.note(&which, CommandOutcome::Failed, None, end) {
                        return;
                    }
                    continue;
                }
            };
            let done = match run.begun {
                None => self.start(programs, &which, &run.program),
                Some(begun) => self.look_after(programs, &which, &run.program, &begun),
            };
            // What can't be written down is not done: it would be done twice.
            if !done {
                return;
            }
        }
    }

    fn start(&self, programs: &dyn Programs, which: &Which, program: &Program) -> bool {
        let begun = Begun {
            at: Timestamp::now(),
            boot: programs.boot(),
        };
        let running = CommandOutcome::Running;
        if !self.note(which, running, Some(begun.clone()), End::default()) {
            return false;
        }
        let Which { owner, digest, .. } = which;
        tracing::info!(owner, digest, run = program.name, "a command is started");
        let launched = programs.launch(&which.unit(), program);
        if let Err(error) = &launched
            && matches!(programs.ended(&which.unit()), Ok(None))
        {
            let end = End::because(error.to_string());
            return self.note(which, CommandOutcome::Failed, None, end);
        }
        self.look_after(programs, which, program, &begun)
    }

    /// Waits until a command is over that was started, and writes down how it ended.
    fn look_after(
        &self,
        programs: &dyn Programs,
        which: &Which,
        program: &Program,
        begun: &Begun,
    ) -> bool {
        let unit = which.unit();
        let longest = Duration::from_secs(program.timeout_seconds.into()) + PATIENCE;
        let began = Instant::now();
        let mut pause = SOON;
        let (outcome, end) = loop {
            match programs.ended(&unit) {
                Ok(Some(Some(ended))) => {
                    let said = programs.said(&ended);
                    break became(program, &ended, said);
                }
                Ok(Some(None)) => {}
                Ok(None) if programs.boot() != begun.boot => {
                    break (CommandOutcome::Interrupted, End::because(REBOOTED));
                }
                Ok(None) => break (CommandOutcome::Interrupted, End::because(LOST)),
                Err(error) => {
                    tracing::warn!(
                        unit,
                        error = &error as &dyn std::error::Error,
                        "a command can't be asked about"
                    );
                    if began.elapsed() > longest {
                        let end = End::because(error.to_string());
                        break (CommandOutcome::Interrupted, end);
                    }
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(SELDOM);
        };
        let noted = self.note(which, outcome, None, end);
        if noted {
            programs.discard(&unit);
        }
        noted
    }

    /// Writes down how far a command is, and has whoever waits for it know. Whether that is on disk.
    fn note(&self, which: &Which, outcome: CommandOutcome, begun: Option<Begun>, end: End) -> bool {
        let mut commands = locked(&self.commands);
        let mut next = commands.clone();
        next.set(which, |run| {
            run.outcome = outcome;
            run.begun = begun.or(run.begun.take());
            run.end = end;
        });
        if let Err(error) = self.store.save_commands(&next) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "what became of a command can't be kept");
            return false;
        }
        *commands = next;
        drop(commands);
        let Which { owner, digest, .. } = which;
        tracing::info!(owner, digest, index = which.index, ?outcome, "a command");
        self.tell();
        true
    }
}

/// What a command came to.
fn became(
    program: &Program,
    ended: &Ended,
    said: Result<Vec<u8>, units::Error>,
) -> (CommandOutcome, End) {
    let Program {
        argv,
        timeout_seconds,
        memory_mib,
        output_kib,
        ..
    } = program;
    let path = argv.first().map(String::as_str).unwrap_or_default();
    let (outcome, exit_code, message) = match (&*ended.result, ended.exit_code) {
        ("success", Some(0)) => (CommandOutcome::Succeeded, Some(0), String::new()),
        ("timeout", _) => (
            CommandOutcome::TimedOut,
            None,
            format!("it took longer than the {timeout_seconds} s that it may, and was ended"),
        ),
        ("oom-kill", _) => (
            CommandOutcome::Failed,
            None,
            format!(
                "it needed more than the {memory_mib} MiB of memory that it may have, and was ended"
            ),
        ),
        // Source: systemd.exec(5), process exit codes.
        (_, Some(203)) => (
            CommandOutcome::Failed,
            None,
            format!("systemd can't execute {path}: is it on this node, and a program?"),
        ),
        (_, Some(code)) => (
            CommandOutcome::Failed,
            Some(code),
            format!("it ended with exit code {code}"),
        ),
        // Of control groups of version 1 systemd is not told that it was the memory.
        (_, None) if ended.signal == Some(SIGKILL) => (
            CommandOutcome::Failed,
            None,
            format!(
                "it was killed, as the kernel does with what needs more memory than it may have: {memory_mib} MiB"
            ),
        ),
        (result, None) => (
            CommandOutcome::Failed,
            None,
            match ended.signal {
                Some(signal) => format!("it was ended by signal {signal}"),
                None => format!("it did not end by itself: systemd says {result}"),
            },
        ),
    };
    let most = usize::try_from(*output_kib).unwrap_or(usize::MAX) * 1024;
    let (output, lost) = match said {
        Ok(said) => (kept(&said, most), None),
        Err(error) => (
            String::new(),
            Some(format!("what it said can't be had: {error}")),
        ),
    };
    let message = [Some(message).filter(|message| !message.is_empty()), lost];
    let end = End {
        exit_code,
        milliseconds: Some(ended.milliseconds),
        output,
        message: message.into_iter().flatten().collect::<Vec<_>>().join("; "),
    };
    (outcome, end)
}
