//! The plan: which node is to run which revisions, and what leaves it. A pure function of what was
//! observed.
//!
//! For now every entitled node runs a new revision at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edict_core::guard::{Policy, Violation};
use edict_core::layer::DeletionPolicy;
use edict_crds::nodestate::{Contact, LayerRef, ReleaseRef};
use edict_crds::{FINALIZER, NodeConfig, NodeState, NodeStateSpec, name, uid};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::content::Sources;
use crate::revision::Revision;

/// What the plan is made from.
pub struct Observed {
    /// All `NodeConfig`s.
    pub configs: Vec<Arc<NodeConfig>>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All `NodeState`s.
    pub states: Vec<Arc<NodeState>>,
    /// Where `NodeConfig`s may write.
    pub policy: Policy,
    /// What they may refer to.
    pub sources: Sources,
    /// What is not listed and is gone indeed.
    pub gone: Gone,
}

/// What is gone by the API server's own word. That it is in no list says nothing: the list may be
/// older than it, or empty though it should not be.
#[derive(Debug, Default)]
pub struct Gone {
    /// Uids of `NodeConfig`s.
    pub configs: BTreeSet<String>,
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// The kind `NodeState` itself: none can be made, and none is waited for.
    pub states: bool,
}

/// Something that a `NodeState` names and that is in no list.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlisted {
    /// A `NodeConfig` that a node has.
    Config {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A node that has a `NodeConfig` that is deleted, of this name.
    Node(String),
    /// Every `NodeState`, where a `NodeConfig` is deleted.
    States,
}

/// What decides something by being gone, and is to be asked for.
pub fn unlisted(observed: &Observed) -> BTreeSet<Unlisted> {
    let mut unlisted = BTreeSet::new();
    if observed.states.is_empty() && observed.configs.iter().any(|config| is_leaving(config)) {
        unlisted.insert(Unlisted::States);
    }
    for state in &observed.states {
        for layer in &state.spec.layers {
            if !observed.lists_config(&layer.uid) {
                unlisted.insert(Unlisted::Config {
                    name: layer.name.clone(),
                    uid: layer.uid.clone(),
                });
            }
        }
        let mut leaving = observed.configs.iter().filter(|config| is_leaving(config));
        if !observed.lists_node(name(&**state))
            && leaving.any(|config| names(state, uid(&**config)))
        {
            unlisted.insert(Unlisted::Node(name(&**state).to_owned()));
        }
    }
    unlisted
}

impl Observed {
    fn lists_config(&self, uid: &str) -> bool {
        self.configs
            .iter()
            .any(|config| edict_crds::uid(&**config) == uid)
    }

    fn lists_node(&self, name: &str) -> bool {
        self.nodes
            .iter()
            .any(|node| edict_crds::name(&**node) == name)
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// `NodeConfig`s that need the finalizer before any node hears of them.
    pub adopt: Vec<String>,
    /// The current revisions, which have to be there, by uid of the `NodeConfig`.
    pub revisions: BTreeMap<String, Revision>,
    /// What each node is to run, where that differs from what stands there.
    pub states: Vec<Desired>,
    /// What the guard refuses, by uid of the `NodeConfig`.
    pub refused: BTreeMap<String, Vec<Violation>>,
    /// The nodes that each `NodeConfig` is for, by its uid.
    pub targets: BTreeMap<String, Vec<String>>,
    /// Nodes that still have to give something back, by uid of the leaving `NodeConfig`.
    pub holding: BTreeMap<String, Vec<String>>,
    /// Names of `NodeConfig`s that are deleted and that nothing holds any more.
    pub free: Vec<String>,
}

/// The spec that a node's `NodeState` is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name of the node.
    pub node: String,
    /// Uid of the node, which owns the `NodeState`.
    pub node_uid: String,
    /// The state that this was planned from: if it is no longer the current one, the plan is void.
    /// `None` where there is none yet.
    pub resource_version: Option<String>,
    /// The spec.
    pub spec: NodeStateSpec,
}

/// Plans.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for config in &observed.configs {
        if is_leaving(config) {
            continue;
        }
        if !is_adopted(config) {
            plan.adopt.push(name(&**config).to_owned());
        }
        let contents = observed.sources.contents(&config.spec.config);
        let violations = config.spec.config.check(&observed.policy, &contents);
        if violations.is_empty() {
            let revision = Revision::current(config, contents);
            plan.revisions.insert(uid(&**config).to_owned(), revision);
        } else {
            plan.refused.insert(uid(&**config).to_owned(), violations);
        }
        plan.targets.insert(uid(&**config).to_owned(), Vec::new());
    }

    let by_node: BTreeMap<_, _> = observed
        .states
        .iter()
        .map(|state| (name(&**state), &**state))
        .collect();
    for node in observed.nodes.iter().filter(|node| is_linux(node)) {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let state = by_node.get(name(&**node)).copied();
        let before = match state {
            Some(state) => state.spec.clone(),
            // Agents that have something still give it back when the kind is there again.
            None if observed.gone.states => NodeStateSpec::default(),
            None => forgotten(&observed.configs, name(&**node), &labels),
        };
        let (mut layers, mut plans) = (Vec::new(), Vec::new());
        for config in observed.configs.iter().filter(|one| !is_leaving(one)) {
            let uid = uid(&**config);
            let held = before.layers.iter().find(|layer| layer.uid == uid);
            if !config.spec.target.matches(name(&**node), &labels) {
                // Giving back is a change as well.
                layers.extend(held.filter(|_| config.is_plan()).cloned());
                continue;
            }
            plan.targets
                .entry(uid.to_owned())
                .or_default()
                .push(name(&**node).to_owned());
            match plan.revisions.get(uid) {
                Some(revision) if config.is_plan() => {
                    // Whoever asks for another try means what is to be in force.
                    layers.extend(held.cloned().map(|held| LayerRef {
                        retry: config.retry(),
                        ..held
                    }));
                    plans.push(layer(config, revision));
                }
                Some(revision) if is_adopted(config) => layers.push(layer(config, revision)),
                // What was accepted before stays in force.
                _ => layers.extend(held.cloned()),
            }
        }
        // So does what is in no list and may be there all the same.
        let stays = |layer: &&LayerRef| {
            !observed.lists_config(&layer.uid) && !observed.gone.configs.contains(&layer.uid)
        };
        layers.extend(before.layers.iter().filter(stays).cloned());
        for list in [&mut layers, &mut plans] {
            list.sort_by(|a, b| a.uid.cmp(&b.uid));
        }
        let spec = NodeStateSpec {
            releases: releases(&before, &layers, &observed.configs, &done(state)),
            layers,
            plans,
        };
        // A node that is away holds up no deletion.
        if !is_away(state) {
            for release in &spec.releases {
                let holding = plan.holding.entry(release.uid.clone()).or_default();
                holding.push(name(&**node).to_owned());
            }
        }
        if state.is_none() || spec != before {
            plan.states.push(Desired {
                node: name(&**node).to_owned(),
                node_uid: uid(&**node).to_owned(),
                resource_version: state.and_then(|state| state.metadata.resource_version.clone()),
                spec,
            });
        }
    }

    plan.free = free(observed, &plan);
    plan
}

/// Names of `NodeConfig`s that are deleted and that nothing holds any more.
fn free(observed: &Observed, plan: &Plan) -> Vec<String> {
    // A node counts only with what stands in the API server: a release that is merely planned may
    // still fail to be written.
    let unwritten: BTreeSet<&str> = plan
        .states
        .iter()
        .map(|desired| desired.node.as_str())
        .collect();
    let leaving = observed
        .configs
        .iter()
        .filter(|config| is_leaving(config) && is_adopted(config));
    let is_free = |config: &&Arc<NodeConfig>| {
        let uid = uid(&***config);
        let named = observed.states.iter().any(|state| {
            let node = name(&**state);
            let pending = unwritten.contains(node);
            let mut layers = state.spec.layers.iter().chain(&state.spec.plans);
            let layer = layers.any(|layer| layer.uid == uid);
            let lost = !observed.lists_node(node) && !observed.gone.nodes.contains(node);
            (layer && pending) || (lost && names(state, uid))
        });
        !named && !plan.holding.contains_key(uid)
    };
    leaving
        .filter(is_free)
        .map(|config| name(&**config).to_owned())
        .collect()
}

fn is_leaving(config: &NodeConfig) -> bool {
    config.metadata.deletion_timestamp.is_some()
}

fn is_adopted(config: &NodeConfig) -> bool {
    let mut finalizers = config.metadata.finalizers.iter().flatten();
    finalizers.any(|name| name == FINALIZER)
}

fn names(state: &NodeState, uid: &str) -> bool {
    let layers = state.spec.layers.iter().map(|layer| &layer.uid);
    let releases = state.spec.releases.iter().map(|release| &release.uid);
    layers.chain(releases).any(|named| named == uid)
}

/// What a node is to give back that has no `NodeState`: it may have had one, which somebody deleted
/// before that was done.
fn forgotten(
    configs: &[Arc<NodeConfig>],
    node: &str,
    labels: &BTreeMap<String, String>,
) -> NodeStateSpec {
    let left = configs.iter().filter(|config| {
        is_leaving(config) && is_adopted(config) && config.spec.target.matches(node, labels)
    });
    let releases = left.map(|config| ReleaseRef {
        uid: uid(&**config).to_owned(),
        name: name(&**config).to_owned(),
        policy: config.spec.deletion_policy.unwrap_or_default(),
    });
    NodeStateSpec {
        releases: releases.collect(),
        ..NodeStateSpec::default()
    }
}

/// Edict's agent runs on Linux. A node says what it is by a label that every kubelet sets.
fn is_linux(node: &Node) -> bool {
    let os = node
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("kubernetes.io/os"));
    os.is_none_or(|os| os == "linux")
}

fn layer(config: &NodeConfig, revision: &Revision) -> LayerRef {
    LayerRef {
        uid: uid(config).to_owned(),
        name: name(config).to_owned(),
        revision: revision.name.clone(),
        priority: config.spec.priority.unwrap_or(0),
        created: created(config),
        deletion_policy: config.spec.deletion_policy.unwrap_or_default(),
        restarts: config.spec.restarts.unwrap_or_default(),
        drift: config.spec.drift.unwrap_or_default(),
        retry: config.retry(),
    }
}

fn created(config: &NodeConfig) -> Time {
    let time = config.metadata.creation_timestamp.clone();
    time.unwrap_or(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
}

/// The releases that the agent has reported as done, in answer to exactly this spec.
fn done(state: Option<&NodeState>) -> BTreeSet<String> {
    let Some((state, status)) = state.and_then(|state| Some((state, state.status.as_ref()?)))
    else {
        return BTreeSet::new();
    };
    if status.observed_generation != state.metadata.generation {
        return BTreeSet::new();
    }
    let done = status.releases.iter().filter(|release| release.done);
    done.map(|release| release.uid.clone()).collect()
}

/// What leaves a node: what was leaving and is not gone yet, and what it was to have and is to have
/// no more.
fn releases(
    before: &NodeStateSpec,
    layers: &[LayerRef],
    configs: &[Arc<NodeConfig>],
    done: &BTreeSet<String>,
) -> Vec<ReleaseRef> {
    // As long as the NodeConfig is there, what it says now counts: a deletion that cannot go on is
    // freed by setting its policy to Retain.
    let policy = |uid: &str, stored: DeletionPolicy| {
        let config = configs
            .iter()
            .find(|config| edict_crds::uid(&***config) == uid);
        config.map_or(stored, |config| {
            config.spec.deletion_policy.unwrap_or_default()
        })
    };
    let stays = |uid: &str| layers.iter().any(|layer| layer.uid == uid);
    let earlier = before
        .releases
        .iter()
        .filter(|release| !done.contains(&release.uid))
        .map(|release| ReleaseRef {
            policy: policy(&release.uid, release.policy),
            ..release.clone()
        });
    let new = before.layers.iter().map(|layer| ReleaseRef {
        uid: layer.uid.clone(),
        name: layer.name.clone(),
        policy: policy(&layer.uid, layer.deletion_policy),
    });
    let mut releases: Vec<ReleaseRef> = Vec::new();
    for release in earlier.chain(new) {
        if !stays(&release.uid) && !releases.iter().any(|known| known.uid == release.uid) {
            releases.push(release);
        }
    }
    releases.sort_by(|a, b| a.uid.cmp(&b.uid));
    releases
}

/// Whether a node can't be reached. What was seen before its spec was written says nothing of now.
fn is_away(state: Option<&NodeState>) -> bool {
    let Some((state, status)) = state.and_then(|state| Some((state, state.status.as_ref()?)))
    else {
        return false;
    };
    state.metadata.generation.is_some()
        && status.observed_generation == state.metadata.generation
        && matches!(status.state, Some(Contact::Unreachable | Contact::NoAgent))
}

#[cfg(test)]
mod tests;
