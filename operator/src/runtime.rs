//! The composition root: the one place that knows every part.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::Args;
use crate::cache::Cache;
use crate::context::Context;
use crate::event::Recorder;
use crate::lease::{self, Term};
use crate::metrics::Metrics;
use crate::{client, fleet, http, node, rollout};

/// How long pushes that are under way may take when the operator ends: below the grace period of
/// its pod in `deploy/operator.yaml`.
const LAST_PUSHES: Duration = Duration::from_mins(1);

/// Waits until it is to lead, then runs until SIGTERM or until a part ends that never should.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    tracing_subscriber::registry()
        .with(lines)
        .with(args.log)
        .init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let config = Config::infer()
        .await
        .context("cannot find the API server")?;
    let client = client::client(config)?;
    let metrics = Arc::new(Metrics::default());
    let (cache, watches) = Cache::new(&client, &args.namespace);
    let mut parts = JoinSet::new();
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    parts.spawn(http::serve(listener, cache.clone(), metrics.clone()));
    parts.spawn(watches);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(identity = args.identity, "waiting to lead");
    let mut leadership = tokio::select! {
        leadership = lease::acquire(&client, &args.namespace, &args.identity) => leadership?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        Some(ended) = parts.join_next() => return Err(broken(ended)),
    };
    tracing::info!(epoch = leadership.epoch, "leading");
    metrics
        .epoch
        .set(i64::try_from(leadership.epoch).unwrap_or(i64::MAX));

    let (term, mut fenced) = Term::new(leadership.epoch);
    let term = Arc::new(term);
    let context = Context {
        recorder: Recorder::new(client.clone()),
        client,
        cache,
        metrics,
        namespace: args.namespace,
        term: term.clone(),
    };
    let (identities, identity) = tokio::sync::watch::channel(None);
    parts.spawn(fleet::run(context.clone(), args.agent_image, identities));
    parts.spawn(rollout::run(context.clone()));
    let mut nodes = tokio::spawn(node::run(context, identity));
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = parts.join_next() => Err(broken(ended)),
        ended = &mut nodes => return Err(broken(ended)),
        why = leadership.lost() => {
            term.over.cancel();
            Err(anyhow::anyhow!("this operator leads no more: {why}"))
        }
        Some(epoch) = fenced.recv() => {
            term.over.cancel();
            parts.shutdown().await;
            // Where another operator holds the Lease there is nothing to skip.
            let skipped = leadership.skip(epoch).await;
            Err(anyhow::anyhow!(
                "an agent has seen epoch {epoch}, this operator leads for {}: {}",
                leadership.epoch,
                skipped.map_or_else(|error| format!("{error:#}"), |()| "the next one leads for a higher one".to_owned()),
            ))
        }
    };
    term.stop.cancel();
    // From here on nothing is planned; what is being pushed is heard out below.
    parts.shutdown().await;
    match &ended {
        Ok(()) => tracing::info!("stopping"),
        Err(error) => tracing::error!(error = format!("{error:#}"), "stopping"),
    }
    let leadership = if term.over.is_cancelled() {
        leadership.abandon().await;
        None
    } else {
        Some(leadership)
    };
    match tokio::time::timeout(LAST_PUSHES, nodes).await {
        Ok(Ok(Ok(()))) => {}
        Ok(ended) => {
            let error = format!("{:#}", broken(ended));
            tracing::warn!(error, "what was being pushed was not heard out");
        }
        Err(_) => tracing::warn!("a push has not ended in time; its agent finishes it"),
    }
    if let Some(leadership) = leadership {
        leadership.release().await?;
    }
    ended
}

/// Why a part ended that never should.
fn broken(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Err(error) => anyhow::Error::new(error).context("a part of the operator panicked"),
        Ok(Err(error)) => error.context("a part of the operator failed"),
        Ok(Ok(())) => anyhow::anyhow!("a part of the operator ended that never should"),
    }
}
