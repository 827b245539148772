//! A node that answers nothing while one NodeConfig changes and another one goes.

use anyhow::{Result, ensure};
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::{Change, Context, Draft, Fault, Node, fault, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::Contact;

use super::{BACK, NOTICED, all_hold, begin, delete, forgotten, gone, holds, others, test};

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
