//! Which nodes a `NodeConfig` is for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The label that makes a node a master.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// The label that did so before Kubernetes 1.20 and still does in some distributions.
pub const MASTER_LABEL: &str = "node-role.kubernetes.io/master";

/// Which nodes the configuration is for. What is given must all hold: role Worker together with a
/// selector means the workers that the selector matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.role) || (has(self.nodes) && size(self.nodes) > 0) || (has(self.selector) && ((has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)))",
    "message": "an empty target is refused: give a role, nodes or a selector; for every node write role: All",
}]))]
pub struct Target {
    /// Master, Worker or All. A node is a master when it carries the label
    /// node-role.kubernetes.io/control-plane (or the old node-role.kubernetes.io/master), and a
    /// worker otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Names of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Option<Vec<String>>,
    /// Labels that nodes carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Every node.
    All,
    /// Nodes that run the control plane.
    Master,
    /// All other nodes.
    Worker,
}

// A plain enum would answer "Unsupported value"; these sentences name the right word.
impl JsonSchema for Role {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Role".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "self in ['All', 'Master', 'Worker']",
                "message": "must be All, Master or Worker",
                "messageExpression": "'role \"' + self + '\" is not known: ' + (self.lowerAscii() in ['worker', 'workers', 'node', 'nodes', 'agent', 'minion'] ? 'write Worker' : self.lowerAscii() in ['master', 'masters', 'control-plane', 'controlplane', 'control_plane', 'server'] ? 'write Master' : self.lowerAscii() in ['all', 'any', '*', ''] ? 'write All' : 'write All, Master or Worker')",
            }],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Labels that nodes carry. What is given must all hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<Requirement>>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    "message": "In and NotIn need values; Exists and DoesNotExist take none",
}]))]
pub struct Requirement {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// Values, for In and NotIn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<String>>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Role {
    /// The role of a node with these labels: `Master` or `Worker`.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        if labels.contains_key(CONTROL_PLANE_LABEL) || labels.contains_key(MASTER_LABEL) {
            Self::Master
        } else {
            Self::Worker
        }
    }
}

impl Target {
    /// Whether the node of this name and these labels is meant. An empty target means none.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let Self {
            role,
            nodes,
            selector,
        } = self;
        if self.is_empty() {
            return false;
        }
        role.is_none_or(|role| role == Role::All || role == Role::of(labels))
            && nodes
                .as_ref()
                .is_none_or(|nodes| nodes.is_empty() || nodes.iter().any(|node| node == name))
            && selector
                .as_ref()
                .is_none_or(|selector| selector.matches(labels))
    }

    fn is_empty(&self) -> bool {
        let Self {
            role,
            nodes,
            selector,
        } = self;
        role.is_none()
            && nodes.as_ref().is_none_or(Vec::is_empty)
            && selector.as_ref().is_none_or(Selector::is_empty)
    }
}

impl Selector {
    fn is_empty(&self) -> bool {
        self.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && self.match_expressions.as_ref().is_none_or(Vec::is_empty)
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self
            .match_labels
            .iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self
                .match_expressions
                .iter()
                .flatten()
                .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed =
            value.is_some_and(|value| self.values.iter().flatten().any(|one| one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(target: serde_json::Value, name: &str, labels: &[(&str, &str)]) -> bool {
        let target: Target = serde_json::from_value(target).unwrap();
        let labels = labels
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        target.matches(name, &labels)
    }

    #[test]
    fn roles() {
        for (role, labels, expected) in [
            ("All", &[][..], true),
            ("All", &[(CONTROL_PLANE_LABEL, "")], true),
            ("Master", &[], false),
            ("Master", &[(CONTROL_PLANE_LABEL, "")], true),
            ("Master", &[(MASTER_LABEL, "")], true),
            ("Worker", &[], true),
            ("Worker", &[(CONTROL_PLANE_LABEL, "")], false),
            ("Worker", &[("node-role.kubernetes.io/worker", "")], true),
        ] {
            assert_eq!(
                matches(json!({"role": role}), "n", labels),
                expected,
                "{role} {labels:?}"
            );
        }
    }

    #[test]
    fn an_empty_target_means_no_node() {
        for target in [
            json!({}),
            json!({"nodes": []}),
            json!({"selector": {}}),
            json!({"selector": {"matchLabels": {}, "matchExpressions": []}}),
        ] {
            assert!(!matches(target.clone(), "n", &[("a", "b")]), "{target}");
        }
    }

    #[test]
    fn what_is_given_must_all_hold() {
        let target = json!({"role": "Worker", "nodes": ["a", "b"], "selector": {"matchLabels": {"disk": "ssd"}}});
        assert!(matches(target.clone(), "a", &[("disk", "ssd")]));
        assert!(!matches(target.clone(), "c", &[("disk", "ssd")]));
        assert!(!matches(target.clone(), "a", &[("disk", "hdd")]));
        assert!(!matches(target.clone(), "a", &[]));
        assert!(!matches(
            target,
            "a",
            &[("disk", "ssd"), (MASTER_LABEL, "")]
        ));
    }

    #[test]
    fn requirements() {
        for (operator, values, labels, expected) in [
            ("In", json!(["x", "y"]), &[("k", "y")][..], true),
            ("In", json!(["x", "y"]), &[("k", "z")], false),
            ("In", json!(["x"]), &[], false),
            ("NotIn", json!(["x"]), &[("k", "x")], false),
            ("NotIn", json!(["x"]), &[("k", "y")], true),
            ("NotIn", json!(["x"]), &[], true),
            ("Exists", json!(null), &[("k", "")], true),
            ("Exists", json!(null), &[], false),
            ("DoesNotExist", json!(null), &[("k", "")], false),
            ("DoesNotExist", json!(null), &[("l", "")], true),
        ] {
            let target = json!({"selector": {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}});
            assert_eq!(
                matches(target, "n", labels),
                expected,
                "{operator} {labels:?}"
            );
        }
    }
}
