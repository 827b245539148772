//! The proof that a node is still reached, where who may reach it has changed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use edict_core::wire::Probation;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent;
use crate::context::Context;
use crate::pki::Identity;

/// Where kubelets say that they are there. Source: kubernetes.io, Nodes, Node heartbeats.
const LEASES: &str = "kube-node-lease";
/// How long a connection may take: the node is one hop away.
const CONNECT: Duration = Duration::from_secs(3);
/// How long it takes until it is tried anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Whose proof it is.
pub struct Proof {
    pub context: Context,
    pub node: String,
    /// Where the agent is.
    pub address: SocketAddr,
    pub identity: Arc<Identity>,
}

impl Proof {
    /// Tries until it is given, or too late.
    pub async fn give(self, probation: Probation) {
        let deadline = Instant::now() + Duration::from_secs(probation.seconds.into());
        let Probation { name, mark, .. } = probation;
        // By its own clock, which may be another one than ours.
        let mut renewed = None;
        while Instant::now() < deadline {
            match self.reach(&mut renewed, &mark).await {
                Ok(()) => {
                    tracing::info!(node = self.node, name, "the node is reached");
                    return;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &*error;
                    tracing::info!(error, node = self.node, name, "the node is not reached yet");
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// `renewed` is when the kubelet said first since the beginning that the node is there; what it says then may be
    /// from before.
    async fn reach(&self, renewed: &mut Option<Timestamp>, mark: &str) -> anyhow::Result<()> {
        let client = &self.context.client;
        let node = Api::<Node>::all(client.clone()).get(&self.node).await;
        let node = node.context("the node can't be read")?;
        let kubelet = kubelet(&node).context("the node has no address")?;
        let connected = timeout(CONNECT, TcpStream::connect(kubelet)).await;
        let connected = connected.map_err(|_| anyhow::anyhow!("no answer"));
        connected
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("the kubelet at {kubelet}"))?;
        let leases = Api::<Lease>::namespaced(client.clone(), LEASES);
        let lease = leases.get_opt(&self.node).await;
        let lease = lease.context("the node's lease can't be read")?;
        let now = lease.and_then(|lease| Some(lease.spec?.renew_time?.0));
        let first = *renewed.get_or_insert(now.context("the node has no lease")?);
        ensure!(
            now.is_some_and(|now| now > first),
            "the kubelet has not said yet that the node is there"
        );
        ensure!(is_ready(&node), "the node is not Ready");
        let mut agent = Agent::connect(self.address, self.identity.client.clone()).await?;
        if !agent.confirm(mark).await? {
            bail!("the agent does not wait for it");
        }
        Ok(())
    }
}

/// Where the kubelet listens.
fn kubelet(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let address = address(node).next()?;
    let port = status
        .daemon_endpoints
        .as_ref()?
        .kubelet_endpoint
        .as_ref()?;
    Some(SocketAddr::new(address, port.port.try_into().ok()?))
}

/// The addresses by which a cluster knows a node.
pub fn address(node: &Node) -> impl Iterator<Item = IpAddr> {
    let status = node.status.iter();
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok())
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.iter();
    let conditions = status.flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
}
