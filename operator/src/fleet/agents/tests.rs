#![expect(
    clippy::needless_pass_by_value,
    reason = "json!() reads best where it is written"
)]

use edict_crds::nodestate::Contact;
use serde_json::{Value, json};

use super::*;

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn owned(name: &str, owner: &str, labels: Value) -> Value {
    let owners = json!([{
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "edict-agent", "uid": owner, "controller": true,
    }]);
    json!({"name": name, "uid": format!("u-{name}"), "labels": labels, "ownerReferences": owners})
}

fn daemonset(generation: i64, observed: i64, template: &str) -> DaemonSet {
    let annotations = json!({"deprecated.daemonset.template.generation": template});
    let daemonset: Arc<DaemonSet> = object(json!({
        "metadata": {"uid": "ds", "generation": generation, "annotations": annotations},
        "status": {
            "observedGeneration": observed, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "numberMisscheduled": 0, "numberReady": 3,
        },
    }));
    (*daemonset).clone()
}

fn revision(name: &str, owner: &str, number: i64) -> Arc<ControllerRevision> {
    let labels = json!({"controller-revision-hash": name});
    object(json!({"metadata": owned(name, owner, labels), "revision": number}))
}

/// A pod of the node `node` with these labels, ready unless told otherwise.
fn pod(node: &str, owner: &str, hash: &str, number: &str) -> Value {
    let labels = json!({"controller-revision-hash": hash, "pod-template-generation": number});
    json!({
        "metadata": owned(&format!("p-{node}"), owner, labels),
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn node(name: &str, ready: &str) -> Arc<Node> {
    let conditions = json!([{"type": "Ready", "status": ready}]);
    object(json!({"metadata": {"name": name}, "status": {"conditions": conditions}}))
}

fn state(name: &str, contact: &str) -> Arc<NodeState> {
    object(json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeState",
        "metadata": {"name": name}, "spec": {}, "status": {"state": contact},
    }))
}

fn observed(pods: Vec<Value>) -> Observed {
    Observed {
        pods: pods.into_iter().map(object).collect(),
        nodes: vec![node("a", "True"), node("b", "True"), node("c", "Unknown")],
        states: vec![state("a", "Ready"), state("b", "Unreachable")],
        revisions: vec![
            revision("one", "ds", 1),
            revision("two", "ds", 2),
            revision("other", "earlier", 9),
        ],
    }
}

fn seen(daemonset: &DaemonSet, observed: &Observed) -> Option<Agents> {
    let now = Timestamp::UNIX_EPOCH;
    observe(
        daemonset,
        observed,
        &BTreeSet::from(["u-p-gone".to_owned()]),
        now,
    )
}

fn current(daemonset: &DaemonSet, observed: &Observed) -> Vec<bool> {
    let agents = seen(daemonset, observed).unwrap();
    agents.all.iter().map(|agent| agent.current).collect()
}

#[test]
fn the_newest_revision_is_that_of_the_highest_number() {
    let pods = || vec![pod("a", "ds", "one", "1"), pod("b", "ds", "two", "2")];
    let mut observed = observed(pods());
    assert_eq!(current(&daemonset(2, 2, "2"), &observed), [false, true]);
    // Back to the earlier template: Kubernetes gives its revision a new number.
    observed.revisions[0] = revision("one", "ds", 3);
    assert_eq!(current(&daemonset(3, 3, "3"), &observed), [true, false]);
    // The revision of what the third pod was made from is not in the cache yet.
    observed.pods.push(object(pod("c", "ds", "three", "4")));
    assert!(current(&daemonset(4, 4, "4"), &observed)[2]);
}

#[test]
fn before_the_controller_has_seen_a_change_nothing_is_told() {
    let mut observed = observed(vec![]);
    assert_eq!(seen(&daemonset(2, 1, "1"), &observed), None);
    assert_eq!(seen(&DaemonSet::default(), &observed), None);
    observed.revisions.retain(|one| name(&**one) == "other");
    assert_eq!(seen(&daemonset(1, 1, "1"), &observed), None);
}

#[test]
fn an_agent_is_where_its_pod_is_or_will_be() {
    let term =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]});
    let required = json!({"nodeSelectorTerms": [term]});
    let affinity =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    let unbound = json!({
        "metadata": owned("p-c", "ds", json!({})),
        "spec": {"containers": [], "affinity": affinity},
    });
    let of_another = pod("b", "earlier", "other", "1");
    let nowhere = json!({"metadata": owned("p", "ds", json!({})), "spec": {"containers": []}});
    let observed = observed(vec![
        pod("a", "ds", "two", "2"),
        unbound,
        of_another,
        nowhere,
    ]);
    let agents = seen(&daemonset(1, 1, "2"), &observed).unwrap();
    let nodes: Vec<_> = agents.all.iter().map(|agent| &*agent.node).collect();
    assert_eq!(nodes, ["a", "c"]);
    assert_eq!(agents.missing, 1);
    let waits = &agents.all[1];
    assert!(
        !waits.ready && !waits.attended && !waits.current,
        "{waits:?}"
    );
}

#[test]
fn an_agent_is_as_kubelet_and_operator_say() {
    let mut ends = pod("a", "ds", "two", "2");
    ends["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut unready = pod("b", "ds", "two", "2");
    unready["status"]["conditions"][0]["status"] = json!("False");
    let mut deleted = pod("c", "ds", "two", "2");
    deleted["metadata"]["uid"] = json!("u-p-gone");
    deleted["metadata"]["resourceVersion"] = json!("7");
    let observed = observed(vec![ends, unready, deleted]);
    let agents = seen(&daemonset(1, 1, "2"), &observed).unwrap();
    let facts = |agent: &Agent| (agent.attended, agent.ending, agent.ready, agent.contact);
    let facts: Vec<_> = agents.all.iter().map(facts).collect();
    assert_eq!(
        facts,
        [
            (true, true, true, Some(Contact::Ready)),
            (true, false, false, Some(Contact::Unreachable)),
            (false, true, true, None),
        ]
    );
    let last = &agents.all[2];
    assert_eq!((&*last.pod, &*last.uid), ("p-c", "u-p-gone"));
    assert_eq!(last.resource_version.as_deref(), Some("7"));
}
