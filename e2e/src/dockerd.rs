//! A host whose Docker runs: this machine's own programs, as a unit of that host.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::host::Host;
use crate::process::Process;
use crate::settings::Settings;

/// A daemon that needs no network of its own, and no disk but the container's.
const UNIT: &str = r"
cat >/etc/systemd/system/docker.service <<'END'
[Service]
Type=notify
ExecStart=/usr/local/bin/dockerd --host=unix:///run/docker.sock --bridge=none --iptables=false \
  --storage-driver=vfs --data-root=/run/docker-data --exec-root=/run/docker-exec
ExecReload=/bin/kill -s HUP $MAINPID
END
systemctl daemon-reload
systemctl start docker.service
";

/// The programs of this machine's own engine.
async fn programs() -> Result<[PathBuf; 3]> {
    let pid = Process::new("pgrep")
        .args(["-o", "-x", "dockerd"])
        .text()
        .await;
    let pid = pid.context("no dockerd runs on this machine itself, whose program could be used")?;
    let daemon = std::fs::canonicalize(format!("/proc/{}/exe", pid.trim()))?;
    let client = Process::new("which").args(["docker"]).text().await?;
    let proxy = daemon.with_file_name("docker-proxy");
    Ok([daemon, proxy, std::fs::canonicalize(client.trim())?])
}

/// Boots one, with the agent's program on it.
pub async fn host() -> Result<Host> {
    let [daemon, proxy, client] = programs().await?;
    let files = [
        (&*daemon, "/usr/local/bin/dockerd"),
        (&*proxy, "/usr/local/bin/docker-proxy"),
        (&*client, "/usr/local/bin/docker"),
    ];
    let host = Host::with_agent(&Settings::read()?, &files).await?;
    host.node().shell(UNIT).await?;
    Ok(host)
}
