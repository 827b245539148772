use super::*;
use crate::config::{Config, Docker};
use crate::layer::DeletionPolicy;
use crate::retry::Retry;

fn push() -> Push {
    let layer = Layer {
        uid: "u".into(),
        name: "n".into(),
        priority: 1,
        created: jiff::Timestamp::UNIX_EPOCH,
        digest: "d".into(),
        deletion_policy: DeletionPolicy::Restore,
        restarts: crate::layer::Restarts::Allowed,
        drift: crate::layer::Drift::Correct,
        retry: None,
        facts: None,
        config: Config {
            docker: Some(Docker::default()),
            ..Config::default()
        },
        contents: crate::content::Contents::default(),
    };
    let release = Release {
        uid: "r".into(),
        name: "s".into(),
        policy: DeletionPolicy::Retain,
    };
    Push::new(
        "node-1".into(),
        Policy::default(),
        vec![layer],
        vec![release],
    )
}

#[test]
fn a_push_travels_whole() {
    let sent = push();
    let received: Push = decode(&serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(received, sent);
    assert_eq!(refuse(&received, "node-1"), None);
}

#[test]
fn the_digest_covers_every_part() {
    let sent = push();
    for change in [
        |p: &mut Push| p.policy.allowed.push("/etc/x".into()),
        |p: &mut Push| p.layers[0].priority = 2,
        |p: &mut Push| p.layers[0].retry = Some(Retry::of("again")),
        |p: &mut Push| p.releases.clear(),
        |p: &mut Push| p.digest.push('0'),
    ] {
        let mut changed = sent.clone();
        change(&mut changed);
        assert_eq!(refuse(&changed, "node-1").unwrap().reason, "Digest");
    }
}

#[test]
fn another_node_or_version_is_refused() {
    let refusal = refuse(&push(), "node-2").unwrap();
    assert_eq!(
        refusal.to_string(),
        "WrongNode: the push is for node node-1, this is node node-2"
    );
    for wire in [OLDEST - 1, VERSION + 1] {
        let other = Push { wire, ..push() };
        assert_eq!(refuse(&other, "node-1").unwrap().reason, "WireVersion");
    }
}

#[test]
fn an_agent_is_spoken_to_in_its_own_version() {
    let fence = Fence {
        epoch: 3,
        sequence: 7,
    };
    for (theirs, wire, told) in [
        (1, 1, None),
        (2, 2, Some(fence)),
        (3, 3, Some(fence)),
        (4, 4, Some(fence)),
        (9, 4, Some(fence)),
    ] {
        let sent = push().fenced(theirs, fence);
        assert_eq!((sent.wire, sent.fence), (wire, told));
        assert_eq!(refuse(&sent, "node-1"), None);
    }
    let text = serde_json::to_string(&push().fenced(1, fence)).unwrap();
    assert!(!text.contains("fence"), "{text}");
    for (wire, fence) in [(1, Some(fence)), (2, None), (3, None)] {
        let odd = Push {
            wire,
            fence,
            ..push()
        };
        assert_eq!(refuse(&odd, "node-1").unwrap().reason, "BadMessage");
    }
}

/// What an agent or operator of version 2 reads: it knows every field of these.
#[test]
fn nothing_new_is_said_where_nothing_is_new() {
    let keys = |value: serde_json::Value| {
        let keys = value.as_object().unwrap().keys().cloned();
        keys.collect::<Vec<_>>().join(" ")
    };
    let push = serde_json::to_value(push().fenced(2, Fence::default())).unwrap();
    assert_eq!(
        keys(push["layers"][0].clone()),
        "config created deletionPolicy digest name priority uid"
    );
    assert_eq!(
        push["digest"], "a7646b28a965ff76e47897d2674b134fed9f44267bdcb39c527301df34b91861",
        "the same push is the same under every release"
    );
    let layer = serde_json::to_value(layer(Outcome::Failed)).unwrap();
    assert_eq!(keys(layer), "digest name outcome uid");
}

#[test]
fn only_what_is_later_passes_the_fence() {
    let fence = |epoch, sequence| Fence { epoch, sequence };
    for (given, seen, passes) in [
        (Some(fence(1, 1)), fence(0, 0), true),
        (Some(fence(1, 2)), fence(1, 1), true),
        (Some(fence(1, 1)), fence(1, 1), true),
        (Some(fence(1, 1)), fence(1, 2), false),
        (Some(fence(1, 9)), fence(2, 1), false),
        (Some(fence(2, 0)), fence(1, 9), true),
        (None, fence(0, 0), true),
        (None, fence(1, 0), false),
    ] {
        let refusal = refuse_fence(given, seen);
        assert_eq!(refusal.is_none(), passes, "{given:?} {seen:?}");
        if let Some(refusal) = refusal {
            assert_eq!(refusal.reason, "Fenced");
            assert_eq!(refusal.seen, Some(seen));
        }
    }
    assert_eq!(
        refuse_fence(Some(fence(1, 9)), fence(2, 1))
            .unwrap()
            .message,
        "another operator leads since: the push has fence 1.9, this agent has seen 2.1"
    );
}

#[test]
fn what_is_not_known_is_refused() {
    let mut value = serde_json::to_value(push()).unwrap();
    value["layers"][0]["config"]["wings"] = serde_json::json!({"span": 2});
    let refusal = decode::<Push>(value.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "BadMessage: the field layers.0.config.wings is not known here: is the other side newer?"
    );
    for text in ["", "{", "null", "{} {}", "\u{0}"] {
        assert_eq!(
            decode::<Push>(text.as_bytes()).unwrap_err().reason,
            "BadMessage",
            "{text}"
        );
    }
    let mut doubled = serde_json::to_vec(&push()).unwrap();
    doubled.extend_from_slice(b" x");
    assert!(decode::<Push>(&doubled).is_err());
}

fn layer(outcome: Outcome) -> LayerReport {
    LayerReport {
        uid: String::new(),
        name: String::new(),
        digest: String::new(),
        in_force: None,
        outcome,
        held: false,
        message: String::new(),
        violations: vec![],
        conflicts: vec![],
        pending: vec![],
        restart: false,
    }
}

#[test]
fn what_is_not_there_is_not_settled_and_what_is_held_rests() {
    let release = |done| ReleaseReport {
        uid: String::new(),
        name: String::new(),
        done,
        message: String::new(),
        foreign: vec![],
    };
    let held = LayerReport {
        held: true,
        ..layer(Outcome::Failed)
    };
    let [applied, failed] = [Outcome::Applied, Outcome::Failed].map(layer);
    for (layers, done, settled, rests) in [
        (vec![applied.clone()], true, true, true),
        (vec![layer(Outcome::PendingReload)], true, true, true),
        (vec![layer(Outcome::Unread)], true, false, false),
        (vec![layer(Outcome::Refused)], true, false, false),
        (vec![failed.clone()], true, false, false),
        (vec![held.clone()], true, false, true),
        (vec![held.clone(), applied.clone()], true, false, true),
        (vec![held.clone(), failed], true, false, false),
        (vec![held], false, false, false),
        (vec![applied], false, false, false),
    ] {
        let report = Report {
            layers,
            releases: vec![release(done)],
            ..Report::default()
        };
        assert_eq!(report.is_settled(), settled, "{report:?}");
        assert_eq!(report.is_at_rest(), rests, "{report:?}");
    }
}

#[test]
fn a_report_of_something_else_than_what_is_in_force_does_not_count() {
    let named = |uid: &str, in_force: Option<&str>| LayerReport {
        uid: uid.to_owned(),
        in_force: in_force.map(ToOwned::to_owned),
        ..layer(Outcome::Failed)
    };
    let release = |uid: &str, done| ReleaseReport {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        done,
        message: String::new(),
        foreign: vec![],
    };
    let held = |uid: &str, digest: &str| Held {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        digest: digest.to_owned(),
        deletion_policy: DeletionPolicy::Restore,
    };
    let report = Report {
        layers: vec![named("a", Some("1")), named("b", None)],
        releases: vec![release("d", true), release("e", false)],
        ..Report::default()
    };
    for (held, is) in [
        (vec![held("a", "1")], true),
        // One that is to leave is no layer of the push.
        (vec![held("a", "1"), held("c", "1")], true),
        (vec![held("a", "2")], false),
        (vec![], false),
        (vec![held("a", "1"), held("b", "1")], false),
        (vec![held("a", "1"), held("d", "1")], false),
        (vec![held("a", "1"), held("e", "1")], true),
    ] {
        assert_eq!(report.is_of(&held), is, "{held:?}");
    }
}
