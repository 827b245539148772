//! What is only planned is asked for, said, and pushed to nobody.

use std::time::{Duration, Instant};

use edict_core::wire::{DriftOutcome, Drifted};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::operator::Operator;

/// An agent that answers is asked every ten seconds.
const WHILE: Duration = Duration::from_secs(5);

/// Waits until the agent was asked so often, and says what the last question was about.
async fn asked(cluster: &Cluster, operator: &Operator, node: &Agent, times: usize) -> Vec<String> {
    cluster
        .until(operator, SOON, || {
            let plans = &node.memory().plans;
            let last = plans.last().filter(|_| plans.len() >= times);
            let layers = last.map(|push| push.layers.iter().map(|layer| layer.name.clone()));
            layers
                .map(Iterator::collect)
                .ok_or(format!("asked {} times", plans.len()))
        })
        .await
}

#[tokio::test]
async fn it_is_asked_for_and_said_and_nothing_is_pushed() {
    let (cluster, node, operator) = Cluster::running("plan").await;
    cluster.config("b", &json!({"spec": {"mode": "Plan"}}));
    let b = ("nodeconfigs", "b");
    cluster.says(&operator, b, "Planned", |_| {}).await;
    let config = cluster.get("nodeconfigs", "b");
    assert_eq!(config["status"]["message"], "w: would change 1 file");
    assert_eq!(config["status"]["pending"], 1);
    let plans = cluster.get("nodestates", "w")["status"]["plans"].clone();
    assert_eq!(plans[0]["name"], "b");
    assert_eq!(plans[0]["outcome"], "Changes");
    assert_eq!(plans[0]["diff"], "+b\n");
    assert_eq!(asked(&cluster, &operator, &node, 1).await, ["b"]);
    assert_eq!(node.memory().names(), ["a"]);
    let pushed = |name: &str| {
        let memory = node.memory();
        let mut layers = memory.pushes.iter().flat_map(|push| &push.layers);
        layers.any(|layer| layer.name == name)
    };
    assert!(!pushed("b"));

    // The node is another one since.
    let before = node.memory().plans.len();
    node.drifts(Drifted {
        path: "/etc/edict/a".to_owned(),
        key: None,
        owner: "a".to_owned(),
        what: "it says something else".to_owned(),
        at: Timestamp::now(),
        outcome: DriftOutcome::Corrected,
        times: 1,
        message: String::new(),
    });
    asked(&cluster, &operator, &node, before + 1).await;

    // What is in force is not given back because something else is planned.
    cluster.edit("nodeconfigs", "a", &json!({"spec": {"mode": "Plan"}}));
    let a = ("nodeconfigs", "a");
    cluster.says(&operator, a, "Planned", |_| {}).await;
    assert_eq!(node.memory().names(), ["a"]);
    assert_eq!(node.memory().given_back, []);

    // Planned no more, it is pushed.
    for name in ["a", "b"] {
        cluster.edit("nodeconfigs", name, &json!({"spec": {"mode": Value::Null}}));
    }
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    let plans = cluster.get("nodestates", "w")["status"]["plans"].clone();
    assert!(plans.is_null(), "{plans}");
    cluster.has_kept_everything(&[&node]);
}

/// An agent of a release before can't be asked: that is said, and written once.
#[tokio::test]
async fn what_can_not_be_asked_any_more_is_said_once() {
    let (cluster, node, operator) = Cluster::running("plan-old").await;
    cluster.config("b", &json!({"spec": {"mode": "Plan"}}));
    let b = ("nodeconfigs", "b");
    cluster.says(&operator, b, "Planned", |_| {}).await;
    node.memory().plans_nothing = true;
    cluster.edit("nodeconfigs", "a", &json!({"spec": {"priority": 1}}));
    cluster.says(&operator, b, "Failed", |_| {}).await;
    let message = cluster.get("nodeconfigs", "b")["status"]["message"].clone();
    assert!(
        message.to_string().contains("plans nothing yet"),
        "{message}"
    );
    // What it writes wakes it once or twice; after that it asks no sooner than it has to.
    let (began, looks) = (Instant::now(), node.memory().hellos);
    cluster
        .until(&operator, SOON, || {
            let elapsed = began.elapsed();
            (elapsed > WHILE)
                .then_some(())
                .ok_or(format!("{elapsed:?}"))
        })
        .await;
    let looks = node.memory().hellos - looks;
    assert!(looks <= 4, "{looks} looks within {WHILE:?}");
}
