//! The agent's program: `edict-agent serve` on a node, and `plan`, `apply`, `restore` and `status`
//! where there is no cluster.

use std::process::ExitCode;

use clap::Parser as _;
use edict_agent::args::Args;

fn main() -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    edict_agent::run::run(Args::parse())
}
