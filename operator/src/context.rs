//! What every controller works with.

use std::sync::Arc;

use kube::Client;

use crate::cache::Cache;
use crate::event::Recorder;
use crate::lease::Term;
use crate::metrics::{ControllerLabels, Metrics};

/// What every controller works with.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What it says.
    pub cache: Cache,
    /// For Events.
    pub recorder: Recorder,
    /// For what is counted.
    pub metrics: Arc<Metrics>,
    /// Edict's namespace.
    pub namespace: String,
    /// The time for which this operator leads.
    pub term: Arc<Term>,
}

impl Context {
    /// Logs and counts a pass of `controller` that failed.
    pub fn failed(&self, controller: &'static str, error: &anyhow::Error) {
        tracing::warn!(controller, error = format!("{error:#}"), "pass failed");
        let labels = ControllerLabels { controller };
        self.metrics.failures.get_or_create(&labels).inc();
    }
}
