//! An image that exists nowhere before a test makes it: one program that says a word
//! of this run and ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::jiff::Timestamp;

use crate::context::Context;
use crate::image::import;
use crate::process::Process;
use crate::progress::Step;

/// A program of one line, on a machine that is building something beside it.
const COMPILE: Duration = Duration::from_mins(2);

/// Such an image, in the local engine.
#[derive(Debug)]
pub struct Seed {
    /// What its program prints, which no other image's does.
    pub word: String,
    /// Its name in the local engine.
    pub image: String,
}

impl Seed {
    /// Makes one.
    pub async fn make(ctx: &Context) -> Result<Self> {
        let word = format!("{} {}", ctx.name, Timestamp::now());
        let program = compile(ctx, &word).await?;
        let step = Step::begin("seed");
        let image = import(&program, "edict/seed", &step).await?;
        step.done(&image);
        Ok(Self { word, image })
    }

    /// Takes it from the local engine again; where it was pushed, it stays.
    pub async fn remove(&self) -> Result<()> {
        let remove = Process::new("docker").args(["rmi", &self.image]);
        remove.text().await?;
        Ok(())
    }
}

async fn compile(ctx: &Context, word: &str) -> Result<PathBuf> {
    fs::create_dir_all(&ctx.folder)?;
    let program = ctx.folder.join("seed");
    Process::new("rustc")
        .args(["--edition=2024", "--crate-name=seed", "--crate-type=bin"])
        .args(["-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"])
        .arg(&program)
        .arg("-")
        .stdin(format!("fn main() {{ println!({word:?}) }}"))
        .within(COMPILE)
        .text()
        .await
        .context("a program of one line cannot be compiled")?;
    Ok(program)
}
