//! The image that nodes are made from: the one that is asked for, else kind's own
//! where a registry answers, else one built here.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::progress::Step;
use crate::settings::{Settings, version};

/// A registry that has not begun to answer by then is not there.
const ANSWER: Duration = Duration::from_secs(30);
/// A node image is 400 MB to download.
const PULL: Duration = Duration::from_mins(20);
/// So long it is remembered that none answered: not every run should wait for it.
const REMEMBER: Duration = Duration::from_hours(1);
/// From nothing, on two cores: eight minutes, alone.
const BUILD: Duration = Duration::from_mins(45);

/// The name of the node image, which is here when this returns.
pub async fn node_image(settings: &Settings) -> Result<String> {
    if let Some(image) = &settings.node_image {
        return Ok(image.clone());
    }
    let step = Step::begin("node image");
    let kind_node = version("kind_node")?;
    if is_here(kind_node).await {
        step.done(kind_node);
        return Ok(kind_node.to_owned());
    }
    let silence = Silence::of(settings);
    if !silence.is_fresh() {
        step.note("asking the registry for kind's");
        match pull(kind_node, &step).await {
            Ok(()) => {
                step.done(kind_node);
                return Ok(kind_node.to_owned());
            }
            // docker has said why, and it was noted.
            Err(_) => {
                step.note("no registry answers: built here, eight minutes the first time");
                silence.remember()?;
            }
        }
    }
    let image = Process::new(settings.root.join("hack/node/build"))
        .env("EDICT_CACHE", &settings.cache)
        .within(BUILD)
        .text_with_progress(|line| step.note(line))
        .await
        .context("no node image: no registry answers, and it cannot be built here")?;
    step.done(&image);
    Ok(image)
}

async fn is_here(image: &str) -> bool {
    Process::new("docker")
        .args(["image", "inspect", "--format={{.Id}}", image])
        .output()
        .await
        .is_ok_and(|output| output.success())
}

async fn pull(image: &str, step: &Step) -> Result<()> {
    Process::new("docker")
        .args(["pull", image])
        .first_line_within(ANSWER)
        .within(PULL)
        .follow_lines(|line| step.note(line))
        .await
}

/// The memory of a registry that did not answer.
struct Silence(PathBuf);

impl Silence {
    fn of(settings: &Settings) -> Self {
        Self(settings.cache.join("no-registry"))
    }

    fn is_fresh(&self) -> bool {
        fs::metadata(&self.0)
            .and_then(|found| found.modified())
            .is_ok_and(|when| when.elapsed().is_ok_and(|age| age < REMEMBER))
    }

    fn remember(&self) -> Result<()> {
        if let Some(folder) = self.0.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&self.0, "").with_context(|| format!("cannot write {}", self.0.display()))
    }
}
