//! The state folder: `state.json`, `journal.json`, `commands.json`, and under `originals` each kept content by its
//! digest. Nobody but root can look into it, since originals may be secret.
//!
//! A change of the host writes its beginning to the journal, and its end over `state.json` in its place. Each of them
//! is one wait for the disk, where a new file and then its name are two, and at the length that the file has, so that
//! the file system has nothing of its own to write; a disk that is cut off in between leaves the other one of the two
//! whole. The journal counts where `state.json` is torn, or still the one that the journal was
//! written after. Whenever nothing is under way, `state.json` has it all.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::FileType;
use edict_core::config::firewall;
use edict_core::decode::decode;
use edict_core::digest;
use edict_core::resource::Owner;
use serde::{Deserialize, Serialize};

use super::record::{self, Record};
use super::{State, VERSION};
use crate::command::{self, Commands};
use crate::disk::{Disk, Linux};
use crate::folder::{Folder, Stat};
use crate::host::{Entry, Meta, Whole, explain, running_as};
use crate::ledger::Stamp;

const STATE: &str = "state.json";
const JOURNAL: &str = "journal.json";
const COMMANDS: &str = "commands.json";
const REDO: &str = "redo.json";
const LOCK: &str = "lock";
/// The unit that loads the firewall when the host starts asks for this name too.
const TRIAL: &str = firewall::TRIAL;
const ORIGINALS: &str = "originals";
/// For root alone.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// More than every layer of a push and a report of it; the rest of it is small.
const STATE_MAX: u64 = 128 * 1024 * 1024;
/// A file that is longer and more than half empty is given back to the file system.
const ROOM_MAX: usize = 64 * 1024;

/// Why the state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it can't be read or written.
    #[error("the state folder's {what} can't be used: {}", explain(.source))]
    Io {
        /// Which part of it.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Another agent works there.
    #[error("another agent uses this state folder: let it end first")]
    Locked,
    /// The state makes no sense.
    #[error(
        "the state folder's {what} is damaged ({reason}): restore it from a backup, or remove the \
         folder and with it what is known of the originals"
    )]
    Damaged {
        /// Which part of it.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer agent was here.
    #[error(
        "the state folder was written by a newer agent (version {0}, this one knows {VERSION}): run that release"
    )]
    Newer(u64),
}

/// The state folder.
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    originals: Folder,
    /// Where the newest state is; `None` before anybody has looked.
    newest: Mutex<Option<Newest>>,
    /// Held for as long as the agent runs. Who only reads may find none.
    _lock: Option<std::fs::File>,
    owner: Owner,
}

/// A file of the two, and its content.
type Kept = (&'static str, Vec<u8>);

/// Which of the two files has the newest state.
#[derive(Clone, Debug, Default)]
struct Newest {
    sequence: u64,
    /// The journal, or `state.json`.
    in_journal: bool,
    /// The record that `state.json` has, if it is whole.
    state: Option<String>,
}

/// A file that is being written over in its place: to be done again if the agent dies over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redo {
    /// The path on the host.
    pub path: String,
    /// What it is to be.
    pub stamp: Stamp,
}

/// All that is read before the version is known.
#[derive(Deserialize)]
struct Version {
    version: u64,
    /// Not there where an agent wrote it that told units nothing.
    #[serde(default)]
    pending: Option<serde::de::IgnoredAny>,
}

impl Store {
    /// Opens the state folder, making it if need be, for this agent alone.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_on(Arc::new(Linux), path)
    }

    /// The same on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let own = failed("folder");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(&own)?;
        let folder = Folder::open_ambient(path, disk).map_err(&own)?;
        let mode = rustix::fs::Mode::from_raw_mode(FOLDER_MODE);
        rustix::fs::fchmod(folder.as_dir(), mode).map_err(|error| own(error.into()))?;
        let lock = lock(&folder)?;
        if folder.stat(ORIGINALS).map_err(&own)?.entry == Entry::Absent {
            folder.make_folder(ORIGINALS, FOLDER_MODE).map_err(&own)?;
        }
        let originals = folder.folder(ORIGINALS).map_err(failed(ORIGINALS))?;
        // What an agent has written that was killed right after may not be on disk yet. Nor may the
        // folder itself, which the kubelet made: its name is where the agent can't reach it.
        folder.sync_all().map_err(&own)?;
        folder.sweep().map_err(&own)?;
        originals.sweep().map_err(failed(ORIGINALS))?;
        let store = Self {
            folder,
            originals,
            newest: Mutex::default(),
            _lock: Some(lock),
            owner: running_as(),
        };
        // A journal that does not count may have secrets. What can't be read is said when it is.
        if let Ok((newest, _)) = store.newest() {
            if !newest.in_journal {
                store.blank(JOURNAL);
            }
            *store.known() = Some(newest);
        }
        Ok(store)
    }

    /// Whether there is something in the folder, and no agent has put it there.
    pub fn is_foreign(path: &Path) -> bool {
        let mut inside = std::fs::read_dir(path).into_iter().flatten();
        inside.next().is_some() && !path.join(LOCK).exists()
    }

    /// Opens a state folder to read it, and changes nothing in it. `None` where there is no state.
    pub fn open_read(path: &Path) -> Result<Option<Self>, Error> {
        use rustix::fs::{Mode, OFlags, openat};
        let own = failed("folder");
        let folder = match Folder::open_ambient(path, Arc::new(Linux)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(&own)?,
        };
        let is_absent = |name| Ok(folder.stat(name).map_err(&own)?.entry == Entry::Absent);
        if is_absent(STATE)? && is_absent(JOURNAL)? {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match openat(folder.as_dir(), LOCK, flags, Mode::empty()) {
            Ok(handle) => Some(alone(handle)?),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(failed(LOCK)(error.into())),
        };
        Ok(Some(Self {
            originals: folder.folder(ORIGINALS).map_err(failed(ORIGINALS))?,
            folder,
            newest: Mutex::default(),
            _lock: lock,
            owner: running_as(),
        }))
    }

    /// The state as it was saved last; an empty one before that.
    pub fn load(&self) -> Result<State, Error> {
        let Some((name, content)) = self.newest()?.1 else {
            return Ok(State::default());
        };
        let Version { version, pending } = parse(name, &content)?;
        if version > u64::from(VERSION) {
            return Err(Error::Newer(version));
        }
        // What an older agent did not write has its default.
        let state: State = parse(name, &content)?;
        let state = state.stamped();
        Ok(if pending.is_some() {
            state
        } else {
            state.with_all_pending()
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the state, safe on disk.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        let mut known = self.known();
        let newest = match &*known {
            Some(newest) => newest.clone(),
            None => self.newest()?.0,
        };
        let saved = self.save_after(&newest, state);
        *known = Some(match &saved {
            Ok(next) => next.clone(),
            // Whether the new one has its name, and will after a power cut, can't be told: nothing may go by what
            // state.json is until it is replaced once more.
            Err(_) if !newest.in_journal => Newest {
                state: None,
                ..newest
            },
            Err(_) => newest,
        });
        saved.map(drop)
    }

    fn save_after(&self, newest: &Newest, state: &State) -> Result<Newest, Error> {
        let sequence = newest.sequence + 1;
        let begins = state.open && !newest.in_journal;
        let (to, after) = match &newest.state {
            Some(after) if begins => (JOURNAL, Some(&**after)),
            _ => (STATE, None),
        };
        let written = record::written(state, sequence, after);
        let (content, record) = written.map_err(|error| failed(to)(error.into()))?;
        // The newest is never written over.
        let put = if to == JOURNAL || newest.in_journal {
            self.put_in_place(to, content)
        } else {
            self.put(to, content)
        };
        put.map_err(failed(to))?;
        if newest.in_journal {
            self.blank(JOURNAL);
        }
        Ok(Newest {
            sequence,
            in_journal: to == JOURNAL,
            state: after.map(ToOwned::to_owned).or(Some(record.name)),
        })
    }

    fn put(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        self.replace(name, record::filled(content, 0))
    }

    fn put_in_place(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        let most = content.len().saturating_mul(2).max(ROOM_MAX);
        let written = match self.length(name)? {
            Some(length) if length <= most => {
                let content = record::filled(content, length);
                self.folder.write_over(name, &content)
            }
            _ => self.put(name, content),
        };
        // It is not to count, whole as it may be: whoever has failed to write it goes by the other one.
        written.inspect_err(|_| self.blank(name))
    }

    /// Nobody misses what is in this file, and it may be secret. If a power cut brings a journal back, it is known to
    /// be older.
    fn blank(&self, name: &str) {
        let blank = || match self.length(name)? {
            None => Ok(()),
            Some(length) if length <= ROOM_MAX => {
                let nothing = record::filled(Vec::new(), length);
                self.folder.write_over_for_now(name, &nothing)
            }
            Some(_) => self.folder.remove(name),
        };
        if let Err(error) = blank() {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, name, "this can't be emptied");
        }
    }

    /// How long a file is, if it is there.
    fn length(&self, name: &str) -> io::Result<Option<usize>> {
        let Stat { entry, size } = self.folder.stat(name)?;
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        Ok((entry != Entry::Absent).then_some(length))
    }

    /// Where the newest state is, and the file that has it.
    fn newest(&self) -> Result<(Newest, Option<Kept>), Error> {
        let (state, journal) = (self.read(STATE)?, self.read(JOURNAL)?);
        let whole = state.as_deref().and_then(record::read);
        let journal = journal.and_then(|content| Some((record::read(&content)?, content)));
        let counts = |journal: &Record| match &whole {
            Some(state) => journal.after.as_ref() == Some(&state.name),
            None => true,
        };
        if let Some((record, content)) = journal.filter(|(journal, _)| counts(journal)) {
            let newest = Newest {
                sequence: record.sequence,
                in_journal: true,
                state: whole.map(|state| state.name),
            };
            return Ok((newest, Some((JOURNAL, content))));
        }
        let newest = whole.map_or_else(Newest::default, |record| Newest {
            sequence: record.sequence,
            in_journal: false,
            // One that is not sealed is replaced, and never written over.
            state: record.sealed.then_some(record.name),
        });
        Ok((newest, state.map(|content| (STATE, content))))
    }

    /// What is known of commands.
    pub fn commands(&self) -> Result<Commands, Error> {
        let Some(content) = self.read(COMMANDS)? else {
            return Ok(Commands::default());
        };
        let Version { version, .. } = parse(COMMANDS, &content)?;
        if version > u64::from(command::VERSION) {
            return Err(Error::Newer(version));
        }
        parse(COMMANDS, &content)
    }

    /// Saves what is known of commands, safe on disk.
    pub fn save_commands(&self, commands: &Commands) -> Result<(), Error> {
        self.write(COMMANDS, commands)
    }

    /// Keeps contents by their digests, safe on disk.
    pub fn keep<'a>(
        &self,
        contents: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
    ) -> Result<(), Error> {
        let io = failed(ORIGINALS);
        let mut changed = false;
        for (sha256, content) in contents {
            if self.original(sha256)?.is_some() {
                continue;
            }
            let whole = self.private(content.clone());
            let staged = self.originals.stage(&whole, sha256).map_err(&io)?;
            self.originals.rename(&staged, sha256).map_err(&io)?;
            changed = true;
        }
        if changed {
            self.originals.sync().map_err(&io)?;
        }
        Ok(())
    }

    /// A kept content, if it is there and whole.
    pub fn original(&self, sha256: &str) -> Result<Option<Vec<u8>>, Error> {
        let io = failed(ORIGINALS);
        if self.originals.stat(sha256).map_err(&io)?.entry == Entry::Absent {
            return Ok(None);
        }
        let whole = self.originals.read(sha256, STATE_MAX).map_err(&io)?;
        Ok(whole
            .map(|whole| whole.content)
            .filter(|content| digest::of_bytes(content) == sha256))
    }

    /// Forgets every kept content that is not named. What a power cut brings back is forgotten
    /// again.
    pub fn forget_all_but(&self, named: &BTreeSet<&str>) -> Result<(), Error> {
        let io = failed(ORIGINALS);
        for name in self.originals.names(FileType::is_file).map_err(&io)? {
            if !named.contains(name.as_str()) {
                self.originals.remove(&name).map_err(&io)?;
            }
        }
        Ok(())
    }

    /// Writes down what is about to be written over, safe on disk.
    pub fn begin_redo(&self, path: &str, whole: &Whole) -> Result<(), Error> {
        let stamp = Stamp::of(whole);
        self.keep([(&stamp.sha256, &whole.content)])?;
        let path = path.to_owned();
        self.write(REDO, &Redo { path, stamp })
    }

    /// Says that it has been written over. A record that a power cut brings back does no harm: the
    /// transaction is still open then, and done or taken back anyway.
    pub fn end_redo(&self) -> Result<(), Error> {
        self.folder.remove(REDO).map_err(failed(REDO))
    }

    /// What was being written over when the agent died.
    pub fn redo(&self) -> Result<Option<(Redo, Whole)>, Error> {
        let Some(content) = self.read(REDO)? else {
            return Ok(None);
        };
        let redo: Redo = parse(REDO, &content)?;
        let Some(content) = self.original(&redo.stamp.sha256)? else {
            return Err(Error::Damaged {
                what: REDO.to_owned(),
                reason: "the content that it names is not there".to_owned(),
            });
        };
        let meta = redo.stamp.meta;
        Ok(Some((redo, Whole { content, meta })))
    }

    /// Writes down, safe on disk, that the firewall is on trial: a host that starts meanwhile does not load it.
    pub fn begin_trial(&self) -> Result<(), Error> {
        self.replace(TRIAL, Vec::new()).map_err(failed(TRIAL))
    }

    /// It is not any more.
    pub fn end_trial(&self) -> Result<(), Error> {
        self.folder.remove(TRIAL).map_err(failed(TRIAL))
    }

    /// Whether it is, or was when the agent died.
    pub fn is_on_trial(&self) -> Result<bool, Error> {
        let there = self.folder.stat(TRIAL).map_err(failed(TRIAL))?;
        Ok(there.entry != Entry::Absent)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let io = failed(name);
        if self.folder.stat(name).map_err(&io)?.entry == Entry::Absent {
            return Ok(None);
        }
        match self.folder.read(name, STATE_MAX).map_err(&io)? {
            Some(whole) => Ok(Some(whole.content)),
            None => Err(Error::Damaged {
                what: name.to_owned(),
                reason: "it is too large".to_owned(),
            }),
        }
    }

    fn write(&self, name: &str, what: &impl Serialize) -> Result<(), Error> {
        let content = serde_json::to_vec(what).map_err(|error| failed(name)(error.into()))?;
        self.replace(name, content).map_err(failed(name))
    }

    fn replace(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        self.folder.replace(name, &self.private(content))
    }

    fn private(&self, content: Vec<u8>) -> Whole {
        let Owner { uid, gid } = self.owner;
        let meta = Meta {
            mode: FILE_MODE,
            uid,
            gid,
        };
        Whole { content, meta }
    }
}

fn lock(folder: &Folder) -> Result<std::fs::File, Error> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = openat(folder.as_dir(), LOCK, flags, Mode::RUSR | Mode::WUSR);
    alone(handle.map_err(|error| failed(LOCK)(error.into()))?)
}

/// Takes the lock, or says that another agent has it.
fn alone(handle: std::os::fd::OwnedFd) -> Result<std::fs::File, Error> {
    use rustix::fs::{FlockOperation, flock};
    match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(handle.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked),
        Err(error) => Err(failed(LOCK)(error.into())),
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> Error + use<> {
    let what = what.to_owned();
    move |source| Error::Io {
        what: what.clone(),
        source,
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, content: &[u8]) -> Result<T, Error> {
    let (value, _) = decode(content).map_err(|error| Error::Damaged {
        what: what.to_owned(),
        // Where, and not what: the state may hold secrets.
        reason: format!(
            "line {} column {}",
            error.inner().line(),
            error.inner().column()
        ),
    })?;
    Ok(value)
}
