//! Requests that are answered with errors, late, or not at all.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::cluster::{Cluster, SOON};
use super::script::{Fault, Verb};

/// Another one has written the `NodeState` meanwhile, and the cache does not know.
#[tokio::test]
async fn a_plan_from_what_is_no_more_is_made_anew() {
    let (cluster, node, operator) = Cluster::running("stale").await;
    cluster
        .server
        .change(|state| state.script.hold("nodestates"));
    let labels = json!({"metadata": {"labels": {"somebody": "else"}}});
    cluster.edit("nodestates", "w", &labels);
    cluster.config("b", &json!({}));
    cluster
        .until(&operator, SOON, || {
            let asked = cluster.asked(Verb::Patch, "nodestates");
            let refused = asked.iter().find(|asked| asked.answer.starts_with("409"));
            refused
                .map(drop)
                .ok_or(format!("nothing was refused: {asked:?}"))
        })
        .await;
    cluster
        .server
        .change(|state| state.script.speak("nodestates"));
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    cluster.has_kept_everything(&[&node]);
}

#[tokio::test]
async fn who_is_told_when_to_come_again_comes_no_sooner() {
    let cluster = Cluster::new("later").await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({}));
    for (verb, resource) in [
        (Verb::List, "nodeconfigs"),
        (Verb::Create, "nodestates"),
        (Verb::Patch, "nodestates"),
        (Verb::Status, "nodestates"),
    ] {
        cluster.fault(2, verb, resource, Fault::Status(429, Some(2)));
    }
    let operator = cluster.operator("one");
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
    for (verb, resource) in [
        (Verb::List, "nodeconfigs"),
        (Verb::Create, "nodestates"),
        (Verb::Patch, "nodestates"),
        (Verb::Status, "nodestates"),
    ] {
        let asked = cluster.asked(verb, resource);
        for pair in asked[..3].windows(2) {
            let between = pair[1].at - pair[0].at;
            assert!(
                between >= Duration::from_secs(2),
                "{verb:?} {resource} {between:?}"
            );
        }
    }
}

#[tokio::test]
async fn errors_are_met_with_more_and_more_patience() {
    // How many of them go wrong: twice as many where a pass writes two.
    let cases = [
        (5, Verb::Patch, "nodeconfigs", 500),
        (10, Verb::Status, "nodeconfigs", 500),
        (5, Verb::Create, "controllerrevisions", 500),
        (5, Verb::Create, "nodestates", 500),
        (5, Verb::Create, "nodestates", 409),
        (5, Verb::Patch, "nodestates", 503),
        (10, Verb::Patch, "nodestates", 500),
        // The watcher begins with 800 ms.
        (3, Verb::List, "nodeconfigs", 500),
        (3, Verb::Watch, "nodeconfigs", 500),
    ];
    join_all(cases.map(async |(times, verb, resource, code)| {
        let name = format!("patience-{verb:?}-{resource}-{code}").to_lowercase();
        let (cluster, node, operator) = Cluster::running(&name).await;
        let before = cluster.asked(verb, resource).len();
        cluster.fault(times, verb, resource, Fault::Status(code, None));
        // All of it is asked for now.
        cluster.relist("nodeconfigs");
        cluster.config("b", &json!({}));
        let other = cluster.node("x").await;
        let both = [("w", &node), ("x", &other)];
        let all = ["a", "b"];
        cluster
            .settled_within(SOON * 2, &operator, &both, &all)
            .await;
        cluster.has_kept_everything(&[&node, &other]);
        // What is doubled from 250 ms on comes to eight seconds by then; changes come between, and
        // each makes a pass.
        let asked = &cluster.asked(verb, resource)[before..];
        let took = asked[times].at - asked[0].at;
        assert!(
            took > Duration::from_secs(1),
            "{name}: {times} more within {took:?}"
        );
    }))
    .await;
}

/// What can't be said to people holds up no node.
#[tokio::test]
async fn events_and_statuses_are_no_condition() {
    let cluster = Cluster::new("unsaid").await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({}));
    let always = usize::MAX;
    cluster.fault(always, Verb::Create, "events", Fault::Status(500, None));
    cluster.fault(
        always,
        Verb::Status,
        "nodeconfigs",
        Fault::Status(500, None),
    );
    cluster.fault(always, Verb::Status, "fleets", Fault::Status(500, None));
    let operator = cluster.operator("one");
    cluster
        .until(&operator, SOON, || {
            let names = node.memory().names();
            (names == ["a"])
                .then_some(())
                .ok_or(format!("it has {names:?}"))
        })
        .await;
    cluster.mend(Verb::Status, "nodeconfigs");
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
}

/// The request is carried out, the answer is lost, wholly or from the middle on.
#[tokio::test]
async fn writes_whose_answer_is_lost_are_not_done_twice() {
    join_all([Fault::Lost, Fault::Cut].map(async |fault| {
        let cluster = Cluster::new(&format!("{fault:?}").to_lowercase()).await;
        let node = cluster.node("w").await;
        cluster.config("a", &json!({}));
        for (verb, resource) in [
            (Verb::Create, "secrets"),
            (Verb::Create, "leases"),
            (Verb::Patch, "leases"),
            (Verb::Patch, "nodeconfigs"),
            (Verb::Status, "nodeconfigs"),
            (Verb::Create, "controllerrevisions"),
            (Verb::Create, "nodestates"),
            (Verb::Patch, "nodestates"),
            (Verb::Status, "nodestates"),
            (Verb::List, "nodes"),
            (Verb::Get, "leases"),
        ] {
            cluster.fault(1, verb, resource, fault);
        }
        let operator = cluster.operator("one");
        cluster.settled(&operator, &[("w", &node)], &["a"]).await;
        cluster.has_kept_everything(&[&node]);
        let pushes = node.memory().pushes.len();
        assert!(pushes <= 2, "{pushes} pushes");
    }))
    .await;
}

#[tokio::test]
async fn answers_that_are_late_are_waited_for() {
    let cluster = Cluster::new("late").await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({}));
    for (verb, resource) in [
        (Verb::List, "nodeconfigs"),
        (Verb::Watch, "nodestates"),
        (Verb::Patch, "nodeconfigs"),
        (Verb::Create, "nodestates"),
        (Verb::Patch, "nodestates"),
        (Verb::Status, "nodestates"),
    ] {
        cluster.fault(1, verb, resource, Fault::Slow(Duration::from_secs(2)));
    }
    let operator = cluster.operator("one");
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
    cluster.has_kept_everything(&[&node]);
    // Nothing of it was asked twice.
    for (verb, resource) in [
        (Verb::List, "nodeconfigs"),
        (Verb::Patch, "nodeconfigs"),
        (Verb::Create, "nodestates"),
    ] {
        let asked = cluster.asked(verb, resource);
        assert_eq!(asked.len(), 1, "{verb:?} {resource}: {asked:?}");
    }
}

/// A connection over which nothing comes any more: half of it is gone, and nobody says so.
#[tokio::test]
async fn requests_without_an_answer_are_given_up() {
    let cases = [
        (Verb::Create, "nodestates"),
        (Verb::Patch, "nodestates"),
        (Verb::Status, "nodestates"),
        (Verb::Get, "secrets"),
        (Verb::Create, "events"),
        (Verb::Watch, "nodeconfigs"),
    ];
    join_all(cases.map(async |(verb, resource)| {
        let cluster = Cluster::new(&format!("hangs-{verb:?}-{resource}").to_lowercase()).await;
        let node = cluster.node("w").await;
        cluster.config("a", &json!({}));
        cluster.fault(1, verb, resource, Fault::Silent);
        let operator = cluster.operator("one");
        let all = [("w", &node)];
        cluster
            .settled_within(SOON * 2, &operator, &all, &["a"])
            .await;
    }))
    .await;
}
