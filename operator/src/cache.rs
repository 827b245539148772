//! What the API server says, kept up to date, and a signal whenever it says something new.

mod events;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use edict_core::config::firewall::Facts;
use edict_core::guard::Policy;
use edict_crds::{Fleet, NodeConfig, NodeState};
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::node::proof;
use events::{Pauses, RARELY, none_for, none_without_kind};

/// The label that tells the agents' pods.
pub const AGENT_LABEL: (&str, &str) = ("app.kubernetes.io/name", "edict-agent");

/// How long a watch goes on before the API server ends it and the next one begins where it ended.
/// One of which the other half is gone says nothing and does not end: it is given up five seconds
/// later, so that a master that vanishes leaves the operator blind for no longer than that.
const WATCH_SECONDS: u32 = 20;

/// Something that has changed: kind and, where it matters to whoever listens, the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A `NodeConfig`.
    NodeConfig,
    /// The `NodeState` of this node.
    NodeState(String),
    /// A `Fleet`.
    Fleet,
    /// A node.
    Node,
    /// An agent's pod on this node.
    Agent(String),
    /// A revision.
    Revision,
    /// A Secret or ConfigMap of Edict's namespace.
    Content,
    /// A `DaemonSet` of Edict's namespace.
    DaemonSet,
    /// A kind was listed anew: any of its objects, and those that are not there any more.
    Listed,
}

/// Returns after `wait`, or as soon as there is a change that `concerns` the caller.
pub async fn next(
    changes: &mut broadcast::Receiver<Change>,
    wait: Duration,
    concerns: impl Fn(&Change) -> bool,
) -> anyhow::Result<()> {
    let change = async {
        loop {
            match changes.recv().await {
                Ok(change) if change != Change::Listed && !concerns(&change) => {}
                // What was missed may have concerned anybody.
                Ok(_) | Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => anyhow::bail!("the cache has ended"),
            }
        }
    };
    // No change is no error: the time is up.
    tokio::time::timeout(wait, change).await.unwrap_or(Ok(()))
}

/// Everything that the operator decides from.
#[derive(Clone)]
pub struct Cache {
    /// All `NodeConfig`s.
    pub configs: Store<NodeConfig>,
    /// All `NodeState`s.
    pub states: Store<NodeState>,
    /// All `Fleet`s.
    pub fleets: Store<Fleet>,
    /// All nodes.
    pub nodes: Store<Node>,
    /// The ranges of services' addresses.
    pub service_cidrs: Store<ServiceCIDR>,
    /// The agents' pods.
    pub agents: Store<Pod>,
    /// The revisions in Edict's namespace.
    pub revisions: Store<ControllerRevision>,
    /// The `DaemonSet`s in Edict's namespace.
    pub daemonsets: Store<DaemonSet>,
    /// The Secrets in Edict's namespace.
    pub secrets: Store<Secret>,
    /// The ConfigMaps in Edict's namespace.
    pub config_maps: Store<ConfigMap>,
    changes: broadcast::Sender<Change>,
    synced: watch::Receiver<Synced>,
}

/// What has been listed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Synced {
    Nothing,
    /// What the installation is told from.
    Installation,
    Everything,
}

impl Cache {
    /// The cache, and the work that keeps it up to date; that ends only with an error.
    pub fn new(
        client: &Client,
        namespace: &str,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + use<>) {
        // More changes at once than this make a listener look at everything, which it can.
        let (changes, _) = broadcast::channel(1024);
        let (all_synced, synced) = watch::channel(Synced::Nothing);
        let own = watcher::Config::default().timeout(WATCH_SECONDS);
        let agents = own
            .clone()
            .labels(&format!("{}={}", AGENT_LABEL.0, AGENT_LABEL.1));
        let mut work = Work {
            changes: changes.clone(),
            watches: Vec::new(),
        };
        // Never as if there were none: that would give every node back.
        let configs = work.follow(Api::<NodeConfig>::all(client.clone()), own.clone(), |_| {
            Change::NodeConfig
        });
        let states = watcher(Api::<NodeState>::all(client.clone()), own.clone());
        let states = work.fill(none_without_kind(states), |state| {
            Change::NodeState(edict_crds::name(state).to_owned())
        });
        let fleets = watcher(Api::<Fleet>::all(client.clone()), own.clone());
        let fleets = work.fill(none_without_kind(fleets), |_| Change::Fleet);
        let nodes = work.follow(Api::<Node>::all(client.clone()), own.clone(), |_| {
            Change::Node
        });
        // A cluster before Kubernetes 1.33 has none.
        let service_cidrs = watcher(Api::<ServiceCIDR>::all(client.clone()), own.clone());
        let service_cidrs = work.fill(none_for(RARELY, service_cidrs), |_| Change::Node);
        let agents = work.follow(
            Api::<Pod>::namespaced(client.clone(), namespace),
            agents,
            |pod| Change::Agent(node_of(pod).unwrap_or_default().to_owned()),
        );
        let revisions = Api::<ControllerRevision>::namespaced(client.clone(), namespace);
        let revisions = work.follow(revisions, own.clone(), |_| Change::Revision);
        let daemonsets = Api::<DaemonSet>::namespaced(client.clone(), namespace);
        let daemonsets = work.follow(daemonsets, own.clone(), |_| Change::DaemonSet);
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
        let secrets = work.follow(secrets, own.clone(), |_| Change::Content);
        let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let config_maps = work.follow(config_maps, own, |_| Change::Content);
        let cache = Self {
            configs,
            states,
            fleets,
            nodes,
            service_cidrs,
            agents,
            revisions,
            daemonsets,
            secrets,
            config_maps,
            changes,
            synced,
        };
        let waiting = cache.clone();
        let running = async move {
            let sync = async move {
                waiting.installation_ready().await?;
                all_synced.send_replace(Synced::Installation);
                waiting.rest_ready().await?;
                all_synced.send_replace(Synced::Everything);
                tracing::info!("caches are synced");
                std::future::pending::<anyhow::Result<()>>().await
            };
            tokio::select! {
                _ = futures::future::select_all(work.watches) => anyhow::bail!("a watch ended"),
                ended = sync => ended,
            }
        };
        (cache, running)
    }

    // Only for one task: a store wakes no more than the last one that waits for it.
    async fn installation_ready(&self) -> anyhow::Result<()> {
        self.fleets.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.agents.wait_until_ready().await?;
        self.revisions.wait_until_ready().await?;
        self.daemonsets.wait_until_ready().await?;
        Ok(())
    }

    async fn rest_ready(&self) -> anyhow::Result<()> {
        self.configs.wait_until_ready().await?;
        self.states.wait_until_ready().await?;
        self.service_cidrs.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        Ok(())
    }

    /// Whether every kind has been listed once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow() == Synced::Everything
    }

    /// Returns when every kind has been listed once: an empty cache is no empty cluster.
    pub async fn synced(&self) -> anyhow::Result<()> {
        self.reached(Synced::Everything).await
    }

    /// Returns when those kinds have been listed once that the installation is told from: Fleets, nodes
    /// and what the agents are made of. A Fleet can leave where the other kinds are gone already.
    pub async fn installation_synced(&self) -> anyhow::Result<()> {
        self.reached(Synced::Installation).await
    }

    async fn reached(&self, wanted: Synced) -> anyhow::Result<()> {
        let mut synced = self.synced.clone();
        synced.wait_for(|synced| *synced >= wanted).await?;
        Ok(())
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The Fleet, if there is one.
    pub fn fleet(&self) -> Option<Arc<Fleet>> {
        self.fleets
            .find(|fleet| edict_crds::name(fleet) == edict_crds::fleet::NAME)
    }

    /// What the cluster knows of its own addresses.
    pub fn facts(&self) -> Facts {
        let nodes = self.nodes.state();
        let services = self.service_cidrs.state();
        let ranges = |node: &Arc<Node>| {
            let spec = node.spec.clone().unwrap_or_default();
            let all = spec.pod_cidrs.into_iter().flatten().chain(spec.pod_cidr);
            all.filter_map(|range| range.parse().ok())
                .collect::<Vec<_>>()
        };
        let served = |range: &Arc<ServiceCIDR>| {
            let all = range.spec.clone().unwrap_or_default().cidrs;
            let all = all.into_iter().flatten();
            all.filter_map(|range| range.parse().ok())
                .collect::<Vec<_>>()
        };
        Facts {
            nodes: nodes.iter().flat_map(|node| proof::address(node)).collect(),
            pods: nodes.iter().flat_map(ranges).collect(),
            services: services.iter().flat_map(served).collect(),
        }
    }

    /// What `NodeConfig`s may do, as the Fleet says.
    pub fn policy(&self) -> Policy {
        let fleet = self.fleet();
        fleet.map_or_else(Policy::default, |fleet| fleet.spec.policy())
    }

    /// The agent's pod that runs on `node` and has an address.
    pub fn agent(&self, node: &str) -> Option<Arc<Pod>> {
        let usable = |pod: &Pod| {
            let address = pod
                .status
                .as_ref()
                .and_then(|status| status.pod_ip.as_ref());
            node_of(pod) == Some(node)
                && pod.metadata.deletion_timestamp.is_none()
                && address.is_some()
        };
        let mut pods = self.agents.state_filter(usable);
        // While an agent is replaced there may be two; the younger one is there to stay.
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        pods.pop()
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// The watches that fill the caches.
struct Work {
    changes: broadcast::Sender<Change>,
    watches: Vec<futures::future::BoxFuture<'static, ()>>,
}

impl Work {
    /// A cache of one kind; what fills it is added to the watches.
    fn follow<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        change: impl Fn(&K) -> Change + Send + Sync + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.fill(watcher(api, config), change)
    }

    /// A cache that is filled by these events.
    fn fill<K>(
        &mut self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        change: impl Fn(&K) -> Change + Send + Sync + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let changes = self.changes.clone();
        let watch = reflector::reflector(writer, events)
            .backoff(Pauses::default())
            .inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::warn!(error, kind = %K::kind(&()), "watch failed");
            })
            .filter_map(async |event| event.ok())
            .for_each(move |event| {
                let change = match event {
                    Event::Apply(object) | Event::Delete(object) => Some(change(&object)),
                    // What was listed is in the store only now.
                    Event::InitDone => Some(Change::Listed),
                    Event::Init | Event::InitApply(_) => None,
                };
                // Nobody listening yet is no error.
                let _ = change.map(|change| changes.send(change));
                futures::future::ready(())
            });
        self.watches.push(watch.boxed());
        store
    }
}
