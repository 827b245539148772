//! The power is cut while a firewall is on probation: no host starts with one that nobody has reached it through,
//! and with the next agent the kernel has the one that is in force.

use std::collections::{BTreeMap, BTreeSet};

use edict_agent::apply::Agent;
use edict_core::config::firewall::TRIAL;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{Event, Fence, Outcome, Push, Release, VERSION};

use super::app::App;
use super::life::{self, Course};
use super::model::{Disk, Op, Said, Tree};
use super::part::{Parts, records, step_of, syncs};
use super::record::Recorder;
use super::{build, cut};
use crate::firewall::firewall;
use crate::node::{NAME, leaving};

/// Who is let in by each revision. Nobody reaches the node through the last one.
const PORTS: [u16; 3] = [22, 23, 24];

/// What happened to a node.
struct Life {
    start: Disk,
    ops: Vec<Op>,
    /// The kernel's table after each step; the first is how it was before all.
    tables: Vec<Option<String>>,
}

fn push(layers: &[Layer], releases: Vec<Release>, epoch: u64) -> Push {
    let push = Push::new(NAME.into(), Policy::default(), layers.to_vec(), releases);
    push.fenced(VERSION, Fence { epoch, sequence: 1 })
}

/// Two that are reached, one that is not since its operator is gone, and the way back.
fn take(agent: &Agent, recorder: &Recorder, base: &std::path::Path, number: usize) {
    let layer = PORTS.get(number - 1).map(|port| firewall(*port));
    let releases = match layer {
        Some(_) => vec![],
        None => vec![leaving(&firewall(23), DeletionPolicy::Restore)],
    };
    let epoch = number as u64;
    let push = push(&Vec::from_iter(layer), releases, epoch);
    assert_eq!(agent.admit(&push), None);
    let said = |said| recorder.with(|record| record.ops.push(Op::Said(said)));
    said(Said::Epoch(epoch));
    let say = &mut |event| match event {
        Event::Probation(probation) if number < 3 => {
            said(Said::Reached(App::loaded(base).unwrap()));
            assert!(agent.confirm(&probation.mark, None));
        }
        Event::Layer(_) | Event::Released(_) => said(Said::Step(number)),
        _ => {}
    };
    agent.push_for(&push, say, &|| number == 3);
}

impl Life {
    fn new() -> Self {
        let node = life::prepared();
        let base = node.folder.path();
        let (recorder, mut start) = Recorder::over(base, &["etc", "state"]);
        start.unsafe_root("state");
        let agent = life::open(base, &recorder, &life::mounts(Course::Replaced)).unwrap();
        let mut tables = vec![App::loaded(base)];
        for number in 1..=4 {
            take(&agent, &recorder, base, number);
            tables.push(App::loaded(base));
        }
        let ops = recorder.with(|record| std::mem::take(&mut record.ops));
        let lets_in = |table: &Option<String>| {
            let table = table.as_deref()?;
            let of = |port: &&u16| table.contains(&format!("dport {{ {port} }}"));
            PORTS.iter().find(of)
        };
        let ports: Vec<_> = tables.iter().map(lets_in).collect();
        assert_eq!(ports, [None, Some(&22), Some(&23), Some(&23), None]);
        Self { start, ops, tables }
    }

    /// Cuts the power before each operation, and after the last, without those left out.
    fn cut(
        &self,
        left_out: &[usize],
        tried: &mut BTreeMap<Tree, Result<Recovered, String>>,
    ) -> Result<(), String> {
        let start = self.start.clone();
        let hear = Promised::hear;
        cut(start, &self.ops, left_out, hear, |disk, promised| {
            let mut trees = disk.after_power_cut().into_iter();
            trees.try_for_each(|tree| {
                let recovered = tried
                    .entry(tree)
                    .or_insert_with_key(|tree| self.recover(tree));
                let recovered = recovered.as_ref().map_err(Clone::clone)?;
                promised.is_kept(&self.tables, recovered)
            })
        })
    }

    /// Kills the agent after each operation: the kernel has what it had.
    fn kill(&self) -> Result<(), String> {
        let mut disk = self.start.clone();
        let mut promised = Promised::default();
        let mut kernel = None;
        for (number, op) in self.ops.iter().enumerate() {
            disk.apply(op);
            if let Op::Said(said) = op {
                promised.hear(said);
                if let Said::Loaded(table) = said {
                    kernel.clone_from(table);
                }
            }
            let node = build(&disk.seen());
            let base = node.folder.path();
            App::reboot(base);
            App::has(base, kernel.as_deref());
            let mounts = life::mounts(Course::Replaced);
            let agent = life::open(base, &Recorder::quiet(), &mounts);
            let agent = agent.map_err(|error| error.to_string())?;
            let table = App::loaded(base);
            let killed = promised.has(&self.tables, "the agent goes on", table.as_ref());
            drop(agent);
            let started = App::reboot(base);
            if started != table {
                return Err(format!(
                    "after operation {number} it starts with {started:?}"
                ));
            }
            killed.map_err(|said| format!("after operation {number} ({op:?}): {said}"))?;
        }
        Ok(())
    }

    /// What becomes of a node whose disk is so, if it can go on from there and give everything back.
    fn recover(&self, tree: &Tree) -> Result<Recovered, String> {
        let mut node = build(tree);
        let base = node.folder.path().to_owned();
        let trial = base.join("state").join(TRIAL);
        let recorder = Recorder::quiet();
        let on_trial = trial.exists();
        let started = App::reboot(&base);
        let mounts = life::mounts(Course::Replaced);
        let agent = life::open(&base, &recorder, &mounts).map_err(|error| error.to_string())?;
        let table = App::loaded(&base);
        let again = App::reboot(&base);
        if again != table {
            return Err(format!("started once more it has {again:?}, not {table:?}"));
        }
        let recovered = Recovered {
            on_trial,
            started,
            table,
        };
        let reach = &mut |event| {
            if let Event::Probation(probation) = event {
                assert!(agent.confirm(&probation.mark, None));
            }
        };
        let report = agent.push_for(&push(&[firewall(23)], vec![], 9), reach, &|| false);
        let is_applied = report.layers[0].outcome == Outcome::Applied;
        if !is_applied || App::loaded(&base) != self.tables[2] || trial.exists() {
            return Err(format!("can't go on: {report:?}"));
        }
        node.agent = Some(agent);
        let leaves = leaving(&firewall(23), DeletionPolicy::Restore);
        let release = node.push_all(&[], &[leaves]).releases.remove(0);
        let left = (App::loaded(&base), node.originals(), trial.exists());
        if !release.done || !release.foreign.is_empty() || left != (None, 0, false) {
            return Err(format!("not given back: {release:?} {left:?}"));
        }
        Ok(recovered)
    }
}

/// What became of a node after a power cut.
struct Recovered {
    /// Whether something is on trial by the disk.
    on_trial: bool,
    /// What the host starts with, before there is an agent.
    started: Option<String>,
    /// What the agent makes of that, before there is an operator.
    table: Option<String>,
}

/// What happened before the cut.
#[derive(Default)]
struct Promised {
    /// The last step that had begun, and the last one that was over.
    begun: usize,
    over: usize,
    reached: BTreeSet<String>,
}

impl Promised {
    fn hear(&mut self, said: &Said) {
        match said {
            Said::Epoch(number) => self.begin(*number),
            Said::Step(number) => self.over = *number,
            Said::Reached(table) => _ = self.reached.insert(table.clone()),
            _ => {}
        }
    }

    fn begin(&mut self, number: u64) {
        self.begun = usize::try_from(number).unwrap();
    }

    /// Whether there may be this table.
    fn has(
        &self,
        tables: &[Option<String>],
        who: &str,
        table: Option<&String>,
    ) -> Result<(), String> {
        if let Some(unknown) = table.filter(|table| !self.reached.contains(*table)) {
            return Err(format!("{who} with what nobody reaches: {unknown}"));
        }
        let mut near = tables[self.over..=self.begun].iter();
        if near.any(|near| near.as_ref() == table) {
            return Ok(());
        }
        Err(format!("after step {} {who} with {table:?}", self.over))
    }

    fn is_kept(&self, tables: &[Option<String>], recovered: &Recovered) -> Result<(), String> {
        let Recovered {
            on_trial,
            started,
            table,
        } = recovered;
        self.has(tables, "the agent goes on", table.as_ref())?;
        // With something on trial, the host waits for the agent.
        if *on_trial && started.is_none() {
            return Ok(());
        }
        self.has(tables, "the host starts", started.as_ref())
    }
}

#[test]
fn no_host_starts_with_a_firewall_on_probation() {
    let life = Life::new();
    let mut tried = BTreeMap::new();
    assert_eq!(life.cut(&[], &mut tried), Ok(()));
    eprintln!("{} operations, {} trees", life.ops.len(), tried.len());
}

#[test]
fn no_agent_that_starts_leaves_a_firewall_on_probation() {
    assert_eq!(Life::new().kill(), Ok(()));
}

/// What may be left out. How a step ends is known from the record before it; reports are the matter of other
/// lives.
const ENDED: [&str; 2] = ["ended", "reported"];
/// And of the records: that systemd is told of a new unit file, which the next agent does as well.
const RECORDS: [&str; 1] = ["1: /state/state.json when told"];
/// And of the syncs: of a file that has nothing but its name; of what is put back, which the next agent would put
/// back as well; of a folder of which the next record makes the names safe that are new in it.
const SYNCS: [&str; 7] = [
    "0: /state with state.json when admitted",
    "1: /state with firewall-on-trial when admitted",
    "1: /state/firewall-on-trial",
    "2: /state/firewall-on-trial",
    "3: /state/firewall-on-trial",
    "3: /etc/nftables",
    "3: /etc/nftables/zz-edict.nft",
];

fn each_is_missed(parts: Parts, but: &[&str]) {
    let life = Life::new();
    let mut tried = BTreeMap::new();
    let mut idle = BTreeSet::new();
    let all = parts(&life.start, &life.ops);
    assert!(all.len() > 10, "{}", all.len());
    for (what, left_out) in all {
        if life.cut(&left_out, &mut tried).is_ok() {
            let step = step_of(&life.ops, left_out[0]);
            idle.insert(format!("{step}: {what}"));
        }
    }
    idle.retain(|what| !ENDED.iter().any(|end| what.ends_with(end)) && !but.contains(&&**what));
    assert!(idle.is_empty(), "nobody misses {idle:#?}");
}

#[test]
fn each_sync_of_a_probation_is_missed() {
    each_is_missed(syncs, &SYNCS);
}

#[test]
fn each_record_of_a_probation_is_missed() {
    each_is_missed(records, &RECORDS);
}
