//! Whether a kind cluster is whole: every container is the node that the API
//! knows, all are Ready, and names are answered.
//!
//! An engine that was stopped may give nodes each other's addresses when it starts
//! again. The API comes back then, but etcd's members don't trust each other any
//! more, so such a cluster is not used.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client, ResourceExt as _};

use super::Access;
use crate::container::Container;
use crate::wait::{self, Seen};

/// A client that looks at the cluster's own parts.
pub struct Health {
    client: Client,
}

impl Health {
    /// Takes how to reach it.
    pub async fn of(access: &Access) -> Result<Self> {
        let client = access.client().await?;
        Ok(Self { client })
    }

    /// Waits until all is well.
    pub async fn settle(&self, containers: &[Container], deadline: Duration) -> Result<()> {
        let expected: BTreeMap<&str, &str> = containers
            .iter()
            .filter(|one| one.role != "external-load-balancer")
            .map(|one| (one.name.as_str(), one.address.as_str()))
            .collect();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = wait::until("all nodes Ready", deadline, async || {
            let found = nodes.list(&kube::api::ListParams::default()).await?.items;
            let ready: Vec<String> = found
                .iter()
                .filter(|node| is_ready(node))
                .map(kube::ResourceExt::name_any)
                .collect();
            Ok(
                if ready.len() == expected.len() && found.len() == expected.len() {
                    Seen::Done(found)
                } else {
                    Seen::NotYet(format!(
                        "{} of {} Ready: {ready:?}",
                        ready.len(),
                        expected.len()
                    ))
                },
            )
        })
        .await?;
        for node in &found {
            let name = node.name_any();
            let (known, real) = (internal_ip(node), expected.get(name.as_str()).copied());
            if known != real {
                bail!("{name} is at {real:?} and the API says {known:?}");
            }
        }
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "kube-system");
        wait::until("DNS", deadline, async || {
            let status = deployments.get("coredns").await?.status.unwrap_or_default();
            let available = status.available_replicas.unwrap_or_default();
            Ok(Seen::when(available > 0, status))
        })
        .await?;
        // Pods are refused before it is there, with an error that names something else.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        wait::object(&accounts, "default", "a ServiceAccount", deadline, |_| true).await?;
        Ok(())
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    })
}

fn internal_ip(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|one| one.type_ == "InternalIP")?;
    Some(&internal.address)
}
