//! `docker`: keys of the Docker daemon's own file, which other programs and people write to as
//! well. Source of the keys and their forms: dockerd(8), `--registry-mirror` and
//! `--insecure-registry`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Block;
use crate::content::Contents;
use crate::guard::{Findings, Policy, path, value};
use crate::resource::{Action, Format, KeyPath, Keys, Resource, Unit};

/// Where the daemon reads its settings.
pub const PATH: &str = "/etc/docker/daemon.json";
/// The unit that has to reread them.
pub const UNIT: &str = "docker.service";

/// Settings of the Docker daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Docker {
    /// Mirrors of Docker Hub that are asked first, in this order. Each is a URL with http or https
    /// and a host, for example "https://mirror.example.com". No user name, query or fragment:
    /// Docker refuses those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.all(url, url.matches('^https?://[^/?#@]'))", "message": "each must be a URL that begins with http:// or https:// and names a host, for example https://mirror.example.com"},
        {"rule": "self.all(url, !url.matches('[?#]') && !url.matches('^https?://[^/]*@'))", "message": "none may have a user name, password, query or fragment: Docker refuses a mirror that has them"},
    ]))]
    pub registry_mirrors: Option<Vec<String>>,
    /// Registries that may be used over plain HTTP or with a certificate that nobody vouches for.
    /// Each is a host, a host with a port, or a range of addresses, for example
    /// "registry.example.com:5000" or "10.20.0.0/16".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.all(registry, !registry.contains('://'))", "message": "each must be a host, host:port or an address range, without http:// or https://"},
    ]))]
    pub insecure_registries: Option<Vec<String>>,
}

impl Block for Docker {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        let Self {
            registry_mirrors,
            insecure_registries,
        } = self;
        for rule in path::off_limits(PATH, &policy.protected) {
            found.add("", rule, PATH);
        }
        found.each("registryMirrors", registry_mirrors.as_ref(), value::mirror);
        found.each(
            "insecureRegistries",
            insecure_registries.as_ref(),
            value::registry,
        );
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let Self {
            registry_mirrors,
            insecure_registries,
        } = self;
        let values: BTreeMap<_, _> = [
            ("registry-mirrors", registry_mirrors),
            ("insecure-registries", insecure_registries),
        ]
        .into_iter()
        .filter_map(|(key, list)| Some((KeyPath::top(key), json!(list.as_ref()?))))
        .collect();
        if values.is_empty() {
            return Vec::new();
        }
        vec![
            Resource::Keys(Keys {
                path: PATH.to_owned(),
                format: Format::Json,
                values,
            }),
            // Both keys are among those that dockerd rereads on SIGHUP.
            Resource::Unit(Unit {
                name: UNIT.to_owned(),
                action: Action::Reload,
                reads: vec![PATH.to_owned()],
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn docker(mirrors: &[&str], insecure: &[&str]) -> Config {
        let list = |items: &[&str]| Some(items.iter().map(ToString::to_string).collect());
        Config {
            docker: Some(Docker {
                registry_mirrors: list(mirrors),
                insecure_registries: list(insecure),
            }),
            ..Config::default()
        }
    }

    #[test]
    fn renders_the_keys_that_were_given() {
        let resources = docker(&["https://a.example", "https://b.example"], &["c:5000"])
            .docker
            .unwrap()
            .render(&Contents::default());
        assert_eq!(
            resources,
            [
                Resource::Keys(Keys {
                    path: "/etc/docker/daemon.json".into(),
                    format: Format::Json,
                    values: [
                        (
                            KeyPath::top("registry-mirrors"),
                            json!(["https://a.example", "https://b.example"])
                        ),
                        (KeyPath::top("insecure-registries"), json!(["c:5000"])),
                    ]
                    .into(),
                }),
                Resource::Unit(Unit {
                    name: "docker.service".into(),
                    action: Action::Reload,
                    reads: vec!["/etc/docker/daemon.json".into()],
                }),
            ]
        );
    }

    #[test]
    fn nothing_given_is_nothing_wanted() {
        let empty = Config {
            docker: Some(Docker::default()),
            ..Config::default()
        };
        assert_eq!(empty.render(&Contents::default()), []);
        assert_eq!(empty.check(&Policy::default(), &Contents::default()), []);
    }

    #[test]
    fn violations_name_the_entry() {
        let found = docker(&["https://a.example", "ftp://b.example"], &["c:x"])
            .check(&Policy::default(), &Contents::default());
        let fields: Vec<_> = found.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            ["docker.registryMirrors[1]", "docker.insecureRegistries[0]"]
        );
        let policy = Policy {
            protected: vec!["/etc/docker".into()],
            ..Policy::default()
        };
        let found = docker(&[], &[]).check(&policy, &Contents::default());
        assert_eq!(
            (found[0].field.as_str(), found[0].rule.as_str()),
            ("docker", "path-protected")
        );
    }
}
