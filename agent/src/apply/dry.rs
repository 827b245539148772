//! A dry run: all of a push up to its first write. What would have been written stays in memory, and
//! the layers after it find it there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::TryLockError;

use edict_core::config::firewall;
use edict_core::format::Format;
use edict_core::resolve::Resolution;
use edict_core::resource::{Action, KeyPath, is_under};
use edict_core::wire::{self, Event, Planned, PlannedCommand, Push, Report, Written};
use serde_json::Value;

use super::Agent;
use super::round::Round;
use crate::diff;
use crate::host::{Entry, Found, Seen, View, Whole, is_table};
use crate::ledger::{Before, KeyEntry, Stamp};
use crate::plan::Plan;
use crate::state::{self, State, resolution};

/// What a push would do.
#[derive(Debug, PartialEq)]
pub struct Dry {
    /// What the agent would say of it.
    pub report: Report,
    /// Each file that would be another one afterwards.
    pub changes: Vec<Change>,
    /// What would be done with units, by name.
    pub units: BTreeMap<String, Action>,
    /// What would be run.
    pub commands: Vec<PlannedCommand>,
}

impl Dry {
    /// The same, for who may read the host's files.
    pub fn planned(&self) -> Planned {
        self.with(diff::shown)
    }

    /// The same, for who may read the `NodeConfig`s.
    pub fn public(&self) -> Planned {
        self.with(diff::public)
    }

    fn with(&self, shown: impl Fn(&Change) -> wire::Change) -> Planned {
        Planned {
            report: self.report.clone(),
            changes: self.changes.iter().map(shown).collect(),
            units: self.units.clone(),
            commands: self.commands.clone(),
        }
    }
}

/// What would become of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, symlinks resolved.
    pub path: String,
    /// The file as it is; `None` where there is none.
    pub before: Option<Whole>,
    /// The file as it would be; `None` where there would be none.
    pub after: Option<Whole>,
    /// Whether it is a mount point, and so would be written over in its place.
    pub in_place: bool,
    /// Whether some of it comes from a Secret, or came from one before.
    pub secret: bool,
    /// What of it is Edict's own.
    pub public: Public,
}

/// What of a file Edict itself has written, or would: what may be told to those who can read the
/// `NodeConfig`s and not the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Public {
    /// Of what is there.
    pub old: Vec<u8>,
    /// Of what would be there.
    pub new: Vec<u8>,
    /// What is to be said of the rest, if there is some that matters.
    pub rest: Option<&'static str>,
}

/// What is said of what somebody else has written, and would be no more.
const FOREIGN: &str = "what is there now is not Edict's, and is not shown";
/// What is said of what was there before Edict.
const GIVEN_BACK: &str = "it would be given back as it was before Edict, which is not shown";

/// What has been changed so far, in memory only.
#[derive(Default)]
pub(super) struct Overlay {
    changes: BTreeMap<String, Change>,
    /// Folders that would be removed if nothing is left in them.
    folders: BTreeSet<String>,
}

impl Agent {
    /// What a push would do, unless something is being done just now. Nothing is written, neither to the
    /// host nor to the state folder.
    pub fn dry(&self, push: &Push) -> Result<Option<Dry>, state::Error> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let mut round = Round::new(self, push.policy.clone(), push.wire);
        let mut overlay = Overlay::default();
        // A real agent first finishes what another one was writing over.
        if let Some((redo, whole)) = self.store.redo()? {
            let seen = self.host.look(&redo.path).ok();
            let seen = seen.map(|seen| (redo.path.clone(), seen));
            let plan = Plan {
                writes: [(redo.path, whole)].into(),
                ..Plan::default()
            };
            overlay.carry_out(&plan, &seen.into_iter().collect());
        }
        let before = round.state.clone();
        round.overlay = Some(overlay);
        let report = round.push(push, &|_: Event| {});
        let mut secret = [&before, &round.state].map(secrets).concat();
        if before.open {
            // Whose contents these are is not known: those of a layer that is not in force may be there.
            secret.extend(before.ledger.paths().cloned());
        }
        let overlay = round.overlay.unwrap_or_default();
        let changes = overlay.changes.into_values();
        let mut changes: Vec<_> = changes
            .filter(|change| change.before != change.after)
            .collect();
        // Its file says the same.
        let file = changes.iter().any(|change| change.path == firewall::PATH);
        changes.retain(|change| !file || !is_table(&change.path));
        let after = (&round.state, resolution(&round.state.layers));
        for change in &mut changes {
            change.secret = secret.contains(&change.path);
            change.public = public(change, &before, after.0, &after.1);
        }
        Ok(Some(Dry {
            commands: self.plan_commands(push, &report),
            report,
            changes,
            units: round.orders,
        }))
    }
}

/// The files that have something from a Secret in them.
fn secrets(state: &State) -> Vec<String> {
    let files = resolution(&state.layers).files.into_iter();
    let secret = files.filter(|(_, owned)| owned.what.secret);
    secret.map(|(path, _)| path).collect()
}

/// What of a change is Edict's own.
fn public(change: &Change, before: &State, after: &State, wanted: &Resolution) -> Public {
    let Change { path, .. } = change;
    let content = |whole: &Option<Whole>| {
        let content = whole.as_ref().map(|whole| whole.content.clone());
        content.unwrap_or_default()
    };
    let there = content(&change.before);
    let is_wanted = wanted.files.contains_key(path);
    let keys = |state: &'_ State| state.ledger.keys.get(path).map(|entry| entry.format);
    let format = keys(after).or_else(|| keys(before)).filter(|_| !is_wanted);
    if let Some(format) = format {
        let text = str::from_utf8(&there).unwrap_or_default();
        let value = |key: &KeyPath| format.get(text, key).ok().flatten();
        let known = before.ledger.keys.get(path);
        let known = known.into_iter().flat_map(|known| &known.keys);
        let known = known.filter_map(|known| {
            let value = value(&known.key)?;
            let own = known.written.contains(&value);
            own.then_some((&known.key, value))
        });
        let known: BTreeMap<_, _> = known.collect();
        let shared = wanted.keys.get(path);
        let values = shared.into_iter().flat_map(|shared| &shared.values);
        let foreign = |(key, _): (&KeyPath, _)| !known.contains_key(key) && value(key).is_some();
        let leaves = |known: &&KeyEntry| {
            let wanted = shared.is_some_and(|shared| shared.values.contains_key(&known.key));
            !wanted && known.original != Before::Absent
        };
        let mut before = before.ledger.keys.get(path).into_iter();
        let comes_back = before.any(|entry| entry.keys.iter().any(|key| leaves(&key)));
        return Public {
            rest: if (shared.is_none() && change.after.is_some()) || comes_back {
                Some(GIVEN_BACK)
            } else {
                values.clone().any(foreign).then_some(FOREIGN)
            },
            new: lines(format, values.map(|(key, owned)| (key, &owned.what))),
            old: lines(format, known.iter().map(|(key, value)| (*key, value))),
        };
    }
    let own = before.ledger.files.get(path).is_some_and(|entry| {
        let found = change.before.as_ref().map(Stamp::of);
        entry.written.iter().any(|own| {
            let same = |found: &Stamp| found.sha256 == own.sha256;
            found.as_ref().is_some_and(same)
        })
    });
    Public {
        old: if own { there } else { Vec::new() },
        new: if is_wanted {
            content(&change.after)
        } else {
            Vec::new()
        },
        rest: if !is_wanted && change.after.is_some() {
            Some(GIVEN_BACK)
        } else {
            (change.before.is_some() && !own).then_some(FOREIGN)
        },
    }
}

/// Keys and their values, one a line. A certificate, which may be from a Secret, is named by its digest.
fn lines<'a>(format: Format, values: impl Iterator<Item = (&'a KeyPath, &'a Value)>) -> Vec<u8> {
    let line = |(key, value): (&KeyPath, &Value)| match value {
        _ if format == Format::Bundle => format!("{key}\n"),
        Value::String(text) if text.is_empty() => format!("{key}\n"),
        value => format!("{key} = {value}\n"),
    };
    values.map(line).collect::<String>().into_bytes()
}

/// A host as it is once everything so far is done.
pub(super) struct Over<'a> {
    pub(super) host: &'a dyn View,
    pub(super) overlay: &'a Overlay,
}

impl Over<'_> {
    /// Whether a folder would be made for a file in it.
    fn is_made(&self, path: &str) -> bool {
        let files = self.overlay.changes.values();
        let mut files = files.filter(|change| change.after.is_some());
        files.any(|change| is_under(&change.path, path))
    }

    /// Whether nothing is left in a folder that is to be removed then.
    fn is_gone(&self, folder: &str) -> bool {
        let goes = |name: &String| {
            let path = format!("{folder}/{name}");
            let change = self.overlay.changes.get(&path);
            change.is_some_and(|change| change.after.is_none()) || self.is_gone(&path)
        };
        self.overlay.folders.contains(folder)
            && !self.is_made(folder)
            && self
                .host
                .list(folder)
                .is_ok_and(|names| names.iter().all(goes))
    }
}

impl View for Over<'_> {
    fn look_all(&self, paths: &BTreeSet<String>) -> BTreeMap<String, io::Result<Seen>> {
        let own = |path: &String| {
            let changed = self.overlay.changes.contains_key(path);
            changed || self.is_made(path) || self.is_gone(path)
        };
        let (own, rest): (BTreeSet<_>, BTreeSet<_>) = paths.iter().cloned().partition(own);
        let mut seen = self.host.look_all(&rest);
        seen.extend(own.into_iter().map(|path| {
            let look = self.look(&path);
            (path, look)
        }));
        seen
    }

    fn is_live(&self) -> bool {
        self.host.is_live()
    }

    fn entry(&self, path: &str) -> io::Result<Entry> {
        match self.overlay.changes.get(path) {
            Some(Change { after: Some(_), .. }) => Ok(Entry::File),
            _ if self.is_made(path) => Ok(Entry::Folder),
            Some(_) => Ok(Entry::Absent),
            None if self.is_gone(path) => Ok(Entry::Absent),
            None => self.host.entry(path),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let names = match self.host.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let made = self.overlay.changes.keys().filter_map(|file| {
            let inside = file.strip_prefix(path)?.strip_prefix('/')?;
            inside.split('/').next().map(ToOwned::to_owned)
        });
        let all: BTreeSet<String> = names.into_iter().chain(made).collect();
        let there = |name: &String| {
            let entry = self.entry(&format!("{path}/{name}"));
            !matches!(entry, Ok(Entry::Absent))
        };
        Ok(all.into_iter().filter(there).collect())
    }

    fn look(&self, path: &str) -> io::Result<Seen> {
        let change = self.overlay.changes.get(path);
        let (found, in_place) = match change {
            Some(change) if change.after.is_some() || !self.is_made(path) => {
                let found = change.after.clone().map_or(Found::Absent, Found::File);
                (found, change.in_place)
            }
            _ if self.is_made(path) => (Found::Folder, false),
            _ if self.is_gone(path) => (Found::Absent, false),
            _ => return self.host.look(path),
        };
        Ok(Seen {
            found,
            missing: self.missing(path)?,
            mount_point: in_place,
        })
    }
}

impl Overlay {
    /// Does in memory what a plan says.
    pub(super) fn carry_out(
        &mut self,
        plan: &Plan,
        seen: &BTreeMap<String, Seen>,
    ) -> BTreeMap<String, Written> {
        let mut written = BTreeMap::new();
        let writes = plan.writes.iter().map(|(path, whole)| (path, Some(whole)));
        let removals = plan.removals.iter().map(|path| (path, None));
        for (path, after) in writes.chain(removals) {
            let seen = seen.get(path);
            let in_place = seen.is_some_and(|seen| seen.mount_point);
            let change = self.changes.entry(path.clone()).or_insert_with(|| Change {
                path: path.clone(),
                before: seen.and_then(|seen| seen.found.file().cloned()),
                after: None,
                in_place,
                secret: false,
                public: Public::default(),
            });
            change.after = after.cloned();
            let how = if in_place {
                Written::InPlace
            } else {
                Written::Replaced
            };
            written.insert(path.clone(), how);
        }
        self.folders.extend(plan.folders.iter().cloned());
        written
    }
}
