//! `NodeConfig.status`, summed from the `NodeState`s. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use edict_core::guard::Violation;
use edict_core::retry;
use edict_crds::nodeconfig::{NODES_MAX, NodeSummary, State, condition};
use edict_crds::nodestate::{Contact, LayerStatus, OutcomeStatus, PlanOutcome};
use edict_crds::{NodeConfig, NodeConfigStatus, NodeState, NodeStateStatus, name, uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::plan::Plan;
use crate::revision::Revision;

/// The longest message of one node in the summary, in characters; how to ask for another try comes
/// on top.
const NODE_MESSAGE_MAX: usize = 300;
/// The longest message of all, in characters.
const MESSAGE_MAX: usize = 2000;

/// The status that `config` is to have. Conditions that did not change keep their time.
pub fn summarize(
    config: &NodeConfig,
    plan: &Plan,
    states: &BTreeMap<&str, &NodeState>,
    now: Timestamp,
) -> NodeConfigStatus {
    let uid = uid(config);
    let refused = plan.refused.get(uid).map(Vec::as_slice).unwrap_or_default();
    let targets = plan.targets.get(uid).map(Vec::as_slice).unwrap_or_default();
    let revision = plan.revisions.get(uid);
    let digest = revision.map_or("", |revision| &revision.digest);
    let leaving = config.metadata.deletion_timestamp.is_some();
    let mut nodes: Vec<_> = targets
        .iter()
        .map(|node| {
            let state = states.get(node.as_str()).copied();
            let summary = match revision {
                Some(revision) if config.is_plan() => planned(uid, revision, state),
                _ => applied(config, digest, state),
            };
            node_summary(config, node, summary)
        })
        .collect();
    let count = |wanted: &[State]| {
        let count = nodes
            .iter()
            .filter(|node| wanted.contains(&node.state))
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let targeted = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let (applied, pending, failed, unreachable) = if refused.is_empty() {
        (
            count(&[State::Applied]),
            count(&[
                State::PendingReload,
                State::PendingRestart,
                State::Unread,
                State::Progressing,
                State::Planned,
            ]),
            count(&[
                State::CommandFailed,
                State::Failed,
                State::Held,
                State::Refused,
            ]),
            count(&[State::Unreachable]),
        )
    } else {
        (0, 0, targeted, 0)
    };
    nodes.sort_by(|a, b| b.state.cmp(&a.state).then_with(|| a.name.cmp(&b.name)));
    let remark = remark(&nodes);
    nodes.retain(|node| node.state != State::Applied && refused.is_empty());

    let (state, message) = if leaving {
        let holding = plan.holding.get(uid).map(Vec::as_slice).unwrap_or_default();
        (State::Releasing, releasing(holding, states, uid))
    } else if !refused.is_empty() {
        (State::Refused, sentence(refused))
    } else if targets.is_empty() {
        (
            State::NoNodes,
            "no node of the cluster is meant by spec.target".to_owned(),
        )
    } else {
        match nodes.first() {
            None if config.is_plan() => (State::Planned, remark),
            None => (State::Applied, remark),
            Some(worst) if worst.state == State::Planned => (State::Planned, alike(&nodes)),
            Some(worst) => (worst.state, overall(worst, &nodes)),
        }
    };
    let stays = stays(uid, targets, states);
    let message = if config.is_plan() && !leaving && !stays.is_empty() {
        format!("{message}; it would be given back by {}", list(&stays))
    } else {
        message
    };
    nodes.truncate(NODES_MAX);
    let conditions = conditions(
        config,
        refused,
        state,
        &message,
        &conflicts(config, targets, states),
        now,
    );
    NodeConfigStatus {
        observed_generation: config.metadata.generation,
        state: Some(state),
        message: cut(&message, MESSAGE_MAX),
        targeted,
        applied,
        pending,
        failed,
        unreachable,
        revision: revision.map(|revision| revision.name.clone()),
        nodes,
        conditions,
    }
}

/// Where a node stands that is to have it, and why.
fn applied(config: &NodeConfig, digest: &str, state: Option<&NodeState>) -> (State, String) {
    let uid = uid(config);
    let status = state.and_then(|state| state.status.as_ref());
    let layer = status.and_then(|status| status.layers.iter().find(|layer| layer.uid == uid));
    match (status.and_then(away), layer) {
        (Some(away), _) => away,
        (None, Some(layer)) if is_current(config, layer, digest) => {
            (outcome(layer), layer.message.clone())
        }
        _ => waiting(),
    }
}

/// Where a node stands that is only to say what it would change. What it said last of this revision
/// counts until it says something else.
fn planned(uid: &str, revision: &Revision, state: Option<&NodeState>) -> (State, String) {
    let status = state.and_then(|state| state.status.as_ref());
    if let Some(away) = status.and_then(away) {
        return away;
    }
    let plans = status.iter().flat_map(|status| &status.plans);
    let mut own = plans.filter(|plan| plan.uid == uid && plan.revision == revision.name);
    let Some(plan) = own.next() else {
        return waiting();
    };
    let state = match plan.outcome {
        PlanOutcome::Changes => State::Planned,
        PlanOutcome::Unchanged => State::Applied,
        PlanOutcome::Refused => State::Refused,
        PlanOutcome::Failed => State::Failed,
    };
    (state, plan.message.clone())
}

fn waiting() -> (State, String) {
    (
        State::Progressing,
        "waiting for the node's agent".to_owned(),
    )
}

/// What keeps a node from being told anything.
fn away(status: &NodeStateStatus) -> Option<(State, String)> {
    let state = match status.state? {
        Contact::Unreachable | Contact::NoAgent => State::Unreachable,
        Contact::AgentTooOld => State::Failed,
        Contact::Ready => return None,
    };
    Some((state, status.message.clone()))
}

/// The nodes that have it, and are not meant any more.
fn stays<'a>(
    uid: &str,
    targets: &[String],
    states: &BTreeMap<&'a str, &NodeState>,
) -> Vec<&'a str> {
    let others = states
        .iter()
        .filter(|(node, _)| !targets.iter().any(|target| target == *node));
    let have = others.filter(|(_, state)| state.spec.layers.iter().any(|layer| layer.uid == uid));
    have.map(|(node, _)| *node).collect()
}

fn node_summary(config: &NodeConfig, node: &str, (state, message): (State, String)) -> NodeSummary {
    // What to do is told whole, however long it takes to say why.
    let advice = retry::advice(name(config));
    let message = match message.strip_suffix(&advice) {
        Some(why) => cut(why, NODE_MESSAGE_MAX) + &advice,
        None => cut(&message, NODE_MESSAGE_MAX),
    };
    NodeSummary {
        name: node.to_owned(),
        state,
        message,
    }
}

/// Whether the agent was given what the `NodeConfig` says now, to the last field.
fn is_current(config: &NodeConfig, layer: &LayerStatus, digest: &str) -> bool {
    layer.digest == digest
        && layer.priority == Some(config.spec.priority.unwrap_or(0))
        && layer.deletion_policy == Some(config.spec.deletion_policy.unwrap_or_default())
        && layer.restarts.unwrap_or_default() == config.spec.restarts.unwrap_or_default()
        && layer.drift.unwrap_or_default() == config.spec.drift.unwrap_or_default()
        && layer.retry == config.retry()
}

fn outcome(layer: &LayerStatus) -> State {
    match layer.outcome {
        OutcomeStatus::Applied => State::Applied,
        OutcomeStatus::PendingReload => State::PendingReload,
        OutcomeStatus::PendingRestart => State::PendingRestart,
        OutcomeStatus::Unread => State::Unread,
        OutcomeStatus::Running => State::Progressing,
        OutcomeStatus::CommandFailed => State::CommandFailed,
        OutcomeStatus::Refused => State::Refused,
        OutcomeStatus::Failed => State::Failed,
        OutcomeStatus::Held => State::Held,
    }
}

/// What another `NodeConfig` has: a sentence for each, with how many nodes it holds for.
fn conflicts(
    config: &NodeConfig,
    targets: &[String],
    states: &BTreeMap<&str, &NodeState>,
) -> Vec<String> {
    let uid = uid(config);
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for node in targets {
        let status = states
            .get(node.as_str())
            .and_then(|state| state.status.as_ref());
        let plans = status.iter().flat_map(|status| &status.plans);
        let plans = plans.map(|plan| (&plan.uid, &plan.conflicts));
        let layers = status.iter().flat_map(|status| &status.layers);
        let layers = layers.map(|layer| (&layer.uid, &layer.conflicts));
        let all: Vec<_> = if config.is_plan() {
            plans.collect()
        } else {
            layers.collect()
        };
        let own = all.into_iter().filter(|(of, _)| *of == uid);
        for conflict in own.flat_map(|(_, conflicts)| conflicts) {
            let what = match &conflict.key {
                Some(key) => format!("key {key} in {}", conflict.path),
                None => format!("file {}", conflict.path),
            };
            *nodes
                .entry(format!("{what} belongs to NodeConfig {}", conflict.winner))
                .or_default() += 1;
        }
    }
    let on = |count| if count == 1 { "node" } else { "nodes" };
    nodes
        .into_iter()
        .map(|(what, count)| format!("{what} on {count} {}", on(count)))
        .collect()
}

fn conditions(
    config: &NodeConfig,
    refused: &[Violation],
    state: State,
    message: &str,
    conflicts: &[String],
    now: Timestamp,
) -> Vec<Condition> {
    let before = config
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let make = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let earlier = before
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: cut(message, MESSAGE_MAX),
            observed_generation: config.metadata.generation,
            last_transition_time: earlier.map_or(Time(now), |condition| {
                condition.last_transition_time.clone()
            }),
        }
    };
    let accepted = refused.is_empty();
    let says = sentence(refused);
    vec![
        make(
            condition::ACCEPTED,
            accepted,
            if accepted { "Accepted" } else { "Refused" },
            &says,
        ),
        make(
            condition::CONFLICT,
            !conflicts.is_empty(),
            if conflicts.is_empty() {
                "NoConflict"
            } else {
                "Conflict"
            },
            &conflicts.join("; "),
        ),
        make(
            condition::READY,
            state == State::Applied,
            &format!("{state:?}"),
            message,
        ),
    ]
}

fn sentence(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("spec.{violation}"))
        .collect::<Vec<_>>()
        .join("; ")
}

fn overall(worst: &NodeSummary, nodes: &[NodeSummary]) -> String {
    let alike = nodes.iter().filter(|node| node.state == worst.state);
    together(alike, &worst.message)
}

/// What would become of nodes: those of which the same is said together.
fn alike(nodes: &[NodeSummary]) -> String {
    let mut by_message: BTreeMap<&str, Vec<&NodeSummary>> = BTreeMap::new();
    for node in nodes {
        by_message.entry(&node.message).or_default().push(node);
    }
    let said = by_message
        .into_iter()
        .map(|(message, nodes)| together(nodes.into_iter(), message));
    said.collect::<Vec<_>>().join("; ")
}

/// What is to be said of nodes although they have it: a unit that is not there, for instance.
fn remark(nodes: &[NodeSummary]) -> String {
    let first = nodes.iter().find(|node| !node.message.is_empty());
    first.map_or_else(String::new, |first| {
        let alike = nodes.iter().filter(|node| node.message == first.message);
        together(alike, &first.message)
    })
}

/// Says something of these nodes.
fn together<'a>(nodes: impl Iterator<Item = &'a NodeSummary>, message: &str) -> String {
    let names: Vec<_> = nodes.map(|node| node.name.as_str()).collect();
    let mut said = list(&names);
    if !message.is_empty() {
        let _ = write!(said, ": {message}");
    }
    said
}

fn releasing(holding: &[String], states: &BTreeMap<&str, &NodeState>, uid: &str) -> String {
    if holding.is_empty() {
        return "every node that can be reached is as it was".to_owned();
    }
    let names: Vec<_> = holding.iter().map(String::as_str).collect();
    let mut message = format!("being given back: {}", list(&names));
    let status = |node: &String| {
        states
            .get(node.as_str())
            .and_then(|state| state.status.as_ref())
    };
    let releases = holding
        .iter()
        .filter_map(status)
        .flat_map(|status| &status.releases);
    if let Some(release) = releases
        .filter(|release| release.uid == uid)
        .find(|release| !release.message.is_empty())
    {
        let _ = write!(message, ": {}", release.message);
    }
    message
}

/// Up to five names, and how many more there are.
fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(5)].join(", ");
    match names.len() {
        0..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}

fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
