//! What a node can't apply is tried there once and put back; it is tried again when somebody asks,
//! and holds up nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::same_on;
use e2e::nodeconfig::{event, named, role};
use e2e::{Context, Draft, Node, Trees, status};
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::OutcomeStatus;
use edict_crds::{NodeState, Role};
use k8s_openapi::jiff::Timestamp;
use kube::Api;

/// A node is told at once, and says at once that it can't.
const TRIED: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_full_disk_on_one_node() -> Result<()> {
    e2e::test("held-full", async |ctx| {
        let node = ctx.workers().remove(0);
        let folder = format!("/etc/edict/{}", ctx.name);
        let filler = format!("{folder}/filler");
        on_full_disk(&node, &folder, &filler, async || {
            let here = std::slice::from_ref(&node);
            let others: Vec<_> = ctx
                .nodes()
                .iter()
                .filter(|other| other.name != node.name)
                .cloned()
                .collect();
            let before = Trees::of(ctx.nodes()).await?;
            let [full, beside] = [format!("{folder}/file"), format!("{folder}-beside")];
            let draft = Draft::new(&ctx.name, role(Role::All))
                .file(&full, "wanted\n")
                .file(&beside, "wanted\n");
            let since = Timestamp::now();
            draft.apply(&ctx).await?;
            is_held(&ctx, &node).await?;
            let words = [&*node.name, "No space left on device", "edict.dev/retry"];
            event(&ctx, since, draft.name(), "Held", &words).await?;
            before.unchanged(here).await?;
            same_on(&others, &full, "wanted\n").await?;
            same_on(&others, &beside, "wanted\n").await?;

            // There is room again, and nobody says so: the node is told of something else, and does
            // that alone.
            node.remove(&filler).await?;
            let room = Trees::of(ctx.nodes()).await?;
            let path = format!("{folder}-other");
            let other = Draft::new(&format!("{}-other", ctx.name), named(here));
            let other = other.file(&path, "other\n");
            other.settle(&ctx, here).await?;
            room.changed_only(here, &[&path]).await?;
            for path in [&full, &beside] {
                let found = node.text(path).await?;
                ensure!(found.is_none(), "{path} on {}: {found:?}", node.name);
            }
            is_held(&ctx, &node).await?;

            draft.retry(&ctx, &Timestamp::now().to_string()).await?;
            draft.settled(&ctx, ctx.nodes()).await?;
            same_on(ctx.nodes(), &full, "wanted\n").await?;
            same_on(ctx.nodes(), &beside, "wanted\n").await?;
            other.delete(&ctx).await?;
            draft.delete(&ctx).await?;
            before.unchanged(ctx.nodes()).await
        })
        .await
    })
    .await
}

/// This node holds the test's `NodeConfig` and says why and what to do; every other one has it.
async fn is_held(ctx: &Context, node: &Node) -> Result<()> {
    let others = u32::try_from(ctx.nodes().len() - 1)?;
    let status = status::reach(ctx, &ctx.name, "to be held", TRIED, |status| {
        status.state == Some(State::Held) && status.applied == others
    })
    .await?;
    ensure!((status.failed, status.pending) == (1, 0), "{status:?}");
    let advice = format!(
        "held: set the annotation edict.dev/retry of NodeConfig {} to a new value",
        ctx.name
    );
    let words = [
        "No space left on device",
        "free some space on the node",
        "is put back",
        &advice,
    ];
    ensure!(
        status::says(&status, &node.name, State::Held, &words),
        "{status:?}"
    );
    let states: Api<NodeState> = Api::all(ctx.client.clone());
    let status = states.get(&node.name).await?.status.unwrap_or_default();
    let mut layers = status.layers.iter();
    let layer = layers
        .find(|layer| layer.name == ctx.name)
        .context("the NodeState does not tell of it")?;
    ensure!(layer.outcome == OutcomeStatus::Held, "{layer:?}");
    ensure!(layer.in_force.is_none(), "{layer:?}");
    Ok(())
}

/// Runs `body` while `folder` on a node is a small disk of its own that `filler` fills; that is
/// taken away afterwards, however it ends.
async fn on_full_disk(
    node: &Node,
    folder: &str,
    filler: &str,
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    // An earlier run may have been cut short.
    unmount(node, folder).await?;
    node.run(&["mkdir", "-p", folder]).await?;
    let disk = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder];
    node.run(&[&["mount"][..], &disk].concat()).await?;
    let into = format!("of={filler}");
    let filled = node
        .exec(&["dd", "if=/dev/zero", &into, "bs=4k", "count=1000"])
        .await?;
    let outcome = if filled.stderr.contains("No space left on device") {
        body().await
    } else {
        Err(anyhow::anyhow!("{folder} is not full: {}", filled.stderr))
    };
    unmount(node, folder).await?;
    outcome
}

async fn unmount(node: &Node, folder: &str) -> Result<()> {
    let mounted = node.exec(&["mountpoint", "--quiet", folder]).await?;
    if mounted.success() {
        // The agent's own view of it may be in use at this moment.
        node.run(&["umount", "--lazy", folder]).await?;
    }
    node.remove(folder).await
}
