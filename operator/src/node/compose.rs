//! What one node's agent is to be told, and what its answer means. Pure.

use edict_core::config::Config;
use edict_core::config::firewall::Facts;
use edict_core::content::Contents;
use edict_core::guard::{Policy, Violation, text};
use edict_core::layer::{self, Drift, Layer, Restarts};
use edict_core::wire::{self, Hello, LayerReport, Outcome, Push, Release, Report};
use edict_crds::nodestate::{
    ConflictStatus, Contact, DriftStatus, LayerRef, LayerStatus, OutcomeStatus, ReleaseStatus,
    ResourceStatus,
};
use edict_crds::{NodeState, NodeStateSpec, NodeStateStatus};

/// The most bytes of one message in a status.
pub(super) const MESSAGE_MAX: usize = 2048;
/// The most entries that a status lists of one layer's conflicts and units.
pub(super) const ENTRIES_MAX: usize = 64;
/// The most resources that a status lists. With 512 bytes of path each they stay far below the
/// 256 KiB that a `NodeState` may have.
const RESOURCES_MAX: usize = 256;

/// A desired state, and what was left out of it.
pub struct Composed {
    /// What to push.
    pub push: Push,
    /// Layers that the guard refuses here: the agent is not told of them.
    pub refused: Vec<LayerStatus>,
}

/// Why a node's agent can't be told what it should have.
#[derive(Debug, PartialEq, Eq)]
pub struct TooOld(pub String);

/// Composes the desired state of `node`.
///
/// `layers` are those of the spec, each with its configuration. `orphans` are layers that the agent
/// has and that nobody names any more; they leave with the policy that the agent stored.
pub fn compose(
    node: &str,
    spec: &NodeStateSpec,
    layers: Vec<(LayerRef, Config, Contents)>,
    orphans: &[wire::Held],
    hello: &Hello,
    policy: &Policy,
    facts: &Facts,
) -> Result<Composed, TooOld> {
    // One that is newer by one speaks our version too.
    if !(wire::OLDEST..=wire::VERSION + 1).contains(&hello.wire) {
        let (theirs, ours, oldest) = (hello.wire, wire::VERSION, wire::OLDEST);
        let older = if theirs < oldest {
            "the Fleet's agent image"
        } else {
            "the operator"
        };
        return Err(TooOld(format!(
            "the agent speaks wire version {theirs}, this operator {oldest} to {ours}: update {older}"
        )));
    }
    let mut refused = Vec::new();
    let mut accepted = Vec::new();
    for (reference, config, contents) in layers {
        match layer(&reference, config, contents, hello, policy, facts)? {
            Ok(layer) => accepted.push(layer),
            Err((digest, violations)) => {
                refused.push(refusal(&reference, &digest, &violations));
            }
        }
    }
    let named = spec.releases.iter().map(|release| Release {
        uid: release.uid.clone(),
        name: release.name.clone(),
        policy: release.policy,
    });
    let orphaned = orphans.iter().map(|held| Release {
        uid: held.uid.clone(),
        name: held.name.clone(),
        policy: held.deletion_policy,
    });
    let releases = named.chain(orphaned).collect();
    Ok(Composed {
        push: push(node, policy, accepted, releases),
        refused,
    })
}

/// A push with as much of the policy as its layers need: who runs no command is told of none.
pub(super) fn push(
    node: &str,
    policy: &Policy,
    layers: Vec<Layer>,
    releases: Vec<Release>,
) -> Push {
    let names: Vec<_> = layers
        .iter()
        .flat_map(|layer| layer.config.command_names())
        .collect();
    let policy = policy.with_commands_of(&names);
    Push::new(node.to_owned(), policy, layers, releases)
}

/// A layer as this agent is told of it; its digest and what is wrong with it, where the guard refuses it.
pub(super) fn layer(
    reference: &LayerRef,
    config: Config,
    contents: Contents,
    hello: &Hello,
    policy: &Policy,
    facts: &Facts,
) -> Result<Result<Layer, (String, Vec<Violation>)>, TooOld> {
    let lacks = |block: &&str| !hello.blocks.iter().any(|known| known == block);
    if let Some(block) = config.needs().find(lacks) {
        let name = &reference.name;
        return Err(TooOld(format!(
            "the agent does not know {block} of NodeConfig {name}: update the Fleet's agent image"
        )));
    }
    let violations = config.check(policy, &contents);
    let digest = layer::digest(&config, &contents);
    if !violations.is_empty() {
        return Ok(Err((digest, violations)));
    }
    Ok(Ok(Layer {
        uid: reference.uid.clone(),
        name: reference.name.clone(),
        priority: reference.priority,
        created: reference.created.0,
        digest,
        deletion_policy: reference.deletion_policy,
        // An older agent restarts nothing, and would not know what this is.
        restarts: if hello.wire >= wire::UNITS {
            reference.restarts
        } else {
            Restarts::Allowed
        },
        // An older agent corrects with each push, and would not know what this is.
        drift: if hello.drifts.is_some() {
            reference.drift
        } else {
            Drift::Correct
        },
        // An older agent holds nothing, and would not know what this is.
        retry: reference
            .retry
            .clone()
            .filter(|_| hello.wire >= wire::HOLDS),
        facts: config.firewall.is_some().then(|| facts.clone()),
        config,
        contents,
    }))
}

/// The layers that the agent has and that the spec names neither as layers, planned or not, nor as
/// releases.
pub fn orphans(spec: &NodeStateSpec, hello: &Hello) -> Vec<wire::Held> {
    let named = |uid: &str| {
        let mut layers = spec.layers.iter().chain(&spec.plans);
        layers.any(|layer| layer.uid == uid)
            || spec.releases.iter().any(|release| release.uid == uid)
    };
    hello
        .layers
        .iter()
        .filter(|held| !named(&held.uid))
        .cloned()
        .collect()
}

fn refusal(reference: &LayerRef, digest: &str, violations: &[Violation]) -> LayerStatus {
    LayerStatus {
        uid: reference.uid.clone(),
        name: reference.name.clone(),
        digest: digest.to_owned(),
        priority: Some(reference.priority),
        deletion_policy: Some(reference.deletion_policy),
        restarts: Some(reference.restarts),
        drift: Some(reference.drift),
        retry: reference.retry.clone(),
        in_force: None,
        outcome: OutcomeStatus::Refused,
        message: message("", violations),
        conflicts: Vec::new(),
        pending: Vec::new(),
    }
}

/// The status that a report makes: bounded in size, credentials masked.
///
/// `state` is the `NodeState` that the report answers.
pub fn status(
    state: &NodeState,
    hello: &Hello,
    report: &Report,
    refused: Vec<LayerStatus>,
) -> NodeStateStatus {
    let given = |uid: &str| state.spec.layers.iter().find(|layer| layer.uid == uid);
    let layers = report.layers.iter().map(|layer| LayerStatus {
        uid: layer.uid.clone(),
        name: layer.name.clone(),
        digest: layer.digest.clone(),
        priority: given(&layer.uid).map(|given| given.priority),
        deletion_policy: given(&layer.uid).map(|given| given.deletion_policy),
        restarts: given(&layer.uid).map(|given| given.restarts),
        drift: given(&layer.uid).map(|given| given.drift),
        retry: given(&layer.uid).and_then(|given| given.retry.clone()),
        in_force: layer.in_force.clone(),
        outcome: layer.into(),
        message: match layer.outcome {
            Outcome::PendingReload if layer.message.is_empty() => {
                format!(
                    "written; {} still runs with what it read before",
                    layer.pending.join(", ")
                )
            }
            _ => message(&layer.message, &layer.violations),
        },
        conflicts: conflicts(report, layer, ENTRIES_MAX),
        pending: layer.pending.iter().take(ENTRIES_MAX).cloned().collect(),
    });
    let refused_uids: Vec<_> = refused.iter().map(|layer| layer.uid.clone()).collect();
    let mut layers: Vec<_> = layers
        .filter(|layer| !refused_uids.contains(&layer.uid))
        .chain(refused)
        .collect();
    layers.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut in_force: Vec<_> = report
        .layers
        .iter()
        .filter(|layer| layer.in_force.is_some())
        .map(|layer| layer.name.as_str())
        .collect();
    in_force.sort_unstable();
    let releases = report.releases.iter().map(|release| ReleaseStatus {
        uid: release.uid.clone(),
        name: release.name.clone(),
        done: release.done,
        message: cut(&text::mask(&release.message)),
    });
    let resources = report
        .resources
        .iter()
        .take(RESOURCES_MAX)
        .map(|resource| ResourceStatus {
            path: resource.path.clone(),
            key: resource.key.clone(),
            owner: resource.owner.clone(),
            result: ResourceStatus::result(resource.result),
        });
    NodeStateStatus {
        observed_generation: state.metadata.generation,
        state: Some(Contact::Ready),
        message: String::new(),
        configs: cut(&in_force.join(", ")),
        agent_version: Some(hello.version.clone()),
        last_contact: None,
        layers,
        releases: releases.collect(),
        resources: resources.collect(),
        resources_cut: u32::try_from(report.resources.len().saturating_sub(RESOURCES_MAX))
            .ok()
            .filter(|more| *more > 0),
        drift: drift(hello),
        // These are asked for apart, and added.
        plans: Vec::new(),
        commands: Vec::new(),
    }
}

/// What others have that a layer wanted too, so many of it at most.
pub(super) fn conflicts(report: &Report, layer: &LayerReport, most: usize) -> Vec<ConflictStatus> {
    let name = |uid: &str| {
        let mut layers = report.layers.iter();
        layers.find(|layer| layer.uid == uid)
    };
    let conflicts = layer.conflicts.iter().take(most);
    let said = conflicts.map(|conflict| ConflictStatus {
        path: conflict.path.clone(),
        key: conflict.key.as_ref().map(ToString::to_string),
        winner: if conflict.winner_name.is_empty() {
            name(&conflict.winner).map_or_else(String::new, |layer| layer.name.clone())
        } else {
            conflict.winner_name.clone()
        },
    });
    said.collect()
}

/// What somebody else has changed, as the agent says it.
fn drift(hello: &Hello) -> Vec<DriftStatus> {
    let list = hello.drifts.iter().flat_map(|drifts| &drifts.list);
    let masked = |said: &str| cut(&text::mask(said));
    list.take(ENTRIES_MAX)
        .map(|drifted| DriftStatus::of(drifted, &masked))
        .collect()
}

/// Every violation where there are some: they say more than the agent's own summary of them.
pub(super) fn message(said: &str, violations: &[Violation]) -> String {
    if violations.is_empty() {
        return cut(&text::mask(said));
    }
    let violations: Vec<_> = violations
        .iter()
        .map(|violation| format!("spec.{violation}"))
        .collect();
    cut(&text::mask(&violations.join("; ")))
}

pub(super) fn cut(text: &str) -> String {
    cut_to(text, MESSAGE_MAX)
}

/// At most so many characters, and a mark where more are left out.
pub(super) fn cut_to(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
