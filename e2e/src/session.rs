//! One cluster for a whole run, one test on it at a time.
//!
//! Every test has a runtime of its own, so only plain data is shared between them;
//! clients are made anew. Other processes wait at a lock in the cache.

use std::any::Any;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::context::Context;
use crate::demo;
use crate::dump::dump;
use crate::image::Images;
use crate::install::install;
use crate::progress::Step;
use crate::settings::Settings;

/// No test on a cluster needs longer; one that does hangs.
const LONGEST: Duration = Duration::from_mins(15);

/// What all tests of a process share. An error is kept too: ten tests should not
/// wait for the same failure ten times.
static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();
static TURN: Mutex<()> = Mutex::const_new(());

struct Shared {
    settings: Settings,
    cluster: Cluster,
    images: Images,
    /// Held until the process ends.
    _lock: File,
}

/// Runs a test on the shared cluster with Edict installed.
///
/// What the test made under an earlier run is taken away first; what it makes now
/// afterwards. When it fails, by error or by panic, the evidence is in
/// `target/e2e/<name>/`.
pub async fn test<F>(name: &str, body: F) -> Result<()>
where
    F: AsyncFnOnce(Context) -> Result<()>,
{
    test_within(name, LONGEST, body).await
}

/// As [`test`], for one that was told how long to go on.
pub async fn test_within<F>(name: &str, longest: Duration, body: F) -> Result<()>
where
    F: AsyncFnOnce(Context) -> Result<()>,
{
    let _turn = TURN.lock().await;
    let shared = SHARED.get_or_init(async || prepare().await.map_err(|error| format!("{error:#}")));
    let shared = shared.await.as_ref().map_err(|error| anyhow!("{error}"))?;
    let step = Step::begin(format!("test {name}"));
    let folder = shared.settings.output().join(name);
    let ctx = Context::new(name, shared.cluster.clone(), shared.images.clone(), folder).await?;
    let run = async {
        ctx.clean()
            .await
            .context("what an earlier run left does not go away")?;
        body(ctx.clone()).await
    };
    let outcome = AssertUnwindSafe(timeout(longest, run)).catch_unwind().await;
    let outcome = outcome.map(|ended| {
        ended.unwrap_or_else(|_| Err(anyhow!("{name} did not end within {} s", longest.as_secs())))
    });
    if !matches!(outcome, Ok(Ok(()))) {
        dump(&ctx.cluster, &ctx.folder).await;
        step.note(&format!("evidence in target/e2e/{name}"));
    }
    let cleaned = ctx.clean().await.context("cleaning up");
    finish(outcome, cleaned, step, &ctx).await
}

/// The test's own failure counts first, then that of cleaning up.
async fn finish(
    outcome: std::result::Result<Result<()>, Box<dyn Any + Send>>,
    cleaned: Result<()>,
    step: Step,
    ctx: &Context,
) -> Result<()> {
    match outcome {
        Err(panic) => {
            drop(step);
            resume_unwind(panic)
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => {
            if cleaned.is_err() {
                dump(&ctx.cluster, &ctx.folder).await;
            }
            cleaned?;
            step.done("passed");
            Ok(())
        }
    }
}

/// Everything between nothing and a cluster with Edict on it; quick when all of it
/// is there already.
async fn prepare() -> Result<Shared> {
    let settings = Settings::read()?;
    let lock = lock(&settings).await?;
    let cluster = Cluster::up(&settings).await?;
    let images = Images::build(&settings).await?;
    images.load(&*cluster.provider).await?;
    if let Err(error) = install(&settings, &cluster, &images).await {
        dump(&cluster, &settings.output().join("install-failed")).await;
        return Err(error.context("Edict does not come up; evidence in target/e2e/install-failed"));
    }
    // On a cluster that somebody else made, these names may be somebody's own.
    if settings.existing.is_none() {
        demo::take_back(&settings, &cluster).await?;
    }
    Ok(Shared {
        settings,
        cluster,
        images,
        _lock: lock,
    })
}

/// Waits for the cluster to be free, also of other processes.
pub async fn lock(settings: &Settings) -> Result<File> {
    let folder = settings.cache.join("clusters");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.lock", settings.cluster));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    let step = Step::begin("lock");
    step.note("another run uses the cluster; waiting for it");
    let file = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await??;
    step.done("free");
    Ok(file)
}
