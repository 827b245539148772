//! A firewall on its way to the kernel: what it goes by, whether the cluster still reaches the node, and what else
//! keeps somebody out.

mod drops;
pub(super) mod probation;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use edict_core::config::firewall::{Facts, TABLE};
use edict_core::guard::text::mask;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{Event, Probation};

use super::activate::Failure;
use super::error::Error;
use super::locked;
use super::round::Round;
use super::transact::{Trouble, Way};
use crate::state::{InForce, State};
use crate::units::Units;
use probation::Ended;

/// How long what the cluster knows of its addresses is not tried again where it has kept the cluster out.
const AGAIN: Duration = Duration::from_mins(10);

/// What a firewall that keeps the cluster out is called where a unit is named otherwise.
const NAME: &str = "the firewall";

/// What the cluster knows of its addresses, where it has kept the cluster out.
pub(super) struct Refused {
    uid: String,
    facts: Facts,
    at: Instant,
    why: String,
}

/// What a layer goes by of what the cluster knows of its own addresses.
pub(super) struct Addressed<'l> {
    /// The layer as it is to be applied.
    pub(super) layer: Cow<'l, Layer>,
    /// What is to be said where the node goes by other addresses than the cluster knows.
    pub(super) said: Option<String>,
    /// Why it can't go by them.
    pub(super) why: Option<String>,
}

impl Round<'_> {
    /// Has the revision in force go by what the cluster knows of its own addresses now, whatever becomes of the one
    /// that is pushed: a node that joins is kept out otherwise. Addresses that go stay let in where the cluster is
    /// not reached without them.
    pub(super) fn with_facts<'l>(&mut self, layer: &'l Layer) -> Addressed<'l> {
        let mut addressed = Addressed {
            layer: Cow::Borrowed(layer),
            said: None,
            why: None,
        };
        let Some(held) = self.state.layers.get(&layer.uid) else {
            return addressed;
        };
        let (Some(_), Some(now)) = (&held.layer.config.firewall, &layer.facts) else {
            return addressed;
        };
        let before = held.layer.facts.clone();
        if before.as_ref() == Some(now) {
            // Its turn may have come since another one's has gone.
            let unproven = self.state.unproven();
            let waits = unproven.is_some_and(|(waits, _)| waits.uid == layer.uid);
            let other = held.layer.digest != layer.digest;
            if waits && other && self.known_to_fail(&layer.uid, now).is_none() {
                // Whatever comes of it, the pushed one has its turn.
                let _ = self.go_by(layer, now);
            }
            return addressed;
        }
        let goes = before.as_ref().filter(|before| !now.covers(before));
        let refused = goes.and_then(|_| self.known_to_fail(&layer.uid, now));
        let tried = match refused {
            Some(why) => Err((why, true)),
            None => self.go_by(layer, now),
        };
        let Err((why, is_late)) = tried else {
            return addressed;
        };
        let Some(before) = goes.filter(|_| is_late) else {
            addressed.why = Some(why);
            return addressed;
        };
        // Nobody is kept out by more.
        let both = now.and(before);
        let tried = match self.known_to_fail(&layer.uid, &both) {
            _ if both == *before => Ok(()),
            Some(why) => Err((why, true)),
            None => self.go_by(layer, &both),
        };
        addressed.why = tried.err().map(|(why, _)| why);
        addressed.said = Some(format!(
            "the addresses of the cluster that were known before stay let in: {why}"
        ));
        addressed.layer = Cow::Owned(Layer {
            facts: Some(both),
            ..layer.clone()
        });
        addressed
    }

    /// Has the revision in force go by these. Why it does not, and whether that is since the cluster does not reach
    /// the node then.
    fn go_by(&mut self, layer: &Layer, facts: &Facts) -> Result<(), (String, bool)> {
        let mut next = self.state.clone();
        if let Some(held) = next.layers.get_mut(&layer.uid) {
            held.layer.facts = Some(facts.clone());
        }
        // Of its files only those that say so.
        let touched = BTreeSet::from([TABLE.to_owned()]);
        let way = Way::Forward(layer.uid.clone());
        let Err(error) = self.transact(next, touched, DeletionPolicy::Restore, &way) else {
            return Ok(());
        };
        let why = self.tell(&layer.name, &error);
        let is_late = matches!(&error, Error::Activate { failure, .. } if failure.unit == NAME);
        if is_late {
            let mut refused = locked(&self.agent.refused);
            refused.retain(|refused| refused.at.elapsed() < AGAIN);
            refused.push(Refused {
                uid: layer.uid.clone(),
                facts: facts.clone(),
                at: Instant::now(),
                why: why.clone(),
            });
        }
        Err((why, is_late))
    }

    fn known_to_fail(&self, uid: &str, facts: &Facts) -> Option<String> {
        let refused = locked(&self.agent.refused);
        let same = |refused: &&Refused| {
            refused.uid == uid && refused.facts == *facts && refused.at.elapsed() < AGAIN
        };
        let refused = refused.iter().find(same)?;
        Some(refused.why.clone())
    }

    /// Why a layer can't be applied here whatever it says.
    pub(super) fn lacks(&self, layer: &Layer) -> Option<String> {
        let firewall = layer.config.firewall.as_ref()?;
        if let Some(unknown) = firewall.unknown(layer.facts.as_ref()) {
            return Some(unknown);
        }
        let why = self.agent.manager.why()?;
        Some(format!(
            "firewall: who may reach this node can't be said by its kernel, since {why}: have systemd in the agent's reach"
        ))
    }

    /// What a plan says of others that keep somebody out, where a layer says who is let in.
    pub(super) fn kept_out(&self, held: &InForce) -> Option<String> {
        held.layer.config.firewall.as_ref()?;
        self.overlay.as_ref()?;
        let units = self.agent.manager.units()?;
        let asked = self.kept_out.get_or_init(|| match drops(units) {
            Ok(drops) => drops::sentence(&drops),
            Err(why) => Some(format!("what other tables drop can't be told: {why}")),
        });
        asked.clone()
    }

    /// What is in force on probation at first, where there is an operator to say that it reaches this node.
    pub(super) fn on_probation(&self, end: &State) -> Option<Probation> {
        self.gone.and_then(|_| probation(&self.state, end))
    }

    /// Has the operator reach this node.
    pub(super) fn prove(&self, probation: Probation) -> Result<(), Trouble> {
        let (mark, seconds) = (probation.mark.clone(), probation.seconds);
        let within = Duration::from_secs(seconds.into());
        let say = || (self.say)(Event::Probation(probation));
        let gone = self.gone.unwrap_or(&|| true);
        match self.agent.probations.wait(&mark, within, say, gone) {
            Ended::Confirmed => Ok(()),
            Ended::Alone => Err(Trouble::Alone),
            Ended::Late(why) => {
                let why = why.as_deref().map(|why| mask(why).into_owned());
                let why = why.unwrap_or_else(|| "the operator is not heard".to_owned());
                Err(Trouble::Unit(Failure {
                    unit: NAME.to_owned(),
                    what: format!("keeps the cluster out: {seconds} s later {why}"),
                    lines: Vec::new(),
                }))
            }
        }
    }
}

/// The chains of other tables that drop something of what is for the host.
fn drops(units: &dyn Units) -> Result<Vec<String>, String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let chains = units.chains().map_err(|error| said(&error))?;
    let mut all = Vec::new();
    for (family, name) in drops::tables(&chains).map_err(|error| said(&error))? {
        let table = units.rules(&family, &name).map_err(|error| said(&error))?;
        all.extend(drops::drops(&table).map_err(|error| said(&error))?);
    }
    Ok(all)
}

/// What is in force on probation at first: another table than those that the operator has reached this node
/// through. Not where it lets in everybody that the one before does.
fn probation(before: &State, end: &State) -> Option<Probation> {
    let (layer, mark) = end.unproven()?;
    if before.unproven().is_none()
        && let Some((known, _)) = before.firewall()
        && known.uid == layer.uid
        && known.digest == layer.digest
        && let (Some(now), Some(known)) = (&layer.facts, &known.facts)
        && now.covers(known)
    {
        return None;
    }
    Some(Probation {
        name: layer.name.clone(),
        seconds: layer.config.firewall.as_ref()?.probation(),
        mark,
    })
}
