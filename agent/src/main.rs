//! The agent's program: `edict-agent serve` and `edict-agent healthy`.

use clap::Parser as _;
use edict_agent::args::Args;

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    edict_agent::run::run(Args::parse())
}
