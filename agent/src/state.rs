//! What the agent keeps on its node: the layers in force, those that failed, the ledger and the last
//! report.

mod hold;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use edict_core::layer::Layer;
use edict_core::resolve::{Rendered, Resolution, resolve};
use edict_core::resource::Resource;
use edict_core::wire::{Fence, Held, Report};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;

pub use hold::Hold;
pub use store::{Error, Redo, Store};

/// The version of what is on disk. An agent refuses what a newer one has written.
///
/// Version 2 added the fence; one of version 1 is read.
pub const VERSION: u32 = 2;

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
    /// Whether a transaction was begun and not ended: the files may be as before it or after it.
    #[serde(default)]
    pub open: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            layers: BTreeMap::new(),
            holds: BTreeMap::new(),
            ledger: Ledger::default(),
            fence: Fence::default(),
            report: None,
            open: false,
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
        let mut resources = self.layer.resources();
        for resource in &mut resources {
            match resource {
                Resource::File(file) => led(&mut file.path),
                Resource::Keys(keys) => led(&mut keys.path),
                Resource::Unit(unit) => unit.reads.iter_mut().for_each(led),
                Resource::Setting(_) => {}
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
                Resource::Unit(_) | Resource::Setting(_) => None,
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
