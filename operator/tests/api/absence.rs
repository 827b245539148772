//! What is deleted, comes back, or was never to go: nothing leaves a node but by a release.

use edict_core::layer::DeletionPolicy;
use futures::future::join_all;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::operator::Operator;
use super::script::Verb;

const POLICIES: [(&str, DeletionPolicy); 3] = [
    ("Restore", DeletionPolicy::Restore),
    ("RestoreForced", DeletionPolicy::RestoreForced),
    ("Retain", DeletionPolicy::Retain),
];

/// A node that has the `NodeConfig` "a", of this deletion policy, and "b".
async fn settled(test: &str, policy: &str) -> (Cluster, Agent, Operator) {
    let name = format!("{test}-{}", policy.to_lowercase());
    let cluster = Cluster::new(&name).await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({"spec": {"deletionPolicy": policy}}));
    cluster.config("b", &json!({}));
    let operator = cluster.operator("one");
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    (cluster, node, operator)
}

fn uid(cluster: &Cluster, resource: &str, name: &str) -> Value {
    cluster.get(resource, name)["metadata"]["uid"].clone()
}

/// Waits until "a" was given back by this policy.
async fn given_back(cluster: &Cluster, operator: &Operator, node: &Agent, policy: DeletionPolicy) {
    cluster
        .until(operator, SOON, || {
            let left = node.memory().given_back.clone();
            (!left.is_empty())
                .then_some(())
                .ok_or("nothing was given back".to_owned())
        })
        .await;
    cluster.settled(operator, &[("w", node)], &["b"]).await;
    assert_eq!(node.memory().given_back, [("a".to_owned(), policy)]);
}

#[tokio::test]
async fn a_deleted_node_state_is_made_again() {
    let (cluster, node, operator) = settled("state", "Restore").await;
    let (before, pushes) = (uid(&cluster, "nodestates", "w"), node.memory().pushes.len());
    cluster.delete("nodestates", "w");
    cluster.made_anew(&operator, "w", &before).await;
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    cluster.has_kept_everything(&[&node]);
    assert_eq!(node.memory().pushes.len(), pushes, "the node has it all");
}

/// What was accepted before can't be planned from what the `NodeConfig` says now.
#[tokio::test]
async fn a_deleted_node_state_loses_nothing_that_is_refused_by_now() {
    let (cluster, node, operator) = settled("refused", "Restore").await;
    let files = |path: &str| json!({"spec": {"files": [{"path": path, "content": "a"}]}});
    cluster.edit("nodeconfigs", "a", &files("/etc/shadow"));
    let a = ("nodeconfigs", "a");
    cluster.says(&operator, a, "Refused", |_| {}).await;
    cluster.delete("nodestates", "w");
    // The new one does not name it; the node does, and is told nothing before the NodeConfig was
    // asked for.
    cluster
        .until(&operator, SOON, || {
            let left = node.memory().given_back.clone();
            assert!(left.is_empty(), "{left:?} was given back");
            let state = cluster.get("nodestates", "w");
            let ready = state["status"]["state"] == "Ready"
                && state["status"]["observedGeneration"] == state["metadata"]["generation"];
            ready.then_some(()).ok_or(format!("{state:#}"))
        })
        .await;
    cluster.edit("nodeconfigs", "a", &files("/etc/edict/a"));
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    cluster.has_kept_everything(&[&node]);
}

/// Somebody took the finalizer away by hand.
#[tokio::test]
async fn a_config_that_vanished_is_released_after_it_was_asked_for() {
    join_all(POLICIES.map(async |(word, policy)| {
        let (cluster, node, operator) = settled("vanished", word).await;
        cluster.server.change(|state| {
            let key = super::cluster::key("nodeconfigs", "a");
            state
                .store
                .edit(&key, |object| object["metadata"]["finalizers"] = json!([]));
            state.store.delete(&key, None).unwrap();
        });
        given_back(&cluster, &operator, &node, policy).await;
        let asked = cluster.state().asked.clone();
        let read = asked
            .iter()
            .position(|one| one.verb == Verb::Get && one.resource == "nodeconfigs");
        let written = asked
            .iter()
            .rposition(|one| one.verb == Verb::Patch && one.resource == "nodestates");
        assert!(read.is_some() && read < written, "{read:?} {written:?}");
    }))
    .await;
}

/// One of the same name is another one.
#[tokio::test]
async fn a_config_that_was_made_anew_takes_the_place_of_the_one_before() {
    let (cluster, node, operator) = settled("anew", "Retain").await;
    cluster.server.change(|state| {
        let key = super::cluster::key("nodeconfigs", "a");
        state
            .store
            .edit(&key, |object| object["metadata"]["finalizers"] = json!([]));
        let mut object = state.store.delete(&key, None).unwrap();
        object["metadata"] = json!({});
        state.store.create(&key, object).unwrap();
    });
    cluster
        .until(&operator, SOON, || {
            let left = node.memory().given_back.clone();
            let expected = [("a".to_owned(), DeletionPolicy::Retain)];
            (left == expected)
                .then_some(())
                .ok_or(format!("{left:?} was given back"))
        })
        .await;
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
}

#[tokio::test]
async fn a_node_that_is_made_again_keeps_what_it_has() {
    let (cluster, node, operator) = settled("node", "Restore").await;
    cluster.delete("nodes", "w");
    cluster.register("w");
    let old = uid(&cluster, "nodestates", "w");
    let owner = uid(&cluster, "nodes", "w");
    cluster
        .until(&operator, SOON, || {
            let state = cluster.get("nodestates", "w");
            let owns = &state["metadata"]["ownerReferences"][0]["uid"];
            // The garbage collector comes when it likes, and as often as there is a state whose node
            // is gone: one may be made before the operator has heard of the node.
            if state["metadata"]["uid"] == old || (owns.is_string() && *owns != owner) {
                cluster.delete("nodestates", "w");
            }
            (*owns == owner)
                .then_some(())
                .ok_or(format!("its owner is {owns}, not {owner}"))
        })
        .await;
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    cluster.has_kept_everything(&[&node]);
}

#[tokio::test]
async fn a_node_that_was_away_gives_back_when_it_returns() {
    join_all(POLICIES.map(async |(word, policy)| {
        let (cluster, node, operator) = settled("away", word).await;
        node.go_away().await;
        cluster.delete("nodeconfigs", "a");
        cluster.gone(&operator, "a", |_| {}).await;
        let releases = cluster.get("nodestates", "w")["spec"]["releases"].clone();
        assert_eq!(releases[0]["policy"], word, "{releases}");
        node.come_back().await;
        given_back(&cluster, &operator, &node, policy).await;
    }))
    .await;
}

/// The node is taken out of the cluster; the garbage collector sees to its `NodeState`.
async fn remove(cluster: &Cluster, operator: &Operator, node: &Agent) {
    node.go_away().await;
    cluster.delete("pods", "edict-agent-w");
    cluster.delete("nodes", "w");
    no_nodes(cluster, operator, "b").await;
    cluster.delete("nodestates", "w");
}

/// It comes back, with what it had.
async fn add(cluster: &Cluster, node: &Agent) {
    cluster.register("w");
    node.come_back().await;
    cluster.run_agent("w", node);
}

/// Waits until the operator knows that there are no nodes for the `NodeConfig` as it is now.
async fn no_nodes(cluster: &Cluster, operator: &Operator, name: &str) {
    cluster
        .until(operator, SOON, || {
            let config = cluster.get("nodeconfigs", name);
            let status = &config["status"];
            let current = status["observedGeneration"] == config["metadata"]["generation"];
            (current && status["state"] == "NoNodes")
                .then_some(())
                .ok_or(format!("{name} is {status:#}"))
        })
        .await;
}

/// Not even the release is left; the agent knows the policy.
#[tokio::test]
async fn a_node_that_was_gone_gives_back_what_nobody_names() {
    join_all(POLICIES.map(async |(word, policy)| {
        let (cluster, node, operator) = settled("removed", word).await;
        remove(&cluster, &operator, &node).await;
        cluster.delete("nodeconfigs", "a");
        cluster.gone(&operator, "a", |_| {}).await;
        add(&cluster, &node).await;
        given_back(&cluster, &operator, &node, policy).await;
    }))
    .await;
}

/// It is not meant any more, and what said so is gone.
#[tokio::test]
async fn a_node_that_moved_while_it_was_gone_gives_back() {
    let (cluster, node, operator) = settled("moved", "Retain").await;
    remove(&cluster, &operator, &node).await;
    let elsewhere = json!({"spec": {"target": {"nodes": ["elsewhere"]}}});
    cluster.edit("nodeconfigs", "a", &elsewhere);
    no_nodes(&cluster, &operator, "a").await;
    add(&cluster, &node).await;
    cluster
        .until(&operator, SOON, || {
            let memory = node.memory();
            let (left, has) = (memory.given_back.clone(), memory.names());
            let right = left == [("a".to_owned(), DeletionPolicy::Retain)] && has == ["b"];
            right
                .then_some(())
                .ok_or(format!("it gave back {left:?} and has {has:?}"))
        })
        .await;
}
