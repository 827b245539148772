//! What the agent says about what it did.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::guard::Violation;
use edict_core::resolve::Resolution;
use edict_core::resource::{Action, KeyPath, Place, Resource, Unit};
use edict_core::wire::{ResourceReport, Written};

use super::transact::Changed;
use crate::state::InForce;

/// The units among `resources` that read a place for which `concerned` holds.
pub fn reading(resources: &[Resource], concerned: &dyn Fn(&Place) -> bool) -> Vec<Unit> {
    let units = resources.iter().filter_map(|resource| match resource {
        Resource::Unit(unit) => Some(unit),
        Resource::File(_) | Resource::Keys(_) | Resource::Live(_) | Resource::Setting(_) => None,
    });
    units
        .filter(|unit| unit.reads.iter().any(concerned))
        .cloned()
        .collect()
}

/// Whether the layer `uid` owns this file, or this key, or keys in this file.
pub fn owns(resolution: &Resolution, uid: &str, place: &Place) -> bool {
    let file = resolution.files.get(&place.path);
    let keys = resolution.keys.get(&place.path);
    let values = keys.into_iter().flat_map(|keys| &keys.values);
    let fits = |key: &KeyPath| place.key.as_ref().is_none_or(|wanted| wanted == key);
    file.is_some_and(|file| file.by == uid)
        || values
            .into_iter()
            .any(|(key, owned)| fits(key) && owned.by == uid)
}

/// Everything that Edict has on the node.
///
/// What this push did not have to write says what `before` said: how it was written last.
pub fn resources(
    resolution: &Resolution,
    layers: &BTreeMap<String, InForce>,
    written: &BTreeMap<String, Written>,
    before: &[ResourceReport],
) -> Vec<ResourceReport> {
    let last = |path: &String| {
        before
            .iter()
            .find(|report| report.path == *path)
            .map(|report| report.result)
    };
    let report = |path: &String, key: Option<String>, by: &String| ResourceReport {
        path: path.clone(),
        key,
        owner: layers
            .get(by)
            .map_or_else(|| by.clone(), |held| held.layer.name.clone()),
        result: written
            .get(path)
            .copied()
            .or_else(|| last(path))
            .unwrap_or(Written::Unchanged),
    };
    let files = resolution
        .files
        .iter()
        .map(|(path, owned)| report(path, None, &owned.by));
    let keys = resolution.keys.iter().flat_map(|(path, shared)| {
        let keys = shared.values.iter();
        keys.map(move |(key, owned)| report(path, Some(key.to_string()), &owned.by))
    });
    files.chain(keys).collect()
}

/// What was left as it was found, and why, in a sentence; empty when nothing was.
pub fn left_alone(changed: &Changed) -> String {
    let said = |what: &str, list: &[String]| match list {
        [] => String::new(),
        list => format!("{what}: {}", list.join(", ")),
    };
    sentences([
        said(
            "somebody else changed and so left as found",
            &changed.foreign,
        ),
        said("can't be set back and so left", &changed.refused),
        said(
            "PendingReboot: these modules stay loaded until the node is started again",
            &changed.loaded,
        ),
        said(
            "PendingReboot: these modules have their parameters once the node is started again",
            &changed.stale,
        ),
    ])
}

/// What somebody else has to do, and why Edict does not, in a sentence.
pub fn waits(unit: &Unit, why: &str) -> String {
    let Unit {
        name,
        action,
        gone: _,
        reads,
    } = unit;
    let paths: BTreeSet<_> = reads.iter().map(|read| &*read.path).collect();
    let paths = paths.into_iter().collect::<Vec<_>>().join(", ");
    let (has, mend) = match action {
        Action::Reread => (
            "is yet to be run as it says in",
            "run systemctl daemon-reload".to_owned(),
        ),
        Action::Reload => ("has yet to reread", format!("{action} it")),
        Action::Restart => ("has yet to be restarted to read", format!("{action} it")),
    };
    format!("{name} {has} {paths}, and {why}: {mend} on the node, or allow that")
}

/// What the guard refused, in a sentence.
pub fn refused(violations: &[Violation]) -> String {
    match violations {
        [] => String::new(),
        [only] => only.to_string(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    }
}

/// The sentences that say something.
pub fn sentences(sentences: impl IntoIterator<Item = String>) -> String {
    let said: Vec<_> = sentences
        .into_iter()
        .filter(|sentence| !sentence.is_empty())
        .collect();
    said.join("; ")
}
