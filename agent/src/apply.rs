//! The agent itself: takes pushes, one at a time, and does them layer by layer, each layer in one
//! transaction.
//!
//! ```text
//! begin   originals and ledger on disk, marked open
//! commit  folders, temporary files, renames        (an error: all of it is put back)
//! activating  written down with the end that is meant, before a unit is told anything
//! told    units are reloaded or restarted, and watched  (one that fails: all of it is put back)
//! probed  what the NodeConfig probes holds             (the same)
//! end     layers and ledger on disk, not open
//! ```
//!
//! An agent that starts and finds an open transaction brings the files to what the layers in force
//! say, which takes back whatever the transaction had done. Where units were being told already it goes
//! on with that: a restart of the container runtime may have been what ended the agent before it.

mod activate;
mod command;
mod drift;
mod dry;
mod due;
mod error;
mod firewall;
mod hold;
mod locate;
mod modules;
mod probe;
mod recover;
mod report;
mod round;
mod setting;
mod transact;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

use edict_core::config::{Config, probes};
use edict_core::guard::Policy;
use edict_core::wire::{self, Event, Fence, Hello, Push, Refusal, Report};

use crate::command::{Commands, InForce as Revisions};
use crate::commit;
use crate::drift::Drifts;
use crate::host::{Host, Live};
use crate::state::{self, Hold, InForce, State, Store};
use crate::units::Manager;
use crate::watch::Waker;
use firewall::Refused;
use firewall::probation::Probations;
use round::Round;
use tokio::sync::watch;

pub use dry::{Change, Dry};

/// The agent of one node.
pub struct Agent {
    node: String,
    host: Live,
    /// Who tells units that what they read has changed.
    manager: Manager,
    /// The host's own address, for probes, where it is known.
    address: Option<IpAddr>,
    /// Whether the operator still reaches the host.
    probations: Probations,
    /// What the cluster knows of its addresses, where that has kept it out.
    refused: Mutex<Vec<Refused>>,
    /// Whether a host that starts now is told to leave the firewall alone.
    on_trial: AtomicBool,
    /// Whether this host may have started so: what is in force has yet to be loaded.
    unloaded: AtomicBool,
    store: Store,
    /// Held by the push that is being done.
    turn: Mutex<()>,
    /// As it is on disk.
    state: Mutex<State>,
    /// The layers that are held, those included that could not be saved.
    holds: Mutex<BTreeMap<String, Hold>>,
    /// What was, is or will be run, as it is on disk.
    commands: Mutex<Commands>,
    /// The layers that the last push named and that may run something; none before the first one.
    named: Mutex<Option<Revisions>>,
    /// What is known of changes by others.
    drifts: Mutex<Drifts>,
    /// How often that has changed, or what became of a command, for whoever waits for it.
    count: watch::Sender<u64>,
    /// Who looks for such changes, if anybody does.
    waker: OnceLock<Waker>,
    /// Who runs commands, if anybody does.
    runner: OnceLock<Thread>,
    /// The greatest fence of an operator that was admitted. On disk only the first of each epoch is:
    /// what an operator has sent before does not outlive the agent that it was sent to.
    fence: Mutex<Fence>,
}

impl Agent {
    /// The agent of `node`. Finishes what an agent before it left half done. `address` is where what runs on
    /// the host is found: the node's own address from the network of a pod. Where it is not known, the agent
    /// knows no probes.
    pub fn open(
        node: String,
        host: impl Host,
        manager: Manager,
        store: Store,
        address: Option<IpAddr>,
    ) -> Result<Self, state::Error> {
        let agent = Self {
            address,
            ..Self::idle(node, host, manager, store)?
        };
        agent.tidy();
        let mut round = Round::new(&agent, Policy::default(), wire::VERSION);
        if let Err(error) = round.recover() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what an interrupted change has left can't be mended yet; it is tried again"
            );
        }
        round.look_after_pending();
        round.settle_debts();
        agent.end_trial();
        Ok(agent)
    }

    /// The agent of `node`, which has not looked at what an agent before it left half done: for
    /// [`Self::dry`] and [`Self::hello`], which write nothing.
    pub fn idle(
        node: String,
        host: impl Host,
        manager: Manager,
        store: Store,
    ) -> Result<Self, state::Error> {
        let state = store.load()?;
        let commands = store.commands()?;
        let on_trial = store.is_on_trial()?;
        Ok(Self {
            node,
            host: Live::over(Box::new(host), manager.clone()),
            manager,
            address: None,
            probations: Probations::default(),
            refused: Mutex::default(),
            on_trial: AtomicBool::new(on_trial),
            unloaded: AtomicBool::new(on_trial),
            store,
            turn: Mutex::new(()),
            commands: Mutex::new(commands),
            named: Mutex::default(),
            drifts: Mutex::default(),
            count: watch::Sender::default(),
            waker: OnceLock::new(),
            runner: OnceLock::new(),
            fence: Mutex::new(state.fence),
            holds: Mutex::new(state.holds.clone()),
            state: Mutex::new(state),
        })
    }

    /// An operator has reached the node by a new connection, or says why not yet. Whether that is waited for.
    pub fn confirm(&self, mark: &str, why_not: Option<String>) -> bool {
        self.probations.confirm(mark, why_not)
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether a change was begun on this node and neither ended nor taken back.
    pub fn is_interrupted(&self) -> bool {
        locked(&self.state).open
    }

    /// Who the agent is and what it has.
    pub fn hello(&self) -> Hello {
        // Counted when a look is over, as for those who wait.
        let count = *self.count.borrow();
        let list = locked(&self.drifts).list();
        let commands = self.commands();
        let drifts = wire::Drifts { count, list };
        // What waits for an operator's word is no state to rest in either.
        let waits = self.runner.get().is_some() && self.awaits_push();
        // Before the state, as where both are changed.
        let fence = *locked(&self.fence);
        let state = locked(&self.state);
        Hello {
            wire: wire::VERSION,
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            blocks: self.known(),
            fence: Some(fence),
            layers: state.held(),
            // What was interrupted and is not mended yet is no state to rest in.
            report: state.report.clone().filter(|_| !state.open && !waits),
            drifts: Some(drifts),
            plans: true,
            commands,
            probations: Some(self.probations.counted()),
        }
    }

    /// Everything that this agent knows: a pod that an older operator made has not been told the node's address.
    fn known(&self) -> Vec<String> {
        let mut known = Config::known();
        known.retain(|name| self.address.is_some() || name != probes::NAME);
        known
    }

    /// How often what is known of changes by others has changed.
    pub fn drifts(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Has `waker` woken whenever what is in force may have changed.
    pub(crate) fn wakes(&self, waker: Waker) {
        // One watcher is enough: it stays the first one.
        let _ = self.waker.set(waker);
    }

    /// The paths that somebody else might change.
    pub fn watched(&self) -> BTreeSet<String> {
        let resolution = state::resolution(&locked(&self.state).layers);
        let paths = resolution.files.into_keys();
        paths.chain(resolution.keys.into_keys()).collect()
    }

    /// Why a push is refused before anything of it is done.
    pub fn refuse(&self, push: &Push) -> Option<Refusal> {
        wire::refuse(push, &self.node).or_else(|| {
            let mut named = BTreeSet::new();
            let layers = push.layers.iter().map(|layer| (&layer.uid, &layer.name));
            let releases = push
                .releases
                .iter()
                .map(|leaves| (&leaves.uid, &leaves.name));
            let twice = layers.chain(releases).find(|(uid, _)| !named.insert(*uid));
            let refusal = |name| format!("layer {name} is named more than once");
            twice.map(|(_, name)| Refusal::new("BadMessage", refusal(name)))
        })
    }

    /// Why a push is refused when its turn has come: another operator leads since. One that is
    /// admitted refuses all before it, also those that an agent after this one gets.
    pub fn admit(&self, push: &Push) -> Option<Refusal> {
        let mut seen = locked(&self.fence);
        if let Some(refusal) = wire::refuse_fence(push.fence, *seen) {
            return Some(refusal);
        }
        let fence = push.fence?;
        if fence.epoch > seen.epoch {
            let mut state = locked(&self.state);
            let next = State {
                fence,
                ..state.clone()
            };
            if let Err(error) = self.store.save(&next) {
                let message = format!("the fence can't be kept: {error}");
                return Some(Refusal::new("Failed", message));
            }
            *state = next;
            tracing::info!(epoch = fence.epoch, "another operator leads");
        }
        *seen = fence;
        None
    }

    /// Does a push, and says what it does. Another one waits until it is done.
    pub fn push(&self, push: &Push, say: &mut dyn FnMut(Event)) -> Report {
        self.push_with(push, say, None)
    }

    /// The same for an operator that can say, with [`Self::confirm`], that it reaches this node. `gone` says when
    /// it no more can.
    pub fn push_for(
        &self,
        push: &Push,
        say: &mut dyn FnMut(Event),
        gone: &dyn Fn() -> bool,
    ) -> Report {
        self.push_with(push, say, Some(gone))
    }

    fn push_with(
        &self,
        push: &Push,
        say: &mut dyn FnMut(Event),
        gone: Option<&dyn Fn() -> bool>,
    ) -> Report {
        let _turn = locked(&self.turn);
        let before = self.commands();
        if let Err(error) = self.expect_commands(push) {
            // They are no part of what is known then, and are expected again with the next push.
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the commands can't be kept");
        }
        let say = RefCell::new(say);
        let tell = |event| (say.borrow_mut())(event);
        let mut round = Round::new(self, push.policy.clone(), push.wire);
        round.gone = gone;
        let report = round.push(push, &tell);
        drop(round);
        let say = say.into_inner();
        let (layers, releases, settled) = (
            report.layers.len(),
            report.releases.len(),
            report.is_settled(),
        );
        tracing::info!(
            digest = report.digest,
            layers,
            releases,
            settled,
            "push done"
        );
        say(Event::Done(report.clone()));
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        self.wake_runner();
        if self.commands() != before {
            self.tell();
        }
        report
    }

    fn wake_runner(&self) {
        if let Some(runner) = self.runner.get() {
            runner.unpark();
        }
    }

    /// Runs commands as they come, in a thread of its own.
    pub fn start_running(self: &Arc<Self>) -> std::io::Result<()> {
        let agent = self.clone();
        let runner = thread::Builder::new().name("commands".to_owned());
        let runner = runner.spawn(move || agent.keep_running())?;
        // One is enough: it stays the first one.
        let _ = self.runner.set(runner.thread().clone());
        Ok(())
    }

    /// Has whoever waits for it know that there is something new.
    fn tell(&self) {
        let mut drifts = locked(&self.drifts);
        drifts.count += 1;
        self.count.send_replace(drifts.count);
    }

    /// A host that starts from now on leaves the firewall alone: the table on trial may keep it from its cluster.
    fn begin_trial(&self) -> Result<(), state::Error> {
        // It is there, or may be.
        self.on_trial.store(true, Ordering::Relaxed);
        self.store.begin_trial()
    }

    /// A host that starts loads the firewall, once nothing of it is on trial any more.
    fn end_trial(&self) {
        if !self.on_trial.load(Ordering::Relaxed) {
            return;
        }
        let state = locked(&self.state);
        let is_over = !state.open && state.unproven().is_none();
        drop(state);
        if !is_over || !self.on_trial.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.store.end_trial() {
            self.on_trial.store(true, Ordering::Relaxed);
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "this host would start without its firewall");
        }
    }

    /// Finishes and clears away what a crash left behind. Nothing of it is needed to go on.
    fn tidy(&self) {
        if let Err(error) = commit::redo(&self.host, &self.store) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                "a file that was being written in place is unfinished"
            );
        }
        let state = locked(&self.state);
        let held = state.layers.values().flat_map(InForce::touches);
        let folders: BTreeSet<_> = held
            .chain(state.ledger.paths().cloned())
            .filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned()))
            .collect();
        for folder in folders {
            if let Err(error) = self.host.sweep(&folder) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, folder, "temporary files can't be looked for");
            }
        }
    }
}

/// A panic in a push leaves nothing half done in memory: that is only ever replaced as a whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
