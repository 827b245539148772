//! The fleet controller: brings up what a Fleet needs, and keeps it so.

pub mod objects;
mod secret;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edict_crds::{Fleet, FleetStatus};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;

use crate::cache::{self, Change};
use crate::context::Context;
use crate::event::reason;
use crate::pki::Identity;

/// The field manager of everything that this controller writes.
const MANAGER: &str = "edict-fleet";
/// A pass is made this often even when nothing seems to have changed: Secrets, Services and
/// ServiceAccounts that somebody deletes are not watched, and certificates run out.
const INTERVAL: Duration = Duration::from_mins(1);
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
    context.cache.synced().await?;
    let installation = Installation {
        context,
        default_image,
    };
    let mut shown = String::new();
    loop {
        while changes.try_recv().is_ok() {}
        let wait = match installation.pass(&identities, &mut shown).await {
            Ok(()) => INTERVAL,
            Err(error) => {
                installation.context.failed("fleet", &error);
                RETRY
            }
        };
        let concerns = |change: &Change| matches!(change, Change::Fleet | Change::DaemonSet);
        cache::next(&mut changes, wait, concerns).await?;
    }
}

struct Installation {
    context: Context,
    default_image: String,
}

impl Installation {
    async fn pass(
        &self,
        identities: &watch::Sender<Option<Arc<Identity>>>,
        shown: &mut String,
    ) -> anyhow::Result<()> {
        let Some(fleet) = self
            .context
            .cache
            .fleet()
            .filter(|fleet| fleet.metadata.deletion_timestamp.is_none())
        else {
            return Ok(());
        };
        let certificates =
            secret::ensure(&self.context.client, &self.context.namespace, &fleet).await?;
        if *shown != certificates.operator.certificate {
            let identity = Identity::new(&certificates.authority, &certificates.operator)?;
            shown.clone_from(&certificates.operator.certificate);
            identities.send_replace(Some(Arc::new(identity)));
        }
        let objects = objects::Objects {
            fleet: &fleet,
            namespace: &self.context.namespace,
            default_image: &self.default_image,
        };
        self.apply::<ServiceAccount>(&objects.service_account())
            .await?;
        self.apply::<Service>(&objects.service()).await?;
        let daemonset = self.apply::<DaemonSet>(&objects.daemonset()).await?;
        self.write_status(&fleet, &daemonset).await
    }

    async fn apply<K>(&self, object: &K) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.context.client.clone(), &self.context.namespace);
        let name = object.name_any();
        let applied = api
            .patch(
                &name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(object),
            )
            .await;
        applied.with_context(|| format!("cannot apply {} {name}", K::kind(&())))
    }

    async fn write_status(&self, fleet: &Fleet, daemonset: &DaemonSet) -> anyhow::Result<()> {
        let status = status(fleet, daemonset, Timestamp::now());
        if fleet.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = Api::<Fleet>::all(self.context.client.clone());
        let name = fleet.name_any();
        let patch = json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "Fleet",
            "metadata": {"name": name}, "status": status,
        });
        let written = api
            .patch_status(
                &name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(patch),
            )
            .await;
        written.context("cannot write the status of the Fleet")?;
        let state = |status: Option<&FleetStatus>| status.and_then(|status| status.state.clone());
        if status.state.as_deref() == Some("Ready") && state(fleet.status.as_ref()) != status.state
        {
            let note = format!("an agent runs on each of {} nodes", status.agents);
            self.context
                .recorder
                .publish(fleet, false, reason::READY, &note)
                .await;
        }
        Ok(())
    }
}

/// The Fleet's status, from its `DaemonSet`'s.
fn status(fleet: &Fleet, daemonset: &DaemonSet, now: Timestamp) -> FleetStatus {
    let observed = daemonset.status.clone().unwrap_or_default();
    let current = observed.observed_generation == daemonset.metadata.generation;
    let desired = observed.desired_number_scheduled;
    let complete = current
        && desired > 0
        && observed.number_ready == desired
        && observed.updated_number_scheduled.unwrap_or(0) == desired;
    let (word, condition) = if complete {
        ("Ready", "True")
    } else {
        ("Progressing", "False")
    };
    let before = fleet.status.iter().flat_map(|status| &status.conditions);
    let earlier = before
        .into_iter()
        .find(|one| one.type_ == "Ready" && one.status == condition);
    FleetStatus {
        observed_generation: fleet.metadata.generation,
        state: Some(word.to_owned()),
        agents: u32::try_from(desired).unwrap_or(0),
        ready: u32::try_from(observed.number_ready).unwrap_or(0),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: condition.to_owned(),
            reason: word.to_owned(),
            message: format!("{} of {desired} agents run", observed.number_ready),
            observed_generation: fleet.metadata.generation,
            last_transition_time: earlier.map_or(Time(now), |condition| {
                condition.last_transition_time.clone()
            }),
        }],
    }
}
