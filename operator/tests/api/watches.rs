//! Watches that are too old, end, are cut, or say nothing.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::script::{Fault, Verb};

/// What the operator watches.
pub const WATCHED: [&str; 9] = [
    "nodeconfigs",
    "nodestates",
    "fleets",
    "nodes",
    "pods",
    "controllerrevisions",
    "daemonsets",
    "secrets",
    "configmaps",
];

/// The content of the file in the last push.
fn content(agent: &Agent) -> Value {
    let memory = agent.memory();
    let config = memory
        .pushes
        .last()
        .map(|push| json!(push.layers[0].config));
    config.unwrap_or_default()["files"][0]["content"].clone()
}

#[tokio::test]
async fn versions_that_are_too_old_make_a_new_list_and_no_release() {
    let (cluster, node, operator) = Cluster::running("expired").await;
    cluster.server.change(|state| {
        for resource in WATCHED {
            state.script.close(resource);
        }
    });
    let files = json!([{"path": "/etc/edict/a", "content": "changed meanwhile"}]);
    cluster.edit("nodeconfigs", "a", &json!({"spec": {"files": files}}));
    for resource in WATCHED {
        cluster.relist(resource);
    }
    cluster
        .until(&operator, SOON, || {
            let has = content(&node);
            (has == "changed meanwhile")
                .then_some(())
                .ok_or(format!("it has {has}"))
        })
        .await;
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
    cluster.has_kept_everything(&[&node]);
    cluster
        .until(&operator, SOON, || {
            let lists = WATCHED.map(|resource| cluster.asked(Verb::List, resource).len());
            (lists == [2; 9])
                .then_some(())
                .ok_or(format!("there were {lists:?} lists"))
        })
        .await;
}

/// What is not in a new list any more is news too.
#[tokio::test]
async fn what_vanished_before_a_new_list_is_noticed() {
    let (cluster, node, operator) = Cluster::running("vanished").await;
    let uid = cluster.get("nodestates", "w")["metadata"]["uid"].clone();
    cluster.server.change(|state| {
        let key = super::cluster::key("nodestates", "w");
        state.store.delete(&key, None).unwrap();
        state.store.forget("nodestates");
        state.script.close("nodestates");
    });
    // The safety net would see it after a minute.
    cluster.made_anew(&operator, "w", &uid).await;
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
    cluster.has_kept_everything(&[&node]);
}

/// Some say it by the status of their answer.
#[tokio::test]
async fn a_watch_that_is_answered_gone_makes_a_new_list() {
    let (cluster, node, operator) = Cluster::running("gone").await;
    cluster.fault(
        usize::MAX,
        Verb::Watch,
        "nodeconfigs",
        Fault::Status(410, None),
    );
    cluster.relist("nodeconfigs");
    cluster.listed_anew(&operator, "nodeconfigs").await;
    cluster.mend(Verb::Watch, "nodeconfigs");
    cluster.config("b", &json!({}));
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    cluster.has_kept_everything(&[&node]);
}

#[tokio::test]
async fn a_watch_that_breaks_off_in_an_event_goes_on_with_that_event() {
    let (cluster, node, operator) = Cluster::running("torn").await;
    for resource in WATCHED {
        cluster.fault(2, Verb::Watch, resource, Fault::Cut);
        cluster.server.change(|state| state.script.close(resource));
    }
    for name in ["b", "c", "d"] {
        cluster.config(name, &json!({}));
    }
    let all = ["a", "b", "c", "d"];
    cluster.settled(&operator, &[("w", &node)], &all).await;
    cluster.has_kept_everything(&[&node]);
}

#[tokio::test]
async fn a_watch_that_ends_at_once_is_not_begun_all_the_time() {
    let (cluster, node, operator) = Cluster::running("ends").await;
    let before = cluster.asked(Verb::Watch, "nodeconfigs").len();
    cluster.fault(5, Verb::Watch, "nodeconfigs", Fault::Ended);
    cluster
        .server
        .change(|state| state.script.close("nodeconfigs"));
    cluster.config("b", &json!({}));
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    let asked = &cluster.asked(Verb::Watch, "nodeconfigs")[before..];
    let took = asked[5].at - asked[0].at;
    assert!(took > Duration::from_secs(2), "five more within {took:?}");
}

/// A watch over which nothing comes any more, not even its end.
#[tokio::test]
async fn watches_that_say_nothing_are_given_up() {
    join_all(
        ["nodeconfigs", "nodestates", "nodes", "pods"].map(async |resource| {
            let (cluster, node, operator) = Cluster::running(&format!("silent-{resource}")).await;
            cluster
                .server
                .change(|state| state.script.silence(resource));
            cluster.config("b", &json!({}));
            let other = cluster.node("x").await;
            cluster
                .until(&operator, SOON * 2, || {
                    let (one, two) = (node.memory().names(), other.memory().names());
                    let all = one == ["a", "b"] && two == ["a", "b"];
                    all.then_some(())
                        .ok_or(format!("{resource}: w has {one:?}, x has {two:?}"))
                })
                .await;
            cluster.has_kept_everything(&[&node, &other]);
        }),
    )
    .await;
}
