//! The real host: a handle on its `/etc`, entered one folder after the other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use edict_core::guard::path::ROOT;
use edict_core::resource::Owner;

use super::mount::Mounts;
use super::{Entry, FILE_MAX, Found, Host, Seen, Staged, View, Whole, running_as};
use crate::disk::{Disk, Linux};
use crate::folder::Folder;

/// Folders that Edict makes can be looked into by everybody, as those of the system can.
const FOLDER_MODE: u32 = 0o755;

/// The host's `/etc`, wherever it is mounted.
pub struct Rooted {
    etc: Folder,
    mounts: Box<dyn Mounts>,
}

impl Rooted {
    /// The folder `etc` of the agent's own file system is the host's `/etc`.
    pub fn open(etc: &Path, mounts: impl Mounts) -> io::Result<Self> {
        Self::open_on(Arc::new(Linux), etc, mounts)
    }

    /// The same on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, etc: &Path, mounts: impl Mounts) -> io::Result<Self> {
        Ok(Self {
            etc: Folder::open_ambient(etc, disk)?,
            mounts: Box::new(mounts),
        })
    }

    /// Looks at the last name of `path` from within its folder.
    fn within<T>(
        &self,
        path: &str,
        work: impl FnOnce(&Folder, &str) -> io::Result<T>,
    ) -> io::Result<T> {
        let (outer, name) = inner(path)?.rsplit_once('/').unwrap_or(("", inner(path)?));
        let mut folder = None;
        for step in outer.split('/').filter(|step| !step.is_empty()) {
            folder = Some(folder.as_ref().unwrap_or(&self.etc).folder(step)?);
        }
        work(folder.as_ref().unwrap_or(&self.etc), name)
    }

    /// Works on the folder `path` itself, if it is there.
    fn at(&self, path: &str, work: impl FnOnce(&Folder) -> io::Result<()>) -> io::Result<()> {
        if path == ROOT {
            return work(&self.etc);
        }
        gone(
            self.within(path, |folder, name| work(&folder.folder(name)?)),
            (),
        )
    }
}

/// The part of `path` below `/etc`.
fn inner(path: &str) -> io::Result<&str> {
    path.strip_prefix(ROOT)
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a path under /etc"))
}

/// `absent`, where a folder on the way is not there or is a file now: nothing can be in those.
fn gone<T>(result: io::Result<T>, absent: T) -> io::Result<T> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match result {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(absent),
        other => other,
    }
}

impl View for Rooted {
    fn entry(&self, path: &str) -> io::Result<Entry> {
        let entry = self.within(path, |folder, name| Ok(folder.stat(name)?.entry));
        gone(entry, Entry::Absent)
    }

    fn look(&self, path: &str) -> io::Result<Seen> {
        let missing = self.missing(path)?;
        let found = if missing.is_empty() {
            self.within(path, |folder, name| {
                let stat = folder.stat(name)?;
                Ok(match stat.entry {
                    Entry::Absent => Found::Absent,
                    Entry::Folder => Found::Folder,
                    Entry::Link(_) => Found::Other("a symlink"),
                    Entry::Special => Found::Other("a device, a socket or a pipe"),
                    Entry::File if stat.size > FILE_MAX => Found::TooLarge,
                    Entry::File => match folder.read(name, FILE_MAX)? {
                        Some(whole) => Found::File(whole),
                        None => Found::TooLarge,
                    },
                })
            })?
        } else {
            Found::Absent
        };
        let mount_point = matches!(found, Found::File(_)) && self.mounts.is_mount_point(path)?;
        Ok(Seen {
            found,
            missing,
            mount_point,
        })
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.within(path, |folder, name| folder.folder(name)?.names(|_| true))
    }
}

impl Host for Rooted {
    fn owner(&self) -> Owner {
        running_as()
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.within(path, |folder, name| folder.make_folder(name, FOLDER_MODE))
    }

    fn remove_folder(&self, path: &str) -> io::Result<bool> {
        gone(self.within(path, Folder::remove_folder), true)
    }

    fn stage(&self, path: &str, whole: &Whole) -> io::Result<Staged> {
        let name = self.within(path, |folder, name| folder.stage(whole, name))?;
        let path = path.to_owned();
        Ok(Staged { path, name })
    }

    fn publish(&self, staged: &Staged) -> io::Result<()> {
        self.within(&staged.path, |folder, name| {
            folder.rename(&staged.name, name)
        })
    }

    fn discard(&self, staged: &Staged) -> io::Result<()> {
        self.within(&staged.path, |folder, _| folder.remove(&staged.name))
    }

    fn overwrite(&self, path: &str, whole: &Whole) -> io::Result<()> {
        self.within(path, |folder, name| folder.overwrite(name, whole))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match self.within(path, Folder::remove) {
            // With its folder. One that is a file or a symlink now is another matter.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sweep(&self, path: &str) -> io::Result<()> {
        self.at(path, Folder::sweep)
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        self.at(path, Folder::sync)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.etc.sync_all()
    }
}
