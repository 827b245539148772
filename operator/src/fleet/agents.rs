//! The agents as an update sees them, from what the API server says. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edict_crds::{NodeState, name, uid};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use super::roll::Agent;
use super::trouble;

/// The label that says of which revision a pod is. Kubernetes, `DefaultDaemonSetUniqueLabelKey`.
const REVISION: &str = "controller-revision-hash";
/// The label with the same as a number. Kubernetes, `DaemonSetTemplateGenerationKey`.
const GENERATION: &str = "pod-template-generation";
/// The `DaemonSet`'s annotation with the present number. Kubernetes, `DeprecatedTemplateGeneration`.
const GENERATION_NOW: &str = "deprecated.daemonset.template.generation";

/// What agents are told from.
pub struct Observed {
    /// The agents' pods.
    pub pods: Vec<Arc<Pod>>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All `NodeState`s.
    pub states: Vec<Arc<NodeState>>,
    /// The revisions in Edict's namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
}

/// The agents of one `DaemonSet`.
#[derive(Debug, PartialEq)]
pub struct Agents {
    /// Each of its pods.
    pub all: Vec<Agent>,
    /// How many nodes should have an agent and have no pod yet.
    pub missing: usize,
}

/// The agents of `daemonset`; `None` as long as nobody can tell which are of its newest revision.
/// The pods whose uids are in `deleted` are ending, whatever was seen of them.
pub fn observe(
    daemonset: &DaemonSet,
    observed: &Observed,
    deleted: &BTreeSet<String>,
    now: Timestamp,
) -> Option<Agents> {
    let status = daemonset.status.as_ref()?;
    if status.observed_generation != daemonset.metadata.generation {
        return None;
    }
    let revisions = observed.revisions.iter();
    let newest = revisions
        .filter(|revision| is_of(&***revision, daemonset))
        .max_by_key(|revision| revision.revision)?;
    let newest = label(&**newest, REVISION)?;
    let annotations = daemonset.metadata.annotations.as_ref();
    let number = annotations.and_then(|all| all.get(GENERATION_NOW));
    let nodes: BTreeMap<_, _> = observed.nodes.iter().map(|n| (name(&**n), n)).collect();
    let states: BTreeMap<_, _> = observed.states.iter().map(|s| (name(&**s), s)).collect();
    let agent = |pod: &Pod| {
        let node = node_of(pod)?;
        let revision = label(pod, REVISION).unwrap_or_default();
        let state = states.get(node).and_then(|state| state.status.as_ref());
        // By the hash, which an earlier template that comes back brings along, or by the number,
        // which the pod tells before the revision is in the cache. Kubernetes, IsPodUpdated.
        let numbered = number.is_some() && label(pod, GENERATION) == number.map(String::as_str);
        Some(Agent {
            pod: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            resource_version: pod.metadata.resource_version.clone(),
            node: node.to_owned(),
            attended: nodes.get(node).is_some_and(|node| is_ready(node)),
            revision: revision.to_owned(),
            current: revision == newest || numbered,
            ending: pod.metadata.deletion_timestamp.is_some() || deleted.contains(uid(pod)),
            ready: trouble::condition(pod, "Ready").is_some_and(|ready| ready.status == "True"),
            contact: state.and_then(|state| state.state),
            trouble: trouble::of(pod, state, now),
        })
    };
    let pods = observed.pods.iter();
    let all: Vec<_> = pods
        .filter(|pod| is_of(&***pod, daemonset))
        .filter_map(|pod| agent(pod))
        .collect();
    let covered: BTreeSet<_> = all.iter().map(|agent| &agent.node).collect();
    let desired = usize::try_from(status.desired_number_scheduled).unwrap_or(0);
    Some(Agents {
        missing: desired.saturating_sub(covered.len()),
        all,
    })
}

/// Whether `object` belongs to this `DaemonSet`, and not to an earlier one of its name.
fn is_of<K: Resource>(object: &K, daemonset: &DaemonSet) -> bool {
    let mut owners = object.meta().owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid(daemonset))
}

fn label<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().labels.as_ref()?.get(key).map(String::as_str)
}

/// The node that an agent's pod runs on or, before it is bound, is meant for: its `DaemonSet`'s
/// controller says so in its affinity.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let terms = required.node_selector_terms.iter();
    let mut fields = terms.flat_map(|term| &term.match_fields).flatten();
    let field = fields.find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().map(String::as_str)
}

/// Whether the node's kubelet is there.
pub fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}
