//! Boots real clusters of several masters, installs Edict on them as its README
//! says, and lets a test read what lands in `/etc` of every node.
//!
//! A test says what it is called and what it does; everything before and after is
//! here: an engine, a node image, a cluster, Edict's own images, the installation,
//! the evidence of a failure, and cleaning up.
//!
//! ```no_run
//! #[tokio::test]
//! async fn motd_on_masters() -> anyhow::Result<()> {
//!     e2e::test("motd-on-masters", async |ctx| {
//!         ctx.apply("kind: NodeConfig ...").await?;
//!         for node in ctx.masters() {
//!             node.read("/etc/motd").await?;
//!         }
//!         Ok(())
//!     })
//!     .await
//! }
//! ```
//!
//! # Assumptions
//!
//! Linux, and either a docker engine with `kind` and `kubectl` on `PATH` and a
//! registry within reach, or root on Debian with Go, where all of these are made.

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod container;
pub mod context;
pub mod demo;
pub mod dockerd;
pub mod dump;
pub mod fault;
pub mod forward;
pub mod host;
pub mod hostfile;
pub mod image;
pub mod install;
pub mod machine;
pub mod node;
pub mod nodeconfig;
pub mod process;
pub mod progress;
pub mod registry;
pub mod sample;
pub mod seed;
pub mod session;
pub mod settings;
pub mod status;
pub mod tree;
pub mod wait;

pub use cluster::Cluster;
pub use context::Context;
pub use fault::Fault;
pub use host::Host;
pub use node::{Node, Role};
pub use nodeconfig::Draft;
pub use registry::Registry;
pub use sample::Change;
pub use seed::Seed;
pub use session::test;
pub use tree::Trees;
