//! Who leads: one operator at a time plans and pushes, by a Lease of Edict's namespace.
//!
//! A Lease alone is no proof: an operator that stood still does not know that its time is over. So
//! whoever becomes leader takes a higher **epoch**, kept in an annotation of the Lease, and every
//! push carries it: agents do nothing for an epoch below the highest that they have seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use edict_core::wire::{Fence, Hello};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The name of the Lease.
pub const NAME: &str = "edict-operator";
/// The annotation with the epoch of whoever led last.
pub const EPOCH: &str = "edict.dev/epoch";
/// How long a leader that says nothing is believed, as Kubernetes' own controllers have it.
const DURATION: Duration = Duration::from_secs(15);
/// How long before that the leader renews.
const GRACE: Duration = Duration::from_secs(5);
/// How often the leader looks whether it still is, and whoever wants to be one asks again.
const LOOK: Duration = Duration::from_secs(3);

/// The fences of one leader's pushes.
#[derive(Debug)]
pub struct Fences {
    epoch: u64,
    sequence: AtomicU64,
}

impl Fences {
    /// Those of the leader of `epoch`.
    pub fn new(epoch: u64) -> Self {
        let sequence = AtomicU64::new(0);
        Self { epoch, sequence }
    }

    /// Whether the agent that says hello refuses whoever led before.
    pub fn are_known_to(&self, agent: &Hello) -> bool {
        // One that knows no fences learns nothing from another push.
        agent.fence.is_none_or(|seen| seen.epoch == self.epoch)
    }

    /// The next one, greater than all before.
    pub fn next(&self) -> Fence {
        Fence {
            epoch: self.epoch,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

/// The time for which this operator leads, as the controllers see it.
#[derive(Debug)]
pub struct Term {
    /// Numbers the pushes.
    pub fences: Fences,
    /// Nothing is begun any more; what is under way is done to its end.
    pub stop: CancellationToken,
    /// Another operator may lead already: nothing is written to the API server any more.
    pub over: CancellationToken,
    fenced: mpsc::UnboundedSender<u64>,
}

impl Term {
    /// The term of `epoch`, and the epochs that agents hold against it.
    pub fn new(epoch: u64) -> (Self, mpsc::UnboundedReceiver<u64>) {
        let (fenced, told) = mpsc::unbounded_channel();
        let term = Self {
            fences: Fences::new(epoch),
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            fenced,
        };
        (term, told)
    }

    /// Says that an agent has seen the higher `epoch`.
    pub fn fenced(&self, epoch: u64) {
        // Nobody listens once it is known that the term ends.
        let _ = self.fenced.send(epoch);
    }
}

/// Being the leader.
pub struct Leadership {
    /// What this leader's pushes carry.
    pub epoch: u64,
    api: Api<Lease>,
    identity: String,
    holds: watch::Receiver<bool>,
    renewal: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

/// Waits until this operator, `identity`, leads.
pub async fn acquire(
    client: &Client,
    namespace: &str,
    identity: &str,
) -> anyhow::Result<Leadership> {
    let manager = loop {
        let manager = LeaseManagerBuilder::new(client.clone(), NAME)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_field_manager(NAME)
            .with_duration(DURATION.as_secs())
            .with_grace(GRACE.as_secs())
            .build()
            .await;
        match manager {
            Ok(manager) => break manager,
            // Whoever ends is started anew, after longer and longer pauses.
            Err(LeaseManagerError::KubeError(error)) if may_pass(&error) => {
                later("cannot use the Lease yet", &error).await;
            }
            Err(error) => return Err(error).context("cannot use the Lease"),
        }
    };
    let (mut holds, renewal) = manager.watch().await;
    let held = holds.wait_for(|holds| *holds).await.map(drop);
    held.context("the Lease is not looked after any more")?;
    let api = Api::namespaced(client.clone(), namespace);
    let epoch = raise(&api, identity, 0).await?;
    Ok(Leadership {
        epoch,
        api,
        identity: identity.to_owned(),
        holds,
        renewal,
    })
}

impl Leadership {
    /// Returns when this operator leads no more, or can't tell any longer that it does; with why.
    pub async fn lost(&mut self) -> String {
        let mut confirmed = Instant::now();
        loop {
            tokio::select! {
                changed = self.holds.changed() => {
                    if changed.is_err() || !*self.holds.borrow_and_update() {
                        return "the Lease is not renewed any more".to_owned();
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            match timeout(LOOK, self.api.get(NAME)).await {
                Ok(Ok(lease)) if holder(&lease) == Some(&*self.identity) => {
                    if has_run_out(&lease, Timestamp::now()) {
                        return "the Lease has run out: it could not be renewed".to_owned();
                    }
                    confirmed = Instant::now();
                }
                Ok(Ok(lease)) => {
                    let other = holder(&lease).unwrap_or("nobody");
                    return format!("{other} holds the Lease");
                }
                _ if confirmed.elapsed() < DURATION => {}
                Ok(Err(error)) => return format!("the Lease can't be read: {error}"),
                Err(_) => return "the API server does not answer".to_owned(),
            }
        }
    }

    /// Sees to it that the next leader is believed, after an agent has seen an epoch that the Lease
    /// does not know: somebody deleted it.
    pub async fn skip(&self, epoch: u64) -> anyhow::Result<()> {
        timeout(DURATION, raise(&self.api, &self.identity, epoch))
            .await
            .context("the epoch can't be written to the Lease in time")?
            .map(drop)
    }

    /// Leaves the Lease as it is: it may be another one's. Merely dropped, its renewal would let go
    /// of it, whoever holds it by now.
    pub async fn abandon(self) {
        self.renewal.abort();
        // All that there is to hear is that it was told to.
        drop(self.renewal.await);
    }

    /// Lets go of the Lease: whoever waits finds it free at the next look, when it would have ended.
    pub async fn release(self) -> anyhow::Result<()> {
        drop(self.holds);
        let released = timeout(DURATION, self.renewal)
            .await
            .context("the Lease can't be released in time")?;
        released
            .context("the Lease's renewal panicked")?
            .context("the Lease can't be released")?;
        Ok(())
    }
}

/// Whether the same may go well a moment later.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
        _ => true,
    }
}

/// Says what has to wait, and waits.
async fn later(what: &str, error: &kube::Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "{what}");
    tokio::time::sleep(LOOK).await;
}

/// Whether the Lease was not renewed in time, so that it is anybody's.
fn has_run_out(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else {
        return true;
    };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else {
        return true;
    };
    now.duration_since(renewed.0) > SignedDuration::from_secs(seconds.into())
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

/// Raises the epoch of the Lease above all before and to more than `least`; answers with it.
///
/// An API server that can't follow is asked again until it can, or until another one has the Lease.
///
/// It begins at the second in which the Lease was made, so that a Lease that is deleted and made
/// anew names no epoch twice: no operator leads for less than a second.
async fn raise(api: &Api<Lease>, identity: &str, least: u64) -> anyhow::Result<u64> {
    loop {
        let lease = match api.get(NAME).await {
            Ok(lease) => lease,
            Err(error) if may_pass(&error) => {
                later("cannot read the Lease yet", &error).await;
                continue;
            }
            Err(error) => return Err(error).context("cannot read the Lease"),
        };
        anyhow::ensure!(
            holder(&lease) == Some(identity),
            "another operator has taken the Lease meanwhile"
        );
        let created = lease.creation_timestamp();
        let created = created.map_or(0, |time| time.0.as_second().try_into().unwrap_or(0));
        let named = lease.annotations().get(EPOCH).map(String::as_str);
        let epoch = next(named, least.max(created))?;
        // Only as long as it is the one that was seen: of two that raise it, one reads again.
        let patch = json!({"metadata": {
            "resourceVersion": lease.metadata.resource_version,
            "annotations": {EPOCH: epoch.to_string()},
        }});
        match api
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => return Ok(epoch),
            Err(error) if may_pass(&error) => {
                later("cannot write the epoch to the Lease yet", &error).await;
            }
            Err(error) => return Err(error).context("cannot write the epoch to the Lease"),
        }
    }
}

/// The epoch after the one that the Lease names and after `least`.
fn next(named: Option<&str>, least: u64) -> anyhow::Result<u64> {
    let last: u64 = match named {
        None => 0,
        Some(text) => text.parse().with_context(|| {
            format!("the annotation {EPOCH} of Lease {NAME} is {text:?} and no number: remove it")
        })?,
    };
    last.max(least)
        .checked_add(1)
        .context("there are no more epochs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leader_has_a_higher_epoch() {
        assert_eq!(next(None, 0).unwrap(), 1);
        assert_eq!(next(Some("41"), 0).unwrap(), 42);
        assert_eq!(next(Some("3"), 41).unwrap(), 42);
        assert_eq!(next(None, 41).unwrap(), 42);
        for odd in ["", "-1", "x", "18446744073709551615"] {
            assert!(next(Some(odd), 0).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_lease_that_is_not_renewed_runs_out() {
        let lease = |spec| -> Lease { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let renewed = "2026-01-01T00:00:00.000000Z";
        let now: Timestamp = renewed.parse().unwrap();
        let held = lease(json!({"renewTime": renewed, "leaseDurationSeconds": 15}));
        for (seconds, out) in [(0, false), (15, false), (16, true)] {
            let then = now + SignedDuration::from_secs(seconds);
            assert_eq!(has_run_out(&held, then), out, "after {seconds} s");
        }
        for odd in [json!({}), json!({"renewTime": renewed}), json!(null)] {
            assert!(has_run_out(&lease(odd.clone()), now), "{odd}");
        }
    }

    #[test]
    fn every_push_has_a_greater_fence() {
        let fences = Fences::new(3);
        let [first, second] = [fences.next(), fences.next()];
        assert!(first < second && second < Fences::new(4).next());
        assert_eq!(first.epoch, 3);
    }
}
