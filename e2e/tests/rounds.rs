//! Rounds of random changes and faults, held against a model of what each node must have.
//!
//! ```text
//! action   what happens in a round: drawn from a seed, bounded
//! model    what each node must have then: pure, and nothing of Edict's own in it
//! play     the round on the cluster, the end of its faults, and whether both agree
//! usage    memory, objects and files, before and after
//! long     many changes without faults, for what they use
//! ```
//!
//! Three rounds are part of every run. `EDICT_ROUNDS` says how many, `EDICT_SEED` which ones, and
//! `EDICT_ROUNDS_MINUTES` after how long none is begun any more.

#[path = "rounds/action.rs"]
mod action;
#[path = "rounds/long.rs"]
mod long;
#[path = "rounds/model.rs"]
mod model;
#[path = "rounds/play.rs"]
mod play;
#[path = "rounds/usage.rs"]
mod usage;

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::{DAEMON, folder, without_docker};
use e2e::progress::Step;
use e2e::wait::{self, Seen};
use e2e::{Context, Trees, fault};
use edict_crds::NodeConfig;
use kube::Api;
use kube::api::ListParams;

use action::Rounds;
use play::Play;
use usage::Usage;

/// The garbage collector looks after what belonged to a NodeConfig.
const COLLECTED: Duration = Duration::from_mins(3);
/// A round waits for a Lease, an agent and a master at most, and for nothing else.
const LONGEST_ROUND: Duration = Duration::from_mins(10);
/// An event or two from each of five nodes and from every NodeConfig that a change is about.
const EVENTS_PER_CHANGE: usize = 20;

/// What is asked for from outside.
struct Asked {
    rounds: u32,
    seed: u64,
    within: Duration,
}

impl Asked {
    fn read() -> Result<Self> {
        let number = |name: &str, default: u64| match env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
            Err(_) => Ok(default),
        };
        let rounds = number("EDICT_ROUNDS", 3)?.try_into()?;
        let all = LONGEST_ROUND.as_secs() / 60 * u64::from(rounds);
        let minutes = number("EDICT_ROUNDS_MINUTES", all)?;
        Ok(Self {
            rounds,
            seed: number("EDICT_SEED", 1)?,
            within: Duration::from_mins(minutes),
        })
    }
}

#[tokio::test]
async fn nodes_have_what_the_model_says() -> Result<()> {
    let asked = Asked::read()?;
    let longest = asked.within + LONGEST_ROUND;
    e2e::session::test_within("rounds", longest, async |ctx| {
        fault::heal(&ctx).await?;
        let outcome = all(&ctx, &asked).await;
        let healed = fault::heal(&ctx).await;
        outcome.and(healed)
    })
    .await
}

async fn all(ctx: &Context, asked: &Asked) -> Result<()> {
    let Asked {
        rounds,
        seed,
        within,
    } = *asked;
    let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
    let others = configs.list(&ListParams::default()).await?.items;
    ensure!(
        others.is_empty(),
        "the model knows nothing of the NodeConfigs that are there: {:?}",
        others.iter().map(edict_crds::name).collect::<Vec<_>>()
    );
    without_docker(ctx).await?;
    let folder = folder(ctx).await?;
    // One master and one worker have settings of their own.
    for node in [&ctx.masters()[0], &ctx.workers()[0]] {
        ctx.plant(node, DAEMON, b"{\"debug\": true}\n", 0o600)
            .await?;
    }
    let mut play = Play::begin(ctx, folder).await?;
    let (trees, first) = (Trees::of(ctx.nodes()).await?, Usage::of(ctx).await?);
    let said = Step::begin("rounds");
    said.note(&format!("seed {seed}, before: {first}"));
    let began = Instant::now();
    let mut drawn = Rounds::new(seed, ctx.nodes().len());
    let mut done = 0;
    while done < rounds && began.elapsed() < within {
        let actions = drawn.next();
        let step = Step::begin(format!("round {done}"));
        play.round(&actions, &format!("r{done}"))
            .await
            .with_context(|| format!("seed {seed}, round {done}: {actions:?}"))?;
        step.done(&format!("agrees after {actions:?}"));
        done += 1;
        if done % 10 == 0 {
            said.note(&format!("after {done}: {}", Usage::of(ctx).await?));
        }
    }
    play.end().await.context("after the last round")?;
    trees.unchanged(ctx.nodes()).await?;
    let last = wait::until("all to be given back", COLLECTED, async || {
        let now = Usage::of(ctx).await?;
        Ok(if now.is_back_at(&first) {
            Seen::Done(now)
        } else {
            Seen::NotYet(format!("{now}; before: {first}"))
        })
    })
    .await?;
    let (changes, minutes) = (play.changes, began.elapsed().as_secs() / 60);
    said.done(&format!(
        "seed {seed}, {done} rounds, {changes} changes, {minutes} minutes, after: {last}"
    ));
    ensure!(done > 0, "no round was played");
    ensure!(
        last.events <= first.events + EVENTS_PER_CHANGE * (changes as usize + 5),
        "{} Events after {changes} changes, {} before",
        last.events,
        first.events
    );
    last.is_flat_since(&first)
}
