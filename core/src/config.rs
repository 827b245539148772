//! The kinds of configuration, each one file: its typed block (which is also its part of the CRD's
//! schema), its rules, and how it is rendered to resources.

mod authority;
pub mod certificates;
pub mod commands;
pub mod containerd;
mod credentials;
mod daemon;
pub mod dns;
pub mod docker;
pub mod files;
pub mod firewall;
pub mod hosts;
pub mod limits;
pub mod modules;
mod notify;
pub mod ntp;
pub mod probes;
pub mod proxy;
pub mod sysctl;
pub mod units;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalogue::Program;
use crate::content::{Contents, Kind, Reference, Source};
use crate::guard::{Findings, Policy, Violation, rule, value};
use crate::resource::{Resource, is_under};

pub use certificates::CaCertificates;
pub use commands::Commands;
pub use containerd::Containerd;
pub use credentials::CredentialsSource;
pub use daemon::Daemon;
pub use dns::Dns;
pub use docker::Docker;
pub use files::Files;
pub use firewall::Firewall;
pub use hosts::Hosts;
pub use limits::Limits;
pub use modules::Modules;
pub use notify::{Notify, NotifyAction};
pub use ntp::Ntp;
pub use probes::Probes;
pub use proxy::{Proxy, ProxyUser};
pub use sysctl::Sysctl;
pub use units::Units;

/// Every kind of configuration that a `NodeConfig` can carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Certificates of authorities that the node trusts, in the bundle that its programs read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<CaCertificates>,
    // kubectl explain shows the type's own text.
    /// Commands of the Fleet's catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Commands>,
    /// Registries of containerd, one folder of /etc/containerd/certs.d for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<Containerd>,
    /// Name servers, which systemd-resolved asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Settings of the Docker daemon, as keys of /etc/docker/daemon.json. Keys that are not named
    /// here stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// Whole files under /etc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Who may reach the node itself: a table of nftables, beside those that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// Names that the node finds without a name server, as lines of /etc/hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Hosts>,
    /// How much of the machine those have who log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Modules of the kernel and their parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Modules>,
    /// Time servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntp: Option<Ntp>,
    // kubectl explain shows the type's own text.
    /// What has to hold on a node once this is in force there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// The proxy by which daemons of the node, and who logs in there, reach the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Settings of the kernel, which it has at once and after each start. When the NodeConfig goes,
    /// each is set to what it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<Sysctl>,
    /// Settings of systemd services: limits, memory, weights, times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Units>,
}

/// The most bytes that one configuration may refer to: they are kept in one Secret, and
/// Kubernetes has no larger ones (`MaxSecretSize`).
pub const REFERRED_MAX: usize = 1024 * 1024;

/// What each kind of configuration can do.
trait Block {
    /// Reports everything that is wrong with the block.
    fn check(&self, policy: &Policy, contents: &Contents, found: &mut Findings);
    /// What the block refers to.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
    /// The fields of it that agents have not known from the start, with the block's name before them.
    fn fields(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// What the block wants of a host. Called on blocks that passed `check`.
    fn render(&self, contents: &Contents) -> Vec<Resource>;
}

/// Judges a reference, and whether there is anything behind it. Answers with its content.
fn source<'a>(source: &Source, contents: &'a Contents, found: &mut Findings) -> Option<&'a [u8]> {
    let Some(reference) = source.reference() else {
        found.add("", &rule::CONTENT_SOURCE, "both or neither");
        return None;
    };
    let field = match reference.kind {
        Kind::ConfigMap => "configMapKeyRef",
        Kind::Secret => "secretKeyRef",
    };
    referred(field, &reference, contents, found)
}

fn referred<'a>(
    field: &str,
    reference: &Reference,
    contents: &'a Contents,
    found: &mut Findings,
) -> Option<&'a [u8]> {
    let shown = reference.to_string();
    let broken = value::reference(reference);
    for rule in &broken {
        found.add(field, rule, &shown);
    }
    let content = contents.get(reference);
    // What has no possible name can't be there either.
    if content.is_none() && broken.is_empty() {
        found.add(field, &rule::REFERENCE_MISSING, &shown);
    }
    content
}

impl Config {
    /// The names of the blocks that this release knows, as an agent's hello says them.
    pub const BLOCKS: [&str; 14] = [
        "caCertificates",
        "commands",
        "containerd",
        "dns",
        "docker",
        "files",
        "firewall",
        "hosts",
        "limits",
        "modules",
        "ntp",
        "proxy",
        "sysctl",
        "units",
    ];
    /// Everything that this release knows, as an agent's hello says it: blocks, and the fields that
    /// agents have not known from the start.
    pub fn known() -> Vec<String> {
        let blocks = Self::BLOCKS.into_iter();
        let fields = docker::FIELDS.into_iter().chain([files::NOTIFY]);
        let all = blocks.chain(fields).chain([probes::NAME]);
        all.map(ToOwned::to_owned).collect()
    }

    /// What is said of a configuration without any block.
    pub fn nothing() -> String {
        let blocks = Self::BLOCKS.join(", ");
        format!("there is nothing to configure: give one of {blocks}")
    }

    fn blocks(&self) -> impl Iterator<Item = (&'static str, &dyn Block)> {
        fn given<B: Block>(block: Option<&B>) -> Option<&dyn Block> {
            Some(block?)
        }
        let Self {
            ca_certificates,
            commands,
            containerd,
            dns,
            docker,
            files,
            firewall,
            hosts,
            limits,
            modules,
            ntp,
            // Nothing that a host is to have.
            probes: _,
            proxy,
            sysctl,
            units,
        } = self;
        [
            ("caCertificates", given(ca_certificates.as_ref())),
            ("commands", given(commands.as_ref())),
            ("containerd", given(containerd.as_ref())),
            ("dns", given(dns.as_ref())),
            ("docker", given(docker.as_ref())),
            ("files", given(files.as_ref())),
            ("firewall", given(firewall.as_ref())),
            ("hosts", given(hosts.as_ref())),
            ("limits", given(limits.as_ref())),
            ("modules", given(modules.as_ref())),
            ("ntp", given(ntp.as_ref())),
            ("proxy", given(proxy.as_ref())),
            ("sysctl", given(sysctl.as_ref())),
            ("units", given(units.as_ref())),
        ]
        .into_iter()
        .filter_map(|(name, block)| Some((name, block?)))
    }

    /// The names of the blocks that are given here.
    pub fn block_names(&self) -> impl Iterator<Item = &'static str> {
        self.blocks().map(|(name, _)| name)
    }

    /// The names of everything here that an agent has to know: blocks, and fields that were not there
    /// from the start.
    pub fn needs(&self) -> impl Iterator<Item = &'static str> {
        let fields = self.blocks().flat_map(|(_, block)| block.fields());
        let probes = self.probes.iter().map(|_| probes::NAME);
        self.block_names().chain(fields).chain(probes)
    }

    /// What this configuration refers to.
    pub fn references(&self) -> BTreeSet<Reference> {
        self.blocks()
            .flat_map(|(_, block)| block.references())
            .collect()
    }

    /// The names of the commands that are run.
    pub fn command_names(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().flat_map(Commands::names)
    }

    /// What is run, in this order. For configurations that passed [`Self::check`] under `policy`.
    pub fn programs(&self, policy: &Policy) -> Vec<Program> {
        let commands = self.commands.as_ref();
        commands.map_or_else(Vec::new, |commands| commands.programs(policy))
    }

    /// Everything that is wrong with this configuration, with what it refers to, under `policy`;
    /// empty when nothing is.
    pub fn check(&self, policy: &Policy, contents: &Contents) -> Vec<Violation> {
        let mut found = Findings::default();
        for (name, block) in self.blocks() {
            found.within(name, |found| block.check(policy, contents, found));
        }
        if let Some(probes) = &self.probes {
            found.within(probes::NAME, |found| probes.check(found));
        }
        let total: usize = contents.0.values().map(|content| content.bytes.len()).sum();
        if total > REFERRED_MAX {
            found.add("", &rule::REFERENCE_SIZE, &format!("{total} bytes"));
        }
        let mut violations = found.into_violations();
        if violations.is_empty() {
            violations = collisions(&self.render(contents));
        }
        violations
    }

    /// What this configuration wants of a host, with the name of the block that it comes from. For
    /// configurations that passed [`Self::check`].
    pub fn render(&self, contents: &Contents) -> Vec<(&'static str, Resource)> {
        let rendered = |(name, block): (&'static str, &dyn Block)| {
            let named = move |resource| (name, resource);
            block.render(contents).into_iter().map(named)
        };
        self.blocks().flat_map(rendered).collect()
    }
}

/// What is wanted of one path, or of one below the other: one of the two would be lost.
fn collisions(resources: &[(&'static str, Resource)]) -> Vec<Violation> {
    let mut places: Vec<_> = resources
        .iter()
        .filter_map(|(block, resource)| match resource {
            Resource::File(file) => Some((&*file.path, false, *block)),
            Resource::Keys(keys) => Some((&*keys.path, true, *block)),
            Resource::Live(_) | Resource::Unit(_) | Resource::Setting(_) => None,
        })
        .collect();
    // By the names in the path: what is under a place comes right behind it.
    places.sort_by_key(|(path, _, block)| (path.split('/').collect::<Vec<_>>(), *block));
    let mut found = Findings::default();
    let mut taken: Option<(&str, bool)> = None;
    for (path, shared, block) in places {
        match taken {
            // Keys of one file don't take it from one another.
            Some((other, true)) if shared && other == path => {}
            Some((other, _)) if other == path || is_under(path, other) => {
                found.add(block, &rule::DUPLICATE, path);
            }
            _ => taken = Some((path, shared)),
        }
    }
    found.into_violations()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::format::Format;
    use crate::resource::Keys;

    /// The fields of a configuration that are wrong, with the rules that they break.
    pub fn said(config: &serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config.clone()).unwrap();
        let found = config.check(&Policy::default(), &Contents::default());
        let said = found.iter().map(|v| format!("{} {}", v.field, v.rule));
        said.collect()
    }

    /// What a configuration is rendered to: files with what they say, keys with their values, units
    /// with what they need.
    pub fn rendered(config: &serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config.clone()).unwrap();
        let resources = config.render(&Contents::default()).into_iter();
        let lines = resources.flat_map(|(_, resource)| match resource {
            Resource::File(file) => {
                let text = String::from_utf8(file.content).unwrap();
                vec![format!("{} {text}", file.path)]
            }
            Resource::Keys(keys) => {
                let values = keys.values.iter();
                let line = |(key, value)| format!("{} {key}={value}", keys.path);
                values.map(line).collect()
            }
            Resource::Unit(unit) => vec![format!("{} {} {}", unit.name, unit.action, unit.gone)],
            Resource::Setting(setting) => vec![setting.contains.to_owned()],
            Resource::Live(live) => vec![format!("{} {}", live.path, live.value)],
        });
        lines.collect()
    }

    #[test]
    fn no_path_is_wanted_twice() {
        let policy = Policy {
            allowed: vec!["/etc/docker/daemon.json".to_owned()],
            protected: Vec::new(),
            ..Policy::default()
        };
        let check = |config: serde_json::Value| {
            let config: Config = serde_json::from_value(config).unwrap();
            let violations = config.check(&policy, &Contents::default());
            let said = |v: &Violation| format!("{} {} {}", v.field, v.rule, v.excerpt);
            violations.iter().map(said).collect::<Vec<_>>()
        };
        let files = |paths: &[&str]| {
            let file = |path| serde_json::json!({"path": path, "content": ""});
            paths.iter().map(file).collect::<serde_json::Value>()
        };
        assert_eq!(
            check(serde_json::json!({"files": files(&[
                "/etc/edict/a/b", "/etc/edict/a-b", "/etc/edict/a", "/etc/edict/a/c/d", "/etc/edict/b",
            ])})),
            [
                "files duplicate /etc/edict/a/b",
                "files duplicate /etc/edict/a/c/d"
            ]
        );
        let hosts = "/etc/containerd/certs.d/docker.io/hosts.toml";
        for path in [hosts, "/etc/containerd/certs.d/docker.io/hosts.toml/x"] {
            let containerd = serde_json::json!({"registries": [{"host": "docker.io"}]});
            assert_eq!(
                check(serde_json::json!({"containerd": containerd, "files": files(&[path])})),
                [format!("files duplicate {path}")]
            );
        }
        let docker = serde_json::json!({"registryMirrors": ["https://mirror.example.com"], "insecureRegistries": ["host"]});
        assert_eq!(
            check(serde_json::json!({"docker": docker})),
            Vec::<String>::new()
        );
        assert_eq!(
            check(
                serde_json::json!({"docker": docker, "files": files(&["/etc/docker/daemon.json"])})
            ),
            ["files duplicate /etc/docker/daemon.json"]
        );
    }

    #[test]
    fn keys_share_a_file_and_nothing_else() {
        let keys = |path: &str| {
            let keys = Keys {
                path: path.into(),
                format: Format::Json,
                values: std::collections::BTreeMap::new(),
                elsewhere: &[],
            };
            ("docker", Resource::Keys(keys))
        };
        assert_eq!(collisions(&[keys("/etc/a"), keys("/etc/a")]), []);
        assert_eq!(collisions(&[keys("/etc/a"), keys("/etc/b")]), []);
        assert_eq!(collisions(&[keys("/etc/a"), keys("/etc/a/b")]).len(), 1);
    }

    #[test]
    fn what_is_referred_to_fits_into_one_secret() {
        let rules = |size: usize| {
            let reference = "ConfigMap/a/k".parse().unwrap();
            let content = Content::new(b"key", vec![0; size]);
            let contents = Contents([(reference, content)].into());
            let violations = Config::default().check(&Policy::default(), &contents);
            violations.into_iter().map(|v| v.rule).collect::<Vec<_>>()
        };
        assert_eq!(rules(1_048_576), [""; 0]);
        assert_eq!(rules(1_048_577), ["reference-size"]);
    }

    #[test]
    fn the_named_blocks_are_those_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let mut names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        names.sort();
        names.retain(|name| *name != probes::NAME);
        assert_eq!(names, Config::BLOCKS);
        let full = Config {
            ca_certificates: Some(CaCertificates::default()),
            commands: Some(Commands::default()),
            containerd: Some(Containerd::default()),
            dns: Some(Dns::default()),
            docker: Some(Docker::default()),
            files: Some(Files::default()),
            firewall: Some(Firewall::default()),
            hosts: Some(Hosts::default()),
            limits: Some(Limits::default()),
            modules: Some(Modules::default()),
            ntp: Some(Ntp::default()),
            probes: Some(Probes::default()),
            proxy: Some(Proxy {
                applies_to: Vec::new(),
                http: None,
                https: None,
                no_proxy: None,
                credentials_from: None,
            }),
            sysctl: Some(Sysctl::default()),
            units: Some(Units::default()),
        };
        assert_eq!(full.block_names().collect::<Vec<_>>(), Config::BLOCKS);
        assert_eq!(Config::default().block_names().count(), 0);
    }
}
