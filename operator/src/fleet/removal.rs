//! Takes away what a Fleet brought up.

pub mod order;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use edict_crds::fleet::FINALIZER;
use edict_crds::{Fleet, NodeConfig, uid};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::applied::INTERVAL;
use super::{Installation, LOOK, agents, objects, secret, status};
use crate::context::Context;
use order::{Left, Object, Step};

impl Installation {
    /// Takes away what the Fleet brought up, as far as that can be done now, and lets go of the Fleet
    /// in the end.
    pub(super) async fn remove(&mut self, fleet: &Fleet) -> anyhow::Result<Duration> {
        self.applied = None;
        if !fleet.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(INTERVAL);
        }
        loop {
            match order::next(&self.left(fleet).await?) {
                Step::Wait(why) => {
                    let status = status::removing(fleet, why, Timestamp::now());
                    self.write_status(fleet, status).await?;
                    return Ok(LOOK);
                }
                Step::Delete(object) => self.delete(object).await?,
                Step::Free => {
                    let freed = self.set_finalizer(fleet, false).await;
                    freed.context("cannot let go of the Fleet")?;
                    tracing::info!("the Fleet is gone");
                    return Ok(INTERVAL);
                }
            }
        }
    }

    /// What is there of a Fleet that is being deleted. Of its objects the API server is asked: a cache
    /// that lags behind would let something be forgotten.
    async fn left(&self, fleet: &Fleet) -> anyhow::Result<Left> {
        let cache = &self.context.cache;
        let mut objects = Vec::new();
        for object in Object::ALL {
            let (api, name) = self.place(object);
            let found = api.get_metadata_opt(name).await;
            let found = found.with_context(|| format!("cannot read {object:?} {name}"))?;
            let owned = |found: &PartialObjectMeta<_>| {
                let mut owners = found.owner_references().iter();
                owners.any(|owner| owner.uid == uid(fleet))
            };
            let ending = |found: PartialObjectMeta<_>| found.metadata.deletion_timestamp.is_some();
            objects.extend(found.filter(owned).map(|found| (object, ending(found))));
        }
        let leaving = |config: &NodeConfig| {
            let mut finalizers = config.finalizers().iter();
            config.metadata.deletion_timestamp.is_some()
                && finalizers.any(|one| one == edict_crds::FINALIZER)
        };
        let leaving = cache.configs.state_filter(leaving);
        let attended = |node: &&str| {
            let found = cache.nodes.get(&ObjectRef::new(node));
            found.is_some_and(|found| agents::is_ready(&found))
        };
        let pods = cache.agents.state();
        let nodes = pods.iter().filter_map(|pod| agents::node_of(pod));
        let nodes: BTreeSet<_> = nodes.filter(attended).collect();
        let deleted = fleet.metadata.deletion_timestamp.as_ref();
        let since = deleted.map(|time| Timestamp::now().duration_since(time.0));
        Ok(Left {
            leaving: leaving.iter().map(|config| config.name_any()).collect(),
            objects,
            agents: nodes.into_iter().map(str::to_owned).collect(),
            // By another clock than ours it may not have begun.
            since: since
                .and_then(|since| since.try_into().ok())
                .unwrap_or_default(),
        })
    }

    async fn delete(&self, object: Object) -> anyhow::Result<()> {
        let (api, name) = self.place(object);
        match api.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            result => {
                result.with_context(|| format!("cannot delete {object:?} {name}"))?;
                tracing::info!(?object, name, "deleted");
                Ok(())
            }
        }
    }

    /// Where something is that a Fleet brought up, and what it is called.
    fn place(&self, object: Object) -> (Api<DynamicObject>, &'static str) {
        let (resource, name) = match object {
            Object::Authority => (ApiResource::erase::<Secret>(&()), secret::AUTHORITY),
            Object::AgentCertificate => (ApiResource::erase::<Secret>(&()), objects::AGENT_SECRET),
            Object::OperatorCertificate => (ApiResource::erase::<Secret>(&()), secret::OPERATOR),
            Object::ServiceAccount => (ApiResource::erase::<ServiceAccount>(&()), objects::AGENT),
            Object::Service => (ApiResource::erase::<Service>(&()), objects::AGENT),
            Object::DaemonSet => (ApiResource::erase::<DaemonSet>(&()), objects::AGENT),
        };
        let Context {
            client, namespace, ..
        } = &self.context;
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        (api, name)
    }
}
