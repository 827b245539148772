//! The agent is killed before every operation of a transaction: the next one loses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::faults::{NEVER, run, scene};
use crate::node::{Node, Say as _, layer, unlocked};

#[test]
fn an_agent_that_dies_in_an_update() {
    for step in 0.. {
        let (mut node, countdown, [old, new]) = scene(true);
        let pristine = node.tree();
        node.apply(&old);
        let before = node.tree();
        countdown.store(step, Ordering::SeqCst);
        let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&new]))).is_err();
        countdown.store(NEVER, Ordering::SeqCst);
        run(&mut node, &countdown, true);
        if !died {
            assert!(step > 10, "{step}");
            break;
        }
        assert_eq!(node.tree(), before, "{step}");
        // Both ways go on from here.
        if step % 2 == 0 {
            node.apply(&new);
        }
        let report = node.release(&old);
        assert_eq!(report.foreign, [""; 0], "{step}");
        assert_eq!(node.tree(), pristine, "{step}");
        assert_eq!(node.originals(), 0);
    }
}

#[test]
fn an_agent_that_dies_in_the_first_revision_or_in_a_release() {
    for step in 0.. {
        let (mut node, countdown, [old, _]) = scene(true);
        let pristine = node.tree();
        countdown.store(step, Ordering::SeqCst);
        let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&old]))).is_err();
        countdown.store(NEVER, Ordering::SeqCst);
        run(&mut node, &countdown, true);
        if !died {
            break;
        }
        assert_eq!(node.tree(), pristine, "{step}");
        node.apply(&old);
        let applied = node.tree();
        countdown.store(step, Ordering::SeqCst);
        let died = catch_unwind(AssertUnwindSafe(|| node.release(&old))).is_err();
        countdown.store(NEVER, Ordering::SeqCst);
        run(&mut node, &countdown, true);
        if died {
            assert_eq!(node.tree(), applied, "{step}");
            node.release(&old);
        }
        assert_eq!(node.tree(), pristine, "{step}");
    }
}

#[test]
fn leftovers_are_cleared_away() {
    let mut node = Node::new();
    node.apply(&layer("a").file("/etc/motd", "x").file("/etc/edict/x", "x"));
    node.write("/etc/.edict-12-3.tmp", "half");
    node.write("/etc/edict/.edict-4-0.tmp", "half");
    node.write("/etc/.edict-mine", "theirs");
    node.restart();
    assert!(!node.exists("/etc/.edict-12-3.tmp"));
    assert!(!node.exists("/etc/edict/.edict-4-0.tmp"));
    assert!(node.exists("/etc/.edict-mine"));
}

#[test]
fn a_state_that_makes_no_sense_is_refused() {
    use edict_agent::state::Store;
    let mut node = Node::new();
    let state = node.folder.path().join("state");
    assert!(
        Store::open(&state)
            .unwrap_err()
            .to_string()
            .contains("another agent")
    );
    node.agent = None;
    for (text, said) in [
        (
            "{\"version\": 99, \"else\": 1}",
            "written by a newer agent (version 99",
        ),
        ("{\"version\": 1", "state.json is damaged"),
        ("", "state.json is damaged"),
    ] {
        node.write("state/state.json", text);
        let store = unlocked(|| Store::open(&state)).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn nobody_else_can_look_into_the_state() {
    let node = Node::new();
    node.write("/etc/motd", "secret");
    node.apply(&layer("a").file("/etc/motd", "x"));
    assert_eq!(node.mode("state"), 0o700);
    assert_eq!(node.mode("state/originals"), 0o700);
    assert_eq!(node.mode("state/state.json"), 0o600);
    for entry in std::fs::read_dir(node.at("state/originals")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(node.mode(&format!("state/originals/{name}")), 0o600);
    }
}
