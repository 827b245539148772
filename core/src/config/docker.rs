//! `docker`: keys of the Docker daemon's own file, which other programs and people write to as
//! well. Source of the keys, their forms and which of them the daemon rereads: dockerd(8), "daemon
//! configuration file" and "configuration reload behavior". None that names a program (`runtimes`,
//! `authorization-plugins`, `init-path`), an address to listen on (`hosts`) or where the daemon keeps
//! what it has (`data-root`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Block;
use crate::content::Contents;
use crate::format::Format;
use crate::guard::{Findings, Policy, value};
use crate::resource::{Action, KeyPath, Keys, Place, Resource, Unit};

/// Where the daemon reads its settings.
pub const PATH: &str = "/etc/docker/daemon.json";
/// The unit that has to reread them.
pub const UNIT: &str = "docker.service";

/// The fields that were not there from the start, sorted.
pub(super) const FIELDS: [&str; 11] = [
    "docker.debug",
    "docker.liveRestore",
    "docker.logDriver",
    "docker.logLevel",
    "docker.logOptions",
    "docker.maxConcurrentDownloads",
    "docker.maxConcurrentUploads",
    "docker.maxDownloadAttempts",
    "docker.mtu",
    "docker.shutdownTimeout",
    "docker.userlandProxy",
];

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
    /// Whether the daemon logs everything that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    /// The least that the daemon logs of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Where what containers say goes, unless they say otherwise. Containers that are there keep what
    /// they were made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// How much of what containers say is kept, by the log drivers json-file and local. With another
    /// one Docker does not start, and everything is put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_options: Option<LogOptions>,
    /// Whether containers go on while the daemon is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_restore: Option<bool>,
    /// How many layers of one image are pulled at a time, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_downloads: Option<u32>,
    /// How many layers of one image are pushed at a time, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_uploads: Option<u32>,
    /// How often a pull is tried, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_download_attempts: Option<u32>,
    /// How many seconds containers get to end when the daemon does, 1 to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub shutdown_timeout: Option<u32>,
    /// The most bytes of a packet in containers' networks, 576 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: Option<u32>,
    /// Whether a program stands behind each port of a container, or the kernel alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userland_proxy: Option<bool>,
}

/// The least that the Docker daemon logs of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What it does.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
    /// What it ends for.
    Fatal,
}

/// Where what containers say goes: to a file of JSON or of Docker's own kind, to the journal of
/// systemd, to syslog, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// A file of JSON.
    JsonFile,
    /// A file of Docker's own kind.
    Local,
    /// The journal of systemd.
    Journald,
    /// The syslog of the host.
    Syslog,
    /// Nowhere.
    None,
}

/// How much of what containers say is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogOptions {
    /// How large one file may become: a number and k, m or g, for example "10m".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^[1-9][0-9]*[kmg]$')", "message": "must be a number and k, m or g, for example 10m"},
    ]))]
    pub max_size: Option<String>,
    /// How many files are kept of one container, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_file: Option<u32>,
    /// Whether files that are full are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
}

/// The least that the daemon needs for a key: once it is set, and once it is there no more. Source:
/// dockerd(8), "configuration reload behavior"; moby, daemon/reload.go.
type Needs = (Action, Action);
/// A reload sets it, and resets it.
const RELOAD: Needs = (Action::Reload, Action::Reload);
/// A reload sets it; what the daemon has read once it keeps until it is started anew.
const KEPT: Needs = (Action::Reload, Action::Restart);
/// It is read at the start.
const START: Needs = (Action::Restart, Action::Restart);

/// A key that is set, and what the daemon needs for it.
type Setting = (KeyPath, Value, Needs);

impl Docker {
    /// The keys that are given.
    fn settings(&self) -> Vec<Setting> {
        fn one(key: &str, value: Option<impl Serialize>, needs: Needs) -> Option<Setting> {
            Some((KeyPath::top(key), json!(value?), needs))
        }
        let Self {
            registry_mirrors,
            insecure_registries,
            debug,
            log_level,
            log_driver,
            log_options,
            live_restore,
            max_concurrent_downloads,
            max_concurrent_uploads,
            max_download_attempts,
            shutdown_timeout,
            mtu,
            userland_proxy,
        } = self;
        let LogOptions {
            max_size,
            max_file,
            compress,
        } = log_options.clone().unwrap_or_default();
        // Docker has them all as texts.
        let option = |key: &str, value: Option<String>| {
            let key = KeyPath(vec!["log-opts".to_owned(), key.to_owned()]);
            Some((key, json!(value?), START))
        };
        [
            one("registry-mirrors", registry_mirrors.as_ref(), KEPT),
            one("insecure-registries", insecure_registries.as_ref(), KEPT),
            one("debug", *debug, KEPT),
            one("log-level", *log_level, START),
            one("log-driver", *log_driver, START),
            option("max-size", max_size),
            option("max-file", max_file.map(|count| count.to_string())),
            option("compress", compress.map(|is| is.to_string())),
            one("live-restore", *live_restore, KEPT),
            one(
                "max-concurrent-downloads",
                *max_concurrent_downloads,
                RELOAD,
            ),
            one("max-concurrent-uploads", *max_concurrent_uploads, RELOAD),
            one("max-download-attempts", *max_download_attempts, RELOAD),
            one("shutdown-timeout", *shutdown_timeout, KEPT),
            one("mtu", *mtu, START),
            one("userland-proxy", *userland_proxy, START),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Block for Docker {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        found.each(
            "registryMirrors",
            self.registry_mirrors.as_ref(),
            value::mirror,
        );
        found.each(
            "insecureRegistries",
            self.insecure_registries.as_ref(),
            value::registry,
        );
        let ranges = [
            (
                "maxConcurrentDownloads",
                self.max_concurrent_downloads,
                1..=100,
            ),
            ("maxConcurrentUploads", self.max_concurrent_uploads, 1..=100),
            ("maxDownloadAttempts", self.max_download_attempts, 1..=100),
            ("shutdownTimeout", self.shutdown_timeout, 1..=3600),
            ("mtu", self.mtu, 576..=65535),
        ];
        for (field, number, range) in ranges {
            found.number(field, number, range);
        }
        if let Some(options) = &self.log_options {
            found.within("logOptions", |found| {
                if let Some(size) = &options.max_size {
                    found.one("maxSize", size, value::size);
                }
                found.number("maxFile", options.max_file, 1..=1000);
            });
        }
    }

    fn fields(&self) -> Vec<&'static str> {
        let given = [
            self.debug.is_some(),
            self.live_restore.is_some(),
            self.log_driver.is_some(),
            self.log_level.is_some(),
            self.log_options.is_some(),
            self.max_concurrent_downloads.is_some(),
            self.max_concurrent_uploads.is_some(),
            self.max_download_attempts.is_some(),
            self.mtu.is_some(),
            self.shutdown_timeout.is_some(),
            self.userland_proxy.is_some(),
        ];
        let fields = FIELDS.iter().zip(given);
        fields
            .filter_map(|(field, given)| given.then_some(*field))
            .collect()
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let settings = self.settings();
        if settings.is_empty() {
            return Vec::new();
        }
        let unit = |needs: Needs| {
            let reads = settings.iter().filter(|(_, _, of_key)| *of_key == needs);
            let (action, gone) = needs;
            let unit = Unit {
                name: UNIT.to_owned(),
                action,
                gone,
                reads: reads.map(|(key, _, _)| Place::key(PATH, key)).collect(),
            };
            (!unit.reads.is_empty()).then_some(Resource::Unit(unit))
        };
        let units = [RELOAD, KEPT, START].map(unit);
        let values = settings
            .iter()
            .map(|(key, value, _)| (key.clone(), value.clone()));
        let keys = Keys {
            path: PATH.to_owned(),
            format: Format::Json,
            values: values.collect(),
            elsewhere: &[],
        };
        std::iter::once(Resource::Keys(keys))
            .chain(units.into_iter().flatten())
            .collect()
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
                ..Docker::default()
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
                    elsewhere: &[],
                }),
                Resource::Unit(Unit {
                    name: "docker.service".into(),
                    action: Action::Reload,
                    gone: Action::Restart,
                    reads: ["registry-mirrors", "insecure-registries"]
                        .map(|key| Place::key("/etc/docker/daemon.json", &KeyPath::top(key)))
                        .into(),
                }),
            ]
        );
    }

    /// Everything that can be said, as users write it.
    fn everything() -> serde_json::Value {
        json!({
            "registryMirrors": ["https://a.example"],
            "insecureRegistries": ["c:5000"],
            "debug": true,
            "logLevel": "warn",
            "logDriver": "json-file",
            "logOptions": {"maxSize": "10m", "maxFile": 3, "compress": false},
            "liveRestore": true,
            "maxConcurrentDownloads": 5,
            "maxConcurrentUploads": 6,
            "maxDownloadAttempts": 7,
            "shutdownTimeout": 30,
            "mtu": 1400,
            "userlandProxy": false,
        })
    }

    #[test]
    fn each_key_is_written_as_docker_reads_it_and_needs_what_docker_needs() {
        let docker: Docker = serde_json::from_value(everything()).unwrap();
        assert_eq!(serde_json::to_value(&docker).unwrap(), everything());
        let settings = docker.settings().into_iter();
        let lines: Vec<_> = settings
            .map(|(key, value, (action, _))| format!("{action} {key} {value}"))
            .collect();
        assert_eq!(
            lines,
            [
                "reload registry-mirrors [\"https://a.example\"]",
                "reload insecure-registries [\"c:5000\"]",
                "reload debug true",
                "restart log-level \"warn\"",
                "restart log-driver \"json-file\"",
                "restart log-opts.max-size \"10m\"",
                "restart log-opts.max-file \"3\"",
                "restart log-opts.compress \"false\"",
                "reload live-restore true",
                "reload max-concurrent-downloads 5",
                "reload max-concurrent-uploads 6",
                "reload max-download-attempts 7",
                "reload shutdown-timeout 30",
                "restart mtu 1400",
                "restart userland-proxy false",
            ]
        );
        let resources = docker.render(&Contents::default());
        let units = resources.iter().filter_map(|resource| match resource {
            Resource::Unit(unit) => Some((unit.action, unit.gone, unit.reads.len())),
            _ => None,
        });
        let units: Vec<_> = units.collect();
        let (reload, restart) = (Action::Reload, Action::Restart);
        assert_eq!(
            units,
            [
                (reload, reload, 3),
                (reload, restart, 5),
                (restart, restart, 7)
            ]
        );
    }

    #[test]
    fn numbers_and_sizes_have_bounds() {
        let fields = |docker: serde_json::Value| {
            let config: Config = serde_json::from_value(json!({"docker": docker})).unwrap();
            let found = config.check(&Policy::default(), &Contents::default());
            let said = found.iter().map(|v| format!("{} {}", v.field, v.rule));
            said.collect::<Vec<_>>()
        };
        assert_eq!(fields(everything()), [""; 0]);
        for (field, low, high) in [
            ("maxConcurrentDownloads", 1, 100),
            ("maxConcurrentUploads", 1, 100),
            ("maxDownloadAttempts", 1, 100),
            ("shutdownTimeout", 1, 3600),
            ("mtu", 576, 65535),
        ] {
            for good in [low, high] {
                assert_eq!(fields(json!({field: good})), [""; 0]);
            }
            for bad in [low - 1, high + 1] {
                assert_eq!(
                    fields(json!({field: bad})),
                    [format!("docker.{field} range")]
                );
            }
        }
        assert_eq!(
            fields(json!({"logOptions": {"maxSize": "10", "maxFile": 0}})),
            [
                "docker.logOptions.maxSize size",
                "docker.logOptions.maxFile range"
            ]
        );
    }

    #[test]
    fn an_agent_has_to_know_what_was_not_there_from_the_start() {
        let needs = |docker: serde_json::Value| {
            let config: Config = serde_json::from_value(json!({"docker": docker})).unwrap();
            config.needs().collect::<Vec<_>>()
        };
        assert_eq!(needs(json!({"registryMirrors": []})), ["docker"]);
        assert_eq!(needs(json!({"mtu": 1400})), ["docker", "docker.mtu"]);
        let all: Vec<_> = needs(everything());
        assert_eq!(all[1..], FIELDS);
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
