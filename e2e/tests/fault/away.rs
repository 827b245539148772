//! A node that answers nothing while one NodeConfig changes and another one goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::wait::{self, Seen};
use e2e::{Change, Context, Draft, Fault, Node, fault, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::Contact;

use super::{BACK, NOTICED, all_hold, begin, delete, forgotten, gone, holds, others, test};

/// A Lease ends after 15 s, a request after 10 and a watch after 25; each may meet the frozen API
/// server a second time.
const ELSEWHERE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn the_agent_has_no_network() -> Result<()> {
    test("fault-network", async |ctx| {
        let node = ctx.workers().remove(0);
        let case = Case::begin(&ctx, &node).await?;
        let change = case.change(&ctx).await?;
        let cut = Fault::cut(&ctx, &node).await?;
        throughout(&ctx, &[change], async || {
            cut.during(&ctx, async || {
                case.goes_on(&ctx).await?;
                // Nobody can tell it anything, and it can be looked into.
                let here = std::slice::from_ref(&node);
                all_hold(&ctx, here, &case.changed.1, Some("one\n")).await?;
                all_hold(&ctx, here, &case.deleted.1, Some("one\n")).await
            })
            .await?;
            case.catches_up(&ctx).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_worker_is_frozen() -> Result<()> {
    test("fault-frozen", async |ctx| {
        let node = ctx.workers().remove(1);
        let case = Case::begin(&ctx, &node).await?;
        let change = case.change(&ctx).await?;
        let meanwhile = [change.clone().without(&node)];
        let frozen = Fault::freeze(&node).await?;
        frozen
            .during(&ctx, async || {
                throughout(&ctx, &meanwhile, async || case.goes_on(&ctx).await).await
            })
            .await?;
        // Now it can be looked into again.
        throughout(&ctx, &[change], async || case.catches_up(&ctx).await).await
    })
    .await
}

/// The leader runs on one of them, and every operator talks to some of them: what was asked there is
/// asked elsewhere, while it stands still.
#[tokio::test]
async fn each_master_is_frozen_in_turn() -> Result<()> {
    test("fault-masters", async |ctx| {
        let (draft, path) = begin(&ctx, "file", role(Role::All)).await?;
        draft.settle(&ctx, ctx.nodes()).await?;
        let contents = ["one\n", "two\n", "three\n", "four\n"];
        for (node, content) in ctx.masters().iter().zip(contents.windows(2)) {
            let (before, after) = (content[0], content[1]);
            let draft = draft.clone().file(&path, before);
            let change = Change::of(&ctx, &draft, ctx.nodes(), [before, after]).await?;
            let (others, next) = (others(&ctx, node), draft.file(&path, after));
            let meanwhile = [change.without(node)];
            let frozen = Fault::freeze(node).await?;
            frozen
                .during(&ctx, async || {
                    throughout(&ctx, &meanwhile, async || {
                        wait::until("the API to take a change", ELSEWHERE, async || {
                            next.apply(&ctx).await?;
                            Ok(Seen::Done(()))
                        })
                        .await?;
                        let what = format!("all but {}", node.name);
                        status::reach(&ctx, next.name(), &what, ELSEWHERE, |status| {
                            (status.applied as usize, status.unreachable) == (others.len(), 1)
                        })
                        .await?;
                        all_hold(&ctx, &others, &path, Some(after)).await
                    })
                    .await
                })
                .await?;
            next.settled(&ctx, ctx.nodes()).await?;
            fault::whole(&ctx).await?;
        }
        Ok(())
    })
    .await
}

/// Two NodeConfigs with a file each on every node, of which one is away.
struct Case {
    node: Node,
    changed: (Draft, String),
    deleted: (Draft, String),
}

impl Case {
    async fn begin(ctx: &Context, node: &Node) -> Result<Self> {
        let changed = begin(ctx, "changed", role(Role::All)).await?;
        let deleted = begin(ctx, "deleted", role(Role::All)).await?;
        for (draft, _) in [&changed, &deleted] {
            draft.settle(ctx, ctx.nodes()).await?;
        }
        Ok(Self {
            node: node.clone(),
            changed,
            deleted,
        })
    }

    async fn change(&self, ctx: &Context) -> Result<Change> {
        let (draft, _) = &self.changed;
        Change::of(ctx, draft, ctx.nodes(), ["one\n", "two\n"]).await
    }

    /// While the node is away, the others are served.
    async fn goes_on(&self, ctx: &Context) -> Result<()> {
        let (changed, path) = &self.changed;
        let (deleted, other) = &self.deleted;
        let others = others(ctx, &self.node);
        let two = changed.clone().file(path, "two\n");
        two.apply(ctx).await?;
        delete(ctx, deleted).await?;
        let why = fault::contact(ctx, &self.node, Contact::Unreachable, NOTICED).await?;
        ensure!(!why.is_empty(), "nothing says why");
        let status = status::reach(ctx, two.name(), "all but one", NOTICED, |status| {
            (status.applied as usize, status.unreachable) == (others.len(), 1)
        });
        let status = status.await?;
        ensure!(
            status.state == Some(State::Unreachable)
                && status.failed == 0
                && status::says(&status, &self.node.name, State::Unreachable, &["agent"]),
            "{status:?}"
        );
        all_hold(ctx, &others, path, Some("two\n")).await?;
        gone(ctx, deleted).await?;
        all_hold(ctx, &others, other, None).await
    }

    /// Once it is back, the node has what the others have.
    async fn catches_up(&self, ctx: &Context) -> Result<()> {
        let (changed, path) = &self.changed;
        let (deleted, other) = &self.deleted;
        let count = ctx.nodes().len();
        status::reach(ctx, changed.name(), "all of them", BACK, |status| {
            status.state == Some(State::Applied) && status.applied as usize == count
        })
        .await?;
        all_hold(ctx, ctx.nodes(), path, Some("two\n")).await?;
        forgotten(ctx, &self.node, deleted).await?;
        holds(&self.node, other, None).await
    }
}
