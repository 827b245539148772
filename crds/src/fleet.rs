//! `Fleet`: the installation.

use edict_core::catalogue::Command;
use edict_core::guard::{Paths, Policy};
use edict_core::layer::Restarts;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The one name that a Fleet may have.
pub const NAME: &str = "default";
/// The finalizer that keeps a Fleet until what it brought up is gone.
pub const FINALIZER: &str = "edict.dev/fleet";
/// The condition that every agent runs, and is of the newest image.
pub const READY: &str = "Ready";

/// How Edict itself is installed on the nodes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "edict.dev",
    version = "v1alpha1",
    kind = "Fleet",
    plural = "fleets",
    category = "edict",
    status = "FleetStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "The Fleet is the installation: creating the one named default brings up an agent on every Linux node, with the certificates that it and the operator need. It also says where NodeConfigs may write.",
    validation = kube::core::Rule::new("self.metadata.name == 'default'").message("there is one Fleet, and its name is default"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "Ready when every agent runs as the Fleet says"),
    printcolumn(name = "Agents", type_ = "integer", json_path = ".status.agents", description = "Nodes that should have an agent"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready", description = "Nodes whose agent runs"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updated", description = "Nodes whose agent is what the Fleet says now"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1)
)]
pub struct FleetSpec {
    /// The agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    // kubectl explain shows the type's own text.
    /// Whether agents may tell systemd of their node to reload and restart units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    /// Where NodeConfigs may write files, and may not, beyond the tables that are built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Paths>,
    /// The commands that NodeConfigs may run on nodes, by name, each with typed parameters and limits. No
    /// other is ever run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub commands: Option<Vec<Command>>,
}

impl FleetSpec {
    /// What NodeConfigs may do.
    pub fn policy(&self) -> Policy {
        let paths = self.paths.clone().unwrap_or_default();
        Policy::new(paths, self.commands.clone().unwrap_or_default())
    }

    /// Whether agents need the host's systemd for commands.
    pub fn has_commands(&self) -> bool {
        self.commands
            .as_ref()
            .is_some_and(|commands| !commands.is_empty())
    }
}

/// How agents run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Image of the agent. If left out, the one that belongs to the operator's own release. When it
    /// changes, agents are replaced one after the other; one that does not come up halts that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Taints that agents tolerate. If left out, all of them: a node that keeps pods off needs its
    /// configuration too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Option<Vec<Toleration>>,
    /// CPU and memory of each agent. If left out, it asks for 10m and 16Mi and may have 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// How far the installation has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    // kubectl explain shows the type's own text.
    /// How far the installation has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Nodes that should have an agent.
    #[serde(default)]
    pub agents: u32,
    /// Nodes whose agent runs.
    #[serde(default)]
    pub ready: u32,
    /// Nodes whose agent is what the Fleet says now, and not of an image or with settings of before.
    #[serde(default)]
    pub updated: u32,
    /// Ready: every agent runs, and is what the Fleet says now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far the installation has come. Why stands in the condition Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Every agent runs, and is what the Fleet says now.
    Ready,
    /// Agents are on their way.
    Progressing,
    /// An agent that was replaced does not come up: no other is replaced until it does, or until the
    /// Fleet says something else.
    Halted,
    /// The Fleet is being deleted: agents, Service and certificates go.
    Removing,
}
