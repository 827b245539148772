//! What an agent before this one left half done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use edict_core::config::firewall::TABLE;
use edict_core::layer::DeletionPolicy;
use edict_core::resource::Action;

use super::activate::{Failure, Orders};
use super::error::Error;
use super::round::Round;
use super::transact::{Way, put_back};
use crate::host::Host as _;
use crate::plan::{Facts, plan};
use crate::state::{Hold, Pending, State, Told, resolution};
use crate::units::Shown;

/// What became of a change that an agent before this one was making live.
enum Resumed {
    /// It is in force.
    Ended,
    /// The files are no more what the units were told of, or there is nobody to ask.
    Astray,
    /// A unit does not run with it.
    Failed(Failure),
}

impl Round<'_> {
    /// Mends what an agent before this one left half done.
    pub(super) fn recover(&mut self) -> Result<(), Error> {
        if self.state.open {
            self.take_back()?;
        }
        self.load_again()
    }

    /// Whether something of that is left.
    pub(super) fn is_unfinished(&self) -> bool {
        self.state.open || self.agent.unloaded.load(Ordering::Relaxed)
    }

    /// Takes back what an interrupted transaction did, by doing what the layers in force say.
    fn take_back(&mut self) -> Result<(), Error> {
        if self.overlay.is_none() {
            // What is found as it should be may be so in memory only.
            let safe = self.agent.host.sync_all();
            safe.map_err(Error::Sync)?;
        }
        let mut next = State {
            activating: None,
            ..self.state.clone()
        };
        let mut concerned = BTreeMap::new();
        if let Some(activating) = self.state.activating.clone()
            && self.overlay.is_none()
        {
            if let Some(goal) = &activating.told {
                match self.resume(&activating.units, goal)? {
                    Resumed::Ended => return Ok(()),
                    Resumed::Astray => {}
                    Resumed::Failed(failure) => {
                        if let Some(held) = goal.end.layers.get(&goal.layer) {
                            let hold = Hold::new(&held.layer, &put_back(&failure));
                            next.holds.insert(goal.layer.clone(), hold);
                        }
                    }
                }
            }
            concerned = self.misled(activating.units);
        }
        tracing::info!("taking back an interrupted change");
        self.agent.probations.count();
        let everything: BTreeSet<_> = self.state.ledger.paths().cloned().collect();
        let changed = self.transact(
            next,
            everything,
            DeletionPolicy::Restore,
            &Way::Back(concerned),
        )?;
        for sorry in changed.sorry {
            tracing::error!(sorry, "a unit does not run with what was there before");
        }
        Ok(())
    }

    /// Has the kernel load the firewall in force, where the host has left that to this agent: something was on trial by
    /// its disk, and nothing is to be taken back of it. Where it fails, each later look and push tries it again; the
    /// mark of the trial is gone by then, so that a host that starts anew needs no agent for it.
    fn load_again(&mut self) -> Result<(), Error> {
        let waits = self.agent.unloaded.load(Ordering::Relaxed);
        if !waits || self.overlay.is_some() || self.state.open {
            return Ok(());
        }
        // What is unproven waits for a push of its own.
        if self.state.unproven().is_none() {
            // Who looked at the node before has seen it without.
            self.agent.probations.count();
            let touched = BTreeSet::from([TABLE.to_owned()]);
            let way = Way::Back(BTreeMap::new());
            let next = self.state.clone();
            self.transact(next, touched, DeletionPolicy::Restore, &way)?;
        }
        self.agent.unloaded.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The units of an interrupted change, without the marks of those that may have read what it wrote:
    /// they were told, or started, since its first file changed.
    fn misled(&self, mut units: BTreeMap<String, Pending>) -> BTreeMap<String, Pending> {
        for (name, unit) in &mut units {
            let manager = self.agent.manager.units();
            let shown = manager.and_then(|manager| manager.show(name).ok());
            // What systemd has reread leaves no mark.
            let mark = unit.mark.take().filter(|_| unit.action > Action::Reread);
            unit.mark = mark
                .zip(shown)
                .filter(|(mark, shown)| !shown.mark.shows(Action::Reload, mark))
                .map(|(mark, _)| mark);
        }
        units
    }

    /// Goes on where an agent ended that was telling units: that may be why it did.
    fn resume(&mut self, units: &BTreeMap<String, Pending>, goal: &Told) -> Result<Resumed, Error> {
        let end = &goal.end;
        let touched: BTreeSet<_> = end.ledger.paths().cloned().collect();
        let seen = self.look(&touched)?;
        let originals = self.originals(&touched)?;
        let facts = Facts {
            seen: &seen,
            ledger: &end.ledger,
            originals: &originals,
            owner: self.agent.host.owner(),
            layer: None,
        };
        let wanted = resolution(&end.layers);
        let plan = plan(&wanted, &touched, facts, DeletionPolicy::Restore);
        let Some(manager) = self.agent.manager.units() else {
            return Ok(Resumed::Astray);
        };
        // Nobody hears this agent yet, so nobody could say that the node is reached: with the next push it is
        // tried anew. A firewall that waits for its turn is not loaded, and no matter here.
        let on_trial = end.unproven().is_some() && end.ledger.files.contains_key(TABLE);
        if !plan.is_ok_and(|plan| plan.is_idle()) || on_trial {
            return Ok(Resumed::Astray);
        }
        tracing::info!("going on with an interrupted change");
        let orders = Orders {
            unit_files: true,
            units: units.clone(),
            ..Orders::default()
        };
        let told = |before: &Pending, now: &Shown| match (before.action, &before.mark) {
            // Once more does no harm, and can't have been what ended the agent.
            (Action::Reread | Action::Reload, _) | (_, None) => false,
            (Action::Restart, Some(mark)) => now.mark.shows(Action::Restart, mark),
        };
        let probes = self.probes(&goal.layer, end, &orders);
        let carried = orders.carry_out(manager, &told);
        if let Err(failure) = carried.and_then(|()| self.probe(probes)) {
            return Ok(Resumed::Failed(failure));
        }
        self.save(State {
            report: self.state.report.clone(),
            fence: self.state.fence,
            ..(**end).clone()
        })?;
        Ok(Resumed::Ended)
    }

    /// Forgets the units that wait no more: somebody told them.
    pub(super) fn look_after_pending(&mut self) {
        let Some(units) = self.agent.manager.units() else {
            return;
        };
        self.state.pending.retain(|unit, pending| {
            let Some(mark) = &pending.mark else {
                return true;
            };
            match units.show(unit) {
                Ok(shown) => shown.needs(pending.action) && !shown.mark.shows(pending.action, mark),
                Err(_) => true,
            }
        });
    }

    /// Tells the units that an agent before this one did not come to tell.
    pub(super) fn settle_debts(&mut self) {
        let Some(units) = self.agent.manager.units() else {
            return;
        };
        if self.overlay.is_some() || !self.state.pending.values().any(|unit| unit.owed) {
            return;
        }
        let mut next = self.state.clone();
        let units_owed = next.pending.extract_if(.., |_, pending| pending.owed);
        let orders = Orders {
            unit_files: true,
            units: units_owed.collect(),
            ..Orders::default()
        };
        for sorry in orders.carry_back(units) {
            tracing::error!(sorry, "a unit does not run with what was there before");
        }
        if let Err(error) = self.save(next) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "units that were told may be told again");
        }
    }
}
