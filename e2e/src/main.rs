//! The command line of the cluster harness: `cargo run -p e2e -- help`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match e2e::cli::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
