//! What can be left out of a life: a sync, or a record of the journal.

use std::collections::BTreeMap;

use super::life::Life;
use super::model::{Id, Op, Said};

/// What is left out in turn: in words, and the numbers of its operations.
pub type Part = (String, Vec<usize>);

/// Every sync.
pub fn syncs(life: &Life) -> Vec<Part> {
    let named = Names::of(life);
    let parts = life.ops.iter().enumerate().filter_map(|(number, op)| {
        let what = match op {
            Op::Sync(id) => &named.0[id],
            Op::SyncAll(root) => return Some((format!("all of {}", named.0[root]), vec![number])),
            _ => return None,
        };
        Some((what.clone(), vec![number]))
    });
    parts.collect()
}

/// Every file that is put into the state folder, with all that puts it there.
pub fn records(life: &Life) -> Vec<Part> {
    let named = Names::of(life);
    let mut parts = Vec::new();
    for (number, op) in life.ops.iter().enumerate() {
        let Op::Create { folder, id, .. } = op else {
            continue;
        };
        if !named.0[folder].starts_with("/state") {
            continue;
        }
        let mut part = vec![number];
        for (later, op) in life.ops.iter().enumerate().skip(number + 1) {
            match op {
                Op::Write(file, _) | Op::Mode(file, _) | Op::Sync(file) if file == id => {
                    part.push(later);
                }
                Op::Rename { folder: other, .. } if other == folder => {
                    part.push(later);
                    break;
                }
                _ => {}
            }
        }
        parts.push((named.0[id].clone(), part));
    }
    parts
}

/// The last path of each file and folder; kept contents are named by their digests, so all alike.
struct Names(BTreeMap<Id, String>);

impl Names {
    fn of(life: &Life) -> Self {
        let mut names: BTreeMap<_, _> = life
            .start
            .paths()
            .into_iter()
            .map(|(p, id)| (id, p))
            .collect();
        let mut at: BTreeMap<(Id, String), Id> = BTreeMap::new();
        for op in &life.ops {
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
pub fn step_of(life: &Life, number: usize) -> usize {
    let before = life.ops[..number].iter();
    before
        .filter_map(|op| match op {
            Op::Said(Said::Epoch(step)) => usize::try_from(*step).ok(),
            _ => None,
        })
        .next_back()
        .unwrap_or(0)
}
