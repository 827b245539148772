//! A change that a daemon does not run with, on nodes whose pods hang on that daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::same_on;
use e2e::nodeconfig::named;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Node, Trees, status};
use edict_core::config::NotifyAction;
use edict_crds::Fleet;
use edict_crds::nodeconfig::State;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

const CONFIG: &str = "/etc/containerd/config.toml";
const UNIT: &str = "containerd.service";
/// A start that fails, the way back, and both watched.
const PUT_BACK: Duration = Duration::from_mins(3);
/// A kubelet starts what has ended after up to 20 s, twice as long each time.
const RUN: Duration = Duration::from_mins(6);
/// The exit codes of what was ended by SIGKILL or SIGTERM, and of what containerd has lost.
const KILLED: [i32; 3] = [137, 143, 255];

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
    let mut pods = running(ctx, &here).await?;
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
    go_on(ctx, &here, &mut pods).await?;

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
    good.apply(ctx).await?;
    let applied = status::reach(ctx, &ctx.name, "both to have it", PUT_BACK, |status| {
        status.state == Some(State::Applied) && status.applied == 2
    });
    applied.await?;
    same_on(&here, CONFIG, format!("{own}\n# by Edict\n")).await?;
    ctx.ready(&here).await?;
    ensure!(
        daemons(&here).await? != again,
        "containerd runs with what it read before"
    );
    go_on(ctx, &here, &mut pods).await?;
    good.delete(ctx).await?;
    ctx.ready(&here).await?;
    go_on(ctx, &here, &mut pods).await?;
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
/// The containers of pods, each of a pod that has a uid, by their names.
type Containers = BTreeMap<(Name, String, String), ContainerStatus>;

/// Every container of the pods of these nodes, once all of them run: a node that was away a moment ago
/// may start some anew yet.
async fn running(ctx: &Context, nodes: &[Node]) -> Result<Containers> {
    wait::until("every container to run", RUN, async || {
        let mut all = Containers::new();
        let mut missing = Vec::new();
        for node in nodes {
            let tasks = node
                .run(&["ctr", "-n", "k8s.io", "tasks", "ls", "-q"])
                .await?;
            let tasks: BTreeSet<_> = tasks.lines().collect();
            for (key, status) in containers(ctx, node).await? {
                if !status.ready || !tasks.contains(id(&status)) {
                    missing.push((node.name.clone(), key.0.1.clone(), status.state.clone()));
                }
                all.insert(key, status);
            }
        }
        Ok(if missing.is_empty() {
            Seen::Done(all)
        } else {
            Seen::NotYet(format!("{missing:?}"))
        })
    })
    .await
}

async fn containers(ctx: &Context, node: &Node) -> Result<Containers> {
    let pods: Api<Pod> = Api::all(ctx.client.clone());
    let here = ListParams::default().fields(&format!("spec.nodeName={}", node.name));
    let mut all = Containers::new();
    for pod in pods.list(&here).await? {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        let name = (pod.metadata.namespace, pod.metadata.name);
        let uid = pod.metadata.uid.unwrap_or_default();
        let statuses = pod.status.and_then(|status| status.container_statuses);
        for status in statuses.into_iter().flatten() {
            all.insert((name.clone(), uid.clone(), status.name.clone()), status);
        }
    }
    Ok(all)
}

/// What containerd calls it.
fn id(status: &ContainerStatus) -> &str {
    let id = status.container_id.as_deref().unwrap_or_default();
    id.trim_start_matches("containerd://")
}

/// The pods are the same, with the same containers. But for those of which the kubelet says that their
/// sandbox has changed: it makes them anew where it happens to ask containerd 1.7 after that serves, and
/// before it has recovered all sandboxes. Who restarts it by hand has the same. It says so by the pod's
/// name: the uid by which it knows a static pod is not that of the pod in the API. And but for those that
/// have ended by themselves, as whoever loses the lease of a leader does, and those whose probe had no answer.
async fn go_on(ctx: &Context, nodes: &[Node], before: &mut Containers) -> Result<()> {
    let now = running(ctx, nodes).await?;
    ensure!(
        now.keys().eq(before.keys()),
        "other pods: {before:?} {now:?}"
    );
    let changed = of_pods(ctx, "SandboxChanged", |_| true).await?;
    // A kubelet that has no answer in time on a busy machine does this as well.
    let probe = |said: &str| said.contains("probe");
    let probed = of_pods(ctx, "Killing", probe).await?;
    let killed = of_pods(ctx, "Killing", |said| !probe(said)).await?;
    for (key @ (pod, _, name), status) in &now {
        let often = status.restart_count > before[key].restart_count + 1;
        let before = id(&before[key]);
        let end = status.last_state.as_ref();
        let end = end.and_then(|state| state.terminated.as_ref());
        let by_itself = end.is_some_and(|end| {
            let it = end.container_id.as_deref();
            let only = it.is_some_and(|it| it.ends_with(before)) || often;
            only && !KILLED.contains(&end.exit_code) && !killed.contains(pod)
        });
        ensure!(
            id(status) == before || changed.contains(pod) || probed.contains(pod) || by_itself,
            "container {name} of pod {pod:?} was restarted: it was {before}, and ended as {end:?}"
        );
    }
    *before = now;
    Ok(())
}

/// The pods of which the kubelet has said this.
async fn of_pods(
    ctx: &Context,
    reason: &str,
    says: impl Fn(&str) -> bool,
) -> Result<BTreeSet<Name>> {
    let events: Api<Event> = Api::all(ctx.client.clone());
    let said = ListParams::default().fields(&format!("reason={reason}"));
    let said = events.list(&said).await?.into_iter();
    let said = said.filter(|event| says(event.message.as_deref().unwrap_or_default()));
    let pods = said.map(|event| event.involved_object);
    Ok(pods.map(|pod| (pod.namespace, pod.name)).collect())
}
