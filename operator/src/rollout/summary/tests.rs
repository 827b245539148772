#![expect(
    clippy::needless_pass_by_value,
    reason = "json!() reads best where it is written"
)]

use edict_core::content::Contents;
use serde_json::{Value, json};

use super::*;

fn config(change: &Value) -> NodeConfig {
    let mut object = json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
        "metadata": {"name": "a", "uid": "u", "generation": 4},
        "spec": {"target": {"role": "All"}, "docker": {"registryMirrors": ["https://m.example"]}},
    });
    for (key, value) in change.as_object().unwrap() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn state(node: &str, status: &Value) -> NodeState {
    serde_json::from_value(json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeState", "metadata": {"name": node}, "spec": {}, "status": status,
    }))
    .unwrap()
}

/// The status of a node whose agent ended the layer like this.
fn ended(outcome: &str, message: &str, conflicts: Value) -> Value {
    let digest = edict_core::digest::of(&config(&json!({})).spec.config);
    json!({"state": "Ready", "layers": [
        {"uid": "u", "name": "a", "digest": digest, "priority": 0, "deletionPolicy": "Restore", "outcome": outcome, "message": message, "conflicts": conflicts},
    ]})
}

fn summary(object: &NodeConfig, nodes: &[(&str, Value)], plan: Plan) -> NodeConfigStatus {
    let states: Vec<_> = nodes
        .iter()
        .map(|(node, status)| state(node, status))
        .collect();
    let by_node = nodes.iter().map(|(node, _)| *node).zip(&states).collect();
    let targets = nodes.iter().map(|(node, _)| (*node).to_owned()).collect();
    let current = crate::revision::Revision::current(object, Contents::default());
    let accepted = plan.refused.is_empty();
    let plan = Plan {
        targets: [("u".to_owned(), targets)].into(),
        revisions: accepted
            .then(|| ("u".to_owned(), current))
            .into_iter()
            .collect(),
        ..plan
    };
    summarize(
        object,
        &plan,
        &by_node,
        Timestamp::from_second(100).unwrap(),
    )
}

fn of(nodes: &[(&str, Value)]) -> NodeConfigStatus {
    summary(&config(&json!({})), nodes, Plan::default())
}

fn condition<'a>(status: &'a NodeConfigStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (&found.status, &found.reason, &found.message)
}

#[test]
fn all_there() {
    let status = of(&[
        ("n1", ended("Applied", "", json!([]))),
        ("n2", ended("Applied", "", json!([]))),
    ]);
    assert_eq!(status.state, Some(State::Applied));
    assert_eq!(
        (
            status.targeted,
            status.applied,
            status.pending,
            status.failed,
            status.unreachable
        ),
        (2, 2, 0, 0, 0)
    );
    assert_eq!(status.nodes, []);
    assert_eq!(condition(&status, "Ready"), ("True", "Applied", ""));
    assert_eq!(condition(&status, "Accepted"), ("True", "Accepted", ""));
    assert_eq!(condition(&status, "Conflict"), ("False", "NoConflict", ""));
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn what_is_said_of_nodes_that_have_it_is_said() {
    let absent = || ended("Applied", "docker.service is not on this node", json!([]));
    let status = of(&[
        ("n1", ended("Applied", "", json!([]))),
        ("n3", absent()),
        ("n2", absent()),
    ]);
    assert_eq!(status.state, Some(State::Applied));
    assert_eq!(status.message, "n2, n3: docker.service is not on this node");
    assert_eq!(condition(&status, "Ready").0, "True");
}

#[test]
fn the_worst_node_gives_the_state_and_all_are_counted() {
    let stale = json!({"state": "Ready", "layers": [{"uid": "u", "name": "a", "digest": "old", "outcome": "Applied"}]});
    let status = of(&[
        ("n1", ended("Applied", "", json!([]))),
        ("n2", ended("PendingReload", "docker.service", json!([]))),
        (
            "n3",
            ended(
                "Failed",
                "/etc/docker/daemon.json: not valid JSON",
                json!([]),
            ),
        ),
        (
            "n4",
            json!({"state": "Unreachable", "message": "no answer within 5 s"}),
        ),
        ("n5", json!({"state": "NoAgent"})),
        ("n6", stale),
        ("n7", json!({})),
        ("n8", json!({"state": "AgentTooOld", "message": "wire"})),
    ]);
    assert_eq!(status.state, Some(State::Failed));
    assert_eq!(
        (
            status.targeted,
            status.applied,
            status.pending,
            status.failed,
            status.unreachable
        ),
        (8, 1, 3, 2, 2)
    );
    let nodes: Vec<_> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(nodes, ["n3", "n8", "n4", "n5", "n6", "n7", "n2"]);
    assert_eq!(
        status.message,
        "n3, n8: /etc/docker/daemon.json: not valid JSON"
    );
    assert_eq!(condition(&status, "Ready").0, "False");
}

#[test]
fn what_is_held_counts_as_failed_and_says_what_to_do() {
    let advice = retry::advice("a");
    let long = format!("{}; {advice}", "x".repeat(5000));
    let status = of(&[
        ("n1", ended("Applied", "", json!([]))),
        ("n2", ended("Failed", "disk full", json!([]))),
        ("n3", ended("Held", &long, json!([]))),
        (
            "n4",
            json!({"state": "Unreachable", "message": "no answer"}),
        ),
    ]);
    // It is the one that waits for somebody.
    assert_eq!(status.state, Some(State::Held));
    assert_eq!(
        (status.applied, status.failed, status.unreachable),
        (1, 2, 1)
    );
    let states: Vec<_> = status
        .nodes
        .iter()
        .map(|node| (&*node.name, node.state))
        .collect();
    assert_eq!(
        states,
        [
            ("n3", State::Held),
            ("n2", State::Failed),
            ("n4", State::Unreachable)
        ]
    );
    let said = format!("{}…{advice}", "x".repeat(300));
    assert_eq!(status.nodes[0].message, said);
    assert_eq!(status.message, format!("n3: {said}"));
    assert_eq!(
        condition(&status, "Ready"),
        ("False", "Held", &*format!("n3: {said}"))
    );
    let short = format!("disk full; {advice}");
    let status = of(&[("n1", ended("Held", &short, json!([])))]);
    assert_eq!(status.nodes[0].message, short);
}

#[test]
fn another_try_is_on_the_way_until_the_agent_has_made_it() {
    let asking = |value: &str| json!({"metadata": {"name": "a", "uid": "u", "annotations": {retry::ANNOTATION: value}}});
    let tried = |value: &str| {
        let mut held = ended("Held", "disk full", json!([]));
        held["layers"][0]["retry"] = json!(String::from(retry::Retry::of(value)));
        held
    };
    for (asked, node, state) in [
        (
            asking("1"),
            ended("Held", "disk full", json!([])),
            State::Progressing,
        ),
        (asking("1"), tried("1"), State::Held),
        (asking("2"), tried("1"), State::Progressing),
        (json!({}), tried("1"), State::Progressing),
        (
            json!({}),
            ended("Held", "disk full", json!([])),
            State::Held,
        ),
    ] {
        let status = summary(&config(&asked), &[("n1", node)], Plan::default());
        assert_eq!(status.state, Some(state), "{asked}");
    }
}

#[test]
fn no_node_is_said_so() {
    let status = of(&[]);
    assert_eq!(status.state, Some(State::NoNodes));
    assert!(status.message.contains("spec.target"));
}

#[test]
fn a_refusal_names_field_and_rule() {
    let violations = config(
        &json!({"spec": {"target": {"role": "All"}, "docker": {"registryMirrors": ["ftp://m"]}}}),
    )
    .spec
    .config
    .check(&edict_core::guard::Policy::default(), &Contents::default());
    let plan = Plan {
        refused: [("u".to_owned(), violations)].into(),
        ..Plan::default()
    };
    let status = summary(&config(&json!({})), &[("n1", json!({}))], plan);
    assert_eq!(status.state, Some(State::Refused));
    assert_eq!((status.failed, status.pending), (1, 0));
    assert_eq!(
        condition(&status, "Accepted").2,
        "spec.docker.registryMirrors[0]: \"ftp://m\" is refused by rule url-scheme: use a URL that begins with http:// or https://"
    );
    assert_eq!(status.revision, None);
}

#[test]
fn conflicts_name_the_winner_and_do_not_spoil_the_rest() {
    let lost =
        json!([{"path": "/etc/docker/daemon.json", "key": "registry-mirrors", "winner": "b"}]);
    let status = of(&[
        ("n1", ended("Applied", "", lost.clone())),
        ("n2", ended("Applied", "", lost)),
        (
            "n3",
            ended("Applied", "", json!([{"path": "/etc/motd", "winner": "c"}])),
        ),
    ]);
    assert_eq!(status.state, Some(State::Applied));
    assert_eq!(
        condition(&status, "Conflict"),
        (
            "True",
            "Conflict",
            "file /etc/motd belongs to NodeConfig c on 1 node; \
             key registry-mirrors in /etc/docker/daemon.json belongs to NodeConfig b on 2 nodes"
        )
    );
}

#[test]
fn a_leaving_config_says_who_is_left() {
    let leaving = config(
        &json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let failed =
        json!({"releases": [{"uid": "u", "name": "a", "done": false, "message": "disk full"}]});
    let plan = Plan {
        holding: [("u".to_owned(), vec!["n1".to_owned()])].into(),
        ..Plan::default()
    };
    let status = summary(&leaving, &[("n1", failed)], plan);
    assert_eq!(status.state, Some(State::Releasing));
    assert_eq!(status.message, "being given back: n1: disk full");
    let status = summary(&leaving, &[], Plan::default());
    assert_eq!(
        status.message,
        "every node that can be reached is as it was"
    );
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut object = config(&json!({}));
    object.status = Some(of(&[("n1", ended("Applied", "", json!([])))]));
    let time = |status: &NodeConfigStatus| {
        status
            .conditions
            .iter()
            .map(|c| c.last_transition_time.0.as_second())
            .collect::<Vec<_>>()
    };
    let later = |nodes: &[(&str, Value)]| {
        let states: Vec<_> = nodes
            .iter()
            .map(|(node, status)| state(node, status))
            .collect();
        let by_node = nodes.iter().map(|(node, _)| *node).zip(&states).collect();
        let plan = Plan {
            targets: [("u".to_owned(), vec!["n1".to_owned()])].into(),
            revisions: [(
                "u".to_owned(),
                crate::revision::Revision::current(&object, Contents::default()),
            )]
            .into(),
            ..Plan::default()
        };
        summarize(
            &object,
            &plan,
            &by_node,
            Timestamp::from_second(200).unwrap(),
        )
    };
    assert_eq!(
        time(&later(&[("n1", ended("Applied", "", json!([])))])),
        [100, 100, 100]
    );
    assert_eq!(
        time(&later(&[("n1", ended("Failed", "x", json!([])))])),
        [100, 100, 200]
    );
}

#[test]
fn many_nodes_are_cut_and_still_counted() {
    let nodes: Vec<_> = (0..70)
        .map(|n| {
            (
                format!("n{n:02}"),
                ended("Failed", &"x".repeat(5000), json!([])),
            )
        })
        .collect();
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(name, status)| (name.as_str(), status.clone()))
        .collect();
    let status = of(&nodes);
    assert_eq!((status.failed, status.nodes.len()), (70, 50));
    assert!(
        status
            .message
            .starts_with("n00, n01, n02, n03, n04 and 65 more: xxx"),
        "{}",
        status.message
    );
    assert!(serde_json::to_string(&status).unwrap().len() < 64 * 1024);
}

#[test]
fn what_the_agent_was_not_told_yet_is_on_the_way() {
    for (change, state) in [
        (json!({}), State::Applied),
        (
            json!({"priority": 0, "deletionPolicy": "Restore"}),
            State::Applied,
        ),
        (json!({"priority": 1}), State::Progressing),
        (json!({"deletionPolicy": "Retain"}), State::Progressing),
        (
            json!({"docker": {"registryMirrors": ["https://n.example"]}}),
            State::Progressing,
        ),
    ] {
        let mut spec = serde_json::to_value(config(&json!({})).spec).unwrap();
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = config(&json!({"spec": spec}));
        let status = summary(
            &object,
            &[("n1", ended("Applied", "", json!([])))],
            Plan::default(),
        );
        assert_eq!(status.state, Some(state), "{change}");
    }
}

/// A node that says what the NodeConfig of mode Plan would change there.
fn plans(outcome: &str, message: &str) -> Value {
    let current = crate::revision::Revision::current(&config(&json!({})), Contents::default());
    json!({"state": "Ready", "plans": [
        {"uid": "u", "name": "a", "revision": current.name, "outcome": outcome, "message": message},
    ]})
}

fn only_planned() -> NodeConfig {
    let mut planned = config(&json!({}));
    planned.spec.mode = Some(edict_core::layer::Mode::Plan);
    planned
}

#[test]
fn what_is_planned_says_what_it_would_change() {
    let status = summary(
        &only_planned(),
        &[
            ("n1", plans("Changes", "would change 1 file")),
            ("n2", plans("Unchanged", "would change nothing")),
            ("n3", plans("Changes", "would change 2 files")),
            ("n4", plans("Changes", "would change 1 file")),
        ],
        Plan::default(),
    );
    assert_eq!(status.state, Some(State::Planned));
    assert_eq!(
        status.message,
        "n1, n4: would change 1 file; n3: would change 2 files"
    );
    let counts = (
        status.targeted,
        status.applied,
        status.pending,
        status.failed,
    );
    assert_eq!(counts, (4, 1, 3, 0));
    let nodes: Vec<_> = status.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(nodes, ["n1", "n3", "n4"]);
    assert_eq!(condition(&status, "Ready").0, "False");
    assert_eq!(condition(&status, "Ready").1, "Planned");

    let nothing = plans("Unchanged", "would change nothing");
    let status = summary(&only_planned(), &[("n1", nothing)], Plan::default());
    assert_eq!(status.state, Some(State::Planned));
    assert_eq!(status.message, "n1: would change nothing");
    assert_eq!((status.applied, status.pending), (1, 0));
}

#[test]
fn a_plan_that_can_not_be_made_is_worse_than_one_that_can() {
    let change = || plans("Changes", "would change 1 file");
    for (outcome, state) in [("Refused", State::Refused), ("Failed", State::Failed)] {
        let nodes = [("n1", change()), ("n2", plans(outcome, "no"))];
        let status = summary(&only_planned(), &nodes, Plan::default());
        assert_eq!(status.state, Some(state));
        assert_eq!((status.pending, status.failed), (1, 1));
        assert_eq!(status.message, "n2: no");
    }
    let away = json!({"state": "Unreachable", "message": "no answer", "plans": change()["plans"]});
    let status = summary(&only_planned(), &[("n1", away)], Plan::default());
    assert_eq!(status.state, Some(State::Unreachable));
}

#[test]
fn only_a_plan_of_what_it_says_now_counts() {
    let waiting = |nodes: &[(&str, Value)], plan: Plan| {
        let status = summary(&only_planned(), nodes, plan);
        assert_eq!(status.state, Some(State::Progressing), "{status:?}");
        assert_eq!(status.pending, 1);
    };
    waiting(&[("n1", ended("Applied", "", json!([])))], Plan::default());
    let change = || plans("Changes", "would change 1 file");
    let mut other = change();
    other["plans"][0]["revision"] = json!("a-other");
    waiting(&[("n1", other)], Plan::default());
}

#[test]
fn what_would_be_given_back_is_said() {
    let there: NodeState = serde_json::from_value(json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeState", "metadata": {"name": "n2"},
        "spec": {"layers": [{
            "uid": "u", "name": "a", "revision": "r", "priority": 0,
            "created": "2026-01-01T00:00:00Z", "deletionPolicy": "Restore",
        }]},
    }))
    .unwrap();
    let here = state("n1", &plans("Changes", "would change 1 file"));
    let object = only_planned();
    let current = crate::revision::Revision::current(&object, Contents::default());
    let plan = Plan {
        targets: [("u".to_owned(), vec!["n1".to_owned()])].into(),
        revisions: [("u".to_owned(), current)].into(),
        ..Plan::default()
    };
    let by_node = [("n1", &here), ("n2", &there)].into();
    let now = Timestamp::from_second(100).unwrap();
    let status = summarize(&object, &plan, &by_node, now);
    assert_eq!(
        status.message,
        "n1: would change 1 file; it would be given back by n2"
    );
    // Above all where it is for no node at all, by mistake.
    let nobody = Plan {
        targets: [("u".to_owned(), vec![])].into(),
        ..Plan::default()
    };
    let status = summarize(&object, &nobody, &[("n2", &there)].into(), now);
    assert_eq!(status.state, Some(State::NoNodes));
    assert!(
        status.message.ends_with("; it would be given back by n2"),
        "{status:?}"
    );
}

#[test]
fn conflicts_of_what_is_planned_are_those_of_the_plan() {
    let mut plan = plans("Unchanged", "would change nothing");
    plan["plans"][0]["conflicts"] = json!([{"path": "/etc/a", "winner": "b"}]);
    let in_force = json!([{"path": "/etc/other", "winner": "c"}]);
    plan["layers"] = ended("Applied", "", in_force)["layers"].clone();
    let status = summary(&only_planned(), &[("n1", plan)], Plan::default());
    let (holds, _, message) = condition(&status, "Conflict");
    assert_eq!(
        (holds, message),
        ("True", "file /etc/a belongs to NodeConfig b on 1 node")
    );
}
