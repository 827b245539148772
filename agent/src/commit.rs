//! The commit: does what a plan says, all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edict_core::resource::is_under;
use edict_core::wire::Written;

use crate::host::{Found, Host, Seen, Staged, Whole, explain, is_setting, is_table};
use crate::plan::Plan;
use crate::state::{self, Store};

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation failed and everything is as it was before.
    #[error("{}", put_back(.path, .doing, .source))]
    PutBack {
        /// The path.
        path: String,
        /// What was to be done with it.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An operation failed, and then putting something back failed too.
    #[error(
        "{path} can't be {doing}: {}; and {left} can't be put back: {}; it is tried again with the next push",
        explain(.source), explain(.again)
    )]
    Left {
        /// The path.
        path: String,
        /// What was to be done with it.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
        /// The path that is not as before.
        left: String,
        /// Why that failed.
        again: io::Error,
    },
}

impl Error {
    /// What is left to say once everything is as it was before.
    pub fn once_put_back(&self) -> String {
        let (Self::PutBack {
            path,
            doing,
            source,
        }
        | Self::Left {
            path,
            doing,
            source,
            ..
        }) = self;
        put_back(path, doing, source)
    }
}

fn put_back(path: &str, doing: &str, source: &io::Error) -> String {
    let why = explain(source);
    format!("{path} can't be {doing}: {why}; what was changed before it is put back")
}

/// A change under way, with everything to take it back.
pub struct Commit<'a> {
    host: &'a dyn Host,
    store: &'a Store,
    seen: &'a BTreeMap<String, Seen>,
    /// What was done so far.
    done: Vec<Done>,
    staged: Vec<Staged>,
    /// Folders whose names changed.
    changed: BTreeSet<String>,
    written: BTreeMap<String, Written>,
    /// Settings of the kernel without which all is put back.
    needed: BTreeSet<String>,
    /// Why others did not become what they should.
    refused: BTreeMap<String, io::Error>,
}

enum Done {
    MadeFolder(String),
    RemovedFolder(String),
    /// Written or removed.
    Changed(String),
}

type Failure = (String, &'static str, io::Error);

impl<'a> Commit<'a> {
    /// A commit that has done nothing yet.
    pub fn new(host: &'a dyn Host, store: &'a Store, seen: &'a BTreeMap<String, Seen>) -> Self {
        Self {
            host,
            store,
            seen,
            done: Vec::new(),
            staged: Vec::new(),
            changed: BTreeSet::new(),
            written: BTreeMap::new(),
            needed: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Puts all back where one of these settings of the kernel can't be set. Any other that can't be is
    /// left, and holds nothing up: the kernel does not take every value back.
    #[must_use]
    pub fn needs(mut self, settings: BTreeSet<String>) -> Self {
        self.needed = settings;
        self
    }

    /// The settings of the kernel that are not as they should be, and why.
    pub fn refused(&self) -> Vec<String> {
        let refused = self.refused.iter();
        refused
            .map(|(path, why)| format!("{path} ({why})"))
            .collect()
    }

    /// Does what the plan says. On an error everything is put back.
    pub fn carry_out(&mut self, plan: &Plan) -> Result<BTreeMap<String, Written>, Error> {
        match self.go(plan) {
            Ok(()) => Ok(std::mem::take(&mut self.written)),
            Err((path, doing, source)) => Err(match self.put_back() {
                Ok(()) => Error::PutBack {
                    path,
                    doing,
                    source,
                },
                Err((left, _, again)) => Error::Left {
                    path,
                    doing,
                    source,
                    left,
                    again,
                },
            }),
        }
    }

    fn go(&mut self, plan: &Plan) -> Result<(), Failure> {
        // What is removed may be named by a file that is about to change, so it goes last; but first
        // where a file and a folder change places.
        let in_the_way = |gone: &&String| {
            let mut writes = plan.writes.keys();
            writes.any(|path| path == *gone || is_under(path, gone) || is_under(gone, path))
        };
        let (files, later_files): (Vec<_>, Vec<_>) = plan.removals.iter().partition(in_the_way);
        let (folders, later_folders): (Vec<_>, Vec<_>) = plan.folders.iter().partition(in_the_way);
        self.remove(&files, &folders)?;
        // Everything is on disk before the first file changes: no space is found out here.
        for (path, whole) in &plan.writes {
            self.make_folders(path)?;
            if !self.is_mount_point(path) {
                let staged = self.host.stage(path, whole);
                self.staged.push(staged.map_err(failed(path, "written"))?);
            }
        }
        // The last path first: containerd's hosts.toml names certificates that come behind it.
        while let Some(staged) = self.staged.pop() {
            self.publish(&staged, &plan.writes[&staged.path])?;
        }
        for (path, whole) in &plan.writes {
            if is_setting(path) {
                self.set(path, whole)?;
            } else if self.is_mount_point(path) {
                self.write_over(path, whole)?;
            }
        }
        self.set_again(plan)?;
        self.remove(&later_files, &later_folders)?;
        self.sync()
    }

    /// Marks the folder of `path` as changed.
    fn note(&mut self, path: &str) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.changed.insert(folder.to_owned());
    }

    /// Makes the names that changed safe on disk.
    fn sync(&self) -> Result<(), Failure> {
        self.changed
            .iter()
            .try_for_each(|folder| self.host.sync(folder).map_err(failed(folder, "made safe")))
    }

    fn remove(&mut self, files: &[&String], folders: &[&String]) -> Result<(), Failure> {
        for path in files {
            self.note(path);
            self.done.push(Done::Changed((*path).clone()));
            self.host.remove(path).map_err(failed(path, "removed"))?;
        }
        for folder in folders {
            self.note(folder);
            let gone = self.host.remove_folder(folder);
            if gone.map_err(failed(folder, "removed"))? {
                self.done.push(Done::RemovedFolder((*folder).clone()));
            }
        }
        Ok(())
    }

    fn is_mount_point(&self, path: &str) -> bool {
        self.seen.get(path).is_some_and(|seen| seen.mount_point)
    }

    fn make_folders(&mut self, path: &str) -> Result<(), Failure> {
        for folder in self.seen.get(path).map_or(&[][..], |seen| &seen.missing) {
            let made_before = self
                .done
                .iter()
                .any(|done| matches!(done, Done::MadeFolder(made) if made == folder));
            if !made_before {
                self.note(folder);
                let made = self.host.make_folder(folder);
                made.map_err(failed(folder, "made"))?;
                self.done.push(Done::MadeFolder(folder.clone()));
            }
        }
        Ok(())
    }

    fn publish(&mut self, staged: &Staged, whole: &Whole) -> Result<(), Failure> {
        let path = &staged.path;
        self.note(path);
        self.done.push(Done::Changed(path.clone()));
        match self.host.publish(staged) {
            Ok(()) => {
                self.written.insert(path.clone(), Written::Replaced);
                Ok(())
            }
            Err(error) => {
                // It stays behind otherwise; the error to tell is the first one.
                let _ = self.host.discard(staged);
                // Mounted since it was looked at, or in a way that the table does not show.
                if error.kind() == io::ErrorKind::ResourceBusy {
                    return self.write_over(path, whole);
                }
                Err(failed(path, "written")(error))
            }
        }
    }

    fn set(&mut self, path: &str, whole: &Whole) -> Result<(), Failure> {
        match self.write_over(path, whole) {
            // Who may reach the host is never left as it should not be.
            Err((path, _, error)) if !self.needed.contains(&path) && !is_table(&path) => {
                self.refused.insert(path, error);
                Ok(())
            }
            result => result,
        }
    }

    /// Some settings of the kernel change others: `net.ipv4.ip_forward` does. What was set is looked at
    /// once more when all are set.
    fn set_again(&mut self, plan: &Plan) -> Result<(), Failure> {
        let set = plan.writes.keys().filter(|path| is_setting(path));
        let set: BTreeSet<_> = set.cloned().collect();
        if set.len() < 2 {
            return Ok(());
        }
        for (path, seen) in self.host.look_all(&set) {
            let whole = &plan.writes[&path];
            let moved = seen.is_ok_and(|seen| seen.found.file() != Some(whole));
            if moved && !self.refused.contains_key(&path) {
                self.set(&path, whole)?;
            }
        }
        Ok(())
    }

    fn write_over(&mut self, path: &str, whole: &Whole) -> Result<(), Failure> {
        self.done.push(Done::Changed(path.to_owned()));
        overwrite(self.host, self.store, path, whole).map_err(failed(path, "written in place"))?;
        self.written.insert(path.to_owned(), Written::InPlace);
        Ok(())
    }

    /// Takes back what was done, the last first, and goes on where something fails.
    pub fn put_back(&mut self) -> Result<(), Failure> {
        for staged in std::mem::take(&mut self.staged) {
            // Swept at the next start where this fails.
            let _ = self.host.discard(&staged);
        }
        let mut first = Ok(());
        while let Some(done) = self.done.pop() {
            let (path, result) = match done {
                Done::MadeFolder(path) => {
                    let result = self.host.remove_folder(&path).map(drop);
                    (path, result)
                }
                Done::RemovedFolder(path) => {
                    let result = self.host.make_folder(&path);
                    (path, result)
                }
                Done::Changed(path) => {
                    let result = self.put_back_file(&path);
                    (path, result)
                }
            };
            if let Err(error) = result {
                if is_setting(&path) && !is_table(&path) {
                    tracing::warn!(path, %error, "this setting can't be set back");
                    continue;
                }
                first = first.and(Err((path, "put back", error)));
            }
        }
        first?;
        self.sync()?;
        // A write in place that failed is not to be done again now.
        self.store
            .end_redo()
            .map_err(|error| ("the redo record".to_owned(), "removed", other(error)))
    }

    fn put_back_file(&self, path: &str) -> io::Result<()> {
        let Some(before) = self.seen.get(path) else {
            return Ok(());
        };
        let now = self.host.look(path)?;
        match &before.found {
            found if now.found == *found => Ok(()),
            Found::File(whole) if now.mount_point => overwrite(self.host, self.store, path, whole),
            Found::File(whole) => {
                let staged = self.host.stage(path, whole)?;
                self.host.publish(&staged).or_else(|error| {
                    self.host.discard(&staged)?;
                    if error.kind() == io::ErrorKind::ResourceBusy {
                        return overwrite(self.host, self.store, path, whole);
                    }
                    Err(error)
                })
            }
            // A folder that was removed is made again by its own step.
            Found::Absent | Found::Folder => self.host.remove(path),
            // Plans replace nothing of the kind.
            Found::TooLarge | Found::Other(_) => Ok(()),
        }
    }
}

/// Writes over a file under a record that has it done again if the agent dies over it.
fn overwrite(host: &dyn Host, store: &Store, path: &str, whole: &Whole) -> io::Result<()> {
    if is_setting(path) {
        // Nothing of it is ever half there.
        return host.overwrite(path, whole);
    }
    store.begin_redo(path, whole).map_err(other)?;
    host.overwrite(path, whole)?;
    store.end_redo().map_err(other)
}

/// Does again what was being written over when the agent died.
pub fn redo(host: &dyn Host, store: &Store) -> io::Result<()> {
    let Some((redo, whole)) = store.redo().map_err(other)? else {
        return Ok(());
    };
    tracing::info!(
        path = redo.path,
        "finishing a file that was being written in place"
    );
    match host.overwrite(&redo.path, &whole) {
        // It was taken away in the meantime: nothing is half written any more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    store.end_redo().map_err(other)
}

fn other(error: state::Error) -> io::Error {
    io::Error::other(error)
}

fn failed(path: &str, doing: &'static str) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |error| (path, doing, error)
}
