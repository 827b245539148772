//! `/livez`, `/readyz` and `/metrics`, for whoever reaches the port: a kubelet and Prometheus are to,
//! and neither has a certificate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::cache::Cache;
use crate::metrics::Metrics;

/// More than a cluster's kubelets and monitoring have. One more takes the place of the oldest, so
/// that whoever opens connections and says nothing keeps no probe out.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection is kept.
const CONNECTION_FOR: Duration = Duration::from_mins(1);
/// The head of a request fits in many times.
const BUFFER_MAX: usize = 16 * 1024;
/// How long to wait when nothing can be accepted: out of file handles mostly.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    cache: Cache,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    answer(listener, router(move || cache.is_synced(), metrics)).await
}

/// Serves these routes until the process ends.
pub async fn answer(listener: TcpListener, router: Router) -> anyhow::Result<()> {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let service = TowerToHyperService::new(router.clone());
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(TokioIo::new(stream), service);
        // How a caller's connection ends is the caller's affair.
        let serving = tokio::spawn(tokio::time::timeout(CONNECTION_FOR, serving));
        connections.push_back(serving.abort_handle());
    }
}

/// The routes; `ready` says whether the operator knows enough to act.
pub fn router(
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    metrics: Arc<Metrics>,
) -> Router {
    let readyz = move || async move {
        if ready() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "caches are not synced yet")
        }
    };
    Router::new()
        .route("/livez", get(async || "alive"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(encode))
        .with_state(metrics)
}

async fn encode(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.encode() {
        Ok(text) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
