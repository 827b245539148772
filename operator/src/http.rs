//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::cache::Cache;
use crate::metrics::Metrics;

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    cache: Cache,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let router = router(move || cache.is_synced(), metrics);
    Ok(axum::serve(listener, router).await?)
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
