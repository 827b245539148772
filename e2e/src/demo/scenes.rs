//! What a newcomer would not believe otherwise, shown where it happens: a diff before anything is
//! written, a mirror that Docker really uses, a bad change that is put back, and a change by hand that is
//! corrected.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dockerd;
use crate::host::{Host, manifest};
use crate::node::Node;
use crate::progress::Step;
use crate::wait::{self, Seen};

/// What somebody changes by hand is seen within seconds.
const CORRECTED: Duration = Duration::from_mins(1);
/// A file that the samples write on every node.
const MOTD: &str = "/etc/motd";
/// A service that does not start with what it can't read.
const APP: &str = r#"
cat >/etc/systemd/system/app.service <<'END'
[Service]
ExecStart=/bin/sh -c 'if grep -q wrong /etc/edict/app.conf; then echo "app.conf:1: no such setting"; exit 1; fi; exec sleep infinity'
END
install -D -m 644 /dev/stdin /etc/edict/app.conf <<<'level = 1'
systemctl daemon-reload
systemctl start app.service
"#;

/// Shows what happens on a host: a machine of its own, without a cluster.
pub async fn on_a_host() -> Result<()> {
    let step = Step::begin("a host with Docker");
    let host = match dockerd::host().await {
        Ok(host) => host,
        Err(error) => {
            step.done(&format!("left out: {error:#}"));
            return Ok(());
        }
    };
    step.done("there");
    let node = host.node();
    let docker = json!({"docker": {"registryMirrors": ["https://mirror.example.com"]}});
    let docker = manifest("mirror", &docker);
    say("A diff before anything is written: edict-agent plan");
    tell(&host, "plan", &docker).await?;
    say("Applied. Docker has the mirror, and is the same process as before: edict-agent apply");
    let pid = node.process("docker.service").await?;
    tell(&host, "apply", &docker).await?;
    let info = node.run(&["docker", "info"]).await?;
    let mirrors = info
        .lines()
        .skip_while(|line| !line.contains("Registry Mirrors"));
    let mirrors: Vec<_> = mirrors.take(2).map(str::trim).collect();
    let same = node.process("docker.service").await? == pid;
    println!("    docker info: {}", mirrors.join(" "));
    println!("    the same process: {same}");

    node.shell(APP).await?;
    let bad = json!({"files": [{
        "path": "/etc/edict/app.conf",
        "content": "wrong = 1\n",
        "notify": [{"unit": "app.service", "action": "Restart"}],
    }]});
    say("A bad change is put back, and the service runs on with what it had: edict-agent apply");
    tell(&host, "apply", &manifest("bad", &bad)).await?;
    let text = node.text("/etc/edict/app.conf").await?;
    println!(
        "    /etc/edict/app.conf: {}",
        text.unwrap_or_default().trim()
    );
    let active = node
        .exec(&["systemctl", "is-active", "app.service"])
        .await?;
    println!("    app.service: {}", active.text().trim());
    Ok(())
}

/// Shows a change by hand on a node of the cluster, and what becomes of it.
pub async fn drift(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes.last().context("there is no node")?;
    let Some(ours) = node.text(MOTD).await? else {
        return Ok(());
    };
    say(&format!(
        "Somebody changes {MOTD} on {} by hand; it is corrected",
        node.name
    ));
    node.write(MOTD, b"by hand\n", 0o644, 0, 0).await?;
    wait::until(
        "the change by hand to be corrected",
        CORRECTED,
        async || {
            let now = node.text(MOTD).await?;
            Ok(Seen::when(now.as_ref() == Some(&ours), now))
        },
    )
    .await?;
    for line in event(cluster, node).await?.lines() {
        println!("    {line}");
    }
    Ok(())
}

/// What the node's Event says of it.
async fn event(cluster: &Cluster, node: &Node) -> Result<String> {
    let selector = format!("reason=Drift,involvedObject.name={}", node.name);
    wait::until("an Event", CORRECTED, async || {
        let kubectl = cluster.access.kubectl().args(["get", "events", "-A"]);
        let kubectl = kubectl.args(["--output=jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
        let said = kubectl.args(["--field-selector", &selector]).text().await?;
        let last = said
            .lines()
            .rfind(|line| line.contains(MOTD))
            .map(str::to_owned);
        Ok(match last {
            Some(last) => Seen::Done(last),
            None => Seen::NotYet(said),
        })
    })
    .await
}

fn say(what: &str) {
    println!("\n{what}");
}

async fn tell(host: &Host, command: &str, manifest: &Value) -> Result<()> {
    let (_, said) = host.edict(command, std::slice::from_ref(manifest)).await?;
    for line in said.trim_end().lines() {
        println!("    {line}");
    }
    Ok(())
}
