//! Puts the parts together and runs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::apply::Agent;
use crate::args::{Args, Command, Healthy, Serve};
use crate::host::Rooted;
use crate::host::mount::MountInfo;
use crate::local;
use crate::server::{Server, tls::Identity};
use crate::state::Store;
use crate::systemd::Systemd;
use crate::units::Manager;
use crate::watch;

/// An agent that takes longer to accept on its own node is not well. Below the kubelet's usual
/// limit for a probe of one second.
const HEALTHY_WITHIN: Duration = Duration::from_millis(800);

/// Why units wait where systemd is kept out of reach.
const DENIED: &str = "the Fleet's spec.restarts is Never";
/// Why they wait where there is no systemd.
const NO_SYSTEMD: &str = "this node has no systemd to be told";

/// Does what the command line says.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Serve(args) => serve(args)?,
        Command::Healthy(args) => healthy(&args)?,
        Command::Plan(args) => return local::plan(&args),
        Command::Apply(args) => return local::apply(&args),
        Command::Restore(args) => return local::restore(&args),
        Command::Status(args) => return local::status(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(args: Serve) -> anyhow::Result<()> {
    let Serve {
        node,
        etc,
        state,
        systemd,
        commands_only,
        address,
        tls,
        listen,
        log,
    } = args;
    let lines = tracing_subscriber::fmt::layer().json();
    tracing_subscriber::registry()
        .with(lines.with_writer(std::io::stderr))
        .with(log)
        .init();
    // Folders are made with the permissions that they are to have, all at once: an agent that dies
    // between making one and opening it to others would leave it closed.
    rustix::process::umask(rustix::fs::Mode::empty());
    let mounts = MountInfo::new(&etc).with_context(|| format!("--etc {}", etc.display()))?;
    let host = Rooted::open(&etc, mounts).with_context(|| format!("--etc {}", etc.display()))?;
    let store = Store::open(&state).with_context(|| format!("--state {}", state.display()))?;
    let manager = systemd.map_or(Manager::OutOfReach(DENIED), |folder| {
        Systemd::find(&folder, &state).unwrap_or(Manager::OutOfReach(NO_SYSTEMD))
    });
    let manager = if commands_only {
        manager.for_commands(DENIED)
    } else {
        manager
    };
    let agent = Arc::new(Agent::open(node, host, manager, store, address)?);
    agent.start_running().context("no commands can be run")?;
    watch::start(agent.clone(), etc).context("no changes can be watched")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind(listen)
                .await
                .with_context(|| format!("--listen {listen}"))?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let end = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            tracing::info!(%listen, node = agent.node(), "serving");
            Server::new(agent, Identity::new(tls))
                .serve(listener, end)
                .await;
            tracing::info!("ended");
            Ok(())
        })
}

/// The operator's certificate is the only one that is let in, so this is as far as a probe gets.
fn healthy(args: &Healthy) -> anyhow::Result<()> {
    let Healthy { listen } = args;
    let here = match listen.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ],
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        given => vec![given],
    };
    let mut last = Ok(());
    for address in here {
        let address = SocketAddr::new(address, listen.port());
        match TcpStream::connect_timeout(&address, HEALTHY_WITHIN / 2) {
            Ok(_) => return Ok(()),
            Err(error) => {
                last = Err(error).with_context(|| format!("no agent listens on {address}"));
            }
        }
    }
    last
}
