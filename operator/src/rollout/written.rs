//! The rollout controller's own writes, until the cache shows them.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edict_crds::{NodeConfig, NodeState};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tokio::sync::broadcast;

use super::Rollout;
use crate::cache::{self, Cache, Change};
use crate::context::Context;

/// How long the cache may lag behind what was written before the API server is asked about it.
const LAG_MAX: Duration = Duration::from_secs(10);

/// An object that was written, with the version that it had before; `None` where it was not there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    State(String, Option<String>),
    Config(String, Option<String>),
}

impl Written {
    /// Whether the cache shows what was written, or something later.
    fn is_seen(&self, cache: &Cache) -> bool {
        fn differs<K: ResourceExt>(found: Option<Arc<K>>, before: Option<&String>) -> bool {
            found.and_then(|found| found.resource_version()).as_ref() != before
        }
        match self {
            Self::State(name, before) => {
                differs(cache.states.get(&ObjectRef::new(name)), before.as_ref())
            }
            Self::Config(name, before) => {
                differs(cache.configs.get(&ObjectRef::new(name)), before.as_ref())
            }
        }
    }
}

impl Rollout {
    /// Returns when the cache shows what the last pass wrote: planned from what was before it, the
    /// next pass would write the same again, or something older.
    pub(super) async fn see_own_writes(
        &self,
        changes: &mut broadcast::Receiver<Change>,
    ) -> anyhow::Result<()> {
        let mut asked = Instant::now();
        loop {
            let unseen = {
                let mut written = self.written();
                written.retain(|one| !one.is_seen(&self.context.cache));
                written.clone()
            };
            if unseen.is_empty() {
                return Ok(());
            }
            if let Some(left) = LAG_MAX.checked_sub(asked.elapsed()) {
                cache::next(changes, left, |_| true).await?;
                continue;
            }
            tracing::warn!(?unseen, "the cache does not show what was written");
            for one in unseen {
                if self.is_current(&one).await {
                    self.written().retain(|other| *other != one);
                }
            }
            asked = Instant::now();
        }
    }

    /// Whether the cache has nothing to learn of an object: what was written may be gone again
    /// before the cache has seen it.
    async fn is_current(&self, written: &Written) -> bool {
        fn same<K: ResourceExt>(live: kube::Result<Option<K>>, cached: Option<Arc<K>>) -> bool {
            live.is_ok_and(|live| {
                let cached = cached.and_then(|cached| cached.resource_version());
                live.and_then(|live| live.resource_version()) == cached
            })
        }
        let Context { client, cache, .. } = &self.context;
        match written {
            Written::State(name, _) => {
                let live = Api::<NodeState>::all(client.clone()).get_opt(name).await;
                same(live, cache.states.get(&ObjectRef::new(name)))
            }
            Written::Config(name, _) => {
                let live = Api::<NodeConfig>::all(client.clone()).get_opt(name).await;
                same(live, cache.configs.get(&ObjectRef::new(name)))
            }
        }
    }

    fn written(&self) -> MutexGuard<'_, Vec<Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was written where it differs from what was there before.
    pub(super) fn wrote<K: ResourceExt>(
        &self,
        object: &K,
        before: Option<&String>,
        kind: fn(String, Option<String>) -> Written,
    ) {
        if object.resource_version().as_ref() != before {
            self.written()
                .push(kind(object.name_any(), before.cloned()));
        }
    }
}
