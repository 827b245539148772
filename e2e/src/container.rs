//! Nodes that are containers of a docker engine: programs, images, power.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use serde_json::Value;

use crate::process::{Output, Process};

/// Programs on a node may wait for systemd, which waits for a daemon.
const EXEC: Duration = Duration::from_mins(2);
/// systemd in a node stops its pods first.
const STOP: Duration = Duration::from_mins(2);
/// An image of Edict is a few megabytes; all nodes unpack theirs at once.
const LOAD: Duration = Duration::from_mins(3);

/// A node's container as docker sees it.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What kind's label says that it is for.
    pub role: String,
    /// Whether it runs.
    pub running: bool,
    /// Its address in kind's network.
    pub address: String,
    /// The id of the image that it was made from.
    pub image: String,
}

/// The containers of a kind cluster.
pub async fn of_cluster(name: &str) -> Result<Vec<Container>> {
    let filter = format!("--filter=label=io.x-k8s.kind.cluster={name}");
    let ids = Process::new("docker")
        .args(["ps", "--all", "--quiet", "--no-trunc", &filter])
        .text()
        .await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let json = Process::new("docker")
        .arg("inspect")
        .args(ids.lines())
        .text()
        .await?;
    let found: Vec<Value> = serde_json::from_str(&json).context("docker inspect said no JSON")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(found
        .iter()
        .map(|one| Container {
            name: text(&one["Name"]).trim_start_matches('/').to_owned(),
            role: text(&one["Config"]["Labels"]["io.x-k8s.kind.role"]),
            running: one["State"]["Running"] == true,
            address: text(&one["NetworkSettings"]["Networks"]["kind"]["IPAddress"]),
            image: text(&one["Image"]),
        })
        .collect())
}

/// The address of a container in kind's network; empty while it does not run.
pub async fn address(name: &str) -> Result<String> {
    let format = "--format={{.NetworkSettings.Networks.kind.IPAddress}}";
    Process::new("docker")
        .args(["inspect", format, name])
        .text()
        .await
}

/// The id of a local image.
pub async fn image_id(image: &str) -> Result<String> {
    Process::new("docker")
        .args(["image", "inspect", "--format={{.Id}}", image])
        .text()
        .await
        .with_context(|| format!("there is no image {image} here"))
}

/// Runs a program in a node.
pub async fn exec(node: &str, argv: &[&str], stdin: Vec<u8>) -> Result<Output> {
    let output = Process::new("docker")
        .args(["exec", "--interactive", node])
        .args(argv)
        .stdin(stdin)
        .within(EXEC)
        .output()
        .await?;
    if !output.success() && output.stderr.contains("No such container") {
        bail!("node {node} is no container here: its files cannot be read from this machine");
    }
    Ok(output)
}

/// Ends a node's container, and everything in it at once.
pub async fn kill(node: &str) -> Result<()> {
    Process::new("docker").args(["kill", node]).text().await?;
    Ok(())
}

/// Stops a node's container.
pub async fn stop(node: &str) -> Result<()> {
    Process::new("docker")
        .args(["stop", node])
        .within(STOP)
        .text()
        .await?;
    Ok(())
}

/// Freezes a node's container.
pub async fn pause(node: &str) -> Result<()> {
    Process::new("docker").args(["pause", node]).text().await?;
    Ok(())
}

/// Lets a node's container go on, also one that is not frozen.
pub async fn unpause(node: &str) -> Result<()> {
    let output = Process::new("docker")
        .args(["unpause", node])
        .output()
        .await?;
    if !output.success() && !output.stderr.contains("is not paused") {
        bail!("cannot unpause {node}: {}", output.stderr.trim());
    }
    Ok(())
}

/// Starts a node's container.
pub async fn start(node: &str) -> Result<()> {
    Process::new("docker").args(["start", node]).text().await?;
    Ok(())
}

/// Brings a local image to those nodes that lack it, all at once.
pub async fn load(nodes: &[String], image: &str) -> Result<()> {
    let full = format!("docker.io/{image}");
    let looks = nodes.iter().map(async |node| {
        let list = exec(
            node,
            &["ctr", "--namespace=k8s.io", "images", "list", "-q"],
            Vec::new(),
        );
        let list = list.await?;
        if !list.success() {
            bail!("cannot list the images of {node}: {}", list.stderr);
        }
        Ok((node, list.text().lines().any(|line| line == full)))
    });
    let lacking: Vec<&String> = try_join_all(looks)
        .await?
        .into_iter()
        .filter_map(|(node, has)| (!has).then_some(node))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let archive = Process::new("docker")
        .args(["save", image])
        .within(LOAD)
        .bytes()
        .await?;
    let imports = lacking.into_iter().map(async |node| {
        // As kind does it; two imports of one node would wait for each other.
        Process::new("docker")
            .args(["exec", "--interactive", node, "ctr", "--namespace=k8s.io"])
            .args([
                "images",
                "import",
                "--all-platforms",
                "--digests",
                "--snapshotter=overlayfs",
                "-",
            ])
            .stdin(archive.clone())
            .within(LOAD)
            .text()
            .await
    });
    try_join_all(imports).await?;
    Ok(())
}
