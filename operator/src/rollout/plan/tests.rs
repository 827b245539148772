#![expect(
    clippy::needless_pass_by_value,
    reason = "json!() reads best where it is written"
)]

use edict_core::content::Contents;
use edict_core::retry::{ANNOTATION, Retry};
use serde_json::{Value, json};

use super::*;

fn config(name: &str, change: Value) -> Arc<NodeConfig> {
    let mut object = json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
        "metadata": {"name": name, "uid": format!("u-{name}"), "finalizers": [FINALIZER]},
        "spec": {"target": {"role": "All"}, "docker": {"registryMirrors": ["https://m.example"]}},
    });
    merge(&mut object, change);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn deleted(name: &str) -> Arc<NodeConfig> {
    config(
        name,
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    )
}

fn node(name: &str, labels: Value) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": name, "uid": format!("n-{name}"), "labels": labels}}),
        )
        .unwrap(),
    )
}

fn state(name: &str, spec: NodeStateSpec, status: Value) -> Arc<NodeState> {
    let spec = serde_json::to_value(spec).unwrap();
    Arc::new(
        serde_json::from_value(json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "NodeState",
            "metadata": {"name": name, "generation": 2, "resourceVersion": "7"}, "spec": spec, "status": status,
        }))
        .unwrap(),
    )
}

/// JSON merge patch, RFC 7386.
fn merge(target: &mut Value, change: Value) {
    match change {
        Value::Object(map) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in map {
                merge(&mut target[key], value);
            }
        }
        other => *target = other,
    }
}

fn observed(
    configs: Vec<Arc<NodeConfig>>,
    nodes: Vec<Arc<Node>>,
    states: Vec<Arc<NodeState>>,
) -> Observed {
    Observed {
        configs,
        nodes,
        states,
        policy: Policy::default(),
        sources: Sources {
            key: vec![],
            secrets: vec![],
            config_maps: vec![],
        },
        gone: Gone::default(),
    }
}

fn with_layer(config: &NodeConfig) -> NodeStateSpec {
    NodeStateSpec {
        layers: vec![layer(
            config,
            &Revision::current(config, Contents::default()),
        )],
        ..NodeStateSpec::default()
    }
}

fn with_release(name: &str) -> NodeStateSpec {
    NodeStateSpec {
        releases: vec![ReleaseRef {
            uid: format!("u-{name}"),
            name: name.into(),
            policy: DeletionPolicy::Restore,
        }],
        ..NodeStateSpec::default()
    }
}

fn names(spec: &NodeStateSpec) -> (Vec<&str>, Vec<&str>) {
    let layers = spec
        .layers
        .iter()
        .map(|layer| layer.name.as_str())
        .collect();
    (
        layers,
        spec.releases
            .iter()
            .map(|release| release.name.as_str())
            .collect(),
    )
}

#[test]
fn masters_and_workers_get_their_own() {
    let masters = config("masters", json!({"spec": {"target": {"role": "Master"}}}));
    let workers = config("workers", json!({"spec": {"target": {"role": "Worker"}}}));
    let nodes = vec![
        node("m", json!({"node-role.kubernetes.io/control-plane": ""})),
        node("w", json!({"kubernetes.io/os": "linux"})),
        node("win", json!({"kubernetes.io/os": "windows"})),
    ];
    let plan = plan(&observed(vec![masters, workers], nodes, vec![]));
    let specs: Vec<_> = plan
        .states
        .iter()
        .map(|d| (d.node.as_str(), names(&d.spec)))
        .collect();
    assert_eq!(
        specs,
        [
            ("m", (vec!["masters"], vec![])),
            ("w", (vec!["workers"], vec![]))
        ]
    );
    assert_eq!(plan.targets["u-masters"], ["m"]);
    assert_eq!(plan.states[0].node_uid, "n-m");
    assert_eq!(plan.states[0].resource_version, None);
    assert_eq!(plan.revisions.len(), 2);
}

#[test]
fn nothing_changes_when_everything_stands() {
    let a = config("a", json!({}));
    let states = vec![state("w", with_layer(&a), json!({}))];
    let plan = plan(&observed(vec![a], vec![node("w", json!({}))], states));
    assert_eq!(plan.states, []);
}

#[test]
fn asking_for_another_try_reaches_every_node_and_is_no_revision() {
    let asking = |value: &str| {
        config(
            "a",
            json!({"metadata": {"annotations": {ANNOTATION: value}}}),
        )
    };
    let before = config("a", json!({"metadata": {"annotations": {"other": "1"}}}));
    let mut standing = before;
    for value in ["1", "2", "", &"$(id)\n".repeat(100_000)] {
        let now = asking(value);
        let states = vec![state("w", with_layer(&standing), json!({}))];
        let plan = plan(&observed(
            vec![now.clone()],
            vec![node("w", json!({}))],
            states,
        ));
        let [desired] = &plan.states[..] else {
            panic!("{:?}", plan.states)
        };
        let (old, new) = (&with_layer(&standing).layers[0], &desired.spec.layers[0]);
        assert_eq!(new.retry, Some(Retry::of(value)));
        assert_eq!(new.revision, old.revision);
        let text = serde_json::to_string(new).unwrap();
        assert!(text.len() < 500 && !text.contains("$("), "{text}");
        standing = now;
    }
}

#[test]
fn no_node_hears_of_a_config_before_it_has_the_finalizer() {
    let new = config("new", json!({"metadata": {"finalizers": []}}));
    let plan = plan(&observed(vec![new], vec![node("w", json!({}))], vec![]));
    assert_eq!(plan.adopt, ["new"]);
    assert_eq!(names(&plan.states[0].spec), (vec![], vec![]));
}

#[test]
fn a_refused_config_leaves_what_was_accepted_in_force() {
    let good = config("a", json!({}));
    let bad = config(
        "a",
        json!({"spec": {"docker": {"registryMirrors": ["https://$(id)"]}}}),
    );
    let states = vec![state("w", with_layer(&good), json!({}))];
    let nodes = vec![node("w", json!({})), node("x", json!({}))];
    let plan = plan(&observed(vec![bad], nodes, states));
    assert_eq!(plan.refused["u-a"][0].field, "docker.registryMirrors[0]");
    assert!(plan.revisions.is_empty());
    // The node that had it keeps it; the one that had not gets nothing.
    let specs: Vec<_> = plan
        .states
        .iter()
        .map(|d| (d.node.as_str(), names(&d.spec)))
        .collect();
    assert_eq!(specs, [("x", (vec![], vec![]))]);
}

#[test]
fn leaving_takes_an_explicit_release() {
    let a = config("a", json!({"spec": {"deletionPolicy": "Retain"}}));
    let elsewhere = config(
        "a",
        json!({"spec": {"target": {"nodes": ["other"]}, "deletionPolicy": "Retain"}}),
    );
    let states = || vec![state("w", with_layer(&a), json!({}))];
    let nodes = || vec![node("w", json!({}))];
    // Retargeted, deleted, and gone by the API server's word: each ends as a release.
    for configs in [vec![elsewhere], vec![deleted("a")], vec![]] {
        let given = configs
            .first()
            .map(|config| config.spec.deletion_policy.unwrap_or_default());
        let mut observed = observed(configs, nodes(), states());
        observed.gone.configs.insert("u-a".into());
        let plan = plan(&observed);
        assert_eq!(names(&plan.states[0].spec), (vec![], vec!["a"]));
        assert_eq!(plan.states[0].resource_version.as_deref(), Some("7"));
        assert_eq!(
            plan.states[0].spec.releases[0].policy,
            given.unwrap_or(DeletionPolicy::Retain)
        );
        assert!(plan.free.is_empty(), "not before the release is written");
    }
}

#[test]
fn a_release_stays_until_it_is_done_for_this_very_spec() {
    for (status, stays) in [
        (json!({}), true),
        (json!({"observedGeneration": 2, "releases": []}), true),
        (
            json!({"observedGeneration": 2, "releases": [{"uid": "u-a", "name": "a", "done": false}]}),
            true,
        ),
        (
            json!({"observedGeneration": 1, "releases": [{"uid": "u-a", "name": "a", "done": true}]}),
            true,
        ),
        (
            json!({"observedGeneration": 2, "releases": [{"uid": "u-a", "name": "a", "done": true}]}),
            false,
        ),
    ] {
        let states = vec![state("w", with_release("a"), status.clone())];
        let plan = plan(&observed(
            vec![deleted("a")],
            vec![node("w", json!({}))],
            states,
        ));
        assert_eq!(plan.states.is_empty(), stays, "{status}");
        assert_eq!(plan.free.is_empty(), stays, "{status}");
        assert_eq!(plan.holding.contains_key("u-a"), stays, "{status}");
    }
}

#[test]
fn a_config_that_comes_back_is_released_no_more() {
    let a = config("a", json!({}));
    let states = vec![state("w", with_release("a"), json!({}))];
    let plan = plan(&observed(vec![a], vec![node("w", json!({}))], states));
    assert_eq!(names(&plan.states[0].spec), (vec!["a"], vec![]));
}

#[test]
fn nodes_that_are_away_hold_up_nothing_and_keep_their_release() {
    for (contact, free) in [
        ("Unreachable", true),
        ("NoAgent", true),
        ("Ready", false),
        ("AgentTooOld", false),
    ] {
        let states = vec![state(
            "w",
            with_release("a"),
            json!({"state": contact, "observedGeneration": 2}),
        )];
        let plan = plan(&observed(
            vec![deleted("a")],
            vec![node("w", json!({}))],
            states,
        ));
        assert_eq!(!plan.free.is_empty(), free, "{contact}");
        assert_eq!(plan.states, [], "{contact}");
    }
}

#[test]
fn a_node_that_was_away_before_the_release_is_waited_for() {
    let states = vec![state(
        "w",
        with_release("a"),
        json!({"state": "Unreachable", "observedGeneration": 1}),
    )];
    let plan = plan(&observed(
        vec![deleted("a")],
        vec![node("w", json!({}))],
        states,
    ));
    assert!(plan.free.is_empty());
    assert_eq!(plan.holding["u-a"], ["w"]);
}

#[test]
fn states_of_nodes_that_are_gone_hold_up_nothing() {
    for spec in [with_release("a"), with_layer(&config("a", json!({})))] {
        let states = vec![state("gone", spec, json!({"state": "Ready"}))];
        let mut observed = observed(vec![deleted("a")], vec![], states);
        // That it is not listed does not say that it is gone.
        let asked = BTreeSet::from([Unlisted::Node("gone".into())]);
        assert_eq!(unlisted(&observed), asked);
        assert_eq!(plan(&observed).free, [""; 0]);
        observed.gone.nodes.insert("gone".into());
        assert_eq!(plan(&observed).free, ["a"]);
    }
}

#[test]
fn what_is_not_listed_stays_until_it_is_gone() {
    let a = config("a", json!({}));
    let states = || vec![state("w", with_layer(&a), json!({}))];
    let mut observed = observed(vec![], vec![node("w", json!({}))], states());
    let (name, uid) = ("a".to_owned(), "u-a".to_owned());
    let asked = BTreeSet::from([Unlisted::Config { name, uid }]);
    assert_eq!(unlisted(&observed), asked);
    assert_eq!(plan(&observed).states, []);
    // Another one comes in addition.
    observed.configs.push(config("b", json!({})));
    assert_eq!(
        names(&plan(&observed).states[0].spec),
        (vec!["a", "b"], vec![])
    );
    observed.configs = vec![a.clone()];
    assert_eq!(unlisted(&observed), BTreeSet::new());
}

#[test]
fn a_lost_state_is_made_with_the_releases_that_are_not_done() {
    let elsewhere = config(
        "b",
        json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"target": {"nodes": ["other"]}},
        }),
    );
    let configs = vec![deleted("a"), elsewhere, config("c", json!({}))];
    let plan = plan(&observed(configs, vec![node("w", json!({}))], vec![]));
    assert_eq!(names(&plan.states[0].spec), (vec!["c"], vec!["a"]));
    assert_eq!(plan.holding["u-a"], ["w"]);
    assert_eq!(plan.free, ["b"]);
}

#[test]
fn nothing_is_held_up_by_states_whose_kind_is_gone() {
    let mut observed = observed(vec![deleted("a")], vec![node("m", json!({}))], vec![]);
    assert!(unlisted(&observed).contains(&Unlisted::States));
    assert!(plan(&observed).free.is_empty());
    observed.gone.states = true;
    assert_eq!(plan(&observed).free.len(), 1);
}

#[test]
fn the_policy_of_a_leaving_config_can_still_be_changed() {
    let retain = config(
        "a",
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"deletionPolicy": "Retain"}}),
    );
    let states = vec![state("w", with_release("a"), json!({}))];
    let plan = plan(&observed(vec![retain], vec![node("w", json!({}))], states));
    assert_eq!(
        plan.states[0].spec.releases[0].policy,
        DeletionPolicy::Retain
    );
}

/// The revisions that the one node is to run, and those that it is only to plan.
fn revisions(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    let [desired] = &plan.states[..] else {
        panic!("{:?}", plan.states);
    };
    let NodeStateSpec { layers, plans, .. } = &desired.spec;
    (
        layers.iter().map(|layer| &*layer.revision).collect(),
        plans.iter().map(|layer| &*layer.revision).collect(),
    )
}

const OTHER: &str = "https://other.example";

#[test]
fn what_is_planned_is_not_run() {
    let enforced = config("a", json!({}));
    let before = Revision::current(&enforced, Contents::default()).name;
    let change = json!({"spec": {"mode": "Plan", "docker": {"registryMirrors": [OTHER]}}});
    let planned = config("a", change.clone());
    let next = Revision::current(&planned, Contents::default()).name;
    assert_ne!(before, next);
    let nodes = || vec![node("n", json!({}))];
    // Nothing of it was ever in force.
    let new = plan(&observed(vec![planned.clone()], nodes(), vec![]));
    assert_eq!(revisions(&new), (vec![], vec![&*next]));
    assert_eq!(new.targets["u-a"], ["n"]);
    // What was in force stays so, to the last field.
    let has = || vec![state("n", with_layer(&enforced), json!({}))];
    let planning = plan(&observed(vec![planned.clone()], nodes(), has()));
    assert_eq!(revisions(&planning), (vec![&*before], vec![&*next]));
    assert_eq!(planning.states[0].spec.layers, with_layer(&enforced).layers);
    // Before it is adopted as well: nothing is done that would have to be given back.
    let mut adopted = change.clone();
    adopted["metadata"]["finalizers"] = json!([]);
    let fresh = plan(&observed(vec![config("a", adopted)], nodes(), vec![]));
    assert_eq!(revisions(&fresh), (vec![], vec![&*next]));
    // Enforced again, it is run and no plan.
    let spec = planning.states[0].spec.clone();
    let has = vec![state("n", spec, json!({}))];
    let change = json!({"spec": {"mode": "Enforce", "docker": {"registryMirrors": [OTHER]}}});
    let run = plan(&observed(vec![config("a", change)], nodes(), has));
    assert_eq!(revisions(&run), (vec![&*next], vec![]));
}

#[test]
fn what_is_planned_gives_nothing_back_until_it_is_deleted() {
    let enforced = config("a", json!({}));
    let elsewhere = json!({"spec": {"mode": "Plan", "target": {"nodes": ["other"], "role": null}}});
    let planned = config("a", elsewhere);
    let nodes = || vec![node("n", json!({}))];
    let has = || vec![state("n", with_layer(&enforced), json!({}))];
    let moved = plan(&observed(vec![planned], nodes(), has()));
    assert_eq!(moved.states, []);
    assert_eq!(moved.targets["u-a"], [""; 0]);
    // Refused, it changes nothing either.
    let bad = json!({"spec": {"mode": "Plan", "docker": {"registryMirrors": ["https://$(a)"]}}});
    let refused = plan(&observed(vec![config("a", bad)], nodes(), has()));
    assert_eq!(refused.states, []);
    assert!(refused.refused.contains_key("u-a"));
    let spec = NodeStateSpec {
        plans: with_layer(&enforced).layers,
        ..with_layer(&enforced)
    };
    let deleted = plan(&observed(
        vec![deleted("a")],
        nodes(),
        vec![state("n", spec, json!({}))],
    ));
    assert_eq!(revisions(&deleted), (vec![], vec![]));
    assert_eq!(names(&deleted.states[0].spec), (vec![], vec!["a"]));
}
