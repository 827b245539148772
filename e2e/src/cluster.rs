//! A Kubernetes cluster to test on, and who provides it.

mod existing;
mod health;
mod kind;

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::future::{BoxFuture, LocalBoxFuture};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::node::{Node, Role};
use crate::process::Process;
use crate::settings::Settings;

pub use existing::ExistingCluster;
pub use kind::Kind;

/// Whatever can make a cluster whose nodes can be looked into.
///
/// kind is behind it, and clusters that somebody else made. Every future is boxed
/// so that tests can hold either; that of [`Provider::create`] stays on its thread,
/// since looking at a condition again and again borrows what it looks with.
pub trait Provider: Debug + Send + Sync {
    /// Makes the cluster usable: reuses it where it is as asked for, else makes it anew.
    fn create(&self) -> LocalBoxFuture<'_, Result<()>>;
    /// Takes it away.
    fn delete(&self) -> BoxFuture<'_, Result<()>>;
    /// The clusters that this provider knows.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>>;
    /// Its nodes, masters first: name and role.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<(String, Role)>>>;
    /// Brings a local image to every node that lacks it.
    fn load<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>>;
    /// How to reach its API.
    fn access(&self) -> Access;
}

/// How kubectl and a client reach an API server.
#[derive(Clone, Debug)]
pub struct Access {
    /// A kubeconfig of its own, never the user's, unless they named theirs.
    pub kubeconfig: PathBuf,
    /// The context in it, when not the current one.
    pub context: Option<String>,
    /// The kubectl to use.
    pub kubectl: PathBuf,
    /// `PATH` with the tools that were built.
    pub path: OsString,
}

impl Access {
    /// A kubectl that talks to this cluster.
    pub fn kubectl(&self) -> Process {
        let process = Process::new(&self.kubectl).env("KUBECONFIG", &self.kubeconfig);
        match &self.context {
            Some(context) => process.arg(format!("--context={context}")),
            None => process,
        }
    }

    /// A client. It belongs to the runtime that it is made in: one per test.
    pub async fn client(&self) -> Result<kube::Client> {
        // Whoever comes first sets it, and here all set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("cannot read {}", self.kubeconfig.display()))?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }
}

/// A cluster that is up. Plain data: a test can take a copy to its own runtime.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Who provides it.
    pub provider: Arc<dyn Provider>,
    /// How to reach it.
    pub access: Access,
    /// Its nodes, masters first.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// The provider that the settings ask for.
    pub async fn provider(settings: &Settings) -> Result<Arc<dyn Provider>> {
        Ok(match &settings.existing {
            Some(existing) => Arc::new(ExistingCluster::find(settings, existing).await?),
            None => Arc::new(Kind::find(settings).await?),
        })
    }

    /// Makes sure that the cluster is up, all its nodes Ready, and gives it.
    pub async fn up(settings: &Settings) -> Result<Self> {
        let provider = Self::provider(settings).await?;
        provider.create().await?;
        Self::of(provider).await
    }

    /// The cluster as it is, for looking at it.
    pub async fn found(settings: &Settings) -> Result<Self> {
        Self::of(Self::provider(settings).await?).await
    }

    async fn of(provider: Arc<dyn Provider>) -> Result<Self> {
        let nodes = provider.nodes().await?;
        let nodes = nodes
            .into_iter()
            .map(|(name, role)| Node { name, role })
            .collect();
        Ok(Self {
            access: provider.access(),
            nodes,
            provider,
        })
    }
}
