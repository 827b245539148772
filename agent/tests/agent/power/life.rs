//! A life of a node: a revision, another one, and the way back; with every operation of it.

use std::path::Path;
use std::sync::Arc;

use edict_agent::apply::Agent;
use edict_agent::host::Rooted;
use edict_agent::state::{self, Store};
use edict_agent::units::Manager;
use edict_core::config::NotifyAction;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{Event, Fence, Push, Release, Report, VERSION};

use super::app::{App, UNIT};
use super::model::{Disk, Op, Said};
use super::record::Recorder;
use crate::node::{DOCKER, Declared, NAME, Node, Say as _, layer, leaving, unlocked};
use crate::services::BROKEN;

/// What happened to a node.
pub struct Life {
    pub mounts: Declared,
    /// What was there at first.
    pub start: Disk,
    pub ops: Vec<Op>,
    /// How the node was after each step; the first is how it was before all.
    pub steps: Vec<Step>,
    /// What is in force in the end of every life that goes on.
    pub new: Layer,
    /// How a node is with that.
    pub with_new: Vec<String>,
    /// The operation that failed.
    pub full_at: Option<usize>,
}

/// A node between two steps.
#[derive(Clone, PartialEq)]
pub struct Step {
    pub tree: Vec<String>,
    /// Digest of the layer in force.
    pub digest: Option<String>,
    pub report: Option<Report>,
}

/// How a life goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// Docker's file can be replaced.
    Replaced,
    /// It is a mount point.
    InPlace,
    /// The disk is full when the last file of the second revision is to change.
    Full,
    /// The unit does not run with the second revision.
    Broken,
}

pub const COURSES: [Course; 4] = [
    Course::Replaced,
    Course::InPlace,
    Course::Full,
    Course::Broken,
];

pub fn revisions() -> [Layer; 2] {
    let old = layer("a")
        .file("/etc/motd", "the old one\n")
        .notify(UNIT, NotifyAction::Restart)
        .file("/etc/hosts", "old hosts\n")
        .file("/etc/edict/old/x", "old x\n")
        .mirrors(&["https://old"]);
    let new = layer("a")
        .file_as("/etc/motd", "a new one\n", "600", None)
        .notify(UNIT, NotifyAction::Restart)
        .file("/etc/hosts", "new hosts\n")
        .file("/etc/edict/new/y", "new y\n")
        .insecure(&["new"]);
    [old, new]
}

/// The second revision where the unit does not run with it.
fn broken(new: &Layer) -> Layer {
    let mut broken = new.clone();
    let files = broken.config.files.as_mut().unwrap();
    files.0[0].content = Some(format!("{BROKEN}\n"));
    broken.digest = edict_core::layer::digest(&broken.config, &broken.contents);
    broken
}

/// An agent over the folders in `base`.
pub fn open(
    base: &Path,
    disk: &Arc<Recorder>,
    mounts: &Declared,
) -> Result<Arc<Agent>, state::Error> {
    let manager = Manager::Runs(Arc::new(App::boot(base, disk)));
    let disk = || Arc::clone(disk) as _;
    let host = Rooted::open_on(disk(), &base.join("etc"), mounts.clone()).unwrap();
    let store = unlocked(|| Store::open_on(disk(), &base.join("state")))?;
    Ok(Arc::new(Agent::open(
        NAME.into(),
        host,
        manager,
        store,
        None,
    )?))
}

/// All of `/etc`, whatever folder stands for it.
pub fn tree(node: &Node) -> Vec<String> {
    let base = node.folder.path().display().to_string();
    let lines = node.tree();
    lines.iter().map(|line| line.replace(&base, "")).collect()
}

/// How the node is now.
pub fn step(node: &Node) -> Step {
    let hello = node.agent().hello();
    Step {
        tree: tree(node),
        digest: hello.layers.first().map(|held| held.digest.clone()),
        report: hello.report,
    }
}

/// What each step asks for.
fn push(layers: &[&Layer], releases: Vec<Release>) -> Push {
    let layers = layers.iter().map(|layer| (*layer).clone()).collect();
    Push::new(NAME.into(), Policy::default(), layers, releases)
}

/// A node before all of it.
pub fn prepared() -> Node {
    let node = Node::prepared();
    node.write("/etc/motd", "as it was\n");
    node.write("/etc/hosts", "hosts as they were\n");
    node.write(DOCKER, "{ \"debug\" : true }");
    // As the kubelet makes it, a moment before.
    std::fs::create_dir(node.at("state")).unwrap();
    node
}

/// What is mounted on it.
pub fn mounts(course: Course) -> Declared {
    let mut mounts = Declared(vec!["/etc/hosts".into()]);
    if course == Course::InPlace {
        mounts.0.push(DOCKER.into());
    }
    mounts
}

/// Takes a step, and says so.
pub fn take(agent: &Agent, recorder: &Recorder, course: Course, number: usize) {
    let [old, mut new] = revisions();
    if course == Course::Broken {
        new = broken(&new);
    }
    let leaves = leaving(&old, DeletionPolicy::Restore);
    let push = match number {
        1 => push(&[&old], vec![]),
        2 => push(&[&new], vec![]),
        _ => push(&[], vec![leaves]),
    };
    let (epoch, sequence) = (number as u64, 1);
    let push = push.fenced(VERSION, Fence { epoch, sequence });
    assert_eq!(agent.admit(&push), None);
    let said = |said| recorder.with(|record| record.ops.push(Op::Said(said)));
    said(Said::Epoch(epoch));
    agent.push(&push, &mut |event| match event {
        Event::Layer(_) | Event::Released(_) => said(Said::Step(number)),
        Event::Done(_) => said(Said::Report(number)),
        Event::Probation(_) => {}
    });
}

impl Life {
    /// Lives it.
    pub fn of(course: Course) -> Self {
        let mounts = mounts(course);
        let mut node = prepared();
        let (recorder, mut start) = Recorder::over(node.folder.path(), &["etc", "state"]);
        start.unsafe_root("state");
        node.agent = Some(open(node.folder.path(), &recorder, &mounts).unwrap());
        let mut steps = vec![step(&node)];
        let full_at = (course == Course::Full).then(|| last_change(&Self::of(Course::Replaced)));
        recorder.with(|record| record.full_at = full_at);
        for number in 1..=3 {
            take(node.agent(), &recorder, course, number);
            steps.push(step(&node));
        }
        let [_, new] = revisions();
        assert_eq!(steps[0].tree, steps[3].tree);
        let put_back = [Course::Full, Course::Broken].contains(&course);
        assert_eq!(steps[1].tree == steps[2].tree, put_back);
        let with_new = match course {
            Course::Full | Course::Broken => Self::of(Course::Replaced).with_new,
            _ => steps[2].tree.clone(),
        };
        Self {
            mounts,
            start,
            ops: recorder.with(|record| std::mem::take(&mut record.ops)),
            steps,
            new,
            with_new,
            full_at,
        }
    }
}

/// The last change of a file in the second step.
fn last_change(life: &Life) -> usize {
    let is = |op: &Op| matches!(op, Op::Remove { name, .. } if name == "x");
    life.ops.iter().position(is).unwrap()
}
