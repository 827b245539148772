//! Every operation of a transaction fails once: everything is as it was before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edict_agent::host::{Entry, Host, Rooted, Seen, Staged, View, Whole};
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::resource::Owner;
use edict_core::wire::Outcome;

use crate::node::{DOCKER, Declared, Node, Say as _, layer, leaving};

/// A host on which one operation fails: the one that the countdown reaches. With `dies`, it and all
/// after it panic, as if the agent had been killed.
pub struct Failing {
    pub host: Rooted,
    pub countdown: Arc<AtomicUsize>,
    pub dies: bool,
    /// Called before every operation, which fails when this does.
    pub watch: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    /// Counts what the host is asked, also what changes nothing.
    pub asked: Arc<AtomicUsize>,
}

/// No operation fails.
pub const NEVER: usize = usize::MAX;

impl Failing {
    /// Over this host, nothing of which fails.
    pub fn new(host: Rooted) -> Self {
        Self {
            host,
            countdown: Arc::new(AtomicUsize::new(NEVER)),
            dies: false,
            watch: Box::new(|| Ok(())),
            asked: Arc::default(),
        }
    }

    fn ask(&self) -> &Rooted {
        self.asked.fetch_add(1, Ordering::SeqCst);
        &self.host
    }

    fn step(&self) -> io::Result<()> {
        self.ask();
        (self.watch)()?;
        let left = self.countdown.load(Ordering::SeqCst);
        if left == NEVER {
            return Ok(());
        }
        if left > 0 {
            self.countdown.store(left - 1, Ordering::SeqCst);
            return Ok(());
        }
        assert!(!self.dies, "killed here on purpose");
        self.countdown.store(NEVER, Ordering::SeqCst);
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl View for Failing {
    fn entry(&self, path: &str) -> io::Result<Entry> {
        self.ask().entry(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.ask().list(path)
    }
    fn look(&self, path: &str) -> io::Result<Seen> {
        self.ask().look(path)
    }
}

impl Host for Failing {
    fn owner(&self) -> Owner {
        self.host.owner()
    }
    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.host.make_folder(path)
    }
    fn remove_folder(&self, path: &str) -> io::Result<bool> {
        self.step()?;
        self.host.remove_folder(path)
    }
    fn stage(&self, path: &str, whole: &Whole) -> io::Result<Staged> {
        self.step()?;
        self.host.stage(path, whole)
    }
    fn publish(&self, staged: &Staged) -> io::Result<()> {
        self.step()?;
        self.host.publish(staged)
    }
    fn discard(&self, staged: &Staged) -> io::Result<()> {
        self.ask().discard(staged)
    }
    fn overwrite(&self, path: &str, whole: &Whole) -> io::Result<()> {
        self.step()?;
        self.host.overwrite(path, whole)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.host.remove(path)
    }
    fn sweep(&self, path: &str) -> io::Result<()> {
        self.ask().sweep(path)
    }
    fn sync(&self, path: &str) -> io::Result<()> {
        self.step()?;
        self.host.sync(path)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.step()?;
        self.host.sync_all()
    }
}

/// A node with files of every kind, one layer in force and the revision that is to follow.
pub fn scene(dies: bool) -> (Node, Arc<AtomicUsize>, [Layer; 2]) {
    let mut node = Node::prepared();
    node.write("/etc/motd", "before");
    node.write("/etc/hosts", "before");
    node.write(DOCKER, "{ \"debug\" : true }");
    let countdown = Arc::new(AtomicUsize::new(NEVER));
    run(&mut node, &countdown, dies);
    let old = layer("a")
        .file("/etc/motd", "old")
        .file("/etc/hosts", "old")
        .file("/etc/edict/old/x", "old")
        .mirrors(&["https://old"]);
    let new = layer("a")
        .file_as("/etc/motd", "new", "600", None)
        .file("/etc/hosts", "new")
        .file("/etc/edict/new/y", "new")
        .file("/etc/issue", "new")
        .insecure(&["new"]);
    (node, countdown, [old, new])
}

/// Another agent over the node's folders.
pub fn run(node: &mut Node, countdown: &Arc<AtomicUsize>, dies: bool) {
    let mounts = Declared(vec!["/etc/hosts".into()]);
    let host = node.host(&mounts);
    node.run(Failing {
        countdown: Arc::clone(countdown),
        dies,
        ..Failing::new(host)
    });
}

fn state(node: &Node) -> serde_json::Value {
    let mut state: serde_json::Value =
        serde_json::from_str(&node.read("state/state.json")).unwrap();
    // These tell of what was tried.
    let parts = state.as_object_mut().unwrap();
    parts.remove("report");
    parts.remove("holds");
    // And these of how often it was written.
    parts.remove("sha256");
    parts.remove("sequence");
    state
}

#[test]
fn an_update_that_fails_is_put_back() {
    let (node, countdown, [old, new]) = scene(false);
    node.apply(&old);
    let before = (node.tree(), state(&node), node.originals());
    let mut failures = 0;
    loop {
        countdown.store(failures, Ordering::SeqCst);
        let again = new.clone().retry(&failures.to_string());
        let report = node.push(&[&again]).layers.remove(0);
        if report.outcome != Outcome::Failed {
            break;
        }
        assert!(failures < 100, "it never ends: {report:?}");
        assert!(report.message.contains("free some space"), "{report:?}");
        assert!(report.message.contains("is put back"), "{report:?}");
        assert_eq!(report.in_force.as_ref(), Some(&old.digest));
        assert_eq!(
            (node.tree(), state(&node), node.originals()),
            before,
            "{failures}"
        );
        failures += 1;
    }
    assert!(failures > 10, "{failures}");
    assert_eq!(node.read("/etc/motd"), "new");
}

#[test]
fn a_first_revision_and_a_release_that_fail_are_put_back() {
    let (node, countdown, [old, _]) = scene(false);
    let pristine = node.tree();
    let mut failures = 0;
    loop {
        countdown.store(failures, Ordering::SeqCst);
        let again = old.clone().retry(&failures.to_string());
        if node.push(&[&again]).layers[0].outcome != Outcome::Failed {
            break;
        }
        assert_eq!(node.tree(), pristine, "{failures}");
        assert_eq!(node.originals(), 0);
        assert!(failures < 100, "it never ends");
        failures += 1;
    }
    let before = (node.tree(), state(&node));
    loop {
        countdown.store(failures, Ordering::SeqCst);
        let release = leaving(&old, DeletionPolicy::Restore);
        if node.push_all(&[], &[release]).releases[0].done {
            break;
        }
        assert_eq!((node.tree(), state(&node)), before, "{failures}");
        failures += 1;
    }
    countdown.store(NEVER, Ordering::SeqCst);
    node.release(&old);
    assert_eq!(node.tree(), pristine);
}
