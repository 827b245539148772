//! `sysctl`: settings of the kernel, written down for the next start and set at once.
//!
//! Their file is the last of its folder, so that what Edict says stands; files are read in the order
//! of their names (sysctl.d(5)), and distributions link `/etc/sysctl.conf` there as `99-sysctl.conf`.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Block;
use crate::content::Contents;
use crate::format::Format;
use crate::format::assignment::sysctl_path;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{KeyPath, Keys, Live, Place, Resource, Unit};

/// Where they stand.
pub const PATH: &str = "/etc/sysctl.d/99-zz-edict.conf";
/// What sets them when the host starts.
pub const UNIT: &str = "systemd-sysctl.service";
/// Where the kernel has them.
pub const ROOT: &str = "/proc/sys";

/// Settings of the kernel by name, for example {"net.ipv4.ip_forward": "1"}.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("maxProperties" = 64, "x-kubernetes-validations" = [
    {"rule": "self.all(key, key.size() <= 512)", "message": "a name has at most 512 characters"},
    {"rule": "self.all(key, self[key].size() <= 512)", "message": "a value has at most 512 characters"},
    {"rule": "self.all(key, key.matches('^[a-zA-Z0-9_][^.=]*[./]'))", "message": "each name must be words with dots between them, for example net.ipv4.ip_forward"},
]))]
pub struct Sysctl(pub BTreeMap<String, String>);

impl Sysctl {
    /// Each setting: its path under `/proc/sys`, and the value, with one blank between words. The kernel
    /// has tabs there.
    fn settings(&self) -> impl Iterator<Item = (String, String)> {
        let words = |value: &String| value.split_whitespace().collect::<Vec<_>>().join(" ");
        let settings = self.0.iter();
        settings.map(move |(key, value)| (sysctl_path(key), words(value)))
    }
}

impl Block for Sysctl {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        let mut paths = HashSet::new();
        for (key, value) in &self.0 {
            let broken = value::sysctl_key(key);
            for rule in &broken {
                found.add("", rule, key);
            }
            if !paths.insert(sysctl_path(key)) {
                found.add("", &rule::DUPLICATE, key);
            }
            // Its name is shown only if it is one.
            let field = if broken.is_empty() {
                format!("[{key}]")
            } else {
                "[]".to_owned()
            };
            for rule in value::sysctl_value(value) {
                found.add(&field, rule, value);
            }
            if value.trim().is_empty() {
                found.add(&field, &rule::SYSCTL_VALUE, value);
            }
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let key = |path: &str| KeyPath::top(&written(path));
        let values = self
            .settings()
            .map(|(path, value)| (key(&path), Value::from(value)));
        let keys = Resource::Keys(Keys {
            path: PATH.to_owned(),
            format: Format::Sysctl,
            values: values.collect(),
            elsewhere: &[],
        });
        let live = self.settings().map(|(path, value)| {
            Resource::Live(Live {
                path: format!("{ROOT}/{path}"),
                value,
                otherwise: Unit {
                    reads: vec![Place::key(PATH, &key(&path))],
                    ..Unit::restarted(UNIT, &[])
                },
            })
        });
        std::iter::once(keys).chain(live).collect()
    }
}

/// A setting as people write it: with dots, unless there is one in a word of it.
fn written(path: &str) -> String {
    if path.contains('.') {
        path.to_owned()
    } else {
        path.replace('/', ".")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Config, tests};

    fn config(sysctl: &Value) -> Config {
        serde_json::from_value(json!({"sysctl": sysctl})).unwrap()
    }

    fn said(sysctl: &Value) -> Vec<String> {
        tests::said(&json!({"sysctl": sysctl}))
    }

    #[test]
    fn each_is_written_and_set() {
        let sysctl = json!({
            "net.ipv4.tcp_rmem": " 4096  87380\t6291456 ",
            "net/ipv4/conf/eth0.100/rp_filter": "1",
            "vm/swappiness": "10",
        });
        assert_eq!(said(&sysctl), [""; 0]);
        let rendered = config(&sysctl).render(&Contents::default()).into_iter();
        let lines = rendered.flat_map(|(_, resource)| match resource {
            Resource::Keys(keys) => {
                let values = keys.values.iter();
                values
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect()
            }
            Resource::Live(live) => vec![format!("{}: {}", live.path, live.value)],
            other => unreachable!("{other:?}"),
        });
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "net.ipv4.tcp_rmem=\"4096 87380 6291456\"",
                "net/ipv4/conf/eth0.100/rp_filter=\"1\"",
                "vm.swappiness=\"10\"",
                "/proc/sys/net/ipv4/tcp_rmem: 4096 87380 6291456",
                "/proc/sys/net/ipv4/conf/eth0.100/rp_filter: 1",
                "/proc/sys/vm/swappiness: 10",
            ]
        );
        assert_eq!(config(&json!({})).render(&Contents::default()), []);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (sysctl, violations) in [
            (json!({"plain": "1"}), vec!["sysctl sysctl-key"]),
            (
                json!({"kernel.core_pattern": "x"}),
                vec!["sysctl sysctl-executes"],
            ),
            (json!({"a.b": "1", "a/b": "2"}), vec!["sysctl duplicate"]),
            (json!({"a.b": " "}), vec!["sysctl[a.b] sysctl-value"]),
            (json!({"a.b": "1\n-c.d = 2"}), vec!["sysctl[a.b] control"]),
            (json!({"a/../b": "1"}), vec!["sysctl sysctl-key"]),
        ] {
            assert_eq!(said(&sysctl), violations, "{sysctl}");
        }
        let policy = Policy {
            protected: vec!["/etc/sysctl.d".to_owned()],
            ..Policy::default()
        };
        let found = config(&json!({"a.b": "1"})).check(&policy, &Contents::default());
        assert_eq!(found[0].rule, "path-protected");
    }
}
