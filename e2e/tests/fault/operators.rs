//! Nobody operates: nothing happens to nodes, and what was asked for meanwhile is done afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::wait::{self, Seen};
use e2e::{Change, Fault, Trees, status};
use edict_crds::nodeconfig::State;
use edict_crds::{NodeConfig, Role};
use kube::Api;
use tokio::time::Instant;

use super::{BACK, all_hold, begin, delete, gone, test};

/// Longer than any of the operator's intervals but the safety net.
const NOTHING_HAPPENS: Duration = Duration::from_secs(15);

#[tokio::test]
async fn none_runs_while_one_config_changes_and_one_goes() -> Result<()> {
    test("fault-operators", async |ctx| {
        let (changed, path) = begin(&ctx, "changed", role(Role::All)).await?;
        let (deleted, other) = begin(&ctx, "deleted", role(Role::All)).await?;
        changed.settle(&ctx, ctx.nodes()).await?;
        deleted.settle(&ctx, ctx.nodes()).await?;
        let two = changed.clone().file(&path, "two\n");
        let change = [Change::of(&ctx, &changed, ctx.nodes(), ["one\n", "two\n"]).await?];
        let before = Trees::of(ctx.nodes()).await?;
        let none = Fault::no_operators(&ctx).await?;
        throughout(&ctx, &change, async || {
            none.during(&ctx, async || {
                two.apply(&ctx).await?;
                delete(&ctx, &deleted).await?;
                let began = Instant::now();
                wait::until("the time to pass", BACK, async || {
                    let passed = began.elapsed();
                    Ok(Seen::when(passed > NOTHING_HAPPENS, passed))
                })
                .await?;
                before.unchanged(ctx.nodes()).await?;
                let api: Api<NodeConfig> = Api::all(ctx.client.clone());
                let there = api.get(deleted.name()).await?;
                ensure!(there.metadata.deletion_timestamp.is_some(), "{there:?}");
                Ok(())
            })
            .await?;
            status::reach(&ctx, two.name(), "all of them", BACK, |status| {
                status.state == Some(State::Applied) && status.applied == status.targeted
            })
            .await?;
            all_hold(&ctx, ctx.nodes(), &path, Some("two\n")).await?;
            gone(&ctx, &deleted).await?;
            all_hold(&ctx, ctx.nodes(), &other, None).await
        })
        .await
    })
    .await
}
