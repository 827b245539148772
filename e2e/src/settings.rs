//! What a run is told from outside, read once: the `EDICT_E2E_*` switches, where
//! this repository and the cache are, and the versions in `hack/versions`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// `hack/versions`: what no `go.mod` or `Cargo.toml` states.
const VERSIONS: &str = include_str!("../../hack/versions");

/// Everything that decides where and on what the tests run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `EDICT_E2E_CLUSTER`: the kind cluster's name, `edict` unless told.
    pub cluster: String,
    /// `EDICT_E2E_SHAPE`: a file of `fixtures/clusters/` without `.yaml`, `3+2` unless told.
    pub shape: String,
    /// `EDICT_NODE_IMAGE`: the node image to use instead of looking for one.
    pub node_image: Option<String>,
    /// `EDICT_E2E_BINARIES`: a folder with Edict's binaries, to be used as they are.
    pub binaries: Option<PathBuf>,
    /// `EDICT_E2E_KUBECONFIG` and `EDICT_E2E_CONTEXT`: a cluster that exists already.
    pub existing: Option<Existing>,
    /// The repository.
    pub root: PathBuf,
    /// `EDICT_CACHE`: what is kept between runs, `~/.cache/edict` unless told.
    pub cache: PathBuf,
}

/// A cluster that somebody else made and keeps.
#[derive(Clone, Debug)]
pub struct Existing {
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// The context in it, when not the current one.
    pub context: Option<String>,
}

impl Settings {
    /// Reads the environment.
    pub fn read() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the e2e crate lies in no repository")?
            .to_path_buf();
        let settings = Self {
            cluster: variable("EDICT_E2E_CLUSTER").unwrap_or_else(|| "edict".to_owned()),
            shape: variable("EDICT_E2E_SHAPE").unwrap_or_else(|| "3+2".to_owned()),
            node_image: variable("EDICT_NODE_IMAGE"),
            binaries: variable("EDICT_E2E_BINARIES").map(|folder| root.join(folder)),
            existing: existing()?,
            cache: cache()?,
            root,
        };
        if !settings.shape_file().is_file() {
            bail!(
                "EDICT_E2E_SHAPE={} names no file in fixtures/clusters: 3+2, 1+1 and 1+1-unset are there",
                settings.shape
            );
        }
        Ok(settings)
    }

    /// The kind configuration of the shape.
    pub fn shape_file(&self) -> PathBuf {
        self.root
            .join("fixtures/clusters")
            .join(format!("{}.yaml", self.shape))
    }

    /// Where evidence and generated manifests go.
    pub fn output(&self) -> PathBuf {
        self.root.join("target/e2e")
    }

    /// What is remembered about this cluster: kubeconfig, fingerprint, lock.
    pub fn state(&self) -> PathBuf {
        self.cache.join("clusters").join(&self.cluster)
    }
}

/// The value of NAME in `hack/versions`.
pub fn version(name: &str) -> Result<&'static str> {
    VERSIONS
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .with_context(|| format!("hack/versions has no {name}"))
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn existing() -> Result<Option<Existing>> {
    let context = variable("EDICT_E2E_CONTEXT");
    let kubeconfig = match variable("EDICT_E2E_KUBECONFIG") {
        Some(path) => PathBuf::from(path),
        None if context.is_none() => return Ok(None),
        None => match variable("KUBECONFIG") {
            Some(path) => PathBuf::from(path),
            None => home()?.join(".kube/config"),
        },
    };
    if !kubeconfig.is_file() {
        bail!(
            "{} is no file: set EDICT_E2E_KUBECONFIG to the kubeconfig of your cluster",
            kubeconfig.display()
        );
    }
    Ok(Some(Existing {
        kubeconfig,
        context,
    }))
}

/// The same rule as in `hack/node/build`.
fn cache() -> Result<PathBuf> {
    if let Some(path) = variable("EDICT_CACHE") {
        return Ok(PathBuf::from(path));
    }
    let base = match variable("XDG_CACHE_HOME") {
        Some(path) => PathBuf::from(path),
        None => home()?.join(".cache"),
    };
    Ok(base.join("edict"))
}

fn home() -> Result<PathBuf> {
    env::home_dir().context("there is no home folder: set EDICT_CACHE")
}
