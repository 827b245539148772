//! `proxy`: the proxy that daemons of a node, and its users, reach the world by.
//!
//! A daemon gets it by a drop-in of its unit that names a file of variables. Not by `Environment=` in
//! the drop-in: what stands there everybody on the node may ask systemd for, passwords included
//! (systemd.exec(5), `Environment=`), and what comes from such a file overrides it, wherever it stands.
//! The drop-in reads on where the file is not there (`-`), as after a cut in the middle of a change: a
//! kubelet that does not start can't be mended by a pod.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Block, CredentialsSource, Daemon};
use crate::content::{Contents, Reference};
use crate::format::Format;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{File, KeyPath, Keys, Resource, Unit};

/// Where every user's variables are. Source: environment(5), pam_env(8).
pub const ENVIRONMENT: &str = "/etc/environment";
/// The folder of the files of variables.
pub const FOLDER: &str = "/etc/edict/proxy";
/// The last of a unit's drop-ins: they are read in the order of their names. Source: systemd.unit(5).
pub const DROP_IN: &str = "zz-edict-proxy.conf";

/// A proxy, and who uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.http) || has(self.https)", "message": "give http, https or both"},
]))]
pub struct Proxy {
    /// Who uses the proxy: Docker, Containerd and Kubelet are restarted for it, where they are on the
    /// node and spec.restarts allows it; Environment is /etc/environment, which people and programs
    /// have that log in from then on.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub applies_to: Vec<ProxyUser>,
    /// The proxy for plain HTTP, a URL with http, https or socks5 and a host, for example
    /// "http://proxy.example.com:3128". A user name and a password in it can be read by whoever may read
    /// this NodeConfig and, with Environment, by everybody on the node: credentialsFrom keeps them out of
    /// both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = url_rules()))]
    pub http: Option<String>,
    /// The proxy for HTTPS, which nearly everything is. A URL as that for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = url_rules()))]
    pub https: Option<String>,
    /// What is reached without the proxy: domains, .domains, addresses and ranges of addresses, or *
    /// alone. The cluster's own addresses belong here, those of its API server, its nodes, pods and
    /// services: what needs them goes to the proxy otherwise, the kubelet included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub no_proxy: Option<Vec<String>>,
    /// User name and password for the proxy. Not with Environment, which everybody on the node may
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_from: Option<CredentialsSource>,
}

/// What the API server asks of the URL of a proxy.
fn url_rules() -> Value {
    json!([{
        "rule": "self.matches('^(https?|socks5)://[^/?#]')",
        "message": "must be a URL that begins with http://, https:// or socks5:// and names a host",
    }])
}

/// Who uses a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ProxyUser {
    /// The Docker daemon, when it pulls images.
    Docker,
    /// containerd, when it pulls images.
    Containerd,
    /// The kubelet, and what it runs: the credential providers of clouds.
    Kubelet,
    /// /etc/environment.
    Environment,
}

impl ProxyUser {
    fn daemon(self) -> Option<Daemon> {
        match self {
            Self::Docker => Some(Daemon::Docker),
            Self::Containerd => Some(Daemon::Containerd),
            Self::Kubelet => Some(Daemon::Kubelet),
            Self::Environment => None,
        }
    }

    /// The files that a daemon has the proxy from: the file of variables, and the drop-in that names it.
    fn files(daemon: Daemon) -> [String; 2] {
        let (name, unit) = (daemon.name(), daemon.unit());
        [
            format!("{FOLDER}/{name}.env"),
            format!("/etc/systemd/system/{unit}.d/{DROP_IN}"),
        ]
    }

    fn word(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Containerd => "Containerd",
            Self::Kubelet => "Kubelet",
            Self::Environment => "Environment",
        }
    }
}

impl Block for Proxy {
    fn check(&self, policy: &Policy, contents: &Contents, found: &mut Findings) {
        let mut users = HashSet::new();
        for user in &self.applies_to {
            if !users.insert(user) {
                found.add("appliesTo", &rule::DUPLICATE, user.word());
            }
            let paths = match user.daemon() {
                Some(daemon) => ProxyUser::files(daemon).to_vec(),
                None => vec![ENVIRONMENT.to_owned()],
            };
            for path in paths {
                found.place("appliesTo", &path, policy);
            }
        }
        if self.http.is_none() && self.https.is_none() {
            found.add("http", &rule::CONTENT_SOURCE, "neither http nor https");
        }
        for (name, url) in [("http", &self.http), ("https", &self.https)] {
            let Some(url) = url else { continue };
            // What it has of credentials is judged by rules of its own.
            for rule in value::proxy(url) {
                found.add(name, rule, url);
            }
            if self.credentials_from.is_some() && url.contains('@') {
                found.add(name, &rule::CREDENTIALS_TWICE, url);
            }
        }
        found.each("noProxy", self.no_proxy.as_ref(), value::no_proxy);
        if let Some(from) = &self.credentials_from {
            found.within("credentialsFrom", |found| {
                from.check(contents, found);
            });
            if users.contains(&ProxyUser::Environment) {
                let open = &rule::CREDENTIALS_OPEN;
                found.add("credentialsFrom", open, ENVIRONMENT);
            }
        }
    }

    fn references(&self) -> Vec<Reference> {
        let from = self.credentials_from.iter();
        from.flat_map(CredentialsSource::references).collect()
    }

    fn render(&self, contents: &Contents) -> Vec<Resource> {
        let variables = self.variables(contents);
        let mut resources = Vec::new();
        for user in &self.applies_to {
            let Some(daemon) = user.daemon() else {
                resources.push(Resource::Keys(environment(&variables)));
                continue;
            };
            let [variables_at, drop_in] = ProxyUser::files(daemon);
            let lines = variables
                .iter()
                .map(|(name, value)| format!("{name}={}\n", quoted(value)));
            let named = format!("[Service]\nEnvironmentFile=-{variables_at}\n");
            resources.extend([
                Resource::File(File {
                    mode: Some(if self.has_credentials() { 0o600 } else { 0o644 }),
                    secret: self.credentials_from.is_some(),
                    ..File::text(&variables_at, lines.collect())
                }),
                Resource::text(&drop_in, named),
                Resource::Unit(Unit::restarted(daemon.unit(), &[&variables_at, &drop_in])),
            ]);
        }
        resources
    }
}

impl Proxy {
    fn has_credentials(&self) -> bool {
        let urls = [&self.http, &self.https];
        let inline = |url: &&Option<String>| url.as_ref().is_some_and(|url| url.contains('@'));
        self.credentials_from.is_some() || urls.iter().any(inline)
    }

    /// The variables, by the names that all programs of Go read. Source: golang.org/x/net/http/httpproxy.
    fn variables(&self, contents: &Contents) -> Vec<(&'static str, String)> {
        let credentials = self.credentials(contents);
        let url = |url: &Option<String>| {
            let url = url.as_ref()?;
            let inner = credentials.as_ref().zip(url.split_once("://"));
            Some(inner.map_or_else(
                || url.clone(),
                |(credentials, (scheme, rest))| format!("{scheme}://{credentials}@{rest}"),
            ))
        };
        let exceptions = self.no_proxy.as_ref().filter(|list| !list.is_empty());
        [
            ("HTTP_PROXY", url(&self.http)),
            ("HTTPS_PROXY", url(&self.https)),
            ("NO_PROXY", exceptions.map(|list| list.join(","))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// User name and password as a URL has them.
    fn credentials(&self, contents: &Contents) -> Option<String> {
        let pair = self.credentials_from.as_ref()?.pair(contents)?;
        Some(
            pair.map(|part| percent_encode(part, NON_ALPHANUMERIC).to_string())
                .join(":"),
        )
    }
}

/// A value as systemd reads it from a file of variables: in quotes where there is more in it than
/// there is in a URL. Source: systemd.exec(5), `EnvironmentFile=`.
fn quoted(value: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?[]@!*+,=%".contains(c);
    if value.chars().all(plain) {
        return Cow::Borrowed(value);
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("\"{escaped}\""))
}

/// The variables as keys of `/etc/environment`, in both of the forms that programs read.
fn environment(variables: &[(&'static str, String)]) -> Keys {
    let both = variables.iter().flat_map(|(name, value)| {
        let names = [(*name).to_owned(), name.to_lowercase()];
        names.map(|name| (KeyPath::top(&name), Value::from(value.clone())))
    });
    Keys {
        path: ENVIRONMENT.to_owned(),
        format: Format::Environment,
        values: both.collect(),
        elsewhere: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::content::Content;

    fn config(proxy: &Value) -> Config {
        serde_json::from_value(json!({"proxy": proxy})).unwrap()
    }

    fn said(proxy: &Value, contents: &Contents) -> Vec<String> {
        let found = config(proxy).check(&Policy::default(), contents);
        let said = found.iter().map(|v| format!("{} {}", v.field, v.rule));
        said.collect()
    }

    fn secret(username: &str, password: &str) -> Contents {
        let pair = [("username", username), ("password", password)];
        let content = |(key, text): (&str, &str)| {
            let reference = format!("Secret/proxy/{key}").parse().unwrap();
            (reference, Content::new(b"key", text.as_bytes().to_vec()))
        };
        Contents(pair.map(content).into())
    }

    /// Files with their permissions, keys, and units.
    fn rendered(proxy: &Value, contents: &Contents) -> Vec<String> {
        let resources = config(proxy).render(contents).into_iter();
        let lines = resources.map(|(_, resource)| match resource {
            Resource::File(file) => format!(
                "{} {:o} {} {}",
                file.path,
                file.mode.unwrap_or_default(),
                file.secret,
                String::from_utf8(file.content).unwrap(),
            ),
            Resource::Keys(keys) => {
                let values = keys.values.iter();
                let values = values.map(|(key, value)| format!("{key}={value}"));
                format!("{} {}", keys.path, values.collect::<Vec<_>>().join(" "))
            }
            Resource::Unit(unit) => format!("{} {} {}", unit.name, unit.action, unit.gone),
            Resource::Live(_) | Resource::Setting(_) => String::new(),
        });
        lines.collect()
    }

    #[test]
    fn a_daemon_has_a_drop_in_that_names_a_file() {
        let proxy = json!({
            "appliesTo": ["Docker", "Kubelet"],
            "http": "http://proxy.example.com:3128",
            "https": "http://user:p%40ss@proxy.example.com:3128",
            "noProxy": [".svc", "10.0.0.0/8"],
        });
        assert_eq!(said(&proxy, &Contents::default()), [""; 0]);
        let variables = "HTTP_PROXY=http://proxy.example.com:3128\n\
                         HTTPS_PROXY=http://user:p%40ss@proxy.example.com:3128\n\
                         NO_PROXY=.svc,10.0.0.0/8\n";
        let of = |unit: &str| {
            [
                format!("/etc/edict/proxy/{unit}.env 600 false {variables}"),
                format!(
                    "/etc/systemd/system/{unit}.service.d/zz-edict-proxy.conf 0 false \
                     [Service]\nEnvironmentFile=-/etc/edict/proxy/{unit}.env\n"
                ),
                format!("{unit}.service restart restart"),
            ]
        };
        let expected = [of("docker"), of("kubelet")].concat();
        assert_eq!(rendered(&proxy, &Contents::default()), expected);
    }

    #[test]
    fn the_environment_has_both_forms_and_all_may_read_it() {
        let proxy = json!({"appliesTo": ["Environment"], "https": "http://a:1", "noProxy": []});
        assert_eq!(
            rendered(&proxy, &Contents::default()),
            ["/etc/environment HTTPS_PROXY=\"http://a:1\" https_proxy=\"http://a:1\""]
        );
    }

    #[test]
    fn credentials_stand_in_the_url_as_it_can_have_them() {
        let from = json!({"secretRef": {"name": "proxy"}});
        let proxy =
            json!({"appliesTo": ["Containerd"], "https": "http://a:1", "credentialsFrom": from});
        let contents = secret("us er", "p@:/%$\"'\\é");
        assert_eq!(said(&proxy, &contents), [""; 0]);
        let lines = rendered(&proxy, &contents);
        let url = "http://us%20er:p%40%3A%2F%25%24%22%27%5C%C3%A9@a:1";
        assert_eq!(
            lines[0],
            format!("/etc/edict/proxy/containerd.env 600 true HTTPS_PROXY={url}\n")
        );
        // And it would be let through as such.
        assert_eq!(value::proxy(url), [] as [&rule::Rule; 0]);
        let references = config(&proxy).references().into_iter();
        let references: Vec<_> = references.map(|one| one.to_string()).collect();
        assert_eq!(
            references,
            ["Secret/proxy/password", "Secret/proxy/username"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let from = json!({"secretRef": {"name": "proxy"}});
        for (proxy, violations) in [
            (
                json!({"appliesTo": ["Docker"]}),
                vec!["proxy.http content-source"],
            ),
            (
                json!({"appliesTo": ["Docker", "Docker"], "http": "http://a"}),
                vec!["proxy.appliesTo duplicate"],
            ),
            (
                json!({"appliesTo": ["Docker"], "http": "http://a/b", "https": "ftp://a"}),
                vec!["proxy.http url-path", "proxy.https url-scheme"],
            ),
            (
                json!({"appliesTo": ["Docker"], "http": "http://a", "noProxy": ["b", "c d"]}),
                vec!["proxy.noProxy[1] no-proxy", "proxy.noProxy[1] blank"],
            ),
            (
                json!({"appliesTo": ["Docker"], "http": "http://u:p@a", "credentialsFrom": from}),
                vec!["proxy.http credentials-twice"],
            ),
            (
                json!({"appliesTo": ["Environment"], "http": "http://a", "credentialsFrom": from}),
                vec!["proxy.credentialsFrom credentials-open"],
            ),
        ] {
            assert_eq!(said(&proxy, &secret("u", "p")), violations, "{proxy}");
        }
        let proxy = json!({"appliesTo": ["Docker"], "http": "http://a", "credentialsFrom": from});
        let missing = "proxy.credentialsFrom.secretRef reference-missing";
        assert_eq!(said(&proxy, &Contents::default()), [missing, missing]);
        let policy = Policy {
            protected: vec![ENVIRONMENT.to_owned(), "/etc/systemd".to_owned()],
            ..Policy::default()
        };
        let proxy = json!({"appliesTo": ["Docker", "Environment"], "http": "http://a"});
        let found = config(&proxy).check(&policy, &Contents::default());
        let rules: Vec<_> = found.iter().map(|v| (&*v.rule, &*v.excerpt)).collect();
        let drop_in = "/etc/systemd/system/docker.service.d/zz-edict-proxy.conf";
        let protected = "path-protected";
        assert_eq!(rules, [(protected, drop_in), (protected, ENVIRONMENT)]);
    }
}
