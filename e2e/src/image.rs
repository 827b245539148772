//! Edict's images: built, put into the local engine, brought to the nodes.
//!
//! Each is one static binary and nothing else. Its tag is its content, so what
//! has not changed is neither imported nor loaded again, and what has changed can
//! never be taken for what was there before.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::cluster::Provider;
use crate::process::Process;
use crate::progress::Step;
use crate::settings::Settings;

/// A release build of everything from nothing, on a busy machine.
const BUILD: Duration = Duration::from_mins(45);

/// What is in the images, one in each, and the most bytes that it may have: one that is larger has
/// something in it that nobody meant. The agent is on every node.
const PROGRAMS: [(&str, u64); 2] = [("edict-operator", 20_000_000), ("edict-agent", 10_000_000)];

/// The images of one state of the sources, by name and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `edict/operator:<content>`.
    pub operator: String,
    /// `edict/agent:<content>`.
    pub agent: String,
}

impl Images {
    /// Builds both and puts them into the local engine.
    pub async fn build(settings: &Settings) -> Result<Self> {
        let step = Step::begin("images");
        let folder = binaries(settings, &step).await?;
        for (name, most) in PROGRAMS {
            is_small(&folder.join(name), most)?;
        }
        let images = Self::import(&folder, &step).await?;
        step.done(&format!("{} {}", images.operator, images.agent));
        Ok(images)
    }

    /// Builds both as they were in an earlier commit. The binaries are kept in the cache.
    pub async fn of_commit(settings: &Settings, commit: &str) -> Result<Self> {
        let step = Step::begin("images of an earlier release");
        let folder = settings.cache.join("releases").join(commit);
        if !folder.is_dir() {
            let source = settings.root.join(checkout(settings, commit).await?);
            let target = apart(settings, &source).await?;
            let built = compile(&source, &target, &step).await?;
            let partial = folder.with_extension("partial");
            fs::create_dir_all(&partial)?;
            for (name, _) in PROGRAMS {
                fs::copy(built.join(name), partial.join(name))?;
            }
            fs::rename(&partial, &folder)?;
        }
        let images = Self::import(&folder, &step).await?;
        step.done(&format!("{} {}", images.operator, images.agent));
        Ok(images)
    }

    async fn import(folder: &Path, step: &Step) -> Result<Self> {
        let [operator, agent] = PROGRAMS.map(|(name, _)| folder.join(name));
        Ok(Self {
            operator: import(&operator, "edict/operator", step).await?,
            agent: import(&agent, "edict/agent", step).await?,
        })
    }

    /// Brings both to every node that lacks them.
    pub async fn load(&self, provider: &dyn Provider) -> Result<()> {
        let step = Step::begin("load");
        provider.load(&self.operator).await?;
        provider.load(&self.agent).await?;
        step.done("both images are on all nodes");
        Ok(())
    }
}

/// Compiles both binaries and gives the folder that they are in.
pub async fn build(settings: &Settings) -> Result<PathBuf> {
    let step = Step::begin("binaries");
    let folder = compile(&settings.root, &target(settings), &step).await?;
    step.done("compiled");
    Ok(folder)
}

/// The agent's program.
pub async fn agent(settings: &Settings) -> Result<PathBuf> {
    let step = Step::begin("agent");
    let folder = binaries(settings, &step).await?;
    step.done("there");
    Ok(folder.join("edict-agent"))
}

async fn binaries(settings: &Settings, step: &Step) -> Result<PathBuf> {
    match &settings.binaries {
        Some(folder) => Ok(folder.clone()),
        None => compile(&settings.root, &target(settings), step).await,
    }
}

/// Compiles a test of a package to a program that runs on any node, and gives that.
pub async fn test_program(settings: &Settings, package: &str, test: &str) -> Result<PathBuf> {
    let step = Step::begin(format!("tests of {package}"));
    let said = cargo_static("test", &host().await?, &settings.root, &target(settings))
        .args(["--no-run", "--package", package])
        .args(["--test", test, "--message-format", "json"])
        .text()
        .await
        .with_context(|| format!("the tests of {package} cannot be built"))?;
    let program = said.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    step.done("compiled");
    program.with_context(|| format!("{package} has no test {test}"))
}

/// Puts the sources of an earlier commit, as they were, into a folder of this repository that git
/// ignores, and gives that.
pub async fn checkout(settings: &Settings, commit: &str) -> Result<String> {
    let folder = format!("target/releases/{commit}");
    let source = settings.root.join(&folder);
    fs::create_dir_all(&source)?;
    let archive = Process::new("git")
        .args(["archive", "--format=tar", commit])
        .folder(&settings.root)
        .bytes()
        .await
        .with_context(|| {
            format!("commit {commit} of hack/versions is not in this clone: git fetch --unshallow")
        })?;
    Process::new("tar")
        .args(["--extract", "--directory"])
        .arg(&source)
        .stdin(archive)
        .text()
        .await?;
    Ok(folder)
}

/// The target folder of images. The flags of static binaries have one of their own, or every other
/// build would start from nothing after one of these.
fn target(settings: &Settings) -> PathBuf {
    settings.root.join("target/image")
}

/// A target folder for `source`, with everything in it that is not of this project. Cargo takes the
/// crates of two checkouts for the same, and the one that is older for fresh.
async fn apart(settings: &Settings, source: &Path) -> Result<PathBuf> {
    let folder = settings.root.join("target/releases/build");
    let whole = target(settings);
    if !folder.is_dir() && whole.is_dir() {
        let copy = Process::new("cp").arg("--archive").arg(whole).arg(&folder);
        copy.within(BUILD).text().await?;
    }
    let packages = ["edict-core", "edict-crds", "edict-operator", "edict-agent"];
    cargo()
        .args(["clean", "--release", "--target", &host().await?])
        .args(packages.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_TARGET_DIR", &folder)
        .folder(source)
        .text()
        .await?;
    Ok(folder)
}

/// Cargo, without what it tells the test that runs this: that is not meant for another one.
fn cargo() -> Process {
    let mut cargo = Process::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            cargo = cargo.env_remove(&name);
        }
    }
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS")
}

/// A program that loads nothing, at whichever address, with its relocations packed: a mebibyte less. Who
/// packs them has to be of binutils 2.38 and glibc 2.36, those of Debian 12, or newer.
const STATIC: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";

/// Cargo, to make programs that need nothing of the node that they run on.
fn cargo_static(command: &str, host: &str, source: &Path, target: &Path) -> Process {
    cargo()
        .args([command, "--locked", "--target", host])
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", STATIC)
        .folder(source)
        .within(BUILD)
}

/// Compiles both binaries and gives the folder that they are in.
async fn compile(source: &Path, target: &Path, step: &Step) -> Result<PathBuf> {
    let host = host().await?;
    cargo_static("build", &host, source, target)
        .arg("--release")
        .args(["--package", "edict-operator", "--package", "edict-agent"])
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .text_with_progress(|line| {
            // Without a terminal a line for each of 300 crates says nothing.
            if line.contains("Compiling edict") || line.contains("Blocking") {
                step.note(line);
            }
        })
        .await
        .context("Edict's binaries cannot be built")?;
    Ok(target.join(host).join("release"))
}

fn is_small(program: &Path, most: u64) -> Result<()> {
    let size = fs::metadata(program)
        .with_context(|| format!("cannot read {}", program.display()))?
        .len();
    if size > most {
        bail!(
            "{} has {size} bytes: more than {most} belong in no image",
            program.display(),
        );
    }
    Ok(())
}

/// Makes an image of one static program, which it starts, unless an image of that
/// content is there. Gives `<name>:<content>`.
pub async fn import(program: &Path, name: &str, step: &Step) -> Result<String> {
    let binary = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let (folder, file) = program
        .parent()
        .zip(program.file_name().and_then(OsStr::to_str))
        .with_context(|| format!("{} is no program", program.display()))?;
    let content = format!("{:x}", Sha256::digest(&binary));
    let image = format!("{name}:{}", &content[..12]);
    let present = Process::new("docker")
        .args(["image", "inspect", &image])
        .output()
        .await?;
    if present.success() {
        return Ok(image);
    }
    step.note(&format!("importing {image}"));
    let archive = Process::new("tar")
        .args([
            "--create",
            "--owner=0",
            "--group=0",
            "--mode=0755",
            "--mtime=@0",
            "--directory",
        ])
        .arg(folder)
        .arg(file)
        .bytes()
        .await?;
    Process::new("docker")
        .args([
            "import",
            "--change",
            &format!("ENTRYPOINT [\"/{file}\"]"),
            "-",
            &image,
        ])
        .stdin(archive)
        .text()
        .await?;
    Ok(image)
}

async fn host() -> Result<String> {
    let said = Process::new("rustc").arg("-vV").text().await?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
