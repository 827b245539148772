//! Edict's operator.

use clap::Parser as _;
use edict_operator::{args::Args, runtime};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    runtime::run(Args::parse()).await
}
