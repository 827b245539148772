//! The plan: what has to happen to some paths so that they are as a resolution wants them, and what
//! the ledger says afterwards. Pure: it looks at what was seen and can write nothing.

mod file;
mod keys;

use std::collections::{BTreeMap, BTreeSet};

use edict_core::format;
use edict_core::layer::DeletionPolicy;
use edict_core::resolve::Resolution;
use edict_core::resource::{Owner, Place, is_under};

use crate::host::{FILE_MAX, Found, Meta, Seen, Whole, is_table};
use crate::ledger::{Ledger, Original};

/// Permissions of a new file when nobody says otherwise.
const MODE: u32 = 0o644;

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was seen at each touched path.
    pub seen: &'a BTreeMap<String, Seen>,
    /// What Edict has on the host.
    pub ledger: &'a Ledger,
    /// The kept contents that the ledger names at touched paths, by digest.
    pub originals: &'a BTreeMap<String, Vec<u8>>,
    /// Who owns a new file when nobody says otherwise.
    pub owner: Owner,
    /// Uid of the layer that is being brought in, if one is: where a key of another one can't be set any
    /// more, that is left, and holds nobody up.
    pub layer: Option<&'a str>,
}

/// What has to happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Files to be written.
    pub writes: BTreeMap<String, Whole>,
    /// Files to be removed.
    pub removals: BTreeSet<String>,
    /// Folders to be removed if nothing is left in them, the deepest first.
    pub folders: Vec<String>,
    /// The ledger afterwards.
    pub ledger: Ledger,
    /// Contents to be kept from now on, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// What somebody else had changed, and what is therefore left as it is.
    pub foreign: Vec<String>,
    /// The keys among them that can't be set any more.
    pub spoiled: BTreeSet<Place>,
    /// What will be different from what was seen: files, and keys in them.
    pub changed: BTreeSet<Place>,
}

impl Plan {
    /// Whether the host is as it should be.
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.removals.is_empty() && self.folders.is_empty()
    }
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is something that is no file.
    #[error("{path} is {kind}, not a file: move it away, or leave this path out")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// The file is too large to be kept.
    #[error("{0} has more than {limit} MiB, which is too much to keep its original: leave this path out", limit = FILE_MAX / 1024 / 1024)]
    TooLarge(String),
    /// The file is no text.
    #[error("{0} is not UTF-8, so no key can be set in it: correct the file on the node")]
    NotText(String),
    /// The file is not of its format, or a key can't be set in it.
    #[error("{path}: {error}; nothing was written: correct the file on the node")]
    Format {
        /// The path.
        path: String,
        /// What is wrong with it.
        error: format::Error,
    },
    /// Something is mounted where a file has to be removed.
    #[error("{0} is a mount point now, so it can't be removed: unmount it")]
    Mounted(String),
    /// What was kept is gone.
    #[error(
        "the original of {0} is missing in the agent's state folder: put it back there, or release with policy Retain"
    )]
    OriginalLost(String),
}

/// Plans for the paths in `touched`. `leaving` says what becomes of what has no owner any more.
pub fn plan(
    resolution: &Resolution,
    touched: &BTreeSet<String>,
    facts: Facts<'_>,
    leaving: DeletionPolicy,
) -> Result<Plan, Error> {
    let mut planner = Planner {
        facts,
        leaving,
        plan: Plan {
            ledger: facts.ledger.clone(),
            ..Plan::default()
        },
    };
    // Folders that only Edict's own files were in may become files; so what goes, goes first.
    let (owned, idle): (Vec<_>, Vec<_>) = touched.iter().partition(|path| {
        resolution.files.contains_key(*path) || resolution.keys.contains_key(*path)
    });
    for path in idle {
        planner.give_back(path)?;
    }
    for path in owned {
        if let Some(wanted) = resolution.files.get(path) {
            planner.file(path, &wanted.what)?;
        } else if let Some(wanted) = resolution.keys.get(path) {
            planner.keys(path, wanted)?;
        }
    }
    let Planner { mut plan, .. } = planner;
    plan.folders = plan.ledger.take_idle_folders();
    plan.changed = changed(&plan, facts);
    Ok(plan)
}

/// What a plan makes different.
fn changed(plan: &Plan, facts: Facts<'_>) -> BTreeSet<Place> {
    let mut changed = BTreeSet::new();
    for path in plan.writes.keys().chain(&plan.removals) {
        let ledgers = [facts.ledger, &plan.ledger];
        let entries = ledgers.iter().filter_map(|ledger| ledger.keys.get(path));
        let keys: BTreeMap<_, _> = entries
            .flat_map(|entry| entry.keys.iter().map(|one| (&one.key, entry.format)))
            .collect();
        let seen = facts.seen.get(path).and_then(|seen| seen.found.file());
        let whole = ledgers.iter().any(|ledger| ledger.files.contains_key(path));
        if whole {
            changed.insert(Place::file(path));
        }
        for (key, format) in keys.into_iter().filter(|_| !whole) {
            let value = |whole: Option<&Whole>| {
                let content = whole.map_or(&[][..], |whole| &whole.content);
                let text = std::str::from_utf8(content).ok()?;
                format.get(text, key).ok()
            };
            if value(seen) != value(plan.writes.get(path)) {
                changed.insert(Place::key(path, key));
            }
        }
    }
    changed
}

struct Planner<'a> {
    facts: Facts<'a>,
    leaving: DeletionPolicy,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn found(&self, path: &str) -> &'a Found {
        self.facts
            .seen
            .get(path)
            .map_or(&Found::Absent, |seen| &seen.found)
    }

    /// What is at a path that a file is to be written to.
    fn found_file(&self, path: &str) -> Result<Option<&'a Whole>, Error> {
        let kind = match self.found(path) {
            Found::Absent => return Ok(None),
            Found::File(whole) => return Ok(Some(whole)),
            Found::TooLarge => return Err(Error::TooLarge(path.to_owned())),
            // It goes away with the last of Edict's files in it, if nobody else's are there.
            Found::Folder if self.goes_away(path) => return Ok(None),
            Found::Folder => "a folder",
            Found::Other(kind) => kind,
        };
        let path = path.to_owned();
        Err(Error::NotAFile { path, kind })
    }

    fn goes_away(&self, folder: &str) -> bool {
        let ledger = &self.plan.ledger;
        ledger.folders.contains(folder) && !ledger.paths().any(|path| is_under(path, folder))
    }

    /// Everything at `path` as it would be without Edict, and the ledger without it.
    fn give_back(&mut self, path: &str) -> Result<(), Error> {
        if let Some(entry) = self.plan.ledger.files.remove(path) {
            let back = self.without_file(path, &entry)?;
            self.settle(path, back)?;
        }
        if let Some(entry) = self.plan.ledger.keys.remove(path) {
            let back = self.without_keys(path, &entry)?;
            self.settle(path, back)?;
        }
        Ok(())
    }

    /// Has `path` end as `back`, if it is not so already.
    fn settle(&mut self, path: &str, back: Back) -> Result<(), Error> {
        let Back::To(wanted) = back else {
            return Ok(());
        };
        if let Some(whole) = wanted {
            self.write(path, whole);
        } else if *self.found(path) != Found::Absent {
            let seen = self.facts.seen.get(path);
            if seen.is_some_and(|seen| seen.mount_point) && !is_table(path) {
                return Err(Error::Mounted(path.to_owned()));
            }
            self.plan.removals.insert(path.to_owned());
        }
        Ok(())
    }

    /// Has `whole` written to `path`, if it is not there already.
    fn write(&mut self, path: &str, whole: Whole) {
        if self.found(path).file() == Some(&whole) {
            return;
        }
        if let Some(seen) = self.facts.seen.get(path) {
            self.plan
                .ledger
                .folders
                .extend(seen.missing.iter().cloned());
        }
        self.plan.writes.insert(path.to_owned(), whole);
    }

    /// Has `found` kept as the original of a path.
    fn keep(&mut self, found: Option<&Whole>) -> Original {
        let original = Original::of(found);
        if let (Some(blob), Some(whole)) = (original.blob(), found) {
            self.plan
                .blobs
                .insert(blob.to_owned(), whole.content.clone());
        }
        original
    }

    /// The kept original of `path`.
    fn original(&self, path: &str, original: &Original) -> Result<Option<Whole>, Error> {
        match original {
            Original::Absent => Ok(None),
            Original::Present(stamp) => match self.facts.originals.get(&stamp.sha256) {
                Some(content) => Ok(Some(Whole {
                    content: content.clone(),
                    meta: stamp.meta,
                })),
                None => Err(Error::OriginalLost(path.to_owned())),
            },
        }
    }

    fn new_meta(&self) -> Meta {
        let Owner { uid, gid } = self.facts.owner;
        Meta {
            mode: MODE,
            uid,
            gid,
        }
    }

    fn foreign(&mut self, what: String) -> Back {
        self.plan.foreign.push(what);
        Back::AsFound
    }
}

/// How a path is without Edict.
#[derive(Debug, PartialEq)]
enum Back {
    /// Just as it was found.
    AsFound,
    /// Like this; `None` is no file.
    To(Option<Whole>),
}

impl Back {
    /// The file that is there then.
    fn or_found(self, found: &Found) -> Option<Whole> {
        match self {
            Self::AsFound => found.file().cloned(),
            Self::To(whole) => whole,
        }
    }
}
