//! What the operator is started with.

use std::net::SocketAddr;

use clap::Parser;
use edict_core::log;
use tracing_subscriber::filter::Targets;

/// Edict's operator: plans which node runs which NodeConfig, pushes it to the agents, reports.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Namespace that Edict's own objects are in.
    #[arg(long, env = "EDICT_NAMESPACE", default_value = edict_crds::NAMESPACE)]
    pub namespace: String,
    /// What tells this operator from others that want to lead: the name of its pod.
    #[arg(long, env = "EDICT_IDENTITY")]
    pub identity: String,
    /// Image of the agent, for a Fleet that names none.
    #[arg(long, env = "EDICT_AGENT_IMAGE")]
    pub agent_image: String,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "EDICT_LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// What is logged, for example "info" or "edict_operator=debug,info".
    #[arg(long, env = "EDICT_LOG", default_value = "info", value_parser = |text: &str| log::filter(text).parse::<Targets>())]
    pub log: Targets,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Args::command().debug_assert();
    }
}
