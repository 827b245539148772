//! The program of the registry that tests run: out of its official image where a
//! registry answers, else built here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::pull::pulled;
use super::tools;
use crate::process::Process;
use crate::progress::Step;
use crate::settings::{Settings, version};

/// A static registry, whose file name is "registry".
pub async fn registry(settings: &Settings) -> Result<PathBuf> {
    let step = Step::begin("registry program");
    let image = version("registry")?;
    let program = if pulled(settings, image, &step).await? {
        let folder = settings.cache.join("registry-pulled");
        fs::create_dir_all(&folder)?;
        copy_out(image, &folder).await?
    } else {
        tools::build(settings, "registry").await?
    };
    step.done(&program.display().to_string());
    Ok(program)
}

async fn copy_out(image: &str, folder: &Path) -> Result<PathBuf> {
    let docker = |args: &[&str]| Process::new("docker").args(args);
    let container = docker(&["create", image]).text().await?;
    let program = folder.join("registry");
    let copied = docker(&["cp", &format!("{container}:/bin/registry")])
        .arg(&program)
        .text()
        .await;
    docker(&["rm", "--volumes", &container]).text().await?;
    copied?;
    Ok(program)
}
