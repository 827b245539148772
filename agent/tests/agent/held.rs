//! A layer that failed is not tried again until it changes or somebody asks, and holds up no other.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use edict_agent::apply::Agent;
use edict_agent::state::Store;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{self, LayerReport, Outcome};

use crate::faults::{Failing, NEVER};
use crate::node::{Declared, NAME, Node, Say as _, layer, leaving, unlocked};
use crate::power::record::Recorder;

/// A node with a disk that one can have fail.
struct Scene {
    node: Node,
    /// So many operations go well; then one fails.
    fails: Arc<AtomicUsize>,
    /// So many operations go well; then none does until this is set anew.
    breaks: Arc<AtomicUsize>,
    /// Counts what the host is asked.
    asked: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            node: Node::prepared(),
            fails: Arc::new(AtomicUsize::new(NEVER)),
            breaks: Arc::new(AtomicUsize::new(NEVER)),
            asked: Arc::default(),
        };
        scene.node.write("/etc/motd", "before");
        scene.restart();
        scene
    }

    /// Another agent over the same folders.
    fn restart(&mut self) {
        let breaks = Arc::clone(&self.breaks);
        let watch = move || match breaks.load(Ordering::SeqCst) {
            NEVER => Ok(()),
            0 => Err(io::ErrorKind::StorageFull.into()),
            left => {
                breaks.store(left - 1, Ordering::SeqCst);
                Ok(())
            }
        };
        let host = self.node.host(&Declared::default());
        self.node.run(Failing {
            countdown: Arc::clone(&self.fails),
            asked: Arc::clone(&self.asked),
            watch: Box::new(watch),
            ..Failing::new(host)
        });
    }

    /// Another agent, of whose state folder every operation is recorded.
    fn record(&mut self) -> Arc<Recorder> {
        self.node.agent = None;
        let base = self.node.folder.path();
        let recorder = Recorder::over(base, &["state"]).0;
        let host = Failing {
            countdown: Arc::clone(&self.fails),
            asked: Arc::clone(&self.asked),
            ..Failing::new(self.node.host(&Declared::default()))
        };
        let store =
            unlocked(|| Store::open_on(Arc::clone(&recorder) as _, &base.join("state"))).unwrap();
        self.node.agent = Some(Arc::new(
            Agent::open(
                NAME.into(),
                host,
                self.node.manager(),
                store,
                self.node.address,
            )
            .unwrap(),
        ));
        recorder
    }

    /// A push of one layer, in which the first operation fails.
    fn fail(&self, layer: &Layer) -> LayerReport {
        self.fails.store(0, Ordering::SeqCst);
        let report = self.push(layer);
        assert_eq!(self.fails.load(Ordering::SeqCst), NEVER, "it was not tried");
        assert_eq!(report.outcome, Outcome::Failed);
        report
    }

    fn push(&self, layer: &Layer) -> LayerReport {
        self.node.push(&[layer]).layers.remove(0)
    }

    /// Pushes, and expects that the host is not even looked at.
    fn untouched(&self, layer: &Layer) -> LayerReport {
        let before = (self.node.tree(), self.node.in_force());
        self.asked.store(0, Ordering::SeqCst);
        let report = self.push(layer);
        assert_eq!(self.asked.load(Ordering::SeqCst), 0, "{report:?}");
        assert_eq!((report.outcome, report.held), (Outcome::Failed, true));
        assert_eq!((self.node.tree(), self.node.in_force()), before);
        report
    }

    fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.node.read("state/state.json")).unwrap()
    }
}

fn revision(content: &str) -> Layer {
    layer("a")
        .file("/etc/motd", content)
        .file("/etc/edict/x", content)
}

#[test]
fn what_failed_is_not_tried_again_also_by_the_next_agent() {
    let mut scene = Scene::new();
    let (old, new) = (revision("old"), revision("new"));
    scene.node.apply(&old);
    let tree = scene.node.tree();
    let first = scene.fail(&new);
    assert!(first.held);
    assert_eq!(
        first.message,
        "/etc/edict/x can't be written: no storage space: free some space on the node; what was changed \
         before it is put back; held: set the annotation edict.dev/retry of NodeConfig a to a new \
         value to try again, or change its configuration"
    );
    assert_eq!(scene.node.tree(), tree);
    for _ in 0..2 {
        assert_eq!(scene.untouched(&new), first);
    }
    scene.restart();
    assert_eq!(scene.untouched(&new), first);
    // A leader that comes now hears of it before it pushes anything.
    let hello = scene.node.agent().hello();
    assert_eq!(hello.report.unwrap().layers, [first]);
    assert_eq!(hello.layers[0].digest, old.digest);
}

#[test]
fn another_revision_is_tried() {
    let scene = Scene::new();
    let (old, new) = (revision("old"), revision("new"));
    scene.node.apply(&old);
    assert!(scene.fail(&new).held);
    scene.node.apply(&old);
    // What was held is forgotten with it.
    assert_eq!(scene.state().get("holds"), None);
    assert!(scene.fail(&new).held);
    scene.untouched(&new);
    scene.node.apply(&revision("newest"));
    scene.node.apply(&new);
}

#[test]
fn another_try_is_made_once() {
    let mut scene = Scene::new();
    let a = revision("a");
    scene.fail(&a);
    let again = a.clone().retry("2026-01-01");
    assert!(scene.fail(&again).held);
    scene.untouched(&again);
    // Nobody asks when the annotation goes away.
    scene.untouched(&a);
    scene.restart();
    scene.untouched(&again);
    scene.node.apply(&a.clone().retry("2026-01-02"));
    assert_eq!(scene.state().get("holds"), None);
    // What is asked for where nothing is held changes nothing.
    let before = scene.state()["layers"].clone();
    scene.node.apply(&a.retry("2026-01-03"));
    assert_eq!(scene.state()["layers"], before);
}

#[test]
fn others_go_on() {
    let scene = Scene::new();
    let a = revision("a").priority(1);
    scene.fail(&a);
    for content in ["b", "c"] {
        let b = layer("b").file("/etc/motd", content);
        let report = scene.node.push(&[&b, &a]);
        assert_eq!(report.layers[0].name, "a");
        assert!(report.layers[0].held);
        assert_eq!(report.layers[1].outcome, Outcome::Applied);
        assert!(report.is_at_rest() && !report.is_settled());
        assert_eq!(scene.node.read("/etc/motd"), content);
    }
    assert_eq!(scene.node.in_force(), ["b"]);
    let report = scene
        .node
        .push(&[&layer("b").file("/etc/motd", "d"), &a.retry("1")]);
    assert!(report.is_settled(), "{report:?}");
    assert_eq!(scene.node.read("/etc/motd"), "a");
}

#[test]
fn a_release_ends_it() {
    let scene = Scene::new();
    let (old, new) = (revision("old"), revision("new"));
    // One of which nothing was ever in force, and one of which an earlier revision is.
    for in_force in [false, true] {
        if in_force {
            scene.node.apply(&old);
        }
        assert!(scene.fail(&new).held, "{in_force}");
        scene.node.release(&new);
        assert_eq!(scene.state().get("holds"), None, "{in_force}");
        assert_eq!(scene.node.read("/etc/motd"), "before");
        scene.node.apply(&new);
        scene.node.release(&new);
    }
}

#[test]
fn what_is_refused_is_judged_anew_each_time() {
    let mut scene = Scene::new();
    let a = revision("a");
    scene.node.policy.protected = vec!["/etc/motd".into()];
    let report = scene.push(&a);
    assert_eq!((report.outcome, report.held), (Outcome::Refused, false));
    scene.node.policy.protected.clear();
    // As where a path leads on the node.
    fs::remove_file(scene.node.at("/etc/motd")).unwrap();
    std::os::unix::fs::symlink("/var/tmp/x", scene.node.at("/etc/motd")).unwrap();
    let report = scene.push(&a);
    assert_eq!((report.outcome, report.held), (Outcome::Failed, false));
    fs::remove_file(scene.node.at("/etc/motd")).unwrap();
    scene.node.apply(&a);
}

/// It could not read that something is held, nor ask for another try.
#[test]
fn nothing_is_held_for_an_older_operator() {
    let scene = Scene::new();
    let a = revision("a");
    let push = |wire: u32| scene.node.push_as(wire, &[&a], &[]).layers.remove(0);
    for wire in wire::OLDEST..wire::HOLDS {
        scene.fails.store(0, Ordering::SeqCst);
        let report = push(wire);
        assert_eq!((report.outcome, report.held), (Outcome::Failed, false));
        assert!(!report.message.contains("edict.dev/retry"), "{report:?}");
    }
    assert!(scene.fail(&a).held);
    assert_eq!(push(2).outcome, Outcome::Applied);
    assert_eq!(scene.state().get("holds"), None);
}

/// A state folder in which nothing can be saved, until it is mended.
struct Unwritable(PathBuf);

/// The files that a state is saved in.
const SAVED: [&str; 2] = ["state.json", "journal.json"];

impl Unwritable {
    fn new(state: PathBuf) -> Self {
        for name in SAVED {
            let aside = fs::rename(state.join(name), state.join(format!("aside-{name}")));
            assert!(aside.is_ok() || name != SAVED[0]);
            fs::create_dir_all(state.join(name).join("in-the-way")).unwrap();
        }
        Self(state)
    }

    fn mend(self) {
        let Self(state) = self;
        for name in SAVED {
            fs::remove_dir_all(state.join(name)).unwrap();
            let back = fs::rename(state.join(format!("aside-{name}")), state.join(name));
            assert!(back.is_ok() || name != SAVED[0]);
        }
    }
}

#[test]
fn what_was_not_begun_is_not_held() {
    let scene = Scene::new();
    scene.node.apply(&layer("b").file("/etc/issue", "b"));
    let a = revision("a");
    let unwritable = Unwritable::new(scene.node.at("state"));
    let report = scene.push(&a);
    assert_eq!((report.outcome, report.held), (Outcome::Failed, false));
    assert!(report.message.contains("the state folder's"), "{report:?}");
    assert_eq!(scene.node.read("/etc/motd"), "before");
    unwritable.mend();
    scene.node.apply(&a);
}

/// As above, but when the host has been changed already: that is not to happen over and over.
#[test]
fn what_was_put_back_is_held_whatever_the_reason() {
    let mut node = Node::prepared();
    node.write("/etc/motd", "before");
    let (state, armed) = (node.at("state"), Arc::new(AtomicBool::new(false)));
    let (folder, once) = (state.clone(), Arc::clone(&armed));
    let host = node.host(&Declared::default());
    node.run(Failing {
        watch: Box::new(move || {
            if once.swap(false, Ordering::SeqCst) {
                Unwritable::new(folder.clone());
            }
            Ok(())
        }),
        ..Failing::new(host)
    });
    node.apply(&layer("b").file("/etc/issue", "b"));
    let tree = node.tree();
    let a = revision("a");
    armed.store(true, Ordering::SeqCst);
    let report = node.push(&[&a]).layers.remove(0);
    // For want of a word on disk that it is put back.
    assert_eq!((report.outcome, report.held), (Outcome::Failed, false));
    assert_eq!(node.tree(), tree);
    Unwritable(state).mend();
    let report = node.push(&[&a]).layers.remove(0);
    assert!(report.held, "{report:?}");
    let said = "state.json can't be used: Is a directory (os error 21): there is a folder now: move it away; \
                what was changed before it is put back; held: set";
    assert!(report.message.contains(said), "{report:?}");
    assert_eq!(node.tree(), tree);
    node.apply(&a.retry("1"));
}

/// The state folder is full from one operation on, whichever that is; the host fails once.
#[test]
fn what_is_held_and_can_not_be_saved_lasts_as_long_as_the_agent() {
    let said = "; an agent that starts anew tries again, since the state folder's state.json can't be used: ";
    let mut met = 0;
    for at in 0.. {
        for mended in [true, false] {
            let mut scene = Scene::new();
            let state = scene.record();
            let a = revision("a");
            scene.fails.store(0, Ordering::SeqCst);
            state.with(|record| {
                record.full_at = Some(record.ops.len() + at);
                record.stays_full = true;
            });
            let report = scene.push(&a);
            if state.with(|record| record.full_at > Some(record.ops.len())) {
                assert!(met > 0, "the hold was always saved");
                return;
            }
            if !report.message.contains(said) {
                continue;
            }
            met += 1;
            assert!(report.held, "{report:?}");
            assert_eq!(scene.untouched(&a), report);
            state.with(|record| record.full_at = None);
            if mended {
                let report = scene.untouched(&a);
                assert!(!report.message.contains(said), "{report:?}");
            }
            // It is there all the same where only the last sync failed.
            let saved = scene.state().get("holds").is_some();
            assert!(saved || !mended);
            scene.restart();
            if saved {
                scene.untouched(&a);
            } else {
                scene.node.apply(&a);
            }
        }
    }
}

/// The disk breaks in the middle, so that nothing can be put back: that is tried with each push, the
/// layer itself is not.
#[test]
fn what_is_held_is_put_back_all_the_same() {
    let mut left = 0;
    for goes_well in 1.. {
        let scene = Scene::new();
        let (old, new) = (revision("old"), revision("new"));
        scene.node.apply(&old);
        let tree = scene.node.tree();
        scene.breaks.store(goes_well, Ordering::SeqCst);
        let report = scene.push(&new);
        if report.outcome != Outcome::Failed {
            assert!(left > 0, "every one of {goes_well} was put back");
            break;
        }
        // Back and safe on disk: one without the other is not enough.
        let back = report.held;
        assert!(!back || scene.node.tree() == tree, "{report:?}");
        let said = report
            .message
            .contains("it is tried again with the next push");
        assert_eq!(said, !back, "{report:?}");
        let other = layer("b").file("/etc/issue", "b");
        if !back {
            left += 1;
            let report = scene.node.push(&[&new, &other]);
            assert!(!report.is_at_rest());
            for layer in &report.layers {
                assert_eq!((layer.outcome, layer.held), (Outcome::Failed, false));
            }
            let said = &report.layers[0].message;
            assert_eq!(
                said,
                "an interrupted change of this node is not taken back yet"
            );
            assert_eq!(scene.node.agent().hello().report, None);
        }
        scene.breaks.store(NEVER, Ordering::SeqCst);
        // The other one is not to blame, and is tried without being asked for.
        let report = scene.node.push(&[&new, &other]);
        assert!(report.layers[0].held, "{report:?}");
        let said = &report.layers[0].message;
        assert!(
            said.contains("what was changed before it is put back; held"),
            "{said}"
        );
        assert!(!said.contains("next push"), "{said}");
        assert_eq!(report.layers[0].in_force.as_ref(), Some(&old.digest));
        assert_eq!(report.layers[1].outcome, Outcome::Applied, "{report:?}");
        scene.node.release_with(&other, DeletionPolicy::Restore);
        assert_eq!(scene.node.tree(), tree, "{goes_well}");
        scene.node.apply(&new.retry("1"));
    }
}

#[test]
fn what_is_held_is_released_only_when_the_node_is_put_back() {
    let scene = Scene::new();
    let tree = scene.node.tree();
    let new = revision("new");
    // Both files are staged and one is in its place.
    scene.breaks.store(4, Ordering::SeqCst);
    assert!(!scene.push(&new).held);
    assert_ne!(scene.node.tree(), tree);
    let release = || {
        let leaves = [leaving(&new, DeletionPolicy::Restore)];
        scene.node.push_all(&[], &leaves).releases.remove(0).done
    };
    assert!(!release());
    scene.breaks.store(NEVER, Ordering::SeqCst);
    assert!(release());
    assert_eq!(scene.node.tree(), tree);
    assert_eq!(scene.state().get("holds"), None);
}
