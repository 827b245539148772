//! The proof that a node is still reached, where who may reach it has changed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use edict_core::wire::{self, Probation};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::runtime::reflector::ObjectRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent;
use crate::context::Context;
use crate::pki::Identity;

/// Where kubelets say that they are there. Source: kubernetes.io, Nodes, Node heartbeats.
const LEASES: &str = "kube-node-lease";
/// The Service of the API servers, and the slice where they say themselves at which addresses they are.
const API_SERVERS: (&str, &str) = ("default", "kubernetes");
/// How long a connection may take: the node is one hop away.
const CONNECT: Duration = Duration::from_secs(3);
/// How long it takes until it is tried anew.
const AGAIN: Duration = Duration::from_secs(1);
/// How many other nodes have to reach this one: the operator may run on this very node.
const WITNESSES: usize = 2;
/// How many are asked whether they do.
const ASKED: usize = 6;
/// The longest probation. Source: the field's own bounds.
const SECONDS_MAX: u32 = 300;

/// Whose proof it is, and what of the node was reached before.
#[derive(Clone)]
pub struct Proof {
    context: Context,
    node: String,
    /// Where the agent is.
    address: SocketAddr,
    identity: Arc<Identity>,
    ways: Vec<Way>,
}

/// A way to a node: what is reached, and from where.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    what: &'static str,
    to: SocketAddr,
    /// Another node, by its agent.
    from: Option<String>,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, to, from } = self;
        match from {
            Some(node) => write!(formatter, "the {what} at {to} from node {node}"),
            None => write!(formatter, "the {what} at {to} from the operator"),
        }
    }
}

impl Proof {
    /// Finds out which ways to the node there are before anything changes: what another firewall has kept out all
    /// along is not asked for.
    pub async fn prepared(
        context: Context,
        node: String,
        address: SocketAddr,
        identity: Arc<Identity>,
    ) -> Self {
        let mut proof = Self {
            context,
            node,
            address,
            identity,
            ways: Vec::new(),
        };
        let cache = &proof.context.cache;
        let Some(found) = cache.nodes.get(&ObjectRef::new(&proof.node)) else {
            return proof;
        };
        let slices = Api::<EndpointSlice>::namespaced(proof.context.client.clone(), API_SERVERS.0);
        let slice = slices.get_opt(API_SERVERS.1).await.unwrap_or_else(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "the addresses of the API servers can't be read");
            None
        });
        let nodes = cache.nodes.state();
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        let names = names.filter(|name| cache.agent(name).is_some());
        let others = others(&proof.node, names.collect());
        let ways = ways(&found, slice.as_ref(), &others);
        let open = join_all(ways.iter().map(|way| proof.is_open(way))).await;
        let open = ways.into_iter().zip(open).filter(|(_, open)| *open);
        proof.ways = few(open.map(|(way, _)| way).collect());
        let is_seen = proof.ways.iter().any(|way| way.from.is_some());
        if !is_seen && !others.is_empty() {
            tracing::warn!(
                node = proof.node,
                "no other node's agent reaches the kubelet: its firewall is proven by the operator alone"
            );
        }
        proof
    }

    /// Tries until it is given, or too late. What is missing yet is told by `told`, a connection from before.
    pub async fn give(self, probation: Probation, mut told: Agent) {
        let seconds = probation.seconds.min(SECONDS_MAX);
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let Probation { name, mark, .. } = probation;
        // By its own clock, which may be another one than ours.
        let mut renewed = None;
        while Instant::now() < deadline {
            let why = match self.reach(&mut renewed, &mark).await {
                Ok(()) => {
                    tracing::info!(node = self.node, name, "the node is reached");
                    return;
                }
                Err(error) => format!("{error:#}"),
            };
            tracing::info!(node = self.node, name, why, "the node is not reached yet");
            // Who does not hear it has its own words.
            if told
                .confirm(&mark, Some(&why))
                .await
                .is_ok_and(|waits| !waits)
            {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// `renewed` is when the kubelet said first since the beginning that the node is there; what it says then may be
    /// from before.
    async fn reach(&self, renewed: &mut Option<Timestamp>, mark: &str) -> anyhow::Result<()> {
        let client = &self.context.client;
        let connected = Agent::connect(self.address, self.identity.client.clone());
        let (agent, open) = tokio::join!(
            connected,
            join_all(self.ways.iter().map(|way| self.is_open(way)))
        );
        let mut agent = agent.context("the agent is not reached by a new connection")?;
        let mut ways = self.ways.iter().zip(open);
        if let Some((way, _)) = ways.find(|(_, open)| !open) {
            anyhow::bail!("{way} is not reached any more");
        }
        let leases = Api::<Lease>::namespaced(client.clone(), LEASES);
        let lease = leases.get_opt(&self.node).await;
        let lease = lease.context("the node's lease can't be read")?;
        let now = lease.and_then(|lease| Some(lease.spec?.renew_time?.0));
        let first = *renewed.get_or_insert(now.context("the node has no lease")?);
        ensure!(
            now.is_some_and(|now| now > first),
            "the kubelet has not said that the node is there"
        );
        let node = Api::<Node>::all(client.clone()).get(&self.node).await;
        let node = node.context("the node can't be read")?;
        ensure!(is_ready(&node), "the node is not Ready");
        agent.confirm(mark, None).await?;
        Ok(())
    }

    /// Whether a new connection comes about.
    async fn is_open(&self, way: &Way) -> bool {
        let Some(node) = &way.from else {
            let connected = timeout(CONNECT, TcpStream::connect(way.to)).await;
            return connected.is_ok_and(|connected| connected.is_ok());
        };
        // Another agent may have taken its place.
        let Some(agent) = self.context.cache.agent(node).and_then(|pod| listens(&pod)) else {
            return false;
        };
        let tls = self.identity.client.clone();
        let asked = async { Agent::connect(agent, tls).await?.reach(way.to).await };
        asked.await.unwrap_or(false)
    }
}

/// All the ways to a node that are tried. `slice` says where API servers are.
fn ways(node: &Node, slice: Option<&EndpointSlice>, others: &[String]) -> Vec<Way> {
    let own: Vec<_> = address(node).collect();
    let mut all = Vec::new();
    if let Some(port) = kubelet(node) {
        let what = "kubelet's port";
        for to in own.iter().map(|own| SocketAddr::new(*own, port)) {
            let from = std::iter::once(None).chain(others.iter().cloned().map(Some));
            all.extend(from.map(|from| Way { what, to, from }));
        }
    }
    if let Some(slice) = slice {
        let ports = slice.ports.iter().flatten();
        let ports = ports.filter_map(|port| u16::try_from(port.port?).ok());
        let at = slice
            .endpoints
            .iter()
            .flatten()
            .flat_map(|endpoint| &endpoint.addresses);
        let at: Vec<IpAddr> = at.filter_map(|address| address.parse().ok()).collect();
        for port in ports {
            let here = at.iter().filter(|address| own.contains(address));
            all.extend(here.map(|address| Way {
                what: "API server",
                to: SocketAddr::new(*address, port),
                from: None,
            }));
        }
    }
    all
}

/// Those from a few other nodes, to each place.
fn few(ways: Vec<Way>) -> Vec<Way> {
    let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut is_one = |way: &Way| {
        let count = seen.entry(way.to).or_default();
        *count += usize::from(way.from.is_some());
        way.from.is_none() || *count <= WITNESSES
    };
    ways.into_iter().filter(|way| is_one(way)).collect()
}

/// Other nodes that are asked, those behind this one by name first: not the same for all.
fn others(node: &str, mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name != node);
    names.sort_by(|one, other| {
        let place = |name: &String| (**name < *node, name.clone());
        place(one).cmp(&place(other))
    });
    names.truncate(ASKED);
    names
}

/// Where the agent in this pod listens.
pub fn listens(pod: &Pod) -> Option<SocketAddr> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(address, wire::PORT))
}

/// Where the kubelet listens.
fn kubelet(node: &Node) -> Option<u16> {
    let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
    let port = endpoints.kubelet_endpoint.as_ref()?.port;
    port.try_into().ok().filter(|port| *port > 0)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    fn said(node: &Node, slice: Option<&EndpointSlice>, others: &[String]) -> Vec<String> {
        let ways = ways(node, slice, others);
        ways.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_address_of_a_node_is_tried_and_the_api_server_where_it_has_one() {
        let node: Node = read(json!({"status": {
            "addresses": [
                {"type": "Hostname", "address": "m1"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }}));
        let slice = |address: &str| {
            read::<EndpointSlice>(json!({
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.9"]}, {"addresses": [address]}],
                "ports": [{"name": "https", "port": 6443}],
            }))
        };
        let other = "w1".to_owned();
        assert_eq!(
            said(&node, Some(&slice("10.0.0.1")), &[other]),
            [
                "the kubelet's port at 10.0.0.1:10250 from the operator",
                "the kubelet's port at 10.0.0.1:10250 from node w1",
                "the kubelet's port at [fd00::1]:10250 from the operator",
                "the kubelet's port at [fd00::1]:10250 from node w1",
                "the API server at 10.0.0.1:6443 from the operator",
            ]
        );
        assert_eq!(said(&node, Some(&slice("10.0.0.2")), &[]).len(), 2);
        assert_eq!(said(&Node::default(), None, &[]), [""; 0]);
    }

    #[test]
    fn others_than_the_node_are_asked() {
        let names = |node: &str| {
            let all = ["a", "d", "b", "c"].map(ToOwned::to_owned);
            others(node, all.to_vec()).concat()
        };
        assert_eq!(
            (&*names("a"), &*names("c"), &*names("d")),
            ("bcd", "dab", "abc")
        );
        assert_eq!(others("a", vec!["a".to_owned()]), [""; 0]);
        let many = (0..99).map(|number| format!("{number:02}")).collect();
        assert_eq!(others("97", many).concat(), "980001020304");
    }

    #[test]
    fn a_few_of_those_that_reach_it_have_to_go_on() {
        let way = |to: &str, from: Option<&str>| Way {
            what: "kubelet's port",
            to: to.parse().unwrap(),
            from: from.map(ToOwned::to_owned),
        };
        let (one, other) = ("10.0.0.1:10250", "[fd00::1]:10250");
        let ways = vec![
            way(one, Some("a")),
            way(one, Some("b")),
            way(other, Some("a")),
            way(one, Some("c")),
            way(one, None),
        ];
        let mut expected = ways.clone();
        expected.remove(3);
        assert_eq!(few(ways), expected);
    }

    #[test]
    fn a_node_is_ready_that_says_so() {
        let ready = |status: &str| {
            let conditions = json!([
                {"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status},
            ]);
            is_ready(&read(json!({"status": {"conditions": conditions}})))
        };
        assert!(ready("True") && !ready("False") && !ready("Unknown"));
        assert!(!is_ready(&Node::default()));
    }
}
