//! Edict's operator.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edict_operator::args::Args::parse().run().await
}
