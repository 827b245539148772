//! What the agent does not do, and says why.

use std::fs;

use edict_core::wire::{self, Fence, Outcome, Push};

use crate::node::{DOCKER, NAME, Node, Say as _, layer, leaving};

#[test]
fn a_file_that_is_no_json_stays_and_others_are_served() {
    for (text, reason) in [
        ("{\"a\": 1,", "not valid JSON"),
        ("{\"a\": 1, \"a\": 2}", "the key \"a\" is there twice"),
        ("[]", "not a JSON object"),
        ("{} // mine", "not valid JSON"),
    ] {
        let node = Node::new();
        node.write(DOCKER, text);
        let tree = node.tree();
        let a = layer("a")
            .priority(1)
            .mirrors(&["https://m"])
            .file("/etc/motd", "a");
        let b = layer("b").file("/etc/issue", "b");
        assert!(node.fail(&a).contains(reason));
        assert_eq!(node.tree(), tree, "nothing of it was written");
        let report = node.push(&[&a, &b]);
        assert_eq!(report.layers[0].outcome, Outcome::Failed);
        assert!(
            report.layers[0]
                .message
                .starts_with("/etc/docker/daemon.json: ")
        );
        assert_eq!(report.layers[0].in_force, None);
        assert_eq!(report.layers[1].outcome, Outcome::Applied);
        assert_eq!(node.read(DOCKER), text);
        assert_eq!(node.in_force(), ["b"]);
        // Corrected on the node, it goes through when it is asked for.
        node.write(DOCKER, "{}");
        node.apply(&a.retry("corrected"));
    }
}

#[test]
fn a_file_that_is_no_text() {
    let node = Node::new();
    fs::write(node.at(DOCKER), b"{\"a\": \"\xff\"}").unwrap();
    let message = node.fail(&layer("a").mirrors(&["https://m"]));
    assert!(message.contains("not UTF-8"), "{message}");
}

#[test]
fn the_last_good_revision_stays_in_force() {
    let node = Node::new();
    let good = layer("a").file("/etc/motd", "good");
    node.apply(&good);
    let report = node
        .push(&[&layer("a").file("/etc/shadow", "bad")])
        .layers
        .remove(0);
    assert_eq!(report.outcome, Outcome::Refused);
    assert_eq!(report.violations[0].field, "files[0].path");
    assert_eq!(report.violations[0].rule, "path-forbidden");
    assert!(report.message.contains("path-forbidden"), "{report:?}");
    assert_eq!(report.in_force, Some(good.digest.clone()));
    assert_eq!(node.read("/etc/motd"), "good");
    assert!(!node.exists("/etc/shadow"));
}

#[test]
fn a_digest_of_something_else() {
    let node = Node::new();
    let mut a = layer("a").file("/etc/motd", "x");
    a.digest = layer("b").digest;
    let report = node.push(&[&a]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.message.contains("digest"), "{report:?}");
    assert!(!node.exists("/etc/motd"));
}

#[test]
fn what_is_no_file() {
    let node = Node::new();
    fs::create_dir(node.at("/etc/motd")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, node.at("/etc/issue"), 0o600.into()).unwrap();
    node.write("/etc/hosts", "");
    fs::File::options()
        .write(true)
        .open(node.at("/etc/hosts"))
        .unwrap()
        .set_len(11 * 1024 * 1024)
        .unwrap();
    node.write("/etc/edict", "a file");
    for (path, reason) in [
        ("/etc/motd", "/etc/motd is a folder, not a file"),
        ("/etc/issue", "/etc/issue is a device, a socket or a pipe"),
        ("/etc/hosts", "/etc/hosts has more than 10 MiB"),
        ("/etc/edict/x", "/etc/edict is not a folder"),
    ] {
        let message = node.fail(&layer("a").file(path, "x").file("/etc/timezone", "x"));
        assert!(message.starts_with(reason), "{message}");
        assert!(!node.exists("/etc/timezone"));
    }
}

/// Says that the test may set flags that only root may; without it there is nothing to test.
const ROOT: &str = "EDICT_TEST_ROOT";

#[test]
fn a_file_that_is_immutable() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    if std::env::var_os(ROOT).is_none() {
        return;
    }
    let node = Node::new();
    node.write("/etc/motd", "old");
    let file = fs::File::open(node.at("/etc/motd")).unwrap();
    let flags = ioctl_getflags(&file).unwrap();
    ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
    let message = node.fail(&layer("a").file("/etc/motd", "x").file("/etc/timezone", "x"));
    ioctl_setflags(&file, flags).unwrap();
    assert!(
        message.starts_with("/etc/motd can't be written: Operation not permitted")
            && message.contains("lsattr"),
        "{message}"
    );
    assert!(!node.exists("/etc/timezone"));
    assert_eq!(node.read("/etc/motd"), "old");
}

#[test]
fn a_hard_link_is_replaced_alone() {
    let node = Node::new();
    node.write("/etc/motd", "before");
    fs::hard_link(node.at("/etc/motd"), node.at("/etc/other")).unwrap();
    let a = layer("a").file("/etc/motd", "ours");
    node.apply(&a);
    assert_eq!(node.read("/etc/other"), "before");
    node.release(&a);
    assert_eq!(node.read("/etc/motd"), "before");
}

#[test]
fn one_layer_twice() {
    let node = Node::new();
    let a = layer("a");
    let release = leaving(&a, edict_core::layer::DeletionPolicy::Restore);
    for push in [
        Push::new(
            NAME.into(),
            node.policy.clone(),
            vec![a.clone(), a.clone()],
            vec![],
        ),
        Push::new(
            NAME.into(),
            node.policy.clone(),
            vec![a.clone()],
            vec![release],
        ),
    ] {
        assert_eq!(node.agent().refuse(&push).unwrap().reason, "BadMessage");
    }
}

/// A push of nothing, by the operator with this fence.
fn fenced(epoch: u64, sequence: u64) -> Push {
    let push = Push::new(
        NAME.into(),
        edict_core::guard::Policy::default(),
        vec![],
        vec![],
    );
    push.fenced(wire::VERSION, Fence { epoch, sequence })
}

#[test]
fn who_leads_no_more_is_refused_also_by_the_next_agent() {
    let mut node = Node::new();
    let unfenced = Push {
        wire: wire::OLDEST,
        fence: None,
        ..fenced(0, 0)
    };
    assert_eq!(node.agent().admit(&unfenced), None);
    assert_eq!(node.agent().hello().fence, Some(Fence::default()));
    for (epoch, sequence, admitted) in [
        (3, 5, true),
        (3, 5, true),
        (3, 4, false),
        (2, 9, false),
        (3, 6, true),
        (4, 1, true),
        (3, 7, false),
    ] {
        let refusal = node.agent().admit(&fenced(epoch, sequence));
        assert_eq!(
            refusal.is_none(),
            admitted,
            "{epoch}.{sequence}: {refusal:?}"
        );
    }
    let seen = Fence {
        epoch: 4,
        sequence: 1,
    };
    assert_eq!(node.agent().hello().fence, Some(seen));
    node.restart();
    assert_eq!(node.agent().hello().fence, Some(seen));
    for old in [fenced(3, 9), unfenced] {
        let refusal = node.agent().admit(&old).unwrap();
        assert_eq!((&*refusal.reason, refusal.seen), ("Fenced", Some(seen)));
    }
    assert_eq!(node.agent().admit(&fenced(4, 2)), None);
}

#[test]
fn the_state_of_the_previous_version_is_read() {
    let mut node = Node::new();
    let a = layer("a").file("/etc/motd", "ours");
    node.apply(&a);
    let text = node.read("state/state.json");
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["version"] = 1.into();
    state.as_object_mut().unwrap().remove("fence").unwrap();
    node.agent = None;
    node.write("state/state.json", &state.to_string());
    node.restart();
    assert_eq!(node.in_force(), ["a"]);
    assert_eq!(node.agent().admit(&fenced(1, 1)), None);
    let text = node.read("state/state.json");
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&state["version"], &state["fence"]["epoch"]),
        (&2.into(), &1.into())
    );
    node.release(&a);
}

#[test]
fn credentials_are_never_in_a_report() {
    let node = Node::new();
    let report = node.push(&[&layer("a").mirrors(&["https://user:secret@m"])]);
    assert_eq!(report.layers[0].outcome, Outcome::Refused);
    assert!(!serde_json::to_string(&report).unwrap().contains("secret"));
}
