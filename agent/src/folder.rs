//! A folder that files are replaced in, atomically and safe on disk.
//!
//! What is renamed, made or removed is safe only after [`Folder::sync`]: several changes of one folder
//! need one.
//!
//! Handles are opened readable, not as `O_PATH` as cap-std does on its own: fsync refuses those.
//! Every name is a single one, so that nothing leads out of the folder, and no symlink is followed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType};
use rustix::fs::{self as sys, Mode, OFlags};

use crate::disk::{Disk, LABEL};
use crate::host::{Entry, Meta, Whole};

/// How the names of temporary files begin and end.
const TEMPORARY: (&str, &str) = (".edict-", ".tmp");
/// Labels are shorter than a page; a longer one is not kept.
const LABEL_MAX: usize = 4096;

/// A folder that files are replaced in.
#[derive(Debug)]
pub struct Folder {
    dir: Dir,
    disk: Arc<dyn Disk>,
}

/// What is known about a name in a folder.
#[derive(Debug)]
pub struct Stat {
    /// What it stands for.
    pub entry: Entry,
    /// Size in bytes.
    pub size: u64,
}

impl Folder {
    /// The folder at `path` of the agent's own file system; the last ambient path that is used.
    pub fn open_ambient(path: &Path, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        Self::within(&dir, ".", disk)
    }

    fn within(dir: &Dir, name: &str, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = sys::openat(dir, name, flags, Mode::empty())?;
        let dir = Dir::from_std_file(File::from(handle));
        Ok(Self { dir, disk })
    }

    /// The folder `name` in this one.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Self::within(&self.dir, single(name)?, Arc::clone(&self.disk))
    }

    /// The folder itself as a handle.
    pub fn as_dir(&self) -> &Dir {
        &self.dir
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// What `name` stands for.
    pub fn stat(&self, name: &str) -> io::Result<Stat> {
        let metadata = match self.dir.symlink_metadata(single(name)?) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entry = Entry::Absent;
                return Ok(Stat { entry, size: 0 });
            }
            Err(error) => return Err(error),
        };
        let entry = if metadata.is_file() {
            Entry::File
        } else if metadata.is_dir() {
            Entry::Folder
        } else if metadata.is_symlink() {
            let target = sys::readlinkat(&self.dir, name, Vec::new())?;
            let target = target
                .into_string()
                .map_err(|_| io::Error::other("the symlink's target is not UTF-8"))?;
            Entry::Link(target)
        } else {
            Entry::Special
        };
        let size = metadata.len();
        Ok(Stat { entry, size })
    }

    /// The regular file `name`; `None` when it has more than `max` bytes.
    pub fn read(&self, name: &str, max: u64) -> io::Result<Option<Whole>> {
        // Not to hang on a pipe that took the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.dir, single(name)?, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file any more"));
        }
        let meta = meta_of(&file)?;
        let mut content = Vec::new();
        (&file).take(max + 1).read_to_end(&mut content)?;
        Ok((content.len() as u64 <= max).then_some(Whole { content, meta }))
    }

    /// Writes `whole` to a new temporary file, safe on disk, with the label of the file `beside`
    /// if that has one. Returns its name.
    pub fn stage(&self, whole: &Whole, beside: &str) -> io::Result<String> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let (start, end) = TEMPORARY;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{start}{}-{number}{end}", std::process::id());
        let file = match self.disk.create(self.fd(), &name) {
            // A number of an agent that crashed: process ids are few in a container.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(&name)?;
                self.disk.create(self.fd(), &name)
            }
            other => other,
        }?;
        let written = self
            .copy_label(beside, &file)
            // Before the permissions: writing takes set-uid and set-gid bits away.
            .and_then(|()| self.disk.write(&file, &whole.content))
            .and_then(|()| self.disk.set_meta(&file, whole.meta))
            .and_then(|()| self.disk.sync(file.as_fd()));
        if let Err(error) = written {
            // The first error is the one to tell.
            let _ = self.remove(&name);
            return Err(error);
        }
        Ok(name)
    }

    /// Gives the file `from` the name `to`, in place of what has that name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(self.fd(), single(from)?, single(to)?)
    }

    /// Replaces the file `name`, safe on disk.
    pub fn replace(&self, name: &str, whole: &Whole) -> io::Result<()> {
        let staged = self.stage(whole, name)?;
        self.rename(&staged, name).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.remove(&staged);
        })?;
        self.sync()
    }

    /// Writes over the file `name` where it is, safe on disk when it is done and torn before.
    pub fn overwrite(&self, name: &str, whole: &Whole) -> io::Result<()> {
        let file = self.writable(name)?;
        self.disk.truncate(&file)?;
        self.disk.write(&file, &whole.content)?;
        self.disk.set_meta(&file, whole.meta)?;
        self.disk.sync(file.as_fd())
    }

    /// Writes over the beginning of the file `name`, safe on disk when it is done and torn before. What of it is
    /// behind that stays, and so do its permissions.
    pub fn write_over(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let file = self.writable(name)?;
        self.disk.write_over(&file, content)?;
        self.disk.sync_content(&file)
    }

    /// The same, which a power cut may undo, or tear.
    pub fn write_over_for_now(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.disk.write_over(&self.writable(name)?, content)
    }

    /// The regular file `name`, to write over it.
    fn writable(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.dir, single(name)?, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file any more"));
        }
        Ok(file)
    }

    /// Removes the file `name`, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(self.fd(), single(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Makes the folder `name` with these permissions.
    pub fn make_folder(&self, name: &str, mode: u32) -> io::Result<()> {
        self.disk.make_folder(self.fd(), single(name)?, mode)
    }

    /// Removes the folder `name` if there is nothing in it; says whether it is gone.
    pub fn remove_folder(&self, name: &str) -> io::Result<bool> {
        use io::ErrorKind::{
            AlreadyExists, DirectoryNotEmpty, NotADirectory, NotFound, ResourceBusy,
        };
        match self.disk.remove_folder(self.fd(), single(name)?) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                NotFound => Ok(true),
                AlreadyExists | DirectoryNotEmpty | NotADirectory | ResourceBusy => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The names of what `is_meant` in the folder, those that are UTF-8.
    pub fn names(&self, is_meant: fn(&FileType) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.dir.entries()? {
            let entry = entry?;
            if is_meant(&entry.file_type()?)
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes temporary files that a crashed agent left here.
    pub fn sweep(&self) -> io::Result<()> {
        let (start, end) = TEMPORARY;
        for name in self.names(FileType::is_file)? {
            let number = name
                .strip_prefix(start)
                .and_then(|rest| rest.strip_suffix(end));
            if number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b'-')) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Makes the names in the folder safe on disk, and its permissions.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync(self.fd())
    }

    /// Makes everything of the file system that the folder is on safe on disk, the names of the
    /// folders above it included.
    pub fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all(self.fd())
    }

    /// Gives `to` the SELinux label of the file `from`, if there are such things here.
    fn copy_label(&self, from: &str, to: &File) -> io::Result<()> {
        use rustix::io::Errno;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = match sys::openat(&self.dir, single(from)?, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut label = vec![0; LABEL_MAX];
        let length = match sys::fgetxattr(&from, LABEL, label.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match self.disk.set_label(to, &label[..length]) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }
}

/// `name`, if it is a single one.
fn single(name: &str) -> io::Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a single name",
        ));
    }
    Ok(name)
}

fn meta_of(file: &File) -> io::Result<Meta> {
    let stat = sys::fstat(file)?;
    Ok(Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}
