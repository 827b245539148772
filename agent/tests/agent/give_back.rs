//! What was there before Edict comes back, byte for byte.

use std::fs;

use edict_core::layer::DeletionPolicy;
use edict_core::wire::Outcome;

use crate::node::{DOCKER, Node, Say as _, is_root, layer, leaving, resources};

/// As a person lays it out.
const BY_HAND: &str = "{\n   \"debug\" :true,\n\n \"registry-mirrors\": [ \"https://old\" ] ,\n \"log-opts\": {\"max-size\":  \"10m\"}\n  }\n";

#[test]
fn a_file_with_odd_permissions() {
    let node = Node::new();
    node.write("/etc/motd", "before\n");
    node.chmod("/etc/motd", 0o4751);
    let tree = node.tree();
    let a = layer("a").file("/etc/motd", "after\n");
    assert_eq!(resources(&node.push(&[&a])), ["/etc/motd a replaced"]);
    assert_eq!(node.read("/etc/motd"), "after\n");
    assert_eq!(node.mode("/etc/motd"), 0o4751, "not given, so kept");
    assert_eq!(node.originals(), 1);
    node.release(&a);
    assert_eq!(node.tree(), tree);
    assert_eq!(node.originals(), 0, "given back, so forgotten");
    assert_eq!(node.in_force(), [""; 0]);
}

#[test]
fn a_file_of_somebody_else() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    node.write("/etc/motd", "before\n");
    std::os::unix::fs::chown(node.at("/etc/motd"), Some(7), Some(8)).unwrap();
    node.chmod("/etc/motd", 0o640);
    let tree = node.tree();
    let kept = layer("a").file("/etc/motd", "x");
    node.apply(&kept);
    assert!(
        node.tree()[1].ends_with("100640 7:8 x"),
        "{:?}",
        node.tree()
    );
    node.apply(&layer("a").file_as("/etc/motd", "x", "600", Some((9, 10))));
    assert!(
        node.tree()[1].ends_with("100600 9:10 x"),
        "{:?}",
        node.tree()
    );
    // No longer given: as it would be without the revision before.
    node.apply(&kept);
    assert!(
        node.tree()[1].ends_with("100640 7:8 x"),
        "{:?}",
        node.tree()
    );
    node.apply(&layer("a").file_as("/etc/motd", "x", "600", Some((9, 10))));
    node.release(&kept);
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_file_that_was_not_there() {
    let node = Node::new();
    let tree = node.tree();
    let a = layer("a")
        .file("/etc/edict/deep/er/x", "1")
        .file("/etc/edict/deep/y", "2")
        .file_as("/etc/motd", "3", "0600", None);
    node.apply(&a);
    assert_eq!(node.mode("/etc/edict/deep/er/x"), 0o644);
    assert_eq!(node.mode("/etc/edict/deep"), 0o755);
    assert_eq!(node.mode("/etc/motd"), 0o600);
    node.apply(&layer("a").file("/etc/edict/deep/y", "2"));
    assert!(!node.exists("/etc/edict/deep/er"), "left out, so gone");
    assert!(!node.exists("/etc/motd"));
    node.release(&a);
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_folder_that_somebody_uses_stays() {
    let node = Node::new();
    let a = layer("a").file("/etc/edict/x", "1");
    node.apply(&a);
    node.write("/etc/edict/theirs", "2");
    node.release(&a);
    assert!(!node.exists("/etc/edict/x"));
    assert_eq!(node.read("/etc/edict/theirs"), "2");
}

#[test]
fn keys_of_a_file_laid_out_by_hand() {
    let node = Node::new();
    node.write(DOCKER, BY_HAND);
    node.chmod(DOCKER, 0o600);
    let tree = node.tree();
    let a = layer("a").mirrors(&["https://new"]).insecure(&["r:5000"]);
    let report = node.apply(&a);
    assert_eq!(report.outcome, Outcome::PendingReload);
    assert_eq!(report.pending, ["docker.service"]);
    let text = node.read(DOCKER);
    assert!(text.contains("\"https://new\"") && text.contains("r:5000"));
    assert!(text.starts_with("{\n   \"debug\" :true,\n\n \"registry-mirrors\": "));
    assert!(text.contains("\n \"log-opts\": {\"max-size\":  \"10m\"}"));
    assert_eq!(node.mode(DOCKER), 0o600);
    // Whatever comes in between.
    node.apply(&layer("a").insecure(&["other:5000"]));
    assert!(node.read(DOCKER).contains("https://old"));
    node.apply(&a);
    let released = node.release(&a);
    assert_eq!(node.tree(), tree);
    assert_eq!(released.foreign, [""; 0]);
    assert!(
        released
            .message
            .contains("docker.service has yet to reread"),
        "{released:?}"
    );
}

#[test]
fn keys_of_a_file_that_was_not_there() {
    let node = Node::new();
    fs::remove_dir(node.at("/etc/docker")).unwrap();
    let tree = node.tree();
    let a = layer("a").mirrors(&["https://m"]);
    node.apply(&a);
    assert_eq!(
        node.read(DOCKER),
        "{\n  \"registry-mirrors\": [\"https://m\"]\n}\n"
    );
    node.release(&a);
    assert_eq!(node.tree(), tree);
}

#[test]
fn keys_of_an_empty_file() {
    for text in ["", "{}", "\n", "{ }\n"] {
        let node = Node::new();
        node.write(DOCKER, text);
        let tree = node.tree();
        let a = layer("a").mirrors(&["https://m"]);
        node.apply(&a);
        node.release(&a);
        assert_eq!(node.tree(), tree, "{text:?}");
    }
}

#[test]
fn a_key_of_null_comes_back_as_null() {
    let mut node = Node::new();
    node.write(DOCKER, "{\"registry-mirrors\": null}");
    let tree = node.tree();
    let a = layer("a").mirrors(&["https://m"]);
    node.apply(&a);
    node.write(
        DOCKER,
        &node.read(DOCKER).replace('}', ", \"debug\": true}"),
    );
    node.restart();
    node.release(&a);
    assert_eq!(
        node.read(DOCKER),
        "{\"registry-mirrors\": null, \"debug\": true}"
    );
    node.write(DOCKER, "{\"registry-mirrors\": null}");
    assert_eq!(node.tree(), tree);
}

#[test]
fn what_others_add_to_the_file_stays() {
    let node = Node::new();
    node.write(DOCKER, BY_HAND);
    let a = layer("a").mirrors(&["https://m"]);
    node.apply(&a);
    let grown = node
        .read(DOCKER)
        .replace("{\n   \"debug\"", "{ \"theirs\": 1,\n   \"debug\"");
    node.write(DOCKER, &grown);
    node.apply(&a);
    assert_eq!(node.read(DOCKER), grown);
    let report = node.release(&a);
    assert_eq!(report.foreign, [""; 0]);
    let expected: serde_json::Value =
        serde_json::from_str(&BY_HAND.replace("{\n   \"debug\"", "{ \"theirs\": 1,\n   \"debug\""))
            .unwrap();
    let text = node.read(DOCKER);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        expected
    );
    assert!(text.starts_with("{ \"theirs\": 1,\n   \"debug\" :true,"));
}

#[test]
fn a_file_of_edict_that_others_add_to_stays_with_theirs() {
    let node = Node::new();
    let a = layer("a").mirrors(&["https://m"]);
    node.apply(&a);
    node.write(
        DOCKER,
        &node.read(DOCKER).replace("{\n", "{\n  \"theirs\": 1,\n"),
    );
    node.release(&a);
    let left: serde_json::Value = serde_json::from_str(&node.read(DOCKER)).unwrap();
    assert_eq!(left, serde_json::json!({"theirs": 1}));
}

#[test]
fn a_changed_file_by_policy() {
    for (policy, after, foreign) in [
        (DeletionPolicy::Restore, "theirs", &["/etc/motd"][..]),
        (DeletionPolicy::RestoreForced, "before", &[]),
        (DeletionPolicy::Retain, "theirs", &[]),
    ] {
        let node = Node::new();
        node.write("/etc/motd", "before");
        let a = layer("a").file("/etc/motd", "ours");
        node.apply(&a);
        node.write("/etc/motd", "theirs");
        let report = node.release_with(&a, policy);
        assert_eq!(node.read("/etc/motd"), after, "{policy:?}");
        assert_eq!(report.foreign, foreign, "{policy:?}");
        assert_eq!(report.message.is_empty(), foreign.is_empty());
        assert_eq!(node.originals(), 0);
        // Nothing is remembered: a later layer starts anew.
        node.apply(&a);
        node.release(&a);
        assert_eq!(node.read("/etc/motd"), after, "{policy:?}");
    }
}

#[test]
fn changed_permissions_are_a_change() {
    let node = Node::new();
    let a = layer("a").file_as("/etc/motd", "ours", "644", None);
    node.apply(&a);
    node.chmod("/etc/motd", 0o600);
    assert_eq!(node.release(&a).foreign, ["/etc/motd"]);
    assert_eq!(node.read("/etc/motd"), "ours");
}

#[test]
fn a_changed_key_by_policy() {
    let theirs = "{\"registry-mirrors\": [\"https://theirs\"], \"insecure-registries\": [\"r\"]}";
    for (policy, mirrors, insecure, foreign) in [
        (
            DeletionPolicy::Restore,
            Some("theirs"),
            false,
            &["/etc/docker/daemon.json: registry-mirrors"][..],
        ),
        (DeletionPolicy::RestoreForced, Some("before"), false, &[]),
        (DeletionPolicy::Retain, Some("theirs"), true, &[]),
    ] {
        let node = Node::new();
        node.write(DOCKER, "{\"registry-mirrors\": [\"https://before\"]}");
        let a = layer("a").mirrors(&["https://ours"]).insecure(&["r"]);
        node.apply(&a);
        node.write(DOCKER, theirs);
        let report = node.release_with(&a, policy);
        let text = node.read(DOCKER);
        assert_eq!(report.foreign, foreign, "{policy:?}");
        assert!(text.contains(mirrors.unwrap()), "{policy:?}: {text}");
        assert_eq!(text.contains("insecure"), insecure, "{policy:?}: {text}");
    }
}

#[test]
fn a_deleted_or_broken_keys_file_by_policy() {
    for (theirs, policy, after) in [
        (None, DeletionPolicy::Restore, None),
        (None, DeletionPolicy::RestoreForced, Some("{ }")),
        (None, DeletionPolicy::Retain, None),
        (Some("{"), DeletionPolicy::Restore, Some("{")),
        (Some("{"), DeletionPolicy::RestoreForced, Some("{ }")),
        (Some("{"), DeletionPolicy::Retain, Some("{")),
    ] {
        let node = Node::new();
        node.write(DOCKER, "{ }");
        let a = layer("a").mirrors(&["https://ours"]);
        node.apply(&a);
        match theirs {
            Some(text) => node.write(DOCKER, text),
            None => fs::remove_file(node.at(DOCKER)).unwrap(),
        }
        let report = node.release_with(&a, policy);
        let left = node.exists(DOCKER).then(|| node.read(DOCKER));
        assert_eq!(left.as_deref(), after, "{theirs:?} {policy:?}");
        let told = policy == DeletionPolicy::Restore;
        assert_eq!(!report.foreign.is_empty(), told, "{theirs:?} {policy:?}");
    }
}

#[test]
fn what_was_put_back_by_hand_is_no_foreign_change() {
    let node = Node::new();
    node.write("/etc/motd", "before");
    let a = layer("a")
        .file("/etc/motd", "ours")
        .file("/etc/issue", "ours")
        .mirrors(&["https://m"]);
    node.apply(&a);
    node.write("/etc/motd", "before");
    fs::remove_file(node.at("/etc/issue")).unwrap();
    fs::remove_file(node.at(DOCKER)).unwrap();
    assert_eq!(node.release(&a).foreign, [""; 0]);
}

#[test]
fn a_release_of_what_is_not_there_is_done() {
    let node = Node::new();
    let report = node.release(&layer("never"));
    assert_eq!(report.message, "");
}

#[test]
fn updates_keep_the_first_original() {
    let mut node = Node::new();
    node.write("/etc/motd", "before");
    let tree = node.tree();
    for content in ["1", "2", "3"] {
        node.apply(&layer("a").file("/etc/motd", content));
        assert_eq!(node.read("/etc/motd"), content);
        node.restart();
    }
    node.release(&layer("a"));
    assert_eq!(node.tree(), tree);
}

#[test]
fn drift_is_corrected_by_the_same_push() {
    let node = Node::new();
    node.write("/etc/motd", "before");
    let a = layer("a").file("/etc/motd", "ours").mirrors(&["https://m"]);
    node.apply(&a);
    let docker = node.read(DOCKER);
    node.write("/etc/motd", "theirs");
    fs::remove_file(node.at(DOCKER)).unwrap();
    node.apply(&a);
    assert_eq!(node.read("/etc/motd"), "ours");
    assert_eq!(node.read(DOCKER), docker);
    node.release(&a);
    assert_eq!(node.read("/etc/motd"), "before");
    assert!(!node.exists(DOCKER));
}

#[test]
fn twice_is_as_once() {
    let node = Node::new();
    let a = layer("a").file("/etc/motd", "ours").mirrors(&["https://m"]);
    node.apply(&a);
    let inode =
        |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(node.at(path)).unwrap());
    let before = (inode("/etc/motd"), inode(DOCKER), node.tree());
    let report = node.push(&[&a]);
    assert_eq!(
        resources(&report),
        [
            "/etc/motd a replaced",
            "/etc/docker/daemon.json#registry-mirrors a replaced"
        ],
        "how they were written last"
    );
    assert_eq!(report.layers[0].outcome, Outcome::PendingReload);
    assert_eq!((inode("/etc/motd"), inode(DOCKER), node.tree()), before);
}

#[test]
fn what_is_not_named_is_kept_and_survives_a_restart() {
    let mut node = Node::new();
    node.write("/etc/motd", "before");
    let tree = node.tree();
    let a = layer("a").file("/etc/motd", "ours");
    let pushed = node.push(&[&a]);
    node.restart();
    let hello = node.agent().hello();
    assert_eq!(hello.report, Some(pushed));
    assert_eq!(hello.layers[0].digest, a.digest);
    let report = node.push(&[]);
    assert_eq!(resources(&report), ["/etc/motd a replaced"]);
    assert_eq!(node.in_force(), ["a"]);
    node.restart();
    let b = layer("b").file("/etc/issue", "x");
    let report = node.push_all(&[&b], &[leaving(&a, DeletionPolicy::Restore)]);
    assert_eq!(resources(&report), ["/etc/issue b replaced"]);
    node.release(&b);
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_retained_key_outlives_the_others_in_its_file() {
    for before in [None, Some("{\"debug\": true}\n")] {
        let node = Node::new();
        if let Some(text) = before {
            node.write(DOCKER, text);
        }
        let retained = layer("a").mirrors(&["https://m"]);
        let other = layer("b").insecure(&["r:5000"]);
        node.push(&[&retained, &other]);
        node.push_all(&[&other], &[leaving(&retained, DeletionPolicy::Retain)]);
        node.release(&other);
        let left: serde_json::Value = serde_json::from_str(&node.read(DOCKER)).unwrap();
        assert_eq!(left["registry-mirrors"][0], "https://m", "{left}");
        assert_eq!(left.get("insecure-registries"), None, "{left}");
        assert_eq!(left.get("debug").is_some(), before.is_some(), "{left}");
    }
}
