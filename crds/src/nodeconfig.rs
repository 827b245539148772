//! `NodeConfig`: what people want of their nodes.

use edict_core::config::Config;
use edict_core::layer::{DeletionPolicy, Drift, Mode, Restarts};
use edict_core::retry::{self, Retry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::target::Target;

/// The most nodes that a status names: all of them stand in the NodeStates.
pub const NODES_MAX: usize = 50;

/// What some nodes are to have on their disk.
// Written by people; its status by the rollout controller.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "edict.dev",
    version = "v1alpha1",
    kind = "NodeConfig",
    plural = "nodeconfigs",
    shortname = "nc",
    category = "edict",
    status = "NodeConfigStatus",
    derive = "PartialEq",
    doc = "A NodeConfig says what some nodes of the cluster are to have under /etc, and which nodes. Deleting it gives every one of them back as it was.",
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Where this NodeConfig stands over all of its nodes"
    ),
    printcolumn(
        name = "Targeted",
        type_ = "integer",
        json_path = ".status.targeted",
        description = "Nodes that it is for"
    ),
    printcolumn(
        name = "Applied",
        type_ = "integer",
        json_path = ".status.applied",
        description = "Nodes that have it, and use it"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        priority = 1,
        description = "Nodes that are on the way, or have the files but still use what was there before"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.failed",
        description = "Nodes that could not or would not apply it"
    ),
    printcolumn(
        name = "Unreachable",
        type_ = "integer",
        json_path = ".status.unreachable",
        description = "Nodes that can't be reached; they catch up by themselves"
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": Config::BLOCKS.map(|block| format!("has(self.{block})")).join(" || "),
    "message": Config::nothing(),
}]))]
pub struct NodeConfigSpec {
    /// Which nodes the configuration is for. What is given must all hold: role Worker together with
    /// a selector means the workers that the selector matches.
    pub target: Target,
    /// Where two NodeConfigs set the same file or key, the one with the higher priority wins; among
    /// equals the older one. What does not collide applies all the same. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: Option<i32>,
    // kubectl explain shows the type's own text.
    /// What becomes of the files and keys when the NodeConfig leaves a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    // The same.
    /// Whether programs on the nodes are restarted where that is what it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    // The same.
    /// What becomes of it when somebody else changes on a node what Edict has written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    // The same.
    /// Whether the configuration is brought to the nodes, or only what it would change is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The configuration itself.
    #[serde(flatten)]
    pub config: Config,
}

impl NodeConfig {
    /// Whether it is only planned.
    pub fn is_plan(&self) -> bool {
        self.spec.mode.unwrap_or_default().is_plan()
    }

    /// Which try its annotation asks for, if it has one.
    pub fn retry(&self) -> Option<Retry> {
        let annotations = self.metadata.annotations.as_ref()?;
        Some(Retry::of(annotations.get(retry::ANNOTATION)?))
    }
}

/// How far a NodeConfig has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfigStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where this NodeConfig stands over all of its nodes: Applied, Planned, PendingReload, PendingRestart, Unread,
    /// Progressing, Unreachable, CommandFailed, Failed, Held, Refused, NoNodes or Releasing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// Nodes that it is for.
    #[serde(default)]
    pub targeted: u32,
    /// Nodes that have it, and use it. Where it is only planned: nodes that it would change nothing on.
    #[serde(default)]
    pub applied: u32,
    /// Nodes that are on the way, or have the files but still use what was there before. Where it is only
    /// planned: nodes that it would change something on.
    #[serde(default)]
    pub pending: u32,
    /// Nodes that could not or would not apply it, which are as they were before, and nodes where a
    /// command of it came to nothing.
    #[serde(default)]
    pub failed: u32,
    /// Nodes that can't be reached. They catch up by themselves.
    #[serde(default)]
    pub unreachable: u32,
    /// The name of the current revision, a ControllerRevision in Edict's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The nodes that are not there yet, and why: 50 at most, the worst first. Everything about a
    /// node stands in the NodeState of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeSummary>,
    /// Accepted: the configuration passed all rules. Ready: every node has it and uses it.
    /// Conflict: another NodeConfig has some of what this one wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A node that does not have a NodeConfig yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Where the node stands.
    pub state: State,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Where a NodeConfig stands, on one node or over all of them. Sorted: the worst last.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum State {
    /// In force.
    Applied,
    /// It is for no node of the cluster.
    NoNodes,
    /// Its mode is Plan: what it would change is said, and nothing is written.
    Planned,
    /// The files are written; a daemon has yet to reread them.
    PendingReload,
    /// The files are written; a daemon has yet to be restarted.
    PendingRestart,
    /// The files are written; a program on the node is set up not to read them.
    Unread,
    /// On the way.
    Progressing,
    /// It is being deleted, and nodes are being given back.
    Releasing,
    /// The node can't be reached, or has no agent yet; it catches up by itself.
    Unreachable,
    /// It is in force; a command of it came to nothing, and is not run again for this revision.
    CommandFailed,
    /// The node could not apply it, and it is tried again.
    Failed,
    /// The node could not apply it and was put back. It is tried again when the NodeConfig's
    /// configuration changes, or its annotation edict.dev/retry gets a new value.
    Held,
    /// The configuration breaks a rule; nothing of it was written.
    Refused,
}

/// The types of conditions.
pub mod condition {
    /// The configuration passed all rules.
    pub const ACCEPTED: &str = "Accepted";
    /// Every node has it and uses it.
    pub const READY: &str = "Ready";
    /// Another `NodeConfig` has some of what this one wants.
    pub const CONFLICT: &str = "Conflict";
}
