//! Nodes that the cluster loses: one leaves the API and joins again with its disk, one comes back
//! with an empty one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::wait;
use e2e::{Change, Context, Node, fault};
use edict_crds::{NodeState, Role};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};

use super::{NOTICED, all_hold, begin, delete, forgotten, gone, holds, test};

type ApiNode = k8s_openapi::api::core::v1::Node;

/// A node's pods are collected some 40 s after it is gone.
const JOINED: Duration = Duration::from_mins(4);

#[tokio::test]
async fn a_node_is_deleted_and_joins_again() -> Result<()> {
    test("fault-rejoin", async |ctx| {
        let workers = ctx.workers();
        let (other, node) = (&workers[0], &workers[1]);
        let (kept, path) = begin(&ctx, "kept", role(Role::Worker)).await?;
        let (deleted, gone_path) = begin(&ctx, "deleted", role(Role::Worker)).await?;
        kept.settle(&ctx, &workers).await?;
        deleted.settle(&ctx, &workers).await?;
        let (file, labels) = (identity(node, &path).await?, labels(&ctx, node).await?);
        // Nothing is ever written: before and after are the same.
        let change = [Change::of(&ctx, &kept, &workers, ["one\n", "one\n"]).await?];
        throughout(&ctx, &change, async || {
            let body = async {
                leave(&ctx, node).await?;
                kept.settled(&ctx, std::slice::from_ref(other)).await?;
                delete(&ctx, &deleted).await?;
                gone(&ctx, &deleted).await?;
                holds(other, &gone_path, None).await?;
                // Nobody can tell the node.
                all_hold(&ctx, std::slice::from_ref(node), &gone_path, Some("one\n")).await
            };
            let outcome = body.await;
            let joined = join(&ctx, node).await;
            outcome?;
            joined?;
            let now = self::labels(&ctx, node).await?;
            ensure!(now == labels, "it had {labels:?} and has {now:?}");
            kept.settled(&ctx, &workers).await?;
            forgotten(&ctx, node, &deleted).await?;
            holds(node, &gone_path, None).await
        })
        .await?;
        let now = identity(node, &path).await?;
        ensure!(
            now == file,
            "{path} was written: it was {file} and is {now}"
        );
        all_hold(&ctx, std::slice::from_ref(other), &gone_path, None).await
    })
    .await
}

#[tokio::test]
async fn a_node_comes_back_with_an_empty_disk() -> Result<()> {
    test("fault-reimaged", async |ctx| {
        let workers = ctx.workers();
        let (node, other) = (&workers[0], &workers[1]);
        let (draft, path) = begin(&ctx, "file", role(Role::Worker)).await?;
        draft.settle(&ctx, &workers).await?;
        let untouched = identity(other, &path).await?;
        node.run(&["systemctl", "stop", "kubelet"]).await?;
        let body = async {
            // Nobody starts it now.
            node.run(&["pkill", "-KILL", "-x", "edict-agent"]).await?;
            node.remove("/var/lib/edict").await?;
            node.remove("/etc/edict").await
        };
        let outcome = body.await;
        node.run(&["systemctl", "start", "kubelet"]).await?;
        outcome?;
        holds(node, &path, Some("one\n")).await?;
        draft.settled(&ctx, &workers).await?;
        let now = identity(other, &path).await?;
        ensure!(now == untouched, "{} was written too", other.name);
        // It knows that there was nothing before.
        draft.delete(&ctx).await?;
        all_hold(&ctx, &workers, &path, None).await?;
        let left = node.stat("/etc/edict").await?;
        ensure!(left.is_none(), "the folder is still there: {left:?}");
        Ok(())
    })
    .await
}

/// Deletes a node, and waits until nothing stands for it any more.
async fn leave(ctx: &Context, node: &Node) -> Result<()> {
    let nodes: Api<ApiNode> = Api::all(ctx.client.clone());
    let states: Api<NodeState> = Api::all(ctx.client.clone());
    nodes.delete(&node.name, &DeleteParams::default()).await?;
    wait::gone(&nodes, &node.name, NOTICED).await?;
    wait::gone(&states, &node.name, NOTICED).await
}

/// Has the node's kubelet register it again, and waits until an agent answers there.
async fn join(ctx: &Context, node: &Node) -> Result<()> {
    node.run(&["systemctl", "restart", "kubelet"]).await?;
    let nodes: Api<ApiNode> = Api::all(ctx.client.clone());
    let what = "to have joined";
    wait::object(&nodes, &node.name, what, JOINED, |_| true).await?;
    // What ran there has addresses of the node that was.
    fault::renew(ctx, node).await?;
    fault::whole(ctx).await
}

async fn labels(ctx: &Context, node: &Node) -> Result<BTreeMap<String, String>> {
    let nodes: Api<ApiNode> = Api::all(ctx.client.clone());
    Ok(nodes.get(&node.name).await?.labels().clone())
}

/// What changes when a file is written: inode, and when anything of it changed last.
async fn identity(node: &Node, path: &str) -> Result<String> {
    node.run(&["stat", "--format=%i %z", path]).await
}
