//! The state folder on a disk that says that something failed, and has done it all the same.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edict_agent::disk::{Disk, Linux};
use edict_agent::host::Meta;
use edict_agent::state::State;
use edict_core::wire::Fence;

use crate::node::unlocked;

/// How many operations are done before one is said to have failed.
#[derive(Clone, Debug, Default)]
struct Doubtful(Arc<AtomicUsize>);

impl Doubtful {
    fn fails_after(&self, operations: usize) {
        self.0.store(operations + 1, Ordering::SeqCst);
    }

    fn said<T>(&self, done: io::Result<T>) -> io::Result<T> {
        let left = self.0.load(Ordering::SeqCst);
        self.0.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 {
            return Err(io::Error::from_raw_os_error(5));
        }
        done
    }
}

impl Disk for Doubtful {
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        self.said(Linux.create(folder, name))
    }

    fn truncate(&self, file: &File) -> io::Result<()> {
        self.said(Linux.truncate(file))
    }

    fn write(&self, file: &File, content: &[u8]) -> io::Result<()> {
        self.said(Linux.write(file, content))
    }

    fn set_meta(&self, file: &File, meta: Meta) -> io::Result<()> {
        self.said(Linux.set_meta(file, meta))
    }

    fn set_label(&self, file: &File, label: &[u8]) -> io::Result<()> {
        self.said(Linux.set_label(file, label))
    }

    fn sync(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        self.said(Linux.sync(handle))
    }

    fn sync_all(&self, handle: BorrowedFd<'_>) -> io::Result<()> {
        self.said(Linux.sync_all(handle))
    }

    fn rename(&self, folder: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
        self.said(Linux.rename(folder, from, to))
    }

    fn remove(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.said(Linux.remove(folder, name))
    }

    fn make_folder(&self, folder: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
        self.said(Linux.make_folder(folder, name, mode))
    }

    fn remove_folder(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.said(Linux.remove_folder(folder, name))
    }
}

fn state(number: u64, open: bool) -> State {
    State {
        fence: Fence {
            epoch: number,
            sequence: 0,
        },
        open,
        ..State::default()
    }
}

/// What is saved after one that failed is what the next agent finds, however far that one came; and one that
/// failed does not count where the one before was begun and not ended.
#[test]
fn what_was_saved_last_counts_whatever_failed_before() {
    let mut failed = [0; 2];
    // Whether the one that fails is the first after a beginning.
    for begun in [false, true] {
        for operations in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let disk = Doubtful::default();
            let open = || {
                unlocked(|| {
                    edict_agent::state::Store::open_on(Arc::new(disk.clone()), folder.path())
                })
            };
            let store = open().unwrap();
            for number in 0..3 {
                store.save(&state(number, false)).unwrap();
            }
            if begun {
                store.save(&state(3, true)).unwrap();
            }
            disk.fails_after(operations);
            let saved = store.save(&state(4, false));
            disk.0.store(0, Ordering::SeqCst);
            failed[usize::from(begun)] += usize::from(saved.is_err());
            if begun && saved.is_err() {
                drop(store);
                assert_eq!(
                    open().unwrap().load().unwrap(),
                    state(3, true),
                    "{operations}"
                );
                continue;
            }
            store.save(&state(5, true)).unwrap();
            drop(store);
            assert_eq!(
                open().unwrap().load().unwrap(),
                state(5, true),
                "{operations}"
            );
        }
    }
    assert!(failed.iter().all(|failed| *failed > 3), "{failed:?}");
}

/// What a journal has that does not count may be secret.
#[test]
fn a_journal_that_does_not_count_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let open = || unlocked(|| edict_agent::state::Store::open(folder.path())).unwrap();
    let journal = folder.path().join("journal.json");
    let store = open();
    store.save(&state(0, false)).unwrap();
    store.save(&state(1, true)).unwrap();
    let kept = std::fs::read(&journal).unwrap();
    drop(store);
    assert_eq!(open().load().unwrap(), state(1, true));
    let store = open();
    store.save(&state(2, false)).unwrap();
    assert_eq!(std::fs::read(&journal).unwrap(), b"");
    drop(store);
    // As a power cut may bring it back.
    std::fs::write(&journal, kept).unwrap();
    let store = open();
    assert_eq!(store.load().unwrap(), state(2, false));
    assert_eq!(std::fs::read(&journal).unwrap(), b"");
}
