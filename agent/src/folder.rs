//! A folder that files are replaced in, atomically and safe on disk.
//!
//! Handles are opened readable, not as `O_PATH` as cap-std does on its own: fsync refuses those.
//! Every name is a single one, so that nothing leads out of the folder, and no symlink is followed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType};
use rustix::fs::{self as sys, AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};

use crate::host::{Entry, Meta, Whole};

/// How the names of temporary files begin and end.
const TEMPORARY: (&str, &str) = (".edict-", ".tmp");
/// Where SELinux keeps a file's label.
const LABEL: &str = "security.selinux";
/// Labels are shorter than a page; a longer one is not kept.
const LABEL_MAX: usize = 4096;

/// A folder that files are replaced in.
#[derive(Debug)]
pub struct Folder(Dir);

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
    pub fn open_ambient(path: &Path) -> io::Result<Self> {
        Self::from_dir(&Dir::open_ambient_dir(path, ambient_authority())?, ".")
    }

    fn from_dir(dir: &Dir, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = sys::openat(dir, name, flags, Mode::empty())?;
        Ok(Self(Dir::from_std_file(File::from(handle))))
    }

    /// The folder `name` in this one.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Self::from_dir(&self.0, single(name)?)
    }

    /// The folder itself as a handle.
    pub fn as_dir(&self) -> &Dir {
        &self.0
    }

    /// What `name` stands for.
    pub fn stat(&self, name: &str) -> io::Result<Stat> {
        let metadata = match self.0.symlink_metadata(single(name)?) {
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
            let target = sys::readlinkat(&self.0, name, Vec::new())?;
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
        let file = File::from(sys::openat(&self.0, single(name)?, flags, Mode::empty())?);
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
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || sys::openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR);
        let handle = match open() {
            // A number of an agent that crashed: process ids are few in a container.
            Err(rustix::io::Errno::EXIST) => {
                self.remove(&name)?;
                open()
            }
            other => other,
        }?;
        let file = File::from(handle);
        let written = self
            .copy_label(beside, &file)
            // Before the permissions: writing takes set-uid and set-gid bits away.
            .and_then(|()| (&file).write_all(&whole.content))
            .and_then(|()| put_meta(&file, whole.meta))
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // The first error is the one to tell.
            let _ = self.remove(&name);
            return Err(error);
        }
        Ok(name)
    }

    /// Gives the file `from` the name `to`, in place of what has that name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        sys::renameat(&self.0, single(from)?, &self.0, single(to)?)?;
        self.sync()
    }

    /// Replaces the file `name`.
    pub fn replace(&self, name: &str, whole: &Whole) -> io::Result<()> {
        let staged = self.stage(whole, name)?;
        self.rename(&staged, name).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.remove(&staged);
        })
    }

    /// Writes over the file `name` where it is.
    pub fn overwrite(&self, name: &str, whole: &Whole) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.0, single(name)?, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file any more"));
        }
        file.set_len(0)?;
        (&file).write_all(&whole.content)?;
        // After the content: writing takes set-uid and set-gid bits away.
        put_meta(&file, whole.meta)?;
        file.sync_all()
    }

    /// Removes the file `name`, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.0.remove_file(single(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()),
        }
    }

    /// Makes the folder `name` for everybody to look into.
    pub fn make_folder(&self, name: &str, mode: u32) -> io::Result<()> {
        sys::mkdirat(&self.0, single(name)?, Mode::from_raw_mode(0o700))?;
        let inner = self.folder(name)?;
        sys::fchmod(&inner.0, Mode::from_raw_mode(mode))?;
        inner.sync()?;
        self.sync()
    }

    /// Removes the folder `name` if there is nothing in it; says whether it is gone.
    pub fn remove_folder(&self, name: &str) -> io::Result<bool> {
        use rustix::io::Errno;
        match sys::unlinkat(&self.0, single(name)?, AtFlags::REMOVEDIR) {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of what `is_meant` in the folder, those that are UTF-8.
    pub fn names(&self, is_meant: fn(&FileType) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.entries()? {
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

    fn sync(&self) -> io::Result<()> {
        Ok(sys::fsync(&self.0)?)
    }

    /// Gives `to` the SELinux label of the file `from`, if there are such things here.
    fn copy_label(&self, from: &str, to: &File) -> io::Result<()> {
        use rustix::io::Errno;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = match sys::openat(&self.0, single(from)?, flags, Mode::empty()) {
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
        match sys::fsetxattr(to, LABEL, &label[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
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

/// Owner first: changing it takes set-user-id bits away.
fn put_meta(file: &File, wanted: Meta) -> io::Result<()> {
    let Meta { mode, uid, gid } = wanted;
    let is = meta_of(file)?;
    if (is.uid, is.gid) != (uid, gid) {
        sys::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(sys::fchmod(file, Mode::from_raw_mode(mode))?)
}
