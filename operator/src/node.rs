//! The node controller: the one writer of `NodeState.status`. One task a node, so that a node that
//! is away holds up no other.
//!
//! What a node has is what its agent says when it is asked, never what a status says: each look
//! begins with a hello, and whatever differs from the desired state is pushed whole.

pub mod command;
mod compose;
pub mod orphan;
mod pace;
mod planned;
pub(crate) mod proof;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::cache::Change;
use crate::context::Context;
use crate::metrics::NodeLabels;
use crate::pki::Identity;

/// How many nodes are worked on at once: bounds memory, since each push may have megabytes.
const CONCURRENCY: usize = 32;

/// How many more may wait for a firewall to be proven: what is pushed to them stays in memory.
const WAITING: usize = 64;

/// Runs until the term ends; pushes that are under way then are done first.
///
/// `identity` is the operator's certificate, once there is one.
pub async fn run(
    context: Context,
    mut identity: watch::Receiver<Option<Arc<Identity>>>,
) -> anyhow::Result<()> {
    let mut changes = context.cache.changes();
    context.cache.synced().await?;
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut workers: HashMap<String, Arc<Notify>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut facts = context.cache.facts();
    loop {
        for state in context.cache.states.state() {
            let node = edict_crds::name(&*state).to_owned();
            workers.entry(node.clone()).or_insert_with(|| {
                let wake = Arc::new(Notify::new());
                tasks.spawn(worker::run(
                    context.clone(),
                    identity.clone(),
                    node,
                    wake.clone(),
                    permits.clone(),
                    waiting.clone(),
                ));
                wake
            });
        }
        count(&context);
        let affected = tokio::select! {
            // First: the others end with the parts that end then, and that is no reason not to hear
            // out what is being pushed.
            biased;
            () = context.term.stop.cancelled() => break,
            change = changes.recv() => match change {
                Ok(Change::NodeState(node) | Change::Agent(node)) => Some(node),
                Ok(Change::Fleet | Change::Revision | Change::Listed)
                | Err(RecvError::Lagged(_)) => None,
                // Of nodes only their addresses are of interest here, to every node's firewall.
                Ok(Change::Node) => {
                    let now = context.cache.facts();
                    if now == facts {
                        continue;
                    }
                    facts = now;
                    None
                }
                Ok(_) => continue,
                Err(RecvError::Closed) => anyhow::bail!("the cache has ended"),
            },
            changed = identity.changed() => {
                changed?;
                None
            }
            Some(ended) = tasks.join_next() => {
                workers.remove(&ended?);
                continue;
            }
        };
        for (node, wake) in &workers {
            if affected.as_ref().is_none_or(|affected| affected == node) {
                wake.notify_one();
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

fn count(context: &Context) {
    let mut counts = HashMap::from([
        ("Ready", 0),
        ("Unreachable", 0),
        ("NoAgent", 0),
        ("AgentTooOld", 0),
        ("Unknown", 0),
    ]);
    for state in context.cache.states.state() {
        *counts
            .entry(worker::word(
                state.status.as_ref().and_then(|status| status.state),
            ))
            .or_default() += 1;
    }
    for (state, count) in counts {
        context
            .metrics
            .nodes
            .get_or_create(&NodeLabels { state })
            .set(count);
    }
}
