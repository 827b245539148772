//! Settings of the kernel: written down, set at once, and set back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::Outcome;
use serde_json::json;

use crate::node::{Node, Say as _, layer, leaving, resources};
use crate::services::Services;

const FILE: &str = "/etc/sysctl.d/99-zz-edict.conf";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const SWAP: &str = "/proc/sys/vm/swappiness";

fn node() -> (Node, Services) {
    let services = Services::default().kernel(FORWARD, "0").kernel(SWAP, "60");
    let mut node = Node::prepared();
    node.serve(&services);
    (node, services)
}

fn forward(value: &str) -> Layer {
    layer("a").sysctl(json!({"net.ipv4.ip_forward": value}))
}

#[test]
fn it_is_written_down_and_set_and_all_comes_back() {
    let (node, services) = node();
    let tree = node.tree();
    let a = layer("a").sysctl(json!({"net.ipv4.ip_forward": "1", "vm/swappiness": "10"}));
    let report = node.push(&[&a]);
    assert_eq!(
        resources(&report),
        [
            "/proc/sys/net/ipv4/ip_forward a in place",
            "/proc/sys/vm/swappiness a in place",
            "/etc/sysctl.d/99-zz-edict.conf#net.ipv4.ip_forward a replaced",
            "/etc/sysctl.d/99-zz-edict.conf#vm.swappiness a replaced",
        ]
    );
    assert_eq!(
        node.read(FILE),
        "net.ipv4.ip_forward = 1\nvm.swappiness = 10\n"
    );
    assert_eq!(
        (services.runs_with(FORWARD), services.runs_with(SWAP)),
        ("1".into(), "10".into())
    );
    services.told_all();
    node.apply(&a);
    assert_eq!(services.told_all(), [""; 0], "it has them");
    // One is left out.
    node.apply(&forward("1"));
    assert_eq!(services.told_all(), [format!("set {SWAP} 60")]);
    node.release(&a);
    assert_eq!(services.told_all(), [format!("set {FORWARD} 0")]);
    assert_eq!((node.tree(), node.originals()), (tree, 0));
}

#[test]
fn what_somebody_has_set_since_is_left_and_said() {
    let (node, services) = node();
    let a = forward("1");
    node.apply(&a);
    services.set_kernel(FORWARD, "2");
    let report = node.release(&a);
    assert_eq!(report.foreign, [FORWARD]);
    assert_eq!(services.runs_with(FORWARD), "2");
    node.apply(&a);
    services.set_kernel(FORWARD, "3");
    node.release_with(&a, DeletionPolicy::RestoreForced);
    assert_eq!(services.runs_with(FORWARD), "2", "as it was before");
}

#[test]
fn what_the_kernel_does_not_take_is_put_back() {
    let (node, services) = node();
    let tree = node.tree();
    for (sysctl, says) in [
        (
            json!({"vm.swappiness": "1000"}),
            "the kernel has made 100 of 1000",
        ),
        (
            json!({"vm.swappiness": "many"}),
            "set /proc/sys/vm/swappiness: failed",
        ),
        (json!({"vm.nothing": "1"}), "no such setting"),
        (
            json!({"net.ipv4.ip_forward": "1", "vm.swappiness": "x"}),
            "set /proc/sys/vm",
        ),
    ] {
        let said = node.fail(&layer("a").sysctl(sysctl));
        assert!(said.contains(says), "{said}");
        assert_eq!(
            (services.runs_with(FORWARD), services.runs_with(SWAP)),
            ("0".into(), "60".into())
        );
        assert_eq!(node.tree(), tree);
    }
}

#[test]
fn an_agent_that_dies_over_it_loses_no_value() {
    for after in [false, true] {
        let (mut node, services) = node();
        let tree = node.tree();
        services.dies_setting(FORWARD, after);
        let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&forward("1")])));
        assert!(died.is_err());
        node.restart();
        assert_eq!(
            (services.runs_with(FORWARD), node.tree()),
            ("0".into(), tree.clone())
        );
        // And on the way back.
        node.apply(&forward("1"));
        services.dies_setting(FORWARD, after);
        let release = leaving(&forward(""), DeletionPolicy::Restore);
        let died = catch_unwind(AssertUnwindSafe(|| node.push_all(&[], &[release])));
        assert!(died.is_err());
        node.restart();
        assert_eq!(node.in_force(), ["a"]);
        assert_eq!(
            services.runs_with(FORWARD),
            "1",
            "as long as it is in force"
        );
        node.release(&forward(""));
        assert_eq!(
            (services.runs_with(FORWARD), node.tree()),
            ("0".into(), tree)
        );
    }
}

#[test]
fn the_higher_priority_has_it() {
    let (node, services) = node();
    let b = layer("b")
        .priority(1)
        .sysctl(json!({"net/ipv4/ip_forward": "2", "vm.swappiness": "5"}));
    let report = node.push(&[&forward("1"), &b]);
    let lost = report.layers.iter().find(|one| one.name == "a").unwrap();
    let paths: Vec<_> = lost.conflicts.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, [FILE, FORWARD]);
    assert_eq!(services.runs_with(FORWARD), "2");
    node.push_all(&[&forward("1")], &[leaving(&b, DeletionPolicy::Restore)]);
    assert_eq!(services.runs_with(FORWARD), "1");
    node.release(&forward(""));
    assert_eq!(
        (services.runs_with(FORWARD), services.runs_with(SWAP)),
        ("0".into(), "60".into())
    );
}

/// Nobody can be asked: it is written down, and said to wait.
#[test]
fn without_systemd_it_waits_for_the_next_start() {
    let node = Node::new();
    let tree = node.tree();
    let report = node.push(&[&forward("1")]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::PendingReload, "{report:?}");
    assert_eq!(report.pending, ["systemd-sysctl.service"]);
    assert_eq!(node.read(FILE), "net.ipv4.ip_forward = 1\n");
    node.release(&forward(""));
    assert_eq!(node.tree(), tree);
}

/// What was set is not forgotten because nobody can be asked any more.
#[test]
fn what_was_set_waits_until_systemd_can_be_asked() {
    let (mut node, services) = node();
    node.apply(&forward("1"));
    node.services = None;
    node.restart();
    // As it is it stays in force, and holds nothing up.
    let other = layer("b").file("/etc/motd", "x");
    let report = node.push(&[&forward("1"), &other]);
    let outcomes: Vec<_> = report.layers.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Applied], "{report:?}");
    let said = node.fail(&forward("2"));
    assert!(said.contains("spec.restarts"), "{said}");
    let release = leaving(&forward(""), DeletionPolicy::Restore);
    let report = node.push_all(&[], &[release]).releases.remove(0);
    assert!(!report.done, "{report:?}");
    assert!(
        report.message.contains("spec.restarts"),
        "{}",
        report.message
    );
    node.serve(&services);
    node.release(&forward(""));
    assert_eq!(services.runs_with(FORWARD), "0");
    // Who keeps it asks nobody.
    node.apply(&forward("1"));
    node.services = None;
    node.restart();
    node.release_with(&forward(""), DeletionPolicy::Retain);
    assert_eq!(services.runs_with(FORWARD), "1");
}

/// The kernel does not take every value back: that is said, and holds up nothing else.
#[test]
fn what_the_kernel_does_not_take_back_is_said() {
    const ONE_WAY: &str = "/proc/sys/kernel/one_way";
    let (node, services) = node();
    services.set_kernel(ONE_WAY, "0");
    let tree = node.tree();
    let both =
        |swap: &str| layer("a").sysctl(json!({"kernel.one_way": "1", "vm.swappiness": swap}));
    let said = node.fail(&both("many"));
    assert!(said.contains("/proc/sys/vm/swappiness"), "{said}");
    assert_eq!(
        (services.runs_with(ONE_WAY), node.tree()),
        ("1".into(), tree.clone())
    );
    // Another layer goes on.
    node.apply(&layer("b").file("/etc/motd", "x"));
    node.release(&layer("b"));
    services.set_kernel(ONE_WAY, "0");
    node.apply(&both("10"));
    let report = node.release(&both("10"));
    assert!(report.foreign[0].starts_with(ONE_WAY), "{report:?}");
    let said = format!("can't be set back and so left: {ONE_WAY} (set ");
    assert!(report.message.starts_with(&said), "{}", report.message);
    assert_eq!((services.runs_with(SWAP), node.tree()), ("60".into(), tree));
}

/// Whatever it is called.
#[test]
fn a_file_that_somebody_changed_is_no_setting_that_is_refused() {
    let node = Node::new();
    let a = layer("a").file("/etc/edict/a)", "x");
    node.apply(&a);
    node.write("/etc/edict/a)", "somebody's");
    let report = node.release(&a);
    let said = "somebody else changed and so left as found: /etc/edict/a)";
    assert_eq!(report.message, said);
}

/// Also where another one, whose path it begins with, is refused.
#[test]
fn what_another_setting_changes_is_set_again() {
    const OTHER: &str = "/proc/sys/net/ipv4/conf/all/x";
    let (node, services) = node();
    services.set_kernel(OTHER, "5");
    services.set_kernel(&format!("{OTHER}_one_way"), "0");
    let a = layer("a").sysctl(json!({
        "net.ipv4.conf.all.x": "7",
        "net.ipv4.conf.all.x_one_way": "1",
        "net.ipv4.ip_forward": "1",
    }));
    node.apply(&a);
    assert_eq!(services.runs_with(OTHER), "7");
    node.release(&a);
    assert_eq!(
        (services.runs_with(OTHER), services.runs_with(FORWARD)),
        ("5".into(), "0".into())
    );
}

/// As one of an interface that goes.
#[test]
fn a_setting_that_has_gone_holds_nothing_up() {
    let (mut node, services) = node();
    let a = layer("a").sysctl(json!({"vm.swappiness": "10"}));
    node.apply(&a);
    services.lose_kernel(SWAP);
    let said = node.fail(&a);
    assert!(said.contains("no such setting"), "{said}");
    // Not even an interrupted change of somebody else.
    services.dies_setting(FORWARD, true);
    let b = layer("b").sysctl(json!({"net.ipv4.ip_forward": "1"}));
    let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&b])));
    assert!(died.is_err());
    node.restart();
    assert!(!node.agent().is_interrupted());
    node.apply(&b);
    node.release_with(&a, DeletionPolicy::RestoreForced);
    node.release(&b);
    assert_eq!(services.runs_with(FORWARD), "0");
}

/// The release before does not know the block, and is told so by the version.
#[test]
fn the_version_says_that_there_is_a_block_beyond_the_first() {
    let node = Node::new();
    let a = layer("a").proxy(json!({"appliesTo": ["Docker"], "http": "http://a"}));
    node.apply(&a);
    let version = || {
        let state: serde_json::Value =
            serde_json::from_str(&node.read("state/state.json")).unwrap();
        state["version"].clone()
    };
    assert_eq!(version(), 3);
    node.release(&a);
    assert_eq!(version(), 2);
}
