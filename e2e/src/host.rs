//! A host: a container of the node image with systemd in it, and no cluster around it.
//!
//! Where one agent on one machine is the subject, this is enough, and there in seconds.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testcontainers::core::{CgroupnsMode, Mount};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

use crate::machine;
use crate::node::{Node, Role};
use crate::progress::Step;
use crate::settings::Settings;
use crate::wait::{self, Seen};

/// systemd is up within two seconds; a busy machine gets time.
const BOOT: Duration = Duration::from_mins(2);

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

    /// The host as a node: its files and programs.
    pub fn node(&self) -> &Node {
        &self.node
    }
}
