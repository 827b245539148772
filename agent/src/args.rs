//! The command line. Everything can be given in the environment as well.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use edict_core::wire;

/// Where the agent listens unless told otherwise: every address, both families.
const LISTEN: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    wire::PORT,
);

/// Edict's agent: brings the configuration that the operator pushes to this node's /etc.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the agent can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the operator until told to end.
    Serve(Serve),
    /// Says by its exit code whether an agent listens here: a probe for the kubelet.
    Healthy(Healthy),
}

/// How to serve.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Name of this node; pushes for another one are refused.
    #[arg(long, env = "EDICT_NODE")]
    pub node: String,
    /// Folder where the host's /etc is mounted.
    #[arg(long, env = "EDICT_ETC", default_value = "/host/etc")]
    pub etc: PathBuf,
    /// Folder, kept on the node, where originals and what is in force are remembered.
    #[arg(long, env = "EDICT_STATE", default_value = "/var/lib/edict")]
    pub state: PathBuf,
    /// Folder with tls.crt, tls.key and ca.crt. Read anew for each connection.
    #[arg(long, env = "EDICT_TLS", default_value = "/etc/edict-tls")]
    pub tls: PathBuf,
    /// Address and port to listen on.
    #[arg(long, env = "EDICT_LISTEN", default_value_t = LISTEN)]
    pub listen: SocketAddr,
    /// What is logged, `info` or `edict_agent=debug,warn` for instance.
    #[arg(long, env = "EDICT_LOG", default_value = "info")]
    pub log: String,
}

/// Which agent to ask.
#[derive(Debug, clap::Args)]
pub struct Healthy {
    /// Address and port that the agent was told to listen on.
    #[arg(long, env = "EDICT_LISTEN", default_value_t = LISTEN)]
    pub listen: SocketAddr,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_makes_sense() {
        super::Args::command().debug_assert();
    }
}
