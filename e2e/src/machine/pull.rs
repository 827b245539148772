//! Images from a registry, where one answers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::progress::Step;
use crate::settings::Settings;

/// A registry that has not begun to answer by then is not there.
const ANSWER: Duration = Duration::from_secs(30);
/// A node image is 400 MB to download.
const PULL: Duration = Duration::from_mins(20);
/// So long it is remembered that none answered: not every run should wait for it.
const REMEMBER: Duration = Duration::from_hours(1);

/// Makes an image be here, and says whether it is.
pub async fn pulled(settings: &Settings, image: &str, step: &Step) -> Result<bool> {
    if is_here(image).await {
        return Ok(true);
    }
    let silence = Silence::of(settings);
    if silence.is_fresh() {
        return Ok(false);
    }
    step.note(&format!("asking the registry for {image}"));
    // Where it fails, docker has said why, and it was noted.
    let answered = pull(image, step).await.is_ok();
    if !answered {
        silence.remember()?;
    }
    Ok(answered)
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
