//! Revisions: a `NodeConfig`'s configuration as it was at one time, kept as a `ControllerRevision`
//! in Edict's namespace, as `DaemonSet` and `StatefulSet` keep theirs.

use edict_core::config::Config;
use edict_core::digest;
use edict_crds::{NodeConfig, name, uid};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt as _};

/// The label that names the `NodeConfig`'s uid.
pub const LABEL: &str = "edict.dev/nodeconfig-uid";
/// How many revisions that no node runs are kept: as many as a Deployment keeps.
pub const HISTORY: usize = 10;

/// The name of the revision that `config` stands at now.
///
/// The uid is part of it: a `NodeConfig` that was deleted and made again has revisions of its own.
pub fn current_name(config: &NodeConfig) -> String {
    let hash = digest::of(&(uid(config), digest::of(&config.spec.config)));
    // An object's name has 253 characters at most.
    let stem: String = name(config).chars().take(240).collect();
    format!("{}-{}", stem.trim_end_matches(['-', '.']), &hash[..10])
}

/// The revision that `config` stands at now; `number` counts upwards.
pub fn current(config: &NodeConfig, namespace: &str, number: i64) -> ControllerRevision {
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(current_name(config)),
            namespace: Some(namespace.to_owned()),
            labels: Some([(LABEL.to_owned(), uid(config).to_owned())].into()),
            owner_references: config.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(
            serde_json::to_value(&config.spec.config).expect("a configuration serializes to JSON"),
        )),
        revision: number,
    }
}

/// Whether `revision` is one of `config`.
pub fn is_of(revision: &ControllerRevision, config: &NodeConfig) -> bool {
    revision.labels().get(LABEL).map(String::as_str) == Some(uid(config))
}

/// The configuration that a revision holds, or why it can't be read.
pub fn config(revision: &ControllerRevision) -> Result<Config, String> {
    let name = revision.name_any();
    let data = revision
        .data
        .as_ref()
        .ok_or_else(|| format!("revision {name} is empty"))?;
    serde_json::from_value(data.0.clone())
        .map_err(|error| format!("revision {name} can't be read: {error}"))
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

    #[test]
    fn a_revision_is_named_by_object_and_content() {
        let one = node_config("a", "1", "https://m");
        assert_eq!(current_name(&one), current_name(&one.clone()));
        assert_ne!(
            current_name(&one),
            current_name(&node_config("a", "2", "https://m"))
        );
        assert_ne!(
            current_name(&one),
            current_name(&node_config("a", "1", "https://n"))
        );
        let mut retargeted = one.clone();
        retargeted.spec.target.role = Some(edict_crds::Role::Worker);
        retargeted.spec.priority = Some(7);
        assert_eq!(current_name(&one), current_name(&retargeted));
        assert!(current_name(&node_config(&"x".repeat(253), "1", "https://m")).len() <= 253);
    }

    #[test]
    fn a_revision_gives_back_what_was_put_in() {
        let object = node_config("a", "1", "https://m");
        let revision = current(&object, "edict-system", 3);
        assert_eq!(config(&revision).unwrap(), object.spec.config);
        let empty = ControllerRevision {
            data: None,
            ..revision
        };
        assert!(config(&empty).unwrap_err().contains("is empty"));
    }

    #[test]
    fn history_keeps_the_newest_and_whatever_is_named() {
        let revisions: Vec<_> = (0..15)
            .map(|number| {
                let mut revision = current(
                    &node_config("a", "1", &format!("https://m{number}")),
                    "ns",
                    number,
                );
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
