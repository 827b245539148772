//! The agent over real folders: what it writes, what it gives back, and whom it lets in.
#![expect(
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

mod clock;
mod command;
mod conflicts;
mod containerd;
mod content;
mod crash;
mod drift;
mod dry;
mod environment;
mod faults;
mod firewall;
mod give_back;
mod held;
mod lines;
mod links;
mod live;
mod mounts;
mod node;
mod plan;
mod power;
mod probe;
mod programs;
mod refusals;
mod server;
mod services;
mod store;
mod sysctl;
mod tree;
mod trust;
