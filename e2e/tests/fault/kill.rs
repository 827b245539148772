//! An agent that is killed while it brings 200 files to its node.

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::folder;
use e2e::nodeconfig::named;
use e2e::sample::throughout;
use e2e::{Change, Context, Draft, Node, agent, status};
use edict_core::config::files::{File, Files};
use edict_crds::nodeconfig::State;
use serde_json::json;

use super::{BACK, test};

/// As many files as that, in several NodeConfigs: one has 64 at most.
const FILES: usize = 200;
/// So many in each NodeConfig.
const EACH: usize = 50;
/// A push of 200 files takes less than a second; one kill in a few comes between two NodeConfigs.
const TRIES: usize = 8;

/// On the node itself, since a look from outside takes as long as many files: kills the agent as soon
/// as one file says `$2`, and answers with how many did then.
const KILL: &str = r#"
agent=$(pgrep -x edict-agent)
end=$((SECONDS + 60))
until grep --quiet --no-messages --line-regexp --fixed-strings -- "$2" "$1"/file-*; do
    [ $SECONDS -lt $end ] || { echo "no file ever said $2" >&2; exit 1; }
done
kill -KILL $agent
while kill -0 $agent 2>/dev/null; do :; done
grep --files-with-matches --no-messages --line-regexp --fixed-strings -- "$2" "$1"/file-* | wc -l
"#;

#[tokio::test]
async fn in_the_middle_of_a_push_of_200_files() -> Result<()> {
    test("fault-killed", async |ctx| {
        let folder = folder(&ctx).await?;
        let workers = ctx.workers();
        let drafts: Vec<_> = (0..FILES / EACH)
            .map(|number| draft(&ctx, &folder, number, &workers))
            .collect();
        write(&ctx, "try 0").await?;
        for draft in &drafts {
            draft.settle(&ctx, &workers).await?;
        }
        for number in 1..=TRIES {
            let (before, after) = (format!("try {}", number - 1), format!("try {number}"));
            let contents = [&*content(&before), &*content(&after)];
            let mut changes = Vec::new();
            for draft in &drafts {
                changes.push(Change::of(&ctx, draft, &workers, contents).await?);
            }
            let new = throughout(&ctx, &changes, async || {
                let victim = &workers[0];
                let script = ["bash", "-c", KILL, "kill", &folder, &after];
                let (killed, written) = futures::join!(victim.run(&script), write(&ctx, &after));
                written?;
                arrives(&ctx, &drafts, &changes).await?;
                Ok(killed?.trim().parse::<usize>()?)
            })
            .await?;
            println!("killed when {new} of {FILES} files were new");
            // Between two NodeConfigs nothing is half done.
            if new % EACH != 0 {
                return Ok(());
            }
            // One that dies again and again is started ever later.
            agent::replace(&ctx.client, &workers[0].name).await?;
        }
        anyhow::bail!("of {TRIES} kills none came in the middle of a NodeConfig")
    })
    .await
}

/// All that is written changes with one ConfigMap, so that it goes out in one push.
fn draft(ctx: &Context, folder: &str, number: usize, nodes: &[Node]) -> Draft {
    let file = |index: usize| File {
        path: format!("{folder}/file-{number}-{index}"),
        content: None,
        content_from: serde_json::from_value(
            json!({"configMapKeyRef": {"name": ctx.name, "key": "text"}}),
        )
        .expect("a reference as people write it"),
        mode: None,
        owner: None,
        notify: None,
    };
    let mut draft = Draft::new(&format!("{}-{number}", ctx.name), named(nodes));
    draft.0.spec.config.files = Some(Files((0..EACH).map(file).collect()));
    draft
}

/// A line, and enough after it for one KiB.
fn content(line: &str) -> String {
    format!("{line}\n{:.>1$}\n", "", 1022 - line.len())
}

async fn write(ctx: &Context, line: &str) -> Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": ctx.name, "namespace": e2e::install::NAMESPACE},
        "data": {"text": content(line)},
    });
    ctx.apply(&map.to_string()).await
}

/// Waits until every NodeConfig says that its new content is on its nodes, which the sampler holds
/// against the files.
async fn arrives(ctx: &Context, drafts: &[Draft], changes: &[Change]) -> Result<()> {
    for (draft, change) in drafts.iter().zip(changes) {
        let before = change.revision();
        let status = status::reach(ctx, draft.name(), "the new revision", BACK, |status| {
            status.state == Some(State::Applied) && status.revision.as_deref() != before
        });
        let status = status.await?;
        ensure!(status.applied == status.targeted, "{status:?}");
        status.revision.context("it has no revision")?;
    }
    Ok(())
}
