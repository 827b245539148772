//! Two NodeConfigs that want the same key: one has it, the other one says so and applies the rest
//! of what it wants; whichever leaves, the node ends up right.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::{DAEMON, folder, same_on, without_docker};
use e2e::nodeconfig::named;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Node, Trees};
use edict_crds::NodeState;
use edict_crds::nodeconfig::condition::CONFLICT;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::{Value, json};

/// What the node had before. The keys of the NodeConfigs are not among it.
const OWN: &str = "{\n  \"debug\": true\n}\n";

#[tokio::test]
async fn the_winner_leaves_first() -> Result<()> {
    e2e::test("conflict-winner-first", async |ctx| {
        let pair = Pair::begin(&ctx).await?;
        let Pair {
            here,
            winner,
            loser,
        } = &pair;
        let before = Trees::of(ctx.nodes()).await?;
        // The loser is there first: a higher priority takes the key away from it.
        loser.settle(&ctx, here).await?;
        pair.mirror("lower").await?;
        loser.condition(&ctx, CONFLICT, "False").await?;
        winner.settle(&ctx, here).await?;
        pair.conflict(&ctx).await?;

        winner.delete(&ctx).await?;
        loser.condition(&ctx, CONFLICT, "False").await?;
        loser.settled(&ctx, here).await?;
        pair.mirror("lower").await?;
        pair.rest(&ctx).await?;

        loser.delete(&ctx).await?;
        same_on(here, DAEMON, OWN).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn the_loser_leaves_first() -> Result<()> {
    e2e::test("conflict-loser-first", async |ctx| {
        let pair = Pair::begin(&ctx).await?;
        let Pair {
            here,
            winner,
            loser,
        } = &pair;
        let before = Trees::of(ctx.nodes()).await?;
        winner.settle(&ctx, here).await?;
        let alone = Trees::of(ctx.nodes()).await?;
        loser.settle(&ctx, here).await?;
        pair.conflict(&ctx).await?;

        loser.delete(&ctx).await?;
        alone.unchanged(ctx.nodes()).await?;
        let mirrors =
            "{\n  \"debug\": true,\n  \"registry-mirrors\": [\"https://higher.example.com\"]\n}\n";
        same_on(here, DAEMON, mirrors).await?;
        winner.condition(&ctx, CONFLICT, "False").await?;

        winner.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// The winner stops wanting the key, and wants it again; then priorities change places.
#[tokio::test]
async fn the_winner_changes_its_mind() -> Result<()> {
    e2e::test("conflict-changes", async |ctx| {
        let pair = Pair::begin(&ctx).await?;
        let Pair {
            here,
            winner,
            loser,
        } = &pair;
        let before = Trees::of(ctx.nodes()).await?;
        winner.settle(&ctx, here).await?;
        loser.settle(&ctx, here).await?;
        pair.conflict(&ctx).await?;

        let path = format!("/etc/edict/{}/winner", ctx.name);
        let without = Draft::new(winner.name(), named(here)).priority(10);
        without
            .file(&path, "no mirrors\n")
            .settle(&ctx, here)
            .await?;
        loser.condition(&ctx, CONFLICT, "False").await?;
        pair.mirror("lower").await?;
        winner.settle(&ctx, here).await?;
        pair.conflict(&ctx).await?;

        loser.clone().priority(11).apply(&ctx).await?;
        let conflict = winner.condition(&ctx, CONFLICT, "True").await?;
        ensure!(conflict.message.contains(loser.name()), "{conflict:?}");
        loser.condition(&ctx, CONFLICT, "False").await?;
        pair.mirror("lower").await?;
        pair.rest(&ctx).await?;

        winner.delete(&ctx).await?;
        pair.mirror("lower").await?;
        loser.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn among_equals_the_older_wins() -> Result<()> {
    e2e::test("conflict-older", async |ctx| {
        let mut pair = Pair::begin(&ctx).await?;
        // By its name the older one would lose.
        let older = format!("{}-z-older", ctx.name);
        let younger = format!("{}-a-younger", ctx.name);
        pair.winner.0.metadata.name = Some(older);
        pair.winner.0.spec.priority = None;
        pair.loser.0.metadata.name = Some(younger);
        pair.loser.0.spec.priority = Some(0);
        let Pair {
            here,
            winner,
            loser,
        } = &pair;
        let before = Trees::of(ctx.nodes()).await?;
        winner.settle(&ctx, here).await?;
        // The API server counts in seconds.
        let created = winner.created(&ctx).await?;
        wait::until("the next second", Duration::from_secs(10), async || {
            let now = Timestamp::now();
            Ok(Seen::when(now.as_second() > created.as_second() + 1, now))
        })
        .await?;
        loser.settle(&ctx, here).await?;
        ensure!(loser.created(&ctx).await? > created, "both are equally old");
        pair.conflict(&ctx).await?;

        winner.delete(&ctx).await?;
        loser.condition(&ctx, CONFLICT, "False").await?;
        pair.mirror("lower").await?;
        loser.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// Two NodeConfigs for one worker. Both want Docker's mirrors; the loser wants more than that.
struct Pair {
    here: Vec<Node>,
    winner: Draft,
    loser: Draft,
}

impl Pair {
    async fn begin(ctx: &Context) -> Result<Self> {
        without_docker(ctx).await?;
        let folder = folder(ctx).await?;
        let here = ctx.workers()[..1].to_vec();
        ctx.plant(&here[0], DAEMON, OWN.as_bytes(), 0o644).await?;
        let draft = |name: &str| {
            let mirror = format!("https://{name}.example.com");
            Draft::new(&format!("{}-{name}", ctx.name), named(&here)).mirrors(&[&mirror])
        };
        Ok(Self {
            winner: draft("higher").priority(10),
            loser: draft("lower")
                .priority(9)
                .insecure(&["registry.example.com:5000"])
                .file(&format!("{folder}/rest"), "the rest\n"),
            here,
        })
    }

    /// The winner has the key, the loser everything else, and says who has the key.
    async fn conflict(&self, ctx: &Context) -> Result<()> {
        let Self {
            here,
            winner,
            loser,
        } = self;
        let conflict = loser.condition(ctx, CONFLICT, "True").await?;
        let says = |word: &str| conflict.message.contains(word);
        ensure!(
            says(winner.name()) && says("registry-mirrors") && says(DAEMON),
            "the condition does not name the key and the winner: {conflict:?}"
        );
        ensure!(
            !says("insecure-registries") && !says("/etc/edict"),
            "the condition names what does not collide: {conflict:?}"
        );
        winner.condition(ctx, CONFLICT, "False").await?;
        self.mirror("higher").await?;
        self.rest(ctx).await?;
        let owner = async |key: &str| {
            let states: Api<NodeState> = Api::all(ctx.client.clone());
            let status = states.get(&here[0].name).await?.status;
            let resources = status.unwrap_or_default().resources;
            let found = resources
                .iter()
                .find(|one| one.path == DAEMON && one.key.as_deref() == Some(key));
            let found = found.with_context(|| format!("{key} is not among {resources:?}"))?;
            anyhow::Ok(found.owner.clone())
        };
        let owners = (
            owner("registry-mirrors").await?,
            owner("insecure-registries").await?,
        );
        ensure!(
            owners == (winner.name().to_owned(), loser.name().to_owned()),
            "the keys belong to {owners:?}"
        );
        Ok(())
    }

    /// This one's mirror stands in Docker's file, with what only the loser wants and with what was
    /// there before. Which key comes first hangs on who came first.
    async fn mirror(&self, name: &str) -> Result<()> {
        let text = self.here[0].text(DAEMON).await?.unwrap_or_default();
        let found: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let expected = json!({
            "debug": true,
            "insecure-registries": ["registry.example.com:5000"],
            "registry-mirrors": [format!("https://{name}.example.com")],
        });
        ensure!(found == expected, "{DAEMON} says {text}, not {expected}");
        Ok(())
    }

    /// What only the loser wants is there.
    async fn rest(&self, ctx: &Context) -> Result<()> {
        let path = format!("/etc/edict/{}/rest", ctx.name);
        same_on(&self.here, &path, "the rest\n").await
    }
}
