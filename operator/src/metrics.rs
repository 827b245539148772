//! What the operator counts, for Prometheus.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// All metrics, registered under the prefix `edict`.
pub struct Metrics {
    registry: Registry,
    /// Pushes to agents, by how they ended.
    pub pushes: Family<PushLabels, Counter>,
    /// How long pushes took.
    pub push_duration: Histogram,
    /// Passes of a controller that failed.
    pub failures: Family<ControllerLabels, Counter>,
    /// Nodes, by whether their agent answers.
    pub nodes: Family<NodeLabels, Gauge>,
    /// The epoch for which this operator leads; 0 while it does not.
    pub epoch: Gauge,
}

/// How a push ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// `settled`, `unsettled` or `failed`.
    pub result: PushResult,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    non_camel_case_types,
    reason = "these are the label's values as Prometheus shows them"
)]
pub enum PushResult {
    /// Everything was applied.
    settled,
    /// The agent answered, and something failed there.
    unsettled,
    /// The push did not get through.
    failed,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabels {
    /// `rollout`, `node` or `fleet`.
    pub controller: &'static str,
}

/// Whether a node's agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NodeLabels {
    /// `NodeState.status.state`.
    pub state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("edict");
        let pushes = Family::default();
        registry.register("pushes", "Pushes to agents", pushes.clone());
        // From an unchanged node next door to a slow disk with many files.
        let push_duration = Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]);
        registry.register_with_unit(
            "push_duration",
            "How long pushes took",
            Unit::Seconds,
            push_duration.clone(),
        );
        let failures = Family::default();
        registry.register(
            "failures",
            "Passes of a controller that failed",
            failures.clone(),
        );
        let nodes = Family::default();
        registry.register(
            "nodes",
            "Nodes by whether their agent answers",
            nodes.clone(),
        );
        let epoch = Gauge::default();
        registry.register(
            "epoch",
            "The epoch for which this operator leads, 0 while it does not",
            epoch.clone(),
        );
        Self {
            registry,
            pushes,
            push_duration,
            failures,
            nodes,
            epoch,
        }
    }
}

impl Metrics {
    /// Everything in the text format of OpenMetrics.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
