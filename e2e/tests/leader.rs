//! Operators come and go: one leads, the next one takes over, and who led before is not believed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Caller;
use e2e::install::NAMESPACE;
use e2e::{Context, Draft, Node, nodeconfig, wait};
use edict_core::guard::Policy;
use edict_core::wire::{self, Fence, Push};
use edict_crds::Role;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

const LEASE: &str = "edict-operator";
const EPOCH: &str = "edict.dev/epoch";
/// A Lease ends after 15 s, and whoever waits looks then.
const TAKEN_OVER: Duration = Duration::from_mins(1);
/// An operator that ended is started anew, after a wait that doubles each time.
const RESTARTED: Duration = Duration::from_mins(3);

/// Who leads, for which epoch.
async fn leader(ctx: &Context) -> Result<Option<(String, u64)>> {
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let Some(lease) = api.get_opt(LEASE).await? else {
        return Ok(None);
    };
    let epoch = match lease.annotations().get(EPOCH) {
        Some(epoch) => epoch.parse()?,
        None => return Ok(None),
    };
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    Ok(holder.map(|holder| (holder, epoch)))
}

/// Waits until somebody leads for an epoch after `epoch`.
async fn next_leader(ctx: &Context, epoch: u64) -> Result<(String, u64)> {
    wait::until("the next leader", RESTARTED, async || {
        Ok(match leader(ctx).await? {
            Some((holder, now)) if now > epoch => wait::Seen::Done((holder, now)),
            other => wait::Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

async fn pod(ctx: &Context, name: &str) -> Result<Pod> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    Ok(api.get(name).await?)
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .map(|one| one.restart_count)
        .sum()
}

/// Sends a signal to the operator in a pod, on its node.
async fn signal(ctx: &Context, pod: &Pod, signal: &str) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    let node = ctx.nodes().iter().find(|one| Some(&one.name) == node);
    let node = node.context("the operator is on no node")?;
    let status = pod.status.as_ref();
    let id = status
        .and_then(|status| {
            status
                .container_statuses
                .as_ref()?
                .first()?
                .container_id
                .as_ref()
        })
        .and_then(|id| id.strip_prefix("containerd://"))
        .context("the operator has no container")?;
    let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill"];
    node.run(&[&kill[..], &["--signal", signal, id]].concat())
        .await
        .map(drop)
}

fn draft(ctx: &Context, content: &str) -> Draft {
    Draft::new(&ctx.name, nodeconfig::role(Role::All)).file(&path(ctx), content)
}

fn path(ctx: &Context) -> String {
    format!("/etc/edict/{}/file", ctx.name)
}

async fn agrees(ctx: &Context, content: &str) -> Result<()> {
    for (node, found) in ctx.read_all(ctx.nodes(), &path(ctx)).await? {
        ensure!(
            found.as_deref() == Some(content.as_bytes()),
            "{node}: {found:?}, not {content:?}"
        );
    }
    Ok(())
}

/// Every agent has heard of this leader.
async fn known(ctx: &Context, epoch: u64) -> Result<()> {
    for node in ctx.nodes() {
        wait::until("an agent that knows the leader", TAKEN_OVER, async || {
            let hello = Caller::operator(&ctx.client, &node.name)
                .await?
                .hello()
                .await?;
            let seen = hello.fence.map(|fence| fence.epoch);
            Ok(wait::Seen::when(seen == Some(epoch), (&node.name, seen)))
        })
        .await?;
    }
    Ok(())
}

/// An operator of `epoch` can't tell this node anything.
async fn fenced(ctx: &Context, node: &Node, epoch: u64) -> Result<()> {
    let mut caller = Caller::operator(&ctx.client, &node.name).await?;
    let push = Push::new(node.name.clone(), Policy::default(), vec![], vec![]);
    let old = push.fenced(
        wire::VERSION,
        Fence {
            epoch,
            sequence: u64::MAX,
        },
    );
    let refusal = match caller.push_bytes(serde_json::to_vec(&old)?).await? {
        Err(refusal) => refusal,
        Ok(report) => anyhow::bail!("{} believes epoch {epoch}: {report:?}", node.name),
    };
    ensure!(refusal.reason == wire::FENCED, "{refusal}");
    Ok(())
}

#[tokio::test]
async fn another_takes_over_from_one_that_is_gone() -> Result<()> {
    e2e::test("leader-gone", async |ctx| {
        let one = draft(&ctx, "one\n");
        one.settle(&ctx, ctx.nodes()).await?;
        let (holder, epoch) = next_leader(&ctx, 0).await?;
        let api: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        api.delete(&holder, &DeleteParams::default().grace_period(0))
            .await?;
        let two = draft(&ctx, "two\n");
        two.settle(&ctx, ctx.nodes()).await?;
        let (other, later) = next_leader(&ctx, epoch).await?;
        ensure!(other != holder, "{other} leads again");
        known(&ctx, later).await?;
        for node in ctx.nodes() {
            fenced(&ctx, node, epoch).await?;
        }
        agrees(&ctx, "two\n").await?;
        two.delete(&ctx).await
    })
    .await
}

#[tokio::test]
async fn who_stood_still_changes_nothing() -> Result<()> {
    e2e::test("leader-frozen", async |ctx| {
        let one = draft(&ctx, "one\n");
        one.settle(&ctx, ctx.nodes()).await?;
        let (holder, epoch) = next_leader(&ctx, 0).await?;
        let before = pod(&ctx, &holder).await?;
        signal(&ctx, &before, "SIGSTOP").await?;
        let body = async {
            // It is to know the old content only.
            let two = draft(&ctx, "two\n");
            two.settle(&ctx, ctx.nodes()).await?;
            let (other, later) = next_leader(&ctx, epoch).await?;
            ensure!(other != holder, "{other} leads again");
            known(&ctx, later).await
        };
        let outcome = body.await;
        signal(&ctx, &before, "SIGCONT").await?;
        outcome?;
        // At every look the nodes have what the new leader gave them.
        let what = "the end of the one that stood still";
        wait::until(what, RESTARTED, async || {
            if let Err(error) = agrees(&ctx, "two\n").await {
                return Ok(wait::Seen::Done(Err(error)));
            }
            let now = pod(&ctx, &holder).await?;
            Ok(if restarts(&now) > restarts(&before) {
                wait::Seen::Done(Ok(()))
            } else {
                wait::Seen::NotYet(format!("{:?}", now.status))
            })
        })
        .await??;
        agrees(&ctx, "two\n").await?;
        draft(&ctx, "two\n").delete(&ctx).await
    })
    .await
}

#[tokio::test]
async fn a_lease_that_is_deleted_is_made_anew_with_a_higher_epoch() -> Result<()> {
    e2e::test("leader-lease", async |ctx| {
        draft(&ctx, "one\n").settle(&ctx, ctx.nodes()).await?;
        let (_, epoch) = next_leader(&ctx, 0).await?;
        let api: Api<Lease> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        api.delete(LEASE, &DeleteParams::default()).await?;
        let (_, later) = next_leader(&ctx, epoch).await?;
        known(&ctx, later).await?;
        let two = draft(&ctx, "two\n");
        two.settle(&ctx, ctx.nodes()).await?;
        agrees(&ctx, "two\n").await?;
        two.delete(&ctx).await
    })
    .await
}

#[tokio::test]
async fn two_operators_run_and_both_are_ready() -> Result<()> {
    e2e::test("leader-two", async |ctx| {
        let api: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        let those = ListParams::default().labels("app.kubernetes.io/name=edict-operator");
        wait::until("two operators on two masters", RESTARTED, async || {
            let pods = api.list(&those).await?.items;
            let ready = |pod: &&Pod| {
                let status = pod.status.as_ref();
                let all = status.and_then(|status| status.container_statuses.as_ref());
                pod.metadata.deletion_timestamp.is_none()
                    && all.is_some_and(|all| all.iter().all(|one| one.ready))
            };
            let masters = ctx.masters();
            let place = |pod: &Pod| {
                let name = pod.spec.as_ref()?.node_name.clone()?;
                masters.iter().any(|node| node.name == name).then_some(name)
            };
            let places: std::collections::BTreeSet<_> =
                pods.iter().filter(ready).filter_map(place).collect();
            Ok(wait::Seen::when(places.len() == 2, places))
        })
        .await
    })
    .await
}
