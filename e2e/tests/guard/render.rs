//! What a host has once a configuration is written to it, and what the formats' own parsers read
//! from that: `serde_json` for JSON, `basic-toml` for TOML, `systemd-unit-edit` for units, and for
//! variables what systemd and PAM do. None is what Edict writes with.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use edict_core::config::proxy::ENVIRONMENT;
use edict_core::format::Format;
use edict_core::resource::Resource;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::subject::Subject;

/// The bytes of each file.
pub type Host = BTreeMap<String, Vec<u8>>;

/// From a configuration, and a file of others that is there before, to the files that are there
/// after.
pub type Renderer = fn(&Subject, &str) -> Host;

pub const DAEMON: &str = "/etc/docker/daemon.json";

/// What Edict does.
pub fn real(subject: &Subject, daemon: &str) -> Host {
    onto(subject, DAEMON, daemon)
}

/// What Edict does beside an `/etc/environment` that is there before.
pub fn beside(subject: &Subject, environment: &str) -> Host {
    onto(subject, ENVIRONMENT, environment)
}

/// What Edict does beside a file that is there before.
pub fn onto(subject: &Subject, path: &str, before: &str) -> Host {
    let mut host = Host::from([(path.to_owned(), before.as_bytes().to_vec())]);
    for (_, resource) in subject.config.render(&subject.contents) {
        match resource {
            Resource::File(file) => {
                host.insert(file.path, file.content);
            }
            Resource::Keys(keys) => {
                let text = host.remove(&keys.path).unwrap_or_default();
                let mut text = String::from_utf8(text).expect("it is text");
                for (key, value) in &keys.values {
                    match keys.format.set(&text, key, value) {
                        Ok(set) => text = set,
                        // A line can't have every value, and says so.
                        Err(_) if keys.format != Format::Json => {}
                        Err(error) => unreachable!("the file before is JSON: {error}"),
                    }
                }
                host.insert(keys.path, text.into_bytes());
            }
            Resource::Live(live) => {
                host.insert(live.path, live.value.into_bytes());
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

/// The variables of a file that `EnvironmentFile=` names, as systemd reads them: quotes and backslashes
/// mean something, and nothing is filled in. Source: systemd.exec(5); systemd, basic/env-file.c.
pub fn variables(text: &str) -> Ordered<String> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = rest.next() else { break };
        if matches!(first, '#' | ';') {
            while rest.next_if(|c| *c != '\n').is_some() {}
            continue;
        }
        let mut name = String::from(first);
        while let Some(c) = rest.next_if(|c| !matches!(c, '=' | '\n')) {
            name.push(c);
        }
        if rest.next_if_eq(&'=').is_none() {
            continue;
        }
        let mut value = String::new();
        // How long the value is without blanks behind it.
        let mut kept = 0;
        let mut quote = None;
        while let Some(c) = rest.next() {
            match (quote, c) {
                (None, '\n') => break,
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (None, '\\') => value.extend(rest.next().filter(|c| *c != '\n')),
                (Some('"'), '\\') => match rest.next() {
                    Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                    Some('\n') | None => {}
                    Some(c) => value.extend(['\\', c]),
                },
                (None, c) if c.is_whitespace() => {
                    value.push(c);
                    continue;
                }
                (_, c) => value.push(c),
            }
            kept = value.len();
        }
        value.truncate(kept);
        found.push((name.trim_end().to_owned(), value));
    }
    Ordered(found)
}

/// The settings in a file of `/etc/sysctl.d`, by their paths under `/proc/sys`, as systemd-sysctl reads
/// them. Source: sysctl.d(5).
pub fn settings(text: &str) -> Ordered<String> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let read = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().trim_start_matches('-');
        let turned = |c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        let path = match key.find(['.', '/']) {
            Some(at) if key[at..].starts_with('.') => key.chars().map(turned).collect(),
            _ => key.to_owned(),
        };
        Some((path, value.trim().to_owned()))
    };
    Ordered(lines.filter_map(read).collect())
}

/// The variables of `/etc/environment`, as PAM reads them: quotes around a value go, and nothing else in
/// it means anything. Source: Linux-PAM, `pam_env.c`, `_parse_env_file`.
pub fn environment(text: &str) -> Ordered<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let value = value.strip_prefix(['"', '\'']).unwrap_or(value);
        let value = value.strip_suffix(['"', '\'']).unwrap_or(value);
        Some((name.to_owned(), value.to_owned()))
    };
    Ordered(lines.filter_map(read).collect())
}
