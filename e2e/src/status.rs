//! What a `NodeConfig` says of itself and of its nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edict_crds::nodeconfig::{NodeSummary, State, condition};
use edict_crds::{NodeConfig, NodeConfigStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;

use crate::context::Context;
use crate::wait::{self, Seen};

/// Waits until the status of a `NodeConfig` speaks of its present generation and `holds`.
pub async fn reach(
    ctx: &Context,
    name: &str,
    what: &str,
    deadline: Duration,
    holds: impl Fn(&NodeConfigStatus) -> bool,
) -> Result<NodeConfigStatus> {
    let api: Api<NodeConfig> = Api::all(ctx.client.clone());
    wait::until(&format!("{name}: {what}"), deadline, async || {
        let config = api.get(name).await?;
        let generation = config.metadata.generation;
        Ok(match config.status {
            Some(status) if status.observed_generation == generation && holds(&status) => {
                Seen::Done(status)
            }
            other => Seen::NotYet(format!("generation {generation:?}, {other:?}")),
        })
    })
    .await
}

/// Waits until the operator refuses a `NodeConfig`, and gives the message of the condition
/// Accepted.
pub async fn refused(ctx: &Context, name: &str, deadline: Duration) -> Result<String> {
    let status = reach(ctx, name, "to be refused", deadline, |status| {
        status.state == Some(State::Refused)
    })
    .await?;
    let accepted = of_type(&status, condition::ACCEPTED)?;
    ensure!(
        accepted.status == "False" && accepted.reason == "Refused",
        "{accepted:?}"
    );
    Ok(accepted.message.clone())
}

/// The condition of a type.
pub fn of_type<'a>(status: &'a NodeConfigStatus, kind: &str) -> Result<&'a Condition> {
    let mut conditions = status.conditions.iter();
    conditions
        .find(|condition| condition.type_ == kind)
        .with_context(|| format!("no condition {kind} in {status:?}"))
}

/// What is said of a node that is not there yet.
pub fn of_node<'a>(status: &'a NodeConfigStatus, node: &str) -> Option<&'a NodeSummary> {
    status.nodes.iter().find(|summary| summary.name == node)
}

/// Whether a node is said to be in this state, for a reason that has all of `words` in it.
pub fn says(status: &NodeConfigStatus, node: &str, state: State, words: &[&str]) -> bool {
    of_node(status, node).is_some_and(|summary| {
        summary.state == state && words.iter().all(|word| summary.message.contains(word))
    })
}
