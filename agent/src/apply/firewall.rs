//! A firewall on its way to the kernel: what it goes by, whether the cluster still reaches the node, and what else
//! keeps somebody out.

mod drops;
pub(super) mod probation;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use edict_core::config::firewall::Facts;
use edict_core::guard::text::mask;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{Event, Probation};

use super::activate::Failure;
use super::locked;
use super::round::Round;
use super::transact::{Trouble, Way};
use crate::state::{InForce, State};
use crate::units::Units;
use probation::Ended;

/// How long what the cluster knows of its addresses is not tried again where it has kept the cluster out.
const AGAIN: Duration = Duration::from_mins(10);

/// What the cluster knows of its addresses, where it has kept the cluster out.
pub(super) struct Refused {
    uid: String,
    facts: Facts,
    at: Instant,
    why: String,
}

impl Round<'_> {
    /// Has the revision in force go by what the cluster knows of its own addresses now, whatever becomes of the one
    /// that is pushed: a node that joins is kept out otherwise. Answers with the layer as it is to be applied, and
    /// with what is to be said where the node goes by the addresses before.
    pub(super) fn with_facts<'l>(&mut self, layer: &'l Layer) -> (Cow<'l, Layer>, Option<String>) {
        let as_it_is = (Cow::Borrowed(layer), None);
        let Some(mut held) = self.state.layers.get(&layer.uid).cloned() else {
            return as_it_is;
        };
        let (Some(_), Some(facts)) = (&held.layer.config.firewall, &layer.facts) else {
            return as_it_is;
        };
        if held.layer.facts.as_ref() == Some(facts) {
            return as_it_is;
        }
        let before = held.layer.facts.replace(facts.clone());
        let why = self.known_to_fail(&layer.uid, facts).or_else(|| {
            let touched = held.touches();
            let mut next = self.state.clone();
            next.layers.insert(layer.uid.clone(), held);
            let way = Way::Forward(layer.uid.clone());
            let error = self
                .transact(next, touched, DeletionPolicy::Restore, &way)
                .err()?;
            let why = self.tell(&layer.name, &error);
            if error.was_begun() {
                *locked(&self.agent.refused) = Some(Refused {
                    uid: layer.uid.clone(),
                    facts: facts.clone(),
                    at: Instant::now(),
                    why: why.clone(),
                });
            }
            Some(why)
        });
        let Some(why) = why else {
            return as_it_is;
        };
        let layer = Layer {
            facts: before,
            ..layer.clone()
        };
        let said =
            format!("the addresses of the cluster that were known before stay let in: {why}");
        (Cow::Owned(layer), Some(said))
    }

    fn known_to_fail(&self, uid: &str, facts: &Facts) -> Option<String> {
        let refused = locked(&self.agent.refused);
        let refused = refused.as_ref()?;
        let same = refused.uid == uid && refused.facts == *facts && refused.at.elapsed() < AGAIN;
        same.then(|| refused.why.clone())
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
        match drops(self.agent.manager.units()?) {
            Ok(drops) => drops::sentence(&drops),
            Err(why) => Some(format!("what other tables drop can't be told: {why}")),
        }
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
                    unit: "the firewall".to_owned(),
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
