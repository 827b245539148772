//! The power is cut while commands are run: each is run once at most, and how one ended is not forgotten.

use std::collections::{BTreeMap, BTreeSet};

use edict_agent::apply::Agent;
use edict_core::guard::Policy;
use edict_core::layer::Layer;
use edict_core::wire::{CommandOutcome, Push};
use serde_json::{Value, json};

use super::life::{self, Course};
use super::model::{Disk, Op, Said, Tree};
use super::record::Recorder;
use super::{build, cut};
use crate::node::{NAME, Say as _, layer};

const COMMANDS: &str = "commands.json";

/// What happened to a node that runs some.
struct Life {
    start: Disk,
    ops: Vec<Op>,
}

/// What the next agents made of what a power cut had left: the units that were started, and what became of all.
type Recovered = (Vec<String>, BTreeMap<String, CommandOutcome>);

/// Two revisions, with two commands each.
fn revisions() -> [Layer; 2] {
    ["once", "again"].map(|again| {
        let commands = json!([{"run": "ok", "again": again}, {"run": "ok"}]);
        layer("a")
            .file("/etc/motd", again)
            .block("commands", commands)
    })
}

/// Pushes a revision, and runs what it runs.
fn run(agent: &Agent, layer: &Layer) {
    let catalogue = json!([{"name": "ok", "argv": ["/bin/ok"]}]);
    let policy = Policy {
        commands: serde_json::from_value(catalogue).unwrap(),
        ..Policy::default()
    };
    let push = Push::new(NAME.into(), policy, vec![layer.clone()], vec![]);
    agent.push(&push, &mut |_| {});
    agent.run_commands();
}

impl Life {
    fn new() -> Self {
        let node = life::prepared();
        let base = node.folder.path();
        let (recorder, mut start) = Recorder::over(base, &["etc", "state"]);
        start.unsafe_root("state");
        let agent = life::open(base, &recorder, &life::mounts(Course::Replaced)).unwrap();
        for layer in revisions() {
            run(&agent, &layer);
        }
        let ops = recorder.with(|record| std::mem::take(&mut record.ops));
        Self { start, ops }
    }

    /// Cuts the power before each operation, and after the last, without those left out.
    fn cut(
        &self,
        left_out: &[usize],
        tried: &mut BTreeMap<Tree, Result<Recovered, String>>,
    ) -> Result<(), String> {
        let start = self.start.clone();
        cut(
            start,
            &self.ops,
            left_out,
            Promised::hear,
            |disk, promised| {
                let mut trees = disk.after_power_cut().into_iter();
                trees.try_for_each(|tree| {
                    let recovered = tried.entry(tree).or_insert_with_key(recover);
                    let recovered = recovered.as_ref().map_err(Clone::clone)?;
                    promised.is_kept(recovered)
                })
            },
        )
    }

    /// Each time that what is known of commands is written: why, and the operations of it.
    fn records(&self) -> Vec<(&'static str, Vec<usize>)> {
        let mut records = Vec::new();
        let mut part = Vec::new();
        let (mut ran, mut own, mut folder) = (false, None, None);
        for (number, op) in self.ops.iter().enumerate() {
            match op {
                Op::Create { id, folder: of, .. } => {
                    part = vec![number];
                    (own, folder) = (Some(*id), Some(*of));
                }
                Op::Write(id, _) | Op::Mode(id, _) | Op::Sync(id) if own == Some(*id) => {
                    part.push(number);
                }
                Op::Rename { to, .. } if to == COMMANDS => part.push(number),
                Op::Rename { .. } => (part, own) = (Vec::new(), None),
                // Of the folder, right after.
                Op::Sync(id) if folder == Some(*id) && !part.is_empty() => {
                    part.push(number);
                    let runs = self.is_running(&part);
                    let why = match (ran, runs) {
                        (_, true) => "begun",
                        (true, false) => "ended",
                        (false, false) => "expected",
                    };
                    ran = runs;
                    records.push((why, std::mem::take(&mut part)));
                }
                _ => {}
            }
        }
        records
    }

    /// Whether something runs by what is written.
    fn is_running(&self, numbers: &[usize]) -> bool {
        let mut written = numbers
            .iter()
            .filter_map(|number| match &self.ops[*number] {
                Op::Write(_, bytes) => Some(bytes),
                _ => None,
            });
        let commands: Value = serde_json::from_slice(written.next().unwrap()).unwrap();
        commands.to_string().contains("\"Running\"")
    }
}

/// What the next agent makes of it, that is pushed both revisions once more.
fn recover(tree: &Tree) -> Result<Recovered, String> {
    let node = build(tree);
    let recorder = Recorder::quiet();
    let agent = life::open(
        node.folder.path(),
        &recorder,
        &life::mounts(Course::Replaced),
    );
    let agent = agent.map_err(|error| error.to_string())?;
    let mut became = BTreeMap::new();
    for layer in revisions() {
        run(&agent, &layer);
        became.extend(agent.hello().commands.into_iter().map(|one| {
            let name = format!("{}-{}", &one.digest[..16], one.index);
            (name, one.outcome)
        }));
    }
    let started = recorder.with(|record| {
        let ops = record.ops.iter();
        ops.filter_map(|op| match op {
            Op::Said(Said::Started(unit)) => Some(unit.clone()),
            _ => None,
        })
        .collect()
    });
    Ok((started, became))
}

/// What happened before the cut.
#[derive(Default)]
struct Promised {
    /// The units that were started.
    started: BTreeSet<String>,
    /// Those of them of which it is written down how they ended.
    over: BTreeSet<String>,
}

impl Promised {
    fn hear(&mut self, said: &Said) {
        match said {
            Said::Started(unit) => _ = self.started.insert(unit.clone()),
            Said::Over(unit) => _ = self.over.insert(unit.clone()),
            _ => {}
        }
    }

    /// Whether nothing was run twice or forgotten of that.
    fn is_kept(&self, (again, became): &Recovered) -> Result<(), String> {
        if let Some(twice) = again.iter().find(|unit| self.started.contains(*unit)) {
            return Err(format!("{twice} is run twice"));
        }
        // What comes after one that was interrupted is not begun.
        let ends = [
            CommandOutcome::Succeeded,
            CommandOutcome::Interrupted,
            CommandOutcome::Skipped,
        ];
        if became.len() != 4 || became.values().any(|outcome| !ends.contains(outcome)) {
            return Err(format!("something is left to be run: {became:?}"));
        }
        let is_over = |name: &str| self.over.iter().any(|unit| unit.contains(name));
        let mut lost = became
            .iter()
            .filter(|(name, outcome)| is_over(name) && **outcome != CommandOutcome::Succeeded);
        match lost.next() {
            Some((name, outcome)) => Err(format!("{name} was over, and is {outcome:?}")),
            None => Ok(()),
        }
    }
}

#[test]
fn a_command_is_run_once_whenever_the_power_is_cut() {
    let life = Life::new();
    let mut tried = BTreeMap::new();
    assert_eq!(life.cut(&[], &mut tried), Ok(()));
    let records = life.records();
    let of = |why| records.iter().filter(|(of, _)| *of == why).count();
    assert_eq!([of("expected"), of("begun"), of("ended")], [2, 4, 4]);
    let is_sync = |number: &&usize| matches!(life.ops[**number], Op::Sync(_));
    for (why, record) in records {
        let syncs: Vec<_> = record.iter().filter(is_sync).copied().collect();
        assert_eq!(syncs.len(), 2, "of the file and of the folder");
        let mut missed = |left_out: &[usize]| life.cut(left_out, &mut tried).is_err();
        assert!(missed(&syncs[..1]), "{why}: the file");
        // Whoever pushes says again what is expected.
        let needed = why != "expected";
        assert_eq!(missed(&syncs[1..]), needed, "{why}: its name");
        assert_eq!(missed(&record), needed, "{why}: all of it");
    }
    eprintln!("{} operations, {} trees", life.ops.len(), tried.len());
}
