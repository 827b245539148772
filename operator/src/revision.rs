//! Revisions: a `NodeConfig`'s configuration as it was at one time, kept as a `ControllerRevision`
//! in Edict's namespace, as `DaemonSet` and `StatefulSet` keep theirs.

use std::collections::BTreeMap;

use edict_core::config::Config;
use edict_core::content::{Content, Contents, Reference};
use edict_core::{digest, layer};
use edict_crds::{NodeConfig, name, uid};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::content;

/// The label that names the `NodeConfig`'s uid.
pub const LABEL: &str = "edict.dev/nodeconfig-uid";
/// How many revisions that no node runs are kept: as many as a Deployment keeps.
pub const HISTORY: usize = 10;

/// A `NodeConfig`'s configuration at one time, complete with what it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Name of its `ControllerRevision`.
    pub name: String,
    /// Digest of the configuration and of what it refers to.
    pub digest: String,
    /// The configuration.
    pub config: Config,
    /// What it refers to.
    pub contents: Contents,
    /// Name of the Secret that keeps what it refers to.
    pub secret: Option<String>,
}

/// How a revision is stored: the configuration, and of what it refers to the digests alone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(flatten)]
    config: Config,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    contents: BTreeMap<Reference, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_secret: Option<String>,
}

impl Revision {
    /// The revision that `config` stands at now, when what it refers to says `contents`.
    ///
    /// The uid is part of its name: a `NodeConfig` that was deleted and made again has revisions of
    /// its own.
    pub fn current(config: &NodeConfig, contents: Contents) -> Self {
        let digest = layer::digest(&config.spec.config, &contents);
        let hash = digest::of(&(uid(config), &digest));
        // An object's name has 253 characters at most.
        let stem: String = name(config).chars().take(240).collect();
        let secret = (!contents.is_empty()).then(|| {
            let hash = digest::of(&(uid(config), contents.digests()));
            format!("edict-content-{}", &hash[..20])
        });
        Self {
            name: format!("{}-{}", stem.trim_end_matches(['-', '.']), &hash[..10]),
            digest,
            config: config.spec.config.clone(),
            contents,
            secret,
        }
    }

    /// The object that keeps it; `number` counts upwards.
    pub fn object(&self, of: &NodeConfig, namespace: &str, number: i64) -> ControllerRevision {
        let digests = self.contents.digests().into_iter();
        let stored = Stored {
            config: self.config.clone(),
            contents: digests
                .map(|(reference, digest)| (reference.clone(), digest.to_owned()))
                .collect(),
            content_secret: self.secret.clone(),
        };
        ControllerRevision {
            metadata: owned(&self.name, of, namespace),
            data: Some(RawExtension(
                serde_json::to_value(&stored).expect("a configuration serializes to JSON"),
            )),
            revision: number,
        }
    }

    /// The immutable Secret that keeps what it refers to, each content under its digest.
    pub fn copy(&self, of: &NodeConfig, namespace: &str) -> Option<Secret> {
        let contents = self.contents.0.values();
        let data =
            contents.map(|content| (content.digest.clone(), ByteString(content.bytes.clone())));
        Some(Secret {
            metadata: owned(self.secret.as_ref()?, of, namespace),
            type_: Some(content::TYPE.to_owned()),
            immutable: Some(true),
            data: Some(data.collect()),
            ..Secret::default()
        })
    }
}

fn owned(name: &str, by: &NodeConfig, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(LABEL.to_owned(), uid(by).to_owned())].into()),
        owner_references: by.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Whether `revision` is one of `config`.
pub fn is_of(revision: &ControllerRevision, config: &NodeConfig) -> bool {
    revision.labels().get(LABEL).map(String::as_str) == Some(uid(config))
}

/// The name of the Secret that keeps what a revision refers to; `None` where it refers to nothing.
pub fn secret(revision: &ControllerRevision) -> Option<String> {
    let name = revision.data.as_ref()?.0.get("contentSecret")?;
    Some(name.as_str()?.to_owned())
}

/// The configuration that a revision holds and what that refers to, or why they can't be read.
/// `copy` is the Secret that [`secret`] names.
pub fn read(
    revision: &ControllerRevision,
    copy: Option<&Secret>,
) -> Result<(Config, Contents), String> {
    let name = revision.name_any();
    let data = revision
        .data
        .as_ref()
        .ok_or_else(|| format!("revision {name} is empty"))?;
    let stored: Stored = serde_json::from_value(data.0.clone())
        .map_err(|error| format!("revision {name} can't be read: {error}"))?;
    let data = copy.and_then(|copy| copy.data.as_ref());
    let kept = |(reference, digest): (Reference, String)| {
        let bytes = data.and_then(|data| data.get(&digest));
        let bytes =
            bytes.ok_or_else(|| format!("revision {name}: the content of {reference} is lost"))?;
        let bytes = bytes.0.clone();
        Ok((reference, Content { digest, bytes }))
    };
    let contents: Result<_, String> = stored.contents.into_iter().map(kept).collect();
    Ok((stored.config, Contents(contents?)))
}

/// The revisions of a `NodeConfig` that nobody needs any more: no node is to run them, and they are
/// not among the newest.
pub fn surplus<'a>(
    revisions: impl IntoIterator<Item = &'a ControllerRevision>,
    is_named: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut unused: Vec<_> = revisions
        .into_iter()
        .filter(|revision| !is_named(&revision.name_any()))
        .collect();
    unused.sort_by_key(|revision| std::cmp::Reverse(revision.revision));
    unused
        .iter()
        .skip(HISTORY)
        .map(|revision| revision.name_any())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node_config(name: &str, uid: &str, mirror: &str) -> NodeConfig {
        serde_json::from_value(json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": name, "uid": uid},
            "spec": {"target": {"role": "All"}, "docker": {"registryMirrors": [mirror]}},
        }))
        .unwrap()
    }

    fn current(config: &NodeConfig) -> Revision {
        Revision::current(config, Contents::default())
    }

    #[test]
    fn a_revision_is_named_by_object_and_content() {
        let one = node_config("a", "1", "https://m");
        let name = |config: &NodeConfig| current(config).name;
        assert_eq!(name(&one), name(&one.clone()));
        assert_ne!(name(&one), name(&node_config("a", "2", "https://m")));
        assert_ne!(name(&one), name(&node_config("a", "1", "https://n")));
        let mut retargeted = one.clone();
        retargeted.spec.target.role = Some(edict_crds::Role::Worker);
        retargeted.spec.priority = Some(7);
        assert_eq!(name(&one), name(&retargeted));
        assert!(name(&node_config(&"x".repeat(253), "1", "https://m")).len() <= 253);
        let other = Revision::current(&one, contents(b"x"));
        assert_ne!(other.name, name(&one));
        assert_ne!(other.name, Revision::current(&one, contents(b"y")).name);
    }

    fn contents(bytes: &[u8]) -> Contents {
        let reference = "Secret/s/k".parse().unwrap();
        Contents([(reference, Content::new(b"key", bytes.to_vec()))].into())
    }

    #[test]
    fn a_revision_gives_back_what_was_put_in() {
        let object = node_config("a", "1", "https://m");
        let plain = current(&object);
        assert_eq!(
            (plain.secret.clone(), plain.copy(&object, "ns")),
            (None, None)
        );
        let stored = plain.object(&object, "edict-system", 3);
        assert_eq!(secret(&stored), None);
        let whole = read(&stored, None).unwrap();
        assert_eq!(whole, (object.spec.config.clone(), Contents::default()));
        let empty = ControllerRevision {
            data: None,
            ..stored
        };
        assert!(read(&empty, None).unwrap_err().contains("is empty"));
    }

    #[test]
    fn what_a_revision_refers_to_is_kept_apart() {
        let object = node_config("a", "1", "https://m");
        let revision = Revision::current(&object, contents(b"hush"));
        let stored = revision.object(&object, "ns", 1);
        let copy = revision.copy(&object, "ns").unwrap();
        assert_eq!(secret(&stored), copy.metadata.name);
        assert_eq!(copy.immutable, Some(true));
        assert!(!serde_json::to_string(&stored).unwrap().contains("aHVzaA"));
        let whole = read(&stored, Some(&copy)).unwrap();
        assert_eq!(whole, (revision.config, revision.contents));
        let lost = read(&stored, None).unwrap_err();
        assert!(lost.contains("the content of Secret/s/k is lost"), "{lost}");
    }

    #[test]
    fn history_keeps_the_newest_and_whatever_is_named() {
        let revisions: Vec<_> = (0..15)
            .map(|number| {
                let of = node_config("a", "1", &format!("https://m{number}"));
                let mut revision = current(&of).object(&of, "ns", number);
                revision.metadata.name = Some(format!("r{number}"));
                revision
            })
            .collect();
        assert_eq!(
            surplus(&revisions, |name| name == "r0"),
            ["r4", "r3", "r2", "r1"]
        );
        assert_eq!(surplus(&revisions[..10], |_| false), [""; 0]);
    }
}
