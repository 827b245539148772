//! A host: a container of the node image with systemd in it, and no cluster around it.
//!
//! Where one agent on one machine is the subject, this is enough, and there in seconds.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testcontainers::core::{CgroupnsMode, Mount};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

use crate::node::{Node, Role};
use crate::progress::Step;
use crate::settings::Settings;
use crate::wait::{self, Seen};
use crate::{image, machine};

/// Where the agent's program is.
pub const AGENT: &str = "/usr/local/bin/edict-agent";

/// systemd is up within two seconds; a busy machine gets time.
const BOOT: Duration = Duration::from_mins(2);

/// A NodeConfig as a file has it that the agent is given by hand: without a target.
pub fn manifest(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "edict.dev/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// A host that runs. It goes when this is dropped.
pub struct Host {
    node: Node,
    _container: ContainerAsync<GenericImage>,
}

impl Host {
    /// Boots one, with these files of this machine on it, as `(here, there)`.
    pub async fn boot(settings: &Settings, files: &[(&Path, &str)]) -> Result<Self> {
        machine::engine(settings).await?;
        let image = machine::node_image(settings).await?;
        let step = Step::begin("host");
        // A digest behind the tag has a colon too.
        let named = image.split('@').next().unwrap_or_default();
        let (name, _) = named
            .rsplit_once(':')
            .with_context(|| format!("{image} has no tag"))?;
        let tag = &image[name.len() + 1..];
        let mut request = GenericImage::new(name, tag)
            .with_privileged(true)
            .with_cgroupns_mode(CgroupnsMode::Private)
            // As kind has its nodes.
            .with_mount(Mount::tmpfs_mount("/run"))
            .with_mount(Mount::tmpfs_mount("/tmp"));
        for (here, there) in files {
            request = request.with_copy_to(*there, *here);
        }
        let container = request.start().await.context("no host comes up")?;
        let node = Node {
            name: container.id().to_owned(),
            role: Role::Worker,
        };
        // Without a terminal systemd says nothing.
        wait::until("systemd to be up", BOOT, async || {
            let said = node.exec(&["systemctl", "is-system-running"]).await?.text();
            Ok(Seen::when(
                ["running", "degraded"].contains(&said.trim()),
                said,
            ))
        })
        .await?;
        step.done("systemd is up");
        Ok(Self {
            node,
            _container: container,
        })
    }

    /// Boots one with the agent's program on it, and these files.
    pub async fn with_agent(settings: &Settings, files: &[(&Path, &str)]) -> Result<Self> {
        let agent = image::agent(settings).await?;
        let files: Vec<_> = std::iter::once((&*agent, AGENT))
            .chain(files.iter().copied())
            .collect();
        Self::boot(settings, &files).await
    }

    /// Runs a command of the agent with these manifests: exit code, and what it said.
    pub async fn edict(&self, command: &str, manifests: &[Value]) -> Result<(i32, String)> {
        let documents: Vec<_> = manifests.iter().map(Value::to_string).collect();
        let file = "/run/manifest.yaml";
        let text = documents.join("\n---\n");
        let node = &self.node;
        node.write(file, text.as_bytes(), 0o600, 0, 0).await?;
        let argv = [AGENT, command, "--root", "/", file];
        // Without manifests it is about everything.
        let argv = &argv[..argv.len() - usize::from(manifests.is_empty())];
        let ended = node.exec(argv).await?;
        let code = ended.code.context("it was killed")?;
        Ok((code, format!("{}{}", ended.text(), ended.stderr)))
    }

    /// The host as a node: its files and programs.
    pub fn node(&self) -> &Node {
        &self.node
    }
}
