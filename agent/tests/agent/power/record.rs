//! A disk that writes down everything that is done to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use edict_agent::disk::{self, Linux};
use edict_agent::host::Meta;

use super::model::{Disk, Id, Inode, Op, TOP};

/// Does what it is told, but never waits for the real disk.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Record>);

/// What was done.
#[derive(Debug, Default)]
pub struct Record {
    /// Whether anybody wants to know.
    on: bool,
    pub ops: Vec<Op>,
    /// The number of the operation that fails for want of space.
    pub full_at: Option<usize>,
    /// And all after it fail too.
    pub stays_full: bool,
    /// The process is killed before the first operation that has this number or a higher one.
    pub kill_at: Option<usize>,
    ids: BTreeMap<u64, Id>,
    next: Id,
}

impl Recorder {
    /// One that forgets at once.
    pub fn quiet() -> Arc<Self> {
        Arc::default()
    }

    /// One that knows what is under `roots`, and that as a disk on which all of it is safe.
    pub fn over(base: &Path, roots: &[&str]) -> (Arc<Self>, Disk) {
        let mut record = Record {
            on: true,
            next: TOP + 1,
            ..Record::default()
        };
        let mut disk = Disk::default();
        let mut names = BTreeMap::new();
        for root in roots {
            let id = record.next;
            record.walk(&base.join(root), id, &mut disk);
            names.insert((*root).to_owned(), id);
        }
        disk.with(TOP, TOP, Inode::Folder { names, mode: 0o755 });
        (Arc::new(Self(Mutex::new(record))), disk)
    }

    /// One that knows what is under `base`, which is what every program sees of `disk`.
    pub fn resume(base: &Path, disk: &Disk) -> Arc<Self> {
        let mut record = Record {
            on: true,
            next: disk.next_id(),
            ..Record::default()
        };
        for (path, id) in disk.paths() {
            let stat = base.join(path.trim_start_matches('/')).symlink_metadata();
            record.ids.insert(stat.unwrap().ino(), id);
        }
        Arc::new(Self(Mutex::new(record)))
    }

    /// What was recorded, while nothing is done.
    pub fn with<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// Records an operation, if it succeeds.
    fn done<T>(
        &self,
        work: impl FnOnce() -> io::Result<T>,
        op: impl FnOnce(&mut Record, &T) -> Op,
    ) -> io::Result<T> {
        let mut record = self.0.lock().unwrap();
        if record.full_at == Some(record.ops.len()) {
            if !record.stays_full {
                record.full_at = None;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        if record.kill_at.is_some_and(|at| at <= record.ops.len()) {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
        let value = work()?;
        if record.on {
            let op = op(&mut record, &value);
            record.ops.push(op);
        }
        Ok(value)
    }
}

impl Record {
    fn walk(&mut self, path: &Path, root: Id, disk: &mut Disk) -> Id {
        let stat = path.symlink_metadata().unwrap();
        let id = self.new_id(stat.ino());
        let mode = stat.mode() & 0o7777;
        let inode = if stat.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let inner = self.walk(&path.join(&name), root, disk);
                names.insert(name, inner);
            }
            Inode::Folder { names, mode }
        } else {
            let content = fs::read(path).unwrap();
            Inode::File { content, mode }
        };
        disk.with(id, root, inode);
        id
    }

    fn new_id(&mut self, ino: u64) -> Id {
        let id = self.next;
        self.next += 1;
        self.ids.insert(ino, id);
        id
    }

    fn id(&self, handle: BorrowedFd<'_>) -> Id {
        self.ids[&rustix::fs::fstat(handle).unwrap().st_ino]
    }
}

impl disk::Disk for Recorder {
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        self.done(
            || Linux.create(folder, name),
            |record, file| Op::Create {
                folder: record.id(folder),
                name: name.to_owned(),
                id: record.new_id(rustix::fs::fstat(file).unwrap().st_ino),
            },
        )
    }

    fn truncate(&self, file: &File) -> io::Result<()> {
        self.done(
            || Linux.truncate(file),
            |record, ()| Op::Truncate(record.id(file.as_fd())),
        )
    }

    fn write(&self, file: &File, content: &[u8]) -> io::Result<()> {
        self.done(
            || Linux.write(file, content),
            |record, ()| Op::Write(record.id(file.as_fd()), content.to_vec()),
        )
    }

    fn write_over(&self, file: &File, content: &[u8]) -> io::Result<()> {
        self.done(
            || Linux.write_over(file, content),
            |record, ()| Op::WriteOver(record.id(file.as_fd()), content.to_vec()),
        )
    }

    fn set_meta(&self, file: &File, meta: Meta) -> io::Result<()> {
        self.done(
            || Linux.set_meta(file, meta),
            |record, ()| Op::Mode(record.id(file.as_fd()), meta.mode),
        )
    }

    fn set_label(&self, file: &File, label: &[u8]) -> io::Result<()> {
        Linux.set_label(file, label)
    }

    fn sync(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        self.done(|| Ok(()), |record, ()| Op::Sync(record.id(handle)))
    }

    fn sync_content(&self, file: &File) -> io::Result<()> {
        self.done(
            || Ok(()),
            |record, ()| Op::SyncContent(record.id(file.as_fd())),
        )
    }

    fn sync_all(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        self.done(|| Ok(()), |record, ()| Op::SyncAll(record.id(handle)))
    }

    fn rename(&self, folder: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
        self.done(
            || Linux.rename(folder, from, to),
            |record, ()| Op::Rename {
                folder: record.id(folder),
                from: from.to_owned(),
                to: to.to_owned(),
            },
        )
    }

    fn remove(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.done(
            || Linux.remove(folder, name),
            |record, ()| Op::Remove {
                folder: record.id(folder),
                name: name.to_owned(),
            },
        )
    }

    fn make_folder(&self, folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        let flags = rustix::fs::AtFlags::empty();
        self.done(
            || {
                Linux.make_folder(folder, name, mode)?;
                Ok(rustix::fs::statat(folder, name, flags)?)
            },
            |record, made| Op::MakeFolder {
                folder: record.id(folder),
                name: name.to_owned(),
                id: record.new_id(made.st_ino),
                mode: made.st_mode & 0o7777,
            },
        )
        .map(drop)
    }

    fn remove_folder(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.done(
            || Linux.remove_folder(folder, name),
            |record, ()| Op::Remove {
                folder: record.id(folder),
                name: name.to_owned(),
            },
        )
    }
}
