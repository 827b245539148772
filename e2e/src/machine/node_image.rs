//! The image that nodes are made from: the one that is asked for, else kind's own
//! where a registry answers, else one built here.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::pull::pulled;
use crate::process::Process;
use crate::progress::Step;
use crate::settings::{Settings, version};

/// From nothing, on two cores: eight minutes, alone.
const BUILD: Duration = Duration::from_mins(45);

/// The name of the node image, which is here when this returns.
pub async fn node_image(settings: &Settings) -> Result<String> {
    if let Some(image) = &settings.node_image {
        return Ok(image.clone());
    }
    let step = Step::begin("node image");
    let kind_node = version("kind_node")?;
    if pulled(settings, kind_node, &step).await? {
        step.done(kind_node);
        return Ok(kind_node.to_owned());
    }
    step.note("no registry answers: built here, eight minutes the first time");
    let image = Process::new(settings.root.join("hack/node/build"))
        .env("EDICT_CACHE", &settings.cache)
        .within(BUILD)
        .text_with_progress(|line| step.note(line))
        .await
        .context("no node image: no registry answers, and it cannot be built here")?;
    step.done(&image);
    Ok(image)
}
