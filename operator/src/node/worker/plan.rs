//! What those that are only planned would change on the node.

use std::time::Instant;

use edict_core::digest;
use edict_core::wire::Hello;
use edict_crds::nodestate::LayerRef;
use edict_crds::{NodeState, NodeStateStatus};
use tokio::sync::Semaphore;

use super::Worker;
use crate::agent::Error;
use crate::node::planned;

impl Worker {
    /// Asks what those that are only planned would change on this node, and adds that to its status. What
    /// is to be in force does not wait for it: a plan that can't be made is said, and nothing else.
    pub(super) async fn plan(
        &mut self,
        state: &NodeState,
        hello: &Hello,
        mut status: NodeStateStatus,
        permits: &Semaphore,
    ) -> anyhow::Result<()> {
        let wanted = &state.spec.plans;
        self.plans.retain(wanted);
        let (policy, facts) = (self.context.cache.policy(), self.context.cache.facts());
        // What the node has now, and what somebody else has changed there, makes another plan.
        let has = digest::of(&(&status.layers, &status.releases));
        let changes = hello.drifts.as_ref().map(|drifts| &drifts.list);
        let last = |plan: &LayerRef| {
            let mut said = status.plans.iter();
            said.find(|said| said.uid == plan.uid).cloned()
        };
        let began = Instant::now();
        let mut plans = Vec::new();
        for reference in wanted {
            let asked = match self.revision(&reference.revision).await {
                Ok((config, contents)) => planned::question(
                    &self.node, reference, config, contents, hello, &policy, &facts,
                ),
                Err(error) => Err(Box::new(planned::failed(reference, &format!("{error:#}")))),
            };
            let push = match asked {
                Ok(push) => push,
                Err(said) => {
                    // It is what was said last from now on.
                    plans.push(self.plans.keep(String::new(), *said, planned::AGAIN));
                    continue;
                }
            };
            let asked = digest::of(&(&push.digest, wanted.len(), &has, changes));
            let known = self.plans.known(&reference.uid, &asked, Instant::now());
            let over = began.elapsed() > planned::WITHIN || self.context.term.stop.is_cancelled();
            // It has as many megabytes as a push.
            let permit = permits.try_acquire().ok().filter(|_| !over);
            let Some(_permit) = permit.filter(|_| known.is_none()) else {
                plans.extend(known.or_else(|| last(reference)));
                continue;
            };
            let push = push.fenced(hello.wire, self.context.term.fences.next());
            let answer = match self.agent() {
                Ok(agent) => agent.plan(&push).await,
                Err(error) => Err(error),
            };
            let (said, lasts) = match answer {
                Ok(planned) => {
                    let said = planned::answer(reference, planned, wanted.len());
                    (said, planned::AGAIN)
                }
                // What it does just now makes another plan.
                Err(Error::Busy) => {
                    plans.extend(last(reference));
                    continue;
                }
                Err(error) => {
                    let lost = matches!(error, Error::Connection(_));
                    let failed = || planned::failed(reference, &error.to_string());
                    // Who is away for a moment has said something before.
                    let said = last(reference).filter(|_| lost).unwrap_or_else(failed);
                    if lost {
                        self.connection = None;
                    }
                    (said, planned::RETRY)
                }
            };
            plans.push(self.plans.keep(asked, said, lasts));
        }
        if status.plans == plans {
            return Ok(());
        }
        // What stands there is what was written a moment ago, which the cache may not know yet.
        status.plans = plans;
        self.patch(state, status).await
    }
}
