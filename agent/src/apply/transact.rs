//! One transaction: whole or not at all, files and units together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;

use edict_core::config::firewall::TABLE;
use edict_core::layer::{DeletionPolicy, Restarts};
use edict_core::resolve::Resolution;
use edict_core::wire::{HOLDS, Probation, Written};

use super::Agent;
use super::activate::{Failure, Orders};
use super::due::{Due, need};
use super::error::Error;
use super::modules;
use super::round::Round;
use crate::commit::{self, Commit};
use crate::host::live::missing;
use crate::host::{Found, Host as _, Seen, is_setting, is_table};
use crate::ledger::{Ledger, Original};
use crate::plan::{Facts, Plan, plan};
use crate::state::{self, Activating, Hold, Pending, State, Told, resolution};

/// What a transaction did.
#[derive(Default)]
pub(super) struct Changed {
    pub(super) written: BTreeMap<String, Written>,
    /// What somebody else had changed, and what is therefore left as it was found.
    pub(super) foreign: Vec<String>,
    /// The settings of the kernel that it does not take back, each with why.
    pub(super) refused: Vec<String>,
    /// The units that do not run with what was there before.
    pub(super) sorry: Vec<String>,
    /// The modules that stay loaded although nobody wants them any more.
    pub(super) loaded: Vec<String>,
    /// The modules that run with the parameters that they were loaded with.
    pub(super) stale: Vec<String>,
}

/// Why a transaction whose files are all there did not end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    State(state::Error),
    #[error(transparent)]
    Unit(Failure),
    #[error("the operator that was to reach this node through its new firewall is gone")]
    Alone,
}

impl Trouble {
    /// What is said of it once everything is put back, but for units that do not run even so.
    fn told(self, sorry: Vec<String>) -> Error {
        match self {
            Self::State(error) => Error::PutBack(error),
            Self::Unit(failure) => Error::Activate { failure, sorry },
            Self::Alone => Error::Alone,
        }
    }
}

/// What is kept of a unit that does not run.
pub(super) fn put_back(failure: &Failure) -> String {
    let sorry = Vec::new();
    let failure = failure.clone();
    Error::Activate { failure, sorry }.to_string()
}

/// What a transaction is for.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// The layer of this uid is brought in. Units that do not run with it have it put back.
    Forward(String),
    /// Something is given back. How units do with that is said, and changes nothing. These units were
    /// concerned by what is taken back, and those without a mark have read it.
    Back(BTreeMap<String, Pending>),
}

/// What is wanted of a file or of a setting.
fn content<'a>(resolution: &'a Resolution, path: &str) -> Option<&'a [u8]> {
    let owned = resolution.files.get(path)?;
    Some(&owned.what.content)
}

impl Way {
    /// The settings of the kernel without which the layer that is brought in is put back.
    fn needs(&self, after: &Resolution) -> BTreeSet<String> {
        let Self::Forward(uid) = self else {
            return BTreeSet::new();
        };
        let files = after.files.iter();
        let own = files.filter(|(path, owned)| owned.by == *uid && is_setting(path));
        own.map(|(path, _)| path.clone()).collect()
    }

    /// The units that have read what is taken back.
    fn misled(&self) -> BTreeMap<String, Pending> {
        let mut misled = match self {
            Self::Forward(_) => BTreeMap::new(),
            Self::Back(concerned) => concerned.clone(),
        };
        misled.retain(|_, unit| unit.mark.is_none());
        misled
    }
}

impl Round<'_> {
    /// Brings the host from the layers in force to those in `next`, whole or not at all.
    pub(super) fn transact(
        &mut self,
        mut next: State,
        mut touched: BTreeSet<String>,
        leaving: DeletionPolicy,
        way: &Way,
    ) -> Result<Changed, Error> {
        let before = resolution(&self.state.layers);
        let mut after = resolution(&next.layers);
        let layers = &next.layers;
        next.proven.retain(|uid, _| layers.contains_key(uid));
        if matches!(way, Way::Back(_)) && next.unproven().is_some() {
            // It waits for a push of its own, which asks the operator; until then there is none.
            after.files.remove(TABLE);
        }
        touched.extend(differences(&before, &after));
        if self.state.open {
            // What an interrupted change has left is mended along with this one, or neither ends.
            touched.extend(self.state.ledger.paths().map(ToOwned::to_owned));
        }
        let live = self.on_host(|host| host.is_live());
        if !live {
            // What is to be with them as it was is not asked for where nobody can be.
            touched.retain(|path| {
                !is_setting(path) || content(&before, path) != content(&after, path)
            });
        }
        if !live && self.state.open && self.agent.on_trial.load(Ordering::Relaxed) {
            // Whose it is would be forgotten, and it may keep the cluster out.
            return Err(Error::Look {
                path: TABLE.to_owned(),
                source: io::Error::other(
                    "the firewall on probation has to be taken out of the kernel first: have systemd in the agent's reach",
                ),
            });
        }
        let mut asked = touched.clone();
        if leaving == DeletionPolicy::Retain && !live {
            asked.retain(|path| !is_setting(path));
        }
        let seen = self.look(&asked)?;
        let needed = way.needs(&after);
        let absent = |path: &&String| {
            let seen = seen.get(*path);
            seen.is_some_and(|seen| seen.found == Found::Absent)
        };
        // Nobody makes a setting; the table is made.
        if let Some(path) = needed.iter().filter(|path| !is_table(path)).find(absent) {
            return Err(Error::Look {
                path: path.clone(),
                source: missing(),
            });
        }
        let originals = self.originals(&touched)?;
        let layer = match way {
            Way::Forward(uid) => Some(&**uid),
            Way::Back(_) => None,
        };
        let facts = Facts {
            seen: &seen,
            ledger: &self.state.ledger,
            originals: &originals,
            owner: self.agent.host.owner(),
            layer,
        };
        let plan = plan(&after, &touched, facts, leaving)?;
        let restarts = |uid: &str| {
            let held = next.layers.get(uid).or_else(|| self.state.layers.get(uid));
            held.map_or(Restarts::Allowed, |held| held.layer.restarts)
        };
        let pending = &self.state.pending;
        let mut due = Due::of(&before, &after, &restarts, &plan.changed, pending, layer);
        let misled = way.misled();
        due.misled(&misled);
        let mut orders = Orders::of(&self.agent.manager, &due)?;
        orders.also(&misled);
        let end = State {
            ledger: plan.ledger.clone(),
            pending: orders.leave(&self.state.pending),
            open: false,
            activating: None,
            ..next
        };
        let is_live = self.agent.manager.units().is_some();
        let loaded = modules::left(&before, &after, &plan.changed);
        let stale = modules::stale(&before, &after, &plan.changed);
        if !plan.foreign.is_empty() || is_live && !(loaded.is_empty() && stale.is_empty()) {
            // What is said of it then is not foreseen.
            self.expected = None;
        }
        let mut changed = self.commit(&plan, &seen, end, &orders, way, needed)?;
        if is_live {
            (changed.loaded, changed.stale) = (loaded, stale);
        }
        changed.foreign = plan.foreign;
        Ok(changed)
    }

    fn commit(
        &mut self,
        plan: &Plan,
        seen: &BTreeMap<String, Seen>,
        end: State,
        orders: &Orders,
        way: &Way,
        needed: BTreeSet<String>,
    ) -> Result<Changed, Error> {
        if end == self.state && plan.is_idle() && orders.is_empty() {
            return Ok(Changed::default());
        }
        if let Some(overlay) = &mut self.overlay {
            let written = overlay.carry_out(plan, seen);
            for (unit, pending) in &orders.units {
                need(&mut self.orders, unit, pending.action);
            }
            self.state = end;
            self.written.extend(written.clone());
            return Ok(Changed {
                written,
                ..Changed::default()
            });
        }
        let Agent { host, store, .. } = self.agent;
        let unproven = end.unproven().map(|(layer, _)| layer.uid.clone());
        let table = match way {
            Way::Forward(uid) => plan.writes.contains_key(TABLE) || unproven.as_ref() == Some(uid),
            Way::Back(_) => false,
        };
        let probation = self.on_probation(&end).filter(|_| table);
        if probation.is_some() && !self.is_looked_at {
            return Err(Error::Later);
        }
        store.keep(&plan.blobs)?;
        let waits = unproven.is_some() && !table;
        if probation.is_some() || waits && !self.agent.on_trial.load(Ordering::Relaxed) {
            self.agent.begin_trial()?;
        }
        let before = self.state.clone();
        let activating = Activating {
            units: orders.begun(way),
            told: None,
        };
        self.save(State {
            ledger: Ledger::between(&before.ledger, &end.ledger),
            open: true,
            activating: Some(activating).filter(|activating| !activating.units.is_empty()),
            ..before.clone()
        })?;
        let mut commit = Commit::new(host, store, seen).needs(needed);
        let written = match commit.carry_out(plan) {
            Ok(written) => written,
            Err(error) => {
                if matches!(error, commit::Error::PutBack { .. }) {
                    self.save(before).map_err(Error::PutBack)?;
                }
                return Err(error.into());
            }
        };
        let refused = commit.refused();
        let earlier = self.written.clone();
        self.written.extend(written.clone());
        let ended = match way {
            Way::Back(_) => self.give_back(end.clone(), orders).map_err(Trouble::State),
            Way::Forward(uid) => {
                let end = end.clone();
                let ended = self.bring_in(uid, end, orders, table, probation);
                ended.map(|()| Vec::new())
            }
        };
        let trouble = match ended {
            Ok(sorry) => {
                return Ok(Changed {
                    written,
                    refused,
                    sorry,
                    ..Changed::default()
                });
            }
            Err(trouble) => trouble,
        };
        self.written = earlier;
        if let Err((path, _, source)) = commit.put_back() {
            return Err(Error::Left {
                trouble: trouble.to_string(),
                path,
                source,
            });
        }
        // Where this fails too, the transaction is still marked open.
        let sorry = match way {
            // It could not be written down that units are told, so none was.
            Way::Back(_) => self.save(before).map(|()| Vec::new()),
            Way::Forward(uid) => {
                let held = self.held_for(&trouble, uid, &end, before);
                self.give_back(held, orders)
            }
        };
        Err(trouble.told(sorry.map_err(Error::PutBack)?))
    }

    /// Tells units that their files have changed, once that is written down with the end that is
    /// meant, and ends there. Where there is another `table` on `probation`, the operator has to reach this node
    /// before.
    fn bring_in(
        &mut self,
        uid: &str,
        mut end: State,
        orders: &Orders,
        table: bool,
        probation: Option<Probation>,
    ) -> Result<(), Trouble> {
        if let Some(probation) = probation {
            // Nothing is written down of it: an agent that starts meanwhile has nobody to ask, and puts it back.
            self.prove(probation)?;
        }
        if table {
            // Without an operator there is nobody to wait for.
            end = end.proved();
        }
        let probes = self.probes(uid, &end, orders);
        let is_told = self.agent.manager.units().is_some() && !orders.is_empty();
        if is_told || !probes.is_empty() {
            self.is_about(uid, &end, orders)?;
            if let Some(units) = self.agent.manager.units() {
                let told = orders.carry_out(units, &|_, _| false);
                told.map_err(Trouble::Unit)?;
            }
            self.probe(probes).map_err(Trouble::Unit)?;
        }
        let end = self.foreseen(end);
        self.save(end).map_err(Trouble::State)
    }

    /// Writes down what is about to be done so that this end is reached.
    fn is_about(&mut self, uid: &str, end: &State, orders: &Orders) -> Result<(), Trouble> {
        let told = Told {
            layer: uid.to_owned(),
            end: Box::new(State {
                report: None,
                ..end.clone()
            }),
        };
        let activating = Activating {
            units: orders.units.clone(),
            told: Some(told),
        };
        let told = State {
            activating: Some(activating),
            ..self.state.clone()
        };
        self.save(told).map_err(Trouble::State)
    }

    /// Ends with the files as they are now, and then tells units. It ends first: a restart that ends
    /// this agent too is not done again by the next one, and one that did not come about is. Says which
    /// units do not run.
    fn give_back(&mut self, end: State, orders: &Orders) -> Result<Vec<String>, state::Error> {
        let Some(units) = self.agent.manager.units() else {
            self.save(end)?;
            return Ok(Vec::new());
        };
        let mut owing = end.clone();
        let owed = orders.units.iter().map(|(unit, pending)| {
            let owed = Pending {
                owed: true,
                // As it is now: it may have been told to go forward before.
                mark: units.show(unit).ok().map(|shown| shown.mark),
                ..pending.clone()
            };
            (unit.clone(), owed)
        });
        owing.pending.extend(owed);
        self.save(owing)?;
        let sorry = orders.carry_back(units);
        if let Err(error) = self.save(end) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "units that were told may be told again");
        }
        Ok(sorry)
    }

    /// The state before a transaction that came to nothing, with its layer held where a unit is why:
    /// the agent may end with the units that are told now, and is not to begin all over.
    fn held_for(&self, trouble: &Trouble, uid: &str, end: &State, mut before: State) -> State {
        let known = before.layers.get(uid).map(|known| &known.layer);
        if let Trouble::Unit(failure) = trouble
            && let Some(held) = end.layers.get(uid)
            && self.wire >= HOLDS
            // Where the cluster's addresses are others, the revision is not why.
            && known.is_none_or(|known| {
                known.digest != held.layer.digest || known.facts == held.layer.facts
            })
        {
            let hold = Hold::new(&held.layer, &put_back(failure));
            before.holds.insert(uid.to_owned(), hold);
        }
        before
    }

    pub(super) fn look(&self, touched: &BTreeSet<String>) -> Result<BTreeMap<String, Seen>, Error> {
        let seen = self.on_host(|host| host.look_all(touched)).into_iter();
        let look = |(path, seen)| match seen {
            Ok(seen) => Ok((path, seen)),
            Err(source) => Err(Error::Look { path, source }),
        };
        seen.map(look).collect()
    }

    /// The kept contents of these paths. One that is lost is missed only where it is needed.
    pub(super) fn originals(
        &self,
        touched: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
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
