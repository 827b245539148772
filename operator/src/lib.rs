//! Edict's operator: from NodeConfigs to the agents.
//!
//! ```text
//! client    the API server, with a deadline for every answer
//! lease     who of several operators leads; the others keep their caches warm
//! cache     what the API server says, kept up to date; nothing is decided before all of it is there
//!   |
//! rollout   plan (pure) -> NodeState.spec, revisions, NodeConfig.status          one writer
//! node      NodeState -> compose (pure) -> push -> NodeState.status              one task a node
//! fleet     Fleet -> certificates, ServiceAccount, Service, DaemonSet; roll (pure) -> agents replaced
//! ```

pub mod agent;
pub mod args;
pub mod cache;
pub mod client;
pub mod content;
mod context;
pub mod event;
pub mod fleet;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod node;
pub mod pki;
pub mod revision;
pub mod rollout;
pub mod runtime;
