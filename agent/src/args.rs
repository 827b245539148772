//! The command line. Everything can be given in the environment as well.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use edict_core::{log, wire};
use tracing_subscriber::filter::Targets;

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
    /// Says what applying these NodeConfigs would change on a host, as a diff. Writes nothing. Exits
    /// with 3 if something would change.
    Plan(Manifests),
    /// Applies these NodeConfigs to a host. Each lands whole or not at all.
    Apply(Manifests),
    /// Gives back what these NodeConfigs have on a host; without any, everything.
    Restore(Restore),
    /// Says what is in force on a host.
    Status(Local),
}

/// A host without a cluster.
#[derive(Debug, clap::Args)]
pub struct Local {
    /// Folder that is the host's root: "/" for this host, or that of an image under construction.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Folder where originals and what is in force are remembered; var/lib/edict under the root
    /// unless given. An agent that serves an operator there keeps everybody else out.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// How to say what was done.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do to a host.
#[derive(Debug, clap::Args)]
pub struct Manifests {
    /// Where.
    #[command(flatten)]
    pub local: Local,
    /// YAML or JSON with NodeConfigs, and the ConfigMaps and Secrets that they refer to; a Fleet in
    /// them says which paths are allowed, and which commands. "-" is the standard input. Names tell
    /// NodeConfigs apart. Targets are not looked at: all of it is for this host.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// What to give back.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// Where.
    #[command(flatten)]
    pub local: Local,
    /// YAML or JSON with the NodeConfigs to give back; everything that is in force if none is given.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
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
    /// Folder of the host's systemd, /run/systemd there. If left out, no unit is reloaded or restarted:
    /// the status says which have to be; and no command is run.
    #[arg(long, env = "EDICT_SYSTEMD")]
    pub systemd: Option<PathBuf>,
    /// Leaves units alone as if systemd were out of reach, and only runs commands.
    #[arg(long, env = "EDICT_COMMANDS_ONLY")]
    pub commands_only: bool,
    /// The node's own address, for probes. No NodeConfig that has some is taken if left out.
    #[arg(long, env = "EDICT_ADDRESS")]
    pub address: Option<IpAddr>,
    /// Folder with tls.crt, tls.key and ca.crt. Read anew for each connection.
    #[arg(long, env = "EDICT_TLS", default_value = "/etc/edict-tls")]
    pub tls: PathBuf,
    /// Address and port to listen on.
    #[arg(long, env = "EDICT_LISTEN", default_value_t = LISTEN)]
    pub listen: SocketAddr,
    /// What is logged, `info` or `edict_agent=debug,warn` for instance.
    #[arg(long, env = "EDICT_LOG", default_value = "info", value_parser = |text: &str| log::filter(text).parse::<Targets>())]
    pub log: Targets,
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
