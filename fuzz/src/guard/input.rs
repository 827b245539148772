//! How an input is written: JSON, `{"config": .., "contents": .., "policy": ..}`, or lines of a
//! kind and a value as in `fixtures/injection/`.
//!
//! A value is a JSON string or else the line's rest as it is; `{CA}` in it stands for a
//! certificate, which no fuzzer comes upon. A line is about the last thing that was begun: `path`
//! begins a file, `host` a registry, `url` a mirror of it. A line that does not fit says nothing,
//! so that most inputs mean something.

use edict_core::config::certificates::CaCertificate;
use edict_core::config::commands::CommandRun;
use edict_core::config::containerd::{Capability, Mirror, Registry};
use edict_core::config::files::{File, FileOwner, Files};
use edict_core::config::firewall::Allow;
use edict_core::config::hosts::HostEntry;
use edict_core::config::limits::{Limit, LimitItem, LimitType};
use edict_core::config::modules::Module;
use edict_core::config::ntp::TimeClient;
use edict_core::config::probes::{Http, Probe};
use edict_core::config::units::UnitSettings;
use edict_core::config::{Config, Containerd, CredentialsSource, Docker, Proxy, ProxyUser, Sysctl};
use edict_core::content::{Content, Contents, KeyRef, Kind, Reference, SecretRef, Source};
use edict_core::guard::Policy;
use serde::Deserialize;

use super::PLANTED;

const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Input {
    pub config: Config,
    pub contents: Contents,
    pub policy: Policy,
}

pub fn read(whole: &str) -> Input {
    let mut input = serde_json::from_str(whole).unwrap_or_else(|_| {
        let mut input = Input::default();
        for line in whole.split('\n') {
            if let Some((kind, value)) = line.split_once(' ') {
                input.take(kind, value_of(value));
            }
        }
        input
    });
    for (reference, content) in &mut input.contents.0 {
        if reference.kind == Kind::Secret {
            content.bytes.extend_from_slice(PLANTED.as_bytes());
        }
    }
    input
}

pub fn value_of(text: &str) -> String {
    let value = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    value.replace("{CA}", CA)
}

impl Input {
    fn take(&mut self, kind: &str, value: String) {
        let docker = &mut self.config.docker;
        match kind {
            "mirror" => {
                let docker = docker.get_or_insert_with(Docker::default);
                docker.registry_mirrors.get_or_insert_default().push(value);
            }
            "registry" => {
                let docker = docker.get_or_insert_with(Docker::default);
                let registries = docker.insecure_registries.get_or_insert_default();
                registries.push(value);
            }
            "path" => self
                .config
                .files
                .get_or_insert_with(Files::default)
                .0
                .push(file(value)),
            "content" => self.file().content = Some(value),
            "content-from" => {
                let file = self.file();
                file.content = None;
                file.content_from = Some(source(&value));
            }
            "mode" => self.file().mode = Some(value),
            "owner" => {
                let mut numbers = value.split(' ').map(|number| number.parse().unwrap_or(0));
                self.file().owner = Some(FileOwner {
                    uid: numbers.next().unwrap_or(0),
                    gid: numbers.next().unwrap_or(0),
                });
            }
            "host" => {
                let containerd = self
                    .config
                    .containerd
                    .get_or_insert_with(Containerd::default);
                let registries = containerd.registries.get_or_insert_default();
                registries.push(Registry {
                    host: value,
                    server: None,
                    mirrors: None,
                });
            }
            "server" | "url" => {
                if let Some(registry) = self.registry() {
                    if kind == "server" {
                        registry.server = Some(value);
                    } else {
                        registry.mirrors.get_or_insert_default().push(mirror(value));
                    }
                }
            }
            "sysctl" => {
                let Some((key, value)) = value.split_once(' ') else {
                    return;
                };
                let sysctl = self.config.sysctl.get_or_insert_with(Sysctl::default);
                sysctl.0.insert(key.to_owned(), value.to_owned());
            }
            "proxy" => self.proxy().https = Some(value),
            "proxy-http" => self.proxy().http = Some(value),
            "no-proxy" => self.proxy().no_proxy.get_or_insert_default().push(value),
            "proxy-user" => {
                let user = match value.as_str() {
                    "Containerd" => ProxyUser::Containerd,
                    "Kubelet" => ProxyUser::Kubelet,
                    "Environment" => ProxyUser::Environment,
                    _ => ProxyUser::Docker,
                };
                self.proxy().applies_to.push(user);
            }
            "proxy-credentials" => {
                let secret_ref = SecretRef { name: value };
                self.proxy().credentials_from = Some(CredentialsSource { secret_ref });
            }
            "put" => {
                let Some((reference, bytes)) = value.split_once(' ') else {
                    return;
                };
                if let Ok(reference) = reference.parse() {
                    let content = Content::new(b"key", value_of(bytes).into_bytes());
                    self.contents.0.insert(reference, content);
                }
            }
            "address" | "host-name" | "time-server" | "name-server" | "search-domain"
            | "module" | "limit" | "unit-setting" | "trusted" | "probe" | "range" => {
                self.plain(kind, &value);
            }
            "run" | "with" => self.command(kind, &value),
            "allowed" => self.policy.allowed.push(value),
            "protected" => self.policy.protected.push(value),
            _ => {
                let mirror = self.registry().and_then(|r| r.mirrors.as_mut()?.last_mut());
                if let Some(mirror) = mirror {
                    take(mirror, kind, value);
                }
            }
        }
    }

    /// A command of [`catalogue`](super::command::catalogue), and values of its parameters.
    fn command(&mut self, kind: &str, value: &str) {
        if self.policy.commands.is_empty() {
            self.policy.commands = super::command::catalogue();
        }
        let commands = &mut self.config.commands.get_or_insert_default().0;
        if kind == "run" {
            commands.push(CommandRun {
                run: value.to_owned(),
                ..CommandRun::default()
            });
        } else if let Some((last, (name, value))) = commands.last_mut().zip(value.split_once(' ')) {
            let with = last.with.get_or_insert_default();
            with.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Values of blocks that have a form of their own for each: names and values stand behind one
    /// another.
    fn plain(&mut self, kind: &str, value: &str) {
        let (first, rest) = value.split_once(' ').unwrap_or((value, "1"));
        let config = &mut self.config;
        let last =
            |list: &mut Option<Vec<String>>| list.get_or_insert_default().push(value.to_owned());
        match kind {
            "address" => {
                let names = Vec::new();
                let address = value.to_owned();
                let hosts = config.hosts.get_or_insert_default();
                hosts.0.push(HostEntry { address, names });
            }
            "host-name" => {
                let entry = config.hosts.as_mut().and_then(|hosts| hosts.0.last_mut());
                if let Some(entry) = entry {
                    entry.names.push(value.to_owned());
                }
            }
            "time-server" => {
                let ntp = config.ntp.get_or_insert_default();
                ntp.applies_to = vec![TimeClient::Chrony, TimeClient::Timesyncd];
                last(&mut ntp.servers);
            }
            "name-server" => last(&mut config.dns.get_or_insert_default().servers),
            "search-domain" => last(&mut config.dns.get_or_insert_default().domains),
            "module" => {
                let parameter = value
                    .split_once(' ')
                    .and_then(|(_, rest)| rest.split_once('='));
                let parameters =
                    parameter.map(|(name, value)| [(name.to_owned(), value.to_owned())].into());
                let name = first.to_owned();
                let modules = config.modules.get_or_insert_default();
                modules.0.push(Module { name, parameters });
            }
            "range" => {
                let firewall = config.firewall.get_or_insert_default();
                firewall.allow.get_or_insert_default().push(Allow {
                    from: Some(vec![value.to_owned()]),
                    ports: None,
                });
            }
            "probe" => {
                let http = Http {
                    port: 80,
                    path: Some(value.to_owned()),
                    status: None,
                };
                let probe = Probe {
                    http: Some(http),
                    ..Probe::default()
                };
                config.probes.get_or_insert_default().0.push(probe);
            }
            "limit" => config.limits.get_or_insert_default().0.push(Limit {
                domain: first.to_owned(),
                kind: LimitType::Both,
                item: LimitItem::Nofile,
                value: rest.to_owned(),
            }),
            "unit-setting" => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "1"));
                let unit = first.to_owned();
                let settings = [(name.to_owned(), value.to_owned())].into();
                let units = config.units.get_or_insert_default();
                units.0.push(UnitSettings { unit, settings });
            }
            _ => {
                let ca = Some(value.to_owned());
                let trusted = config.ca_certificates.get_or_insert_default();
                trusted
                    .certificates
                    .push(CaCertificate { ca, ca_from: None });
            }
        }
    }

    fn file(&mut self) -> &mut File {
        let files = &mut self.config.files.get_or_insert_with(Files::default).0;
        if files.is_empty() {
            files.push(file("/etc/motd".to_owned()));
        }
        let last = files.len() - 1;
        &mut files[last]
    }

    fn proxy(&mut self) -> &mut Proxy {
        self.config.proxy.get_or_insert(Proxy {
            applies_to: Vec::new(),
            http: None,
            https: None,
            no_proxy: None,
            credentials_from: None,
        })
    }

    fn registry(&mut self) -> Option<&mut Registry> {
        let containerd = self.config.containerd.as_mut()?;
        containerd.registries.as_mut()?.last_mut()
    }
}

fn take(mirror: &mut Mirror, kind: &str, value: String) {
    match kind {
        "capability" => {
            let capability = match value.as_str() {
                "Pull" => Capability::Pull,
                "Resolve" => Capability::Resolve,
                _ => Capability::Push,
            };
            mirror.capabilities.get_or_insert_default().push(capability);
        }
        "ca" => mirror.ca = Some(value),
        "ca-from" => mirror.ca_from = Some(source(&value)),
        "credentials-from" => {
            let secret_ref = SecretRef { name: value };
            mirror.credentials_from = Some(CredentialsSource { secret_ref });
        }
        "skip-verify" => mirror.skip_verify = Some(value == "true"),
        "override-path" => mirror.override_path = Some(value == "true"),
        _ => {}
    }
}

fn file(path: String) -> File {
    File {
        path,
        content: Some(String::new()),
        content_from: None,
        mode: None,
        owner: None,
        notify: None,
    }
}

fn mirror(url: String) -> Mirror {
    Mirror {
        url,
        capabilities: None,
        ca: None,
        ca_from: None,
        credentials_from: None,
        skip_verify: None,
        override_path: None,
    }
}

/// A source of which both or neither is given where `text` is no reference.
fn source(text: &str) -> Source {
    let given = |kind| {
        let reference = text.parse::<Reference>().ok()?;
        let Reference { name, key, .. } = reference;
        (reference.kind == kind).then_some(KeyRef { name, key })
    };
    Source {
        config_map_key_ref: given(Kind::ConfigMap),
        secret_key_ref: given(Kind::Secret),
    }
}
