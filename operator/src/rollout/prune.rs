//! Revisions, and copies of what they refer to, that nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use edict_crds::{name, uid};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};

use super::Rollout;
use super::plan::Observed;
use crate::content;
use crate::revision::{self, Revision};

impl Rollout {
    /// Deletes revisions that nobody needs.
    pub(super) async fn prune(
        &self,
        observed: &Observed,
        revisions: &BTreeMap<String, Revision>,
    ) -> anyhow::Result<()> {
        let api = Api::<ControllerRevision>::namespaced(
            self.context.client.clone(),
            &self.context.namespace,
        );
        let known = self.context.cache.revisions.state();
        let run: BTreeSet<_> = observed
            .states
            .iter()
            .flat_map(|state| state.spec.layers.iter().chain(&state.spec.plans))
            .map(|layer| layer.revision.as_str())
            .collect();
        // A cache without what some node runs shows too little to tell what nobody needs.
        let shown: BTreeSet<_> = known.iter().map(|known| name(&**known)).collect();
        if !run.is_subset(&shown) {
            return Ok(());
        }
        let named = |name: &str| {
            revisions.values().any(|current| current.name == name) || run.contains(name)
        };
        for config in &observed.configs {
            let mine = known
                .iter()
                .map(|revision| &**revision)
                .filter(|revision| revision::is_of(revision, config));
            for name in revision::surplus(mine, named) {
                match api.delete(&name, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    result => {
                        result.with_context(|| format!("cannot delete revision {name}"))?;
                    }
                }
            }
        }
        self.prune_contents(observed, revisions).await
    }

    /// Deletes what no revision refers to any more.
    async fn prune_contents(
        &self,
        observed: &Observed,
        revisions: &BTreeMap<String, Revision>,
    ) -> anyhow::Result<()> {
        let known = self.context.cache.revisions.state();
        let kept: BTreeSet<_> = known
            .iter()
            .filter_map(|stored| revision::secret(stored))
            .chain(
                revisions
                    .values()
                    .filter_map(|current| current.secret.clone()),
            )
            .collect();
        let api = Api::<Secret>::namespaced(self.context.client.clone(), &self.context.namespace);
        let copies = observed.sources.secrets.iter().filter(|secret| {
            // Without its NodeConfig the garbage collector sees to it.
            let of = secret.labels().get(revision::LABEL);
            secret.type_.as_deref() == Some(content::TYPE)
                && observed
                    .configs
                    .iter()
                    .any(|config| Some(uid(&**config)) == of.map(String::as_str))
        });
        for name in copies
            .map(|copy| copy.name_any())
            .filter(|name| !kept.contains(name))
        {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => {
                    result.with_context(|| format!("cannot delete Secret {name}"))?;
                }
            }
        }
        Ok(())
    }
}
