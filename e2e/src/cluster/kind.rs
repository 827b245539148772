//! Clusters made by kind.
//!
//! One serves many runs: it is used again while its configuration and its node
//! image are what they were and all its nodes are where they were and Ready.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture};
use sha2::{Digest as _, Sha256};

use super::health::Health;
use super::{Access, Provider};
use crate::container::{self, Container};
use crate::machine::{self, Tools};
use crate::node::Role;
use crate::process::Process;
use crate::progress::Step;
use crate::settings::Settings;

/// 80 to 110 s on two idle cores; a busy machine gets time.
const CREATE: Duration = Duration::from_mins(10);
/// Deleting is a `docker rm --force` of each node.
const DELETE: Duration = Duration::from_mins(2);
/// From the last join until all nodes are Ready and names are answered.
const SETTLE: Duration = Duration::from_mins(5);
/// A cluster found running is Ready at once, or seconds after `docker start`.
const REUSE: Duration = Duration::from_secs(20);

const MASTER: &str = "control-plane";
const WORKER: &str = "worker";

/// A cluster made by kind on this machine's docker engine.
#[derive(Clone, Debug)]
pub struct Kind {
    settings: Settings,
    tools: Tools,
}

impl Kind {
    /// Finds an engine and kind; there need not be a cluster yet.
    pub async fn find(settings: &Settings) -> Result<Self> {
        machine::engine(settings).await?;
        Ok(Self {
            tools: Tools::find(settings).await?,
            settings: settings.clone(),
        })
    }

    fn name(&self) -> &str {
        &self.settings.cluster
    }

    fn kubeconfig(&self) -> PathBuf {
        self.settings.state().join("kubeconfig")
    }

    fn kind(&self) -> Process {
        Process::new(&self.tools.kind).env("KUBECONFIG", self.kubeconfig())
    }

    async fn containers(&self) -> Result<Vec<Container>> {
        let mut found = container::of_cluster(self.name()).await?;
        // Masters before workers, each in the order of their numbers.
        found.sort_by_key(|one| (one.role != MASTER, one.name.len(), one.name.clone()));
        Ok(found)
    }

    /// What the cluster would be made from now.
    fn fingerprint(&self, image_id: &str) -> Result<String> {
        let shape = fs::read(self.settings.shape_file())?;
        let hash = Sha256::digest(&shape);
        Ok(format!(
            "shape {} {hash:x}\nimage {image_id}\n",
            self.settings.shape
        ))
    }

    /// Why the cluster that is there can't be used again; none when it can.
    async fn unfit(&self, fingerprint: &str) -> Result<Option<String>> {
        let containers = self.containers().await?;
        if containers.is_empty() {
            return Ok(Some("there is none".to_owned()));
        }
        let made_from = fs::read_to_string(self.settings.state().join("fingerprint"));
        if made_from.ok().as_deref() != Some(fingerprint) {
            return Ok(Some(
                "it was made from another shape or node image".to_owned(),
            ));
        }
        if let Some(stopped) = containers.iter().find(|one| !one.running) {
            return Ok(Some(format!("{} does not run", stopped.name)));
        }
        let health = Health::of(&self.access()).await;
        Ok(match health {
            Ok(health) => health.settle(&containers, REUSE).await.err(),
            Err(error) => Some(error),
        }
        .map(|error| format!("{error:#}")))
    }

    async fn make(&self, image: &str, fingerprint: &str, step: &Step) -> Result<()> {
        let state = self.settings.state();
        self.remove().await?;
        fs::create_dir_all(&state)?;
        machine::prepare_sysctls(&self.settings)?;
        step.note("creating; two minutes on a small machine");
        let created = self
            .kind()
            .args([
                "create",
                "cluster",
                "--name",
                self.name(),
                "--image",
                image,
                "--config",
            ])
            .arg(self.settings.shape_file())
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .within(CREATE)
            .text_with_progress(|line| {
                // kind says each step twice: when it begins, and with a tick.
                if line.contains('✓') {
                    step.note(line);
                }
            })
            .await;
        created.with_context(|| format!("kind made no cluster {}", self.name()))?;
        let health = Health::of(&self.access()).await?;
        health.settle(&self.containers().await?, SETTLE).await?;
        fs::write(state.join("fingerprint"), fingerprint)?;
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let _ = fs::remove_file(self.settings.state().join("fingerprint"));
        if self.containers().await?.is_empty() {
            return Ok(());
        }
        self.kind()
            .args(["delete", "cluster", "--name", self.name(), "--kubeconfig"])
            .arg(self.kubeconfig())
            .within(DELETE)
            .text()
            .await?;
        Ok(())
    }
}

impl Provider for Kind {
    fn create(&self) -> LocalBoxFuture<'_, Result<()>> {
        async {
            let image = machine::node_image(&self.settings).await?;
            let step = Step::begin(format!("cluster {}", self.name()));
            let fingerprint = self.fingerprint(&container::image_id(&image).await?)?;
            match self.unfit(&fingerprint).await? {
                None => step.done("as it was, all nodes Ready"),
                Some(why) => {
                    step.note(&format!("made anew: {why}"));
                    self.make(&image, &fingerprint, &step).await?;
                    step.done(&format!("{} is up", self.settings.shape));
                }
            }
            Ok(())
        }
        .boxed_local()
    }

    fn delete(&self) -> BoxFuture<'_, Result<()>> {
        async {
            self.remove().await?;
            let _ = fs::remove_dir_all(self.settings.state());
            if !self.list().await?.is_empty() {
                return Ok(());
            }
            let left = machine::put_back_sysctls(&self.settings)?;
            if !left.is_empty() {
                bail!("only root can put back: sysctl -w {}", left.join(" "));
            }
            Ok(())
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        async {
            let names = self
                .kind()
                .args(["get", "clusters", "--quiet"])
                .text()
                .await?;
            Ok(names.lines().map(str::to_owned).collect())
        }
        .boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<(String, Role)>>> {
        async {
            let nodes: Vec<_> = self
                .containers()
                .await?
                .into_iter()
                .filter_map(|one| match one.role.as_str() {
                    MASTER => Some((one.name, Role::Master)),
                    WORKER => Some((one.name, Role::Worker)),
                    _ => None,
                })
                .collect();
            if nodes.is_empty() {
                bail!(
                    "there is no cluster {}: `cargo run -p e2e -- up` makes it",
                    self.name()
                );
            }
            Ok(nodes)
        }
        .boxed()
    }

    fn load<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let nodes = self.nodes().await?;
            let names: Vec<String> = nodes.into_iter().map(|(name, _)| name).collect();
            container::load(&names, image).await
        }
        .boxed()
    }

    fn access(&self) -> Access {
        let mut path = OsString::new();
        for folder in self.tools.folders() {
            path.push(folder);
            path.push(":");
        }
        path.push(env::var_os("PATH").unwrap_or_default());
        Access {
            kubeconfig: self.kubeconfig(),
            context: None,
            kubectl: self.tools.kubectl.clone(),
            path,
        }
    }
}
