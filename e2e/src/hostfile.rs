//! Files of nodes that tests begin with and end with.

use anyhow::{Context as _, Result, ensure};
use edict_crds::NodeConfig;
use futures::future::try_join_all;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::context::{Context, LABEL};
use crate::node::Node;

/// Docker's settings, the one path that many tests share.
pub const DAEMON: &str = "/etc/docker/daemon.json";

/// A folder of this test alone, which is on no node: what an earlier run left in it is taken away.
/// The folder above it is there on all nodes.
pub async fn folder(ctx: &Context) -> Result<String> {
    let folder = format!("/etc/edict/{}", ctx.name);
    try_join_all(ctx.nodes().iter().map(async |node| {
        node.remove(&folder).await?;
        node.run(&["mkdir", "-p", "/etc/edict"]).await
    }))
    .await?;
    Ok(folder)
}

/// No node has Docker's file, nor the folder around it. One that some node has comes back when the
/// test ends.
pub async fn without_docker(ctx: &Context) -> Result<()> {
    docker_is_free(ctx).await?;
    try_join_all(ctx.nodes().iter().map(async |node| {
        ctx.plant(node, DAEMON, b"", 0o644).await?;
        node.remove(DAEMON).await?;
        let remove = ["rmdir", "--ignore-fail-on-non-empty", "/etc/docker"];
        node.run(&remove).await
    }))
    .await?;
    Ok(())
}

/// No NodeConfig but this test's own sets keys of Docker. What another test left behind goes away;
/// what a person applied does not.
async fn docker_is_free(ctx: &Context) -> Result<()> {
    let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
    for config in configs.list(&ListParams::default()).await?.items {
        if config.spec.config.docker.is_none() {
            continue;
        }
        let name = edict_crds::name(&config);
        ensure!(
            config.labels().contains_key(LABEL),
            "NodeConfig {name} has settings of Docker in it, which this test is about: delete it"
        );
        ctx.delete("nodeconfig", name).await?;
    }
    Ok(())
}

/// Holds when a file is there, byte for byte, on each of these nodes.
pub async fn same_on(nodes: &[Node], path: &str, expected: impl AsRef<[u8]>) -> Result<()> {
    ensure!(!nodes.is_empty(), "there is no node to look at");
    let expected = expected.as_ref();
    for (node, found) in crate::node::read_all(nodes, path).await? {
        let found = found.with_context(|| format!("{node} has no {path}"))?;
        ensure!(
            found == expected,
            "{path} on {node} says {:?}, not {:?}",
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(expected)
        );
    }
    Ok(())
}
