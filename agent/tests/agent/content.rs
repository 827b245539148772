//! Content by reference: who may read it, where it is kept, that it is given back.

use edict_core::wire::Outcome;

use crate::node::{Node, Say as _, layer};

const PASSWORD: &[u8] = b"\xffcorrect horse";

#[test]
fn a_secret_is_for_root_alone_and_a_config_map_is_not() {
    let node = Node::new();
    let pristine = node.tree();
    let both = layer("a")
        .file_from("/etc/edict/secret", "Secret/a/k", PASSWORD)
        .file_from("/etc/edict/open", "ConfigMap/a/k", b"open");
    node.apply(&both);
    assert_eq!(
        std::fs::read(node.at("/etc/edict/secret")).unwrap(),
        PASSWORD
    );
    assert_eq!(node.read("/etc/edict/open"), "open");
    assert_eq!(node.mode("/etc/edict/secret"), 0o600);
    assert_eq!(node.mode("/etc/edict/open"), 0o644);
    node.release(&both);
    assert_eq!(node.tree(), pristine);
}

#[test]
fn an_existing_file_becomes_as_secret_as_its_new_content() {
    let node = Node::new();
    node.write("/etc/motd", "theirs");
    node.chmod("/etc/motd", 0o644);
    let pristine = node.tree();
    let secret = layer("a").file_from("/etc/motd", "Secret/a/k", PASSWORD);
    node.apply(&secret);
    assert_eq!(node.mode("/etc/motd"), 0o600);
    node.release(&secret);
    assert_eq!(node.tree(), pristine);
}

#[test]
fn changed_content_is_a_new_revision() {
    let node = Node::new();
    let before = layer("a").file_from("/etc/motd", "ConfigMap/a/k", b"before");
    let after = layer("a").file_from("/etc/motd", "ConfigMap/a/k", b"after");
    assert_ne!(before.digest, after.digest);
    node.apply(&before);
    node.apply(&after);
    assert_eq!(node.read("/etc/motd"), "after");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let node = Node::new();
    let mut changed = layer("a").file_from("/etc/motd", "ConfigMap/a/k", b"x");
    changed.contents.0.clear();
    let report = node.push(&[&changed]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Refused, "{report:?}");
    assert!(!node.exists("/etc/motd"));
}
