//! Operator and agents of different releases work together, in both directions.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::image::{Images, checkout};
use e2e::settings::{Settings, version};
use e2e::{Context, Draft, install, nodeconfig, status, wait};
use edict_core::config::NotifyAction;
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

/// A push and its report.
const CHANGED: Duration = Duration::from_mins(2);

/// What is in force before everything, and stays so.
struct Kept {
    draft: Draft,
    path: String,
    touched: std::collections::BTreeMap<String, String>,
}

impl Kept {
    async fn new(ctx: &Context) -> Result<Self> {
        let path = format!("/etc/edict/{}/kept", ctx.name);
        let name = format!("{}-kept", ctx.name);
        let draft = Draft::new(&name, nodeconfig::role(Role::All)).file(&path, "kept\n");
        draft.settle(ctx, ctx.nodes()).await?;
        let touched = ctx.touched(ctx.nodes(), &path).await?;
        Ok(Self {
            draft,
            path,
            touched,
        })
    }

    /// In force, said to be so, and not written again.
    async fn holds(&self, ctx: &Context) -> Result<()> {
        self.draft.settled(ctx, ctx.nodes()).await?;
        let now = ctx.touched(ctx.nodes(), &self.path).await?;
        ensure!(
            now == self.touched,
            "written again: {:?}, then {now:?}",
            self.touched
        );
        Ok(())
    }
}

/// What a user does with whatever runs: a new one, a change, a conflict-free key of a shared file,
/// and the way back.
async fn works(ctx: &Context, with: &str) -> Result<()> {
    let path = format!("/etc/edict/{}/{with}", ctx.name);
    let name = format!("{}-{with}", ctx.name);
    let draft = |content| Draft::new(&name, nodeconfig::role(Role::All)).file(&path, content);
    draft("one\n").settle(ctx, ctx.nodes()).await?;
    draft("two\n").settle(ctx, ctx.nodes()).await?;
    for (node, found) in ctx.read_all(ctx.nodes(), &path).await? {
        ensure!(
            found.as_deref() == Some(b"two\n"),
            "{node}, {with}: {found:?}"
        );
    }
    draft("two\n").delete(ctx).await?;
    ctx.given_back(&path, CHANGED).await
}

/// What the agents do not know is not sent to them, and the status says so.
async fn too_old(ctx: &Context) -> Result<()> {
    let name = format!("{}-newer", ctx.name);
    let path = format!("/etc/edict/{}/newer", ctx.name);
    let newer = Draft::new(&name, nodeconfig::role(Role::All))
        .file(&path, "newer\n")
        .notify("none.service", NotifyAction::Reload);
    newer.apply(ctx).await?;
    let status = status::reach(ctx, &name, "all to be too old", CHANGED, |status| {
        status.state == Some(State::Failed) && status.failed as usize == ctx.nodes().len()
    });
    let status = status.await?;
    let said = "the agent does not know files.notify";
    ensure!(status.message.contains(said), "{}", status.message);
    ensure!(
        status.message.contains("update the Fleet's agent image"),
        "{}",
        status.message
    );
    for (node, found) in ctx.read_all(ctx.nodes(), &path).await? {
        ensure!(found.is_none(), "{node}: {found:?}");
    }
    newer.delete(ctx).await
}

#[tokio::test]
async fn from_the_release_before_and_back() -> Result<()> {
    e2e::test("upgrade", async |ctx| {
        let settings = Settings::read()?;
        let before = version("previous_release")?;
        let old = Images::of_commit(&settings, before).await?;
        old.load(&*ctx.cluster.provider).await?;
        let deploy = format!("{}/deploy", checkout(&settings, before).await?);
        let kept = Kept::new(&ctx).await?;
        let this = ctx.images.clone();
        let body = async {
            let mixed = Images {
                operator: old.operator.clone(),
                agent: this.agent.clone(),
            };
            install::replace(&settings, &ctx.cluster, &mixed, &deploy).await?;
            works(&ctx, "old-operator").await?;
            kept.holds(&ctx).await?;
            install::replace(&settings, &ctx.cluster, &old, &deploy).await?;
            kept.holds(&ctx).await?;
            let mixed = Images {
                operator: this.operator.clone(),
                agent: old.agent.clone(),
            };
            install::replace(&settings, &ctx.cluster, &mixed, "deploy").await?;
            works(&ctx, "old-agents").await?;
            too_old(&ctx).await?;
            kept.holds(&ctx).await
        };
        let outcome = body.await;
        install::replace(&settings, &ctx.cluster, &this, "deploy").await?;
        outcome?;
        works(&ctx, "neither").await?;
        kept.holds(&ctx).await?;
        kept.draft.delete(&ctx).await
    })
    .await
}

/// Has the nodes forget that there ever was an agent, as nodes that never had one.
async fn without_agents(ctx: &Context) -> Result<()> {
    let delete = ["delete", "fleet", "default", "--ignore-not-found"];
    ctx.kubectl().args(delete).within(CHANGED).text().await?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), install::NAMESPACE);
    let agents = ListParams::default().labels("app.kubernetes.io/name=edict-agent");
    wait::until("the agents to be gone", CHANGED, async || {
        let left = pods.list(&agents).await?.items.len();
        Ok(wait::Seen::when(left == 0, left))
    })
    .await?;
    for node in ctx.nodes() {
        node.run(&["rm", "-rf", "/var/lib/edict"]).await?;
    }
    Ok(())
}

/// From agents that wrote a state folder of an earlier form, and speak the oldest wire version that
/// is spoken still. There is no way back to those: they refuse what newer ones have written.
#[tokio::test]
async fn from_agents_of_the_oldest_wire_version() -> Result<()> {
    e2e::test("upgrade-oldest", async |ctx| {
        let settings = Settings::read()?;
        let old = Images::of_commit(&settings, version("oldest_release")?).await?;
        old.load(&*ctx.cluster.provider).await?;
        let this = ctx.images.clone();
        let mixed = Images {
            operator: this.operator.clone(),
            agent: old.agent,
        };
        let body = async {
            without_agents(&ctx).await?;
            install::operator(&settings, &ctx.cluster, &mixed, "deploy").await?;
            // One that would bring up newer agents first is not to be there any more.
            install::operator_ready(&ctx.client, &mixed.operator).await?;
            install::fleet(&settings, &ctx.cluster).await?;
            install::ready(&ctx.cluster, &mixed).await?;
            works(&ctx, "old-agents").await?;
            Kept::new(&ctx).await
        };
        let outcome = body.await;
        install::install(&settings, &ctx.cluster, &this).await?;
        let kept = outcome?;
        kept.holds(&ctx).await?;
        works(&ctx, "new-agents").await?;
        kept.draft.delete(&ctx).await
    })
    .await
}
