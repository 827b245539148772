//! What the agent says about what it did.

use std::collections::BTreeMap;

use edict_core::guard::Violation;
use edict_core::resolve::Resolution;
use edict_core::resource::{Action, Resource, Unit};
use edict_core::wire::{ResourceReport, Written};

use crate::state::InForce;

/// The units among `resources` that read a path for which `changed` holds.
pub fn unread(resources: &[Resource], changed: impl Fn(&str) -> bool) -> Vec<Unit> {
    let units = resources.iter().filter_map(|resource| match resource {
        Resource::Unit(unit) => Some(unit),
        Resource::File(_) | Resource::Keys(_) | Resource::Setting(_) => None,
    });
    units
        .filter(|unit| unit.reads.iter().any(|path| changed(path)))
        .cloned()
        .collect()
}

/// Whether the layer `uid` owns the file at `path` or keys in it.
pub fn owns(resolution: &Resolution, uid: &str, path: &str) -> bool {
    let file = resolution.files.get(path);
    let keys = resolution.keys.get(path);
    file.is_some_and(|file| file.by == uid)
        || keys.is_some_and(|keys| keys.values.values().any(|key| key.by == uid))
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

/// What was left as somebody else had changed it, in a sentence; empty when nothing was.
pub fn left_alone(foreign: &[String]) -> String {
    if foreign.is_empty() {
        return String::new();
    }
    format!(
        "somebody else changed and so left as found: {}",
        foreign.join(", ")
    )
}

/// What has to be done by hand for now, in a sentence; empty when nothing has.
pub fn to_reload(units: &[Unit]) -> String {
    let sentence = |unit: &Unit| {
        let Unit {
            name,
            action,
            reads,
        } = unit;
        let verb = match action {
            Action::Reload => "reload",
            Action::Restart => "restart",
        };
        format!(
            "{name} has yet to reread {}: {verb} it on the node",
            reads.join(", ")
        )
    };
    sentences(units.iter().map(sentence))
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
