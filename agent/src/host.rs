//! The host's `/etc`, as the agent reaches it: one trait, so that tests can stand between the agent
//! and the disk, and one real implementation, [`Rooted`].
//!
//! Paths are always those of the host (`/etc/motd`), with every symlink resolved beforehand by
//! [`path::resolve`]. No operation follows a symlink: where one has appeared in the meantime, the
//! operation fails.

pub mod live;
pub mod mount;
pub mod path;
mod rooted;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edict_core::guard::path::ROOT;
use edict_core::resource::Owner;
use serde::{Deserialize, Serialize};

pub use live::{Live, is_setting, is_table};
pub use rooted::Rooted;

/// The most bytes that a file may have to be looked into or kept: it is held in memory.
pub const FILE_MAX: u64 = 10 * 1024 * 1024;

/// What `/etc` can be asked.
pub trait View {
    /// What is at `path` itself, without following a symlink there.
    fn entry(&self, path: &str) -> io::Result<Entry>;
    /// The names of everything in the folder `path`, those that are UTF-8.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Everything that a plan has to know about `path`.
    fn look(&self, path: &str) -> io::Result<Seen>;
    /// The same of many paths.
    fn look_all(&self, paths: &BTreeSet<String>) -> BTreeMap<String, io::Result<Seen>> {
        let look = |path: &String| (path.clone(), self.look(path));
        paths.iter().map(look).collect()
    }
    /// Whether the values that the kernel runs with are here as well, under `/proc/sys`.
    fn is_live(&self) -> bool {
        false
    }
    /// Folders above `path` that are not there, the outermost first.
    fn missing(&self, path: &str) -> io::Result<Vec<String>> {
        let above: Vec<_> = path
            .match_indices('/')
            .map(|(at, _)| &path[..at])
            .filter(|folder| folder.len() > ROOT.len())
            .collect();
        for (index, folder) in above.iter().enumerate() {
            if self.entry(folder)? != Entry::Folder {
                return Ok(above[index..].iter().map(ToString::to_string).collect());
            }
        }
        Ok(Vec::new())
    }
}

/// What `/etc` can be asked and told.
///
/// What is made, published or removed is safe on disk only after [`Host::sync`] of its folder.
pub trait Host: View + Send + Sync + 'static {
    /// Who owns a file that nobody says otherwise of.
    fn owner(&self) -> Owner;
    /// Makes the folder `path`; its parent is there.
    fn make_folder(&self, path: &str) -> io::Result<()>;
    /// Removes the folder `path` if there is nothing in it; says whether it is gone.
    fn remove_folder(&self, path: &str) -> io::Result<bool>;
    /// Writes what is to be at `path` to a temporary file beside it, safe on disk.
    fn stage(&self, path: &str, whole: &Whole) -> io::Result<Staged>;
    /// Puts the staged file where it belongs, in one step.
    fn publish(&self, staged: &Staged) -> io::Result<()>;
    /// Removes a staged file that is not wanted any more.
    fn discard(&self, staged: &Staged) -> io::Result<()>;
    /// Writes over the file at `path` without replacing it, safe on disk: not atomic, for mount
    /// points only.
    fn overwrite(&self, path: &str, whole: &Whole) -> io::Result<()>;
    /// Removes the file at `path`.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes temporary files that a crashed agent left in the folder `path`.
    fn sweep(&self, path: &str) -> io::Result<()>;
    /// Makes the names in the folder `path` safe on disk. One that is not there has none.
    fn sync(&self, path: &str) -> io::Result<()>;
    /// Makes all of `/etc` safe on disk.
    fn sync_all(&self) -> io::Result<()>;
}

/// Who the agent is: what it makes is its own.
pub fn running_as() -> Owner {
    Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

/// What a name in a folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink, and where it leads.
    Link(String),
    /// A device, a socket or a pipe.
    Special,
}

/// What a plan has to know about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is there.
    pub found: Found,
    /// Folders above it that are not there, the outermost first.
    pub missing: Vec<String>,
    /// Whether something is mounted right there, so that it can't be replaced.
    pub mount_point: bool,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A regular file.
    File(Whole),
    /// A regular file of more than [`FILE_MAX`].
    TooLarge,
    /// A folder.
    Folder,
    /// Anything else, in words: `a symlink` for instance.
    Other(&'static str),
}

impl Found {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Whole> {
        match self {
            Self::File(whole) => Some(whole),
            _ => None,
        }
    }
}

/// A file with everything that Edict keeps of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its permissions and owner.
    pub meta: Meta,
}

/// Contents are never shown, not even by accident.
impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whole")
            .field("bytes", &self.content.len())
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// Permissions and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
}

/// A temporary file that waits to be put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Where it belongs.
    pub path: String,
    /// Its name in the same folder.
    pub name: String,
}

/// Why an operation failed, and what to do where that is known.
pub fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "is /etc of this node meant to be writable?",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on the node",
        io::ErrorKind::PermissionDenied => {
            "is the file immutable (lsattr), or does a security policy keep the agent out?"
        }
        io::ErrorKind::NotADirectory => "a folder on the way is not a folder, or is a symlink now",
        io::ErrorKind::IsADirectory => "there is a folder now: move it away",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
