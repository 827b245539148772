//! What the kernel runs with, as if it were files of the host: `/proc/sys`, and Edict's own table of
//! nftables. Both are asked and set through the host's systemd. The agent's own are no help: they are those of
//! the network of its pod.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edict_core::config::firewall::{GONE, TABLE};
use edict_core::config::sysctl::ROOT;
use edict_core::resource::{Owner, is_under};

use super::{Entry, Found, Host, Meta, Seen, Staged, View, Whole};
use crate::units::{Manager, Units};

/// Who may write to such a file.
const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
};

/// A host with what its kernel runs with.
pub struct Live {
    etc: Box<dyn Host>,
    manager: Manager,
}

/// Whether it is a setting of the kernel, or Edict's table.
pub fn is_setting(path: &str) -> bool {
    is_under(path, ROOT) || is_table(path)
}

/// Whether it is Edict's table.
pub fn is_table(path: &str) -> bool {
    path == TABLE
}

/// Whether it is one, or a folder above some.
fn is_above(path: &str) -> bool {
    let above = |place: &str| path == place || is_under(place, path);
    is_setting(path) || above(ROOT) || above(TABLE)
}

impl Live {
    /// `etc`, with the kernel's settings where `manager` can be asked.
    pub fn over(etc: Box<dyn Host>, manager: Manager) -> Self {
        Self { etc, manager }
    }

    fn units(&self) -> io::Result<&dyn Units> {
        let out_of_reach = || {
            let why = "systemd is out of reach, and with it what the kernel runs with: let the Fleet's spec.restarts be Allowed";
            io::Error::other(why)
        };
        self.manager.units().ok_or_else(out_of_reach)
    }

    /// Edict's table, as the script that it was loaded from.
    fn table(&self) -> io::Result<Seen> {
        let script = self.units()?.table().map_err(io::Error::other)?;
        let script = script.map(|script| script.trim_end().to_owned());
        Ok(seen(script.as_ref()))
    }

    fn values(&self, paths: &[&str]) -> io::Result<BTreeMap<String, String>> {
        self.units()?.settings(paths).map_err(io::Error::other)
    }
}

/// What is said of a setting that is not there.
pub fn missing() -> io::Error {
    let what =
        "this node's kernel has no such setting: leave it out, or have its module loaded first";
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// A setting is always written over in its place.
fn seen(value: Option<&String>) -> Seen {
    let whole = value.map(|value| Whole {
        content: format!("{value}\n").into_bytes(),
        meta: META,
    });
    Seen {
        found: whole.map_or(Found::Absent, Found::File),
        missing: Vec::new(),
        mount_point: true,
    }
}

impl View for Live {
    fn entry(&self, path: &str) -> io::Result<Entry> {
        if is_above(path) {
            return Ok(Entry::Folder);
        }
        self.etc.entry(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        if is_above(path) {
            return Ok(Vec::new());
        }
        self.etc.list(path)
    }

    fn look(&self, path: &str) -> io::Result<Seen> {
        if is_table(path) {
            return self.table();
        }
        if is_setting(path) {
            return Ok(seen(self.values(&[path])?.get(path)));
        }
        self.etc.look(path)
    }

    /// All settings are asked for at once.
    fn look_all(&self, paths: &BTreeSet<String>) -> BTreeMap<String, io::Result<Seen>> {
        let asked = |path: &&String| is_setting(path) && !is_table(path);
        let settings: Vec<_> = paths.iter().filter(asked).map(String::as_str).collect();
        let values = if settings.is_empty() {
            Ok(BTreeMap::new())
        } else {
            self.values(&settings)
        };
        let look = |path: &String| {
            let seen = match &values {
                _ if !asked(&path) => self.look(path),
                Ok(values) => Ok(seen(values.get(path))),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            (path.clone(), seen)
        };
        paths.iter().map(look).collect()
    }

    fn is_live(&self) -> bool {
        self.manager.units().is_some()
    }
}

impl Host for Live {
    fn owner(&self) -> Owner {
        self.etc.owner()
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.etc.make_folder(path)
    }

    fn remove_folder(&self, path: &str) -> io::Result<bool> {
        self.etc.remove_folder(path)
    }

    fn stage(&self, path: &str, whole: &Whole) -> io::Result<Staged> {
        self.etc.stage(path, whole)
    }

    fn publish(&self, staged: &Staged) -> io::Result<()> {
        self.etc.publish(staged)
    }

    fn discard(&self, staged: &Staged) -> io::Result<()> {
        self.etc.discard(staged)
    }

    /// What the kernel has afterwards is what was meant, or it is an error.
    fn overwrite(&self, path: &str, whole: &Whole) -> io::Result<()> {
        if !is_setting(path) {
            return self.etc.overwrite(path, whole);
        }
        let text = String::from_utf8_lossy(&whole.content);
        let value = text.trim_end();
        if is_table(path) {
            return self.units()?.load(&text).map_err(io::Error::other);
        }
        self.units()?.set(path, value).map_err(io::Error::other)?;
        match self.values(&[path])?.get(path) {
            None => Err(missing()),
            Some(now) if now == value => Ok(()),
            Some(now) => Err(io::Error::other(format!(
                "the kernel has made {now} of {value}: give a value that it takes as it is"
            ))),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if is_table(path) {
            return self.units()?.load(GONE).map_err(io::Error::other);
        }
        if is_setting(path) {
            // Nobody makes or removes one; it was not there when it was looked at.
            return Ok(());
        }
        self.etc.remove(path)
    }

    fn sweep(&self, path: &str) -> io::Result<()> {
        if is_above(path) {
            return Ok(());
        }
        self.etc.sweep(path)
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        if is_above(path) {
            return Ok(());
        }
        self.etc.sync(path)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.etc.sync_all()
    }
}
