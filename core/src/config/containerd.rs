//! `containerd`: registries and their mirrors, one folder of `/etc/containerd/certs.d` for each,
//! with a `hosts.toml` and the certificates that it names. containerd reads them with each pull.
//! Source of the file's form: containerd's docs/hosts.md.

use std::collections::HashSet;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Item, Table, value as toml};

use super::{Block, CredentialsSource, authority, files::CONTENT_MAX};
use crate::content::{Contents, Reference, Source};
use crate::guard::{Findings, Policy, path, rule, value};
use crate::resource::{File, Resource};
use crate::setting::{Says, Setting};

/// The folder that containerd is told to look in.
pub const FOLDER: &str = "/etc/containerd/certs.d";

/// What containerd's own file has to say. Source: containerd's docs/cri/config.md; the first key is
/// that of versions 1 and 2 of that file, the second that of version 3.
pub const CONFIG_PATH: Setting = Setting {
    program: "containerd",
    paths: &["/etc/containerd/config.toml"],
    says: Says::Toml(&[
        &[
            "plugins",
            "io.containerd.grpc.v1.cri",
            "registry",
            "config_path",
        ],
        &[
            "plugins",
            "io.containerd.cri.v1.images",
            "registry",
            "config_path",
        ],
    ]),
    contains: FOLDER,
    advice: "set registry config_path to it in containerd's own file and restart containerd once",
};

/// Registries of containerd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Containerd {
    /// The registries, each with its own mirrors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub registries: Option<Vec<Registry>>,
}

/// A registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    /// The registry as image names have it, "docker.io" or "registry.example.com:5000" for
    /// example; "_default" stands for every registry without an entry of its own.
    #[schemars(length(min = 1, max = 255), extend("x-kubernetes-validations" = [
        {"rule": "!self.contains('/') && !self.startsWith('.')", "message": "must be a host or host:port as image names have it, for example docker.io"},
    ]))]
    pub host: String,
    /// Where the registry itself is, asked when no mirror has an image. If left out, https and its
    /// own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub server: Option<String>,
    /// Mirrors, asked in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub mirrors: Option<Vec<Mirror>>,
}

/// A mirror of a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.ca) && has(self.caFrom))", "message": "give either ca or caFrom"},
]))]
pub struct Mirror {
    /// A URL with http or https and a host, for example "https://mirror.example.com". No user name,
    /// query or fragment.
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^https?://[^/?#@]')", "message": "must be a URL that begins with http:// or https:// and names a host"},
    ]))]
    pub url: String,
    /// What the mirror is asked for. If left out, everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Option<Vec<Capability>>,
    /// Certificates of the authorities that vouch for the mirror, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca: Option<String>,
    /// Takes these certificates from a ConfigMap or Secret in Edict's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<Source>,
    /// User name and password, sent with every request to this mirror: for registries with Basic
    /// authentication, not for those that hand out tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_from: Option<CredentialsSource>,
    /// Whether a certificate that nobody vouches for is taken too. Only for trying things out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_verify: Option<bool>,
    /// Whether the path of the URL is the API's whole path, so that no "/v2" is added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_path: Option<bool>,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Capability {
    /// Fetch what a digest names.
    Pull,
    /// Say which digest a tag stands for.
    Resolve,
    /// Take images.
    Push,
}

impl Capability {
    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

impl Containerd {
    fn registries(&self) -> impl Iterator<Item = &Registry> {
        self.registries.iter().flatten()
    }
}

impl Block for Containerd {
    fn check(&self, policy: &Policy, contents: &Contents, found: &mut Findings) {
        let mut hosts = HashSet::new();
        found.within("registries", |found| {
            for (index, registry) in self.registries().enumerate() {
                found.within(&format!("[{index}]"), |found| {
                    registry.check(policy, contents, found);
                    if !hosts.insert(&registry.host) {
                        found.add("host", &rule::DUPLICATE, &registry.host);
                    }
                });
            }
        });
    }

    fn references(&self) -> Vec<Reference> {
        let mirrors = self.registries().flat_map(Registry::mirrors);
        mirrors
            .flat_map(|mirror| {
                let ca = mirror.ca_from.as_ref().and_then(Source::reference);
                let credentials = mirror.credentials_from.iter();
                credentials
                    .flat_map(CredentialsSource::references)
                    .chain(ca)
            })
            .collect()
    }

    fn render(&self, contents: &Contents) -> Vec<Resource> {
        let files: Vec<_> = self
            .registries()
            .flat_map(|registry| registry.render(contents))
            .map(Resource::File)
            .collect();
        let setting = (!files.is_empty()).then_some(Resource::Setting(CONFIG_PATH));
        files.into_iter().chain(setting).collect()
    }
}

impl Registry {
    fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        self.mirrors.iter().flatten()
    }

    fn file(&self) -> String {
        format!("{FOLDER}/{}/hosts.toml", self.host)
    }

    fn check(&self, policy: &Policy, contents: &Contents, found: &mut Findings) {
        found.one("host", &self.host, value::host);
        if value::host(&self.host).is_empty() {
            for rule in path::check(&self.file(), policy) {
                found.add("host", rule, &self.file());
            }
        }
        if let Some(server) = &self.server {
            found.one("server", server, value::mirror);
        }
        let mut urls = HashSet::new();
        found.within("mirrors", |found| {
            for (index, mirror) in self.mirrors().enumerate() {
                found.within(&format!("[{index}]"), |found| {
                    mirror.check(contents, found);
                    if !urls.insert(&mirror.url) {
                        found.add("url", &rule::DUPLICATE, &mirror.url);
                    }
                });
            }
        });
    }

    /// The certificates first: by the time that `hosts.toml` names them, they are to be there.
    fn render(&self, contents: &Contents) -> Vec<File> {
        let mut document = DocumentMut::new();
        document
            .decor_mut()
            .set_prefix("# Written by Edict: changes are lost.\n");
        if let Some(server) = &self.server {
            document["server"] = toml(server);
        }
        let mut hosts = Table::new();
        hosts.set_implicit(true);
        let mut files = Vec::new();
        let mut secret = false;
        for (number, mirror) in (1..).zip(self.mirrors()) {
            let mut table = mirror.table(contents);
            secret |= table.contains_key("header");
            if let Some(ca) = mirror.certificates(contents) {
                // Relative to the folder of hosts.toml, wherever that is seen from.
                let name = format!("mirror-{number}.pem");
                table.insert("ca", toml(&name));
                files.push(File {
                    path: format!("{FOLDER}/{}/{name}", self.host),
                    content: ca.to_vec(),
                    mode: None,
                    owner: None,
                    secret: mirror.has_secret_certificates(),
                });
            }
            hosts.insert(&mirror.url, Item::Table(table));
        }
        if !hosts.is_empty() {
            document.insert("host", Item::Table(hosts));
        }
        files.push(File {
            path: self.file(),
            content: document.to_string().into_bytes(),
            mode: secret.then_some(0o600),
            owner: None,
            secret,
        });
        files
    }
}

impl Mirror {
    fn check(&self, contents: &Contents, found: &mut Findings) {
        found.one("url", &self.url, value::mirror);
        let mut asked = HashSet::new();
        for capability in self.capabilities.iter().flatten() {
            if !asked.insert(capability) {
                found.add("capabilities", &rule::DUPLICATE, capability.word());
            }
        }
        if let (Some(_), Some(_)) = (&self.ca, &self.ca_from) {
            found.add("ca", &rule::CONTENT_SOURCE, "both");
        }
        authority::check(self.ca.as_deref(), self.ca_from.as_ref(), contents, found);
        if let Some(ca) = self.ca.as_ref().filter(|ca| ca.len() > CONTENT_MAX) {
            found.add("ca", &rule::CONTENT_SIZE, &format!("{} bytes", ca.len()));
        }
        if let Some(from) = &self.credentials_from {
            found.within("credentialsFrom", |found| {
                from.check(contents, found);
            });
        }
    }

    fn certificates<'a>(&'a self, contents: &'a Contents) -> Option<&'a [u8]> {
        authority::text(self.ca.as_deref(), self.ca_from.as_ref(), contents)
    }

    fn has_secret_certificates(&self) -> bool {
        let reference = self.ca_from.as_ref().and_then(Source::reference);
        self.ca.is_none() && reference.is_some_and(|reference| reference.is_secret())
    }

    fn table(&self, contents: &Contents) -> Table {
        let mut table = Table::new();
        if let Some(capabilities) = &self.capabilities {
            let words: Array = capabilities.iter().map(|one| one.word()).collect();
            table.insert("capabilities", toml(words));
        }
        for (key, flag) in [
            ("skip_verify", self.skip_verify),
            ("override_path", self.override_path),
        ] {
            if let Some(flag) = flag {
                table.insert(key, toml(flag));
            }
        }
        if let Some(authorization) = self.authorization(contents) {
            let mut header = Table::new();
            header.insert("Authorization", toml(authorization));
            table.insert("header", Item::Table(header));
        }
        table
    }

    fn authorization(&self, contents: &Contents) -> Option<String> {
        let pair = self.credentials_from.as_ref()?.pair(contents)?.join(&b':');
        Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::content::Content;

    fn config(registries: &serde_json::Value) -> Config {
        serde_json::from_value(json!({"containerd": {"registries": registries}})).unwrap()
    }

    fn contents(entries: &[(&str, &[u8])]) -> Contents {
        let content = |(reference, bytes): &(&str, &[u8])| {
            (
                reference.parse().unwrap(),
                Content::new(b"key", bytes.to_vec()),
            )
        };
        Contents(entries.iter().map(content).collect())
    }

    fn rules(registries: &serde_json::Value, contents: &Contents) -> Vec<String> {
        let found = config(registries).check(&Policy::default(), contents);
        found
            .iter()
            .map(|v| format!("{} {}", v.field, v.rule))
            .collect()
    }

    fn files(registries: &serde_json::Value, contents: &Contents) -> Vec<File> {
        let rendered = config(registries).render(contents).into_iter();
        let file = |(_, resource)| match resource {
            Resource::File(file) => Some(file),
            _ => None,
        };
        rendered.filter_map(file).collect()
    }

    const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

    fn full() -> serde_json::Value {
        json!([{
            "host": "docker.io", "server": "https://registry-1.docker.io",
            "mirrors": [
                {"url": "https://z.example", "capabilities": ["Pull", "Resolve"], "ca": CA, "skipVerify": false},
                {"url": "https://a.example/v2/hub", "overridePath": true,
                 "caFrom": {"configMapKeyRef": {"name": "c", "key": "ca.crt"}},
                 "credentialsFrom": {"secretRef": {"name": "s"}}},
            ],
        }])
    }

    fn referred_to() -> Contents {
        contents(&[
            ("ConfigMap/c/ca.crt", CA.as_bytes()),
            ("Secret/s/username", b"user"),
            ("Secret/s/password", b"pass\"word"),
        ])
    }

    #[test]
    fn hosts_toml_keeps_the_order_and_names_its_certificates() {
        assert_eq!(rules(&full(), &referred_to()), [""; 0]);
        let files = files(&full(), &referred_to());
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/etc/containerd/certs.d/docker.io/mirror-1.pem",
                "/etc/containerd/certs.d/docker.io/mirror-2.pem",
                "/etc/containerd/certs.d/docker.io/hosts.toml",
            ]
        );
        assert_eq!(files[0].content, CA.as_bytes());
        assert_eq!(files[1].content, CA.as_bytes());
        assert_eq!((files[0].mode, files[2].mode), (None, Some(0o600)));
        assert_eq!(
            String::from_utf8_lossy(&files[2].content),
            "# Written by Edict: changes are lost.\n\
             server = \"https://registry-1.docker.io\"\n\n\
             [host.\"https://z.example\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n\
             skip_verify = false\n\
             ca = \"mirror-1.pem\"\n\n\
             [host.\"https://a.example/v2/hub\"]\n\
             override_path = true\n\
             ca = \"mirror-2.pem\"\n\n\
             [host.\"https://a.example/v2/hub\".header]\n\
             Authorization = \"Basic dXNlcjpwYXNzIndvcmQ=\"\n"
        );
        let block = config(&full());
        let references: Vec<_> = block.references().iter().map(ToString::to_string).collect();
        assert_eq!(
            references,
            [
                "ConfigMap/c/ca.crt",
                "Secret/s/password",
                "Secret/s/username"
            ]
        );
        let last = block.render(&referred_to()).pop();
        assert_eq!(last, Some(("containerd", Resource::Setting(CONFIG_PATH))));
    }

    #[test]
    fn without_credentials_the_file_is_nothing_special() {
        let plain = json!([{"host": "_default", "mirrors": [{"url": "http://m", "capabilities": ["Push"]}]}]);
        let files = files(&plain, &Contents::default());
        assert_eq!(files[0].mode, None);
        assert_eq!(config(&json!([])).render(&Contents::default()), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let at = "containerd.registries[0]";
        for (registry, contents, expected) in [
            (json!({"host": "../x"}), contents(&[]), "host host"),
            (
                json!({"host": "x", "server": "ftp://x"}),
                contents(&[]),
                "server url-scheme",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "x://y"}]}),
                contents(&[]),
                "mirrors[0].url url-scheme",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y"}, {"url": "http://y"}]}),
                contents(&[]),
                "mirrors[1].url duplicate",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "capabilities": ["Pull", "Pull"]}]}),
                contents(&[]),
                "mirrors[0].capabilities duplicate",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "ca": "x"}]}),
                contents(&[]),
                "mirrors[0].ca pem",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "caFrom": {}}]}),
                contents(&[]),
                "mirrors[0].caFrom content-source",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "caFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
                contents(&[("Secret/s/k", b"x")]),
                "mirrors[0].caFrom pem",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "caFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
                contents(&[]),
                "mirrors[0].caFrom.secretKeyRef reference-missing",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "credentialsFrom": {"secretRef": {"name": "s"}}}]}),
                contents(&[("Secret/s/username", b"a:"), ("Secret/s/password", b"")]),
                "mirrors[0].credentialsFrom.secretRef credentials",
            ),
            (
                json!({"host": "x", "mirrors": [{"url": "http://y", "credentialsFrom": {"secretRef": {"name": "s"}}}]}),
                contents(&[("Secret/s/username", b"a")]),
                "mirrors[0].credentialsFrom.secretRef reference-missing",
            ),
        ] {
            assert_eq!(
                rules(&json!([registry]), &contents),
                [format!("{at}.{expected}")]
            );
        }
        let both = json!([{"host": "x", "mirrors": [{"url": "http://y", "ca": CA, "caFrom": {"configMapKeyRef": {"name": "c", "key": "ca.crt"}}}]}]);
        assert_eq!(
            rules(&both, &referred_to()),
            [format!("{at}.mirrors[0].ca content-source")]
        );
        let twice = json!([{"host": "x"}, {"host": "x"}]);
        assert_eq!(
            rules(&twice, &Contents::default()),
            ["containerd.registries[1].host duplicate"]
        );
        let sized = |size: usize| {
            let ca = format!("{CA}{}", " ".repeat(size - CA.len()));
            let registry = json!([{"host": "x", "mirrors": [{"url": "http://y", "ca": ca}]}]);
            rules(&registry, &Contents::default())
        };
        assert_eq!(sized(CONTENT_MAX), [""; 0]);
        assert_eq!(
            sized(CONTENT_MAX + 1),
            [format!("{at}.mirrors[0].ca content-size")]
        );
        let policy = Policy {
            protected: vec![FOLDER.into()],
            ..Policy::default()
        };
        let found = config(&full()).check(&policy, &referred_to());
        assert_eq!(
            (found[0].field.as_str(), found[0].rule.as_str()),
            ("containerd.registries[0].host", "path-protected")
        );
    }

    #[test]
    fn no_byte_of_a_secret_is_shown() {
        let registry = json!([{"host": "x", "mirrors": [{"url": "http://y", "credentialsFrom": {"secretRef": {"name": "s"}}}]}]);
        let contents = contents(&[
            ("Secret/s/username", b"hush:"),
            ("Secret/s/password", b"hush"),
        ]);
        let found = config(&registry).check(&Policy::default(), &contents);
        assert_eq!(found[0].excerpt, "5 bytes");
        let rendered = format!("{:?} {found:?}", config(&registry).render(&contents));
        assert!(
            !rendered.contains("hush") && !rendered.contains("aHVzaD"),
            "{rendered}"
        );
    }
}
