//! What this machine needs before there can be a cluster: an engine, kind and
//! kubectl, a node image, and the kernel settings that a kubelet changes. And a
//! registry, for the tests that pull.

mod node_image;
mod pull;
mod registry;
mod sysctls;
mod tools;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::progress::Step;
use crate::settings::Settings;

pub use node_image::node_image;
pub use registry::registry;
pub use sysctls::{prepare as prepare_sysctls, put_back as put_back_sysctls};
pub use tools::Tools;

/// Installing an engine takes half a minute; a slow mirror more.
const ENGINE: Duration = Duration::from_mins(10);

/// Makes `docker info` answer.
pub async fn engine(settings: &Settings) -> Result<()> {
    let step = Step::begin("engine");
    let version = Process::new(settings.root.join("hack/engine"))
        .within(ENGINE)
        .text_with_progress(|line| step.note(line))
        .await
        .context("no docker engine")?;
    step.done(&version);
    Ok(())
}
