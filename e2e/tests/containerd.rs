//! A change that a daemon does not run with, on nodes whose pods hang on that daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::same_on;
use e2e::nodeconfig::named;
use e2e::{Context, Draft, Node, Trees, status};
use edict_core::config::NotifyAction;
use edict_crds::Fleet;
use edict_crds::nodeconfig::State;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

const CONFIG: &str = "/etc/containerd/config.toml";
const UNIT: &str = "containerd.service";
/// A start that fails, the way back, and both watched.
const PUT_BACK: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_configuration_that_it_does_not_run_with_is_put_back() -> Result<()> {
    e2e::test("containerd", async |ctx| {
        let fleet: Api<Fleet> = Api::all(ctx.client.clone());
        let before = fleet.get("default").await?.spec;
        // It is the program's own file: an administrator has to allow it by name.
        let paths = json!({"spec": {"paths": {"allowed": ["/etc/edict-samples", CONFIG]}}});
        let merge = PatchParams::default();
        fleet
            .patch("default", &merge, &Patch::Merge(&paths))
            .await?;
        let outcome = broken(&ctx).await;
        let back = json!({"spec": {"paths": before.paths}});
        fleet.patch("default", &merge, &Patch::Merge(&back)).await?;
        outcome
    })
    .await
}

async fn broken(ctx: &Context) -> Result<()> {
    let here = [ctx.masters().remove(1), ctx.workers().remove(0)];
    let before = Trees::of(ctx.nodes()).await?;
    let pods = running(ctx, &here).await?;
    let runs = daemons(&here).await?;
    let own = here[1].text(CONFIG).await?.context("no configuration")?;
    let draft = |text: &str| {
        Draft::new(&ctx.name, named(&here))
            .file(CONFIG, text)
            .notify(UNIT, NotifyAction::Restart)
    };

    // TOML that is none.
    let bad = draft(&format!("{own}\nthis is = = no TOML\n"));
    bad.apply(ctx).await?;
    let held = status::reach(ctx, &ctx.name, "both to be held", PUT_BACK, |status| {
        status.state == Some(State::Held) && status.failed == 2
    });
    let held = held.await?;
    for node in &held.nodes {
        // The unit, and what it has to say for itself.
        for word in [
            UNIT,
            "its journal, newest first",
            "failed to load TOML",
            "edict.dev/retry",
        ] {
            ensure!(node.message.contains(word), "{word:?}: {}", node.message);
        }
    }
    before.unchanged(ctx.nodes()).await?;
    ctx.ready(&here).await?;
    let again = daemons(&here).await?;
    ensure!(again != runs, "containerd was never restarted: {runs:?}");
    go_on(ctx, &here, &pods).await?;

    // Nobody is told again: a daemon is not restarted for ever.
    let beside = Draft::new(&format!("{}-beside", ctx.name), named(&here))
        .file("/etc/edict/containerd-beside", "x\n");
    beside.settle(ctx, &here).await?;
    ensure!(
        daemons(&here).await? == again,
        "containerd was restarted again"
    );
    beside.delete(ctx).await?;

    // One that it runs with.
    let good = draft(&format!("{own}\n# by Edict\n"));
    good.settle(ctx, &here).await?;
    same_on(&here, CONFIG, format!("{own}\n# by Edict\n")).await?;
    ctx.ready(&here).await?;
    ensure!(
        daemons(&here).await? != again,
        "containerd runs with what it read before"
    );
    go_on(ctx, &here, &pods).await?;
    good.delete(ctx).await?;
    ctx.ready(&here).await?;
    go_on(ctx, &here, &pods).await?;
    before.unchanged(ctx.nodes()).await
}

/// The process of containerd on each node.
async fn daemons(nodes: &[Node]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for node in nodes {
        let shown = node.process(UNIT).await?;
        ensure!(
            shown.contains("ActiveState=active"),
            "{}: {shown}",
            node.name
        );
        all.insert(node.name.clone(), shown);
    }
    Ok(all)
}

/// A pod by its namespace and its name.
type Name = (Option<String>, Option<String>);
/// The containers of pods, each of a pod that has a uid, by their names; and the id of each.
type Containers = BTreeMap<(Name, String, String), String>;

/// Every container that runs on these nodes.
async fn running(ctx: &Context, nodes: &[Node]) -> Result<Containers> {
    let pods: Api<Pod> = Api::all(ctx.client.clone());
    let mut all = BTreeMap::new();
    for node in nodes {
        let here = ListParams::default().fields(&format!("spec.nodeName={}", node.name));
        for pod in pods.list(&here).await? {
            let name = (pod.metadata.namespace, pod.metadata.name);
            let uid = pod.metadata.uid.unwrap_or_default();
            let statuses = pod.status.and_then(|status| status.container_statuses);
            for container in statuses.into_iter().flatten() {
                let id = container.container_id.unwrap_or_default();
                all.insert((name.clone(), uid.clone(), container.name), id);
            }
        }
    }
    Ok(all)
}

/// The pods are the same, with the same containers. But for those of which the kubelet says that their
/// sandbox has changed: it makes them anew where it happens to ask containerd 1.7 after that serves, and
/// before it has recovered all sandboxes. Who restarts it by hand has the same. It says so by the pod's
/// name: the uid by which it knows a static pod is not that of the pod in the API.
async fn go_on(ctx: &Context, nodes: &[Node], before: &Containers) -> Result<()> {
    let now = running(ctx, nodes).await?;
    ensure!(
        now.keys().eq(before.keys()),
        "other pods: {before:?} {now:?}"
    );
    let events: Api<Event> = Api::all(ctx.client.clone());
    let changed = ListParams::default().fields("reason=SandboxChanged");
    let changed = events.list(&changed).await?.into_iter();
    let changed: BTreeSet<_> = changed
        .map(|event| event.involved_object)
        .map(|pod| (pod.namespace, pod.name))
        .collect();
    for (key @ (pod, _, name), id) in &now {
        ensure!(
            before.get(key) == Some(id) || changed.contains(pod),
            "container {name} of pod {pod:?} was restarted"
        );
    }
    Ok(())
}
