//! The power is cut after any operation: the agent that starts then has the node as it was before
//! the step or as it is after it, loses no original, and forgets nothing that it said.
//!
//! Every operation of a [`life`] is recorded, each disk that a cut may leave is built from the record
//! (the [`model`] says which), an agent is opened on it, and the node goes on from there. The same is
//! done with each sync and each record of the journal left out in turn: each is missed.

mod app;
mod command;
mod firewall;
mod kill;
mod life;
mod model;
mod part;
pub mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::{fs, mem};

use edict_core::layer::DeletionPolicy;
use edict_core::wire::Report;

use crate::node::{Node, Say as _, leaving};
use app::{App, Run};
use life::{COURSES, Course, Life, Step};
use model::{Disk, Leaf, Op, Said, Tree};
use part::{Parts, records, step_of, syncs};
use record::Recorder;

/// What an agent made of what a power cut had left.
#[derive(Clone)]
struct Recovered {
    step: Step,
    epoch: u64,
    /// Whether the unit runs, and with what its file says.
    current: bool,
}

impl Recovered {
    fn of(node: &Node) -> Self {
        Self {
            step: life::step(node),
            epoch: node.agent().hello().fence.unwrap_or_default().epoch,
            current: App::is_current(node.folder.path()),
        }
    }
}

/// What was promised before the cut.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    step: usize,
    report: usize,
    epoch: u64,
}

impl Promised {
    fn hear(&mut self, said: &Said) {
        match said {
            Said::Step(number) => self.step = *number,
            Said::Report(number) => self.report = *number,
            Said::Epoch(number) => self.epoch = *number,
            // That may be what ends the agent: the next one is not to take it back.
            Said::Runs(run) if run.is_well() => {
                self.step = usize::try_from(self.epoch).unwrap();
            }
            _ => {}
        }
    }

    /// Whether what was promised in this life is kept.
    fn is_kept(self, life: &Life, recovered: &Recovered) -> Result<(), String> {
        let Recovered {
            step,
            epoch,
            current,
        } = recovered;
        if !current {
            return Err("the unit does not run with what is on disk".to_owned());
        }
        let near = |at: usize| life.steps[at..].iter().take(2);
        let same = |known: &Step| known.tree == step.tree && known.digest == step.digest;
        if !near(self.step).any(same) {
            let Step { tree, digest, .. } = step;
            return Err(format!("after step {}: {digest:?} {tree:#?}", self.step));
        }
        let same = |known: &Step| known.report == step.report;
        if !near(self.report).any(same) {
            return Err(format!("report {} is lost", self.report));
        }
        if *epoch < self.epoch {
            return Err(format!("epoch {} is forgotten: {epoch}", self.epoch));
        }
        Ok(())
    }
}

/// Looks at power cuts in one life; each tree that one leaves is tried once.
struct Proof {
    life: Life,
    tried: BTreeMap<Tree, Result<Recovered, String>>,
}

impl Proof {
    fn of(course: Course) -> Self {
        Self {
            life: Life::of(course),
            tried: BTreeMap::new(),
        }
    }

    /// Cuts the power after each operation but those left out.
    fn cut(&mut self, left_out: &[usize]) -> Result<(), String> {
        let (start, ops) = (self.life.start.clone(), self.life.ops.clone());
        cut(start, &ops, left_out, Promised::hear, |disk, promised| {
            self.all(disk, *promised)
        })
    }

    /// Kills the agent after each operation, or cuts the power, and cuts the power again after each
    /// operation of the recovery.
    fn twice(&mut self) -> Result<(), String> {
        let ops = self.life.ops.clone();
        let mut disk = self.life.start.clone();
        let mut promised = Promised::default();
        let mut seen = BTreeSet::new();
        let mut runs = None;
        let every = every();
        for (number, op) in ops.iter().enumerate() {
            disk.apply(op);
            if let Op::Said(said) = op {
                promised.hear(said);
                if let Said::Runs(run) = said {
                    runs = Some(run.clone());
                }
            }
            if number % every != 0 {
                continue;
            }
            let cut = [disk.synced(), disk.seen()].map(|tree| (tree, None));
            let killed = (disk.seen(), runs.clone().map(|run| (disk.clone(), run)));
            for (tree, survives) in cut.into_iter().chain([killed]) {
                if survives.is_none() && !seen.insert(tree.clone()) {
                    continue;
                }
                self.recovery(&tree, survives, promised)
                    .map_err(|said| format!("after operation {number} ({op:?}): {said}"))?;
            }
        }
        Ok(())
    }

    /// Cuts the power in the recovery of `tree`, which is all that there is, or what every program
    /// sees of the disk that `survives`.
    fn recovery(
        &mut self,
        tree: &Tree,
        survives: Option<(Disk, Run)>,
        promised: Promised,
    ) -> Result<(), String> {
        let mut node = build(tree);
        let base = node.folder.path().to_owned();
        let base = &*base;
        let made = !node.at("state").exists();
        if made {
            // By the kubelet.
            fs::create_dir(node.at("state")).unwrap();
        }
        let (recorder, mut disk) = match survives {
            Some((disk, run)) => {
                App::go_on(base, &run);
                (Recorder::resume(base, &disk), disk)
            }
            None => Recorder::over(base, &["etc", "state"]),
        };
        if made {
            disk.unsafe_root("state");
        }
        let agent = life::open(base, &recorder, &self.life.mounts);
        node.agent = Some(agent.map_err(|error| error.to_string())?);
        promised.is_kept(&self.life, &Recovered::of(&node))?;
        for (number, op) in recorder
            .with(|record| mem::take(&mut record.ops))
            .iter()
            .enumerate()
        {
            disk.apply(op);
            self.all(&disk, promised).map_err(|said| {
                format!("and operation {number} of the recovery ({op:?}): {said}")
            })?;
        }
        Ok(())
    }

    /// Tries everything that a cut may leave now.
    fn all(&mut self, disk: &Disk, promised: Promised) -> Result<(), String> {
        for tree in disk.after_power_cut() {
            let life = &self.life;
            let tried = self.tried.entry(tree);
            let recovered = tried.or_insert_with_key(|tree| recover(life, tree));
            let kept = recovered
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|recovered| promised.is_kept(life, recovered));
            kept?;
        }
        Ok(())
    }
}

/// Cuts the power after each operation but those left out: has `all` look at each disk, with what was promised by
/// then.
fn cut<P: Default>(
    mut disk: Disk,
    ops: &[Op],
    left_out: &[usize],
    hear: impl Fn(&mut P, &Said),
    mut all: impl FnMut(&Disk, &P) -> Result<(), String>,
) -> Result<(), String> {
    let first = left_out.iter().min().copied().unwrap_or(0);
    // What is done later to a file that was never made is nothing.
    let missing: BTreeSet<_> = left_out.iter().filter_map(|n| ops[*n].makes()).collect();
    let mut promised = P::default();
    for (number, op) in ops.iter().enumerate() {
        // Before the first that is left out it is as it ever was.
        if number >= first {
            all(&disk, &promised)
                .map_err(|said| format!("before operation {number} ({op:?}): {said}"))?;
        }
        let is_missing = op.changes().is_some_and(|id| missing.contains(&id));
        if !left_out.contains(&number) && !is_missing {
            disk.apply(op);
        }
        if let Op::Said(said) = op {
            hear(&mut promised, said);
        }
    }
    all(&disk, &promised).map_err(|said| format!("in the end: {said}"))
}

/// A folder that no real disk is behind, if there is such a place.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// The recovery is cut short after each so many operations: all of them take minutes.
fn every() -> usize {
    let given = std::env::var("EDICT_POWER_EVERY");
    given.map_or(7, |every| every.parse().unwrap())
}

/// Puts a tree on a real disk.
fn build(tree: &Tree) -> Node {
    let node = Node {
        folder: memory(),
        agent: None,
        policy: edict_core::guard::Policy::default(),
        services: None,
        offline: true,
        address: None,
    };
    let mut modes = Vec::new();
    for (path, leaf) in tree {
        let mode = match leaf {
            Leaf::File { content, mode } => {
                fs::write(node.at(path), content).unwrap();
                mode
            }
            Leaf::Folder { mode } => {
                fs::create_dir(node.at(path)).unwrap();
                mode
            }
        };
        modes.push((node.at(path), *mode));
    }
    for (path, mode) in modes {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    node
}

/// What the next agent makes of it, if it can go on from there and give everything back.
fn recover(life: &Life, tree: &Tree) -> Result<Recovered, String> {
    let mut node = build(tree);
    let agent = life::open(node.folder.path(), &Recorder::quiet(), &life.mounts);
    node.agent = Some(agent.map_err(|error| error.to_string())?);
    let recovered = Recovered::of(&node);
    goes_on(life, &node)?;
    Ok(recovered)
}

fn goes_on(life: &Life, node: &Node) -> Result<(), String> {
    // Where it failed before it is held, and somebody asks for another try.
    let report: Report = node.push(&[&life.new.clone().retry("once more")]);
    let found = life::tree(node);
    if found != life.with_new {
        return Err(format!("can't go on: {report:?} {found:#?}"));
    }
    let leaves = leaving(&life.new, DeletionPolicy::Restore);
    let release = node.push_all(&[], &[leaves]).releases.remove(0);
    let found = life::tree(node);
    if !release.done || !release.foreign.is_empty() || found != life.steps[0].tree {
        return Err(format!("not given back: {release:?} {found:#?}"));
    }
    if !App::is_current(node.folder.path()) {
        return Err("the unit does not run with what was given back".to_owned());
    }
    match node.originals() {
        0 => Ok(()),
        left => Err(format!("{left} originals are left")),
    }
}

/// Leaves out each part in turn, and says which of them nobody misses, and in which step.
fn not_missed(course: Course, parts: Parts) -> BTreeSet<String> {
    let mut proof = Proof::of(course);
    let mut idle = BTreeSet::new();
    let all = parts(&proof.life.start, &proof.life.ops);
    assert!(all.len() > 10, "{}", all.len());
    for (what, left_out) in all {
        // Before the failure it is as in the course without one.
        if proof.life.full_at.is_some_and(|full| left_out[0] < full) {
            continue;
        }
        if proof.cut(&left_out).is_ok() {
            let step = step_of(&proof.life.ops, left_out[0]);
            idle.insert(format!("{step}: {what}"));
        }
    }
    idle
}

/// What may be left out in a step. A file that Edict has, all of it, and writes over in place: what
/// it is to be is known without a record, from the layer in force. Where only keys of it are Edict's,
/// or it is the first time, nothing may be left out.
const KNOWN: [&str; 6] = [
    "2: /state/originals/…",
    "2: /state/originals",
    "2: /state/redo.json",
    "2: /state with redo.json when begun",
    "3: /state/redo.json",
    "3: /state with redo.json when begun",
];
/// And where a step was put back: the next agent would put it back as well. In the folder of the
/// last file nothing had changed.
const PUT_BACK: [&str; 2] = ["2: /state/state.json when ended", "2: /etc/edict/old"];
/// How a step ends is known from the record before it, which units were told after.
const ENDED: [&str; 2] = [
    "/state/state.json when ended",
    "/state with state.json when ended",
];
/// And where the unit does not run with a step, which the next agent finds too, and puts back. That it
/// does so without beginning all over is the matter of `live.rs`.
const BROKEN: [&str; 14] = [
    "2: /etc",
    "2: /etc/docker",
    "2: /etc/edict",
    "2: /etc/edict/new",
    "2: /etc/hosts",
    "2: /etc/motd",
    "2: /state/state.json when told",
    "2: /state with state.json when told",
    "2: /state/originals/… after it ran",
    "2: /state/originals after it ran",
    "2: /state/redo.json after it ran",
    "2: /state with redo.json when told",
    "2: /state/state.json when owing",
    "2: /state with state.json when owing",
];

fn each_is_missed(parts: Parts) {
    std::thread::scope(|scope| {
        for course in COURSES {
            scope.spawn(move || {
                let mut idle = not_missed(course, parts);
                let of_course: &[&str] = match course {
                    Course::Full => &PUT_BACK,
                    Course::Broken => &BROKEN,
                    Course::Replaced | Course::InPlace => &[],
                };
                idle.retain(|what| {
                    let all = KNOWN.iter().chain(of_course);
                    !all.into_iter().any(|known| known == what)
                        && !ENDED.iter().any(|end| what.ends_with(end))
                });
                assert!(idle.is_empty(), "{course:?}: nobody misses {idle:#?}");
            });
        }
    });
}

fn nothing_is_lost(course: Course) {
    let mut proof = Proof::of(course);
    assert_eq!(proof.cut(&[]), Ok(()), "{course:?}");
    let (operations, trees) = (proof.life.ops.len(), proof.tried.len());
    eprintln!("{course:?}: {operations} operations, {trees} trees");
}

#[test]
fn nothing_is_lost_where_files_are_replaced() {
    nothing_is_lost(Course::Replaced);
}

#[test]
fn nothing_is_lost_where_they_are_written_in_place() {
    nothing_is_lost(Course::InPlace);
}

#[test]
fn nothing_is_lost_where_the_disk_is_full() {
    nothing_is_lost(Course::Full);
}

#[test]
fn nothing_is_lost_where_the_recovery_is_cut_short_too() {
    for course in COURSES {
        let mut proof = Proof::of(course);
        assert_eq!(proof.twice(), Ok(()), "{course:?}");
        eprintln!("{course:?}: {} trees", proof.tried.len());
    }
}

#[test]
fn each_sync_is_missed() {
    each_is_missed(syncs);
}

#[test]
fn each_record_is_missed() {
    each_is_missed(records);
}
