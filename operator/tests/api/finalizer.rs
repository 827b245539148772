//! A deleted `NodeConfig` goes: after every node that can be told has given it back, and whoever
//! can't be told does not hold it.

use futures::future::join_all;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::Cluster;
use super::operator::Operator;
use super::script::{Fault, Verb};

struct Case {
    cluster: Cluster,
    nodes: [Agent; 2],
    operator: Operator,
}

/// Two nodes that have the `NodeConfig` "a".
async fn case(test: &str) -> Case {
    let cluster = Cluster::new(&format!("finalizer-{test}")).await;
    let nodes = [cluster.node("v").await, cluster.node("w").await];
    cluster.config("a", &json!({}));
    let operator = cluster.operator("one");
    let both = [("v", &nodes[0]), ("w", &nodes[1])];
    cluster.settled(&operator, &both, &["a"]).await;
    Case {
        cluster,
        nodes,
        operator,
    }
}

impl Case {
    /// It goes in time, and not before the first node has given it back.
    async fn ends(&self) {
        let Self {
            cluster,
            nodes,
            operator,
        } = self;
        let first = |found: &Value| {
            let has = nodes[0].memory().names();
            let held = has.contains(&"a".to_owned());
            assert!(!found.is_null() || !held, "it is gone, and v has {has:?}");
        };
        cluster.gone(operator, "a", first).await;
    }
}

#[tokio::test]
async fn it_goes_when_everybody_has_given_it_back() {
    let case = case("plain").await;
    case.cluster.delete("nodeconfigs", "a");
    case.ends().await;
    assert_eq!(case.nodes[1].memory().names(), [""; 0]);
}

#[tokio::test]
async fn nodes_that_are_away_or_gone_do_not_hold_it() {
    let ways: [&[(&str, &str)]; 4] = [
        // Its agent does not answer, is not there, or the whole node is not.
        &[],
        &[("pods", "edict-agent-w")],
        &[("pods", "edict-agent-w"), ("nodes", "w")],
        &[
            ("pods", "edict-agent-w"),
            ("nodes", "w"),
            ("nodestates", "w"),
        ],
    ];
    join_all(ways.map(async |way| {
        let case = case(&format!("away-{}", way.len())).await;
        case.nodes[1].go_away().await;
        for (resource, name) in way {
            case.cluster.delete(resource, name);
        }
        case.cluster.delete("nodeconfigs", "a");
        case.ends().await;
    }))
    .await;
}

/// The agent is told, and takes its time; meanwhile what it was told is deleted by hand.
#[tokio::test]
async fn a_deleted_node_state_neither_holds_it_nor_lets_it_go() {
    let case = case("state").await;
    let Case {
        cluster,
        nodes,
        operator,
    } = &case;
    nodes[0].pause();
    let before = nodes[0].memory().pushes.len();
    cluster.delete("nodeconfigs", "a");
    cluster.pushed(operator, &nodes[0], before).await;
    let uid = cluster.get("nodestates", "v")["metadata"]["uid"].clone();
    cluster.delete("nodestates", "v");
    cluster.made_anew(operator, "v", &uid).await;
    // Another NodeConfig has come through: a pass was made since.
    cluster.config("b", &json!({"spec": {"target": {"nodes": ["w"]}}}));
    cluster.settled(operator, &[("w", &nodes[1])], &["b"]).await;
    let found = cluster.get("nodeconfigs", "a");
    assert!(
        !found.is_null(),
        "it is gone, and v has {:?}",
        nodes[0].memory().names()
    );
    nodes[0].resume();
    case.ends().await;
}

#[tokio::test]
async fn without_a_fleet_there_is_nobody_to_wait_for() {
    let case = case("fleet").await;
    let Case {
        cluster,
        nodes,
        operator,
    } = &case;
    for node in nodes {
        node.go_away().await;
    }
    for (resource, name) in [
        ("fleets", "default"),
        ("pods", "edict-agent-v"),
        ("pods", "edict-agent-w"),
    ] {
        cluster.delete(resource, name);
    }
    cluster.delete("nodeconfigs", "a");
    cluster.gone(operator, "a", |_| {}).await;
}

/// The nodes are there, and the list says that they are not.
#[tokio::test]
async fn an_empty_list_of_nodes_does_not_let_it_go() {
    let case = case("nodes").await;
    let Case {
        cluster,
        nodes,
        operator,
    } = &case;
    cluster.fault(1, Verb::List, "nodes", Fault::Empty);
    cluster.relist("nodes");
    cluster.listed_anew(operator, "nodes").await;
    cluster.config("b", &json!({}));
    let b = ("nodeconfigs", "b");
    cluster.says(operator, b, "NoNodes", |_| {}).await;
    cluster.delete("nodeconfigs", "a");
    let a = ("nodeconfigs", "a");
    let there = |found: &Value| {
        assert!(
            !found.is_null(),
            "it is gone, and v has {:?}",
            nodes[0].memory().names()
        );
    };
    cluster.says(operator, a, "Releasing", there).await;
    cluster.relist("nodes");
    case.ends().await;
}
