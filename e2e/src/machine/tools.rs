//! kind and kubectl: those on `PATH` when they are new enough, else built.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::Process;
use crate::progress::Step;
use crate::settings::{Settings, version};

/// kubectl alone, with no Go cache, on two cores.
const BUILD: Duration = Duration::from_mins(15);

/// The programs that drive a cluster.
#[derive(Clone, Debug)]
pub struct Tools {
    /// kind.
    pub kind: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Tools {
    /// Finds or builds both.
    pub async fn find(settings: &Settings) -> Result<Self> {
        let kind = match kind_version().await {
            Some(found) if found >= parse(version("kind_oldest")?)? => PathBuf::from("kind"),
            _ => build(settings, "kind").await?,
        };
        Ok(Self {
            kind,
            kubectl: kubectl(settings).await?,
        })
    }

    /// kubectl alone, for clusters that somebody else made.
    pub async fn find_kubectl(settings: &Settings) -> Result<PathBuf> {
        kubectl(settings).await
    }

    /// The folders of those that are not on `PATH`.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        [&self.kind, &self.kubectl]
            .into_iter()
            .filter_map(|tool| tool.parent())
            .filter(|folder| !folder.as_os_str().is_empty())
    }
}

/// kubectl promises to work with a server one minor version away.
async fn kubectl(settings: &Settings) -> Result<PathBuf> {
    let (major, minor) = parse(version("kubernetes_minor")?)?;
    let found = kubectl_version().await;
    if found.is_some_and(|(a, b)| a == major && b.abs_diff(minor) <= 1) {
        return Ok(PathBuf::from("kubectl"));
    }
    let go = Process::new("go").arg("version").output().await;
    if go.is_ok_and(|go| go.success()) {
        return build(settings, "kubectl").await;
    }
    if found.is_none() {
        bail!("there is no kubectl and no Go to build it with: install kubectl {major}.{minor}");
    }
    // Older ones mostly work, and the harness asks for nothing new of them.
    Ok(PathBuf::from("kubectl"))
}

/// Builds a part of `hack/node/build` that is one program.
pub(super) async fn build(settings: &Settings, tool: &str) -> Result<PathBuf> {
    let mut step = None;
    Process::new(settings.root.join("hack/node/build"))
        .arg(tool)
        .env("EDICT_CACHE", &settings.cache)
        .within(BUILD)
        .text_with_progress(|line| {
            // It says nothing where nothing is to be done.
            step.get_or_insert_with(|| Step::begin(tool)).note(line);
        })
        .await
        .with_context(|| format!("no {tool} that is new enough is here, and it cannot be built"))?;
    if let Some(step) = step {
        step.done("built from its Go module");
    }
    Ok(settings.cache.join(tool).join(tool))
}

/// "kind v0.33.0 go1.26.8 linux/amd64".
async fn kind_version() -> Option<(u32, u32)> {
    let said = Process::new("kind").arg("version").text().await.ok()?;
    parse(said.split_whitespace().nth(1)?.trim_start_matches('v')).ok()
}

async fn kubectl_version() -> Option<(u32, u32)> {
    let said = Process::new("kubectl")
        .args(["version", "--client", "--output=json"])
        .text()
        .await
        .ok()?;
    let json: serde_json::Value = serde_json::from_str(&said).ok()?;
    let git = json["clientVersion"]["gitVersion"].as_str()?;
    parse(git.trim_start_matches('v')).ok()
}

/// Major and minor of "1.36.3".
fn parse(version: &str) -> Result<(u32, u32)> {
    let mut parts = version.split('.');
    let mut next = || parts.next()?.parse().ok();
    next()
        .zip(next())
        .with_context(|| format!("{version} is no version"))
}
