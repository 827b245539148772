use super::*;
use edict_core::layer::DeletionPolicy;
use edict_core::layer::Restarts;
use edict_core::retry::Retry;
use edict_core::wire::{Held, LayerReport, ReleaseReport, ResourceReport, Written};
use serde_json::json;

fn hello() -> Hello {
    serde_json::from_value(json!({
        "wire": wire::VERSION, "node": "n", "version": "0.1.0", "blocks": ["docker"], "layers": [],
    }))
    .unwrap()
}

/// The state of generation 7 that gives the layer "b" to its node.
fn state() -> NodeState {
    let (layer, ..) = layer("b", json!({}));
    let mut state = NodeState::new(
        "n",
        NodeStateSpec {
            layers: vec![layer],
            ..NodeStateSpec::default()
        },
    );
    state.metadata.generation = Some(7);
    state
}

fn held(uid: &str) -> Held {
    Held {
        uid: uid.into(),
        name: format!("name-{uid}"),
        digest: "d".into(),
        deletion_policy: DeletionPolicy::Retain,
    }
}

fn layer(uid: &str, config: serde_json::Value) -> (LayerRef, Config, Contents) {
    let reference = serde_json::from_value(json!({
        "uid": uid, "name": format!("name-{uid}"), "revision": "r", "priority": 3,
        "created": "2026-01-01T00:00:00Z", "deletionPolicy": "Restore",
    }));
    let config = serde_json::from_value(config).unwrap();
    (reference.unwrap(), config, Contents::default())
}

/// What node "n" is pushed, under no policy.
fn composed(
    spec: &NodeStateSpec,
    layers: Vec<(LayerRef, Config, Contents)>,
    orphans: &[Held],
    hello: &Hello,
) -> Result<Composed, TooOld> {
    let (policy, facts) = (Policy::default(), Facts::default());
    compose("n", spec, layers, orphans, hello, &policy, &facts)
}

fn spec(layers: &[&(LayerRef, Config, Contents)], releases: &[&str]) -> NodeStateSpec {
    NodeStateSpec {
        layers: layers
            .iter()
            .map(|(reference, ..)| reference.clone())
            .collect(),
        releases: releases
            .iter()
            .map(|uid| {
                serde_json::from_value(json!({"uid": uid, "name": uid, "policy": "Restore"}))
                    .unwrap()
            })
            .collect(),
        plans: Vec::new(),
    }
}

#[test]
fn everything_that_is_named_is_pushed_and_orphans_leave() {
    let one = layer("a", json!({"docker": {"registryMirrors": ["https://m"]}}));
    let spec = spec(&[&one], &["b"]);
    let mut hello = hello();
    hello.layers = vec![held("a"), held("b"), held("c")];
    let orphans = orphans(&spec, &hello);
    assert_eq!(orphans, [held("c")]);
    let composed = composed(&spec, vec![one], &orphans, &hello).ok().unwrap();
    assert_eq!(composed.push.layers.len(), 1);
    let layer = &composed.push.layers[0];
    assert_eq!((layer.name.as_str(), layer.priority), ("name-a", 3));
    assert_eq!(layer.digest, layer::digest(&layer.config, &layer.contents));
    let releases: Vec<_> = composed
        .push
        .releases
        .iter()
        .map(|r| (r.uid.as_str(), r.policy))
        .collect();
    assert_eq!(
        releases,
        [
            ("b", DeletionPolicy::Restore),
            ("c", DeletionPolicy::Retain)
        ]
    );
    assert_eq!(wire::refuse(&composed.push, "n"), None);
}

#[test]
fn what_the_guard_refuses_is_not_pushed() {
    let bad = layer(
        "a",
        json!({"docker": {"registryMirrors": ["https://user:secret@m"]}}),
    );
    let composed = composed(&spec(&[&bad], &[]), vec![bad], &[], &hello())
        .ok()
        .unwrap();
    assert_eq!(composed.push.layers, []);
    assert_eq!(composed.refused[0].outcome, OutcomeStatus::Refused);
    assert!(
        composed.refused[0]
            .message
            .starts_with("spec.docker.registryMirrors[0]: \"https://***@m\"")
    );
    let status = status(&state(), &hello(), &Report::default(), composed.refused);
    assert_eq!(status.layers.len(), 1);
}

#[test]
fn an_agent_that_does_not_know_a_block_is_not_sent_it() {
    let files = layer(
        "a",
        json!({"files": [{"path": "/etc/motd", "content": ""}]}),
    );
    let spec = spec(&[&files], &[]);
    let TooOld(message) = composed(&spec, vec![files.clone()], &[], &hello())
        .err()
        .unwrap();
    assert!(
        message.contains("does not know files of NodeConfig name-a"),
        "{message}"
    );
    let newer = Hello {
        wire: 99,
        ..hello()
    };
    assert!(composed(&spec, vec![files], &[], &newer).is_err());
}

#[test]
fn a_field_that_an_agent_does_not_know_is_not_sent_to_it() {
    let notify = json!([{"unit": "a.service", "action": "Reload"}]);
    let file = json!({"path": "/etc/motd", "content": "", "notify": notify});
    let files = layer("a", json!({"files": [file]}));
    let spec = spec(&[&files], &[]);
    let compose = |blocks: &[&str]| {
        let hello = Hello {
            blocks: blocks.iter().map(ToString::to_string).collect(),
            ..hello()
        };
        let layers = vec![files.clone()];
        composed(&spec, layers, &[], &hello)
    };
    let TooOld(message) = compose(&["files"]).err().unwrap();
    assert!(
        message.contains("files.notify of NodeConfig name-a"),
        "{message}"
    );
    assert!(compose(&["files", "files.notify"]).is_ok());
}

#[test]
fn what_may_be_restarted_is_told_to_who_restarts() {
    let mut never = layer("a", json!({"docker": {}}));
    never.0.restarts = Restarts::Never;
    never.0.drift = Drift::Report;
    let spec = spec(&[&never], &[]);
    let push = |wire| {
        let hello = Hello { wire, ..hello() };
        let layers = vec![never.clone()];
        composed(&spec, layers, &[], &hello).ok().unwrap().push
    };
    assert_eq!(push(wire::UNITS).layers[0].restarts, Restarts::Never);
    for older in wire::OLDEST..wire::UNITS {
        assert_eq!(push(older).layers[0].restarts, Restarts::Allowed);
    }
    assert_eq!(push(wire::VERSION).layers[0].drift, Drift::Correct);
    let hello = Hello {
        drifts: Some(wire::Drifts::default()),
        ..hello()
    };
    let composed = composed(&spec, vec![never.clone()], &[], &hello);
    let push = composed.ok().unwrap().push;
    assert_eq!(push.layers[0].drift, Drift::Report);
}

#[test]
fn another_try_is_asked_for_where_it_is_understood() {
    let mut asking = layer("a", json!({"docker": {}}));
    asking.0.retry = Some(Retry::of("now"));
    let spec = spec(&[&asking], &[]);
    let push = |wire| {
        let hello = Hello { wire, ..hello() };
        let layers = vec![asking.clone()];
        composed(&spec, layers, &[], &hello).ok().unwrap().push
    };
    assert_eq!(push(wire::HOLDS).layers[0].retry, Some(Retry::of("now")));
    assert_ne!(push(wire::HOLDS).digest, push(wire::HOLDS - 1).digest);
    for older in wire::OLDEST..wire::HOLDS {
        let sent = push(older).fenced(older, wire::Fence::default());
        assert_eq!(wire::refuse(&sent, "n"), None);
        let text = serde_json::to_string(&sent).unwrap();
        assert!(!text.contains("retry"), "{text}");
    }
}

#[test]
fn a_status_says_what_is_held_and_which_try_it_was() {
    let mut state = state();
    state.spec.layers[0].retry = Some(Retry::of("now"));
    let layer = |held, outcome| LayerReport {
        uid: "b".into(),
        name: "b".into(),
        digest: "d".into(),
        in_force: None,
        outcome,
        held,
        message: "why".into(),
        violations: vec![],
        conflicts: vec![],
        pending: vec![],
        restart: false,
    };
    for (held, outcome, word) in [
        (true, Outcome::Failed, OutcomeStatus::Held),
        (false, Outcome::Failed, OutcomeStatus::Failed),
        (false, Outcome::Refused, OutcomeStatus::Refused),
        (false, Outcome::Applied, OutcomeStatus::Applied),
    ] {
        let report = Report {
            layers: vec![layer(held, outcome)],
            ..Report::default()
        };
        let status = status(&state, &hello(), &report, vec![]);
        let layer = &status.layers[0];
        assert_eq!((layer.outcome, &*layer.message), (word, "why"));
        assert_eq!(layer.retry, Some(Retry::of("now")));
    }
}

#[test]
fn a_status_is_bounded_and_shows_no_credentials() {
    let layer = LayerReport {
        uid: "a".into(),
        name: "a".into(),
        digest: "d".into(),
        in_force: None,
        outcome: Outcome::Failed,
        held: false,
        message: format!("http://user:secret@host {}", "x".repeat(100_000)),
        violations: vec![],
        conflicts: vec![],
        pending: vec!["docker.service".into()],
        restart: false,
    };
    let pending = LayerReport {
        uid: "b".into(),
        outcome: Outcome::PendingReload,
        message: String::new(),
        ..layer.clone()
    };
    let resource = ResourceReport {
        path: format!("/etc/{}", "p".repeat(500)),
        key: None,
        owner: "a".into(),
        result: Written::InPlace,
    };
    let report = Report {
        digest: "d".into(),
        layers: vec![layer, pending],
        releases: vec![ReleaseReport {
            uid: "r".into(),
            name: "r".into(),
            done: true,
            message: "http://u:p@h left".into(),
            foreign: vec![],
        }],
        resources: vec![resource; 1000],
    };
    let status = status(&state(), &hello(), &report, vec![]);
    let text = serde_json::to_string(&status).unwrap();
    assert!(text.len() < 256 * 1024, "{}", text.len());
    assert!(!text.contains("secret") && !text.contains("u:p"));
    assert_eq!(
        (status.resources.len(), status.resources_cut),
        (256, Some(744))
    );
    assert_eq!(status.resources[0].result, "InPlace");
    assert_eq!(
        status.layers[1].message,
        "written; docker.service still runs with what it read before"
    );
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(
        (status.layers[0].priority, status.layers[1].priority),
        (None, Some(3))
    );
    assert_eq!(status.configs, "");
    let in_force = |name: &str| LayerReport {
        name: name.into(),
        in_force: Some("d".into()),
        ..report.layers[0].clone()
    };
    let both = Report {
        layers: vec![in_force("zebra"), in_force("ape")],
        ..Report::default()
    };
    assert_eq!(
        super::status(&state(), &hello(), &both, vec![]).configs,
        "ape, zebra"
    );
}
