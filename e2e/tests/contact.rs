//! Nodes that are away: the others are served, and whoever comes back catches up by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Context, Draft, Node, nodeconfig, status, wait};
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::Contact;
use edict_crds::target::Selector;
use edict_crds::{NodeConfig, NodeState, Role};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// The operator asks every ten seconds, and an agent has eight to answer.
const NOTICED: Duration = Duration::from_mins(1);
/// It knocks every five seconds; a node that was frozen first finds back to itself.
const BACK: Duration = Duration::from_mins(2);
/// A label that nodes get and lose here.
const LABEL: &str = "edict.dev/e2e-contact";

fn draft(ctx: &Context, role: Role) -> Draft {
    let path = format!("/etc/edict/{}/file", ctx.name);
    Draft::new(&ctx.name, nodeconfig::role(role)).file(&path, "one\n")
}

async fn holds(node: &Node, path: &str, content: Option<&str>) -> Result<()> {
    let what = format!("{path} on {} to be {content:?}", node.name);
    wait::until(&what, BACK, async || {
        let found = node.text(path).await?;
        Ok(wait::Seen::when(found.as_deref() == content, found))
    })
    .await
}

/// Runs `body` while a node answers nothing; it goes on afterwards, however that ends.
async fn frozen<T>(node: &Node, body: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
    node.pause().await?;
    let outcome = body().await;
    node.unpause().await?;
    outcome
}

/// Waits until the operator has noticed that a node does not answer.
async fn noticed(ctx: &Context, node: &Node) -> Result<()> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    let gone = wait::object(&api, &node.name, "to be Unreachable", NOTICED, |state| {
        let status = state.status.as_ref();
        status.is_some_and(|status| status.state == Some(Contact::Unreachable))
    });
    let gone = gone.await?.status.unwrap_or_default();
    ensure!(!gone.message.is_empty(), "it does not say why: {gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_away_catches_up() -> Result<()> {
    e2e::test("contact-away", async |ctx| {
        let path = format!("/etc/edict/{}/file", ctx.name);
        let away = ctx.workers().remove(0);
        let others: Vec<_> = ctx
            .nodes()
            .iter()
            .filter(|node| node.name != away.name)
            .collect();
        let count = u32::try_from(ctx.nodes().len())?;
        let one = draft(&ctx, Role::All);
        one.settle(&ctx, ctx.nodes()).await?;
        let two = one.clone().file(&path, "two\n");
        frozen(&away, async || {
            noticed(&ctx, &away).await?;
            two.apply(&ctx).await?;
            let status = status::reach(&ctx, two.name(), "all but one", NOTICED, |status| {
                status.unreachable == 1 && status.applied == count - 1
            })
            .await?;
            ensure!(status.state == Some(State::Unreachable), "{status:?}");
            ensure!((status.targeted, status.failed) == (count, 0), "{status:?}");
            ensure!(
                status::says(&status, &away.name, State::Unreachable, &["agent"]),
                "{status:?}"
            );
            for node in &others {
                let found = node.text(&path).await?;
                ensure!(
                    found.as_deref() == Some("two\n"),
                    "{}: {found:?}",
                    node.name
                );
            }
            Ok(())
        })
        .await?;
        status::reach(&ctx, two.name(), "all of them", BACK, |status| {
            status.state == Some(State::Applied) && status.applied == count
        })
        .await?;
        let found = away.text(&path).await?;
        ensure!(found.as_deref() == Some("two\n"), "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_away_holds_no_deletion_up() -> Result<()> {
    e2e::test("contact-deleted", async |ctx| {
        let path = format!("/etc/edict/{}/file", ctx.name);
        let workers = ctx.workers();
        let (away, other) = (&workers[0], &workers[1]);
        let one = draft(&ctx, Role::Worker);
        one.settle(&ctx, &workers).await?;
        frozen(away, async || {
            noticed(&ctx, away).await?;
            one.delete(&ctx).await?;
            let api: Api<NodeConfig> = Api::all(ctx.client.clone());
            ensure!(
                api.get_opt(one.name()).await?.is_none(),
                "it is still there"
            );
            let found = other.text(&path).await?;
            ensure!(found.is_none(), "{}: {found:?}", other.name);
            Ok(())
        })
        .await?;
        holds(away, &path, None).await?;
        forgotten(&ctx, away, one.name()).await
    })
    .await
}

/// Waits until a node neither has nor is giving back a `NodeConfig`.
async fn forgotten(ctx: &Context, node: &Node, name: &str) -> Result<()> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    let what = format!("nothing of {name}");
    wait::object(&api, &node.name, &what, BACK, |state| {
        let spec = &state.spec;
        !spec.layers.iter().any(|layer| layer.name == name)
            && !spec.releases.iter().any(|release| release.name == name)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn labels_are_followed() -> Result<()> {
    e2e::test("contact-labels", async |ctx| {
        let nodes = ctx.nodes().to_vec();
        for node in &nodes {
            label(&ctx, node, None).await?;
        }
        let path = format!("/etc/edict/{}/file", ctx.name);
        let labels = [(LABEL.to_owned(), "yes".to_owned())].into();
        let selector = Selector {
            match_labels: Some(labels),
            match_expressions: None,
        };
        let some = Draft::new(&ctx.name, nodeconfig::selected(selector)).file(&path, "one\n");
        let (master, worker) = (ctx.masters().remove(0), ctx.workers().remove(0));

        some.settle(&ctx, &[]).await?;
        label(&ctx, &worker, Some("yes")).await?;
        some.settled(&ctx, std::slice::from_ref(&worker)).await?;
        holds(&worker, &path, Some("one\n")).await?;

        label(&ctx, &master, Some("yes")).await?;
        label(&ctx, &worker, Some("no")).await?;
        some.settled(&ctx, std::slice::from_ref(&master)).await?;
        holds(&master, &path, Some("one\n")).await?;
        holds(&worker, &path, None).await?;

        label(&ctx, &worker, None).await?;
        label(&ctx, &master, None).await?;
        some.settled(&ctx, &[]).await?;
        let found = ctx.read_all(&nodes, &path).await?;
        ensure!(found.values().all(Option::is_none), "{found:?}");
        Ok(())
    })
    .await
}

async fn label(ctx: &Context, node: &Node, value: Option<&str>) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(ctx.client.clone());
    let patch = json!({"metadata": {"labels": {LABEL: value}}});
    api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
