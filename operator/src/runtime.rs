//! The composition root: the one place that knows every part.

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::cache::Cache;
use crate::context::Context;
use crate::event::Recorder;
use crate::metrics::Metrics;
use crate::{fleet, http, node, rollout};

/// Runs until SIGTERM or until a part ends that never should.
pub async fn run(args: Args) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(&args.log)
        .init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let client = Client::try_default()
        .await
        .context("cannot find the API server")?;
    let metrics = Arc::new(Metrics::default());
    let (cache, watches) = Cache::new(&client, &args.namespace);
    let context = Context {
        recorder: Recorder::new(client.clone()),
        client,
        cache: cache.clone(),
        metrics: metrics.clone(),
        namespace: args.namespace,
    };

    let mut parts = JoinSet::new();
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    parts.spawn(http::serve(listener, cache, metrics));
    parts.spawn(watches);
    let (identities, identity) = tokio::sync::watch::channel(None);
    parts.spawn(fleet::run(context.clone(), args.agent_image, identities));
    parts.spawn(rollout::run(context.clone()));
    parts.spawn(node::run(context, identity));
    tracing::info!("started");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping"),
        _ = interrupt.recv() => tracing::info!("stopping"),
        Some(ended) = parts.join_next() => {
            ended.context("a part of the operator panicked")?.context("a part of the operator failed")?;
            anyhow::bail!("a part of the operator ended that never should");
        }
    }
    // A push that is cut off is finished by its agent and taken up again by the next operator.
    parts.shutdown().await;
    Ok(())
}
