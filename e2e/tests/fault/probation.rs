//! A node that is turned off, and an agent that hears its operator no more, while a firewall is on probation.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::nodeconfig::named;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Fault, Node, fault, status};
use edict_crds::nodeconfig::State;
use serde_json::{Value, json};

use super::{BACK, test};

/// A table that is loaded, and a probation that is over.
const SOON: Duration = Duration::from_mins(2);
/// Whether systemd has started what loads the table, and when it looked whether it may.
const STARTED: [&str; 5] = [
    "systemctl",
    "show",
    "--property=ConditionResult",
    "--property=ConditionTimestampMonotonic",
    "edict-firewall.service",
];

/// A firewall in force on one node, and another one there that keeps the cluster out.
struct Trial {
    node: Node,
    kept: Draft,
    table: String,
}

impl Trial {
    async fn begin(ctx: &Context, seconds: u32) -> Result<Self> {
        let node = ctx.workers().remove(1);
        let here = std::slice::from_ref(&node);
        let kept = Draft::new(&ctx.name, named(here));
        let kept = kept.block(
            "firewall",
            &json!({"allow": [{"ports": [{"port": 10256}]}]}),
        );
        kept.settle(ctx, here).await?;
        let table = node.table().await?.context("there is no table")?;
        let trial = Self { node, kept, table };
        let none = json!({"nodeCIDRs": [], "podCIDRs": [], "serviceCIDRs": []});
        let cuts: Value = json!({"cluster": none, "probationSeconds": seconds});
        let cuts = trial.kept.clone().block("firewall", &cuts);
        cuts.apply(ctx).await?;
        trial
            .has("another one", |table| table != trial.table)
            .await?;
        Ok(trial)
    }

    async fn has(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<()> {
        let what = format!("the table of {} to be {what}", self.node.name);
        wait::until(&what, SOON, async || {
            let found = self.node.table().await?;
            Ok(Seen::when(found.as_deref().is_some_and(&is), found))
        })
        .await
    }

    async fn is_as_before(&self) -> Result<()> {
        self.has("as before", |table| table == self.table).await
    }

    /// Gives the node back.
    async fn end(&self, ctx: &Context) -> Result<()> {
        self.kept.delete(ctx).await?;
        let left = self.node.table().await?;
        ensure!(left.is_none(), "{left:?}");
        fault::whole(ctx).await
    }
}

#[tokio::test]
async fn a_node_is_turned_off_while_a_firewall_is_on_probation() -> Result<()> {
    test("fault-probation-off", async |ctx| {
        let trial = Trial::begin(&ctx, 120).await?;
        let off = Fault::stop(&trial.node).await?;
        let none = off.during(&ctx, async || {
            trial.kept.apply(&ctx).await?;
            // Nobody pushes anything.
            Fault::no_operators(&ctx).await
        });
        let none = none.await?;
        none.during(&ctx, async || {
            wait::until("the host to be up again", BACK, async || {
                let said = trial.node.exec(&STARTED).await?.text();
                let looked = !said.contains("ConditionTimestampMonotonic=0");
                Ok(Seen::when(
                    said.contains("ConditionResult=") && looked,
                    said,
                ))
            })
            .await?;
            let said = trial.node.run(&STARTED).await?;
            ensure!(said.contains("ConditionResult=no"), "it was loaded: {said}");
            trial.is_as_before().await
        })
        .await?;
        status::reach(&ctx, trial.kept.name(), "the first again", BACK, |status| {
            status.state == Some(State::Applied) && status.applied == status.targeted
        })
        .await?;
        trial.is_as_before().await?;
        trial.end(&ctx).await
    })
    .await
}

#[tokio::test]
async fn an_agent_hears_its_operator_no_more_while_a_firewall_is_on_probation() -> Result<()> {
    test("fault-probation-cut", async |ctx| {
        let trial = Trial::begin(&ctx, 60).await?;
        let cut = Fault::cut(&ctx, &trial.node).await?;
        cut.during(&ctx, async || {
            let now = trial.node.table().await?;
            ensure!(now.as_ref() != Some(&trial.table), "it is over already");
            trial.is_as_before().await
        })
        .await?;
        let words = ["the firewall keeps the cluster out", "is put back"];
        status::reach(&ctx, trial.kept.name(), "to be held", BACK, |status| {
            status::says(status, &trial.node.name, State::Held, &words)
        })
        .await?;
        trial.is_as_before().await?;
        trial.end(&ctx).await
    })
    .await
}
