//! Many changes, one after another, to processes that nobody kills: what they use stays the same, and
//! nothing of what was is left.
//!
//! Thirty are part of every run; `EDICT_CHANGES` says how many.

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::install::NAMESPACE;
use e2e::progress::Step;
use e2e::wait::{self, Seen};
use e2e::{Context, Trees, status};
use edict_crds::nodeconfig::State;

use super::COLLECTED;
use super::usage::Usage;

/// What a process keeps for good it has after so many changes.
const WARM: u32 = 10;
/// So often the NodeConfig goes and another one of its name comes.
const RENEWED: u32 = 50;
/// A change is in force on five nodes within a second or two.
const CHANGED: Duration = Duration::from_mins(2);

/// A Secret, and a `NodeConfig` with a file of its own and one with what is in the Secret.
async fn change(ctx: &Context, number: u32) -> Result<()> {
    let name = &ctx.name;
    let (own, secret) = (
        format!("own {number}\n"),
        format!("secret {}\n", number / 2),
    );
    ctx.apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {NAMESPACE}}}
stringData: {{key: {secret:?}}}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {{name: {name}}}
spec:
  target: {{role: All}}
  files:
  - {{path: /etc/edict/{name}/own, content: {own:?}}}
  - {{path: /etc/edict/{name}/secret, contentFrom: {{secretKeyRef: {{name: {name}, key: key}}}}}}
"
    ))
    .await?;
    for (file, content) in [("own", own), ("secret", secret)] {
        let path = format!("/etc/edict/{name}/{file}");
        wait::until("a change on every node", CHANGED, async || {
            let found = ctx.read_all(ctx.nodes(), &path).await?;
            let all = found.values();
            let all = all.map(|found| found.as_deref() == Some(content.as_bytes()));
            Ok(Seen::when(all.into_iter().all(|there| there), found))
        })
        .await?;
    }
    let count = u32::try_from(ctx.nodes().len())?;
    status::reach(ctx, name, "in force everywhere", CHANGED, |status| {
        status.state == Some(State::Applied) && status.applied == count
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn changes_leave_nothing_behind() -> Result<()> {
    let changes: u32 = match env::var("EDICT_CHANGES") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("EDICT_CHANGES={text}"))?,
        Err(_) => 30,
    };
    let longest = Duration::from_mins(10) + Duration::from_secs(10) * changes;
    e2e::session::test_within("changes", longest, async |ctx| {
        let trees = Trees::of(ctx.nodes()).await?;
        let before = Usage::of(&ctx).await?;
        let said = Step::begin("changes");
        let (began, mut first) = (Instant::now(), None);
        for number in 0..changes {
            if number % RENEWED == RENEWED - 1 {
                ctx.delete("nodeconfig", &ctx.name).await?;
            }
            let made = change(&ctx, number).await;
            made.with_context(|| format!("change {number}"))?;
            if number == WARM {
                first = Some(Usage::of(&ctx).await?);
            }
            if number % 100 == 99 {
                said.note(&format!("after {}: {}", number + 1, Usage::of(&ctx).await?));
            }
        }
        let last = Usage::of(&ctx).await?;
        let first = first.with_context(|| format!("EDICT_CHANGES: more than {WARM}"))?;
        ctx.delete("nodeconfig", &ctx.name).await?;
        ctx.kubectl()
            .args(["delete", "secret", "--namespace", NAMESPACE, &ctx.name])
            .text()
            .await?;
        let end = wait::until("all to be given back", COLLECTED, async || {
            let now = Usage::of(&ctx).await?;
            let back = now.is_back_at(&before);
            Ok(if back {
                Seen::Done(now)
            } else {
                Seen::NotYet(format!("{now}; before: {before}"))
            })
        })
        .await?;
        trees.unchanged(ctx.nodes()).await?;
        let minutes = began.elapsed().as_secs() / 60;
        said.note(&format!("after {WARM}: {first}"));
        said.note(&format!("after {changes}: {last}"));
        said.done(&format!(
            "{changes} changes in {minutes} minutes; in the end: {end}"
        ));
        last.is_flat_since(&first)
    })
    .await
}
