//! `NodeState`: what one node should have, and has.

use edict_core::layer::{DeletionPolicy, Drift, Restarts};
use edict_core::retry::Retry;
use edict_core::wire::{CommandOutcome, DriftOutcome, Drifted, LayerReport, Outcome, Written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one node should run. Written by Edict's operator only.
// spec: the rollout controller. status: the node controller.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "edict.dev",
    version = "v1alpha1",
    kind = "NodeState",
    plural = "nodestates",
    shortname = "nst",
    category = "edict",
    status = "NodeStateStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A NodeState says what the node of its name should have and what it has: each NodeConfig's outcome, and each file and key with its owner. Edict's operator writes it; read it, don't edit it.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Whether the node's agent answers"
    ),
    printcolumn(
        name = "Configs",
        type_ = "string",
        json_path = ".status.configs",
        description = "The NodeConfigs that are in force on this node"
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.agentVersion",
        description = "Release of the node's agent"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
pub struct NodeStateSpec {
    // All lists are written also when they are empty: what is absent reads as not planned yet.
    /// The revisions of NodeConfigs that this node should run.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub layers: Vec<LayerRef>,
    /// The NodeConfigs that leave this node; each stays here until the node's agent has given back
    /// what it had.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub releases: Vec<ReleaseRef>,
    /// The revisions of NodeConfigs of which the node is only to say what they would change.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub plans: Vec<LayerRef>,
}

/// A revision of a NodeConfig that a node should run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerRef {
    /// The NodeConfig's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The NodeConfig's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Name of the ControllerRevision.
    #[schemars(length(max = 253))]
    pub revision: String,
    /// The NodeConfig's priority.
    pub priority: i32,
    /// When the NodeConfig was created.
    pub created: Time,
    /// What becomes of its files and keys when it leaves.
    pub deletion_policy: DeletionPolicy,
    /// Whether units are restarted for it: Allowed, which is meant where it is absent, or Never.
    #[serde(default, skip_serializing_if = "Restarts::is_allowed")]
    #[schemars(with = "Option<Restarts>")]
    pub restarts: Restarts,
    /// What becomes of what somebody else changes: Correct, which is meant where it is absent, or Report.
    #[serde(default, skip_serializing_if = "Drift::is_correct")]
    #[schemars(with = "Option<Drift>")]
    pub drift: Drift,
    /// Digest of what the NodeConfig's annotation edict.dev/retry says: another one means another
    /// try where it is held. Absent where there is no such annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A NodeConfig that leaves a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRef {
    /// The NodeConfig's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The NodeConfig's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What becomes of its files and keys.
    pub policy: DeletionPolicy,
}

/// What a node has, as its agent said last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStateStatus {
    /// The generation of the spec that the agent was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether the node's agent answers: Ready, Unreachable, NoAgent or AgentTooOld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Contact>,
    /// Why it does not, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// Names of the NodeConfigs that are in force on this node, for kubectl get.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub configs: String,
    /// Release of the node's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
    /// When the agent last took a desired state, or came back after it could not be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<Time>,
    /// What became of each NodeConfig here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub layers: Vec<LayerStatus>,
    /// What became of each NodeConfig that leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub releases: Vec<ReleaseStatus>,
    /// The files and keys that Edict has on this node, and whose they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourceStatus>,
    /// How many more resources there are than are listed here, to keep this object small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources_cut: Option<u32>,
    /// What NodeConfigs of mode Plan would change here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub plans: Vec<PlanStatus>,
    /// What somebody else has changed on this node of what Edict has there: what differs now, and what
    /// was corrected within the last hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub drift: Vec<DriftStatus>,
    /// What became of the commands of the NodeConfigs that are in force, in the order in which they are
    /// run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub commands: Vec<CommandStatus>,
}

/// What became of a command on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandStatus {
    /// Name of the NodeConfig that runs it.
    #[schemars(length(max = 253))]
    pub owner: String,
    /// Digest of the revision that it is run for: of each it is run once.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// Which of the NodeConfig's commands it is, from 0.
    pub index: u32,
    /// Its name in the Fleet's spec.commands.
    #[schemars(length(max = 63))]
    pub run: String,
    /// How far it is: Waiting; Running; Succeeded, its exit code is 0; Failed, for the reason in message;
    /// TimedOut; Interrupted, since the node or its agent ended over it, and not run again; or Skipped,
    /// since one before it came to nothing.
    #[schemars(with = "String", length(max = 32))]
    pub outcome: CommandOutcome,
    /// Its exit code; absent where it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<i64>,
    /// What it said, credentials masked. Where that is more than is kept, its beginning and its end, and
    /// a mark between them. All outputs of a node together have 48 KiB here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65_536))]
    pub output: String,
    /// Why it ended as it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// Something that somebody else has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Path of the file, symlinks resolved.
    #[schemars(length(max = 512))]
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub key: Option<String>,
    /// Name of the NodeConfig that owns it.
    #[schemars(length(max = 253))]
    pub owner: String,
    /// What differs, in a sentence.
    #[schemars(length(max = 4096))]
    pub what: String,
    /// When that was seen.
    pub at: Time,
    /// What became of it: Corrected; Reported, since the NodeConfig says so; Damped, left for a while
    /// since somebody changes it again and again; or Failed, for the reason in message.
    #[schemars(with = "String", length(max = 32))]
    pub outcome: DriftOutcome,
    /// How often it was corrected within the last ten minutes.
    pub times: u32,
    /// Why it could not be corrected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
}

impl DriftStatus {
    /// What an agent says of it; `cut` keeps texts within bounds.
    pub fn of(drifted: &Drifted, cut: &dyn Fn(&str) -> String) -> Self {
        Self {
            path: drifted.path.clone(),
            key: drifted.key.clone(),
            owner: drifted.owner.clone(),
            what: cut(&drifted.what),
            at: Time(drifted.at),
            outcome: drifted.outcome,
            times: drifted.times,
            message: cut(&drifted.message),
        }
    }

    /// Whether the other one says nothing new. An agent that starts anew finds what is left as it is once
    /// more; what it has corrected it has corrected once more.
    pub fn is_same(&self, other: &Self) -> bool {
        let at = match self.outcome {
            DriftOutcome::Corrected => &self.at,
            _ => &other.at,
        };
        let known = Self {
            at: at.clone(),
            ..self.clone()
        };
        known == *other
    }

    /// The same in a sentence.
    pub fn sentence(&self) -> String {
        let Self {
            path,
            owner,
            what,
            message,
            ..
        } = self;
        let key = self.key.as_ref().map(|key| format!(", key {key}"));
        let key = key.unwrap_or_default();
        let became = match self.outcome {
            DriftOutcome::Corrected if self.times > 1 => {
                format!("corrected, {} times lately", self.times)
            }
            DriftOutcome::Corrected => "corrected".to_owned(),
            DriftOutcome::Damped => {
                "left for a while, since somebody changes it again and again: find out who does"
                    .to_owned()
            }
            DriftOutcome::Failed => format!("could not be corrected: {message}"),
            DriftOutcome::Reported => "left, since spec.drift is Report".to_owned(),
        };
        format!("somebody else has changed {path}{key} of NodeConfig {owner}: {what}; {became}")
    }
}

/// Whether a node's agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Contact {
    /// It answers.
    Ready,
    /// There is an agent, and it does not answer.
    Unreachable,
    /// No agent runs on the node.
    NoAgent,
    /// The agent does not know something that the operator would have to send.
    AgentTooOld,
}

/// What became of one NodeConfig on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerStatus {
    /// The NodeConfig's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The NodeConfig's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the revision that the agent was given.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// The priority that the agent was given it with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What the agent was told to do with its files and keys when it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Whether the agent was told to restart units for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    /// What the agent was told to do when somebody else changes something of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Which try the agent was asked for last, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Digest of the revision that is in force: the last good one where the given one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub in_force: Option<String>,
    /// How it ended.
    pub outcome: OutcomeStatus,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// What another NodeConfig has that this one wanted too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub conflicts: Vec<ConflictStatus>,
    /// The systemd units that still run with what they read before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub pending: Vec<String>,
}

/// How a NodeConfig ended on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OutcomeStatus {
    /// All of it that does not collide with another NodeConfig is in force.
    Applied,
    /// All of it that does not collide is in force; its commands have yet to end.
    Running,
    /// The files are written; a unit has yet to reread them.
    PendingReload,
    /// The files are written; a unit has yet to be restarted, which spec.restarts of the NodeConfig or
    /// of the Fleet does not allow.
    PendingRestart,
    /// The files are written; a program on the node is set up not to read them.
    Unread,
    /// All of it that does not collide is in force; a command came to nothing, and is not run again for
    /// this revision.
    CommandFailed,
    /// The node's agent refused it: nothing of it was written.
    Refused,
    /// It could not be applied and is tried again.
    Failed,
    /// It could not be applied and the node was put back. It is tried again when it changes or when
    /// the NodeConfig's annotation edict.dev/retry gets a new value.
    Held,
}

/// What a NodeConfig of mode Plan would change on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// The NodeConfig's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The NodeConfig's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Name of the ControllerRevision.
    #[schemars(length(max = 253))]
    pub revision: String,
    /// How it would end.
    pub outcome: PlanOutcome,
    /// The same in a sentence: how many files, which units, and why not where it would fail.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// What another NodeConfig has that this one would want too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub conflicts: Vec<ConflictStatus>,
    /// The systemd units that would be told, each with what: docker.service: reload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 300)), extend("x-kubernetes-list-type" = "atomic"))]
    pub units: Vec<String>,
    /// What would change, a unified diff for each file. Credentials are masked, and a file that comes from
    /// a Secret, or that not everybody may read, is only named. All diffs of a node together have
    /// 64 KiB; what is left out says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 100_000))]
    pub diff: String,
    /// The commands that would be run, in this order, each with its program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub commands: Vec<String>,
}

/// How a NodeConfig of mode Plan would end on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlanOutcome {
    /// Something would change.
    Changes,
    /// Nothing would change.
    Unchanged,
    /// The node's agent would refuse it.
    Refused,
    /// It could not be applied.
    Failed,
}

/// Something that another NodeConfig has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConflictStatus {
    /// Path of the file.
    #[schemars(length(max = 512))]
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub key: Option<String>,
    /// Name of the NodeConfig that has it.
    #[schemars(length(max = 253))]
    pub winner: String,
}

/// What became of one NodeConfig that leaves a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The NodeConfig's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The NodeConfig's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Whether it is gone from the node.
    pub done: bool,
    /// Why it is not, or what was left alone, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// One file or key that Edict has on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// Path of the file, symlinks resolved.
    #[schemars(length(max = 512))]
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub key: Option<String>,
    /// Name of the NodeConfig that owns it.
    #[schemars(length(max = 253))]
    pub owner: String,
    /// How it was written last: Replaced, InPlace (the path is a mount point) or Unchanged (it said
    /// so already).
    #[schemars(length(max = 32))]
    pub result: String,
}

impl From<&LayerReport> for OutcomeStatus {
    fn from(report: &LayerReport) -> Self {
        match report.outcome {
            Outcome::Applied => Self::Applied,
            Outcome::PendingReload if report.restart => Self::PendingRestart,
            Outcome::PendingReload => Self::PendingReload,
            Outcome::Unread => Self::Unread,
            Outcome::Refused => Self::Refused,
            Outcome::Failed if report.held => Self::Held,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl ResourceStatus {
    /// The word for how a file was written.
    pub fn result(written: Written) -> String {
        match written {
            Written::Replaced => "Replaced",
            Written::InPlace => "InPlace",
            Written::Unchanged => "Unchanged",
        }
        .to_owned()
    }
}
