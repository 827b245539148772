//! The harness as a program: the steps of a test run, one by one.
#![expect(clippy::print_stdout, reason = "a command line answers on stdout")]

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::{Access, Cluster};
use crate::demo::demo;
use crate::dump::dump;
use crate::image::{self, Images};
use crate::install::install;
use crate::progress::Step;
use crate::session::lock;
use crate::settings::Settings;

/// Says which switches there are; all are environment variables, since tests take
/// no arguments.
const SWITCHES: &str = "\
Environment:
  EDICT_E2E_CLUSTER     the cluster's name [edict]
  EDICT_E2E_SHAPE       a file of fixtures/clusters [3+2]
  EDICT_E2E_KUBECONFIG  use this cluster instead of making one
  EDICT_E2E_CONTEXT     the context in it
  EDICT_E2E_BINARIES    a folder with Edict's binaries, instead of compiling them
  EDICT_E2E_KEEP        0: hack/test deletes the cluster at the end [1]
  EDICT_NODE_IMAGE      make nodes from this image
  EDICT_CACHE           what is kept between runs [~/.cache/edict]";

/// Real clusters for Edict's tests and its demo.
#[derive(Debug, Parser)]
#[command(name = "e2e", after_help = SWITCHES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Engine, node image and cluster: whatever is missing.
    Up,
    /// Delete the cluster and put the machine's settings back.
    Down,
    /// The clusters on this machine, and the nodes of this one.
    List,
    /// Compile Edict's static binaries and print the folder that they are in.
    Build,
    /// Build Edict's images and bring them to the nodes.
    Load,
    /// Up, load, and install Edict as its README says.
    Install,
    /// Install, apply the samples and show what they did on every node.
    Demo,
    /// Write what can be known about the cluster to target/e2e/dump.
    Dump,
    /// Print what to `eval` so that kubectl talks to the cluster.
    Env,
}

/// Does what the command line says.
pub async fn run() -> Result<()> {
    let Cli { verb } = Cli::parse();
    let settings = Settings::read()?;
    let _lock = match verb {
        Verb::Up | Verb::Down | Verb::Load | Verb::Install | Verb::Demo => {
            Some(lock(&settings).await?)
        }
        Verb::Build | Verb::List | Verb::Dump | Verb::Env => None,
    };
    match verb {
        Verb::Up => Cluster::up(&settings).await.map(drop),
        Verb::Down => down(&settings).await,
        Verb::List => list(&settings).await,
        Verb::Build => {
            println!("{}", image::build(&settings).await?.display());
            Ok(())
        }
        Verb::Load => {
            let cluster = Cluster::found(&settings).await?;
            let images = Images::build(&settings).await?;
            images.load(&*cluster.provider).await
        }
        Verb::Install => installed(&settings).await.map(drop),
        Verb::Demo => demo(&settings, &installed(&settings).await?).await,
        Verb::Dump => {
            let folder = settings.output().join("dump");
            dump(&Cluster::found(&settings).await?, &folder).await;
            println!("{}", folder.display());
            Ok(())
        }
        Verb::Env => {
            print_env(&Cluster::provider(&settings).await?.access());
            Ok(())
        }
    }
}

/// A cluster with Edict on it.
async fn installed(settings: &Settings) -> Result<Cluster> {
    let cluster = Cluster::up(settings).await?;
    let images = Images::build(settings).await?;
    images.load(&*cluster.provider).await?;
    install(settings, &cluster, &images).await?;
    Ok(cluster)
}

async fn down(settings: &Settings) -> Result<()> {
    let provider = Cluster::provider(settings).await?;
    let step = Step::begin(format!("cluster {}", settings.cluster));
    provider.delete().await?;
    step.done("gone");
    Ok(())
}

async fn list(settings: &Settings) -> Result<()> {
    let provider = Cluster::provider(settings).await?;
    for name in provider.list().await? {
        println!("{name}");
    }
    for (node, role) in provider.nodes().await? {
        println!("  {node}  {role:?}");
    }
    Ok(())
}

fn print_env(access: &Access) {
    println!("export KUBECONFIG='{}'", access.kubeconfig.display());
    println!("export PATH='{}'", access.path.to_string_lossy());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
