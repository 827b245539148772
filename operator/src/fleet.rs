//! The fleet controller: brings up what a Fleet needs, keeps it so, replaces agents that are
//! outdated, and takes everything away when the Fleet is deleted.

pub mod agents;
mod applied;
pub mod objects;
pub mod removal;
pub mod roll;
mod secret;
pub mod status;
pub mod trouble;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edict_crds::fleet::{FINALIZER, State};
use edict_crds::{Fleet, FleetStatus, uid};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use crate::cache::{self, Change};
use crate::context::Context;
use crate::event::reason;
use crate::pki::Identity;
use applied::{Applied, INTERVAL};

/// The field manager of everything that this controller writes.
const MANAGER: &str = "edict-fleet";
/// How often to look at what is being waited for: time alone can make a delay worth a word.
const LOOK: Duration = Duration::from_secs(5);
/// The wait after a failed pass.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until the cache ends; hands the operator's certificate on whenever there is a new one.
/// `default_image` is the agent's, for a Fleet that names none.
pub async fn run(
    context: Context,
    default_image: String,
    identities: watch::Sender<Option<Arc<Identity>>>,
) -> anyhow::Result<()> {
    let mut changes = context.cache.changes();
    context.cache.installation_synced().await?;
    let mut installation = Installation {
        context,
        default_image,
        identities,
        shown: String::new(),
        applied: None,
        deleted: BTreeSet::new(),
    };
    loop {
        while changes.try_recv().is_ok() {}
        let wait = match installation.pass().await {
            Ok(wait) => wait,
            Err(error) => {
                installation.context.failed("fleet", &error);
                RETRY
            }
        };
        let concerns = |change: &Change| !matches!(change, Change::Content);
        cache::next(&mut changes, wait, concerns).await?;
    }
}

struct Installation {
    context: Context,
    default_image: String,
    identities: watch::Sender<Option<Arc<Identity>>>,
    /// The operator's certificate that was handed on last.
    shown: String,
    applied: Option<Applied>,
    /// Uids of the agents' pods that were deleted and that the cache may show as if they were not.
    deleted: BTreeSet<String>,
}

impl Installation {
    /// Answers with how long to wait for the next pass if nothing changes.
    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let Some(fleet) = self.context.cache.fleet() else {
            return Ok(INTERVAL);
        };
        if fleet.metadata.deletion_timestamp.is_some() {
            return self.remove(&fleet).await;
        }
        if !fleet.finalizers().iter().any(|one| one == FINALIZER) {
            // Before anything is made: what is there then goes in order.
            let adopted = self.set_finalizer(&fleet, true).await;
            adopted.context("cannot adopt the Fleet")?;
            return Ok(LOOK);
        }
        let cached = self.daemonset();
        let applied = self.applied.as_ref();
        let daemonset = match applied
            .and_then(|applied| applied.holds(&fleet, cached.as_deref(), Instant::now()))
        {
            Some(daemonset) => daemonset,
            None => self.install(&fleet).await?,
        };
        self.roll(&fleet, &daemonset).await
    }

    /// The agents' `DaemonSet`, as the cache has it.
    fn daemonset(&self) -> Option<Arc<DaemonSet>> {
        let daemonsets = &self.context.cache.daemonsets;
        daemonsets.find(|daemonset| edict_crds::name(daemonset) == objects::AGENT)
    }

    /// Brings everything up, one after the other.
    async fn install(&mut self, fleet: &Fleet) -> anyhow::Result<DaemonSet> {
        self.applied = None;
        let certificates =
            secret::ensure(&self.context.client, &self.context.namespace, fleet).await?;
        if self.shown != certificates.operator.certificate {
            let identity = Identity::new(&certificates.authority, &certificates.operator)?;
            self.shown.clone_from(&certificates.operator.certificate);
            self.identities.send_replace(Some(Arc::new(identity)));
        }
        let objects = objects::Objects {
            fleet,
            namespace: &self.context.namespace,
            default_image: &self.default_image,
        };
        self.apply(&objects.service_account()).await?;
        self.apply(&objects.service()).await?;
        let daemonset = self.apply(&objects.daemonset()).await?;
        self.applied = Some(Applied::now(fleet, daemonset.clone()));
        Ok(daemonset)
    }

    async fn apply<K>(&self, object: &K) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let parameters = PatchParams::apply(MANAGER).force();
        let (api, patch) = (self.api::<K>(), Patch::Apply(object));
        let applied = api.patch(&name, &parameters, &patch).await;
        applied.with_context(|| format!("cannot apply {} {name}", K::kind(&())))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), &self.context.namespace)
    }

    /// Replaces agents that are outdated, as far as may be, and says how far that is.
    async fn roll(&mut self, fleet: &Fleet, daemonset: &DaemonSet) -> anyhow::Result<Duration> {
        let cache = &self.context.cache;
        let observed = agents::Observed {
            pods: cache.agents.state(),
            nodes: cache.nodes.state(),
            states: cache.states.state(),
            revisions: cache.revisions.state(),
        };
        let seen = |deleted: &String| observed.pods.iter().any(|pod| uid(&**pod) == deleted);
        self.deleted.retain(seen);
        let now = Timestamp::now();
        let agents = agents::observe(daemonset, &observed, &self.deleted, now);
        let plan = agents
            .as_ref()
            .map(|agents| roll::plan(&agents.all, agents.missing));
        let mut replaced = Ok(());
        for agent in plan.iter().flat_map(|plan| &plan.replace) {
            replaced = replaced.and(self.replace(agent).await);
        }
        let status = status::installed(fleet, daemonset, plan.as_ref(), now);
        let settled = status.state == Some(State::Ready);
        self.write_status(fleet, status).await?;
        replaced.map(|()| if settled { INTERVAL } else { LOOK })
    }

    /// Deletes an agent's pod. The agent ends what it is doing to its node, and another one comes.
    async fn replace(&mut self, agent: &roll::Agent) -> anyhow::Result<()> {
        let parameters = DeleteParams {
            // Only as long as it is the one that was planned from.
            preconditions: Some(Preconditions {
                uid: Some(agent.uid.clone()),
                resource_version: agent.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let (node, pod) = (&agent.node, &agent.pod);
        match self.api::<Pod>().delete(pod, &parameters).await {
            // It has changed meanwhile: the cache will say so, and the next pass plans anew.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
            result => {
                result.with_context(|| format!("cannot replace the agent of node {node}"))?;
                tracing::info!(node, pod, "agent replaced");
                self.deleted.insert(agent.uid.clone());
                Ok(())
            }
        }
    }

    async fn set_finalizer(&self, fleet: &Fleet, wanted: bool) -> anyhow::Result<()> {
        let others = fleet
            .finalizers()
            .iter()
            .filter(|other| *other != FINALIZER);
        let mut finalizers: Vec<_> = others.map(String::as_str).collect();
        finalizers.extend(wanted.then_some(FINALIZER));
        // A merge patch replaces the list: only as long as it is the one that was seen.
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "resourceVersion": fleet.metadata.resource_version,
            "uid": fleet.metadata.uid,
        }});
        let api = Api::<Fleet>::all(self.context.client.clone());
        let parameters = PatchParams::default();
        match api
            .patch(&fleet.name_any(), &parameters, &Patch::Merge(patch))
            .await
        {
            // It has changed meanwhile, or is gone: the cache will say so.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    async fn write_status(&self, fleet: &Fleet, status: FleetStatus) -> anyhow::Result<()> {
        if fleet.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = Api::<Fleet>::all(self.context.client.clone());
        let patch = json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "Fleet",
            "metadata": {"name": fleet.name_any(), "uid": fleet.metadata.uid}, "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(patch);
        match api
            .patch_status(&fleet.name_any(), &parameters, &patch)
            .await
        {
            // Gone, or another one of that name: the cache will say so.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                return Ok(());
            }
            result => result
                .map(drop)
                .context("cannot write the status of the Fleet")?,
        }
        self.announce(fleet, &status).await;
        Ok(())
    }

    /// Says in an Event what has become different.
    async fn announce(&self, fleet: &Fleet, status: &FleetStatus) {
        let before = fleet.status.clone().unwrap_or_default();
        let same = before.observed_generation == status.observed_generation;
        if before.state == status.state && (same || status.state == Some(State::Ready)) {
            return;
        }
        let said = status.conditions.first().map_or("", |one| &one.message);
        let (warning, reason, note) = match status.state {
            Some(State::Ready) => {
                let note = format!("an agent runs on each of {} nodes", status.agents);
                (false, reason::READY, note)
            }
            Some(State::Halted) => (true, reason::HALTED, said.to_owned()),
            _ => return,
        };
        let recorder = &self.context.recorder;
        recorder.publish(fleet, warning, reason, &note).await;
    }
}
