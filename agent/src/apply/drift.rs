//! Looks whether what is in force is as it should be, and has it so again where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use edict_core::digest::of_bytes;
use edict_core::guard::Policy;
use edict_core::guard::text::mask;
use edict_core::layer::DeletionPolicy;
use edict_core::resolve::Resolution;
use edict_core::resource::Place;
use edict_core::wire::{self, DriftOutcome, Drifted};
use jiff::Timestamp;

use super::error::Error;
use super::round::Round;
use super::transact::Way;
use super::{Agent, locked};
use crate::host::{Found, Host as _, Meta, Seen, Whole, is_setting, is_table};
use crate::plan::{Facts, plan};
use crate::state::{State, resolution};

/// Something that is not as its owner wants it.
#[derive(PartialEq)]
struct Difference {
    at: Place,
    /// Uid of the layer that it belongs to.
    by: String,
    what: String,
    /// Digest of what is there; none where nothing is.
    seen: Option<String>,
}

/// Something is changed only when it stays as it is for that long: somebody may be writing it just now.
const STILL: Duration = Duration::from_millis(200);

/// How often putting back is tried where it fails.
const AGAIN: Duration = Duration::from_secs(15);

impl Agent {
    /// Looks at everything that is in force. What somebody else has changed is corrected, or only said,
    /// as its `NodeConfig` has it. Answers with when to look again although nothing happens.
    pub fn look_for_drift(&self, now: Instant) -> Option<Instant> {
        let _turn = locked(&self.turn);
        let mut round = Round::new(self, Policy::default(), wire::VERSION);
        // An interrupted change is nobody else's. It, or a firewall that is not loaded, may be why no push comes any
        // more.
        if round.is_unfinished() {
            if let Err(error) = round.recover() {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "what an interrupted change has left can't be mended yet"
                );
            }
            if round.state.open {
                return Some(now + AGAIN);
            }
        }
        let mut differences = round.differences();
        let mut moves = false;
        if !differences.is_empty() {
            thread::sleep(STILL);
            let again = round.differences();
            let before = differences.len();
            differences.retain(|one| again.contains(one));
            moves = differences.len() < before || again.len() > before;
        }
        let mut wrong: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
        for difference in differences {
            wrong
                .entry(difference.by.clone())
                .or_default()
                .push(difference);
        }
        let mut left = BTreeSet::new();
        for (uid, differences) in wrong {
            left.extend(round.settle_drift(&uid, differences, now));
        }
        let soon = moves.then(|| now + STILL);
        let mut drifts = locked(&self.drifts);
        drifts.settle(&|at| left.contains(at), now);
        let again = round.is_unfinished().then(|| now + AGAIN);
        let next = soon.into_iter().chain(again).chain(drifts.next()).min();
        let count = drifts.count;
        // Not let go of before: whoever counts on meanwhile would be lost.
        self.count.send_if_modified(|told| {
            let changed = *told != count;
            *told = count;
            changed
        });
        drop(drifts);
        // A command that is to be run may have waited for this.
        self.wake_runner();
        next
    }
}

impl Round<'_> {
    /// Everything that is not as it should be.
    fn differences(&self) -> Vec<Difference> {
        let wanted = resolution(&self.state.layers);
        let live = self.on_host(|host| host.is_live());
        let paths = wanted.files.keys().chain(wanted.keys.keys());
        let paths: BTreeSet<_> = paths
            .filter(|path| live || !is_setting(path))
            // That is for a push, which asks the operator.
            .filter(|path| !is_table(path) || self.state.unproven().is_none())
            .cloned()
            .collect();
        let mut there = BTreeMap::new();
        for (path, seen) in self.on_host(|host| host.look_all(&paths)) {
            match seen {
                Ok(seen) => drop(there.insert(path, seen)),
                // Nobody has changed what can't be looked at, for all that is known.
                Err(error) => tracing::debug!(path, %error, "this can't be looked at"),
            }
        }
        self.differing(&wanted, &there)
    }

    /// What is not as it should be of what was seen.
    fn differing(&self, wanted: &Resolution, seen: &BTreeMap<String, Seen>) -> Vec<Difference> {
        let facts = Facts {
            seen,
            ledger: &self.state.ledger,
            // Nothing that is in force is given back.
            originals: &BTreeMap::new(),
            owner: self.agent.host.owner(),
            layer: None,
        };
        let paths = seen.keys().cloned().collect();
        let planned = plan(wanted, &paths, facts, DeletionPolicy::Restore);
        if planned.is_err() && seen.len() > 1 {
            // One that can't be planned for says nothing of the others.
            let each = seen.iter().map(|(path, seen)| (path.clone(), seen.clone()));
            return each
                .flat_map(|one| self.differing(wanted, &BTreeMap::from([one])))
                .collect();
        }
        let what = |at: &Place| match &planned {
            Err(error) => Some(error.to_string()),
            Ok(plan) if plan.spoiled.contains(at) => Some(STUCK.to_owned()),
            Ok(plan) if plan.changed.contains(at) => {
                let whole = plan.writes.get(&at.path)?;
                Some(differs(&seen[&at.path].found, whole))
            }
            Ok(_) => None,
        };
        let judge = |(at, by): (Place, String)| {
            let there = seen[&at.path].found.file();
            Some(Difference {
                what: what(&at)?,
                seen: there.map(|whole| of_bytes(&whole.content)),
                at,
                by,
            })
        };
        let all = seen.keys().flat_map(|path| every(wanted, path));
        all.filter_map(judge).collect()
    }

    /// Has what belongs to a layer as it wants it, if it wants that. Answers with what is not so.
    fn settle_drift(
        &mut self,
        uid: &str,
        differences: Vec<Difference>,
        now: Instant,
    ) -> BTreeSet<Place> {
        let Some(held) = self.state.layers.get(uid) else {
            return BTreeSet::new();
        };
        let (name, corrects) = (held.layer.name.clone(), held.layer.drift.is_correct());
        let mut left = BTreeSet::new();
        let mut mend: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
        for difference in differences {
            let damped = locked(&self.agent.drifts).is_damped(&difference.at, now);
            if corrects && !damped {
                let path = difference.at.path.clone();
                mend.entry(path).or_default().push(difference);
                continue;
            }
            let outcome = if corrects {
                DriftOutcome::Damped
            } else {
                DriftOutcome::Reported
            };
            self.note_drift(&name, &difference, outcome, String::new(), now);
            left.insert(difference.at);
        }
        // All at once, so that units are told once; where one is in the way of the others, each by itself.
        let together = mend.keys().cloned().collect();
        let mut done = vec![(self.mend(uid, &together), together)];
        if matches!(&done[..], [(Err(error), paths)] if paths.len() > 1 && !error.was_begun()) {
            let each = mend.keys().map(|path| BTreeSet::from([path.clone()]));
            done = each.map(|path| (self.mend(uid, &path), path)).collect();
        }
        for (outcome, paths) in done {
            let begun = outcome.as_ref().map_or_else(Error::was_begun, |()| true);
            let message = outcome.map_or_else(|error| self.tell(&name, &error), |()| String::new());
            let failed = !message.is_empty();
            let outcome = if failed {
                DriftOutcome::Failed
            } else {
                DriftOutcome::Corrected
            };
            for difference in paths.iter().filter_map(|path| mend.get(path)).flatten() {
                if begun {
                    locked(&self.agent.drifts).tried(&difference.at, failed, now);
                }
                if failed {
                    left.insert(difference.at.clone());
                }
                self.note_drift(&name, difference, outcome, message.clone(), now);
            }
        }
        left
    }

    /// Has these paths as a layer in force wants them. It is not held where that fails: it is in force.
    fn mend(&mut self, uid: &str, paths: &BTreeSet<String>) -> Result<(), Error> {
        if paths.is_empty() {
            return Ok(());
        }
        let holds = self.state.holds.clone();
        let way = Way::Forward(uid.to_owned());
        let next = self.state.clone();
        let done = self.transact(next, paths.clone(), DeletionPolicy::Restore, &way);
        if self.state.holds != holds {
            let state = State {
                holds,
                ..self.state.clone()
            };
            self.save(state)?;
        }
        done?;
        // What waits, and what is read, may be something else now.
        if let Some(mut report) = self.state.report.clone() {
            self.finish(&mut report);
        }
        Ok(())
    }

    fn note_drift(
        &self,
        owner: &str,
        difference: &Difference,
        outcome: DriftOutcome,
        message: String,
        now: Instant,
    ) {
        let Difference { at, what, .. } = difference;
        let mut drifts = locked(&self.agent.drifts);
        let times = drifts.times(at);
        let seen = Timestamp::now().as_second();
        let said = Drifted {
            path: at.path.clone(),
            key: at.key.as_ref().map(ToString::to_string),
            owner: owner.to_owned(),
            what: mask(what).into_owned(),
            // To the second, as Kubernetes has times.
            at: Timestamp::from_second(seen).unwrap_or_default(),
            outcome,
            times: u32::try_from(times).unwrap_or(u32::MAX),
            message,
        };
        let (path, key) = (said.path.clone(), said.key.clone());
        if drifts.note(at, said, now) {
            tracing::warn!(
                path,
                key,
                owner,
                what,
                ?outcome,
                times,
                "somebody else has changed this"
            );
        }
    }
}

/// What is said of a key that somebody has spoiled.
const STUCK: &str = "it is written so that it can't be set: there twice, or among others";

/// What differs between what is there and what is to be.
fn differs(now: &Found, whole: &Whole) -> String {
    let meta = |meta: Meta| {
        format!(
            "mode {:04o} and belongs to {}:{}",
            meta.mode, meta.uid, meta.gid
        )
    };
    match now {
        Found::File(now) if now.content != whole.content => "it says something else".to_owned(),
        Found::File(now) => format!("it has {}, not {}", meta(now.meta), meta(whole.meta)),
        _ => "it is gone".to_owned(),
    }
}

/// The places at a path, and whose they are.
fn every<'a>(wanted: &'a Resolution, path: &'a str) -> impl Iterator<Item = (Place, String)> + 'a {
    let file = wanted.files.get(path);
    let file = file.map(|owned| (Place::file(path), owned.by.clone()));
    let keys = wanted
        .keys
        .get(path)
        .into_iter()
        .flat_map(|shared| &shared.values);
    let keys = keys.map(|(key, owned)| (Place::key(path, key), owned.by.clone()));
    file.into_iter().chain(keys)
}
