//! What can be left out of a life: a sync, or a record of the journal.

use std::collections::BTreeMap;

use super::model::{Disk, Id, Op, Said};

/// What is left out in turn: in words, and the numbers of its operations.
pub type Part = (String, Vec<usize>);
/// What there is of a kind, in what happened to a disk.
pub type Parts = fn(&Disk, &[Op]) -> Vec<Part>;

/// The state folder, and the records in it.
const STATE: &str = "/state";
const RECORDS: [&str; 2] = ["/state/state.json", "/state/journal.json"];

/// How far a step has come, by the record that was written last before the operation after `number`.
fn phase(ops: &[Op], named: &Names, number: usize) -> String {
    let mut written = Vec::new();
    let mut step = 0;
    for op in &ops[..=number] {
        match op {
            Op::Write(id, bytes) | Op::WriteOver(id, bytes) if RECORDS.contains(&&*named.0[id]) => {
                // What is blank is no record.
                let bytes = bytes.trim_ascii_end().to_vec();
                written.extend((!bytes.is_empty()).then_some((step, bytes)));
            }
            Op::Said(Said::Epoch(_)) => step += 1,
            _ => {}
        }
    }
    let state = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let Some((step, last)) = written.last() else {
        return "made".to_owned();
    };
    let last = state(last);
    let owes = |pending: &serde_json::Value| {
        let mut units = pending.as_object().into_iter().flatten();
        units.any(|(_, unit)| unit["owed"] == true)
    };
    if last["open"] == true {
        let told = &last["activating"]["told"];
        return if told.is_null() { "begun" } else { "told" }.to_owned();
    }
    if owes(&last["pending"]) {
        return "owing".to_owned();
    }
    let begun = written
        .iter()
        .any(|(at, record)| at == step && state(record)["open"] == true);
    let before = written.iter().rev().nth(1).map(|(_, record)| state(record));
    if !begun {
        "admitted"
    } else if before.is_some_and(|before| before["report"] != last["report"]) {
        "reported"
    } else {
        "ended"
    }
    .to_owned()
}

/// The name that changed last in a folder.
fn changed(ops: &[Op], folder: Id, number: usize) -> &str {
    let before = ops[..number].iter().rev();
    let mut names = before.filter_map(|op| match op {
        Op::Rename { folder: id, to, .. } if *id == folder => Some(to),
        Op::Remove { folder: id, name }
        | Op::MakeFolder {
            folder: id, name, ..
        } if *id == folder => Some(name),
        _ => None,
    });
    names.next().map_or("nothing", String::as_str)
}

/// Whether the unit was told in this step before.
fn later(ops: &[Op], number: usize) -> &'static str {
    let step = ops[..number].iter().rev();
    let mut step = step.take_while(|op| !matches!(op, Op::Said(Said::Epoch(_))));
    if step.any(|op| matches!(op, Op::Said(Said::Runs(_)))) {
        " after it ran"
    } else {
        ""
    }
}

/// Every sync.
pub fn syncs(start: &Disk, ops: &[Op]) -> Vec<Part> {
    let named = Names::of(start, ops);
    let parts = ops.iter().enumerate().filter_map(|(number, op)| {
        let what = match op {
            Op::Sync(id) if named.0[id] == STATE => {
                let of = changed(ops, *id, number);
                format!("{STATE} with {of} when {}", phase(ops, &named, number))
            }
            Op::Sync(id) | Op::SyncContent(id) if RECORDS.contains(&&*named.0[id]) => {
                format!("{} when {}", named.0[id], phase(ops, &named, number))
            }
            Op::Sync(id) => format!("{}{}", named.0[id], later(ops, number)),
            Op::SyncAll(root) => format!("all of {}", named.0[root]),
            _ => return None,
        };
        Some((what, vec![number]))
    });
    parts.collect()
}

/// Every file that is put into the state folder or written over there, with all that does so.
pub fn records(start: &Disk, ops: &[Op]) -> Vec<Part> {
    let named = Names::of(start, ops);
    let mut parts = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        let (id, folder) = match op {
            Op::Create { folder, id, .. } => (id, Some(folder)),
            Op::WriteOver(id, _) => (id, None),
            _ => continue,
        };
        if !named.0[id].starts_with(STATE) {
            continue;
        }
        let mut part = vec![number];
        for (later, op) in ops.iter().enumerate().skip(number + 1) {
            match op {
                Op::Write(file, _) | Op::Mode(file, _) if file == id => part.push(later),
                Op::Sync(file) | Op::SyncContent(file) if file == id => {
                    part.push(later);
                    if folder.is_none() {
                        break;
                    }
                }
                // What is blanked is no record.
                Op::WriteOver(file, _) if file == id => break,
                Op::Rename { folder: other, .. } if Some(other) == folder => {
                    part.push(later);
                    break;
                }
                _ => {}
            }
        }
        if part.len() == 1 {
            continue;
        }
        let mut what = format!("{}{}", named.0[id], later(ops, number));
        if RECORDS.contains(&&*named.0[id]) {
            let last = *part.last().unwrap();
            what = format!("{} when {}", named.0[id], phase(ops, &named, last));
        }
        parts.push((what, part));
    }
    parts
}

/// The last path of each file and folder; kept contents are named by their digests, so all alike.
struct Names(BTreeMap<Id, String>);

impl Names {
    fn of(start: &Disk, ops: &[Op]) -> Self {
        let mut names: BTreeMap<_, _> = start.paths().into_iter().map(|(p, id)| (id, p)).collect();
        let mut at: BTreeMap<(Id, String), Id> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Create { folder, name, id }
                | Op::MakeFolder {
                    folder, name, id, ..
                } => {
                    names.insert(*id, format!("{}/{name}", names[folder]));
                    at.insert((*folder, name.clone()), *id);
                }
                Op::Rename { folder, from, to } => {
                    if let Some(id) = at.remove(&(*folder, from.clone())) {
                        let name = if names[folder] == "/state/originals" {
                            "…"
                        } else {
                            to
                        };
                        names.insert(id, format!("{}/{name}", names[folder]));
                    }
                }
                _ => {}
            }
        }
        Self(names)
    }
}

/// The step that an operation belongs to.
pub fn step_of(ops: &[Op], number: usize) -> usize {
    let before = ops[..number].iter();
    before
        .filter_map(|op| match op {
            Op::Said(Said::Epoch(step)) => usize::try_from(*step).ok(),
            _ => None,
        })
        .next_back()
        .unwrap_or(0)
}
