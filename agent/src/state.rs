//! What the agent keeps on its node: the layers in force, those that failed, the ledger and the last
//! report.

mod hold;
mod record;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use edict_core::config::firewall::{TABLE, mark};
use edict_core::layer::Layer;
use edict_core::resolve::{Rendered, Resolution, resolve};
use edict_core::resource::{Action, Resource};
use edict_core::wire::{Fence, Held, Report};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::units::Mark;

pub use hold::Hold;
pub use store::{Error, Redo, Store};

/// The version of what is on disk. An agent refuses what a newer one has written.
///
/// Version 2 added the fence, version 3 formats beside JSON; those before are read.
pub const VERSION: u32 = 3;
/// What is written as long as there is no other format than JSON, and no block that came with them, so
/// that the release before can be gone back to.
const JSON_ALONE: u32 = 2;
/// The blocks that agents of that version know.
const FIRST: [&str; 3] = ["containerd", "docker", "files"];

/// What the agent keeps on its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of this form.
    pub version: u32,
    /// The layers in force, by uid: the last good revision of each.
    pub layers: BTreeMap<String, InForce>,
    /// The layers that failed and are not tried again by themselves, by uid: another revision of one
    /// may be in force. An agent from before there were any reads past them and tries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<String, Hold>,
    /// What was there before Edict, and what Edict wrote.
    pub ledger: Ledger,
    /// The greatest fence of an operator that is kept: of each epoch the first.
    #[serde(default)]
    pub fence: Fence,
    /// How the last push ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Units that still run with what they read before, by name. An agent that told units nothing
    /// left none; where the field is not there, all of them may.
    #[serde(default)]
    pub pending: BTreeMap<String, Pending>,
    /// Whether a transaction was begun and not ended: the files may be as before it or after it.
    #[serde(default)]
    pub open: bool,
    /// The units that read what that transaction changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activating: Option<Activating>,
    /// Tables that the operator has reached this node through: uids of their layers, and marks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proven: BTreeMap<String, String>,
}

/// A unit that still runs with what it read before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// What it needs.
    pub action: Action,
    /// How it was when that was found; `None` where it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Whether it was about to be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owed: bool,
}

/// A transaction whose files are all written, while units are being told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Uid of the layer that is being applied.
    pub layer: String,
    /// The state when all is well.
    pub end: Box<State>,
}

impl Pending {
    /// A unit that needs this, and was so when that was found.
    pub fn new(action: Action, mark: Option<Mark>) -> Self {
        Self {
            action,
            mark,
            owed: false,
        }
    }

    /// Whether a unit waits for this. Where it could not be asked, what it needs most stands for all.
    pub fn is_for(&self, action: Action) -> bool {
        self.action == action || (self.mark.is_none() && self.action > action)
    }
}

/// What an open transaction has to do with units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activating {
    /// The units, and what they need. How each was before the first file changed tells whether it may
    /// have read that; where it is not said, it may.
    pub units: BTreeMap<String, Pending>,
    /// Once all files are written, and units are being told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: JSON_ALONE,
            layers: BTreeMap::new(),
            holds: BTreeMap::new(),
            ledger: Ledger::default(),
            fence: Fence::default(),
            report: None,
            pending: BTreeMap::new(),
            open: false,
            activating: None,
            proven: BTreeMap::new(),
        }
    }
}

/// A layer in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// The layer.
    pub layer: Layer,
    /// Where its paths led when it was applied, by path as written. Kept, so that what was written
    /// there is given back there, whatever became of the symlinks.
    pub paths: BTreeMap<String, String>,
}

impl InForce {
    /// What the layer wants of this host, with paths as they lead here.
    pub fn resources(&self) -> Vec<Resource> {
        let led = |path: &mut String| {
            if let Some(resolved) = self.paths.get(path) {
                path.clone_from(resolved);
            }
        };
        // Where the agent can't set it, somebody else does at the next start or is told to.
        let reached = |resource| match resource {
            Resource::Live(live) if self.paths.contains_key(&live.path) => {
                Resource::File(live.file())
            }
            Resource::Live(live) => Resource::Unit(live.otherwise),
            other => other,
        };
        let mut resources: Vec<_> = self.layer.resources().into_iter().map(reached).collect();
        for resource in &mut resources {
            match resource {
                Resource::File(file) => led(&mut file.path),
                Resource::Keys(keys) => led(&mut keys.path),
                Resource::Unit(unit) => unit.reads.iter_mut().for_each(|read| led(&mut read.path)),
                Resource::Live(_) | Resource::Setting(_) => {}
            }
        }
        resources
    }

    /// The paths that it wants something at.
    pub fn touches(&self) -> BTreeSet<String> {
        self.resources()
            .into_iter()
            .filter_map(|resource| match resource {
                Resource::File(file) => Some(file.path),
                Resource::Keys(keys) => Some(keys.path),
                Resource::Live(_) | Resource::Unit(_) | Resource::Setting(_) => None,
            })
            .collect()
    }
}

/// Who has what when these layers are in force.
pub fn resolution(layers: &BTreeMap<String, InForce>) -> Resolution {
    let rendered = layers.values().map(|held| Rendered {
        layer: &held.layer,
        resources: held.resources(),
    });
    resolve(rendered.collect())
}

impl State {
    /// The layer whose firewall counts, and the mark of its table.
    pub fn firewall(&self) -> Option<(&Layer, String)> {
        let has_one = |held: &InForce| held.layer.config.firewall.is_some();
        if !self.layers.values().any(has_one) {
            return None;
        }
        let resolution = resolution(&self.layers);
        let owned = resolution.files.get(TABLE)?;
        let script = String::from_utf8_lossy(&owned.what.content);
        let layer = &self.layers.get(&owned.by)?.layer;
        Some((layer, mark(&script)?.to_owned()))
    }

    /// The same, where nobody has reached this node through it yet.
    pub fn unproven(&self) -> Option<(&Layer, String)> {
        let (layer, mark) = self.firewall()?;
        (self.proven.get(&layer.uid) != Some(&mark)).then_some((layer, mark))
    }

    /// With the firewall that counts as one that the operator reaches this node through.
    #[must_use]
    pub fn proved(mut self) -> Self {
        let proven = self
            .unproven()
            .map(|(layer, mark)| (layer.uid.clone(), mark));
        self.proven.extend(proven);
        self
    }

    /// With the lowest version that reads it.
    #[must_use]
    pub fn stamped(mut self) -> Self {
        let mut formats = self.ledger.keys.values().map(|entry| entry.format);
        let told = self
            .activating
            .as_ref()
            .and_then(|activating| activating.told.as_ref());
        let layers = told
            .map(|told| told.end.layers.values())
            .into_iter()
            .flatten();
        let mut layers = self.layers.values().chain(layers);
        // Such an agent drops a block that it does not know, and what it wrote with it.
        let is_known = |held: &InForce| {
            held.layer
                .config
                .block_names()
                .all(|name| FIRST.contains(&name))
        };
        self.version = if formats.all(|format| format.is_json()) && layers.all(is_known) {
            JSON_ALONE
        } else {
            VERSION
        };
        self
    }

    /// Takes every unit as one that was told nothing: the agent before this one told none.
    fn with_all_pending(mut self) -> Self {
        for held in self.layers.values() {
            for resource in held.resources() {
                if let Resource::Unit(unit) = resource {
                    let pending = Pending::new(unit.action, None);
                    self.pending.insert(unit.name, pending);
                }
            }
        }
        self
    }

    /// The layers in force, as a hello says them.
    pub fn held(&self) -> Vec<Held> {
        self.layers
            .values()
            .map(|InForce { layer, .. }| Held {
                uid: layer.uid.clone(),
                name: layer.name.clone(),
                digest: layer.digest.clone(),
                deletion_policy: layer.deletion_policy,
            })
            .collect()
    }
}
