//! One push under way: releases and layers, each one transaction.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::{iter, mem};

use edict_core::config::firewall::TABLE;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, digest};
use edict_core::resolve::Resolution;
use edict_core::resource::{Action, Unit};
use edict_core::wire::{
    Event, LayerReport, Outcome, Push, Release, ReleaseReport, Report, Written,
};

use super::dry::{Over, Overlay};
use super::error::Error;
use super::firewall::Addressed;
use super::transact::Way;
use super::{Agent, locate, locked, modules, report, setting};
use crate::host::{View, is_setting};
use crate::state::{self, InForce, State, resolution};
use crate::units::{Active, Shown};

/// What is said of a layer whose digest is another one's.
const OTHER_DIGEST: &str = "the digest is not that of the configuration: was it changed on its way, or \
    made by another release?";

/// What is said of a layer while the node is not as it was before a change that failed.
pub(super) const INTERRUPTED: &str = "an interrupted change of this node is not taken back yet";

/// One push under way.
pub(super) struct Round<'a> {
    pub(super) agent: &'a Agent,
    policy: Policy,
    /// The wire version of whoever pushes.
    pub(super) wire: u32,
    pub(super) state: State,
    /// How each file was written in this round.
    pub(super) written: BTreeMap<String, Written>,
    /// Takes every write, where nothing is to be written.
    pub(super) overlay: Option<Overlay>,
    /// What units would be told, where nobody is.
    pub(super) orders: BTreeMap<String, Action>,
    /// Who hears what is done, as it is.
    pub(super) say: &'a dyn Fn(Event),
    /// Whether the operator is gone that could say that it reaches this node, where there is one.
    pub(super) gone: Option<&'a dyn Fn() -> bool>,
    /// Whether the operator knows by which ways it has reached this node.
    pub(super) is_looked_at: bool,
    /// What a plan says of others that keep somebody out, once that was asked.
    pub(super) kept_out: OnceCell<Option<String>>,
    /// What is reported of all before the last layer.
    so_far: Option<Report>,
    /// The same with the last one as it is expected to be: it is saved along with its end.
    pub(super) expected: Option<Report>,
}

impl<'a> Round<'a> {
    pub(super) fn new(agent: &'a Agent, policy: Policy, wire: u32) -> Self {
        Self {
            agent,
            policy,
            wire,
            state: State {
                holds: locked(&agent.holds).clone(),
                ..locked(&agent.state).clone()
            },
            written: BTreeMap::new(),
            overlay: None,
            orders: BTreeMap::new(),
            say: &|_| {},
            gone: None,
            is_looked_at: true,
            kept_out: OnceCell::new(),
            so_far: None,
            expected: None,
        }
    }

    /// Does a push, but for saying that it is done.
    pub(super) fn push(&mut self, push: &Push, say: &'a dyn Fn(Event)) -> Report {
        self.say = say;
        let counted = self.agent.probations.counted();
        self.is_looked_at = push.probations.is_none_or(|seen| seen == counted) && !self.state.open;
        if let Err(error) = self.recover() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what an interrupted change has left can't be mended yet"
            );
        }
        self.look_after_pending();
        self.settle_debts();
        let mut report = Report {
            digest: push.digest.clone(),
            ..Report::default()
        };
        for release in &push.releases {
            let released = self.release(release);
            say(Event::Released(released.clone()));
            report.releases.push(released);
        }
        let mut layers: Vec<_> = push.layers.iter().collect();
        layers.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
        let last = layers.len().saturating_sub(1);
        for (number, layer) in layers.into_iter().enumerate() {
            self.so_far = (number == last).then(|| report.clone());
            let applied = self.layer(layer);
            say(Event::Layer(applied.clone()));
            report.layers.push(applied);
        }
        self.finish(&mut report);
        report
    }

    fn release(&mut self, release: &Release) -> ReleaseReport {
        let Release { uid, name, policy } = release.clone();
        let mut report = ReleaseReport {
            uid,
            name,
            done: true,
            message: String::new(),
            foreign: Vec::new(),
        };
        let mut next = self.state.clone();
        next.holds.remove(&release.uid);
        let Some(leaves) = next.layers.remove(&release.uid) else {
            if self.state.open {
                report.done = false;
                report.message.push_str(INTERRUPTED);
            } else if next != self.state
                && let Err(error) = self.save(next)
            {
                report.done = false;
                report.message = self.tell(&release.name, &error.into());
            }
            return report;
        };
        match self.transact(next, leaves.touches(), policy, &Way::Back(BTreeMap::new())) {
            Ok(changed) => {
                let waits = report::reading(&leaves.resources(), &|read| {
                    changed.written.contains_key(&read.path)
                });
                let waits = self.waiting(waits);
                report.message = report::sentences(
                    [report::left_alone(&changed)]
                        .into_iter()
                        .chain(changed.sorry)
                        .chain(waits.iter().map(|unit| self.waits(unit))),
                );
                report.foreign = [changed.foreign, changed.refused].concat();
            }
            Err(error) => {
                report.done = false;
                report.message = self.tell(&release.name, &error);
            }
        }
        report
    }

    fn layer(&mut self, layer: &Layer) -> LayerReport {
        let mut report = LayerReport {
            uid: layer.uid.clone(),
            name: layer.name.clone(),
            digest: layer.digest.clone(),
            in_force: None,
            outcome: Outcome::Refused,
            held: false,
            message: String::new(),
            violations: layer.check(&self.policy),
            conflicts: Vec::new(),
            pending: Vec::new(),
            restart: false,
        };
        let Addressed { layer, said, why } = self.with_facts(layer);
        if said.is_some() {
            // What is said is not foreseen.
            self.so_far = None;
        }
        let layer = &*layer;
        if layer.digest != digest(&layer.config, &layer.contents) {
            report.message.push_str(OTHER_DIGEST);
        } else if let Some(why) = why.or_else(|| self.lacks(layer)) {
            report.outcome = Outcome::Failed;
            report.message = why;
        } else if report.violations.is_empty() && !self.is_held(layer, &mut report) {
            let ledger = &self.state.ledger;
            let located = self.on_host(|host| locate::locate(host, ledger, layer, &self.policy));
            match located {
                Err(error) => {
                    report.outcome = Outcome::Failed;
                    report.message = error.to_string();
                }
                Ok(located) if !located.violations.is_empty() => {
                    report.violations = located.violations;
                }
                Ok(located) => self.apply(layer, located.paths, &mut report),
            }
        }
        if report.message.is_empty() && !report.violations.is_empty() {
            report.message = report::refused(&report.violations);
        }
        report.message = report::sentences(iter::once(report.message).chain(said));
        self.complete(&mut report, &resolution(&self.state.layers));
        report
    }

    fn apply(
        &mut self,
        layer: &Layer,
        mut paths: BTreeMap<String, String>,
        report: &mut LayerReport,
    ) {
        if !self.on_host(|host| host.is_live())
            && let Some(before) = self.state.layers.get(&layer.uid)
        {
            // What was set is not forgotten because nobody can be asked any more.
            let set = before.paths.iter().filter(|(path, _)| is_setting(path));
            paths.extend(set.map(|(path, real)| (path.clone(), real.clone())));
        }
        let held = InForce {
            layer: Layer {
                // Asking for another try changes nothing where none is needed.
                retry: None,
                ..layer.clone()
            },
            paths,
        };
        let interrupted = self.state.open;
        let before = self.state.layers.get(&layer.uid);
        let same = before.filter(|before| before.layer.digest == layer.digest);
        if same.is_none()
            && let Err(error) = self.has_modules(&held)
        {
            self.failed(layer, &error, interrupted, report);
            return;
        }
        // What somebody else has changed meanwhile may be only said.
        let is_left =
            !layer.drift.is_correct() && same.is_some_and(|same| same.paths == held.paths);
        let mut touched = BTreeSet::new();
        if !is_left {
            touched.extend(held.touches());
            touched.extend(before.into_iter().flat_map(InForce::touches));
        }
        if (self.state.unproven()).is_some_and(|(waits, _)| waits.uid == layer.uid) {
            // It was taken out, and by nobody else.
            touched.insert(TABLE.to_owned());
        }
        let mut next = self.state.clone();
        next.layers.insert(layer.uid.clone(), held);
        next.holds.remove(&layer.uid);
        // What a new revision leaves out is given back; the policy is for the layer as a whole.
        self.expected = self.so_far.take().map(|mut so_far| {
            so_far.layers.push(LayerReport {
                outcome: Outcome::Applied,
                ..report.clone()
            });
            so_far
        });
        let way = Way::Forward(layer.uid.clone());
        match self.transact(next, touched, DeletionPolicy::Restore, &way) {
            Ok(changed) => {
                report.outcome = Outcome::Applied;
                report.message = report::left_alone(&changed);
            }
            Err(error) => self.failed(layer, &error, interrupted, report),
        }
    }

    /// That the kernel has the modules that a new revision brings in and that are to be loaded now. systemd
    /// only logs it where it has not.
    fn has_modules(&self, held: &InForce) -> Result<(), Error> {
        let Some(units) = self.agent.manager.units() else {
            return Ok(());
        };
        let resources = held.resources();
        let names = modules::named(&resources);
        if names.is_empty() || !held.layer.restarts.is_allowed() {
            return Ok(());
        }
        let lacking = units.lacks(&names)?;
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Error::Modules(lacking.join(", ")))
    }

    /// What of a report hangs on everything that is in force.
    fn complete(&self, report: &mut LayerReport, resolution: &Resolution) {
        let held = self.state.layers.get(&report.uid);
        report.in_force = held.map(|held| held.layer.digest.clone());
        report.conflicts = resolution
            .conflicts
            .iter()
            .filter(|conflict| conflict.loser == report.uid)
            .cloned()
            .collect();
        let resources = held.map_or_else(Vec::new, InForce::resources);
        let reading = report::reading(&resources, &|read| {
            report::owns(resolution, &report.uid, read)
        });
        let idle = self.idle(&reading);
        let waits = self.waiting(reading);
        let names: BTreeSet<_> = waits.iter().map(|unit| unit.name.clone()).collect();
        report.pending = names.into_iter().collect();
        report.restart = waits.iter().any(|unit| unit.action == Action::Restart);
        if !matches!(report.outcome, Outcome::Applied | Outcome::PendingReload) {
            return;
        }
        let said = waits.iter().map(|unit| self.waits(unit)).chain(idle);
        for sentence in said {
            // It is completed again when all layers are there.
            if !report.message.contains(&sentence) {
                let message = std::mem::take(&mut report.message);
                report.message = report::sentences([message, sentence]);
            }
        }
        report.outcome = if waits.is_empty() {
            Outcome::Applied
        } else {
            Outcome::PendingReload
        };
        if let Some(said) = held.and_then(|held| self.kept_out(held))
            && !report.message.contains(&said)
        {
            let message = std::mem::take(&mut report.message);
            report.message = report::sentences([message, said]);
        }
        let settings = self.on_host(|host| setting::unmet(host, &resources));
        if !settings.is_empty() {
            let message = std::mem::take(&mut report.message);
            report.message = report::sentences(iter::once(message).chain(settings));
            report.outcome = Outcome::Unread;
        }
    }

    /// The units that wait, among those that read something.
    fn waiting(&self, mut units: Vec<Unit>) -> Vec<Unit> {
        let pending = &self.state.pending;
        units.retain(|unit| {
            let waits = pending.get(&unit.name);
            waits.is_some_and(|pending| pending.is_for(unit.action))
        });
        units
    }

    fn waits(&self, unit: &Unit) -> String {
        let why = self.agent.manager.why();
        report::waits(unit, why.unwrap_or("spec.restarts is Never"))
    }

    /// What is said of units that can't read anything on this node, or do not.
    fn idle(&self, units: &[Unit]) -> Vec<String> {
        let Some(manager) = self.agent.manager.units() else {
            return Vec::new();
        };
        let names: BTreeSet<_> = units.iter().map(|unit| &unit.name).collect();
        let shown = names.into_iter().map(|name| (name, manager.show(name)));
        let sentence = |(name, shown): (&String, Result<Shown, _>)| {
            let shown = shown.ok()?;
            let why = shown.load.why_not();
            let why = why.or_else(|| match shown.active {
                Active::Failed => Some("has failed, and does not run".to_owned()),
                Active::Inactive if !shown.oneshot => {
                    Some("does not run, and reads it when it is started".to_owned())
                }
                _ => None,
            })?;
            Some(format!("{name} {why}"))
        };
        shown.filter_map(sentence).collect()
    }

    /// Completes the report now that everything is done, and saves it.
    pub(super) fn finish(&mut self, report: &mut Report) {
        let state = self.ended(report);
        let on_disk = state == *locked(&self.agent.state);
        let saved = if on_disk { Ok(()) } else { self.save(state) };
        if let Err(error) = saved.and_then(|()| self.forget()) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the report can't be kept");
        }
    }

    /// This end with what is reported of it, where nothing else is to come: one that is as it is expected to be is
    /// written once.
    pub(super) fn foreseen(&mut self, end: State) -> State {
        let Some(mut report) = self.expected.take() else {
            return end;
        };
        let before = mem::replace(&mut self.state, end);
        let end = self.ended(&mut report);
        self.state = before;
        end
    }

    /// The state with the report, which is completed.
    fn ended(&self, report: &mut Report) -> State {
        let resolution = resolution(&self.state.layers);
        for layer in &mut report.layers {
            self.complete(layer, &resolution);
        }
        let before = self
            .state
            .report
            .as_ref()
            .map_or(&[][..], |report| &report.resources);
        report.resources =
            report::resources(&resolution, &self.state.layers, &self.written, before);
        let mut state = State {
            report: Some(report.clone()),
            ..self.state.clone()
        };
        // Nobody that is here reads it.
        let read: BTreeSet<_> = resolution
            .units
            .iter()
            .map(|unit| &unit.what.name)
            .collect();
        state
            .pending
            .retain(|unit, pending| pending.owed || read.contains(unit));
        state
    }

    /// Forgets originals that have been given back.
    fn forget(&self) -> Result<(), state::Error> {
        let Agent { store, .. } = self.agent;
        if self.overlay.is_some() || self.state.open || store.redo()?.is_some() {
            return Ok(());
        }
        store.forget_all_but(&self.state.ledger.blobs())
    }

    /// Looks at the host, as it is once what is done in memory only is done.
    pub(super) fn on_host<T>(&self, look: impl FnOnce(&dyn View) -> T) -> T {
        let host: &dyn View = &self.agent.host;
        match &self.overlay {
            None => look(host),
            Some(overlay) => look(&Over { host, overlay }),
        }
    }

    /// Saves the state; what is in memory is what is on disk.
    pub(super) fn save(&mut self, state: State) -> Result<(), state::Error> {
        if self.overlay.is_some() {
            self.state = state;
            return Ok(());
        }
        // Another operator may have been admitted since this began: who leads is not forgotten.
        let mut holds = locked(&self.agent.holds);
        let mut kept = locked(&self.agent.state);
        let state = State {
            fence: state.fence.max(kept.fence),
            ..state
        };
        let state = state.stamped();
        self.agent.store.save(&state)?;
        holds.clone_from(&state.holds);
        kept.clone_from(&state);
        drop((holds, kept));
        self.state = state;
        self.agent.end_trial();
        Ok(())
    }

    /// Logs an error at this boundary, and says it in a sentence.
    pub(super) fn tell(&self, layer: &str, error: &Error) -> String {
        let node = self.agent.node.as_str();
        let error: &dyn std::error::Error = error;
        if self.overlay.is_some() {
            tracing::debug!(error, layer, node, "a layer could not be changed");
        } else {
            tracing::warn!(error, layer, node, "a layer could not be changed");
        }
        edict_core::guard::text::mask(&error.to_string()).into_owned()
    }
}
