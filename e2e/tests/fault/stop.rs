//! A master that is turned off while a change goes out.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::install::NAMESPACE;
use e2e::nodeconfig::role;
use e2e::sample::throughout;
use e2e::wait::{self, Seen};
use e2e::{Change, Context, Fault, Node, fault, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::{BACK, all_hold, begin, others, test};

/// A Lease ends after 15 s and etcd elects another leader; the API's address is another master's when
/// the load balancer has noticed.
const TAKEN_OVER: Duration = Duration::from_mins(2);

/// The harder one of the three: another operator has to take over as well.
#[tokio::test]
async fn the_master_that_the_leader_runs_on() -> Result<()> {
    test("fault-master", async |ctx| {
        let node = leads_on(&ctx).await?;
        let (one, path) = begin(&ctx, "file", role(Role::All)).await?;
        one.settle(&ctx, ctx.nodes()).await?;
        let others = others(&ctx, &node);
        let two = one.clone().file(&path, "two\n");
        let change = Change::of(&ctx, &one, ctx.nodes(), ["one\n", "two\n"]).await?;
        let meanwhile = [change.clone().without(&node)];
        Fault::stop(&node)
            .await?
            .during(&ctx, async || {
                throughout(&ctx, &meanwhile, async || {
                    wait::until("the API to take a change", TAKEN_OVER, async || {
                        two.apply(&ctx).await?;
                        Ok(Seen::Done(()))
                    })
                    .await?;
                    let status =
                        status::reach(&ctx, two.name(), "the rest", TAKEN_OVER, |status| {
                            (status.applied as usize, status.unreachable) == (others.len(), 1)
                        });
                    let status = status.await?;
                    ensure!(
                        status.state == Some(State::Unreachable)
                            && status::says(&status, &node.name, State::Unreachable, &["agent"]),
                        "{status:?}"
                    );
                    all_hold(&ctx, &others, &path, Some("two\n")).await
                })
                .await
            })
            .await?;
        throughout(&ctx, &[change], async || {
            status::reach(&ctx, two.name(), "all of them", BACK, |status| {
                status.state == Some(State::Applied) && status.applied == status.targeted
            })
            .await?;
            all_hold(&ctx, ctx.nodes(), &path, Some("two\n")).await?;
            fault::whole(&ctx).await
        })
        .await
    })
    .await
}

/// The node that the leading operator runs on, which is to be a master.
async fn leads_on(ctx: &Context) -> Result<Node> {
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let lease = leases.get("edict-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let holder = holder.context("no operator leads")?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let on = pods
        .get(&holder)
        .await?
        .spec
        .and_then(|spec| spec.node_name);
    let masters = ctx.masters().into_iter();
    let mut on = masters.filter(|master| Some(&master.name) == on.as_ref());
    on.next()
        .with_context(|| format!("{holder} is on no master"))
}
