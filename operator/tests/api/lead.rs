//! Leading, and what is done when that is over.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::operator::Operator;
use super::script::{Fault, Verb};

/// Long enough for a Lease of 15 s to run out, and for that to be seen.
const LOST: Duration = Duration::from_secs(45);

async fn leading(test: &str) -> (Cluster, Agent, Operator) {
    Cluster::running(&format!("lead-{test}")).await
}

fn lease(cluster: &Cluster) -> Value {
    cluster.get("leases", "edict-operator")
}

/// Another operator has the Lease.
fn take(cluster: &Cluster) {
    let now = Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string();
    let spec = json!({"holderIdentity": "other", "renewTime": now, "leaseDurationSeconds": 15});
    cluster.edit("leases", "edict-operator", &json!({"spec": spec}));
}

async fn ends(cluster: &Cluster, operator: &mut Operator, why: &str) {
    let status = operator.end(LOST).await;
    let said = operator.said();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default().to_owned();
    let all = format!("{said}\n");
    assert!(all.contains(&format!("leads no more: {why}")), "{last}");
    // What another one holds by now is not let go of.
    let holder = lease(cluster)["spec"]["holderIdentity"].clone();
    assert!(
        holder == "other" || holder == "one",
        "{holder} holds the Lease"
    );
}

#[tokio::test]
async fn who_does_not_lead_any_more_ends() {
    let refused = |code| Fault::Status(code, None);
    let cases = [
        ("taken", vec![], "other holds the Lease"),
        (
            "conflict",
            vec![(Verb::Patch, refused(409))],
            "the Lease has run out",
        ),
        (
            "errors",
            vec![(Verb::Patch, refused(500)), (Verb::Get, refused(500))],
            "the Lease can't be read",
        ),
        (
            "silent",
            vec![(Verb::Patch, Fault::Silent), (Verb::Get, Fault::Silent)],
            "the API server does not answer",
        ),
    ];
    join_all(cases.map(async |(name, faults, why)| {
        let (cluster, _node, mut operator) = leading(name).await;
        if faults.is_empty() {
            take(&cluster);
        }
        for (verb, fault) in faults {
            cluster.fault(usize::MAX, verb, "leases", fault);
        }
        ends(&cluster, &mut operator, why).await;
    }))
    .await;
}

/// A push is under way when the Lease is lost.
#[tokio::test]
async fn what_is_being_pushed_is_heard_out_and_nothing_else_is_begun() {
    let (cluster, node, mut operator) = leading("push").await;
    node.pause();
    let before = node.memory().pushes.len();
    cluster.config("b", &json!({}));
    cluster.pushed(&operator, &node, before).await;
    take(&cluster);
    cluster.stops(&operator).await;
    // What would be planned and pushed by whoever leads.
    let asked = cluster.state().asked.len();
    cluster.config("c", &json!({}));
    assert!(!operator.has_ended(), "{}", operator.said());
    assert_eq!(node.memory().heard, before);
    node.resume();
    ends(&cluster, &mut operator, "other holds the Lease").await;
    let memory = node.memory();
    assert_eq!(
        (memory.pushes.len(), memory.heard),
        (before + 1, before + 1)
    );
    let state = cluster.state();
    let written = state.asked[asked..].iter();
    let written: Vec<_> = written
        .filter(|one| !matches!(one.verb, Verb::Get | Verb::List | Verb::Watch))
        .filter(|one| one.resource != "leases")
        .map(ToString::to_string)
        .collect();
    assert_eq!(written, [""; 0], "it has written since");
}

/// What it has heard of a node may be behind what the one before has told that node.
#[tokio::test]
async fn who_comes_to_lead_goes_by_what_is_wanted_by_then() {
    let (cluster, node, operator) = leading("behind").await;
    let watches = cluster.asked(Verb::Watch, "nodestates").len();
    let next = cluster.operator("two");
    cluster
        .until(&next, SOON, || {
            let now = cluster.asked(Verb::Watch, "nodestates").len();
            (now > watches)
                .then_some(())
                .ok_or("it does not listen".to_owned())
        })
        .await;
    cluster
        .server
        .change(|state| state.script.silence("nodestates"));
    let mut layers = cluster.get("nodestates", "w")["spec"]["layers"].clone();
    layers[0]["priority"] = json!(7);
    cluster.edit("nodestates", "w", &json!({"spec": {"layers": layers}}));
    let before = node.memory().pushes.len();
    operator.terminate();
    cluster
        .until(&next, LOST, || {
            let memory = node.memory();
            let pushes = memory.pushes[before..].iter();
            let priorities: Vec<_> = pushes.map(|push| push.layers[0].priority).collect();
            assert!(priorities.iter().all(|priority| *priority == 7));
            (!priorities.is_empty())
                .then_some(())
                .ok_or("nothing is pushed".to_owned())
        })
        .await;
}

/// It is told to end, and still leads: what the agent reports is written down, and the Lease let go.
#[tokio::test]
async fn who_is_told_to_end_ends_in_order() {
    let (cluster, node, mut operator) = leading("terminate").await;
    node.pause();
    let before = node.memory().pushes.len();
    cluster.config("b", &json!({}));
    cluster.pushed(&operator, &node, before).await;
    operator.terminate();
    cluster.stops(&operator).await;
    node.resume();
    let status = operator.end(SOON).await;
    assert!(status.success(), "{}", operator.said());
    let configs = cluster.get("nodestates", "w")["status"]["configs"].clone();
    assert_eq!(configs, "a, b");
    let holder = lease(&cluster)["spec"]["holderIdentity"].clone();
    assert!(holder.is_null(), "{holder} holds the Lease");
}

/// An API server that is not ready yet is no reason to give up.
#[tokio::test]
async fn who_can_not_have_the_lease_yet_comes_again() {
    let cluster = Cluster::new("lead-start").await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({}));
    cluster.fault(3, Verb::Get, "leases", Fault::Status(500, None));
    cluster.fault(1, Verb::Create, "leases", Fault::Status(500, None));
    cluster.fault(1, Verb::Patch, "leases", Fault::Status(500, None));
    let operator = cluster.operator("one");
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
}
