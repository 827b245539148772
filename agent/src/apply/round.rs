//! One push under way: releases and layers, each one transaction.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, digest};
use edict_core::resolve::Resolution;
use edict_core::wire::{
    Event, LayerReport, Outcome, Push, Release, ReleaseReport, Report, Written,
};

use super::dry::{Over, Overlay};
use super::error::Error;
use super::{Agent, locate, locked, report, setting};
use crate::commit::{self, Commit};
use crate::host::{Host, Seen};
use crate::ledger::{Ledger, Original};
use crate::plan::{Facts, Plan, plan};
use crate::state::{self, InForce, State, resolution};

/// What is said of a layer whose digest is another one's.
const OTHER_DIGEST: &str = "the digest is not that of the configuration: was it changed on its way, or \
    made by another release?";

/// What is said of a layer while the node is not as it was before a change that failed.
pub(super) const INTERRUPTED: &str = "an interrupted change of this node is not taken back yet";

/// What a transaction did.
struct Changed {
    written: BTreeMap<String, Written>,
    foreign: Vec<String>,
}

/// One push under way.
pub(super) struct Round<'a> {
    pub(super) agent: &'a Agent,
    policy: Policy,
    /// The wire version of whoever pushes.
    pub(super) wire: u32,
    pub(super) state: State,
    /// How each file was written in this round.
    written: BTreeMap<String, Written>,
    /// Takes every write, where nothing is to be written.
    pub(super) overlay: Option<Overlay>,
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
        }
    }

    /// Does a push, but for saying that it is done.
    pub(super) fn push(&mut self, push: &Push, say: &mut dyn FnMut(Event)) -> Report {
        if let Err(error) = self.recover() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an interrupted change can't be put back yet"
            );
        }
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
        for layer in layers {
            let applied = self.layer(layer);
            say(Event::Layer(applied.clone()));
            report.layers.push(applied);
        }
        self.finish(&mut report);
        report
    }

    /// Takes back what an interrupted transaction did, by doing what the layers in force say.
    pub(super) fn recover(&mut self) -> Result<(), Error> {
        if !self.state.open {
            return Ok(());
        }
        tracing::info!("taking back an interrupted change");
        if self.overlay.is_none() {
            // What is found as it should be may be so in memory only.
            let safe = self.agent.host.sync_all();
            safe.map_err(Error::Sync)?;
        }
        let everything: BTreeSet<_> = self.state.ledger.paths().cloned().collect();
        self.transact(self.state.clone(), everything, DeletionPolicy::Restore)?;
        Ok(())
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
        match self.transact(next, leaves.touches(), policy) {
            Ok(changed) => {
                let unread = report::unread(&leaves.resources(), |path| {
                    changed.written.contains_key(path)
                });
                report.message = report::sentences([
                    report::left_alone(&changed.foreign),
                    report::to_reload(&unread),
                ]);
                report.foreign = changed.foreign;
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
        };
        if layer.digest != digest(&layer.config, &layer.contents) {
            report.message.push_str(OTHER_DIGEST);
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
        self.complete(&mut report, &resolution(&self.state.layers));
        report
    }

    fn apply(&mut self, layer: &Layer, paths: BTreeMap<String, String>, report: &mut LayerReport) {
        let held = InForce {
            layer: Layer {
                // Asking for another try changes nothing where none is needed.
                retry: None,
                ..layer.clone()
            },
            paths,
        };
        let mut touched = held.touches();
        let interrupted = self.state.open;
        let mut next = self.state.clone();
        if let Some(before) = next.layers.insert(layer.uid.clone(), held) {
            touched.extend(before.touches());
        }
        next.holds.remove(&layer.uid);
        // What a new revision leaves out is given back; the policy is for the layer as a whole.
        match self.transact(next, touched, DeletionPolicy::Restore) {
            Ok(changed) => {
                report.outcome = Outcome::Applied;
                report.message = report::left_alone(&changed.foreign);
            }
            Err(error) => self.failed(layer, &error, interrupted, report),
        }
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
        let unread = report::unread(&resources, |path| {
            report::owns(resolution, &report.uid, path)
        });
        report.pending = unread.iter().map(|unit| unit.name.clone()).collect();
        let good = matches!(report.outcome, Outcome::Applied | Outcome::PendingReload);
        if good && !unread.is_empty() {
            // Units are not reloaded by this release: it is never `Applied` then.
            if report.outcome == Outcome::Applied {
                let message = std::mem::take(&mut report.message);
                report.message = report::sentences([message, report::to_reload(&unread)]);
            }
            report.outcome = Outcome::PendingReload;
        }
        if !good {
            return;
        }
        let settings = self.on_host(|host| setting::unmet(host, &resources));
        if !settings.is_empty() {
            let message = std::mem::take(&mut report.message);
            report.message = report::sentences(std::iter::once(message).chain(settings));
            report.outcome = Outcome::Unread;
        }
    }

    /// Completes the report now that everything is done, and saves it.
    fn finish(&mut self, report: &mut Report) {
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
        let state = State {
            report: Some(report.clone()),
            ..self.state.clone()
        };
        let on_disk = state == *locked(&self.agent.state);
        let saved = if on_disk { Ok(()) } else { self.save(state) };
        if let Err(error) = saved.and_then(|()| self.forget()) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the report can't be kept");
        }
    }

    /// Forgets originals that have been given back.
    fn forget(&self) -> Result<(), state::Error> {
        let Agent { store, .. } = self.agent;
        if self.overlay.is_some() || self.state.open || store.redo()?.is_some() {
            return Ok(());
        }
        store.forget_all_but(&self.state.ledger.blobs())
    }

    /// Brings the host from the layers in force to those in `next`, whole or not at all.
    fn transact(
        &mut self,
        next: State,
        mut touched: BTreeSet<String>,
        leaving: DeletionPolicy,
    ) -> Result<Changed, Error> {
        let before = resolution(&self.state.layers);
        let after = resolution(&next.layers);
        touched.extend(differences(&before, &after));
        if self.state.open {
            // What an interrupted change has left is mended along with this one, or neither ends.
            touched.extend(self.state.ledger.paths().map(ToOwned::to_owned));
        }
        let seen = self.look(&touched)?;
        let originals = self.originals(&touched)?;
        let facts = Facts {
            seen: &seen,
            ledger: &self.state.ledger,
            originals: &originals,
            owner: self.agent.host.owner(),
        };
        let plan = plan(&after, &touched, facts, leaving)?;
        let end = State {
            ledger: plan.ledger.clone(),
            open: false,
            ..next
        };
        let written = self.commit(&plan, &seen, end)?;
        for (path, how) in &written {
            self.written.insert(path.clone(), *how);
        }
        Ok(Changed {
            written,
            foreign: plan.foreign,
        })
    }

    fn commit(
        &mut self,
        plan: &Plan,
        seen: &BTreeMap<String, Seen>,
        end: State,
    ) -> Result<BTreeMap<String, Written>, Error> {
        if end == self.state && plan.is_idle() {
            return Ok(BTreeMap::new());
        }
        if let Some(overlay) = &mut self.overlay {
            let written = overlay.carry_out(plan, seen);
            self.state = end;
            return Ok(written);
        }
        let Agent { host, store, .. } = self.agent;
        store.keep(&plan.blobs)?;
        let before = self.state.clone();
        self.save(State {
            ledger: Ledger::between(&before.ledger, &end.ledger),
            open: true,
            ..before.clone()
        })?;
        let mut commit = Commit::new(&**host, store, seen);
        let written = match commit.carry_out(plan) {
            Ok(written) => written,
            Err(error) => {
                if matches!(error, commit::Error::PutBack { .. }) {
                    self.save(before).map_err(Error::PutBack)?;
                }
                return Err(error.into());
            }
        };
        if let Err(state) = self.save(end) {
            return Err(match commit.put_back() {
                Ok(()) => {
                    // Where this fails too, the transaction is still marked open.
                    self.save(before).map_err(Error::PutBack)?;
                    Error::PutBack(state)
                }
                Err((path, _, source)) => Error::Left {
                    state,
                    path,
                    source,
                },
            });
        }
        Ok(written)
    }

    /// Looks at the host, as it is once what is done in memory only is done.
    fn on_host<T>(&self, look: impl FnOnce(&dyn Host) -> T) -> T {
        let host = &*self.agent.host;
        match &self.overlay {
            None => look(host),
            Some(overlay) => look(&Over { host, overlay }),
        }
    }

    fn look(&self, touched: &BTreeSet<String>) -> Result<BTreeMap<String, Seen>, Error> {
        let look = |path: &String| match self.on_host(|host| host.look(path)) {
            Ok(seen) => Ok((path.clone(), seen)),
            Err(source) => Err(Error::Look {
                path: path.clone(),
                source,
            }),
        };
        touched.iter().map(look).collect()
    }

    /// The kept contents of these paths. One that is lost is missed only where it is needed.
    fn originals(&self, touched: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let Ledger { files, keys, .. } = &self.state.ledger;
        let mut originals = BTreeMap::new();
        for path in touched {
            let file = files.get(path).map(|entry| &entry.original);
            let keys = keys.get(path).map(|entry| &entry.original);
            for blob in file.into_iter().chain(keys).filter_map(Original::blob) {
                if let Some(content) = self.agent.store.original(blob)? {
                    originals.insert(blob.to_owned(), content);
                }
            }
        }
        Ok(originals)
    }

    /// Saves the state; what is in memory is what is on disk.
    pub(super) fn save(&mut self, state: State) -> Result<(), state::Error> {
        if self.overlay.is_some() {
            self.state = state;
            return Ok(());
        }
        self.agent.store.save(&state)?;
        locked(&self.agent.holds).clone_from(&state.holds);
        locked(&self.agent.state).clone_from(&state);
        self.state = state;
        Ok(())
    }

    /// Logs an error at this boundary, and says it in a sentence.
    pub(super) fn tell(&self, layer: &str, error: &Error) -> String {
        let node = self.agent.node.as_str();
        let error: &dyn std::error::Error = error;
        tracing::warn!(error, layer, node, "a layer could not be changed");
        edict_core::guard::text::mask(&error.to_string()).into_owned()
    }
}

/// The paths that two resolutions want to be different.
fn differences(before: &Resolution, after: &Resolution) -> BTreeSet<String> {
    fn differing<T: PartialEq>(
        before: &BTreeMap<String, T>,
        after: &BTreeMap<String, T>,
    ) -> BTreeSet<String> {
        let all = before.keys().chain(after.keys());
        all.filter(|path| before.get(*path) != after.get(*path))
            .cloned()
            .collect()
    }
    let mut paths = differing(&before.files, &after.files);
    paths.extend(differing(&before.keys, &after.keys));
    paths
}
