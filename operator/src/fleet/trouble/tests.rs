#![expect(
    clippy::needless_pass_by_value,
    reason = "json!() reads best where it is written"
)]

use serde_json::{Value, json};

use super::*;

/// Two minutes and `late` seconds after everything here began.
fn told(pod: Value, contact: Option<Contact>, late: i64) -> Option<String> {
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let state = contact.map(|contact| NodeStateStatus {
        state: Some(contact),
        message: "the agent is deaf".to_owned(),
        ..NodeStateStatus::default()
    });
    of(
        &pod,
        state.as_ref(),
        began + SignedDuration::from_secs(120 + late),
    )
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status})
}

fn waiting(state: Value, last: Value) -> Value {
    pod(json!({"containerStatuses": [{
        "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": state}, "lastState": last,
    }]}))
}

fn ready(status: &str) -> Value {
    pod(json!({"conditions": [{
        "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "ContainersNotReady", "message": "containers with unready status: [agent]",
    }]}))
}

#[test]
fn what_the_kubelet_gives_up_on_is_told_at_once() {
    let crash = json!({"reason": "CrashLoopBackOff", "message": "back-off 10s"});
    let ended = json!({"terminated": {"exitCode": 2}});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on\n  memory"});
    for (pod, expected) in [
        (
            waiting(
                json!({"reason": "ErrImagePull", "message": "not found"}),
                json!({}),
            ),
            "ErrImagePull: not found",
        ),
        (
            waiting(json!({"reason": "InvalidImageName"}), json!({})),
            "InvalidImageName",
        ),
        (
            waiting(crash, ended),
            "CrashLoopBackOff: back-off 10s; it ended with exit code 2",
        ),
        (pod(evicted), "Evicted: low on memory"),
        (pod(json!({"phase": "Failed"})), "Failed"),
    ] {
        assert_eq!(told(pod, None, -120).as_deref(), Some(expected));
    }
}

#[test]
fn everything_else_has_its_time() {
    let creating = || waiting(json!({"reason": "ContainerCreating"}), json!({}));
    let unscheduled = || {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        pod(json!({"conditions": [condition]}))
    };
    let ending = || {
        let mut pod = ready("True");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod
    };
    let slow = "it is not ready for more than 2 minutes:";
    for (pod, contact, expected) in [
        (
            creating(),
            None,
            format!("{slow} its kubelet says nothing about it"),
        ),
        (unscheduled(), None, format!("{slow} Unschedulable")),
        (
            ready("False"),
            None,
            format!("{slow} ContainersNotReady: containers with unready status: [agent]"),
        ),
        (
            ready("True"),
            Some(Contact::Unreachable),
            "it runs, and can't be reached: the agent is deaf".to_owned(),
        ),
        (
            ready("True"),
            None,
            "it runs, and can't be reached: ".to_owned(),
        ),
        (
            ending(),
            Some(Contact::Ready),
            "it should have ended more than 2 minutes ago".to_owned(),
        ),
    ] {
        assert_eq!(told(pod.clone(), contact, 0), None, "{expected}");
        assert_eq!(told(pod, contact, 1), Some(expected));
    }
}

#[test]
fn one_that_answers_is_no_trouble() {
    assert_eq!(told(ready("True"), Some(Contact::Ready), 1000), None);
    let old = told(ready("True"), Some(Contact::AgentTooOld), -120);
    assert_eq!(old.as_deref(), Some("the agent is deaf"));
}

#[test]
fn words_are_passed_on_cut_and_without_credentials() {
    assert_eq!(
        words("pull  https://me:secret@host/x\n failed"),
        "pull https://***@host/x failed"
    );
    let long = words(&"ä".repeat(WORDS_MAX + 1));
    assert_eq!(long, format!("{}…", "ä".repeat(WORDS_MAX)));
    assert_eq!(words(&"ä".repeat(WORDS_MAX)), "ä".repeat(WORDS_MAX));
}
