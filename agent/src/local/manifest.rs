//! Manifests, as `kubectl` takes them, to what an operator would make of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use edict_core::catalogue::{self, Command};
use edict_core::config::Config;
use edict_core::content::{Content, Contents, Kind, Reference};
use edict_core::decode;
use edict_core::guard::{Paths, Policy, text, value};
use edict_core::layer::{DeletionPolicy, Drift, Layer, Mode, Restarts, digest};
use edict_core::wire::{Held, Push, Release};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::HERE;

/// The API group and version of what Edict reads.
const EDICT: &str = "edict.dev/v1alpha1";
/// Digests of contents are keyed since anybody may see them; these are in the state folder only.
const KEY: &[u8] = b"local";

/// What some manifests ask for.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    configs: Vec<Manifest>,
    policy: Policy,
    contents: BTreeMap<Reference, Vec<u8>>,
    /// Kind and name of everything else that was read.
    others: BTreeSet<(String, String)>,
}

/// A `NodeConfig`.
#[derive(Debug, PartialEq)]
struct Manifest {
    name: String,
    created: Timestamp,
    priority: i32,
    deletion_policy: Option<DeletionPolicy>,
    restarts: Option<Restarts>,
    mode: Mode,
    config: Config,
}

/// Why a manifest is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Error {
    /// The file, and which object in it.
    place: String,
    what: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    string_data: BTreeMap<String, String>,
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
}

/// Of the rest nothing matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
}

impl Wanted {
    /// Reads manifests, each with the name of its file.
    pub fn read(files: &[(String, String)]) -> Result<Self, Error> {
        let mut wanted = Self::default();
        // A snippet of the text might be of a Secret.
        let options = serde_saphyr::options! { with_snippet: false };
        for (file, text) in files {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple_with_options(text, options.clone()).map_err(
                    |error| Error {
                        place: file.clone(),
                        what: text::mask(&error.to_string()).into_owned(),
                    },
                )?;
            for (number, document) in (1..).zip(documents) {
                wanted.add(&document).map_err(|what| Error {
                    place: format!("{file}, object {number}"),
                    what: text::mask(&what).into_owned(),
                })?;
            }
        }
        Ok(wanted)
    }

    fn add(&mut self, document: &Value) -> Result<(), String> {
        // What a wrong value was is no help where it is a Secret's.
        let is_secret = document.get("kind").is_some_and(|kind| kind == "Secret");
        let head = read(document);
        let (head, _): (Head, _) =
            head.map_err(|error| match error.path().to_string().as_str() {
                path if is_secret && path != "." => {
                    format!("{path} is not what a Secret has there")
                }
                _ => said(&error),
            })?;
        let name = head.metadata.name.clone();
        if !value::is_object_name(&name) {
            return Err(format!(
                "metadata.name {name:?} has more than lower case letters, digits, '-' and '.'"
            ));
        }
        if head.kind != "NodeConfig" && !self.others.insert((head.kind.clone(), name.clone())) {
            return Err(format!(
                "{name}: there is another {} of that name",
                head.kind
            ));
        }
        match (&*head.api_version, &*head.kind) {
            (EDICT, "NodeConfig") => self
                .config(head)
                .map_err(|what| format!("{name}: {what}"))?,
            (EDICT, "Fleet") => {
                // The rest of it is about agents.
                let part = |part: &str| head.spec.get(part).cloned().unwrap_or_default();
                let paths: Option<Paths> =
                    strict(&part("paths")).map_err(|what| format!("{name}: spec.paths.{what}"))?;
                let commands: Option<Vec<Command>> = strict(&part("commands"))
                    .map_err(|what| format!("{name}: spec.commands.{what}"))?;
                let commands = commands.unwrap_or_default();
                if let Some(violation) = catalogue::check(&commands).first() {
                    return Err(format!("{name}: spec.{violation}"));
                }
                self.policy = Policy::new(paths.unwrap_or_default(), commands);
            }
            ("v1", "ConfigMap") if head.string_data.is_empty() => {
                self.keep(Kind::ConfigMap, &name, head.data, head.binary_data)?;
            }
            ("v1", "Secret") if head.binary_data.is_empty() => {
                self.keep(Kind::Secret, &name, head.string_data, head.data)?;
            }
            ("v1", kind @ ("ConfigMap" | "Secret")) => {
                return Err(format!(
                    "{name}: a {kind} has {}, and nothing else",
                    if kind == "Secret" {
                        "data and stringData"
                    } else {
                        "data and binaryData"
                    }
                ));
            }
            (version, kind) => {
                return Err(format!(
                    "{version} {kind} is not read here: NodeConfig and Fleet of {EDICT} are, and \
                     ConfigMap and Secret of v1"
                ));
            }
        }
        Ok(())
    }

    fn config(&mut self, head: Head) -> Result<(), String> {
        let Value::Object(mut spec) = head.spec else {
            return Err("spec is missing".to_owned());
        };
        // Everything here is for this host.
        spec.remove("target");
        let priority = spec.remove("priority").unwrap_or(Value::Null);
        let policy = spec.remove("deletionPolicy").unwrap_or(Value::Null);
        let restarts = spec.remove("restarts").unwrap_or(Value::Null);
        // Nobody watches a host that has no agent.
        let _: Option<Drift> = field("drift", spec.remove("drift").unwrap_or(Value::Null))?;
        let mode: Option<Mode> = field("mode", spec.remove("mode").unwrap_or(Value::Null))?;
        let priority: Option<i32> = field("priority", priority)?;
        let Metadata {
            name,
            creation_timestamp,
        } = head.metadata;
        let manifest = Manifest {
            created: creation_timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            priority: priority.unwrap_or_default(),
            deletion_policy: field("deletionPolicy", policy)?,
            restarts: field("restarts", restarts)?,
            mode: mode.unwrap_or_default(),
            config: strict(&Value::Object(spec)).map_err(|what| format!("spec.{what}"))?,
            name,
        };
        if manifest.config.block_names().next().is_none() {
            return Err(format!("spec: {}", Config::nothing()));
        }
        if self.names().any(|name| name == manifest.name) {
            return Err("there is another NodeConfig of that name: leave one out".to_owned());
        }
        self.configs.push(manifest);
        Ok(())
    }

    /// Keeps what may be referred to: texts, and bytes in base64.
    fn keep(
        &mut self,
        kind: Kind,
        name: &str,
        texts: BTreeMap<String, String>,
        bytes: BTreeMap<String, String>,
    ) -> Result<(), String> {
        let reference = |key: String| Reference {
            kind,
            name: name.to_owned(),
            key,
        };
        for (key, text) in bytes {
            let decoded = BASE64_STANDARD.decode(text.split_whitespace().collect::<String>());
            let decoded = decoded.map_err(|_| format!("{name}: {key} is not base64"))?;
            self.contents.insert(reference(key), decoded);
        }
        for (key, text) in texts {
            self.contents.insert(reference(key), text.into_bytes());
        }
        Ok(())
    }

    /// The names of the NodeConfigs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.configs.iter().map(|config| &*config.name)
    }

    /// That none is only to be planned.
    pub fn is_enforced(&self) -> Result<(), Error> {
        match self.configs.iter().find(|config| config.mode.is_plan()) {
            None => Ok(()),
            Some(planned) => Err(Error {
                place: format!("NodeConfig {}", planned.name),
                what: "spec.mode is Plan, so it is not applied: take that out, or say plan instead of apply"
                    .to_owned(),
            }),
        }
    }

    /// What becomes of a NodeConfig when it leaves, where its manifest says so.
    pub fn policy_of(&self, name: &str) -> Option<DeletionPolicy> {
        let mut configs = self.configs.iter();
        configs.find(|config| config.name == name)?.deletion_policy
    }

    /// What an operator would push to a host where these layers are in force. Names are uids here: a
    /// NodeConfig of the same name is the same one.
    pub fn push(self, in_force: &[Held]) -> Push {
        let Self {
            configs,
            policy,
            contents,
            others: _,
        } = self;
        let layer = |manifest: Manifest| {
            let Manifest {
                name,
                created,
                priority,
                deletion_policy,
                restarts,
                mode: _,
                config,
            } = manifest;
            let held = in_force.iter().find(|held| held.name == name);
            let uid = held.map_or_else(|| name.clone(), |held| held.uid.clone());
            // What is missing is told by the guard.
            let referred = config.references().into_iter().filter_map(|reference| {
                let bytes = contents.get(&reference)?.clone();
                Some((reference, Content::new(KEY, bytes)))
            });
            let contents = Contents(referred.collect());
            Layer {
                uid,
                name,
                priority,
                created,
                digest: digest(&config, &contents),
                deletion_policy: deletion_policy.unwrap_or_default(),
                restarts: restarts.unwrap_or_default(),
                drift: Drift::default(),
                retry: None,
                facts: None,
                config,
                contents,
            }
        };
        let layers = configs.into_iter().map(layer).collect();
        // Of the oldest version: whoever applies something by hand asks for a try.
        Push::new(HERE.to_owned(), policy, layers, Vec::<Release>::new())
    }
}

fn field<T: DeserializeOwned>(name: &str, value: Value) -> Result<Option<T>, String> {
    serde_json::from_value(value).map_err(|error| format!("spec.{name}: {error}"))
}

/// Reads a value, and gives the paths of what is not known in it.
fn read<T: DeserializeOwned>(value: &Value) -> Result<(T, Vec<String>), decode::Error> {
    let text = serde_json::to_vec(value).expect("a value of JSON has string keys and serializes");
    decode::decode(&text)
}

/// What is wrong with a value, and where.
fn said(error: &decode::Error) -> String {
    let what = error.inner().to_string();
    // The place in a text that nobody has seen.
    let what = what
        .rsplit_once(" at line ")
        .map_or(&*what, |(what, _)| what);
    match error.path().to_string().as_str() {
        "." => what.to_owned(),
        path => format!("{path}: {what}"),
    }
}

/// Reads a value, and refuses what is not known in it. An error begins with the field.
fn strict<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let (read, unknown) = read(value).map_err(|error| said(&error))?;
    match unknown.first() {
        None => Ok(read),
        Some(path) => Err(format!("{}: there is no such field", field_name(path))),
    }
}

/// A path of `serde_ignored` (`files.?.0.mod`, with a mark for each option) as the guard writes fields
/// (`files[0].mod`).
fn field_name(path: &str) -> String {
    let mut field = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            field.extend(["[", part, "]"]);
        } else {
            field.extend([if field.is_empty() { "" } else { "." }, part]);
        }
    }
    field
}

#[cfg(test)]
mod tests;
