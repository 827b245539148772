//! The rollout controller: the one writer of `NodeState.spec` and of `NodeConfig.status`.
//!
//! Each pass plans from the cache and writes what differs. A `NodeState` is written only if it is
//! still the one that was planned from, so that a cache that lags behind can't make a layer vanish
//! without a release.

pub mod plan;
mod prune;
pub mod summary;
mod written;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use edict_crds::nodeconfig::{State, condition};
use edict_crds::nodestate::LayerRef;
use edict_crds::{FINALIZER, NodeConfig, NodeConfigStatus, NodeState, name, uid};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cache::{self, Change};
use crate::content::{self, Sources};
use crate::context::Context;
use crate::event::reason;
use crate::revision::{self, Revision};
use plan::{Desired, Gone, Observed, Unlisted};
use written::Written;

/// The field manager of everything that this controller writes.
const MANAGER: &str = "edict-rollout";
/// A pass is made this often even when nothing seems to have changed: a safety net.
const INTERVAL: Duration = Duration::from_mins(1);
/// The first wait after a failed pass; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait after failed passes.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// As long as that the next pass waits after a failed one, whatever changes: of what can't follow
/// nothing is asked all the time.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the cache ends.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut changes = context.cache.changes();
    context.cache.synced().await?;
    let mut rollout = Rollout {
        context,
        key: None,
        written: Mutex::default(),
    };
    let mut retry = RETRY_MIN;
    loop {
        rollout.see_own_writes(&mut changes).await?;
        // Everything up to here is in the cache already.
        while changes.try_recv().is_ok() {}
        let wait = match rollout.pass().await {
            Ok(()) => {
                retry = RETRY_MIN;
                INTERVAL
            }
            Err(error) => {
                rollout.context.failed("rollout", &error);
                // A change makes a pass sooner: what it is about may have nothing to do with this.
                let pause = retry.min(PAUSE);
                let wait = retry.saturating_sub(pause);
                retry = (retry * 2).min(RETRY_MAX);
                tokio::time::sleep(pause).await;
                wait
            }
        };
        let concerns = |change: &Change| !matches!(change, Change::Agent(_) | Change::DaemonSet);
        cache::next(&mut changes, wait, concerns).await?;
    }
}

struct Rollout {
    context: Context,
    /// The key of digests, once it is known.
    key: Option<Vec<u8>>,
    /// What was written and may not be in the cache yet.
    written: Mutex<Vec<Written>>,
}

impl Rollout {
    async fn pass(&mut self) -> anyhow::Result<()> {
        let key = match &self.key {
            Some(key) => key.clone(),
            None => content::key(&self.context.client, &self.context.namespace).await?,
        };
        self.key = Some(key.clone());
        let mut observed = Observed {
            configs: self.context.cache.configs.state(),
            nodes: self.context.cache.nodes.state(),
            states: self.context.cache.states.state(),
            policy: self.context.cache.policy(),
            sources: Sources {
                key,
                secrets: self.context.cache.secrets.state(),
                config_maps: self.context.cache.config_maps.state(),
            },
            gone: Gone::default(),
        };
        // One object that can't be read or written holds up no other; the first error is told in
        // the end.
        let mut results = Vec::new();
        for unlisted in plan::unlisted(&observed) {
            results.push(self.ask_for(unlisted, &mut observed.gone).await);
        }
        let plan = plan::plan(&observed);
        let states: BTreeMap<_, _> = observed
            .states
            .iter()
            .map(|state| (name(&**state), &**state))
            .collect();
        for config in &plan.adopt {
            results.push(self.adopt(config, &observed).await);
        }
        // Without its revision a layer could not be pushed, nor anything else to that node.
        let mut missing = Vec::new();
        for config in &observed.configs {
            if let Some(revision) = plan.revisions.get(uid(&**config))
                && let Err(error) = self.ensure_revision(config, revision).await
            {
                missing.push(revision.name.clone());
                results.push(Err(error));
            }
        }
        let is_missing = |layer: &LayerRef| missing.contains(&layer.revision);
        for desired in &plan.states {
            let mut desired = desired.clone();
            // What can only not be planned holds up nothing.
            desired.spec.plans.retain(|plan| !is_missing(plan));
            if !desired.spec.layers.iter().any(is_missing) {
                results.push(self.write_state(&desired).await);
            }
        }
        for config in &plan.free {
            results.push(self.free(config, &observed).await);
        }
        // What was let go of is gone, or was changed meanwhile and has a pass of its own.
        let freed = |config: &NodeConfig| plan.free.iter().any(|free| free == name(config));
        for config in observed.configs.iter().filter(|config| !freed(config)) {
            let status = summary::summarize(config, &plan, &states, Timestamp::now());
            results.push(self.write_status(config, status).await);
        }
        results.push(self.prune(&observed, &plan.revisions).await);
        results.into_iter().collect()
    }

    /// Asks the API server for what no list has.
    async fn ask_for(&self, unlisted: Unlisted, gone: &mut Gone) -> anyhow::Result<()> {
        match unlisted {
            Unlisted::Config { name, uid } => {
                let api = Api::<NodeConfig>::all(self.context.client.clone());
                let live = api.get_opt(&name).await;
                let live =
                    live.with_context(|| format!("cannot tell whether NodeConfig {name} is gone"))?;
                if live.is_none_or(|live| edict_crds::uid(&live) != uid) {
                    gone.configs.insert(uid);
                } else {
                    tracing::warn!(name, "this NodeConfig is there, and was not listed");
                }
            }
            Unlisted::States => {
                let api = Api::<NodeState>::all(self.context.client.clone());
                match api.list_metadata(&ListParams::default().limit(1)).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(answer)) if answer.code == 404 => gone.states = true,
                    Err(error) => {
                        return Err(error).context("cannot tell whether there are NodeStates");
                    }
                }
            }
            Unlisted::Node(name) => {
                let api = Api::<Node>::all(self.context.client.clone());
                let live = api.get_opt(&name).await;
                let live =
                    live.with_context(|| format!("cannot tell whether node {name} is gone"))?;
                if live.is_none() {
                    gone.nodes.insert(name);
                } else {
                    tracing::warn!(name, "this node is there, and was not listed");
                }
            }
        }
        Ok(())
    }

    /// Puts the finalizer on a `NodeConfig`, so that it can't vanish while nodes have it.
    async fn adopt(&self, name: &str, observed: &Observed) -> anyhow::Result<()> {
        self.set_finalizer(name, observed, true)
            .await
            .with_context(|| format!("cannot adopt NodeConfig {name}"))
    }

    async fn free(&self, name: &str, observed: &Observed) -> anyhow::Result<()> {
        self.set_finalizer(name, observed, false)
            .await
            .with_context(|| format!("cannot let go of NodeConfig {name}"))
    }

    async fn set_finalizer(
        &self,
        name: &str,
        observed: &Observed,
        wanted: bool,
    ) -> anyhow::Result<()> {
        let api = Api::<NodeConfig>::all(self.context.client.clone());
        let Some(config) = observed
            .configs
            .iter()
            .find(|config| edict_crds::name(&***config) == name)
        else {
            return Ok(());
        };
        let mut finalizers: Vec<_> = config
            .finalizers()
            .iter()
            .filter(|other| *other != FINALIZER)
            .cloned()
            .collect();
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        }
        // A merge patch replaces the list: only as long as it is the one that was seen.
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "resourceVersion": config.metadata.resource_version,
            "uid": config.metadata.uid,
        }});
        match api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => {
                let before = config.metadata.resource_version.as_ref();
                self.wrote(&result?, before, Written::Config);
                Ok(())
            }
        }
    }

    async fn ensure_revision(
        &self,
        config: &NodeConfig,
        revision: &Revision,
    ) -> anyhow::Result<()> {
        let api = Api::<ControllerRevision>::namespaced(
            self.context.client.clone(),
            &self.context.namespace,
        );
        let wanted = &revision.name;
        let known = self.context.cache.revisions.state();
        let mine: Vec<_> = known
            .iter()
            .filter(|revision| revision::is_of(revision, config))
            .collect();
        if mine.iter().any(|revision| revision.name_any() == *wanted) {
            return Ok(());
        }
        let newest = mine.iter().map(|revision| revision.revision).max();
        // First what it refers to: a revision that is there is complete.
        if let Some(copy) = revision.copy(config, &self.context.namespace) {
            let secrets =
                Api::<Secret>::namespaced(self.context.client.clone(), &self.context.namespace);
            match secrets.create(&PostParams::default(), &copy).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => {
                    result.with_context(|| {
                        format!("cannot store what revision {wanted} refers to")
                    })?;
                }
            }
        }
        let object = revision.object(config, &self.context.namespace, newest.unwrap_or(0) + 1);
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result
                .map(drop)
                .with_context(|| format!("cannot store revision {wanted}")),
        }
    }

    async fn write_state(&self, desired: &Desired) -> anyhow::Result<()> {
        let api = Api::<NodeState>::all(self.context.client.clone());
        let mut object = NodeState::new(&desired.node, desired.spec.clone());
        object.metadata = ObjectMeta {
            name: Some(desired.node.clone()),
            resource_version: desired.resource_version.clone(),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: desired.node.clone(),
                uid: desired.node_uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        };
        let node = &desired.node;
        if desired.resource_version.is_none() {
            let parameters = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            let created = api.create(&parameters, &object).await;
            let created = created.with_context(|| format!("cannot create NodeState {node}"))?;
            self.wrote(&created, None, Written::State);
            return Ok(());
        }
        // Not a server-side apply: where that takes away all that it had put into `spec`, the API
        // server makes it null and then refuses it. What is merged is written out whole, and only
        // this controller writes it.
        let patch = json!({
            "metadata": {
                "resourceVersion": desired.resource_version,
                "ownerReferences": object.metadata.owner_references,
            },
            "spec": desired.spec,
        });
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match api.patch(node, &parameters, &Patch::Merge(patch)).await {
            // Somebody wrote it meanwhile: the cache will say so, and the next pass plans anew.
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                tracing::debug!(node, "the plan is void");
                Ok(())
            }
            result => {
                let written =
                    result.with_context(|| format!("cannot write the spec of NodeState {node}"))?;
                let before = desired.resource_version.as_ref();
                self.wrote(&written, before, Written::State);
                Ok(())
            }
        }
    }

    async fn write_status(
        &self,
        config: &NodeConfig,
        status: NodeConfigStatus,
    ) -> anyhow::Result<()> {
        if config.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = Api::<NodeConfig>::all(self.context.client.clone());
        let name = config.name_any();
        let patch = json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": name, "uid": config.metadata.uid},
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let written = match api
            .patch_status(&name, &parameters, &Patch::Apply(patch))
            .await
        {
            // Gone, or another one of that name: the cache will say so.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                return Ok(());
            }
            result => {
                result.with_context(|| format!("cannot write the status of NodeConfig {name}"))?
            }
        };
        let before = config.metadata.resource_version.as_ref();
        self.wrote(&written, before, Written::Config);
        self.announce(config, &status).await;
        Ok(())
    }

    /// Says in Events what has become different.
    async fn announce(&self, config: &NodeConfig, status: &NodeConfigStatus) {
        let before = config.status.clone().unwrap_or_default();
        if before.state != status.state || before.observed_generation != status.observed_generation
        {
            let nodes = status.targeted;
            let (warning, reason, note) = match status.state {
                Some(State::Applied) => {
                    (false, reason::APPLIED, format!("in force on {nodes} nodes"))
                }
                Some(State::PendingReload) => {
                    (false, reason::PENDING_RELOAD, status.message.clone())
                }
                Some(State::PendingRestart) => {
                    (false, reason::PENDING_RESTART, status.message.clone())
                }
                Some(State::Planned) => (false, reason::PLANNED, status.message.clone()),
                Some(State::Unread) => (true, reason::UNREAD, status.message.clone()),
                Some(State::Refused) => (true, reason::REFUSED, status.message.clone()),
                Some(State::Failed) => (true, reason::FAILED, status.message.clone()),
                Some(State::CommandFailed) => {
                    (true, reason::COMMAND_FAILED, status.message.clone())
                }
                Some(State::Held) => (true, reason::HELD, status.message.clone()),
                Some(State::Unreachable) => (true, reason::UNREACHABLE, status.message.clone()),
                _ => return self.announce_conflict(config, &before, status).await,
            };
            self.context
                .recorder
                .publish(config, warning, reason, &note)
                .await;
        }
        self.announce_conflict(config, &before, status).await;
    }

    async fn announce_conflict(
        &self,
        config: &NodeConfig,
        before: &NodeConfigStatus,
        status: &NodeConfigStatus,
    ) {
        let message = |status: &NodeConfigStatus| {
            let conflict = status
                .conditions
                .iter()
                .find(|one| one.type_ == condition::CONFLICT && one.status == "True");
            conflict.map(|conflict| conflict.message.clone())
        };
        if let Some(now) = message(status).filter(|now| Some(now) != message(before).as_ref()) {
            self.context
                .recorder
                .publish(config, true, reason::CONFLICT, &now)
                .await;
        }
    }
}
