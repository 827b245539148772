//! Nothing is decided before everything was listed.

use futures::future::join_all;
use serde_json::json;

use super::cluster::{Cluster, SOON};
use super::script::{Asked, Fault, Verb};
use super::watches::WATCHED;

/// Whether a request is a consequence of a plan, or of a look at a node. The installation itself
/// waits for what it is told from and no more.
fn decides(asked: &Asked) -> bool {
    let reads = matches!(asked.verb, Verb::List | Verb::Watch | Verb::Get);
    let planned = ["nodeconfigs", "nodestates", "controllerrevisions"];
    !reads && planned.iter().any(|kind| asked.resource.starts_with(kind))
}

/// The first `times` lists of `missing` go wrong.
async fn waits(missing: &str, times: usize, fault: Fault) {
    let name = format!("unsynced-{missing}-{times}");
    let cluster = Cluster::new(&name).await;
    let node = cluster.node("w").await;
    cluster.config("a", &json!({}));
    cluster.fault(times, Verb::List, missing, fault);
    let operator = cluster.operator("one");
    cluster
        .until(&operator, SOON * 2, || {
            let lists = cluster.asked(Verb::List, missing).len();
            let others = WATCHED.iter().filter(|other| **other != missing);
            let begun = others
                .filter(|other| !cluster.asked(Verb::Watch, other).is_empty())
                .count();
            let leads = cluster.get("leases", "edict-operator")["metadata"]["annotations"].clone();
            (lists > times && begun == WATCHED.len() - 1 && !leads.is_null())
                .then_some(())
                .ok_or(format!(
                    "{missing}: {lists} lists, {begun} other watches, {leads}"
                ))
        })
        .await;
    // The list that goes well comes long after whatever the others would have held up.
    let asked = cluster.state().asked.clone();
    let lists = |one: &Asked| one.verb == Verb::List && one.resource == missing;
    let last = asked.iter().rposition(lists).unwrap_or_default();
    let decided: Vec<_> = asked[..last].iter().filter(|one| decides(one)).collect();
    assert!(decided.is_empty(), "{missing}: {decided:?}");
    cluster.settled(&operator, &[("w", &node)], &["a"]).await;
}

#[tokio::test]
async fn whatever_can_not_be_listed_holds_up_everything() {
    let fault = Fault::Status(500, None);
    join_all(WATCHED.map(|missing| waits(missing, 2, fault))).await;
}

#[tokio::test]
async fn whatever_is_listed_for_ever_holds_up_everything() {
    waits("nodeconfigs", 1, Fault::Silent).await;
}
