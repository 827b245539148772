//! What somebody changes on a node by hand: seen at once, corrected or only said, and not fought for ever.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::nodeconfig::{event, named};
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Node, Trees};
use edict_core::layer::Drift;
use edict_core::wire::DriftOutcome;
use edict_crds::NodeState;
use edict_crds::nodestate::DriftStatus;
use k8s_openapi::jiff::Timestamp;
use kube::Api;

/// Agents are asked every ten seconds in any case; this is to be quicker. A busy machine gets time.
const SEEN: Duration = Duration::from_mins(1);
const THEIRS: &[u8] = b"theirs\n";

async fn drift(ctx: &Context, node: &Node) -> Result<Vec<DriftStatus>> {
    let states: Api<NodeState> = Api::all(ctx.client.clone());
    let status = states.get(&node.name).await?.status;
    Ok(status.unwrap_or_default().drift)
}

/// Waits until the NodeState says this of a path.
async fn says(
    ctx: &Context,
    node: &Node,
    path: &str,
    outcome: DriftOutcome,
) -> Result<DriftStatus> {
    let what = format!("{} to say {outcome:?} of {path}", node.name);
    wait::until(&what, SEEN, async || {
        let all = drift(ctx, node).await?;
        let found = all
            .iter()
            .find(|one| one.path == path && one.outcome == outcome);
        Ok(match found {
            Some(found) => Seen::Done(found.clone()),
            None => Seen::NotYet(format!("{all:?}")),
        })
    })
    .await
}

async fn reads(node: &Node, path: &str, text: &str) -> Result<()> {
    wait::until(&format!("{path} to be as before"), SEEN, async || {
        let now = node.text(path).await?;
        Ok(Seen::when(now.as_deref() == Some(text), now))
    })
    .await
}

#[tokio::test]
async fn it_is_corrected_on_masters_and_only_said_on_workers() -> Result<()> {
    e2e::test("drift", async |ctx| {
        let (master, worker) = (ctx.masters().remove(2), ctx.workers().remove(0));
        let before = Trees::of(ctx.nodes()).await?;
        let since = Timestamp::now();
        let path = "/etc/edict/drift/file";
        let daemon = "/etc/docker/daemon.json";
        let draft = |node: &Node, drift| {
            let target = named(std::slice::from_ref(node));
            let name = format!("{}-{}", ctx.name, node.name.trim_start_matches("edict-"));
            let mut draft = Draft::new(&name, target)
                .file_as(path, "ours\n", "0644", 0, 0)
                .mirrors(&["https://drift.example.com"]);
            draft.0.spec.drift = drift;
            draft
        };
        let on_master = draft(&master, None);
        let on_worker = draft(&worker, Some(Drift::Report));
        on_master
            .settle(&ctx, std::slice::from_ref(&master))
            .await?;
        on_worker
            .settle(&ctx, std::slice::from_ref(&worker))
            .await?;
        let text = master.text(daemon).await?.context("no daemon.json")?;

        // Another file, other permissions, another key; and nothing at all.
        master.write(path, THEIRS, 0o600, 0, 0).await?;
        let began = Instant::now();
        let said = says(&ctx, &master, path, DriftOutcome::Corrected).await?;
        ensure!(
            said.owner == on_master.name() && said.key.is_none(),
            "{said:?}"
        );
        // Who installs a file takes away the one before it.
        let either = ["it says something else", "it is gone"];
        ensure!(either.contains(&&*said.what), "{said:?}");
        reads(&master, path, "ours\n").await?;
        let mode = master.stat(path).await?.map(|stat| stat.mode);
        ensure!(mode == Some(0o644), "{mode:?}");
        let words = [
            "somebody else has changed",
            path,
            on_master.name(),
            "corrected",
        ];
        event(&ctx, since, &master.name, "Drift", &words).await?;
        println!(
            "seen in the NodeState after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let other = text.replace("drift.example", "evil.example");
        master.write(daemon, other.as_bytes(), 0o644, 0, 0).await?;
        let said = says(&ctx, &master, daemon, DriftOutcome::Corrected).await?;
        ensure!(said.key.as_deref() == Some("registry-mirrors"), "{said:?}");
        reads(&master, daemon, &text).await?;
        master.remove("/etc/edict/drift").await?;
        reads(&master, path, "ours\n").await?;

        // On the worker it stays, and is said.
        worker.write(path, THEIRS, 0o644, 0, 0).await?;
        let said = says(&ctx, &worker, path, DriftOutcome::Reported).await?;
        ensure!(said.owner == on_worker.name(), "{said:?}");
        let words = [path, "left, since spec.drift is Report"];
        event(&ctx, since, &worker.name, "Drift", &words).await?;
        let theirs = worker.text(path).await?;
        ensure!(theirs.as_deref() == Some("theirs\n"), "{theirs:?}");

        // What is deleted by somebody else is given back as it was, and he is not undone twice.
        on_master.delete(&ctx).await?;
        worker.write(path, b"ours\n", 0o644, 0, 0).await?;
        on_worker.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn a_fight_is_damped_and_named() -> Result<()> {
    e2e::test("drift-fight", async |ctx| {
        let node = ctx.workers().remove(1);
        let here = std::slice::from_ref(&node);
        let path = "/etc/edict/drift-fight";
        let draft = Draft::new(&ctx.name, named(here)).file(path, "ours\n");
        draft.settle(&ctx, here).await?;
        let since = Timestamp::now();
        // Somebody has a loop of his own.
        let mut times = 0;
        while drift(&ctx, &node)
            .await?
            .iter()
            .all(|one| one.path != path || one.outcome != DriftOutcome::Damped)
        {
            ensure!(times < 12, "{:?}", drift(&ctx, &node).await?);
            times += 1;
            node.write(path, THEIRS, 0o644, 0, 0).await?;
            wait::until("the file to be corrected, or left", SEEN, async || {
                let now = node.text(path).await?;
                let left = drift(&ctx, &node).await?;
                let damped = left
                    .iter()
                    .any(|one| one.path == path && one.outcome == DriftOutcome::Damped);
                Ok(Seen::when(
                    damped || now.as_deref() == Some("ours\n"),
                    (now, left),
                ))
            })
            .await?;
        }
        ensure!((5..=6).contains(&times), "{times}");
        let words = [path, "again and again", "find out who does"];
        event(&ctx, since, &node.name, "Drift", &words).await?;
        // Who wins a fight does not keep what was there from coming back.
        node.write(path, b"ours\n", 0o644, 0, 0).await?;
        draft.delete(&ctx).await?;
        ensure!(node.stat(path).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}
