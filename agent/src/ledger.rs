//! The ledger: what was there before Edict, so that it can be given back, and what Edict wrote, so
//! that what somebody else changed can be told from it.
//!
//! It belongs to no layer. An original is taken once for a file or key, before Edict's first write.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::digest;
use edict_core::format::Format;
use edict_core::resource::{KeyPath, is_under};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::{Meta, Whole};

/// What Edict has on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Whole files by path.
    pub files: BTreeMap<String, FileEntry>,
    /// Files with owned keys by path.
    pub keys: BTreeMap<String, KeysEntry>,
    /// Folders that Edict made.
    pub folders: BTreeSet<String>,
}

/// A whole file that Edict has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// What was there before.
    pub original: Original,
    /// What Edict wrote: one, or two while a transaction is open.
    pub written: Vec<Stamp>,
}

/// A file with keys that Edict has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysEntry {
    /// How the file is written. An agent from before there were others knows JSON alone.
    #[serde(default, skip_serializing_if = "Format::is_json")]
    pub format: Format,
    /// The whole file as it was before the first key.
    pub original: Original,
    /// Digest of the whole text as Edict wrote it: one, or two while a transaction is open.
    pub written: Vec<String>,
    /// Whether, each time Edict wrote, the file was just what Edict had written before. Then the
    /// original can be given back byte for byte.
    pub pristine: bool,
    /// The keys.
    pub keys: Vec<KeyEntry>,
}

/// A key that Edict has.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyEntry {
    /// Which one.
    pub key: KeyPath,
    /// What it was before.
    pub original: Before,
    /// What Edict wrote: one value, or two while a transaction is open.
    pub written: Vec<Value>,
}

/// Values are never shown, not even by accident.
impl std::fmt::Debug for KeyEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyEntry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The value of a key before Edict. Not an `Option`: that can't be told from `null` in JSON.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Before {
    /// The key was not there.
    Absent,
    /// The key had this value.
    Was(Value),
}

impl Before {
    /// The value, if there was one.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Absent => None,
            Self::Was(value) => Some(value),
        }
    }
}

impl From<Option<Value>> for Before {
    fn from(value: Option<Value>) -> Self {
        value.map_or(Self::Absent, Self::Was)
    }
}

/// A file as it was before Edict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Original {
    /// There was none.
    Absent,
    /// There was one, of which the content is kept.
    Present(Stamp),
}

impl Original {
    /// Of what was found.
    pub fn of(found: Option<&Whole>) -> Self {
        found.map_or(Self::Absent, |whole| Self::Present(Stamp::of(whole)))
    }

    /// Whether `found` is just that.
    pub fn is(&self, found: Option<&Whole>) -> bool {
        *self == Self::of(found)
    }

    /// The digest of the kept content, if there was a file.
    pub fn blob(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Present(stamp) => Some(&stamp.sha256),
        }
    }
}

/// What tells whether a file is still the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// Digest of its content.
    pub sha256: String,
    /// Its permissions and owner.
    #[serde(flatten)]
    pub meta: Meta,
}

impl Stamp {
    /// Of a file.
    pub fn of(whole: &Whole) -> Self {
        Self {
            sha256: digest::of_bytes(&whole.content),
            meta: whole.meta,
        }
    }
}

impl FileEntry {
    /// Whether `found` is what Edict wrote.
    pub fn wrote(&self, found: Option<&Whole>) -> bool {
        found.is_some_and(|whole| self.written.contains(&Stamp::of(whole)))
    }
}

impl KeysEntry {
    /// Whether the text is what Edict wrote.
    pub fn wrote(&self, text: &[u8]) -> bool {
        self.written.contains(&digest::of_bytes(text))
    }

    /// The entry of `key`.
    pub fn key(&self, key: &KeyPath) -> Option<&KeyEntry> {
        self.keys.iter().find(|entry| entry.key == *key)
    }
}

impl Ledger {
    /// Digests of every content that is kept.
    pub fn blobs(&self) -> BTreeSet<&str> {
        let files = self.files.values().map(|entry| &entry.original);
        let keys = self.keys.values().map(|entry| &entry.original);
        files.chain(keys).filter_map(Original::blob).collect()
    }

    /// Every path that Edict has something at.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.files.keys().chain(self.keys.keys())
    }

    /// Takes out the folders that nothing of Edict's is in any more, the deepest first.
    pub fn take_idle_folders(&mut self) -> Vec<String> {
        let busy = |folder: &String| self.paths().any(|path| is_under(path, folder));
        let mut idle: Vec<_> = self.folders.iter().filter(|f| !busy(f)).cloned().collect();
        self.folders.retain(|folder| !idle.contains(folder));
        idle.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
        idle
    }

    /// The ledger while a transaction from `before` to `after` is open: nothing of either is lost,
    /// and what either wrote counts as written by Edict.
    pub fn between(before: &Self, after: &Self) -> Self {
        let mut both = after.clone();
        both.folders.extend(before.folders.iter().cloned());
        for (path, old) in &before.files {
            match both.files.get_mut(path) {
                Some(entry) => join(&mut entry.written, &old.written),
                None => _ = both.files.insert(path.clone(), old.clone()),
            }
        }
        for (path, old) in &before.keys {
            let Some(entry) = both.keys.get_mut(path) else {
                both.keys.insert(path.clone(), old.clone());
                continue;
            };
            join(&mut entry.written, &old.written);
            for old in &old.keys {
                match entry.keys.iter_mut().find(|entry| entry.key == old.key) {
                    Some(entry) => join(&mut entry.written, &old.written),
                    None => entry.keys.push(old.clone()),
                }
            }
        }
        both
    }
}

fn join<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !to.contains(item) {
            to.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(original: Original, written: &[&str]) -> FileEntry {
        let written = written.iter().map(|sha| stamp(sha)).collect();
        FileEntry { original, written }
    }

    fn stamp(sha: &str) -> Stamp {
        let meta = Meta {
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        Stamp {
            sha256: sha.into(),
            meta,
        }
    }

    fn key(name: &str, original: Before, written: &[Value]) -> KeyEntry {
        KeyEntry {
            key: KeyPath::top(name),
            original,
            written: written.to_vec(),
        }
    }

    fn keys(keys: Vec<KeyEntry>, written: &[&str]) -> KeysEntry {
        KeysEntry {
            format: Format::Json,
            original: Original::Absent,
            written: written.iter().map(ToString::to_string).collect(),
            pristine: true,
            keys,
        }
    }

    #[test]
    fn a_value_of_null_is_not_absence() {
        let entry = key("k", Before::Was(Value::Null), &[Value::Null]);
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<KeyEntry>(&text).unwrap(), entry);
        assert!(!format!("{:?}", key("k", Before::Absent, &[json!("secret")])).contains("secret"));
    }

    #[test]
    fn between_two_ledgers_nothing_is_lost() {
        let before = Ledger {
            files: [
                (
                    "/etc/gone".into(),
                    file(Original::Present(stamp("o")), &["1"]),
                ),
                (
                    "/etc/kept".into(),
                    file(Original::Present(stamp("o")), &["1"]),
                ),
            ]
            .into(),
            keys: [
                (
                    "/etc/a".into(),
                    keys(
                        vec![
                            key("x", Before::Absent, &[json!(1)]),
                            key("y", Before::Absent, &[json!(1)]),
                        ],
                        &["1"],
                    ),
                ),
                ("/etc/b".into(), keys(vec![], &["1"])),
            ]
            .into(),
            folders: ["/etc/f".into()].into(),
        };
        let after = Ledger {
            files: [(
                "/etc/kept".into(),
                file(Original::Present(stamp("o")), &["2"]),
            )]
            .into(),
            keys: [(
                "/etc/a".into(),
                keys(vec![key("x", Before::Absent, &[json!(2)])], &["2"]),
            )]
            .into(),
            folders: ["/etc/g".into()].into(),
        };
        let both = Ledger::between(&before, &after);
        assert_eq!(both.files["/etc/gone"], before.files["/etc/gone"]);
        assert_eq!(both.files["/etc/kept"].written, [stamp("2"), stamp("1")]);
        assert_eq!(both.keys["/etc/b"], before.keys["/etc/b"]);
        assert_eq!(both.keys["/etc/a"].written, ["2", "1"]);
        assert_eq!(both.keys["/etc/a"].keys[0].written, [json!(2), json!(1)]);
        assert_eq!(both.keys["/etc/a"].keys[1], before.keys["/etc/a"].keys[1]);
        assert_eq!(both.folders.len(), 2);
        assert_eq!(both.blobs(), ["o"].into());
    }

    #[test]
    fn folders_are_idle_from_the_deepest_up() {
        let mut ledger = Ledger {
            files: [("/etc/b/c".into(), file(Original::Absent, &[]))].into(),
            folders: ["/etc/a", "/etc/a/b", "/etc/b", "/etc/b/c/d"]
                .map(Into::into)
                .into(),
            ..Ledger::default()
        };
        assert_eq!(
            ledger.take_idle_folders(),
            ["/etc/b/c/d", "/etc/a/b", "/etc/a"]
        );
        assert_eq!(ledger.folders, ["/etc/b".to_owned()].into());
    }
}
