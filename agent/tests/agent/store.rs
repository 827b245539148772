//! The state folder on a disk that says that something failed, and has done it all the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edict_agent::disk::{Disk, Linux};
use edict_agent::host::Meta;
use edict_agent::state::{InForce, State};
use edict_core::wire::Fence;

use crate::node::{Say as _, unlocked};

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

    fn write_over(&self, file: &File, content: &[u8]) -> io::Result<()> {
        self.said(Linux.write_over(file, content))
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

    fn sync_content(&self, file: &File) -> io::Result<()> {
        self.said(Linux.sync_content(file))
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
    assert!(failed[0] > 3 && failed[1] > 1, "{failed:?}");
}

/// What is left of a file where nothing is to be found.
fn is_blank(path: &Path) -> bool {
    let content = std::fs::read(path).unwrap_or_default();
    content.iter().all(|byte| *byte == b'\n')
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
    assert!(!is_blank(&journal));
    drop(store);
    assert_eq!(open().load().unwrap(), state(1, true));
    let store = open();
    store.save(&state(2, false)).unwrap();
    assert!(is_blank(&journal));
    drop(store);
    // As a power cut may bring it back.
    std::fs::write(&journal, kept).unwrap();
    let store = open();
    assert_eq!(store.load().unwrap(), state(2, false));
    assert!(is_blank(&journal));
}

/// A state that has become small does not keep the room of a large one, nor is any of it left.
#[test]
fn what_a_large_state_took_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let open = || unlocked(|| edict_agent::state::Store::open(folder.path())).unwrap();
    let length = |name| {
        let metadata = std::fs::metadata(folder.path().join(name));
        metadata.map_or(0, |metadata| metadata.len())
    };
    let large = |open| {
        let file = crate::node::layer("a").file("/etc/motd", &"secret".repeat(500_000));
        let held = InForce {
            layer: file,
            paths: BTreeMap::new(),
        };
        State {
            layers: [("a".to_owned(), held)].into(),
            ..state(0, open)
        }
    };
    let store = open();
    for _ in 0..2 {
        store.save(&large(true)).unwrap();
        store.save(&large(false)).unwrap();
    }
    assert!(length("state.json") > 3_000_000);
    assert_eq!(length("journal.json"), 0);
    for number in 1..3 {
        store.save(&state(number, true)).unwrap();
        store.save(&state(number, false)).unwrap();
    }
    for name in ["state.json", "journal.json"] {
        assert_eq!(length(name), 4096, "{name}");
    }
    drop(store);
    assert_eq!(open().load().unwrap(), state(2, false));
}

/// It does not say whether all of it is there, so a page of it beside a page of another one might pass for a whole.
#[test]
fn what_an_older_agent_wrote_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let open = || unlocked(|| edict_agent::state::Store::open(folder.path())).unwrap();
    let path = folder.path().join("state.json");
    let old = serde_json::to_vec(&state(1, false)).unwrap();
    drop(open());
    std::fs::write(&path, &old).unwrap();
    let kept = folder.path().join("kept");
    std::fs::hard_link(&path, &kept).unwrap();
    let store = open();
    assert_eq!(store.load().unwrap(), state(1, false));
    store.save(&state(2, true)).unwrap();
    store.save(&state(3, false)).unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), old);
    drop(store);
    assert_eq!(open().load().unwrap(), state(3, false));
}
