//! Layers that are held: what could not be applied is not tried again until it changes or somebody
//! asks. The operator pushes what is wanted over and over; without this, a change that fails would
//! be made and put back for ever.
//!
//! Not held is what failed
//! * before anything of it was done: somebody's file that is no JSON, a state folder that can't be
//!   written. Looking again harms nothing, and ends by itself when the cause is mended;
//! * while an earlier change was not put back yet: neither can end then, whoever is to blame. Putting
//!   back is tried with every push, also where the layer that it is about is held.

use edict_core::guard::text::mask;
use edict_core::layer::Layer;
use edict_core::retry::advice;
use edict_core::wire::{HOLDS, LayerReport, Outcome};

use super::error::Error;
use super::locked;
use super::report::sentences;
use super::round::{INTERRUPTED, Round};
use crate::state::Hold;

impl Round<'_> {
    /// Whether the layer is held; then the report says so. A hold that is of another revision or
    /// another try is over.
    pub(super) fn is_held(&mut self, layer: &Layer, report: &mut LayerReport) -> bool {
        if self.wire < HOLDS {
            return false;
        }
        match self.state.holds.remove(&layer.uid) {
            Some(hold) if hold.is_of(layer) => {
                self.put_on_hold(layer, hold, report);
                true
            }
            _ => false,
        }
    }

    /// The layer could not be applied: says so, and holds it. `interrupted` says whether an earlier
    /// change was not put back when it was tried.
    pub(super) fn failed(
        &mut self,
        layer: &Layer,
        error: &Error,
        interrupted: bool,
        report: &mut LayerReport,
    ) {
        let message = self.tell(&layer.name, error);
        if self.wire >= HOLDS && !interrupted && error.was_begun() {
            let why = mask(&error.once_put_back()).into_owned();
            self.put_on_hold(layer, Hold::new(layer, &why), report);
        }
        report.outcome = Outcome::Failed;
        // What is held can be said when everything is put back, and not before.
        if !report.held {
            report.message = message;
        }
    }

    fn put_on_hold(&mut self, layer: &Layer, hold: Hold, report: &mut LayerReport) {
        let why = hold.message.clone();
        self.state.holds.insert(layer.uid.clone(), hold);
        let unsaved = self.save_holds();
        report.outcome = Outcome::Failed;
        report.held = !self.state.open;
        report.message = if report.held {
            sentences([why, advice(&layer.name), unsaved])
        } else {
            INTERRUPTED.to_owned()
        };
    }

    /// Saves the holds, and says why they can't be; then they last as long as this agent.
    fn save_holds(&mut self) -> String {
        if locked(&self.agent.state).holds == self.state.holds {
            return String::new();
        }
        let Err(error) = self.save(self.state.clone()) else {
            return String::new();
        };
        locked(&self.agent.holds).clone_from(&self.state.holds);
        let sentence = format!("an agent that starts anew tries again, since {error}");
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "what is held can't be kept on disk");
        sentence
    }
}
