//! A host without a cluster: for trying, for tests, and for building images.
//!
//! The same agent as on a node does the work; what an operator would push is made of manifests.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done; `plan`: nothing would change |
//! | 1 | an error, or something was refused, failed or is not read; what it was is said |
//! | 2 | the command line makes no sense |
//! | 3 | `plan`: something would change |

mod manifest;
mod output;

use std::fs;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use edict_core::guard::Policy;
use edict_core::wire::{CommandReport, Push, Release, Report};

use crate::apply::Agent;
use crate::args::{Local, Manifests, Restore};
use crate::host::Rooted;
use crate::host::mount::MountInfo;
use crate::state::Store;
use crate::systemd::Systemd;
use crate::units::Manager;
use manifest::Wanted;

/// What the host is called where nobody has a name for it.
const HERE: &str = "this host";
/// Where the state folder is under a root.
const STATE: &str = "var/lib/edict";
/// Where a host's own systemd is.
const SYSTEMD: &str = "/run/systemd";
/// What units of that systemd say is here for a moment, and gone with the next start: who only plans makes
/// no state folder.
const SHARED: &str = "/run/edict";
/// Something was refused or failed.
const NOT_ALL: u8 = 1;
/// Something would change.
const CHANGES: u8 = 3;

/// Says what would change.
pub fn plan(args: &Manifests) -> anyhow::Result<ExitCode> {
    let wanted = wanted(&args.files)?;
    let place = Place::of(&args.local)?;
    let (agent, _scratch) = place.reader()?;
    let dry = agent.dry(&wanted.push(&agent.hello().layers))?;
    let dry = dry.context("this agent is at work")?;
    output::plan(&dry.planned(), args.local.output)?;
    let nothing = dry.changes.is_empty() && dry.units.is_empty() && dry.commands.is_empty();
    Ok(if !dry.report.is_settled() {
        NOT_ALL.into()
    } else if nothing {
        ExitCode::SUCCESS
    } else {
        CHANGES.into()
    })
}

/// Applies.
pub fn apply(args: &Manifests) -> anyhow::Result<ExitCode> {
    let wanted = wanted(&args.files)?;
    wanted.is_enforced()?;
    let agent = Place::of(&args.local)?.agent()?;
    let push = wanted.push(&agent.hello().layers);
    done(&agent, &push, &[], &args.local)
}

/// Gives back.
pub fn restore(args: &Restore) -> anyhow::Result<ExitCode> {
    let named = if args.files.is_empty() {
        Wanted::default()
    } else {
        wanted(&args.files)?
    };
    let agent = Place::of(&args.local)?.agent()?;
    let in_force = agent.hello().layers;
    let absent: Vec<_> = named
        .names()
        .filter(|name| !in_force.iter().any(|held| held.name == *name))
        .map(ToOwned::to_owned)
        .collect();
    let leaving = in_force
        .into_iter()
        .filter(|held| args.files.is_empty() || named.names().any(|name| name == held.name));
    let releases = leaving.map(|held| Release {
        policy: named.policy_of(&held.name).unwrap_or(held.deletion_policy),
        uid: held.uid,
        name: held.name,
    });
    let push = Push::new(
        HERE.to_owned(),
        Policy::default(),
        Vec::new(),
        releases.collect(),
    );
    done(&agent, &push, &absent, &args.local)
}

/// Says what is in force.
pub fn status(args: &Local) -> anyhow::Result<ExitCode> {
    let (agent, _scratch) = Place::of(args)?.reader()?;
    let hello = agent.hello();
    output::status(&hello, agent.is_interrupted(), args.output)?;
    Ok(if agent.is_interrupted() {
        NOT_ALL.into()
    } else {
        code(&hello.report.unwrap_or_default(), &hello.commands)
    })
}

fn done(agent: &Agent, push: &Push, absent: &[String], local: &Local) -> anyhow::Result<ExitCode> {
    let report = agent.push(push, &mut |_| {});
    agent.run_commands();
    let commands = agent.commands();
    output::report(&report, &commands, absent, local.output)?;
    anyhow::ensure!(
        !agent.is_interrupted(),
        "a change that was interrupted can't be taken back yet: mend what is said above, and try again"
    );
    // What others that are in force ran before is shown, and no matter of this one's.
    let own = |one: &CommandReport| push.layers.iter().any(|layer| layer.uid == one.uid);
    let commands: Vec<_> = commands.into_iter().filter(own).collect();
    Ok(code(&report, &commands))
}

fn code(report: &Report, commands: &[CommandReport]) -> ExitCode {
    let failed = |one: &CommandReport| one.outcome.has_failed();
    if report.is_settled() && !commands.iter().any(failed) {
        ExitCode::SUCCESS
    } else {
        NOT_ALL.into()
    }
}

/// What the files ask for. There has to be a NodeConfig in them.
fn wanted(files: &[PathBuf]) -> anyhow::Result<Wanted> {
    let mut texts = Vec::new();
    for file in files {
        let text = if file == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            fs::read_to_string(file)
        };
        let name = file.display().to_string();
        let text = text.with_context(|| format!("cannot read {name}"))?;
        texts.push((name, text));
    }
    let wanted = Wanted::read(&texts)?;
    anyhow::ensure!(
        wanted.names().next().is_some(),
        "there is no NodeConfig in what was given"
    );
    Ok(wanted)
}

/// Where a host's files are.
struct Place {
    etc: PathBuf,
    state: PathBuf,
}

impl Place {
    fn of(local: &Local) -> anyhow::Result<Self> {
        let given = local.root.display();
        let root = local.root.canonicalize();
        let root = root.ok().filter(|root| root.is_dir()).with_context(|| {
            format!("--root {given} is no folder: it is to be the host's root, with etc in it")
        })?;
        let etc = within(&root, "etc")?;
        let state = match &local.state {
            // systemd is told where programs leave what they say.
            Some(state) => std::path::absolute(state).context("--state")?,
            None => within(&root, STATE)?,
        };
        Ok(Self { etc, state })
    }

    fn host(&self) -> anyhow::Result<Rooted> {
        let named = || format!("{} can't be used", self.etc.display());
        let mounts = MountInfo::new(&self.etc).with_context(named)?;
        Rooted::open(&self.etc, mounts).with_context(named)
    }

    /// Who is told what has changed: nobody in an image.
    fn manager(&self) -> Manager {
        let own = self.etc == Path::new("/etc");
        let systemd = own.then(|| Systemd::find(Path::new(SYSTEMD), Path::new(SHARED)));
        systemd.flatten().unwrap_or(Manager::Offline)
    }

    /// The agent of the host, which has finished what was left half done.
    fn agent(&self) -> anyhow::Result<Agent> {
        let state = self.state.display();
        let named = || format!("{state} can't be used");
        // Folders get the permissions that they are made with.
        rustix::process::umask(rustix::fs::Mode::empty());
        let host = self.host()?;
        if let Some(above) = self.state.parent() {
            let mut folders = fs::DirBuilder::new();
            folders.recursive(true).mode(0o755);
            folders.create(above).with_context(named)?;
        }
        // The state folder is root's alone: one that is somebody else's is not made so.
        anyhow::ensure!(
            !Store::is_foreign(&self.state),
            "{state} has something in it and is no state folder of Edict: name an empty one, or one \
             that is not there yet"
        );
        let store = Store::open(&self.state).with_context(named)?;
        Ok(Agent::open(
            HERE.to_owned(),
            host,
            self.manager(),
            store,
            Some(Ipv4Addr::LOCALHOST.into()),
        )?)
    }

    /// An agent that writes nothing, and what it needs for as long as it is there.
    fn reader(&self) -> anyhow::Result<(Agent, Option<tempfile::TempDir>)> {
        let named = || format!("{} can't be used", self.state.display());
        let (store, scratch) = match Store::open_read(&self.state).with_context(named)? {
            Some(store) => (store, None),
            None => {
                let scratch = tempfile::tempdir().context("no temporary folder")?;
                (Store::open(scratch.path())?, Some(scratch))
            }
        };
        let agent = Agent::idle(HERE.to_owned(), self.host()?, self.manager(), store)?;
        Ok((agent, scratch))
    }
}

/// A path under a root, which no symlink on the way leads out of.
fn within(root: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let whole = root.join(path);
    let there = whole
        .ancestors()
        .find_map(|above| above.canonicalize().ok());
    anyhow::ensure!(
        there.is_some_and(|there| there.starts_with(root)),
        "{} is, or is behind, a symlink that leads out of the root: make it a folder",
        whole.display()
    );
    Ok(whole)
}
