//! What became of commands.

use serde::{Deserialize, Serialize};

/// What became of a command on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandReport {
    /// Uid of the `NodeConfig` that runs it.
    pub uid: String,
    /// The `NodeConfig`'s name.
    pub owner: String,
    /// Digest of the revision that it is run for.
    pub digest: String,
    /// Which of the `NodeConfig`'s commands it is, from 0.
    pub index: u32,
    /// Its name in the catalogue.
    pub run: String,
    /// How far it is.
    pub outcome: CommandOutcome,
    /// Its exit code, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<jiff::Timestamp>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// What it said. Where that is more than is kept, its beginning and its end, and a mark between
    /// them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Why it ended as it did, in a sentence; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// It is not started yet.
    #[default]
    Waiting,
    /// It is about to be started, or runs.
    Running,
    /// It has ended with exit code 0.
    Succeeded,
    /// It has ended otherwise, or could not be started.
    Failed,
    /// It took longer than it may, and was ended.
    TimedOut,
    /// The node or the agent ended over it: how far it came is not known. It is not run again.
    Interrupted,
    /// One before it came to nothing, so it was not started.
    Skipped,
}

impl CommandOutcome {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }

    /// Whether it came to nothing.
    pub fn has_failed(self) -> bool {
        self.is_over() && self != Self::Succeeded
    }
}
