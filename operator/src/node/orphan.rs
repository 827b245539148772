//! Layers that an agent has and that no `NodeState` names. Pure.

use edict_core::wire::Held;
use edict_crds::NodeConfig;
use k8s_openapi::api::core::v1::Node;

/// Whether a `NodeConfig` can have this name, which an agent says: it becomes a part of a URL.
///
/// Source: RFC 1123 as Kubernetes has it for names (`IsDNS1123Subdomain`); labels are not told apart.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    name.bytes().all(plain) && name.starts_with(edge) && name.ends_with(edge)
}

/// Whether nobody is to have `held`, which no `NodeState` names: its `NodeConfig` is gone or about to
/// be, or is for other nodes. One that is for this node is only not planned yet, or can't be. One of
/// mode Plan takes nothing from any node until it is deleted.
pub fn is_forsaken(held: &Held, config: Option<&NodeConfig>, node: Option<&Node>) -> bool {
    let Some(config) = config.filter(|config| edict_crds::uid(*config) == held.uid) else {
        return true;
    };
    let elsewhere = node.is_some_and(|node| {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        !config.spec.target.matches(edict_crds::name(node), &labels)
    });
    config.metadata.deletion_timestamp.is_some() || (elsewhere && !config.is_plan())
}

#[cfg(test)]
mod tests {
    use edict_core::layer::DeletionPolicy;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["a", "0", "a-b.c", "1.2"] {
            assert!(is_name(name), "{name}");
        }
        for odd in [
            "", ".", "..", "a/b", "../a", "a?b", "a%2fb", "A", "-a", "a.", "é", "a b",
        ] {
            assert!(!is_name(odd), "{odd}");
        }
    }

    #[test]
    fn a_layer_that_nobody_names_leaves_when_nobody_wants_it() {
        let config = |change: serde_json::Value| -> NodeConfig {
            let mut object = json!({
                "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
                "metadata": {"name": "name-a", "uid": "a"}, "spec": {"target": {"nodes": ["n"]}},
            });
            for (part, change) in change.as_object().unwrap() {
                object[part]
                    .as_object_mut()
                    .unwrap()
                    .extend(change.as_object().unwrap().clone());
            }
            serde_json::from_value(object).unwrap()
        };
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let held = Held {
            uid: "a".into(),
            name: "name-a".into(),
            digest: "d".into(),
            deletion_policy: DeletionPolicy::Retain,
        };
        assert!(is_forsaken(&held, None, Some(&node)));
        for (change, expected) in [
            (json!({}), false),
            (json!({"metadata": {"uid": "b"}}), true),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                true,
            ),
            (json!({"spec": {"target": {"nodes": ["m"]}}}), true),
            (
                json!({"spec": {"target": {"nodes": ["m"]}, "mode": "Plan"}}),
                false,
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"mode": "Plan"}}),
                true,
            ),
        ] {
            let config = config(change.clone());
            let forsaken = is_forsaken(&held, Some(&config), Some(&node));
            assert_eq!(forsaken, expected, "{change}");
        }
        // Who can't tell which labels the node has can't tell that it is not meant.
        let elsewhere = config(json!({"spec": {"target": {"nodes": ["m"]}}}));
        assert!(!is_forsaken(&held, Some(&elsewhere), None));
    }
}
