//! `Fleet.status`. Pure.

#[cfg(test)]
mod tests;

use edict_core::catalogue;
use edict_crds::fleet::{READY, State};
use edict_crds::{Fleet, FleetStatus};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::roll::Plan;

/// The status of a Fleet whose agents are those of `daemonset`, with what an update of them is at.
pub fn installed(
    fleet: &Fleet,
    daemonset: &DaemonSet,
    plan: Option<&Plan<'_>>,
    now: Timestamp,
) -> FleetStatus {
    let observed = daemonset.status.clone().unwrap_or_default();
    let seen = observed.observed_generation == daemonset.metadata.generation;
    let desired = observed.desired_number_scheduled;
    let ready = observed.number_ready;
    // What the controller has not seen yet is on no node.
    let updated = observed
        .updated_number_scheduled
        .filter(|_| seen)
        .unwrap_or(0);
    let count = |number| u32::try_from(number).unwrap_or(0);
    let mut message = format!("{ready} of {desired} agents run");
    let state = if seen && desired > 0 && ready == desired && updated == desired {
        State::Ready
    } else if let Some((agent, why)) = plan.and_then(Plan::halted) {
        message = format!(
            "the agent of node {} does not come up, pod {}: {why}. No other is replaced until it does, \
             or until the Fleet names another image. {message}, {updated} updated",
            agent.node, agent.pod,
        );
        State::Halted
    } else {
        if updated < desired {
            message = format!("{message}, {updated} updated");
        }
        if let Some(awaited) = plan.and_then(awaited) {
            message = format!("{message}; {awaited}");
        }
        State::Progressing
    };
    if let Some(violation) =
        catalogue::check(fleet.spec.commands.as_deref().unwrap_or_default()).first()
    {
        message = format!("{message}; spec.{violation}");
    }
    FleetStatus {
        agents: count(desired),
        ready: count(ready),
        updated: count(updated),
        ..status(fleet, state, message, now)
    }
}

/// The status of a Fleet that is being deleted, and what that waits for.
pub fn removing(fleet: &Fleet, why: String, now: Timestamp) -> FleetStatus {
    status(fleet, State::Removing, why, now)
}

/// What an update waits for, in words.
fn awaited(plan: &Plan<'_>) -> Option<String> {
    if let Some((agent, why)) = plan.trouble() {
        return Some(format!("node {}, pod {}: {why}", agent.node, agent.pod));
    }
    let first = plan.awaited.iter().chain(&plan.replace).next();
    match first {
        Some(agent) => Some(format!("node {} is on its way", agent.node)),
        None if plan.missing > 0 => Some(format!("{} nodes have no pod yet", plan.missing)),
        None => {
            let away = plan.away.first()?;
            Some(format!("node {} is away", away.node))
        }
    }
}

fn status(fleet: &Fleet, state: State, message: String, now: Timestamp) -> FleetStatus {
    let condition = if state == State::Ready {
        "True"
    } else {
        "False"
    };
    let before = fleet.status.as_ref();
    let mut earlier = before.into_iter().flat_map(|status| &status.conditions);
    let same = earlier.find(|one| one.type_ == READY && one.status == condition);
    FleetStatus {
        observed_generation: fleet.metadata.generation,
        state: Some(state),
        conditions: vec![Condition {
            type_: READY.to_owned(),
            status: condition.to_owned(),
            reason: format!("{state:?}"),
            message,
            observed_generation: fleet.metadata.generation,
            last_transition_time: same.map_or(Time(now), |condition| {
                condition.last_transition_time.clone()
            }),
        }],
        ..FleetStatus::default()
    }
}
