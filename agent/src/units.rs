//! The host's service manager: what it can be asked about units and told to do with them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use edict_core::catalogue::Program;
use edict_core::resource::Action;
use serde::{Deserialize, Serialize};

/// Why a unit could not be asked about or told something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The service manager can't be reached, or does not answer.
    #[error("systemd can't be asked: {0}")]
    Unreachable(String),
    /// It says no.
    #[error("systemd refuses to {doing}: {said}")]
    Refused {
        /// What was to be done, `restart docker.service` for instance.
        doing: String,
        /// What it says.
        said: String,
    },
    /// It tried, and it came to nothing.
    #[error("{doing}: {result}")]
    Job {
        /// What was to be done.
        doing: String,
        /// How systemd calls the result of the job, `failed` or `timeout` for instance.
        result: String,
    },
}

/// Stands for a table whose script is lost, and has nft take it away: before Edict there was none.
pub const UNKNOWN: &str =
    "# A table that nobody knows any more.\ntable inet edict\ndelete table inet edict\n";

/// What units can be asked and told. Each call ends within a time of its own.
pub trait Units: Programs {
    /// How a unit is now.
    fn show(&self, unit: &str) -> Result<Shown, Error>;
    /// Has all unit files read again.
    fn daemon_reload(&self) -> Result<(), Error>;
    /// Does it, and waits until it is done. Where systemd has to reread what the unit is to be like, that
    /// is [`Self::daemon_reload`], which goes before. A unit that failed before is tried again, however often
    /// it has failed.
    fn tell(&self, unit: &str, action: Action) -> Result<(), Error>;
    /// How long a unit that was told something is watched: one that ends soon after does not run with
    /// what it was given.
    fn settling(&self) -> Duration;
    /// The values of these settings of the kernel, by their paths under `/proc/sys`, with one blank
    /// between words. One that there is not is left out.
    fn settings(&self, paths: &[&str]) -> Result<BTreeMap<String, String>, Error>;
    /// Sets one of them. One that there is not is left alone.
    fn set(&self, path: &str, value: &str) -> Result<(), Error>;
    /// The script that Edict's table of nftables was loaded from; `None` where there is no such table. One that
    /// nobody knows any more is [`UNKNOWN`].
    fn table(&self) -> Result<Option<String>, Error>;
    /// Has nft read a script, all of it or nothing.
    fn load(&self, script: &str) -> Result<(), Error>;
    /// The chains of nftables on the host, as `nft --json list chains` says them.
    fn chains(&self) -> Result<String, Error>;
    /// What one table of nftables has, as `nft --json list table` says it.
    fn rules(&self, family: &str, table: &str) -> Result<String, Error>;
    /// Which of these modules the kernel does not have, neither to be loaded nor built in.
    fn lacks(&self, modules: &[&str]) -> Result<Vec<String>, Error>;
    /// The last lines that a unit has in the journal, the newest first, since a long message is cut;
    /// none where they can't be had.
    fn journal(&self, unit: &str) -> Vec<String>;
}

/// Programs that are run on the host as units of their own, and outlive whoever started them. Each call
/// ends within a time of its own.
pub trait Programs: Send + Sync + 'static {
    /// Names this run of the host: another one after each start.
    fn boot(&self) -> String;
    /// Starts a program as a unit of this name, and does not wait for its end. It is an error where there
    /// is such a unit already.
    fn launch(&self, unit: &str, program: &Program) -> Result<(), Error>;
    /// How long it may take until a program that was asked for is there.
    fn patience(&self) -> Duration;
    /// How a program ended that was started as this unit: `None` where there is no such unit, `Some(None)`
    /// while it runs.
    fn ended(&self, unit: &str) -> Result<Option<Option<Ended>>, Error>;
    /// What it said, the last megabytes of it.
    fn said(&self, ended: &Ended) -> Result<Vec<u8>, Error>;
    /// Forgets a unit that is over, and ends what it has left.
    fn discard(&self, unit: &str);
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What systemd says of it: `success`, `exit-code`, `signal`, `timeout`, `oom-kill` and others. Source:
    /// systemd.exec(5), `$SERVICE_RESULT`.
    pub result: String,
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// How long it took.
    pub milliseconds: u64,
    /// Names the run of the unit.
    pub invocation: String,
}

/// How a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether there is such a unit.
    pub load: Load,
    /// Whether it runs.
    pub active: Active,
    /// Whether it does something once, at the start of it, and ends: it is not active then.
    pub oneshot: bool,
    /// What tells whether it was told something since.
    pub mark: Mark,
}

/// Whether a unit can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// It can.
    Loaded,
    /// There is none of that name.
    Absent,
    /// It can't, for the reason that systemd has for it: `masked`, `bad-setting`, `error`.
    Broken(String),
}

impl Load {
    /// What keeps a unit from being used, in words that stand behind its name; `None` where it can be.
    pub fn why_not(&self) -> Option<String> {
        match self {
            Self::Loaded => None,
            Self::Absent => Some("is not on this node".to_owned()),
            Self::Broken(how) => Some(format!("can't run on this node: it is {how}")),
        }
    }
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// It runs, or has done what it is for and counts as active.
    Active,
    /// It is starting, stopping or reloading.
    Changing,
    /// It does not run, and is not meant to.
    Inactive,
    /// It does not run, and not because anybody wants it so.
    Failed,
}

/// What tells whether a unit was told something since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Names the run of the unit: another one after each start; empty where it never ran.
    pub invocation: String,
    /// When its state changed last, in microseconds since the host started.
    pub changed: u64,
}

impl Mark {
    /// Whether a unit that is at `self` now was told to do this since `before`.
    pub fn shows(&self, action: Action, before: &Self) -> bool {
        match action {
            Action::Restart => self.invocation != before.invocation,
            Action::Reload => self != before,
            // It is systemd that is told, and nothing of the unit shows it.
            Action::Reread => false,
        }
    }
}

/// Who can be asked about units.
#[derive(Clone)]
pub enum Manager {
    /// The host's systemd.
    Runs(Arc<dyn Units>),
    /// The same, for commands alone: units are told nothing, for this reason.
    Commands(Arc<dyn Units>, &'static str),
    /// It is out of reach, for this reason.
    OutOfReach(&'static str),
    /// There is none: this is the root of an image, or of a host that does not run.
    Offline,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runs(_) => "Runs",
            Self::Commands(..) => "Commands",
            Self::OutOfReach(_) => "OutOfReach",
            Self::Offline => "Offline",
        })
    }
}

impl Manager {
    /// The units, if they can be asked.
    pub fn units(&self) -> Option<&dyn Units> {
        match self {
            Self::Runs(units) => Some(&**units),
            Self::Commands(..) | Self::OutOfReach(_) | Self::Offline => None,
        }
    }

    /// Why units can't be asked where they could be on this host.
    pub fn why(&self) -> Option<&'static str> {
        match self {
            Self::Commands(_, why) | Self::OutOfReach(why) => Some(why),
            Self::Runs(_) | Self::Offline => None,
        }
    }

    /// What commands are run by, or why none are; `None` where they are run another time.
    pub fn programs(&self) -> Option<Result<&dyn Programs, &'static str>> {
        match self {
            Self::Runs(units) | Self::Commands(units, _) => Some(Ok(&**units)),
            Self::OutOfReach(why) => Some(Err(why)),
            Self::Offline => None,
        }
    }

    /// The same, for commands alone.
    #[must_use]
    pub fn for_commands(self, why: &'static str) -> Self {
        match self {
            Self::Runs(units) => Self::Commands(units, why),
            other => other,
        }
    }
}
