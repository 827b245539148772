//! `/etc/environment`: single lines of a file that is somebody else's.

use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::Outcome;
use serde_json::json;

use crate::node::{Node, Say as _, layer, leaving};

const PATH: &str = "/etc/environment";
const BY_HAND: &str = "# by hand\nLANG=\"C.UTF-8\"\nexport HTTPS_PROXY='http://old'  \nlast=1";

fn proxy(name: &str, https: &str) -> Layer {
    layer(name).proxy(json!({"appliesTo": ["Environment"], "https": https}))
}

fn version(node: &Node) -> u64 {
    let text = node.read("state/state.json");
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["version"].as_u64().unwrap()
}

#[test]
fn lines_of_others_stay_and_all_comes_back() {
    let node = Node::new();
    node.write(PATH, BY_HAND);
    let tree = node.tree();
    node.apply(&proxy("a", "http://new:1"));
    assert_eq!(
        node.read(PATH),
        "# by hand\nLANG=\"C.UTF-8\"\nexport HTTPS_PROXY=http://new:1  \nlast=1\nhttps_proxy=http://new:1\n"
    );
    node.apply(&proxy("a", "http://newer:2"));
    node.release(&proxy("a", ""));
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_file_that_was_not_there_goes() {
    let node = Node::new();
    let tree = node.tree();
    node.apply(&proxy("a", "http://new:1"));
    assert_eq!(
        node.read(PATH),
        "HTTPS_PROXY=http://new:1\nhttps_proxy=http://new:1\n"
    );
    node.release(&proxy("a", ""));
    assert_eq!(node.tree(), tree);
}

#[test]
fn what_somebody_adds_stays_and_what_he_changes_is_said() {
    let node = Node::new();
    node.apply(&proxy("a", "http://new:1"));
    node.write(
        PATH,
        "MINE=1\nHTTPS_PROXY=http://mine\nhttps_proxy=http://new:1\n",
    );
    let report = node.release(&proxy("a", ""));
    assert_eq!(report.foreign, ["/etc/environment: HTTPS_PROXY"]);
    assert_eq!(node.read(PATH), "MINE=1\nHTTPS_PROXY=http://mine\n");
}

#[test]
fn a_key_that_somebody_has_set_twice() {
    let node = Node::new();
    let twice = "https_proxy=http://a\nhttps_proxy=http://b\n";
    node.write(PATH, twice);
    let said = node.fail(&proxy("a", "http://new:1"));
    for word in [
        PATH,
        "https_proxy stands in lines 1 and 2",
        "correct the file",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(node.read(PATH), twice);
    // Once it is in force it holds nothing up: what can be given back is.
    node.write(PATH, "");
    let a = proxy("a", "http://new:1").retry("1");
    node.apply(&a);
    node.write(PATH, &format!("{twice}HTTPS_PROXY=http://new:1\n"));
    let report = node.release(&a);
    assert_eq!(report.foreign, ["/etc/environment: https_proxy"]);
    assert_eq!(node.read(PATH), twice);
    // Nor where it has to come back at any price.
    node.write(PATH, "");
    node.apply(&a);
    node.write(PATH, twice);
    let release = leaving(&a, DeletionPolicy::RestoreForced);
    let report = node.push_all(&[], &[release]).releases.remove(0);
    assert!(report.done, "{report:?}");
}

#[test]
fn two_layers_share_the_file_and_not_a_line() {
    let node = Node::new();
    let http = json!({"appliesTo": ["Environment"], "http": "http://b:1", "https": "http://b:1"});
    let b = layer("b").priority(-1).proxy(http);
    let report = node.push(&[&proxy("a", "http://a:1"), &b]);
    assert_eq!(report.layers[0].outcome, Outcome::Applied);
    let lost = &report.layers[1].conflicts;
    let lost: Vec<_> = lost
        .iter()
        .map(|one| (&*one.winner_name, one.key.as_ref().unwrap().to_string()))
        .collect();
    let both = ["HTTPS_PROXY", "https_proxy"].map(|key| ("a", key.to_owned()));
    assert_eq!(lost, both);
    assert_eq!(
        node.read(PATH),
        "HTTPS_PROXY=http://a:1\nhttps_proxy=http://a:1\nHTTP_PROXY=http://b:1\nhttp_proxy=http://b:1\n"
    );
    // The other one takes over.
    node.push_all(&[&b], &[leaving(&proxy("a", ""), DeletionPolicy::Restore)]);
    assert!(!node.read(PATH).contains("http://a"), "{}", node.read(PATH));
}

/// The release before does not know the format, and is told so by the version.
#[test]
fn the_version_of_the_state_is_the_lowest_that_can_be_read() {
    let mut node = Node::new();
    let a = proxy("a", "http://new:1");
    node.apply(&layer("b").mirrors(&["https://m"]));
    assert_eq!(version(&node), 2);
    node.apply(&a);
    assert_eq!(version(&node), 3);
    node.restart();
    node.release(&a);
    assert_eq!(version(&node), 2);
}
