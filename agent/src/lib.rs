//! Edict's agent: the only code that touches a host.
//!
//! ```text
//! server   mutual TLS 1.3, HTTP/2: hello and push        the operator only
//! apply    layer by layer, each one transaction           plan -> commit -> state
//! plan     pure: what was seen, what is wanted -> changes
//! commit   does them, or puts everything back
//! host     the host's /etc, rooted: no symlink leads out
//! units    tells those that read what has changed         systemd, over its own socket
//! command  what of the catalogue is run, once for each revision
//! diff     what would become of a file, for people
//! drift    what others have changed of it                 watch: as soon as they do
//! state    layers in force, originals, ledger, on the node
//! local    plan, apply, restore and status by hand        no operator, no cluster
//! ```

pub mod apply;
pub mod args;
mod command;
pub mod commit;
mod diff;
pub mod disk;
mod drift;
pub mod folder;
pub mod host;
pub mod ledger;
pub mod local;
pub mod plan;
pub mod run;
pub mod server;
pub mod state;
pub mod systemd;
pub mod units;
pub mod watch;
