//! An operator that is gone in the middle of its work: the next one goes on where it was.

use futures::future::join_all;
use serde_json::json;

use super::cluster::{Cluster, SOON};
use super::script::{Fault, Verb};

/// Each of its writes is its last one: it is done, and nothing after it.
#[tokio::test]
async fn whatever_it_wrote_last_the_next_one_ends_right() {
    let writes = [
        (Verb::Create, "leases"),
        (Verb::Patch, "leases"),
        (Verb::Create, "secrets"),
        (Verb::Patch, "daemonsets"),
        (Verb::Patch, "nodeconfigs"),
        (Verb::Create, "controllerrevisions"),
        (Verb::Create, "nodestates"),
        (Verb::Patch, "nodestates"),
        (Verb::Status, "nodestates"),
        (Verb::Status, "nodeconfigs"),
    ];
    join_all(writes.map(async |(verb, resource)| {
        let cluster = Cluster::new(&format!("crash-{verb:?}-{resource}").to_lowercase()).await;
        let node = cluster.node("w").await;
        cluster.config("a", &json!({}));
        // It waits for an answer that does not come, and dies.
        cluster.fault(1, verb, resource, Fault::Mute);
        let first = cluster.operator("one");
        cluster
            .until(&first, SOON, || {
                let asked = cluster.asked(verb, resource);
                let done = asked.iter().any(|one| one.answer == "Mute");
                done.then_some(())
                    .ok_or(format!("{verb:?} {resource}: {asked:?}"))
            })
            .await;
        first.kill().await;
        let next = cluster.operator("one");
        cluster.settled(&next, &[("w", &node)], &["a"]).await;
        cluster.has_kept_everything(&[&node]);
    }))
    .await;
}
