//! `caCertificates`: whom a node trusts besides those whom it trusts already.
//!
//! They are added to the bundle that programs of the node read. Where that is differs, so the agent takes
//! the first place of [`BUNDLES`] that is there: the order in which Go looks for it, and with it what
//! pulls images. `update-ca-certificates` and its like write the bundle anew, from other folders: what it
//! drops is put back, as whatever others change. Only the agent knows which of them is meant, so it alone judges
//! whether the Fleet protects it.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Block, Daemon, authority};
use crate::content::{Contents, Reference, Source};
use crate::format::{Format, bundle};
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{KeyPath, Keys, Place, Resource, Unit};

/// Where the bundle is. Source: Go, `crypto/x509/root_linux.go`.
pub const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The most bytes of certificates in a `NodeConfig` itself, as for a mirror of containerd.
const CONTENT_MAX: usize = super::files::CONTENT_MAX;

/// Certificates of authorities that the node trusts besides others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaCertificates {
    /// The daemons that are restarted for it, where they are on the node and spec.restarts allows it:
    /// they read whom to trust once, when they first need it. If left out, none is, and each has them
    /// from its next start on. Naming one later restarts it with the next change of the certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub applies_to: Option<Vec<Daemon>>,
    /// The certificates.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub certificates: Vec<CaCertificate>,
}

/// One or more certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.ca) != has(self.caFrom)", "message": "give either ca or caFrom"},
]))]
pub struct CaCertificate {
    /// Certificates in PEM form, one behind the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub ca: Option<String>,
    /// Takes them from a ConfigMap or Secret in Edict's own namespace. When that changes, they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<Source>,
}

impl CaCertificate {
    fn reference(&self) -> Option<Reference> {
        self.ca_from.as_ref().and_then(Source::reference)
    }

    fn text<'a>(&'a self, contents: &'a Contents) -> Option<&'a [u8]> {
        authority::text(self.ca.as_deref(), self.ca_from.as_ref(), contents)
    }
}

impl Block for CaCertificates {
    fn check(&self, _policy: &Policy, contents: &Contents, found: &mut Findings) {
        let mut daemons = HashSet::new();
        for daemon in self.applies_to.iter().flatten() {
            if !daemons.insert(daemon) {
                found.add("appliesTo", &rule::DUPLICATE, daemon.unit());
            }
        }
        let mut total = 0;
        for (index, one) in self.certificates.iter().enumerate() {
            found.within(&format!("certificates[{index}]"), |found| {
                if one.ca.is_some() == one.ca_from.is_some() {
                    let given = if one.ca.is_some() { "both" } else { "neither" };
                    found.add("ca", &rule::CONTENT_SOURCE, given);
                }
                authority::check(one.ca.as_deref(), one.ca_from.as_ref(), contents, found);
                total += one.ca.as_ref().map_or(0, String::len);
            });
        }
        if total > CONTENT_MAX {
            found.add(
                "certificates",
                &rule::CONTENT_SIZE,
                &format!("{total} bytes"),
            );
        }
    }

    fn references(&self) -> Vec<Reference> {
        let all = self.certificates.iter();
        all.filter_map(CaCertificate::reference).collect()
    }

    fn render(&self, contents: &Contents) -> Vec<Resource> {
        let texts = self
            .certificates
            .iter()
            .filter_map(|one| one.text(contents));
        let certificates = texts.flat_map(value::ders).map(|der| bundle::entry(&der));
        let values = certificates.map(|(key, pem)| (key, Value::from(pem)));
        let [path, elsewhere @ ..] = &BUNDLES;
        let keys = Keys {
            path: (*path).to_owned(),
            format: Format::Bundle,
            values: values.collect(),
            elsewhere,
        };
        let reads: Vec<_> = keys
            .values
            .keys()
            .map(|key: &KeyPath| Place::key(path, key))
            .collect();
        let units = self.applies_to.iter().flatten().map(|daemon| {
            Resource::Unit(Unit {
                reads: reads.clone(),
                ..Unit::restarted(daemon.unit(), &[])
            })
        });
        Resource::of_keys(keys).into_iter().chain(units).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::config::tests::{rendered, said};
    use crate::content::Content;

    const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

    #[test]
    fn each_certificate_is_a_key_of_the_bundle() {
        let twice = format!("# Ours\n{CA}\n{}", CA.replace('\n', "\r\n"));
        let wanted = json!({"caCertificates": {
            "appliesTo": ["Containerd", "Docker"],
            "certificates": [{"ca": twice}],
        }});
        assert_eq!(said(&wanted), [""; 0]);
        // Also where its lines have blanks in them.
        let spaced =
            json!({"caCertificates": {"certificates": [{"ca": CA.replace("MII", "M II")}]}});
        assert_eq!(said(&spaced), [""; 0]);
        assert_eq!(rendered(&spaced)[0], rendered(&wanted)[0]);
        let [(key, pem)] = &bundle::certificates(CA)[..] else {
            unreachable!("there is one")
        };
        assert_eq!(
            rendered(&wanted),
            [
                format!("{} {key}={}", BUNDLES[0], json!(pem)),
                "containerd.service restart restart".to_owned(),
                "docker.service restart restart".to_owned(),
            ]
        );
        let alone = json!({"caCertificates": {"certificates": [{"ca": CA}]}});
        assert_eq!(rendered(&alone).len(), 1);
    }

    #[test]
    fn they_may_be_elsewhere() {
        let from = json!({"configMapKeyRef": {"name": "ours", "key": "ca.crt"}});
        let wanted = json!({"caCertificates": {"certificates": [{"caFrom": from}]}});
        let config: Config = serde_json::from_value(wanted.clone()).unwrap();
        let references: Vec<_> = config.references().into_iter().collect();
        assert_eq!(references[0].to_string(), "ConfigMap/ours/ca.crt");
        let with = |text: &str| {
            let content = Content::new(b"key", text.as_bytes().to_vec());
            Contents([(references[0].clone(), content)].into())
        };
        assert_eq!(config.check(&Policy::default(), &with(CA)), []);
        assert_eq!(config.render(&with(CA)).len(), 1);
        let found = config.check(&Policy::default(), &with("no certificate"));
        assert_eq!(
            (&*found[0].field, &*found[0].rule),
            ("caCertificates.certificates[0].caFrom", "pem")
        );
        let rule = "caCertificates.certificates[0].caFrom.configMapKeyRef reference-missing";
        assert_eq!(said(&wanted), [rule]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let from = json!({"configMapKeyRef": {"name": "ours", "key": "ca.crt"}});
        let at = "caCertificates.certificates";
        for (wanted, violations) in [
            (
                json!({"certificates": [{}]}),
                vec![format!("{at}[0].ca content-source")],
            ),
            (
                json!({"certificates": [{"ca": "x"}]}),
                vec![format!("{at}[0].ca pem")],
            ),
            (
                json!({"certificates": [{"ca": CA, "caFrom": from}]}),
                vec![
                    format!("{at}[0].ca content-source"),
                    format!("{at}[0].caFrom.configMapKeyRef reference-missing"),
                ],
            ),
            (
                json!({"appliesTo": ["Docker", "Docker"], "certificates": [{"ca": CA}]}),
                vec!["caCertificates.appliesTo duplicate".to_owned()],
            ),
        ] {
            assert_eq!(
                said(&json!({"caCertificates": wanted})),
                violations,
                "{wanted}"
            );
        }
        let many = CA.repeat(CONTENT_MAX / CA.len() + 1);
        let found = said(&json!({"caCertificates": {"certificates": [{"ca": many}]}}));
        assert_eq!(found, [format!("{at} content-size")]);
    }
}
