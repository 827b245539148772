//! A node whose disk is full.

use anyhow::{Result, ensure};
use e2e::hostfile::folder;
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::{Change, Context, Draft, Fault, Node, agent, fault, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use k8s_openapi::jiff::Timestamp;

use super::{BACK, NOTICED, all_hold, begin, others, test};

/// What the file says after the change.
const TWO: &str = "two\n";
/// Where an agent keeps its state.
const STATE: &str = "/var/lib/edict";
/// Where it writes down what it begins.
const JOURNAL: &str = "/var/lib/edict/journal.json";

#[tokio::test]
async fn where_files_go() -> Result<()> {
    test("fault-space", async |ctx| {
        let node = ctx.workers().remove(0);
        let (one, path) = begin(&ctx, "file", role(Role::All)).await?;
        let two = one.clone().file(&path, TWO);
        let folder = folder(&ctx).await?;
        let volume = Fault::volume(&node, &folder, 64).await?;
        volume
            .during(&ctx, async || {
                one.settle(&ctx, ctx.nodes()).await?;
                fault::fill(&node, &folder).await?;
                let change = Change::of(&ctx, &one, ctx.nodes(), ["one\n", TWO]).await?;
                throughout(&ctx, &[change], async || {
                    fails(&ctx, &two, &node, State::Held).await?;
                    stays(&ctx, &node, &path).await?;
                    let there = node.run(&["ls", "-A", &folder]).await?;
                    ensure!(
                        there.split_whitespace().eq([fault::FILLER, "file"]),
                        "something is left of the attempt: {there}"
                    );
                    fault::free(&node, &folder).await?;
                    two.retry(&ctx, &Timestamp::now().to_string()).await?;
                    arrives(&ctx, &two, &path).await
                })
                .await?;
                two.delete(&ctx).await?;
                all_hold(&ctx, ctx.nodes(), &path, None).await
            })
            .await?;
        node.remove(&folder).await
    })
    .await
}

#[tokio::test]
async fn where_the_state_is_kept() -> Result<()> {
    test("fault-state", async |ctx| {
        let node = ctx.workers().remove(1);
        let (one, path) = begin(&ctx, "file", role(Role::All)).await?;
        // Something to lose: a file that was there before.
        let before = "before\n";
        ctx.plant(&node, &path, before.as_bytes(), 0o640).await?;
        one.settle(&ctx, ctx.nodes()).await?;
        let two = one.clone().file(&path, TWO);
        let change = [Change::of(&ctx, &one, ctx.nodes(), ["one\n", TWO]).await?];
        let mut kept = node.tree(STATE).await?;
        kept.remove(JOURNAL);
        throughout(&ctx, &change, async || {
            let volume = Fault::volume(&node, STATE, 1024).await?;
            let body = async || {
                // What fits into the room that it has would be applied all the same.
                node.remove(JOURNAL).await?;
                fault::fill(&node, STATE).await?;
                // The agent that runs has the folder in its hand.
                agent::replace(&ctx.client, &node.name).await?;
                fails(&ctx, &two, &node, State::Failed).await?;
                stays(&ctx, &node, &path).await?;
                let mut now = node.tree(STATE).await?;
                now.remove(&format!("{STATE}/{}", fault::FILLER));
                ensure!(now == kept, "the state was {kept:?} and is {now:?}");
                Ok(())
            };
            volume.during(&ctx, body).await?;
            agent::replace(&ctx.client, &node.name).await?;
            two.retry(&ctx, &Timestamp::now().to_string()).await?;
            arrives(&ctx, &two, &path).await
        })
        .await?;
        two.delete(&ctx).await?;
        all_hold(&ctx, std::slice::from_ref(&node), &path, Some(before)).await?;
        all_hold(&ctx, &others(&ctx, &node), &path, None).await
    })
    .await
}

/// A change fails on the one node, which says what to do; all others get it.
/// Where it was begun it is held; where not even that is possible it is tried again and again.
async fn fails(ctx: &Context, two: &Draft, node: &Node, how: State) -> Result<()> {
    two.apply(ctx).await?;
    let others = others(ctx, node);
    let status = status::reach(ctx, two.name(), "all but one", NOTICED, |status| {
        (status.applied as usize, status.failed) == (others.len(), 1)
    });
    let status = status.await?;
    let words = ["No space left on device", "free some space on the node"];
    ensure!(
        status.state == Some(how) && status::says(&status, &node.name, how, &words),
        "{status:?}"
    );
    Ok(())
}

/// The node keeps what it has, and all others have the change.
async fn stays(ctx: &Context, node: &Node, path: &str) -> Result<()> {
    all_hold(ctx, &others(ctx, node), path, Some(TWO)).await?;
    all_hold(ctx, std::slice::from_ref(node), path, Some("one\n")).await
}

async fn arrives(ctx: &Context, two: &Draft, path: &str) -> Result<()> {
    status::reach(ctx, two.name(), "all of them", BACK, |status| {
        status.state == Some(State::Applied) && status.applied == status.targeted
    })
    .await?;
    all_hold(ctx, ctx.nodes(), path, Some(TWO)).await
}
