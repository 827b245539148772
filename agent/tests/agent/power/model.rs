//! A file system that may lose its power: what is on its disk for sure, and what may be.
//!
//! The bound. A file that was changed and not synced is found as it was synced last, as it is, with
//! its new content under its old permissions, empty, or with the first half of what was written. One that
//! was only written over is found with either half of that instead, and the other half as it was.
//! Of the names in folders that were made, changed or taken away and not synced, each subset is
//! found; where that makes more than [`MOST`] trees, those in which all or all but one are found as
//! they are, or none or only one, and those that a journal in the order of time leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::app::Run;

/// A file or a folder, whatever its name.
pub type Id = usize;

/// The folder that holds the roots.
pub const TOP: Id = 0;
/// The most trees for one point in time that are all looked at.
const MOST: usize = 128;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Create {
        folder: Id,
        name: String,
        id: Id,
    },
    MakeFolder {
        folder: Id,
        name: String,
        id: Id,
        mode: u32,
    },
    Truncate(Id),
    Write(Id, Vec<u8>),
    WriteOver(Id, Vec<u8>),
    Mode(Id, u32),
    Rename {
        folder: Id,
        from: String,
        to: String,
    },
    /// Of a file or of an empty folder.
    Remove {
        folder: Id,
        name: String,
    },
    Sync(Id),
    /// Of a file, but for its permissions.
    SyncContent(Id),
    /// Everything under a root, its own name included.
    SyncAll(Id),
    /// Nothing for the disk: somebody was told something.
    Said(Said),
}

impl Op {
    /// The file that this makes.
    pub fn makes(&self) -> Option<Id> {
        match self {
            Self::Create { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The file or folder that this does something to, whatever its name.
    pub fn changes(&self) -> Option<Id> {
        match self {
            Self::Truncate(id)
            | Self::Write(id, _)
            | Self::WriteOver(id, _)
            | Self::Mode(id, _)
            | Self::Sync(id)
            | Self::SyncContent(id) => Some(*id),
            _ => None,
        }
    }
}

/// What somebody was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The step with this number is done, or is not going to be.
    Step(usize),
    /// This report of it was made.
    Report(usize),
    /// An operator of this epoch was admitted.
    Epoch(u64),
    /// The unit runs like this from now on.
    Runs(Run),
    /// A program was started as this unit.
    Started(String),
    /// It is written down how that ended.
    Over(String),
    /// An operator has reached the node through this table.
    Reached(String),
    /// The kernel has this table from now on.
    Loaded(Option<String>),
}

/// What an id stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inode {
    File {
        content: Vec<u8>,
        mode: u32,
    },
    Folder {
        names: BTreeMap<String, Id>,
        mode: u32,
    },
}

/// What a name stands for after a power cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leaf {
    File { content: Vec<u8>, mode: u32 },
    Folder { mode: u32 },
}

/// All that is there after a power cut, by path.
pub type Tree = BTreeMap<String, Leaf>;

/// A change of names in a folder that is not safe yet.
#[derive(Clone, Debug)]
enum Change {
    Put(String, Id),
    Take(String, Id),
    Move(String, String, Id),
}

/// The file system at one point in time.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What every program sees.
    now: BTreeMap<Id, Inode>,
    /// What was synced last.
    safe: BTreeMap<Id, Inode>,
    /// What was changed since, in the order of time.
    changes: Vec<(Id, Change)>,
    /// Files that were changed since.
    dirty: BTreeSet<Id>,
    /// Those of them of which nothing is left of what was there.
    anew: BTreeSet<Id>,
    /// Which root each is under.
    root: BTreeMap<Id, Id>,
}

/// How a dirty file is found.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Synced,
    AsIs,
    OldMode,
    /// Or with its second half alone, where it was written over.
    Empty,
    Half,
}

const FOUND: [Found; 5] = [
    Found::AsIs,
    Found::Synced,
    Found::Half,
    Found::Empty,
    Found::OldMode,
];

impl Disk {
    /// Adds what is there from the start, safe on disk.
    pub fn with(&mut self, id: Id, root: Id, inode: Inode) {
        self.now.insert(id, inode.clone());
        self.safe.insert(id, inode);
        self.root.insert(id, root);
    }

    /// Has the name of a root not be safe.
    pub fn unsafe_root(&mut self, name: &str) {
        if let Some(Inode::Folder { names, .. }) = self.safe.get_mut(&TOP)
            && let Some(id) = names.remove(name)
        {
            self.changes.push((TOP, Change::Put(name.to_owned(), id)));
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { folder, name, id } => {
                let inode = Inode::File {
                    content: Vec::new(),
                    mode: 0o600,
                };
                self.put(*folder, name, *id, inode);
            }
            Op::MakeFolder {
                folder,
                name,
                id,
                mode,
            } => {
                let inode = Inode::Folder {
                    names: BTreeMap::new(),
                    mode: *mode,
                };
                self.put(*folder, name, *id, inode);
            }
            Op::Truncate(id) => {
                self.content(*id, Vec::clear);
                self.anew.insert(*id);
            }
            Op::Write(id, more) => self.content(*id, |content| content.extend(more)),
            Op::WriteOver(id, new) => self.content(*id, |content| {
                let rest = content.get(new.len()..).unwrap_or_default();
                *content = [new, rest].concat();
            }),
            Op::Mode(id, new) => {
                if let Some(Inode::File { mode, .. }) = self.now.get_mut(id) {
                    *mode = *new;
                }
                self.dirty.insert(*id);
            }
            Op::Rename { folder, from, to } => {
                // Where the making of it was left out there is nothing to rename.
                if let Some(id) = self.names(*folder).remove(from) {
                    self.names(*folder).insert(to.clone(), id);
                    let change = Change::Move(from.clone(), to.clone(), id);
                    self.changes.push((*folder, change));
                }
            }
            Op::Remove { folder, name } => {
                if let Some(id) = self.names(*folder).remove(name) {
                    self.changes.push((*folder, Change::Take(name.clone(), id)));
                }
            }
            Op::Sync(id) => self.sync(*id),
            Op::SyncContent(id) => self.sync_content(*id),
            Op::SyncAll(root) => {
                let all = self.root.iter().filter(|(_, under)| *under == root);
                for id in all.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.sync(id);
                }
                let own = |change: &Change| matches!(change, Change::Put(_, id) if id == root);
                self.changes
                    .retain(|(folder, change)| *folder != TOP || !own(change));
                let names = self.names(TOP).clone();
                if let Some(Inode::Folder { names: safe, .. }) = self.safe.get_mut(&TOP) {
                    safe.extend(names.into_iter().filter(|(_, id)| id == root));
                }
            }
            Op::Said(_) => {}
        }
    }

    fn names(&mut self, folder: Id) -> &mut BTreeMap<String, Id> {
        match self.now.get_mut(&folder) {
            Some(Inode::Folder { names, .. }) => names,
            other => unreachable!("{folder} is no folder: {other:?}"),
        }
    }

    fn put(&mut self, folder: Id, name: &str, id: Id, inode: Inode) {
        let root = self.root[&folder];
        self.with(id, root, inode);
        self.names(folder).insert(name.to_owned(), id);
        self.changes
            .push((folder, Change::Put(name.to_owned(), id)));
    }

    fn content(&mut self, id: Id, change: impl FnOnce(&mut Vec<u8>)) {
        match self.now.get_mut(&id) {
            Some(Inode::File { content, .. }) => change(content),
            other => unreachable!("{id} is no file: {other:?}"),
        }
        self.dirty.insert(id);
    }

    fn sync(&mut self, id: Id) {
        self.safe.insert(id, self.now[&id].clone());
        self.dirty.remove(&id);
        self.anew.remove(&id);
        self.changes.retain(|(folder, _)| *folder != id);
    }

    fn sync_content(&mut self, id: Id) {
        let before = self.safe[&id].clone();
        self.sync(id);
        if let (Inode::File { mode, .. }, Some(Inode::File { mode: safe, .. })) =
            (before, self.safe.get_mut(&id))
            && mode != *safe
        {
            *safe = mode;
            self.dirty.insert(id);
        }
    }

    /// What every program sees.
    pub fn seen(&self) -> Tree {
        self.tree(&vec![true; self.changes.len()], &|_| Found::AsIs)
    }

    /// What was synced and no more.
    pub fn synced(&self) -> Tree {
        self.tree(&vec![false; self.changes.len()], &|_| Found::Synced)
    }

    /// Everything that every program sees, by path.
    pub fn paths(&self) -> BTreeMap<String, Id> {
        fn walk(disk: &Disk, folder: Id, path: &str, paths: &mut BTreeMap<String, Id>) {
            let Inode::Folder { names, .. } = &disk.now[&folder] else {
                return;
            };
            for (name, id) in names {
                let path = format!("{path}/{name}");
                walk(disk, *id, &path, paths);
                paths.insert(path, *id);
            }
        }
        let mut paths = BTreeMap::new();
        walk(self, TOP, "", &mut paths);
        paths
    }

    /// One that nothing has had yet.
    pub fn next_id(&self) -> Id {
        self.now.keys().max().map_or(TOP, |id| id + 1)
    }

    /// Every tree that a power cut may leave now.
    pub fn after_power_cut(&self) -> BTreeSet<Tree> {
        let count = self.changes.len();
        let dirty: Vec<_> = self.dirty.iter().copied().collect();
        let mut subsets: Vec<Vec<bool>> = Vec::new();
        let all = 1_usize.checked_shl(u32::try_from(count).unwrap());
        let ways = FOUND.len().pow(u32::try_from(dirty.len().min(4)).unwrap());
        if all.is_some_and(|all| all * ways <= MOST) {
            let all = 0..1_usize << count;
            subsets.extend(all.map(|set| (0..count).map(|bit| set >> bit & 1 == 1).collect()));
        } else {
            for at in 0..count {
                subsets.push((0..count).map(|bit| bit != at).collect());
                subsets.push((0..count).map(|bit| bit == at).collect());
                subsets.push((0..count).map(|bit| bit < at).collect());
            }
            subsets.push(vec![true; count]);
            subsets.push(vec![false; count]);
        }
        let mut trees = BTreeSet::new();
        for subset in subsets {
            for found in FOUND {
                trees.insert(self.tree(&subset, &|_| found));
                for odd in &dirty {
                    let one = |id| if id == *odd { found } else { Found::AsIs };
                    trees.insert(self.tree(&subset, &one));
                }
            }
        }
        trees
    }

    fn tree(&self, subset: &[bool], found: &dyn Fn(Id) -> Found) -> Tree {
        let mut folders: BTreeMap<Id, BTreeMap<String, Id>> = BTreeMap::new();
        for (id, inode) in &self.safe {
            if let Inode::Folder { names, .. } = inode {
                folders.insert(*id, names.clone());
            }
        }
        let found_changes = self.changes.iter().zip(subset).filter(|(_, is)| **is);
        for ((folder, change), _) in found_changes {
            let names = folders.get_mut(folder).unwrap();
            match change {
                Change::Put(name, id) => _ = names.insert(name.clone(), *id),
                Change::Take(name, id) => {
                    if names.get(name) == Some(id) {
                        names.remove(name);
                    }
                }
                Change::Move(from, to, id) => {
                    if names.get(from) == Some(id) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *id);
                }
            }
        }
        let mut tree = Tree::new();
        self.walk(TOP, "", &folders, found, &mut tree);
        tree
    }

    fn walk(
        &self,
        folder: Id,
        path: &str,
        folders: &BTreeMap<Id, BTreeMap<String, Id>>,
        found: &dyn Fn(Id) -> Found,
        tree: &mut Tree,
    ) {
        for (name, id) in &folders[&folder] {
            let path = format!("{path}/{name}");
            let how = if self.dirty.contains(id) {
                found(*id)
            } else {
                Found::AsIs
            };
            let leaf = match (&self.safe[id], &self.now[id]) {
                (Inode::Folder { .. }, Inode::Folder { mode, .. }) => {
                    self.walk(*id, &path, folders, found, tree);
                    Leaf::Folder { mode: *mode }
                }
                (
                    Inode::File {
                        content: old,
                        mode: safe,
                    },
                    Inode::File { content, mode },
                ) => {
                    // Nothing of it is left, or there was none.
                    let is_anew = self.anew.contains(id) || old.is_empty();
                    let left = if is_anew { &[][..] } else { old };
                    // Of what was written, and not of what only fills the file.
                    let written = content.trim_ascii_end().len();
                    let half = if written == 0 { content.len() } else { written } / 2;
                    let end = |of: &[u8]| of.get(half..).unwrap_or_default().to_vec();
                    let begin = |of: &[u8]| of[..half.min(of.len())].to_vec();
                    match how {
                        Found::AsIs => file(content, *mode),
                        Found::Synced => file(old, *safe),
                        Found::OldMode => file(content, *safe),
                        Found::Half => file(&[begin(content), end(left)].concat(), *mode),
                        Found::Empty if is_anew => file(&[], *mode),
                        Found::Empty => file(&[begin(old), end(content)].concat(), *mode),
                    }
                }
                other => unreachable!("{path} changed its kind: {other:?}"),
            };
            tree.insert(path, leaf);
        }
    }
}

fn file(content: &[u8], mode: u32) -> Leaf {
    Leaf::File {
        content: content.to_vec(),
        mode,
    }
}
