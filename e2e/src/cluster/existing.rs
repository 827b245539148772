//! A cluster that somebody else made: used as it is, never made or deleted.
//!
//! Its files are read where its nodes are containers of this machine's engine.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture, ready};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};

use super::{Access, Provider};
use crate::container;
use crate::machine::Tools;
use crate::node::Role;
use crate::process::Process;
use crate::settings::{Existing, Settings};

/// The labels of masters, the present and the former one.
const MASTER: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// The cluster that `EDICT_E2E_KUBECONFIG` or `EDICT_E2E_CONTEXT` names.
#[derive(Clone, Debug)]
pub struct ExistingCluster {
    existing: Existing,
    kubectl: PathBuf,
}

impl ExistingCluster {
    /// Finds a kubectl for it.
    pub async fn find(settings: &Settings, existing: &Existing) -> Result<Self> {
        Ok(Self {
            existing: existing.clone(),
            kubectl: Tools::find_kubectl(settings).await?,
        })
    }
}

impl Provider for ExistingCluster {
    fn create(&self) -> LocalBoxFuture<'_, Result<()>> {
        async {
            let api = self
                .access()
                .kubectl()
                .args(["get", "--raw", "/version"])
                .text();
            api.await.context(
                "the cluster that EDICT_E2E_KUBECONFIG or EDICT_E2E_CONTEXT names does not answer",
            )?;
            Ok(())
        }
        .boxed_local()
    }

    fn delete(&self) -> BoxFuture<'_, Result<()>> {
        let refusal = "this cluster was not made here and is not deleted here: unset EDICT_E2E_KUBECONFIG and EDICT_E2E_CONTEXT";
        ready(Err(anyhow::anyhow!(refusal))).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        async {
            let name = self
                .access()
                .kubectl()
                .args(["config", "current-context"])
                .text()
                .await?;
            Ok(vec![self.existing.context.clone().unwrap_or(name)])
        }
        .boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<(String, Role)>>> {
        async {
            let api: Api<Node> = Api::all(self.access().client().await?);
            let mut nodes: Vec<(String, Role)> = api
                .list(&kube::api::ListParams::default())
                .await?
                .into_iter()
                .map(|node| {
                    let master = MASTER
                        .iter()
                        .any(|label| node.labels().contains_key(*label));
                    let role = if master { Role::Master } else { Role::Worker };
                    (node.name_any(), role)
                })
                .collect();
            nodes.sort_by_key(|(name, role)| (*role, name.len(), name.clone()));
            Ok(nodes)
        }
        .boxed()
    }

    fn load<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let nodes = self.nodes().await?;
            let names: Vec<String> = nodes.into_iter().map(|(name, _)| name).collect();
            let inspected = Process::new("docker").arg("inspect").args(&names).output().await?;
            if !inspected.success() {
                bail!("nodes {names:?} are no containers here: bring {image} to their registry yourself");
            }
            container::load(&names, image).await
        }
        .boxed()
    }

    fn access(&self) -> Access {
        Access {
            kubeconfig: self.existing.kubeconfig.clone(),
            context: self.existing.context.clone(),
            kubectl: self.kubectl.clone(),
            path: env::var_os("PATH").unwrap_or_default(),
        }
    }
}
