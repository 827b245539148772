//! `firewall`: who may reach the node itself, as a table of nftables of its own.
//!
//! The table is Edict's alone and is replaced in one transaction of nft; no other table is looked at or
//! changed. What another table drops stays dropped.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Block;
use crate::content::Contents;
use crate::digest;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{Live, Place, Resource, Unit};

/// The script that nft reads when the host starts. Nothing else may write there from the start.
pub const PATH: &str = "/etc/nftables/zz-edict.nft";
/// What has nft read it then.
pub const UNIT: &str = "edict-firewall.service";
/// Its unit file.
pub const UNIT_PATH: &str = "/etc/systemd/system/edict-firewall.service";
/// Has it started with the host: a drop-in, where `systemctl enable` makes a symlink.
pub const WANTED_PATH: &str = "/etc/systemd/system/multi-user.target.d/zz-edict-firewall.conf";
/// The agent's folder on each host.
pub const STATE: &str = "/var/lib/edict";
/// A file in [`STATE`] that is there while a table is on trial: a host that starts meanwhile does not load it, and the
/// agent that starts with it puts back the one before.
pub const TRIAL: &str = "firewall-on-trial";
/// The table in the kernel, as if it were a file: there is no such path on a host.
pub const TABLE: &str = "/nftables/inet/edict";
/// How long it may take until the operator reaches the node anew, where it does not say, in seconds.
const PROBATION: u32 = 60;
/// The most that may be in one place.
const LIST_MAX: usize = 64;

/// After nftables.service: that begins with an empty ruleset. Source: its unit file in Debian and Fedora.
const UNIT_FILE: &str = "\
[Unit]
Description=Firewall of the node, by Edict
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
After=nftables.service
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/edict
ConditionPathExists=!/var/lib/edict/firewall-on-trial

[Service]
Type=oneshot
ExecStart=/usr/sbin/nft --file /etc/nftables/zz-edict.nft
";
const WANTED: &str = "[Unit]\nWants=edict-firewall.service\n";

/// Who may reach the node itself: its own addresses, the cluster's (nodes, pods, services) and those that
/// allow names; nobody else, but for answers to what the node has asked, ICMP and DHCP. What is sent on to pods,
/// as that to NodePorts and to services is, is not concerned, but for pods that use the node's own network. On
/// masters, allow whoever reaches the API server from outside the cluster, nodes that are yet to join included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Firewall {
    /// Who may reach the node besides the cluster. Nobody if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Option<Vec<Allow>>,
    /// The cluster's own addresses, where those are not meant that the cluster knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// How many seconds it may take, once it is in force, until the operator and other nodes reach the node by new
    /// connections as they did before, and the node is Ready. If they don't in time, all is put back, and the
    /// NodeConfig is Held there. 60 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 15, max = 300))]
    pub probation_seconds: Option<u32>,
}

/// Addresses that may reach ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.ports) || has(self.from)", "message": "give ports, from, or both"},
]))]
pub struct Allow {
    /// The ports. All, and every protocol, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Option<Vec<Ports>>,
    /// The addresses: ranges such as "10.0.0.0/8" or "2001:db8::/32". Every address if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 49)), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Option<Vec<String>>,
}

/// A port, or several behind one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.endPort) || self.endPort >= self.port", "message": "endPort must not be less than port"},
]))]
pub struct Ports {
    /// TCP if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port, or the first one.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// The last one, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<u32>,
}

/// A protocol that has ports.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The cluster's own addresses. What is left out is what the cluster knows; an empty list is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Ranges that nodes have their addresses of. Each node's own addresses if left out. Give them where nodes
    /// come and go.
    #[serde(default, rename = "nodeCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_cidrs: Option<Vec<String>>,
    /// Ranges that pods have their addresses of. Those that the nodes name in spec.podCIDRs if left out: give
    /// them here where the cluster's network does not use these.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)), extend("x-kubernetes-list-type" = "atomic"))]
    pub pod_cidrs: Option<Vec<String>>,
    /// Ranges that services have their addresses of. Those of the ServiceCIDRs if left out.
    #[serde(
        default,
        rename = "serviceCIDRs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)), extend("x-kubernetes-list-type" = "atomic"))]
    pub service_cidrs: Option<Vec<String>>,
}

/// What a cluster knows of its own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Of its nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// Ranges of its pods.
    pub pods: BTreeSet<IpNet>,
    /// Ranges of its services.
    pub services: BTreeSet<IpNet>,
}

impl Facts {
    /// Whether everybody is among these that is among others.
    pub fn covers(&self, others: &Self) -> bool {
        self.nodes.is_superset(&others.nodes)
            && self.pods.is_superset(&others.pods)
            && self.services.is_superset(&others.services)
    }

    /// Everybody who is among either.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self {
            nodes: self.nodes.union(&others.nodes).copied().collect(),
            pods: self.pods.union(&others.pods).copied().collect(),
            services: self.services.union(&others.services).copied().collect(),
        }
    }
}

impl Firewall {
    /// How long the probation is, in seconds.
    pub fn probation(&self) -> u32 {
        self.probation_seconds.unwrap_or(PROBATION)
    }

    /// The same, with what a cluster knows where nothing is given.
    #[must_use]
    pub fn with(&self, facts: &Facts) -> Self {
        let given = self.cluster.clone().unwrap_or_default();
        let ranges = |known: &BTreeSet<IpNet>| known.iter().map(ToString::to_string).collect();
        let nodes = || {
            let nodes = facts.nodes.iter();
            nodes.map(|node| IpNet::from(*node).to_string()).collect()
        };
        let cluster = Cluster {
            node_cidrs: given.node_cidrs.or_else(|| Some(nodes())),
            pod_cidrs: given.pod_cidrs.or_else(|| Some(ranges(&facts.pods))),
            service_cidrs: (given.service_cidrs).or_else(|| Some(ranges(&facts.services))),
        };
        Self {
            cluster: Some(cluster),
            ..self.clone()
        }
    }

    /// What is said where addresses of the cluster are left out that nobody knows. Not of services: nobody comes
    /// from those but by IPVS, on the node itself.
    pub fn unknown(&self, facts: Option<&Facts>) -> Option<String> {
        let given = self.cluster.clone().unwrap_or_default();
        let open = [
            (
                "nodeCIDRs",
                given.node_cidrs,
                facts.is_some_and(|facts| !facts.nodes.is_empty()),
            ),
            (
                "podCIDRs",
                given.pod_cidrs,
                facts.is_some_and(|facts| !facts.pods.is_empty()),
            ),
            ("serviceCIDRs", given.service_cidrs, facts.is_some()),
        ];
        let open = open
            .into_iter()
            .filter(|(_, given, known)| given.is_none() && !known);
        let open: Vec<_> = open.map(|(name, ..)| name).collect();
        let why = if facts.is_some() {
            "the cluster's nodes do not say these addresses"
        } else {
            "without an operator nobody knows the cluster's addresses"
        };
        let open = (!open.is_empty()).then(|| open.join(", "))?;
        Some(format!("firewall.cluster: {why}: give {open}, [] for none"))
    }

    /// What nft reads: the table as it is to be, in place of whatever it was, in one transaction.
    pub fn script(&self) -> String {
        let mut rules = String::new();
        let mut rule = |words: &[&str]| {
            let words: Vec<_> = words
                .iter()
                .filter(|word| !word.is_empty())
                .copied()
                .collect();
            rules.extend(["\t\t", &words.join(" "), " accept\n"]);
        };
        rule(&["iifname \"lo\""]);
        rule(&["meta l4proto { icmp, ipv6-icmp }"]);
        // Addresses are given to the node before anything of it is known. Source: RFC 2131, 4.1; RFC 8415, 7.2.
        rule(&["meta nfproto ipv4 udp sport 67 udp dport 68"]);
        rule(&["ip6 saddr fe80::/10 udp sport 547 udp dport 546"]);
        let cluster = self.cluster.iter().flat_map(|cluster| {
            let Cluster {
                node_cidrs,
                pod_cidrs,
                service_cidrs,
            } = cluster;
            [node_cidrs, pod_cidrs, service_cidrs]
        });
        for from in sources(cluster.flatten().flatten()) {
            rule(&[&from]);
        }
        for allow in self.allow.iter().flatten() {
            let from = match &allow.from {
                None => vec![String::new()],
                Some(from) => sources(from.iter()),
            };
            for from in from {
                match &allow.ports {
                    None => rule(&[&from]),
                    Some(all) => ports(all).iter().for_each(|ports| rule(&[&from, ports])),
                }
            }
        }
        let digest = digest::of(&rules);
        format!(
            "\
# By Edict: what is changed here is written over. Begins anew, in one transaction.
table inet edict
delete table inet edict
table inet edict {{
	chain input {{
		type filter hook input priority 0; policy drop;
		ct state established,related accept comment \"{MARK}{digest}\"
{rules}	}}
}}
"
        )
    }
}

/// What a loaded table says of itself, before the digest of its rules.
pub const MARK: &str = "edict ";
/// What takes the table away.
pub const GONE: &str = "table inet edict\ndelete table inet edict\n";

/// What tells one such table from another: the mark in the script, or in what nft says of the table.
pub fn mark(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(&format!("comment \"{MARK}"))?;
    let (digest, _) = rest.split_once('"')?;
    let is_digest = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && !digest.is_empty()).then_some(digest)
}

/// How nft writes where something comes from: one of these for each family. Ranges may overlap; in a
/// set of nft they may not.
fn sources<'a>(given: impl Iterator<Item = &'a String>) -> Vec<String> {
    let ranges: Vec<IpNet> = given.filter_map(|range| range.parse().ok()).collect();
    let ranges = IpNet::aggregate(&ranges);
    let family = |is_four: bool| {
        let own = ranges
            .iter()
            .filter(|range| range.addr().is_ipv4() == is_four);
        let own: Vec<_> = own.map(IpNet::trunc).collect();
        match own.as_slice() {
            [] => None,
            // A set has no such range.
            [all] if all.prefix_len() == 0 => Some(format!(
                "meta nfproto {}",
                if is_four { "ipv4" } else { "ipv6" }
            )),
            own => {
                let own: Vec<_> = own.iter().map(ToString::to_string).collect();
                let family = if is_four { "ip" } else { "ip6" };
                Some(format!("{family} saddr {{ {} }}", own.join(", ")))
            }
        }
    };
    [true, false].into_iter().filter_map(family).collect()
}

/// How nft writes ports: one of these for each protocol.
fn ports(given: &[Ports]) -> Vec<String> {
    let of = |(protocol, name): (Protocol, &str)| {
        let own = given.iter().filter(|ports| ports.protocol() == protocol);
        let mut own: Vec<_> = own.map(|ports| (ports.port, ports.last())).collect();
        own.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in own {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        let shown = |(first, last): &(u32, u32)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        let shown: Vec<_> = joined.iter().map(shown).collect();
        (!shown.is_empty()).then(|| format!("{name} dport {{ {} }}", shown.join(", ")))
    };
    let protocols = [
        (Protocol::Tcp, "tcp"),
        (Protocol::Udp, "udp"),
        (Protocol::Sctp, "sctp"),
    ];
    protocols.into_iter().filter_map(of).collect()
}

impl Ports {
    fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(Protocol::Tcp)
    }

    fn last(&self) -> u32 {
        self.end_port.unwrap_or(self.port)
    }
}

impl Block for Firewall {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        for path in [PATH, UNIT_PATH, WANTED_PATH] {
            found.place("", path, policy);
        }
        let Self {
            allow,
            cluster,
            probation_seconds,
        } = self;
        let allow = allow.as_deref().unwrap_or_default();
        if allow.len() > LIST_MAX {
            found.add("allow", &rule::LENGTH, &format!("{} entries", allow.len()));
        }
        for (index, allow) in allow.iter().enumerate() {
            found.within(&format!("allow[{index}]"), |found| allow.check(found));
        }
        let Cluster {
            node_cidrs,
            pod_cidrs,
            service_cidrs,
        } = cluster.clone().unwrap_or_default();
        for (name, ranges) in [
            ("nodeCIDRs", node_cidrs),
            ("podCIDRs", pod_cidrs),
            ("serviceCIDRs", service_cidrs),
        ] {
            found.each(&format!("cluster.{name}"), ranges.as_ref(), value::range);
        }
        found.number("probationSeconds", *probation_seconds, 15..=300);
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let script = self.script();
        vec![
            Resource::text(PATH, script.clone()),
            Resource::text(UNIT_PATH, UNIT_FILE.to_owned()),
            Resource::text(WANTED_PATH, WANTED.to_owned()),
            Resource::Live(Live {
                path: TABLE.to_owned(),
                value: script.trim_end().to_owned(),
                otherwise: Unit {
                    reads: vec![Place::file(PATH)],
                    ..Unit::restarted(UNIT, &[])
                },
            }),
        ]
    }
}

impl Allow {
    fn check(&self, found: &mut Findings) {
        if self.ports.is_none() && self.from.is_none() {
            found.add("", &rule::FIREWALL_ALLOW, "nothing");
        }
        found.each("from", self.from.as_ref(), value::range);
        let ports = self.ports.as_deref().unwrap_or_default();
        if ports.len() > LIST_MAX {
            found.add("ports", &rule::LENGTH, &format!("{} entries", ports.len()));
        }
        for (index, ports) in ports.iter().enumerate() {
            found.within(&format!("ports[{index}]"), |found| {
                found.number("port", Some(ports.port), 1..=65535);
                found.number("endPort", ports.end_port, 1..=65535);
                if ports.last() < ports.port {
                    let shown = format!("{}-{}", ports.port, ports.last());
                    found.add("endPort", &rule::RANGE, &shown);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::said;

    fn firewall(firewall: &serde_json::Value) -> Firewall {
        serde_json::from_value(firewall.clone()).unwrap()
    }

    /// The rules of the script, without those that are always there.
    fn rules(given: &serde_json::Value) -> Vec<String> {
        let script = firewall(given).script();
        let rules = script.lines().filter(|line| line.ends_with(" accept"));
        let rules: Vec<_> = rules.map(|line| line.trim().to_owned()).collect();
        assert_eq!(rules[0], "iifname \"lo\" accept");
        rules[4..].to_vec()
    }

    #[test]
    fn what_is_let_in_is_what_is_asked_for() {
        let given = json!({
            "cluster": {
                "nodeCIDRs": ["10.0.0.1/32", "fd00::1/128"],
                "podCIDRs": ["10.244.0.0/16", "10.244.1.0/24"],
                "serviceCIDRs": [],
            },
            "allow": [
                {"ports": [{"port": 22}, {"port": 81, "endPort": 90}, {"port": 80}, {"port": 85, "endPort": 86},
                    {"port": 53, "protocol": "UDP"}, {"port": 9, "protocol": "SCTP"}], "from": ["192.168.0.0/16"]},
                {"ports": [{"port": 443}]},
                {"from": ["0.0.0.0/0", "2001:db8::/32", "10.0.0.0/8"]},
            ],
        });
        assert_eq!(said(&json!({"firewall": given})), [""; 0]);
        assert_eq!(
            rules(&given),
            [
                "ip saddr { 10.0.0.1/32, 10.244.0.0/16 } accept",
                "ip6 saddr { fd00::1/128 } accept",
                "ip saddr { 192.168.0.0/16 } tcp dport { 22, 80-90 } accept",
                "ip saddr { 192.168.0.0/16 } udp dport { 53 } accept",
                "ip saddr { 192.168.0.0/16 } sctp dport { 9 } accept",
                "tcp dport { 443 } accept",
                "meta nfproto ipv4 accept",
                "ip6 saddr { 2001:db8::/32 } accept",
            ]
        );
        assert_eq!(rules(&json!({})), [""; 0]);
    }

    #[test]
    fn what_is_given_goes_before_what_is_known() {
        let facts = Facts {
            nodes: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
            pods: ["10.244.0.0/24".parse().unwrap()].into(),
            services: ["10.96.0.0/16".parse().unwrap()].into(),
        };
        let all = firewall(&json!({})).with(&facts);
        assert_eq!(
            json!(all.cluster),
            json!({
                "nodeCIDRs": ["10.0.0.1/32", "fd00::1/128"],
                "podCIDRs": ["10.244.0.0/24"],
                "serviceCIDRs": ["10.96.0.0/16"],
            })
        );
        let given = json!({"cluster": {"podCIDRs": [], "serviceCIDRs": ["10.97.0.0/16"]}});
        let some = firewall(&given);
        let some = some.with(&facts);
        assert_eq!(
            json!(some.cluster),
            json!({"nodeCIDRs": ["10.0.0.1/32", "fd00::1/128"], "podCIDRs": [], "serviceCIDRs": ["10.97.0.0/16"]})
        );
    }

    #[test]
    fn addresses_that_nobody_knows_have_to_be_given() {
        let all = Facts {
            nodes: ["10.0.0.1".parse().unwrap()].into(),
            pods: ["10.244.0.0/24".parse().unwrap()].into(),
            services: BTreeSet::new(),
        };
        let unknown = |given: serde_json::Value, facts: Option<&Facts>| {
            let said = firewall(&json!({"cluster": given})).unknown(facts)?;
            let (_, rest) = said.split_once(": give ").unwrap();
            Some(rest.strip_suffix(", [] for none").unwrap().to_owned())
        };
        let said = |names: &str| Some(names.to_owned());
        assert_eq!(
            unknown(json!({}), None),
            said("nodeCIDRs, podCIDRs, serviceCIDRs")
        );
        assert_eq!(
            unknown(json!({"podCIDRs": []}), None),
            said("nodeCIDRs, serviceCIDRs")
        );
        assert_eq!(unknown(json!({}), Some(&all)), None);
        assert_eq!(
            unknown(json!({}), Some(&Facts::default())),
            said("nodeCIDRs, podCIDRs")
        );
        let pods = json!({"podCIDRs": ["10.0.0.0/8"]});
        assert_eq!(unknown(pods, Some(&Facts::default())), said("nodeCIDRs"));
    }

    #[test]
    fn a_script_is_told_from_another_by_its_mark() {
        let (one, two) = (
            firewall(&json!({})),
            json!({"allow": [{"ports": [{"port": 1}]}]}),
        );
        let (one, two) = (one.script(), firewall(&two).script());
        assert_ne!(mark(&one), mark(&two));
        assert_eq!(mark(&one).map(str::len), Some(64));
        assert_eq!(mark("table inet edict {}"), None);
        assert_eq!(mark("comment \"edict ../../x\""), None);
        assert_eq!(mark("comment \"edict \""), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (firewall, violations) in [
            (
                json!({"allow": [{}]}),
                vec!["firewall.allow[0] firewall-allow"],
            ),
            (
                json!({"allow": [{"from": ["10.0.0.1"]}]}),
                vec!["firewall.allow[0].from[0] address-range"],
            ),
            (
                json!({"allow": [{"ports": [{"port": 0}, {"port": 2, "endPort": 1}]}]}),
                vec![
                    "firewall.allow[0].ports[0].port range",
                    "firewall.allow[0].ports[1].endPort range",
                ],
            ),
            (
                json!({"cluster": {"podCIDRs": ["10.0.0.0/33"]}}),
                vec!["firewall.cluster.podCIDRs[0] address-range"],
            ),
            (
                json!({"probationSeconds": 14}),
                vec!["firewall.probationSeconds range"],
            ),
        ] {
            assert_eq!(
                said(&json!({"firewall": firewall})),
                violations,
                "{firewall}"
            );
        }
    }
}
