//! A node for tests: an `/etc` and a state folder in a temporary place, and an agent over them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edict_agent::apply::Agent;
use edict_agent::host::mount::Mounts;
use edict_agent::host::{Host, Rooted};
use edict_agent::state::{self, Store};
use edict_agent::units::Manager;
use edict_core::config::files::{File, FileOwner};
use edict_core::config::{Config, Docker, Files, Notify, NotifyAction};
use edict_core::content::{Content, Contents, KeyRef, Kind, Reference, Source};
use edict_core::digest;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, Restarts};
use edict_core::retry::Retry;
use edict_core::wire::{
    self, Event, Fence, LayerReport, Outcome, Push, Release, ReleaseReport, Report, Written,
};
use tempfile::TempDir;

use crate::services::Services;
use crate::tree::tree;

/// The name of the node.
pub const NAME: &str = "node-1";
/// Docker's own file.
pub const DOCKER: &str = "/etc/docker/daemon.json";

/// The mount points that a test declares.
#[derive(Clone, Default)]
pub struct Declared(pub Vec<String>);

impl Mounts for Declared {
    fn is_mount_point(&self, path: &str) -> std::io::Result<bool> {
        Ok(self.0.iter().any(|point| point == path))
    }
}

/// A node under test.
pub struct Node {
    pub folder: TempDir,
    pub agent: Option<Arc<Agent>>,
    pub policy: Policy,
    /// Who can be told that something has changed; nobody unless a test says so.
    pub services: Option<Services>,
    /// Whether it is the root of an image.
    pub offline: bool,
    /// Where what runs on it is found.
    pub address: Option<IpAddr>,
}

/// Why nobody is told.
pub const NOBODY: &str = "nobody can be told here";

impl Node {
    /// With nothing in its `/etc` but the folder for Docker.
    pub fn new() -> Self {
        Self::with(&Declared::default())
    }

    pub fn with(mounts: &Declared) -> Self {
        let mut node = Self::prepared();
        node.restart_with(mounts);
        node
    }

    /// Without an agent.
    pub fn prepared() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/docker")).unwrap();
        Self {
            folder,
            agent: None,
            policy: Policy::default(),
            services: None,
            offline: false,
            address: Some(Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// Another agent, that finds these services.
    pub fn serve(&mut self, services: &Services) {
        self.services = Some(services.clone());
        self.restart();
    }

    pub fn restart(&mut self) {
        self.restart_with(&Declared::default());
    }

    pub fn restart_with(&mut self, mounts: &Declared) {
        let host = self.host(mounts);
        self.run(host);
    }

    /// Another agent over the same folders.
    pub fn run(&mut self, host: impl Host) {
        self.agent = None;
        let store = unlocked(|| Store::open(&self.folder.path().join("state"))).unwrap();
        let agent = Agent::open(NAME.into(), host, self.manager(), store, self.address).unwrap();
        self.agent = Some(Arc::new(agent));
    }

    pub fn manager(&self) -> Manager {
        match &self.services {
            _ if self.offline => Manager::Offline,
            Some(services) => services.manager(),
            None => Manager::OutOfReach(NOBODY),
        }
    }

    pub fn host(&self, mounts: &Declared) -> Rooted {
        Rooted::open(&self.folder.path().join("etc"), mounts.clone()).unwrap()
    }

    pub fn agent(&self) -> &Arc<Agent> {
        self.agent.as_ref().unwrap()
    }

    /// Where a path of the host is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, content: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    pub fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().mode() & 0o7777
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Everything in `/etc`, as [`tree`] says it.
    pub fn tree(&self) -> Vec<String> {
        tree(&self.at("/etc"))
    }

    /// Digests of the originals that are kept.
    pub fn originals(&self) -> usize {
        fs::read_dir(self.at("state/originals")).unwrap().count()
    }

    pub fn push(&self, layers: &[&Layer]) -> Report {
        self.push_all(layers, &[])
    }

    pub fn push_all(&self, layers: &[&Layer], releases: &[Release]) -> Report {
        self.push_as(wire::VERSION, layers, releases)
    }

    /// As an operator that speaks this wire version.
    pub fn push_as(&self, wire: u32, layers: &[&Layer], releases: &[Release]) -> Report {
        let layers = layers.iter().map(|layer| (*layer).clone()).collect();
        let push = Push::new(NAME.into(), self.policy.clone(), layers, releases.to_vec())
            .fenced(wire, Fence::default());
        assert_eq!(self.agent().refuse(&push), None);
        let mut events = Vec::new();
        let report = self.agent().push(&push, &mut |event| events.push(event));
        assert_eq!(events.last(), Some(&Event::Done(report.clone())));
        assert_eq!(events.len(), layers_and_releases(&report) + 1);
        report
    }

    /// Pushes one layer and expects that it is in force afterwards.
    pub fn apply(&self, layer: &Layer) -> LayerReport {
        let report = self.push(&[layer]).layers.remove(0);
        let good = matches!(report.outcome, Outcome::Applied | Outcome::PendingReload);
        assert!(good, "{report:?}");
        assert_eq!(report.in_force.as_ref(), Some(&layer.digest));
        report
    }

    /// Pushes one layer and expects that it is not.
    pub fn fail(&self, layer: &Layer) -> String {
        let report = self.push(&[layer]).layers.remove(0);
        assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
        report.message
    }

    pub fn release(&self, layer: &Layer) -> ReleaseReport {
        self.release_with(layer, DeletionPolicy::Restore)
    }

    pub fn release_with(&self, layer: &Layer, policy: DeletionPolicy) -> ReleaseReport {
        let report = self
            .push_all(&[], &[leaving(layer, policy)])
            .releases
            .remove(0);
        assert!(report.done, "{report:?}");
        report
    }

    /// Names of the layers in force.
    pub fn in_force(&self) -> Vec<String> {
        let layers = self.agent().hello().layers;
        layers.into_iter().map(|held| held.name).collect()
    }
}

fn layers_and_releases(report: &Report) -> usize {
    report.layers.len() + report.releases.len()
}

/// Opens a state folder that an agent has just let go of. A program that another test starts holds a
/// copy of its lock between fork and exec.
pub fn unlocked(open: impl Fn() -> Result<Store, state::Error>) -> Result<Store, state::Error> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Err(state::Error::Locked) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

pub fn leaving(layer: &Layer, policy: DeletionPolicy) -> Release {
    Release {
        uid: layer.uid.clone(),
        name: layer.name.clone(),
        policy,
    }
}

/// Shorthands for layers.
pub trait Say: Sized {
    /// With another try asked for, by an annotation of this value.
    fn retry(self, value: &str) -> Self;
    fn priority(self, priority: i32) -> Self;
    fn file(self, path: &str, content: &str) -> Self;
    fn file_as(self, path: &str, content: &str, mode: &str, owner: Option<(u32, u32)>) -> Self;
    /// With a unit that reads the last file.
    fn notify(self, unit: &str, action: NotifyAction) -> Self;
    fn mirrors(self, mirrors: &[&str]) -> Self;
    fn insecure(self, registries: &[&str]) -> Self;
    /// Registries of containerd, as the `NodeConfig` has them.
    fn registries(self, registries: serde_json::Value) -> Self;
    /// A block of that name, as the `NodeConfig` has it.
    fn block(self, name: &str, block: serde_json::Value) -> Self;
    /// Settings of the kernel, as the `NodeConfig` has them.
    fn sysctl(self, sysctl: serde_json::Value) -> Self;
    /// A proxy, as the `NodeConfig` has it.
    fn proxy(self, proxy: serde_json::Value) -> Self;
    /// A file whose content is in the ConfigMap or Secret that `reference` names (`Secret/name/key`).
    fn file_from(self, path: &str, reference: &str, content: &[u8]) -> Self;
}

/// A layer that says nothing yet.
pub fn layer(name: &str) -> Layer {
    let config = Config::default();
    Layer {
        uid: format!("uid-{name}"),
        name: name.into(),
        priority: 0,
        created: jiff::Timestamp::UNIX_EPOCH,
        digest: digest::of(&config),
        deletion_policy: DeletionPolicy::Restore,
        restarts: Restarts::Allowed,
        drift: edict_core::layer::Drift::Correct,
        retry: None,
        facts: None,
        config,
        contents: Contents::default(),
    }
}

fn sealed(mut layer: Layer) -> Layer {
    layer.digest = edict_core::layer::digest(&layer.config, &layer.contents);
    layer
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

impl Say for Layer {
    fn retry(mut self, value: &str) -> Self {
        self.retry = Some(Retry::of(value));
        self
    }

    fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    fn file(mut self, path: &str, content: &str) -> Self {
        let files = self.config.files.get_or_insert_with(Files::default);
        files.0.push(File {
            path: path.into(),
            content: Some(content.into()),
            content_from: None,
            mode: None,
            owner: None,
            notify: None,
        });
        sealed(self)
    }

    fn file_as(self, path: &str, content: &str, mode: &str, owner: Option<(u32, u32)>) -> Self {
        let mut layer = self.file(path, content);
        let files = layer.config.files.as_mut().unwrap();
        let file = files.0.last_mut().unwrap();
        file.mode = Some(mode.into());
        file.owner = owner.map(|(uid, gid)| FileOwner { uid, gid });
        sealed(layer)
    }

    fn notify(mut self, unit: &str, action: NotifyAction) -> Self {
        let file = self.config.files.as_mut().unwrap().0.last_mut().unwrap();
        let unit = unit.to_owned();
        let notify = file.notify.get_or_insert_default();
        notify.push(Notify { unit, action });
        sealed(self)
    }

    fn mirrors(mut self, mirrors: &[&str]) -> Self {
        let docker = self.config.docker.get_or_insert_with(Docker::default);
        docker.registry_mirrors = Some(list(mirrors));
        sealed(self)
    }

    fn insecure(mut self, registries: &[&str]) -> Self {
        let docker = self.config.docker.get_or_insert_with(Docker::default);
        docker.insecure_registries = Some(list(registries));
        sealed(self)
    }

    fn registries(mut self, registries: serde_json::Value) -> Self {
        let containerd = serde_json::json!({"registries": registries});
        self.config.containerd = Some(serde_json::from_value(containerd).unwrap());
        sealed(self)
    }

    fn block(mut self, name: &str, block: serde_json::Value) -> Self {
        let mut config = serde_json::to_value(&self.config).unwrap();
        config[name] = block;
        self.config = serde_json::from_value(config).unwrap();
        sealed(self)
    }

    fn sysctl(self, sysctl: serde_json::Value) -> Self {
        self.block("sysctl", sysctl)
    }

    fn proxy(self, proxy: serde_json::Value) -> Self {
        self.block("proxy", proxy)
    }

    fn file_from(self, path: &str, reference: &str, content: &[u8]) -> Self {
        let reference: Reference = reference.parse().unwrap();
        let key = KeyRef {
            name: reference.name.clone(),
            key: reference.key.clone(),
        };
        let source = match reference.kind {
            Kind::ConfigMap => Source {
                config_map_key_ref: Some(key),
                secret_key_ref: None,
            },
            Kind::Secret => Source {
                config_map_key_ref: None,
                secret_key_ref: Some(key),
            },
        };
        let mut layer = self.file(path, "");
        let file = layer.config.files.as_mut().unwrap().0.last_mut().unwrap();
        file.content = None;
        file.content_from = Some(source);
        let content = Content::new(b"key of these tests", content.to_vec());
        layer.contents.0.insert(reference, content);
        sealed(layer)
    }
}

/// `path[#key] owner result` for everything that Edict has.
pub fn resources(report: &Report) -> Vec<String> {
    let line = |r: &edict_core::wire::ResourceReport| {
        let key = r.key.as_ref().map(|key| format!("#{key}"));
        let result = match r.result {
            Written::Replaced => "replaced",
            Written::InPlace => "in place",
            Written::Unchanged => "unchanged",
        };
        format!("{}{} {} {result}", r.path, key.unwrap_or_default(), r.owner)
    };
    report.resources.iter().map(line).collect()
}

/// Whether the test runs as root; says so where it does not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root may give files to others or mount");
    }
    root
}
