//! What a host has once a configuration is written to it, and what the formats' own parsers read
//! from that: `serde_json` for JSON, `basic-toml` for TOML. Neither is what Edict writes with.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use edict_core::json;
use edict_core::resource::Resource;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::subject::Subject;

/// The bytes of each file.
pub type Host = BTreeMap<String, Vec<u8>>;

/// From a configuration, and the `daemon.json` that is there before, to the files that are there
/// after.
pub type Renderer = fn(&Subject, &str) -> Host;

pub const DAEMON: &str = "/etc/docker/daemon.json";

/// What Edict does.
pub fn real(subject: &Subject, daemon: &str) -> Host {
    let mut host = Host::from([(DAEMON.to_owned(), daemon.as_bytes().to_vec())]);
    for (_, resource) in subject.config.render(&subject.contents) {
        match resource {
            Resource::File(file) => {
                host.insert(file.path, file.content);
            }
            Resource::Keys(keys) => {
                let text = host.remove(&keys.path).unwrap_or_default();
                let mut text = String::from_utf8(text).expect("it is text");
                for (key, value) in &keys.values {
                    text = json::set(&text, key, value).expect("the file before is JSON");
                }
                host.insert(keys.path, text.into_bytes());
            }
            Resource::Unit(_) | Resource::Setting(_) => {}
        }
    }
    host
}

/// A table with its keys in the order in which they are written. A key that is there twice shows
/// twice.
#[derive(Debug, PartialEq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Ordered<T> {
    pub fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(key, _)| key.as_str()).collect()
    }

    pub fn get(&self, key: &str) -> Option<&T> {
        let (_, value) = self.0.iter().find(|(one, _)| one == key)?;
        Some(value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A `daemon.json`.
pub type Daemon = Ordered<Value>;

/// A `hosts.toml`, with everything that Edict may write to it and nothing else.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    pub server: Option<String>,
    #[serde(default)]
    pub host: Ordered<Mirror>,
}

/// A mirror in it.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    pub capabilities: Option<Vec<String>>,
    pub ca: Option<String>,
    pub skip_verify: Option<bool>,
    pub override_path: Option<bool>,
    pub header: Option<BTreeMap<String, String>>,
}
