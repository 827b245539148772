//! What a NodeConfig would change, said by each node and done by none.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::install::NAMESPACE;
use e2e::nodeconfig::{event, role};
use e2e::{Context, Draft, Node, Trees, status};
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::{PlanOutcome, PlanStatus};
use edict_crds::{NodeConfigStatus, NodeState, Role};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::json;

/// Agents are told at once; a busy machine gets time.
const PLANNED: Duration = Duration::from_mins(1);
/// What nobody may read in a status.
const SECRET: &str = "nobody is to read this";
const MIRROR: &str = "https://plan.example.com";
const TEXT: &str = "as it would be: https://user:plan-password@plan.example.com\n";

/// What each of these nodes says that a `NodeConfig` would change there.
async fn plans(ctx: &Context, nodes: &[Node], name: &str) -> Result<BTreeMap<String, PlanStatus>> {
    let states: Api<NodeState> = Api::all(ctx.client.clone());
    let mut all = BTreeMap::new();
    for node in nodes {
        let status = states.get(&node.name).await?.status.unwrap_or_default();
        let plan = status.plans.into_iter().find(|plan| plan.name == name);
        all.extend(plan.map(|plan| (node.name.clone(), plan)));
    }
    Ok(all)
}

/// Waits until all is planned so that so many nodes would be changed.
async fn planned(ctx: &Context, draft: &Draft, pending: u32) -> Result<NodeConfigStatus> {
    let what = format!("a plan that changes {pending} nodes");
    draft.apply(ctx).await?;
    status::reach(ctx, draft.name(), &what, PLANNED, |status| {
        status.state == Some(State::Planned) && status.pending == pending
    })
    .await
}

#[tokio::test]
async fn masters_say_what_they_would_change_and_change_nothing() -> Result<()> {
    e2e::test("plan", async |ctx| {
        let (masters, workers) = (ctx.masters(), ctx.workers());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": ctx.name, "namespace": NAMESPACE},
            "stringData": {"key": SECRET},
        });
        ctx.apply(&secret.to_string()).await?;
        let path = "/etc/edict/plan/file";
        // One of them has something there already.
        ctx.plant(&masters[1], path, b"as it was\n", 0o644).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let since = Timestamp::now();
        let mut draft = Draft::new(&ctx.name, role(Role::Master))
            .file(path, TEXT)
            .mirrors(&[MIRROR]);
        let files = draft.0.spec.config.files.get_or_insert_default();
        let secret = json!({
            "path": "/etc/edict/plan/secret",
            "contentFrom": {"secretKeyRef": {"name": ctx.name, "key": "key"}},
        });
        files.0.push(serde_json::from_value(secret)?);

        let said = planned(&ctx, &draft.clone().plans(), 3).await?;
        ensure!(said.targeted == 3 && said.applied == 0, "{said:?}");
        ensure!(said.message.contains("would change 3 files"), "{said:?}");
        let all = plans(&ctx, &masters, &ctx.name).await?;
        ensure!(all.len() == 3, "{all:?}");
        for (node, plan) in &all {
            ensure!(plan.outcome == PlanOutcome::Changes, "{node}: {plan:?}");
            for part in [
                "+++ /etc/docker/daemon.json",
                "+registry-mirrors = [\"https://plan.example.com\"]",
                "+as it would be: https://***@plan.example.com",
                "Create /etc/edict/plan/secret: not shown, it comes from a Secret",
            ] {
                ensure!(plan.diff.contains(part), "{node}: {part:?}: {}", plan.diff);
            }
            // What somebody else has put there is on the node, and in no status.
            let foreign = plan.diff.contains("what is there now is not Edict's");
            ensure!(
                foreign == (*node == masters[1].name),
                "{node}: {}",
                plan.diff
            );
            for secret in [SECRET, "plan-password", "as it was"] {
                ensure!(!format!("{plan:?}").contains(secret), "{node}: {plan:?}");
            }
        }
        ensure!(
            plans(&ctx, &workers, &ctx.name).await?.is_empty(),
            "workers"
        );
        before.unchanged(ctx.nodes()).await?;
        event(&ctx, since, &ctx.name, "Planned", &["would change 3 files"]).await?;

        // Enforced, it is done, and is no plan any more.
        draft.settle(&ctx, &masters).await?;
        ensure!(
            plans(&ctx, &masters, &ctx.name).await?.is_empty(),
            "still a plan"
        );
        for node in &masters {
            let now = node.text(path).await?.context("no file")?;
            ensure!(now == TEXT, "{}: {now}", node.name);
        }

        // Another revision is planned over the one in force, which stays.
        let enforced = Trees::of(ctx.nodes()).await?;
        let other = draft
            .clone()
            .target(role(Role::All))
            .mirrors(&["https://other.example.com"]);
        let said = planned(&ctx, &other.clone().plans(), 5).await?;
        ensure!(said.targeted == 5, "{said:?}");
        let all = plans(&ctx, ctx.nodes(), &ctx.name).await?;
        for node in &masters {
            let diff = &all[&node.name].diff;
            ensure!(diff.contains("+++ /etc/docker/daemon.json"), "{diff}");
            ensure!(!diff.contains(path), "{diff}");
        }
        for node in &workers {
            let diff = &all[&node.name].diff;
            ensure!(
                diff.contains("--- /dev/null\n+++ /etc/edict/plan/file"),
                "{diff}"
            );
        }
        enforced.unchanged(ctx.nodes()).await?;
        // The same as what is in force changes nothing on masters.
        let same = planned(&ctx, &draft.clone().plans(), 0).await?;
        ensure!(same.applied == 3, "{same:?}");
        ensure!(same.message.contains("would change nothing"), "{same:?}");

        // Deleted while it is planned, what was in force is given back.
        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}
