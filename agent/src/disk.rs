//! What changes a file system, one operation at a time: a trait, so that tests can stand between
//! the agent and the disk, and the real one, [`Linux`].
//!
//! Every change that the agent makes to a host or to its own state folder goes through here, and
//! nothing else does: looking changes nothing.
//!
//! # Assumptions
//!
//! What POSIX promises and no more: a file's content and permissions are safe after [`Disk::sync`]
//! of the file, and its name after [`Disk::sync`] of the folder; content alone is safe after
//! [`Disk::sync_content`] too. Before that a power cut leaves them as they were, as they are or, for
//! content, anything between. A rename is done or not done.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self as sys, AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};

use crate::host::Meta;

/// Where SELinux keeps a file's label.
pub const LABEL: &str = "security.selinux";

/// What changes a file system. Folders are open handles, names are single ones, and no symlink is
/// followed.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// Makes the file `name`, for its owner alone; it is not there yet.
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<File>;
    /// Takes all content away.
    fn truncate(&self, file: &File) -> io::Result<()>;
    /// Writes all of `content` behind what was written before.
    fn write(&self, file: &File, content: &[u8]) -> io::Result<()>;
    /// Writes `content` over the beginning of the file, which gets longer where it has to and never shorter.
    fn write_over(&self, file: &File, content: &[u8]) -> io::Result<()>;
    /// Gives the file its permissions and owner. Writing takes set-uid bits away, so this is last.
    fn set_meta(&self, file: &File, meta: Meta) -> io::Result<()>;
    /// Gives the file its SELinux label.
    fn set_label(&self, file: &File, label: &[u8]) -> io::Result<()>;
    /// Makes a file, or the names in a folder, safe on disk.
    fn sync(&self, handle: BorrowedFd<'_>) -> io::Result<()>;
    /// Makes a file's content safe on disk. Where its length is what it was, that is no more than to write the
    /// content: nothing of the file system's own has to change.
    fn sync_content(&self, file: &File) -> io::Result<()>;
    /// Makes everything of the file system that `handle` is on safe on disk.
    fn sync_all(&self, handle: BorrowedFd<'_>) -> io::Result<()>;
    /// Gives the file `from` the name `to`, in place of what has that name.
    fn rename(&self, folder: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()>;
    /// Takes the file `name` away.
    fn remove(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()>;
    /// Makes the folder `name` with these permissions, in one step, less what the process's umask
    /// takes away; it is not there yet.
    fn make_folder(&self, folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()>;
    /// Takes the folder `name` away; there is nothing in it.
    fn remove_folder(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()>;
}

/// The disk itself.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Disk for Linux {
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let handle = sys::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(handle))
    }

    fn truncate(&self, file: &File) -> io::Result<()> {
        file.set_len(0)
    }

    fn write(&self, mut file: &File, content: &[u8]) -> io::Result<()> {
        file.write_all(content)
    }

    fn write_over(&self, file: &File, content: &[u8]) -> io::Result<()> {
        file.write_all_at(content, 0)
    }

    fn set_meta(&self, file: &File, meta: Meta) -> io::Result<()> {
        let Meta { mode, uid, gid } = meta;
        let is = sys::fstat(file)?;
        // Owner first: changing it takes set-user-id bits away.
        if (is.st_uid, is.st_gid) != (uid, gid) {
            sys::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(sys::fchmod(file, Mode::from_raw_mode(mode))?)
    }

    fn set_label(&self, file: &File, label: &[u8]) -> io::Result<()> {
        Ok(sys::fsetxattr(file, LABEL, label, XattrFlags::empty())?)
    }

    fn sync(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        Ok(sys::fsync(handle)?)
    }

    fn sync_content(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        Ok(sys::syncfs(handle)?)
    }

    fn rename(&self, folder: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
        Ok(sys::renameat(folder, from, folder, to)?)
    }

    fn remove(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        Ok(sys::unlinkat(folder, name, AtFlags::empty())?)
    }

    fn make_folder(&self, folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        Ok(sys::mkdirat(folder, name, Mode::from_raw_mode(mode))?)
    }

    fn remove_folder(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        Ok(sys::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
    }
}
