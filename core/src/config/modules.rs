//! `modules`: modules of the kernel, loaded now and at each start, and their parameters.
//!
//! The list of names is one file with a key for each, so that several NodeConfigs may name some; the
//! parameters of a module are a file of its own.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Block;
use crate::content::Contents;
use crate::format::Format;
use crate::format::table::module_name;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{Action, KeyPath, Keys, Place, Resource, Unit};

/// The names of what is loaded. Source: modules-load.d(5).
pub const PATH: &str = "/etc/modules-load.d/zz-edict.conf";
/// What loads them.
pub const UNIT: &str = "systemd-modules-load.service";

/// Modules of the kernel. They are loaded at once and at each start of the node. What is loaded stays so
/// until the node is started again, and has the parameters that it was loaded with: where a module leaves
/// or its parameters change, the report of that change says PendingReboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
pub struct Modules(#[schemars(length(max = 32))] pub Vec<Module>);

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Module {
    /// Its name, for example "br_netfilter". One that the node's kernel does not have makes the
    /// NodeConfig fail there, and all of it is put back.
    #[schemars(length(min = 1, max = 55), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[a-zA-Z0-9_][a-zA-Z0-9_-]*$')", "message": "must be a module's name without path and suffix, for example br_netfilter"},
    ]))]
    pub name: String,
    /// Its parameters, for example {"hashsize": "65536"}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16, "x-kubernetes-validations" = [
        {"rule": "self.all(key, key.matches('^[a-zA-Z0-9_][a-zA-Z0-9_-]{0,54}$'))", "message": "each name must be that of a parameter, for example hashsize"},
        {"rule": "self.all(key, self[key].size() <= 512)", "message": "a value has at most 512 characters"},
    ]))]
    pub parameters: Option<BTreeMap<String, String>>,
}

/// The file of a module's parameters; the last one counts. Source: modprobe.d(5).
pub fn parameters(name: &str) -> String {
    format!("/etc/modprobe.d/zz-edict-{}.conf", module_name(name))
}

impl Module {
    fn path(&self) -> String {
        parameters(&self.name)
    }

    fn parameters(&self) -> Option<String> {
        let parameters = self.parameters.as_ref().filter(|all| !all.is_empty())?;
        let words = parameters
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        let words: String = words.collect();
        Some(format!("options {}{words}\n", module_name(&self.name)))
    }

    fn key(&self) -> KeyPath {
        KeyPath::top(&module_name(&self.name))
    }
}

impl Block for Modules {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        let mut names = HashSet::new();
        for (index, module) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                found.one("name", &module.name, value::module);
                if !names.insert(module.key()) {
                    found.add("name", &rule::DUPLICATE, &module.name);
                }
                if module.parameters.is_some() {
                    found.place("parameters", &module.path(), policy);
                }
                let mut parameters = HashSet::new();
                for (name, value) in module.parameters.iter().flatten() {
                    if !parameters.insert(module_name(name)) {
                        found.add("parameters", &rule::DUPLICATE, name);
                    }
                    let broken = value::module(name);
                    for rule in &broken {
                        found.add("parameters", rule, name);
                    }
                    // Its name is shown only if it is one.
                    let name = if broken.is_empty() { name } else { "" };
                    for rule in value::module_value(value) {
                        found.add(&format!("parameters.{name}"), rule, value);
                    }
                }
            });
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let values = self.0.iter().map(|module| (module.key(), Value::from("")));
        let keys = Keys {
            path: PATH.to_owned(),
            format: Format::Modules,
            values: values.collect(),
            elsewhere: &[],
        };
        let reads: Vec<_> = keys
            .values
            .keys()
            .map(|key| Place::key(PATH, key))
            .collect();
        let mut resources = Resource::of_keys(keys);
        for module in &self.0 {
            let file = module
                .parameters()
                .map(|text| Resource::text(&module.path(), text));
            resources.extend(file);
        }
        if !reads.is_empty() {
            resources.push(Resource::Unit(Unit {
                reads,
                // It unloads nothing.
                gone: Action::Reread,
                ..Unit::restarted(UNIT, &[])
            }));
        }
        resources
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::{rendered, said};

    #[test]
    fn each_is_loaded_with_its_parameters() {
        let modules = json!({"modules": [
            {"name": "nf-conntrack", "parameters": {"hashsize": "65536", "acct": "1"}},
            {"name": "br_netfilter"},
        ]});
        assert_eq!(said(&modules), [""; 0]);
        assert_eq!(
            rendered(&modules),
            [
                format!("{PATH} br_netfilter=\"\""),
                format!("{PATH} nf_conntrack=\"\""),
                "/etc/modprobe.d/zz-edict-nf_conntrack.conf options nf_conntrack acct=1 hashsize=65536\n"
                    .to_owned(),
                "systemd-modules-load.service restart daemon-reload".to_owned(),
            ]
        );
        assert_eq!(rendered(&json!({"modules": []})), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (modules, violations) in [
            (
                json!([{"name": "a b"}]),
                vec!["modules[0].name module", "modules[0].name blank"],
            ),
            (
                json!([{"name": "a-b"}, {"name": "a_b"}]),
                vec!["modules[1].name duplicate"],
            ),
            (
                json!([{"name": "a", "parameters": {"b": "1\ninstall a /bin/sh"}}]),
                vec![
                    "modules[0].parameters.b module-value",
                    "modules[0].parameters.b control",
                    "modules[0].parameters.b blank",
                ],
            ),
            (
                json!([{"name": "a", "parameters": {"b=": "1"}}]),
                vec!["modules[0].parameters module"],
            ),
        ] {
            assert_eq!(said(&json!({"modules": modules})), violations, "{modules}");
        }
    }
}
