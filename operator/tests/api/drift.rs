//! What somebody changes on a node is said as soon as its agent says it, and once.

use std::time::{Duration, Instant};

use edict_core::wire::{DriftOutcome, Drifted};
use k8s_openapi::jiff::Timestamp;

use super::cluster::{Cluster, SOON};

/// An agent that answers is asked every ten seconds in any case.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn it_is_in_the_status_at_once_and_an_event_says_it_once() {
    let (cluster, node, operator) = Cluster::running("drift").await;
    let told = |outcome, times| Drifted {
        path: "/etc/edict/a".to_owned(),
        key: None,
        owner: "a".to_owned(),
        what: "it says something else".to_owned(),
        at: Timestamp::now(),
        outcome,
        times,
        message: "see https://user:password@host".to_owned(),
    };
    for (outcome, times, word) in [
        (DriftOutcome::Corrected, 1, "Corrected"),
        (DriftOutcome::Corrected, 2, "Corrected"),
        (DriftOutcome::Failed, 2, "Failed"),
    ] {
        let began = Instant::now();
        node.drifts(told(outcome, times));
        cluster
            .until(&operator, SOON, || {
                let status = cluster.get("nodestates", "w")["status"]["drift"].clone();
                let there = status[0]["outcome"] == word && status[0]["times"] == times;
                assert!(!status.to_string().contains("password"), "{status}");
                there.then_some(()).ok_or(format!("{status:#}"))
            })
            .await;
        // Only once all else is quiet is it sure that nobody else woke the operator.
        assert!(
            times == 1 || began.elapsed() < AT_ONCE,
            "{:?}",
            began.elapsed()
        );
    }
    let events = || -> Vec<_> {
        let state = cluster.server.state();
        let all = state.store.history("events").into_iter();
        let drift = all.filter(|event| event["reason"] == "Drift");
        drift
            .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let said = "somebody else has changed /etc/edict/a of NodeConfig a: it says something else; ";
    cluster
        .until(&operator, SOON, || {
            let events = events();
            let last = events
                .iter()
                .any(|event| event.contains("could not be corrected"));
            last.then_some(()).ok_or(format!("{events:?}"))
        })
        .await;
    let mut events = events();
    events.sort();
    assert_eq!(
        events,
        [
            format!("{said}corrected"),
            format!("{said}corrected, 2 times lately"),
            format!("{said}could not be corrected: see https://***@host"),
        ]
    );
}
