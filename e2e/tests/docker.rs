//! Docker itself, on a host with systemd: what it says of itself is what the NodeConfig says.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::manifest;
use e2e::wait::{self, Seen};
use e2e::{Node, Trees, dockerd};
use serde_json::{Value, json};

/// A reload is a signal: Docker comes to it by itself.
const REREAD: Duration = Duration::from_secs(30);

fn config(docker: &Value) -> Value {
    manifest("docker", &json!({"docker": docker}))
}

/// What Docker says of itself, once `holds` is true of it.
async fn says(node: &Node, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(what, REREAD, async || {
        let argv = ["docker", "info", "--format", "{{json .}}"];
        let said = node.exec(&argv).await?.text();
        let info: Value = serde_json::from_str(&said).unwrap_or_default();
        let seen = json!([info["RegistryConfig"], info["LoggingDriver"], info["Debug"]]);
        Ok(Seen::when(holds(&info), seen))
    })
    .await
}

#[tokio::test]
async fn docker_uses_what_it_is_told_and_is_restarted_only_where_it_has_to_be() -> Result<()> {
    let host = dockerd::host().await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    let before = Trees::of(here).await?;
    let mirrors = |info: &Value| info["RegistryConfig"]["Mirrors"].clone();
    let first = node.process("docker.service").await?;

    // Reread while it runs.
    let reloaded = json!({
        "registryMirrors": ["https://mirror.example.com", "http://10.20.0.5:5000"],
        "insecureRegistries": ["10.20.0.0/16", "registry.example.com:5000"],
        "debug": true,
        "maxConcurrentDownloads": 7,
        "liveRestore": true,
    });
    let (code, said) = host.edict("apply", &[config(&reloaded)]).await?;
    ensure!(code == 0 && said.starts_with("docker: Applied\n"), "{said}");
    says(node, "the mirrors to be used", |info| {
        mirrors(info) == json!(["https://mirror.example.com/", "http://10.20.0.5:5000/"])
            && info["Debug"] == true
            && info["LiveRestoreEnabled"] == true
    })
    .await?;
    let config_of = node.run(&["docker", "info"]).await?;
    ensure!(
        config_of.contains("registry.example.com:5000"),
        "{config_of}"
    );
    ensure!(config_of.contains("10.20.0.0/16"), "{config_of}");
    ensure!(
        node.process("docker.service").await? == first,
        "Docker was restarted for that"
    );

    // What it reads when it starts.
    let mut restarted = reloaded.clone();
    restarted["logDriver"] = json!("local");
    restarted["logOptions"] = json!({"maxSize": "5m", "maxFile": 2, "compress": true});
    restarted["logLevel"] = json!("warn");
    restarted["userlandProxy"] = json!(false);
    let mut never = config(&restarted);
    never["spec"]["restarts"] = json!("Never");
    let (code, said) = host.edict("apply", &[never]).await?;
    let waits = "docker: PendingRestart: docker.service has yet to be restarted";
    ensure!(code == 0 && said.starts_with(waits), "{said}");
    ensure!(
        node.process("docker.service").await? == first,
        "Docker was restarted all the same"
    );
    let (code, said) = host.edict("apply", &[config(&restarted)]).await?;
    ensure!(code == 0 && said.starts_with("docker: Applied\n"), "{said}");
    let second = node.process("docker.service").await?;
    ensure!(second != first && second.contains("=active"), "{second}");
    says(node, "the log driver to be used", |info| {
        info["LoggingDriver"] == "local"
    })
    .await?;

    // What it does not start with.
    let kept = Trees::of(here).await?;
    let mut bad = restarted.clone();
    bad["logDriver"] = json!("journald");
    let (code, said) = host.edict("apply", &[config(&bad)]).await?;
    for word in [
        "docker: Failed",
        "docker.service",
        "max-size",
        "what was changed is put back",
    ] {
        ensure!(code == 1 && said.contains(word), "{word:?}: {code}: {said}");
    }
    kept.unchanged(here).await?;
    says(node, "the log driver to be used again", |info| {
        info["LoggingDriver"] == "local"
    })
    .await?;

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{said}");
    says(node, "Docker to be as before", |info| {
        mirrors(info).as_array().is_none_or(Vec::is_empty)
            && info["LoggingDriver"] == "json-file"
            && info["Debug"] == false
    })
    .await?;
    before.unchanged(here).await
}
