//! What comes from a Secret reaches the nodes that it is meant for, and shows nowhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use e2e::install::NAMESPACE;
use e2e::nodeconfig::{named, role};
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Trees};
use edict_core::digest;
use edict_crds::nodeconfig::State;
use edict_crds::{NodeConfig, Role};
use kube::Api;
use serde_json::json;

const PATH: &str = "/etc/edict/secret/token";
const CONFIG: &str = "/etc/containerd/config.toml";
const FOLDER: &str = "/etc/containerd/certs.d";
/// Changed Secrets are watched; what is not read is looked at again after 30 s.
const CHANGED: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_secret_shows_nowhere() -> Result<()> {
    e2e::test("secret-hidden", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let words = ["one", "two", "password", "user"].map(|word| format!("hush-{word}-{unique}"));
        let [one, two, password, user] = &words;

        secret(&ctx, one, "bob", password).await?;
        ctx.apply(&config(&ctx).to_string()).await?;
        let draft = Draft::new(&ctx.name, role(Role::All));
        draft.settled(&ctx, ctx.nodes()).await?;
        everywhere(&ctx, one).await?;
        for node in ctx.nodes() {
            let stat = node.stat(PATH).await?;
            let mode = stat.as_ref().map(|stat| (stat.mode & 0o777, stat.uid));
            ensure!(
                mode == Some((0o600, 0)),
                "{PATH} on {}: {stat:?}",
                node.name
            );
            let open = ["find", "/var/lib/edict", "-type", "f", "-perm", "/077"];
            let open = node.run(&open).await?;
            ensure!(open.is_empty(), "others can read on {}: {open}", node.name);
        }

        secret(&ctx, two, "bob", password).await?;
        everywhere(&ctx, two).await?;

        // Refused: what is said of it must not say it.
        secret(&ctx, two, &format!("bob:{user}"), password).await?;
        let message = state(&ctx, State::Refused).await?;
        ensure!(message.contains("rule credentials"), "{message}");

        for what in [
            &["get", "nodeconfigs,nodestates,fleets", "--output=yaml"][..],
            &["get", "events", "--all-namespaces", "--output=yaml"],
            &[
                "get",
                "controllerrevisions,configmaps,pods",
                "--namespace",
                NAMESPACE,
                "--output=yaml",
            ],
            &["describe", "nodeconfigs,nodestates"],
            &[
                "logs",
                "--namespace",
                NAMESPACE,
                "--selector=app.kubernetes.io/name=edict-agent",
                "--tail=-1",
            ],
            &[
                "logs",
                "--namespace",
                NAMESPACE,
                "--selector=app.kubernetes.io/name=edict-operator",
                "--tail=-1",
            ],
        ] {
            let shown = ctx.kubectl().args(what.iter().copied()).text().await?;
            ensure!(shown.len() > 100, "kubectl {what:?} shows nothing: {shown}");
            for word in &words {
                let found = spellings(word).into_iter().find(|one| shown.contains(one));
                ensure!(
                    found.is_none(),
                    "kubectl {what:?} shows {word} as {found:?}"
                );
            }
        }
        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn what_containerd_does_not_read_is_said() -> Result<()> {
    e2e::test("secret-unread", async |ctx| {
        let node = ctx.workers().remove(0);
        let before = Trees::of(std::slice::from_ref(&node)).await?;
        let given = String::from_utf8(node.read(CONFIG).await?.unwrap_or_default())?;
        // One cluster has it from the start, another has it empty.
        let [reads, not] = [FOLDER, ""].map(|value| format!("config_path = \"{value}\""));
        // As it was again afterwards, however this ends: others pull through this file.
        let unread = given.replace(&reads, &not);
        ctx.plant(&node, CONFIG, unread.as_bytes(), 0o644).await?;
        let write = async |text: &str| node.write(CONFIG, text.as_bytes(), 0o644, 0, 0).await;
        let mut config = config(&ctx);
        config["spec"] = json!({
            "target": named(std::slice::from_ref(&node)),
            "containerd": {"registries": [{"host": "unread.example", "server": "https://unread.example"}]},
        });
        ctx.apply(&config.to_string()).await?;
        let message = state(&ctx, State::Unread).await?;
        ensure!(message.contains("config_path") && message.contains(&node.name), "{message}");
        write(&given.replace(&not, &reads)).await?;
        state(&ctx, State::Applied).await?;
        write(&given).await?;
        Draft::new(&ctx.name, named(std::slice::from_ref(&node))).delete(&ctx).await?;
        before.unchanged(std::slice::from_ref(&node)).await
    })
    .await
}

/// The ways in which a word may show: as it is, in base64 wherever it begins there, as a digest.
fn spellings(word: &str) -> Vec<String> {
    let inside = |before: usize| {
        let text = BASE64_STANDARD.encode(format!("{}{word}", "x".repeat(before)));
        // What the neighbours of a group have a say in is left out.
        text[4 * before.div_ceil(3)..text.len() - 4].to_owned()
    };
    let mut all: Vec<_> = (0..3).map(inside).collect();
    all.extend([word.to_owned(), digest::of_bytes(word.as_bytes())]);
    all
}

async fn secret(ctx: &Context, token: &str, username: &str, password: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": ctx.name, "namespace": NAMESPACE},
        "stringData": {"token": token, "username": username, "password": password},
    });
    ctx.apply(&secret.to_string()).await
}

fn config(ctx: &Context) -> serde_json::Value {
    json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": ctx.name},
        "spec": {
            "target": {"role": "All"},
            "files": [{"path": PATH, "contentFrom": {"secretKeyRef": {"name": ctx.name, "key": "token"}}}],
            "containerd": {"registries": [{"host": "secret.example", "mirrors": [
                {"url": "https://mirror.example.com", "credentialsFrom": {"secretRef": {"name": ctx.name}}},
            ]}]},
        },
    })
}

async fn everywhere(ctx: &Context, text: &str) -> Result<()> {
    wait::until("the Secret's content on all nodes", CHANGED, async || {
        let now = ctx.read_all(ctx.nodes(), PATH).await?;
        let wanted = Some(text.as_bytes());
        let others = now.iter().filter(|(_, found)| found.as_deref() != wanted);
        let others: Vec<_> = others.map(|(node, _)| node).collect();
        Ok(Seen::when(others.is_empty(), others))
    })
    .await
    .map(drop)
}

/// Waits until the NodeConfig is in this state; answers with its message.
async fn state(ctx: &Context, wanted: State) -> Result<String> {
    let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
    wait::until(
        &format!("{} to be {wanted:?}", ctx.name),
        CHANGED,
        async || {
            let status = configs.get(&ctx.name).await?.status.unwrap_or_default();
            Ok(Seen::when(
                status.state == Some(wanted),
                (status.state, status.message),
            ))
        },
    )
    .await?;
    let status = configs.get(&ctx.name).await?.status.unwrap_or_default();
    Ok(status.message)
}
