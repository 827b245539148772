//! The operator against an API server that answers badly: refused, late, cut, empty, or not at all.
//!
//! ```text
//! server    real HTTP: request what is asked, store the objects, watch what happens to them,
//!           script what goes wrong
//! agent     an agent that remembers what it was told
//! operator  the program itself, a process of its own
//! cluster   all of these together, and waiting with a deadline
//! wait      what several tests wait for
//! ```
//!
//! | module | holds that |
//! |---|---|
//! | `answers` | errors, lost and late answers, and none at all: tried again with patience, and right in the end |
//! | `watches` | watches that are too old, cut, over at once or silent lose nothing |
//! | `sync` | nothing is decided before everything was listed |
//! | `own` | nothing is planned from before the operator's own writes |
//! | `empty` | an empty list gives nothing back |
//! | `absence` | nothing leaves a node but by a release, and whatever is to leave does |
//! | `finalizer` | a deleted `NodeConfig` goes, in time and not too soon |
//! | `lead` | whoever leads no more ends, after what is being pushed |
//! | `drift` | what somebody changes on a node is said as soon as its agent says it, and once |
//! | `plan` | what is only planned is asked for, said, and pushed to nobody |
//! | `report` | what an agent has in force counts, and not only what it reported last |
//! | `crash` | whatever an operator wrote last, the next one goes on |
//!
//! What the operators of a run said is kept under `target/tmp/api/`.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

#[path = "api/agent.rs"]
mod agent;
#[path = "api/cluster.rs"]
mod cluster;
#[path = "api/operator.rs"]
mod operator;
#[path = "api/plan.rs"]
mod plan;
#[path = "api/request.rs"]
mod request;
#[path = "api/script.rs"]
mod script;
#[path = "api/server.rs"]
mod server;
#[path = "api/store.rs"]
mod store;
#[path = "agent/tls.rs"]
mod tls;
#[path = "api/wait.rs"]
mod wait;
#[path = "api/watch.rs"]
mod watch;

#[path = "api/absence.rs"]
mod absence;
#[path = "api/answers.rs"]
mod answers;
#[path = "api/command.rs"]
mod command;
#[path = "api/crash.rs"]
mod crash;
#[path = "api/drift.rs"]
mod drift;
#[path = "api/empty.rs"]
mod empty;
#[path = "api/finalizer.rs"]
mod finalizer;
#[path = "api/lead.rs"]
mod lead;
#[path = "api/own.rs"]
mod own;
#[path = "api/report.rs"]
mod report;
#[path = "api/sync.rs"]
mod sync;
#[path = "api/watches.rs"]
mod watches;
