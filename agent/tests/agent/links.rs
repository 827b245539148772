//! Symlinks: where they lead is what is judged, owned and written.

use std::fs;
use std::os::unix::fs::symlink;

use edict_agent::host::{Host as _, View as _};
use edict_core::guard::path::{ALLOWED, EXECUTES, FORBIDDEN};
use edict_core::wire::Outcome;

use crate::node::{DOCKER, Declared, Node, Say as _, layer, resources};

#[test]
fn inside_etc_the_target_is_written() {
    for target in [
        "edict/real",
        "/etc/edict/real",
        "../etc/./edict/real",
        "edict/../edict//real",
    ] {
        let node = Node::new();
        fs::create_dir(node.at("/etc/edict")).unwrap();
        symlink(target, node.at("/etc/motd")).unwrap();
        let tree = node.tree();
        let a = layer("a").file("/etc/motd", "ours");
        assert_eq!(resources(&node.push(&[&a])), ["/etc/edict/real a replaced"]);
        assert!(
            fs::symlink_metadata(node.at("/etc/motd"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(node.read("/etc/edict/real"), "ours");
        node.release(&a);
        assert_eq!(node.tree(), tree);
    }
}

#[test]
fn through_a_folder() {
    let node = Node::new();
    fs::create_dir(node.at("/etc/edict")).unwrap();
    symlink("edict", node.at("/etc/motd.d")).unwrap();
    let a = layer("a").file("/etc/motd.d/new/x", "ours");
    assert_eq!(
        resources(&node.push(&[&a])),
        ["/etc/edict/new/x a replaced"]
    );
    let message = {
        let both = layer("b")
            .file("/etc/edict/y", "1")
            .file("/etc/motd.d/y", "2");
        let report = node.push(&[&both]).layers.remove(0);
        assert_eq!(report.outcome, Outcome::Refused);
        report.message
    };
    assert!(
        message.contains("/etc/motd.d/y -> /etc/edict/y"),
        "{message}"
    );
}

#[test]
fn out_of_etc_is_an_error() {
    let node = Node::new();
    for (target, said) in [
        (
            "/usr/x",
            "/etc/motd is a symlink that leads out of /etc (to /usr/x)",
        ),
        (
            "../usr/x",
            "/etc/motd is a symlink that leads out of /etc (to ../usr/x)",
        ),
        ("../../../etcetera", "/etc/motd is a symlink that leads out"),
        ("/etc", "/etc/motd is a symlink that leads out"),
        ("/", "/etc/motd is a symlink that leads out"),
        ("motd", "/etc/motd goes through more than 40 symlinks"),
        (
            "nowhere/../x",
            "/etc/motd is a symlink through a folder that does not exist",
        ),
    ] {
        let _ = fs::remove_file(node.at("/etc/motd"));
        symlink(target, node.at("/etc/motd")).unwrap();
        let tree = node.tree();
        let message = node.fail(&layer("a").file("/etc/issue", "x").file("/etc/motd", "x"));
        assert!(message.starts_with(said), "{target}: {message}");
        assert_eq!(node.tree(), tree);
    }
}

#[test]
fn to_what_is_forbidden_is_refused() {
    let node = Node::new();
    node.write("/etc/shadow", "secret");
    node.write("/etc/kubernetes/admin.conf", "secret");
    symlink("shadow", node.at("/etc/motd")).unwrap();
    symlink("kubernetes", node.at("/etc/edict")).unwrap();
    symlink("../cron.d/x", node.at("/etc/docker/daemon.json")).unwrap();
    let tree = node.tree();
    let a = layer("a")
        .file("/etc/motd", "x")
        .file("/etc/edict/admin.conf", "x");
    let report = node.push(&[&a]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Refused);
    let said: Vec<_> = report
        .violations
        .iter()
        .map(|v| (v.field.as_str(), v.rule.as_str(), v.excerpt.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (
                "files[0].path",
                "path-forbidden",
                "/etc/motd -> /etc/shadow"
            ),
            (
                "files[1].path",
                "path-forbidden",
                "/etc/edict/admin.conf -> /etc/kubernetes/admin.conf"
            ),
        ]
    );
    fs::remove_file(node.at(DOCKER)).unwrap();
    symlink("../shadow", node.at(DOCKER)).unwrap();
    let report = node
        .push(&[&layer("b").mirrors(&["https://m"])])
        .layers
        .remove(0);
    assert_eq!(report.violations[0].field, "docker");
    assert_eq!(report.violations[0].rule, "path-forbidden");
    fs::remove_file(node.at(DOCKER)).unwrap();
    symlink("../cron.d/x", node.at(DOCKER)).unwrap();
    assert_eq!(node.tree(), tree);
}

#[test]
fn every_place_of_every_table_is_judged_behind_a_link() {
    for (table, rule) in [
        (ALLOWED, None),
        (EXECUTES, Some("path-executes")),
        (FORBIDDEN, Some("path-forbidden")),
    ] {
        for place in table {
            let place = place.trim_end_matches('*');
            // The link is the file, or a folder on the way to it.
            for (target, path) in [
                (format!("{place}/x"), "/etc/edict/link"),
                (place.to_owned(), "/etc/edict/link/x"),
            ] {
                let node = Node::new();
                fs::create_dir(node.at("/etc/edict")).unwrap();
                symlink(&target, node.at("/etc/edict/link")).unwrap();
                let report = node.push(&[&layer("a").file(path, "x")]).layers.remove(0);
                let found: Vec<_> = report.violations.iter().map(|v| &*v.rule).collect();
                assert_eq!(
                    found,
                    Vec::from_iter(rule),
                    "{path} -> {target}: {report:?}"
                );
                assert_eq!(report.outcome == Outcome::Refused, rule.is_some());
                assert_eq!(node.at(&format!("{place}/x")).exists(), rule.is_none());
            }
        }
    }
}

#[test]
fn what_was_written_is_given_back_wherever_the_link_leads_now() {
    let node = Node::new();
    fs::create_dir(node.at("/etc/edict")).unwrap();
    symlink("edict/real", node.at("/etc/motd")).unwrap();
    let a = layer("a").file("/etc/motd", "ours");
    node.apply(&a);
    fs::remove_file(node.at("/etc/motd")).unwrap();
    symlink("edict/other", node.at("/etc/motd")).unwrap();
    node.apply(&a);
    assert!(!node.exists("/etc/edict/real"));
    assert_eq!(node.read("/etc/edict/other"), "ours");
    fs::remove_file(node.at("/etc/motd")).unwrap();
    node.release(&a);
    assert!(!node.exists("/etc/edict/other"));
}

#[test]
fn a_folder_that_became_a_link_is_not_followed() {
    let node = Node::new();
    let a = layer("a").file("/etc/edict/x", "ours");
    node.apply(&a);
    fs::rename(node.at("/etc/edict"), node.at("/etc/kubernetes")).unwrap();
    symlink("kubernetes", node.at("/etc/edict")).unwrap();
    let tree = node.tree();
    let report = node.release(&a);
    // Nothing is at the path itself any more, as before Edict.
    assert_eq!(report.foreign, [""; 0]);
    assert_eq!(node.tree(), tree, "what is in the forbidden place stays");
}

#[test]
fn no_operation_follows_a_link_that_appears_after_the_look() {
    let node = Node::new();
    node.write("/etc/kubernetes/x", "secret");
    symlink("kubernetes", node.at("/etc/edict")).unwrap();
    symlink("kubernetes/x", node.at("/etc/motd")).unwrap();
    let host = node.host(&Declared::default());
    let whole = host.look("/etc/kubernetes/x").unwrap().found;
    let whole = whole.file().unwrap();
    let tree = node.tree();
    assert!(host.stage("/etc/edict/x", whole).is_err());
    assert!(host.overwrite("/etc/edict/x", whole).is_err());
    assert!(host.overwrite("/etc/motd", whole).is_err());
    assert!(host.remove("/etc/edict/x").is_err());
    assert!(host.make_folder("/etc/edict/y").is_err());
    for path in ["/etc/../outside", "/etc/", "/etc", "/usr/x", "etc/motd"] {
        assert!(host.stage(path, whole).is_err(), "{path}");
    }
    assert_eq!(node.tree(), tree);
}
