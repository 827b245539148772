//! Runs the commands of what is in force, one after the other, as units of the host.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use edict_core::catalogue::Program;
use edict_core::layer::Layer;
use edict_core::wire::{CommandOutcome, CommandReport, PlannedCommand, Push, Report};
use jiff::Timestamp;

use super::{Agent, locked};
use crate::command::{Begun, Commands, End, InForce, Run, Which, kept, planned};
use crate::state::{self, State};
use crate::units::{self, Ended, Programs};

/// How often a command is looked at that was just started; each time twice as long, up to [`SELDOM`].
const SOON: Duration = Duration::from_millis(50);
/// How often a command is looked at that takes long.
const SELDOM: Duration = Duration::from_secs(1);
/// How much longer than it may take a command is looked for where systemd can't be asked.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is tried again where something is left to be done and can't be.
const AGAIN: Duration = Duration::from_secs(30);
/// What nothing survives. Source: signal(7).
const SIGKILL: i32 = 9;
/// What is said where a command's unit is there no more.
const LOST: &str = "it was started, or was about to be, and systemd knows nothing of it any more: how far it came \
    is not known, and it is not run again";
/// What is said where the host started anew.
const REBOOTED: &str =
    "the node started anew over it: how far it came is not known, and it is not run again";
/// What is said where nobody could be asked for too long.
const SILENT: &str = "how it ended is not known, and it is not run again";

impl State {
    /// The revision of each layer that is in force.
    fn revisions(&self) -> InForce {
        let digest =
            |(uid, held): (&String, &state::InForce)| (uid.clone(), held.layer.digest.clone());
        self.layers.iter().map(digest).collect()
    }
}

impl Agent {
    /// Writes down what the layers of a push run, before anything of it is in force. What is written down,
    /// in force and named by the last push is run.
    pub(super) fn expect_commands(&self, push: &Push) -> Result<(), state::Error> {
        let in_force = locked(&self.state).revisions();
        let mut commands = locked(&self.commands);
        let mut next = commands.clone();
        let mut named = InForce::new();
        let mut news = false;
        for layer in &push.layers {
            if layer.config.commands.is_some() && layer.check(&push.policy).is_empty() {
                let programs = layer.config.programs(&push.policy);
                news |= next.expect(&layer.uid, &layer.name, &layer.digest, programs);
                named.insert(layer.uid.clone(), layer.digest.clone());
            }
        }
        if news {
            next.forget(&in_force);
            // Nothing is started by what an earlier push said, and another push is asked for.
            *locked(&self.named) = None;
            self.store.save_commands(&next)?;
            *commands = next;
        }
        *locked(&self.named) = Some(named);
        Ok(())
    }

    /// What became of the commands of what is in force.
    pub fn commands(&self) -> Vec<CommandReport> {
        let in_force = locked(&self.state).revisions();
        let why = match self.manager.programs() {
            Some(Err(why)) => format!("it can't be run: {why}"),
            Some(Ok(_)) | None => String::new(),
        };
        locked(&self.commands).reports(&in_force, &why)
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
        let layers = push.layers.iter();
        let layers = layers.filter(|layer| in_force.contains(&layer.uid));
        let run = |layer: &Layer| {
            let begun = commands.begun(&layer.uid, &layer.digest);
            let programs = layer.config.programs(&push.policy).into_iter().enumerate();
            let waiting = programs.filter(|(n, _)| !begun.get(*n).is_some_and(|begun| *begun));
            let programs = waiting.map(|(_, program)| program).collect();
            planned(&layer.name, programs).collect::<Vec<_>>()
        };
        layers.flat_map(run).collect()
    }

    /// What may be started now: in force, with nothing in between, and named by the last push. An agent
    /// that was told nothing yet starts nothing.
    fn startable(&self) -> InForce {
        let named = locked(&self.named).clone().unwrap_or_default();
        let state = locked(&self.state);
        let mut startable = if state.open {
            InForce::new()
        } else {
            state.revisions()
        };
        startable.retain(|uid, digest| named.get(uid) == Some(digest));
        startable
    }

    /// Whether something waits for the first push.
    pub(super) fn awaits_push(&self) -> bool {
        let in_force = locked(&self.state).revisions();
        // One after the other: a push takes them the other way round.
        let told = locked(&self.named).is_some();
        let waits = |(_, run): (Which, &Run)| run.outcome == CommandOutcome::Waiting;
        !told && locked(&self.commands).next(&in_force).is_some_and(waits)
    }

    /// Runs commands as they come, for ever.
    pub(super) fn keep_running(&self) {
        // An agent before this one may not have come to it.
        let over = locked(&self.commands).over.clone();
        if let (Some(Ok(programs)), Some(unit)) = (self.manager.programs(), over) {
            programs.discard(&unit);
        }
        loop {
            self.run_commands();
            let startable = self.startable();
            let left = locked(&self.commands).next(&startable).is_some();
            // Whatever is pushed or mended meanwhile wakes it at once.
            if left {
                thread::park_timeout(AGAIN);
            } else {
                thread::park();
            }
        }
    }

    /// Runs what is to be run, and looks after what an agent before this one has started, until nothing is
    /// left or something is in the way. Each is written down before it is started, and again when it is
    /// over.
    pub fn run_commands(&self) {
        loop {
            let startable = self.startable();
            let next = locked(&self.commands)
                .next(&startable)
                .map(|(which, run)| (which, run.clone()));
            let (Some((which, run)), Some(Ok(programs))) = (next, self.manager.programs()) else {
                return;
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
        let mut commands = locked(&self.commands);
        // It may have been released since: what is released is not started any more.
        if self.startable().get(&which.uid) != Some(&which.digest) {
            return true;
        }
        let mut next = commands.clone();
        let mut program = program.clone();
        next.set(which, |run| {
            run.outcome = CommandOutcome::Running;
            run.begun = Some(begun.clone());
            // A push may have changed it since it was looked at.
            program = run.program.clone();
        });
        if !self.keep(&mut commands, next) {
            return false;
        }
        drop(commands);
        let Which { owner, digest, .. } = which;
        tracing::info!(owner, digest, run = program.name, "a command is started");
        if let Err(error) = programs.launch(&which.unit(), &program) {
            let refused = matches!(error, units::Error::Refused { .. });
            if refused && matches!(programs.ended(&which.unit()), Ok(None)) {
                let end = End::because(error.to_string());
                return self.end(programs, which, CommandOutcome::Failed, end);
            }
            // It may be under way.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "whether a command is started is not known"
            );
        }
        self.look_after(programs, which, &program, &begun)
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
                Ok(None) if programs.boot() != begun.boot => {
                    break (CommandOutcome::Interrupted, End::because(REBOOTED));
                }
                // One that was just asked for may not have come to it yet.
                Ok(None) if began.elapsed() >= programs.patience() => {
                    break (CommandOutcome::Interrupted, End::because(LOST));
                }
                Ok(_) => {}
                Err(error) => {
                    if began.elapsed() > longest {
                        let end = End::because(format!("{error}; {SILENT}"));
                        break (CommandOutcome::Interrupted, end);
                    }
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(unit, error, "a command can't be asked about");
                }
            }
            // systemd tells the end only of what was begun on the same connection, which another agent had.
            thread::sleep(pause);
            pause = (pause * 2).min(SELDOM);
        };
        self.end(programs, which, outcome, end)
    }

    /// Writes down how a command ended, and lets go of its unit. Whether it is on disk.
    fn end(
        &self,
        programs: &dyn Programs,
        which: &Which,
        outcome: CommandOutcome,
        end: End,
    ) -> bool {
        let unit = which.unit();
        let in_force = locked(&self.state).revisions();
        let mut commands = locked(&self.commands);
        let mut next = commands.clone();
        next.set(which, |run| {
            run.outcome = outcome;
            run.end = end;
        });
        next.over = Some(unit.clone());
        next.forget(&in_force);
        if !self.keep(&mut commands, next) {
            return false;
        }
        drop(commands);
        let Which { owner, digest, .. } = which;
        let index = which.index;
        tracing::info!(owner, digest, index, ?outcome, "a command is over");
        programs.discard(&unit);
        true
    }

    /// Writes down what is known of commands, and has whoever waits for it know. Whether it is on disk.
    fn keep(&self, commands: &mut Commands, next: Commands) -> bool {
        if let Err(error) = self.store.save_commands(&next) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "what becomes of a command can't be kept");
            return false;
        }
        *commands = next;
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
                "it needed more memory than it may have ({memory_mib} MiB), or than the node had, and was ended"
            ),
        ),
        // Source: systemd.exec(5), process exit codes.
        (_, Some(203)) => (
            CommandOutcome::Failed,
            Some(203),
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
