//! A change is live on a host with systemd: units that read it are told, and watched; one that does not
//! run with it has it put back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::manifest;
use e2e::hostfile::same_on;
use e2e::settings::Settings;
use e2e::wait::{self, Seen};
use e2e::{Host, Node, Trees};
use serde_json::{Value, json};

/// A service that reads a file: when it starts, and when it is told to. It does not run with one that
/// says "broken", nor for long with one that says "short".
const UNIT: &str = "app.service";
const CONF: &str = "/etc/edict/app.conf";
const FILES: &str = r#"
mkdir -p /etc/edict /run/app
cat >/usr/local/bin/app <<'END'
#!/bin/bash
cp /etc/edict/app.conf /run/app/with 2>/dev/null || : >/run/app/with
if grep -q broken /run/app/with; then echo "app.conf:1: no such setting: broken" >&2; exit 3; fi
if grep -q short /run/app/with; then sleep 1; echo "giving up" >&2; exit 4; fi
exec sleep infinity
END
chmod +x /usr/local/bin/app
cat >/etc/systemd/system/app.service <<'END'
[Service]
Type=exec
ExecStart=/usr/local/bin/app
ExecReload=/bin/cp /etc/edict/app.conf /run/app/with
END
cat >/etc/systemd/system/idle.service <<'END'
[Service]
ExecStart=/bin/sleep infinity
END
systemctl daemon-reload
systemctl start app.service
"#;

async fn boot() -> Result<Host> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    host.node().shell(FILES).await?;
    Ok(host)
}

fn config(spec: &Value) -> Value {
    manifest("live", spec)
}

/// The service's file, with what it has to be told.
fn conf(content: &str, action: &str) -> Value {
    let notify = json!([{"unit": UNIT, "action": action}]);
    config(&json!({"files": [{"path": CONF, "content": content, "notify": notify}]}))
}

async fn apply(host: &Host, manifest: Value, code: i32, says: &[&str]) -> Result<String> {
    let (ended, said) = host.edict("apply", &[manifest]).await?;
    ensure!(ended == code, "{ended}, not {code}: {said}");
    for word in says {
        ensure!(said.contains(word), "does not say {word:?}: {said}");
    }
    Ok(said)
}

/// What the service runs with.
async fn with(node: &Node, content: &str) -> Result<()> {
    same_on(std::slice::from_ref(node), "/run/app/with", content).await
}

#[tokio::test]
async fn a_unit_is_told_no_more_than_it_needs() -> Result<()> {
    let host = boot().await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    let before = Trees::of(here).await?;
    let first = node.process(UNIT).await?;

    let (code, said) = host.edict("plan", &[conf("one\n", "Restart")]).await?;
    ensure!(
        code == 3 && said.contains("app.service: restart\n"),
        "{said}"
    );
    ensure!(
        node.process(UNIT).await? == first,
        "a plan has restarted it"
    );

    apply(&host, conf("one\n", "Restart"), 0, &["live: Applied\n"]).await?;
    let second = node.process(UNIT).await?;
    ensure!(
        second != first && second.contains("=active"),
        "{first} {second}"
    );
    with(node, "one\n").await?;

    apply(&host, conf("one\n", "Restart"), 0, &["live: Applied\n"]).await?;
    ensure!(
        node.process(UNIT).await? == second,
        "it was restarted for nothing"
    );

    apply(&host, conf("two\n", "Reload"), 0, &["live: Applied\n"]).await?;
    ensure!(node.process(UNIT).await? == second, "a reload was enough");
    with(node, "two\n").await?;

    let mut never = conf("three\n", "Restart");
    never["spec"]["restarts"] = json!("Never");
    let says = ["live: PendingRestart: app.service has yet to be restarted"];
    apply(&host, never.clone(), 0, &says).await?;
    with(node, "two\n").await?;
    apply(&host, never.clone(), 0, &says).await?;
    node.run(&["systemctl", "restart", UNIT]).await?;
    apply(&host, never, 0, &["live: Applied\n"]).await?;

    // Nobody starts what does not run.
    let notify = json!([
        {"unit": "idle.service", "action": "Restart"},
        {"unit": "none.service", "action": "Reload"},
    ]);
    let files = json!({"files": [{"path": "/etc/edict/idle", "content": "x", "notify": notify}]});
    apply(
        &host,
        config(&files),
        0,
        &[
            "live: Applied: idle.service does not run, and reads it when it is started; ",
            "none.service is not on this node\n",
        ],
    )
    .await?;
    let idle = node
        .exec(&["systemctl", "is-active", "idle.service"])
        .await?;
    ensure!(idle.text().trim() == "inactive", "{}", idle.text());

    let (code, said) = host.edict("restore", &[]).await.context("restore")?;
    ensure!(code == 0, "{said}");
    with(node, "").await?;
    before.unchanged(here).await
}

#[tokio::test]
async fn what_a_unit_does_not_run_with_is_put_back() -> Result<()> {
    let host = boot().await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    apply(&host, conf("good\n", "Restart"), 0, &[]).await?;
    let before = Trees::of(here).await?;
    for (bad, says) in [
        (
            "broken\n",
            &[
                "app.service has failed",
                "app.conf:1: no such setting: broken",
            ],
        ),
        ("short\n", &["app.service has failed", "giving up"]),
    ] {
        let says = [&["live: Failed", "what was changed is put back"][..], says].concat();
        apply(&host, conf(bad, "Restart"), 1, &says).await?;
        before.unchanged(here).await?;
        with(node, "good\n").await?;
        ensure!(
            node.process(UNIT).await?.contains("=active"),
            "it does not run"
        );
    }
    // A unit that can't be reloaded says so, and is left as it is.
    let notify = json!([{"unit": "idle.service", "action": "Reload"}]);
    let files = json!({"files": [{"path": "/etc/edict/idle", "content": "x", "notify": notify}]});
    node.run(&["systemctl", "start", "idle.service"]).await?;
    apply(
        &host,
        config(&files),
        1,
        &["live: Failed", "reload is not applicable"],
    )
    .await?;
    before.unchanged(here).await
}

/// An agent that is killed while it applies this.
async fn killed(host: &Host, content: &str) -> Result<()> {
    let (code, said) = host.edict("apply", &[conf(content, "Restart")]).await?;
    ensure!(code == 137, "it ended with {code}: {said}");
    Ok(())
}

#[tokio::test]
async fn a_restart_that_ends_the_agent_is_gone_on_with() -> Result<()> {
    let host = boot().await?;
    let node = host.node();
    // As a container runtime ends what runs in it.
    let ends = "printf '[Service]\\nExecStartPre=-/usr/bin/pkill -9 -x edict-agent\\n' \
        >/run/systemd/system/app.service.d/ends.conf; systemctl daemon-reload";
    node.shell("mkdir -p /run/systemd/system/app.service.d")
        .await?;
    node.shell(ends).await?;
    killed(&host, "good\n").await?;
    let first = node.process(UNIT).await?;
    let (_, said) = host.edict("status", &[]).await?;
    ensure!(said.contains("a change was interrupted"), "{said}");
    apply(&host, conf("good\n", "Restart"), 0, &["live: Applied\n"]).await?;
    ensure!(node.process(UNIT).await? == first, "it was restarted again");
    with(node, "good\n").await?;

    // And where it does not run with it, although the agent did not live to see that.
    killed(&host, "broken\n").await?;
    // Each agent that tells it something is ended by that, and the next one goes on.
    let rounds = Duration::from_mins(1);
    wait::until("nothing to be left to do", rounds, async || {
        let ended = host.edict("restore", &[conf("x", "Restart")]).await;
        let said = ended.map(|(_, said)| said).unwrap_or_default();
        let state = node.process(UNIT).await?;
        Ok(Seen::when(
            state.contains("=active") && said == "live: is not in force here\n",
            format!("{state} {said}"),
        ))
    })
    .await?;
    with(node, "").await
}
