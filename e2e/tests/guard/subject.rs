//! A value of some kind as the guard gets it: in a configuration where there is a block for it,
//! by itself where there is none.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::config::{Config, files};
use edict_core::content::{Content, Contents, Kind, Reference};
use edict_core::guard::{Policy, Violation};
use serde_json::{Value, json};

/// A certificate for where one is needed.
pub const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

/// The paths of `fixtures/fleet.yaml`, and a command for each type of parameter.
pub fn policy() -> Policy {
    let of = |name: &str, parameter: Value| {
        let argv = json!(["/usr/bin/x", "-a$(p)", "$(p)", "b"]);
        json!({"name": name, "argv": argv, "parameters": [parameter]})
    };
    let commands = json!([
        {
            "name": "vacuum-journal",
            "argv": ["/usr/bin/journalctl", "--vacuum-size=$(size)M"],
            "parameters": [{"name": "size", "integer": {"min": 10, "max": 500}}],
        },
        {"name": "broken", "argv": ["journalctl"]},
        of("integer", json!({"name": "p", "integer": {"min": 10, "max": 500}})),
        of("enum", json!({"name": "p", "enum": ["nginx.service", "a b", ""]})),
        of("pattern", json!({"name": "p", "pattern": "[-a-zA-Z0-9@:._/]+|.*é.*"})),
        of("path", json!({"name": "p", "path": {"under": ["/var/log"]}})),
        // Whatever the rules for all texts let through.
        of("any", json!({"name": "p", "pattern": "(?s).*"})),
    ]);
    Policy {
        allowed: vec!["/etc/edict-samples".to_owned()],
        protected: vec!["/etc/edict-samples/locked".to_owned()],
        commands: serde_json::from_value(commands).expect("a catalogue"),
    }
}

/// A configuration and what it refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    pub config: Config,
    pub contents: Contents,
}

impl Subject {
    pub fn check(&self, policy: &Policy) -> Vec<Violation> {
        self.config.check(policy, &self.contents)
    }

    pub fn is_let_through(&self) -> bool {
        self.check(&policy()).is_empty()
    }
}

/// The names of the rules that refuse a value; none when it is let through.
pub fn rules(kind: &str, value: &Value) -> BTreeSet<String> {
    let found = subject(kind, value).check(&policy());
    found.into_iter().map(|violation| violation.rule).collect()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| unreachable!("{value} is no text"))
}

/// The configuration that has `value` where its kind belongs.
pub fn subject(kind: &str, value: &Value) -> Subject {
    let size = || usize::try_from(value.as_u64().expect("a number")).expect("it fits");
    match kind {
        "mirror" => of(json!({"docker": {"registryMirrors": [value]}})),
        "mirror-of" => {
            let start = "https://host/";
            subject(
                "mirror",
                &json!(format!("{start}{}", "x".repeat(size() - start.len()))),
            )
        }
        "registry" => of(json!({"docker": {"insecureRegistries": [value]}})),
        "path" => of(json!({"files": [{"path": value, "content": ""}]})),
        "path-of" => {
            let mut path = "/etc/edict".to_owned();
            while path.len() < size() {
                // A name is 255 bytes at most, and none may be empty.
                let room = size() - path.len() - 1;
                let name = if room > 200 { 100 } else { room };
                path.push('/');
                path.push_str(&"x".repeat(name));
            }
            subject("path", &json!(path))
        }
        "mode" => of(json!({"files": [{"path": "/etc/motd", "content": "", "mode": value}]})),
        "unit" => of(
            json!({"files": [{"path": "/etc/motd", "content": "", "notify": [{"unit": value, "action": "Reload"}]}]}),
        ),
        "size" => of(json!({"docker": {"logOptions": {"maxSize": value}}})),
        "proxy" => proxy(&json!({"https": value})),
        "address" => of(json!({"hosts": [{"address": value, "names": ["a"]}]})),
        "host-name" => of(json!({"hosts": [{"address": "10.0.0.1", "names": [value]}]})),
        "time-server" => {
            of(json!({"ntp": {"appliesTo": ["Chrony", "Timesyncd"], "servers": [value]}}))
        }
        "name-server" => of(json!({"dns": {"servers": [value]}})),
        "search-domain" => of(json!({"dns": {"domains": [value]}})),
        "limit-domain" => limit(value, &json!("1")),
        "limit-value" => limit(&json!("*"), value),
        "module" => of(json!({"modules": [{"name": value}]})),
        "module-value" => of(json!({"modules": [{"name": "a", "parameters": {"b": value}}]})),
        "unit-setting" => service(text(value), &json!("1")),
        "unit-value" => service("LimitNOFILE", value),
        "command" => of(json!({"commands": [{"run": value}]})),
        "command-again" => {
            let run = json!({"run": "vacuum-journal", "with": {"size": "10"}, "again": value});
            of(json!({"commands": [run]}))
        }
        "command-integer" | "command-enum" | "command-pattern" | "command-path" | "command-any" => {
            let run = kind.trim_start_matches("command-");
            of(json!({"commands": [{"run": run, "with": {"p": value}}]}))
        }
        "address-range" => of(json!({"firewall": {"allow": [{"from": [value]}]}})),
        "probe-path" => of(json!({"probes": [{"http": {"port": 80, "path": value}}]})),
        "sysctl-key" => of(json!({"sysctl": {text(value): "1"}})),
        "sysctl-value" => of(json!({"sysctl": {"vm.swappiness": value}})),
        "no-proxy" => subject("no-proxy-list", &json!([value])),
        "no-proxy-list" => proxy(&json!({"http": "http://proxy", "noProxy": value})),
        "content-size" => file(&"x".repeat(size())),
        "content-total" => {
            let limit = files::CONTENT_MAX;
            let sizes = (0..=size() / limit).map(|n| (size() - n * limit).min(limit));
            let files: Vec<_> = (1..)
                .zip(sizes)
                .map(|(n, size)| json!({"path": format!("/etc/edict/{n}"), "content": "x".repeat(size)}))
                .collect();
            of(json!({"files": files}))
        }
        "host" => of(json!({"containerd": {"registries": [{"host": value}]}})),
        "url" => mirror(&json!({"url": value})),
        "ca" => mirror(&json!({"url": "https://mirror.example.com", "ca": value})),
        "credentials" => {
            let from = json!({"secretRef": {"name": "credentials"}});
            let mirror =
                mirror(&json!({"url": "https://mirror.example.com", "credentialsFrom": from}));
            let bytes = |key| text(&value[key]).as_bytes().to_vec();
            Subject {
                contents: contents(
                    ["username", "password"].map(|key| (secret("credentials", key), bytes(key))),
                ),
                ..mirror
            }
        }
        "reference" => referring(value, Some(1)),
        "missing" => referring(value, None),
        "reference-size" => referring(&json!({"name": "large", "key": "k"}), Some(size())),
        "config" => of(value.clone()),
        other => unreachable!("there is no kind {other}"),
    }
}

/// The configuration that `value` says, with something plausible behind everything that it refers to.
fn of(value: Value) -> Subject {
    let config: Config = serde_json::from_value(value).expect("a configuration");
    let behind = config.references().into_iter().map(|reference| {
        let bytes = if reference.key == "ca.crt" {
            CA
        } else {
            "content"
        };
        (reference, bytes.as_bytes().to_vec())
    });
    Subject {
        contents: contents(behind),
        config,
    }
}

fn limit(domain: &Value, value: &Value) -> Subject {
    of(json!({"limits": [{"domain": domain, "type": "Both", "item": "nofile", "value": value}]}))
}

fn service(name: &str, value: &Value) -> Subject {
    of(json!({"units": [{"unit": "kubelet.service", "settings": {name: value}}]}))
}

fn file(content: &str) -> Subject {
    of(json!({"files": [{"path": "/etc/motd", "content": content}]}))
}

fn mirror(mirror: &Value) -> Subject {
    of(json!({"containerd": {"registries": [{"host": "docker.io", "mirrors": [mirror]}]}}))
}

fn proxy(proxy: &Value) -> Subject {
    let mut proxy = proxy.clone();
    proxy["appliesTo"] = json!(["Docker", "Environment"]);
    of(json!({"proxy": proxy}))
}

/// A file whose content is elsewhere; with so many bytes there, or nothing.
fn referring(to: &Value, size: Option<usize>) -> Subject {
    let subject =
        of(json!({"files": [{"path": "/etc/motd", "contentFrom": {"configMapKeyRef": to}}]}));
    let references = subject.config.references().into_iter();
    let behind = size.map(|size| references.map(move |reference| (reference, vec![b'x'; size])));
    Subject {
        contents: contents(behind.into_iter().flatten()),
        ..subject
    }
}

pub fn secret(name: &str, key: &str) -> Reference {
    Reference {
        kind: Kind::Secret,
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

pub fn contents(behind: impl IntoIterator<Item = (Reference, Vec<u8>)>) -> Contents {
    let content = |(reference, bytes)| (reference, Content::new(b"key of these tests", bytes));
    Contents(behind.into_iter().map(content).collect::<BTreeMap<_, _>>())
}
