//! Resources: the tiny instruction set that every kind of configuration is rendered to. Nothing
//! else ever touches a host.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::Format;
use crate::setting::Setting;

/// One thing that a layer wants of a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A whole file.
    File(File),
    /// Some keys of a file that others write to as well.
    Keys(Keys),
    /// A value that the kernel runs with.
    Live(Live),
    /// A systemd unit that reads some of these files.
    Unit(Unit),
    /// What another file has to say so that these files are read at all.
    Setting(Setting),
}

impl Resource {
    /// A file of its own that says `text`.
    pub fn text(path: &str, text: String) -> Self {
        Self::File(File::text(path, text))
    }

    /// These keys, if there are any.
    pub fn of_keys(keys: Keys) -> Vec<Self> {
        let given = (!keys.values.is_empty()).then_some(Self::Keys(keys));
        given.into_iter().collect()
    }
}

/// A whole file that Edict owns.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path on the host.
    pub path: String,
    /// All of its bytes.
    pub content: Vec<u8>,
    /// Permission bits, `0o644` for instance; `None` keeps those of an existing file and gives a
    /// new one `0o644`.
    pub mode: Option<u32>,
    /// Owner; `None` keeps that of an existing file and gives a new one to root.
    pub owner: Option<Owner>,
    /// Whether some of it comes from a Secret: then it is never shown.
    pub secret: bool,
}

impl File {
    /// One that says `text`, and has the permissions and the owner that such a file has.
    pub fn text(path: &str, text: String) -> Self {
        Self {
            path: path.to_owned(),
            content: text.into_bytes(),
            mode: None,
            owner: None,
            secret: false,
        }
    }
}

/// Contents are never shown, not even by accident.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("size", &self.content.len())
            .field("mode", &self.mode)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Numeric owner and group of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Keys that Edict owns in a file that others write to as well.
#[derive(Clone, PartialEq)]
pub struct Keys {
    /// Absolute path on the host.
    pub path: String,
    /// How the file is written.
    pub format: Format,
    /// The owned keys and their values.
    pub values: BTreeMap<KeyPath, Value>,
    /// Where the file may be instead: the first of these that a host has is meant, and `path` where it
    /// has none.
    pub elsewhere: &'static [&'static str],
}

/// Values are never shown, not even by accident.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("path", &self.path)
            .field("keys", &self.values.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A key in a structured file: the names to follow from the top.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyPath(pub Vec<String>);

impl KeyPath {
    /// A key at the top of the file.
    pub fn top(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// Whether one of the two contains the other (or they are equal): then they cannot have two
    /// owners.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A value that the kernel runs with, beside the file that it has it from when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Where it is: a path under `/proc/sys`.
    pub path: String,
    /// The value, with one blank between words.
    pub value: String,
    /// Who sets it where the agent can't.
    pub otherwise: Unit,
}

impl Live {
    /// The value as the file that it looks like.
    pub fn file(&self) -> File {
        File::text(&self.path, format!("{}\n", self.value))
    }
}

/// A systemd unit that has to be told when what it reads has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name, `docker.service` for instance.
    pub name: String,
    /// The least that makes the change live.
    pub action: Action,
    /// The least that makes it live that something it reads is there no more.
    pub gone: Action,
    /// What it reads of what the layer says.
    pub reads: Vec<Place>,
}

impl Unit {
    /// One that is restarted whenever one of these files changes.
    pub fn restarted(name: &str, files: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            action: Action::Restart,
            gone: Action::Restart,
            reads: files.iter().map(|path| Place::file(path)).collect(),
        }
    }
}

/// A file, or one key in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Absolute path on the host.
    pub path: String,
    /// The key; `None` where the whole file is meant.
    pub key: Option<KeyPath>,
}

impl Place {
    /// A whole file.
    pub fn file(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            key: None,
        }
    }

    /// A key in a file.
    pub fn key(path: &str, key: &KeyPath) -> Self {
        Self {
            path: path.to_owned(),
            key: Some(key.clone()),
        }
    }

    /// Whether a change of the one is a change of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let keys = self.key.as_ref().zip(other.key.as_ref());
        self.path == other.path && keys.is_none_or(|(one, two)| one.overlaps(two))
    }
}

/// What makes a changed file live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// systemd rereads what the unit is to be like, and the unit runs on.
    Reread,
    /// The unit rereads its configuration while it runs.
    Reload,
    /// The unit has to be started anew.
    Restart,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reread => "daemon-reload",
            Self::Reload => "reload",
            Self::Restart => "restart",
        })
    }
}

/// Whether `inner` lies under the folder `outer`.
pub fn is_under(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_overlap_when_one_contains_the_other() {
        let key = |parts: &[&str]| KeyPath(parts.iter().map(ToString::to_string).collect());
        for (a, b, expected) in [
            (&["a"][..], &["a"][..], true),
            (&["a"], &["a", "b"], true),
            (&["a", "b"], &["a"], true),
            (&["a", "b"], &["a", "c"], false),
            (&["a"], &["b"], false),
        ] {
            assert_eq!(key(a).overlaps(&key(b)), expected, "{a:?} {b:?}");
        }
        assert_eq!(key(&["a", "b"]).to_string(), "a.b");
    }

    #[test]
    fn a_place_is_a_file_with_all_of_its_keys() {
        let key = |name| Place::key("/etc/a", &KeyPath::top(name));
        let file = Place::file("/etc/a");
        assert!(file.overlaps(&file) && file.overlaps(&key("x")) && key("x").overlaps(&file));
        assert!(key("x").overlaps(&key("x")) && !key("x").overlaps(&key("y")));
        assert!(!file.overlaps(&Place::file("/etc/b")));
    }

    #[test]
    fn a_file_shows_its_size_and_not_its_content() {
        let file = File {
            path: "/etc/motd".to_owned(),
            content: b"secret".to_vec(),
            mode: Some(0o600),
            owner: None,
            secret: true,
        };
        assert_eq!(
            format!("{file:?}"),
            "File { path: \"/etc/motd\", size: 6, mode: Some(384), owner: None, .. }"
        );
    }

    #[test]
    fn under_means_strictly_inside() {
        assert!(is_under("/etc/a/b", "/etc/a"));
        assert!(!is_under("/etc/a", "/etc/a"));
        assert!(!is_under("/etc/a/", "/etc/a"));
        assert!(!is_under("/etc/ab", "/etc/a"));
    }
}
