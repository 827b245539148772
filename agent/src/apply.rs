//! The agent itself: takes pushes, one at a time, and does them layer by layer, each layer in one
//! transaction.
//!
//! ```text
//! begin   originals and ledger on disk, marked open
//! commit  folders, temporary files, renames        (an error: all of it is put back)
//! end     layers and ledger on disk, not open
//! ```
//!
//! An agent that starts and finds an open transaction brings the files to what the layers in force
//! say, which takes back whatever the transaction had done.

mod dry;
mod error;
mod hold;
mod locate;
mod report;
mod round;
mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use edict_core::guard::Policy;
use edict_core::wire::{self, Event, Fence, Hello, Push, Refusal, Report};

use crate::commit;
use crate::host::Host;
use crate::state::{self, Hold, InForce, State, Store};
use round::Round;

pub use dry::{Change, Dry};

/// The agent of one node.
pub struct Agent {
    node: String,
    host: Box<dyn Host>,
    store: Store,
    /// Held by the push that is being done.
    turn: Mutex<()>,
    /// As it is on disk.
    state: Mutex<State>,
    /// The layers that are held, those included that could not be saved.
    holds: Mutex<BTreeMap<String, Hold>>,
    /// The greatest fence of an operator that was admitted. On disk only the first of each epoch is:
    /// what an operator has sent before does not outlive the agent that it was sent to.
    fence: Mutex<Fence>,
}

impl Agent {
    /// The agent of `node`. Finishes what an agent before it left half done.
    pub fn open(
        node: String,
        host: impl Host + 'static,
        store: Store,
    ) -> Result<Self, state::Error> {
        let agent = Self::idle(node, host, store)?;
        agent.tidy();
        let mut round = Round::new(&agent, Policy::default(), wire::VERSION);
        if let Err(error) = round.recover() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an interrupted change can't be put back yet; it is tried again with the next push"
            );
        }
        Ok(agent)
    }

    /// The agent of `node`, which has not looked at what an agent before it left half done: for
    /// [`Self::dry`] and [`Self::hello`], which write nothing.
    pub fn idle(
        node: String,
        host: impl Host + 'static,
        store: Store,
    ) -> Result<Self, state::Error> {
        let state = store.load()?;
        Ok(Self {
            node,
            host: Box::new(host),
            store,
            turn: Mutex::new(()),
            fence: Mutex::new(state.fence),
            holds: Mutex::new(state.holds.clone()),
            state: Mutex::new(state),
        })
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
        // Before the state, as where both are changed.
        let fence = *locked(&self.fence);
        let state = locked(&self.state);
        Hello {
            wire: wire::VERSION,
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            blocks: edict_core::config::Config::BLOCKS
                .iter()
                .map(ToString::to_string)
                .collect(),
            fence: Some(fence),
            layers: state.held(),
            // What was interrupted and is not mended yet is no state to rest in.
            report: state.report.clone().filter(|_| !state.open),
        }
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
        let _turn = locked(&self.turn);
        let report = Round::new(self, push.policy.clone(), push.wire).push(push, say);
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
        report
    }

    /// Finishes and clears away what a crash left behind. Nothing of it is needed to go on.
    fn tidy(&self) {
        if let Err(error) = commit::redo(&*self.host, &self.store) {
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
