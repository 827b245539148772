//! `dns`: whom a node asks for names, by a drop-in of `systemd-resolved`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Block;
use crate::content::Contents;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{Resource, Unit};

/// The drop-in; the last one counts. Source: resolved.conf(5).
pub const PATH: &str = "/etc/systemd/resolved.conf.d/zz-edict.conf";
/// What reads it.
pub const UNIT: &str = "systemd-resolved.service";

/// Name servers, which systemd-resolved asks. It is restarted for it, where it is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.servers) || has(self.fallbackServers) || has(self.domains) || has(self.dnsOverTLS) || has(self.dnssec)", "message": "there is nothing to set: give servers, for example"},
]))]
pub struct Dns {
    /// Name servers for all names, besides those that a network has of its own: addresses, for example
    /// "10.0.0.53", perhaps with a port, "10.0.0.53:5353", and with the name that their certificates
    /// have, "10.0.0.53#dns.example.com". No others that files of the node name are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 320)), extend("x-kubernetes-list-type" = "atomic"))]
    pub servers: Option<Vec<String>>,
    /// Name servers that are asked where there are no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 320)), extend("x-kubernetes-list-type" = "atomic"))]
    pub fallback_servers: Option<Vec<String>>,
    /// Domains that short names are looked for in; behind ~, domains for which these servers are asked
    /// rather than those of a network, ~. for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 254)), extend("x-kubernetes-list-type" = "atomic"))]
    pub domains: Option<Vec<String>>,
    /// Whether servers are asked over TLS.
    #[serde(
        default,
        rename = "dnsOverTLS",
        skip_serializing_if = "Option::is_none"
    )]
    pub dns_over_tls: Option<DnsOverTls>,
    /// Whether signatures of answers are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnssec: Option<Dnssec>,
}

/// Whether name servers are asked over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsOverTls {
    /// Always; the name is that behind #.
    Yes,
    /// Never.
    No,
    /// Where the server can.
    Opportunistic,
}

/// Whether signatures are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dnssec {
    /// Answers without a valid one are none.
    Yes,
    /// Never.
    No,
    /// Where the server can.
    AllowDowngrade,
}

impl DnsOverTls {
    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Opportunistic => "opportunistic",
        }
    }
}

impl Dnssec {
    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::AllowDowngrade => "allow-downgrade",
        }
    }
}

impl Block for Dns {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        if *self == Self::default() {
            found.add("", &rule::CONTENT_SOURCE, "nothing");
        }
        found.each("servers", self.servers.as_ref(), value::name_server);
        found.each(
            "fallbackServers",
            self.fallback_servers.as_ref(),
            value::name_server,
        );
        found.each("domains", self.domains.as_ref(), value::search_domain);
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let mut text = "[Resolve]\n".to_owned();
        for (name, list) in [
            ("DNS", &self.servers),
            ("FallbackDNS", &self.fallback_servers),
            ("Domains", &self.domains),
        ] {
            if let Some(list) = list {
                // The first line takes away what other files say.
                text.extend([name, "=\n", name, "=", &list.join(" "), "\n"]);
            }
        }
        for (name, word) in [
            ("DNSOverTLS", self.dns_over_tls.map(DnsOverTls::word)),
            ("DNSSEC", self.dnssec.map(Dnssec::word)),
        ] {
            if let Some(word) = word {
                text.extend([name, "=", word, "\n"]);
            }
        }
        vec![
            Resource::text(PATH, text),
            Resource::Unit(Unit::restarted(UNIT, &[PATH])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::tests::{rendered, said};

    #[test]
    fn what_is_given_stands_in_the_drop_in() {
        let dns = json!({"dns": {
            "servers": ["10.0.0.53#dns.example", "[2001:db8::53]:5353"],
            "fallbackServers": ["9.9.9.9"],
            "domains": ["example.com", "~."],
            "dnsOverTLS": "Opportunistic",
            "dnssec": "AllowDowngrade",
        }});
        assert_eq!(said(&dns), [""; 0]);
        assert_eq!(
            rendered(&dns),
            [
                "/etc/systemd/resolved.conf.d/zz-edict.conf [Resolve]\n\
                 DNS=\nDNS=10.0.0.53#dns.example [2001:db8::53]:5353\n\
                 FallbackDNS=\nFallbackDNS=9.9.9.9\nDomains=\nDomains=example.com ~.\n\
                 DNSOverTLS=opportunistic\nDNSSEC=allow-downgrade\n",
                "systemd-resolved.service restart restart",
            ]
        );
        let only = rendered(&json!({"dns": {"dnssec": "No"}}));
        assert_eq!(
            only[0],
            "/etc/systemd/resolved.conf.d/zz-edict.conf [Resolve]\nDNSSEC=no\n"
        );
        for (given, word) in [
            ("Yes", "yes"),
            ("No", "no"),
            ("Opportunistic", "opportunistic"),
        ] {
            let text = rendered(&json!({"dns": {"dnsOverTLS": given}}));
            assert!(
                text[0].ends_with(&format!("DNSOverTLS={word}\n")),
                "{text:?}"
            );
        }
        let text = rendered(&json!({"dns": {"dnssec": "Yes"}}));
        assert!(text[0].ends_with("DNSSEC=yes\n"), "{text:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (dns, violations) in [
            (json!({}), vec!["dns content-source"]),
            (
                json!({"servers": ["dns.example"]}),
                vec!["dns.servers[0] name-server"],
            ),
            (
                json!({"servers": ["1.1.1.1"], "domains": ["a\nDNS=2.2.2.2"]}),
                vec!["dns.domains[0] search-domain", "dns.domains[0] control"],
            ),
            (
                json!({"fallbackServers": ["1.1.1.1%eth0"]}),
                vec!["dns.fallbackServers[0] name-server"],
            ),
        ] {
            let mut found = said(&json!({"dns": dns}));
            found.retain(|one| !one.ends_with("specifier") && !one.ends_with("encoded"));
            assert_eq!(found, violations, "{dns}");
        }
    }
}
