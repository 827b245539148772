//! Where a path leads: symlinks are followed by the agent itself, one name after the other, so that
//! the path that is judged by the guard is the path that is written.

use std::collections::VecDeque;
use std::io;

use edict_core::guard::path::ROOT;

use super::{Entry, View};

/// The kernel's own limit (`path_resolution(7)`).
const HOPS_MAX: usize = 40;

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A symlink to somewhere else.
    #[error(
        "{link} is a symlink that leads out of {ROOT} (to {target}): remove the link, or use a path that stays inside"
    )]
    LeadsOut {
        /// The symlink.
        link: String,
        /// Where it leads.
        target: String,
    },
    /// Symlinks that lead to each other.
    #[error("{0} goes through more than {HOPS_MAX} symlinks: remove the loop")]
    Loop(String),
    /// Something on the way is not a folder.
    #[error("{0} is not a folder, so there can be nothing in it: move it away")]
    NotAFolder(String),
    /// A symlink through a folder that is not there.
    #[error("{0} is a symlink through a folder that does not exist: remove the link")]
    Dangling(String),
    /// The path can't be looked at.
    #[error("{path} can't be looked at: {}", super::explain(.source))]
    Unreadable {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The path that `path` leads to. What does not exist yet is allowed at its end. `path` is
/// absolute, normal and under `/etc`.
///
/// A file on the way for which `yields` holds counts as absent: Edict put it there, and takes it
/// away where something is to be in a folder of that name.
pub fn resolve(
    host: &dyn View,
    path: &str,
    yields: &dyn Fn(&str) -> bool,
) -> Result<String, Error> {
    let mut walk = Walk {
        at: Vec::new(),
        ahead: split(path).collect(),
        link: None,
        missing: false,
    };
    let mut hops = 0;
    while let Some(name) = walk.ahead.pop_front() {
        if name == ".." {
            walk.up()?;
            continue;
        }
        walk.at.push(name);
        if walk.at.len() == 1 {
            // The root handle itself: whatever it is on the host, it is the folder that was opened.
            if walk.path() != ROOT {
                return Err(walk.leads_out());
            }
            continue;
        }
        if walk.missing {
            continue;
        }
        let here = walk.path();
        let entry = host.entry(&here).map_err(|source| Error::Unreadable {
            path: here.clone(),
            source,
        })?;
        match entry {
            Entry::Folder => {}
            Entry::Absent => walk.missing = true,
            Entry::File | Entry::Special if walk.ahead.is_empty() => {}
            Entry::File if yields(&here) => walk.missing = true,
            Entry::File | Entry::Special => return Err(Error::NotAFolder(here)),
            Entry::Link(target) => {
                hops += 1;
                if hops > HOPS_MAX {
                    return Err(Error::Loop(path.to_owned()));
                }
                walk.follow(here, target);
            }
        }
    }
    if walk.at.len() < 2 {
        return Err(walk.leads_out());
    }
    Ok(walk.path())
}

/// The way so far, and the names that are still ahead.
struct Walk {
    at: Vec<String>,
    ahead: VecDeque<String>,
    /// The symlink that was followed last, and where it leads.
    link: Option<(String, String)>,
    /// Whether `at` does not exist.
    missing: bool,
}

impl Walk {
    fn path(&self) -> String {
        format!("/{}", self.at.join("/"))
    }

    fn up(&mut self) -> Result<(), Error> {
        if self.missing {
            return Err(Error::Dangling(self.link_or_path().0));
        }
        self.at.pop();
        Ok(())
    }

    fn follow(&mut self, link: String, target: String) {
        if target.starts_with('/') {
            self.at.clear();
        } else {
            self.at.pop();
        }
        for name in split(&target).rev().collect::<Vec<_>>() {
            self.ahead.push_front(name);
        }
        self.link = Some((link, target));
    }

    fn leads_out(&self) -> Error {
        let (link, target) = self.link_or_path();
        Error::LeadsOut { link, target }
    }

    fn link_or_path(&self) -> (String, String) {
        self.link
            .clone()
            .unwrap_or_else(|| (self.path(), self.path()))
    }
}

/// The names of a path. Empty ones and `.` mean nothing.
fn split(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .map(ToOwned::to_owned)
}
