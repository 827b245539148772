//! The commands of the layers in force: which have been run, and what became of them. Pure.
//!
//! Each is run at most once for each revision. So what is about to be started is written down before it
//! is; an agent that finds it so and can't find out how it ended takes it for interrupted.

use std::collections::BTreeMap;

use edict_core::catalogue::Program;
use edict_core::guard::text;
use edict_core::wire::{CommandOutcome, CommandReport, PlannedCommand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of what is on disk. An agent refuses what a newer one has written.
pub const VERSION: u32 = 1;
/// How many revisions are remembered that are not in force: one that comes back is not run again.
const REMEMBERED: usize = 256;
/// The most bytes of all outputs that are kept: the newest.
const KEPT_MAX: usize = 256 * 1024;
/// The most bytes of all outputs in a hello.
const SAID_MAX: usize = 128 * 1024;

/// Everything that was, is or will be run. The order is that in which it became known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// The version of this form.
    pub version: u32,
    revisions: Vec<Revision>,
    /// The unit of the one that was over last: it may be there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            version: VERSION,
            revisions: Vec::new(),
            over: None,
        }
    }
}

/// The commands of one revision of a `NodeConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    /// Uid of the `NodeConfig`.
    uid: String,
    name: String,
    digest: String,
    runs: Vec<Run>,
}

/// A command of a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// What is run.
    pub program: Program,
    /// How far it is.
    pub outcome: CommandOutcome,
    /// When it was about to be started, and in which run of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// How it ended.
    #[serde(default)]
    pub end: End,
}

/// When something was about to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When that was.
    pub at: Timestamp,
    /// The host's boot id.
    pub boot: String,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its exit code, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// What it said, as much of it as is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Why it ended so; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl End {
    /// One that only has a reason.
    pub fn because(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }
}

/// Which command is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which {
    /// Uid of the `NodeConfig`.
    pub uid: String,
    /// Its name.
    pub owner: String,
    /// Digest of the revision.
    pub digest: String,
    /// Which of its commands.
    pub index: usize,
}

impl Which {
    /// The name of the unit that it is run as: the same for whoever looks for it.
    pub fn unit(&self) -> String {
        let Self {
            uid, digest, index, ..
        } = self;
        // A uid of a cluster has no other characters, a NodeConfig's name without one may have dots.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let uid: String = uid.chars().filter(|c| plain(*c)).take(100).collect();
        let short = digest.get(..16).unwrap_or(digest);
        format!("edict-command-{uid}-{short}-{index}.service")
    }
}

/// The digest of the revision of each layer that is in force, by uid.
pub type InForce = BTreeMap<String, String>;

impl Commands {
    /// Makes known what a revision runs, by what the catalogue says now: of what was begun nothing changes
    /// any more. Whether that is news.
    pub fn expect(&mut self, uid: &str, name: &str, digest: &str, programs: Vec<Program>) -> bool {
        let mut revisions = self.revisions.iter_mut();
        if let Some(revision) = revisions.find(|revision| revision.is(uid, digest)) {
            let mut news = false;
            for (run, program) in revision.runs.iter_mut().zip(programs) {
                if run.outcome == CommandOutcome::Waiting && run.program != program {
                    run.program = program;
                    news = true;
                }
            }
            return news;
        }
        if programs.is_empty() {
            return false;
        }
        let run = |program| Run {
            program,
            outcome: CommandOutcome::Waiting,
            begun: None,
            end: End::default(),
        };
        self.revisions.push(Revision {
            uid: uid.to_owned(),
            name: name.to_owned(),
            digest: digest.to_owned(),
            runs: programs.into_iter().map(run).collect(),
        });
        true
    }

    /// Which of a revision's commands would not be run any more.
    pub fn begun(&self, uid: &str, digest: &str) -> Vec<bool> {
        let revision = self.revision(uid, digest);
        let runs = revision.map_or(&[][..], |revision| &revision.runs);
        runs.iter()
            .map(|run| run.outcome != CommandOutcome::Waiting)
            .collect()
    }

    fn revision(&self, uid: &str, digest: &str) -> Option<&Revision> {
        let mut revisions = self.revisions.iter();
        revisions.find(|revision| revision.is(uid, digest))
    }

    /// What is to be looked after next: what was begun and is not over, whatever is in force; then what
    /// waits of the revisions that `may_begin`, each of them in turn.
    pub fn next(&self, may_begin: &InForce) -> Option<(Which, &Run)> {
        let all = || self.revisions.iter().flat_map(Revision::all);
        let mut running = all().filter(|(_, _, run)| run.outcome == CommandOutcome::Running);
        let waiting = || {
            let revisions = self.revisions.iter();
            let mine = revisions.filter(|revision| is_in_force(revision, may_begin));
            let first = mine.filter_map(|revision| {
                let mut runs = revision.all();
                runs.find(|(_, _, run)| run.outcome == CommandOutcome::Waiting)
            });
            // However many commands one has, the others get their turn.
            first.min_by_key(|(_, index, _)| *index)
        };
        let next = running.next().or_else(waiting);
        next.map(|(revision, index, run)| (revision.which(index), run))
    }

    /// Changes what is known of a command. Where it came to nothing, those behind it are skipped.
    pub fn set(&mut self, which: &Which, change: impl FnOnce(&mut Run)) {
        let mut revisions = self.revisions.iter_mut();
        let revision = revisions.find(|revision| revision.is(&which.uid, &which.digest));
        let Some(runs) = revision.map(|revision| &mut revision.runs) else {
            return;
        };
        let Some(run) = runs.get_mut(which.index) else {
            return;
        };
        change(run);
        let failed = run.outcome.has_failed();
        let name = run.program.name.clone();
        let behind = runs.iter_mut().skip(which.index + 1);
        for run in behind.filter(|run| failed && run.outcome == CommandOutcome::Waiting) {
            run.outcome = CommandOutcome::Skipped;
            run.end = End::because(format!("{name} before it came to nothing"));
        }
    }

    /// Forgets the oldest of what is not in force and not running, and what those have said; and the oldest
    /// outputs, where all of them are more than is kept.
    pub fn forget(&mut self, in_force: &InForce) {
        let stays = |revision: &Revision| {
            let running = |run: &Run| run.outcome == CommandOutcome::Running;
            is_in_force(revision, in_force) || revision.runs.iter().any(running)
        };
        let mut over = self.revisions.iter().filter(|one| !stays(one)).count();
        self.revisions.retain(|revision| {
            let goes = over > REMEMBERED && !stays(revision);
            over -= usize::from(goes);
            !goes
        });
        let mut room = KEPT_MAX;
        for revision in self.revisions.iter_mut().rev() {
            let kept = stays(revision);
            for run in revision.runs.iter_mut().rev() {
                let output = &mut run.end.output;
                if !kept || output.len() > room {
                    output.clear();
                }
                room -= output.len();
            }
        }
    }

    /// What became of the commands of what is in force. Those that wait do so for `why`.
    pub fn reports(&self, in_force: &InForce, why: &str) -> Vec<CommandReport> {
        let revisions = self.revisions.iter();
        let shown = revisions.filter(|revision| is_in_force(revision, in_force));
        let all: Vec<_> = shown.flat_map(Revision::all).collect();
        let speaking = all.iter().filter(|(_, _, run)| !run.end.output.is_empty());
        let share = SAID_MAX / speaking.count().max(1);
        let report = |(revision, index, run): (&Revision, usize, &Run)| {
            let Run {
                program,
                outcome,
                begun,
                end,
            } = run;
            let message = if outcome.is_over() { &end.message } else { why };
            CommandReport {
                uid: revision.uid.clone(),
                owner: revision.name.clone(),
                digest: revision.digest.clone(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                run: program.name.clone(),
                outcome: *outcome,
                exit_code: end.exit_code,
                started: begun.as_ref().map(|begun| begun.at),
                milliseconds: end.milliseconds,
                output: text::shorten(&end.output, share),
                message: message.to_owned(),
            }
        };
        all.into_iter().map(report).collect()
    }
}

impl Revision {
    fn is(&self, uid: &str, digest: &str) -> bool {
        self.uid == uid && self.digest == digest
    }

    fn which(&self, index: usize) -> Which {
        Which {
            uid: self.uid.clone(),
            owner: self.name.clone(),
            digest: self.digest.clone(),
            index,
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Self, usize, &Run)> {
        let runs = self.runs.iter().enumerate();
        runs.map(move |(index, run)| (self, index, run))
    }
}

fn is_in_force(revision: &Revision, in_force: &InForce) -> bool {
    in_force.get(&revision.uid) == Some(&revision.digest)
}

/// What would be run.
pub fn planned(owner: &str, programs: Vec<Program>) -> impl Iterator<Item = PlannedCommand> {
    programs.into_iter().map(move |program| PlannedCommand {
        owner: owner.to_owned(),
        run: program.name,
        argv: program.argv,
    })
}

/// What is kept of what a command said: credentials masked, nothing in it that a terminal would obey, and
/// no more than `most` bytes.
pub fn kept(said: &[u8], most: usize) -> String {
    let said = String::from_utf8_lossy(said);
    text::shorten(&text::visible(&text::mask(&said)), most)
}

#[cfg(test)]
mod tests;
