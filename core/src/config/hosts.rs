//! `hosts`: names that a node finds without asking a name server.

use std::collections::HashSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Block;
use crate::content::Contents;
use crate::format::Format;
use crate::format::table::host_key;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{KeyPath, Keys, Resource};

/// Where they stand. Source: hosts(5).
pub const PATH: &str = "/etc/hosts";

/// Names of hosts and their addresses, as lines of /etc/hosts. Lines of others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"]))]
pub struct Hosts(#[schemars(length(max = 128))] pub Vec<HostEntry>);

/// An address and its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostEntry {
    /// The address, for example "10.0.0.1" or "2001:db8::1".
    #[schemars(length(min = 2, max = 45))]
    pub address: String,
    /// The names that lead there, for example "registry.example.com". A name may have one IPv4 and one
    /// IPv6 address. What is running sees a change at its next look.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<String>,
}

impl Hosts {
    /// Each name with the kind of its address, and the address.
    fn keys(&self) -> impl Iterator<Item = (KeyPath, &str)> {
        let entries = self.0.iter().flat_map(|entry| {
            let address: Option<IpAddr> = entry.address.parse().ok();
            let names = entry.names.iter().zip(std::iter::repeat(address));
            names.map(|(name, address)| Some((host_key(name, address?), &*entry.address)))
        });
        entries.flatten()
    }
}

impl Block for Hosts {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        for (index, entry) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                found.one("address", &entry.address, value::address);
                found.each("names", Some(&entry.names), value::host_name);
            });
        }
        let mut keys = HashSet::new();
        for (key, _) in self.keys() {
            if !keys.insert(key.clone()) {
                found.add("", &rule::DUPLICATE, &key.to_string());
            }
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let values = self
            .keys()
            .map(|(key, address)| (key, Value::from(address)));
        Resource::of_keys(Keys {
            path: PATH.to_owned(),
            format: Format::Hosts,
            values: values.collect(),
            elsewhere: &[],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::tests::{rendered, said};

    #[test]
    fn each_name_is_a_line() {
        let hosts = json!({"hosts": [
            {"address": "10.0.0.1", "names": ["Registry.example.com", "mirror"]},
            {"address": "2001:db8::1", "names": ["mirror"]},
        ]});
        assert_eq!(said(&hosts), [""; 0]);
        assert_eq!(
            rendered(&hosts),
            [
                "/etc/hosts mirror.ipv4=\"10.0.0.1\"",
                "/etc/hosts mirror.ipv6=\"2001:db8::1\"",
                "/etc/hosts registry.example.com.ipv4=\"10.0.0.1\"",
            ]
        );
        assert_eq!(rendered(&json!({"hosts": []})), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (hosts, violations) in [
            (
                json!([{"address": "10.0.0", "names": ["a"]}]),
                vec!["hosts[0].address address"],
            ),
            (
                json!([{"address": "10.0.0.1", "names": ["a", "b c"]}]),
                vec!["hosts[0].names[1] host-name", "hosts[0].names[1] blank"],
            ),
            (
                json!([{"address": "10.0.0.1", "names": ["localhost"]}]),
                vec!["hosts[0].names[0] host-name-own"],
            ),
            (
                json!([{"address": "10.0.0.1", "names": ["a"]}, {"address": "10.0.0.2", "names": ["A"]}]),
                vec!["hosts duplicate"],
            ),
        ] {
            assert_eq!(said(&json!({"hosts": hosts})), violations, "{hosts}");
        }
    }
}
