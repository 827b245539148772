//! What is told of a plan to those who can't read the host: nothing that is not Edict's own.

use edict_agent::apply::Agent;
use edict_core::layer::Layer;
use edict_core::wire::{Change, Kind, Push};
use serde_json::json;

use crate::node::{DOCKER, NAME, Node, Say as _, layer};

const FILE: &str = "/etc/edict/file";

/// What would become of the one file that would change.
fn plan(agent: &Agent, layer: &Layer) -> Change {
    let push = Push::new(
        NAME.into(),
        edict_core::guard::Policy::default(),
        vec![layer.clone()],
        vec![],
    );
    let mut changes = agent.dry(&push).unwrap().unwrap().public().changes;
    assert_eq!(changes.len(), 1, "{changes:?}");
    changes.remove(0)
}

fn diff(change: &Change) -> String {
    let diff = change.diff.clone().unwrap();
    let lines = diff.split_inclusive('\n');
    let lines = lines.filter(|line| !line.starts_with("@@"));
    lines.skip(2).collect()
}

#[test]
fn of_a_file_only_what_edict_has_written_is_shown() {
    let node = Node::new();
    let (one, two) = (
        layer("a").file(FILE, "one\n"),
        layer("a").file(FILE, "two\n"),
    );
    node.write(FILE, "somebody's token\n");
    let foreign = plan(node.agent(), &one);
    assert_eq!(diff(&foreign), "+one\n");
    assert!(foreign.hidden.unwrap().contains("not Edict's"));
    // Its own again.
    node.apply(&one);
    let own = plan(node.agent(), &two);
    assert_eq!((diff(&own), own.hidden), ("-one\n+two\n".to_owned(), None));
}

#[test]
fn what_was_there_before_is_shown_to_nobody() {
    let node = Node::new();
    node.write(FILE, "somebody's token\n");
    let own = layer("a").file(FILE, "one\n").mirrors(&["https://one"]);
    node.apply(&own);
    let back = plan(node.agent(), &layer("a").mirrors(&["https://one"]));
    assert_eq!((&*back.path, back.change), (FILE, Kind::Change));
    assert_eq!(diff(&back), "-one\n");
    assert!(back.hidden.unwrap().contains("as it was before Edict"));
    // Somebody else has written it since.
    node.write(FILE, "another token\n");
    let foreign = plan(
        node.agent(),
        &layer("a").file(FILE, "two\n").mirrors(&["https://one"]),
    );
    assert_eq!(diff(&foreign), "+two\n");
    assert!(foreign.hidden.unwrap().contains("not Edict's"));
}

#[test]
fn of_a_file_with_keys_only_edicts_keys_are_shown() {
    let node = Node::new();
    let before = r#"{"auths": {"r": {"auth": "token"}}, "registry-mirrors": ["https://theirs"]}"#;
    node.write(DOCKER, before);
    let mirrors = |urls: &[&str]| layer("a").mirrors(urls);
    let foreign = plan(node.agent(), &mirrors(&["https://one"]));
    assert_eq!(diff(&foreign), "+registry-mirrors = [\"https://one\"]\n");
    assert!(foreign.hidden.unwrap().contains("not Edict's"));
    node.apply(&mirrors(&["https://one"]));
    let own = plan(node.agent(), &mirrors(&["https://two"]));
    assert_eq!(
        (diff(&own), own.hidden),
        (
            "-registry-mirrors = [\"https://one\"]\n+registry-mirrors = [\"https://two\"]\n"
                .to_owned(),
            None
        )
    );
    let gone = plan(
        node.agent(),
        &layer("a").block("docker", json!({"debug": true})),
    );
    assert_eq!(
        diff(&gone),
        "-registry-mirrors = [\"https://one\"]\n+debug = true\n"
    );
    // Theirs comes back.
    assert!(
        gone.hidden
            .as_ref()
            .unwrap()
            .contains("as it was before Edict")
    );
    for change in [own_text(&gone), own_text(&foreign_again(&node))] {
        assert!(
            !change.contains("token") && !change.contains("theirs"),
            "{change}"
        );
    }
}

fn own_text(change: &Change) -> String {
    format!("{change} {change:?}")
}

/// Somebody else has set the key to something else.
fn foreign_again(node: &Node) -> Change {
    node.write(DOCKER, r#"{"registry-mirrors": ["https://theirs"]}"#);
    plan(node.agent(), &layer("a").mirrors(&["https://one"]))
}
