//! Faults of a cluster while something changes: no byte is lost, the others are served, and what a
//! status says is true at every look.
//!
//! | module | what goes wrong |
//! |---|---|
//! | `kill` | an agent is killed in the middle of a push of 200 files |
//! | `stop` | the master that the leader runs on is turned off |
//! | `away` | a node is frozen, or its agent has no network |
//! | `operators` | no operator runs |
//! | `probation` | a node is turned off, or cut off from its operator, while a firewall is on probation |
//! | `rejoin` | a node leaves the API and joins again; a node comes back with an empty disk |
//! | `space` | a disk is full: where files go, or where the agent keeps its state |
//!
//! Leaders that die or stand still are in `leader.rs`, a clock that is ahead in
//! `agent/tests/agent/clock.rs`.

#[path = "fault/away.rs"]
mod away;
#[path = "fault/kill.rs"]
mod kill;
#[path = "fault/operators.rs"]
mod operators;
#[path = "fault/probation.rs"]
mod probation;
#[path = "fault/rejoin.rs"]
mod rejoin;
#[path = "fault/space.rs"]
mod space;
#[path = "fault/stop.rs"]
mod stop;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::hostfile::folder;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Node, fault};
use edict_crds::{NodeConfig, NodeState, Target};
use kube::Api;
use kube::api::DeleteParams;

/// The operator asks every ten seconds, and an agent has eight to answer.
const NOTICED: Duration = Duration::from_mins(1);
/// It knocks every five seconds; a node that was away first finds back to itself.
const BACK: Duration = Duration::from_mins(3);

/// A file of the test on every node that a target means, in a whole cluster.
async fn begin(ctx: &Context, name: &str, target: Target) -> Result<(Draft, String)> {
    let path = format!("{}/{name}", folder(ctx).await?);
    let draft = Draft::new(&format!("{}-{name}", ctx.name), target).file(&path, "one\n");
    Ok((draft, path))
}

/// All nodes but this one.
fn others(ctx: &Context, away: &Node) -> Vec<Node> {
    let nodes = ctx.nodes().iter();
    nodes
        .filter(|node| node.name != away.name)
        .cloned()
        .collect()
}

/// Waits until a file on a node is as it should be; none where there should be no such file.
async fn holds(node: &Node, path: &str, content: Option<&str>) -> Result<()> {
    let what = format!("{path} on {} to be {content:?}", node.name);
    wait::until(&what, BACK, async || {
        let found = node.text(path).await?;
        Ok(Seen::when(found.as_deref() == content, found))
    })
    .await
}

/// Deletes a NodeConfig without waiting for anything.
async fn delete(ctx: &Context, draft: &Draft) -> Result<()> {
    let api: Api<NodeConfig> = Api::all(ctx.client.clone());
    api.delete(draft.name(), &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until a NodeConfig is gone.
async fn gone(ctx: &Context, draft: &Draft) -> Result<()> {
    let api: Api<NodeConfig> = Api::all(ctx.client.clone());
    wait::gone(&api, draft.name(), NOTICED).await
}

/// Waits until a node neither has nor is giving back a NodeConfig.
async fn forgotten(ctx: &Context, node: &Node, draft: &Draft) -> Result<()> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    let what = format!("nothing of {}", draft.name());
    wait::object(&api, &node.name, &what, BACK, |state| {
        let spec = &state.spec;
        !spec.layers.iter().any(|one| one.name == draft.name())
            && !spec.releases.iter().any(|one| one.name == draft.name())
    })
    .await?;
    Ok(())
}

/// Holds when a file is as it should be on all of these nodes.
async fn all_hold(ctx: &Context, nodes: &[Node], path: &str, content: Option<&str>) -> Result<()> {
    for (node, found) in ctx.read_all(nodes, path).await? {
        ensure!(
            found.as_deref() == content.map(str::as_bytes),
            "{path} on {node} is {found:?}, not {content:?}"
        );
    }
    Ok(())
}

/// Runs a test in a cluster that is whole, and leaves it so.
async fn test(name: &str, body: impl AsyncFnOnce(Context) -> Result<()>) -> Result<()> {
    e2e::test(name, async |ctx| {
        fault::heal(&ctx).await?;
        let outcome = body(ctx.clone()).await;
        let healed = fault::heal(&ctx).await;
        outcome.and(healed)
    })
    .await
}
