//! What the API server says, kept up to date, and a signal whenever it says something new.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edict_crds::{Fleet, NodeConfig, NodeState};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

/// The label that tells the agents' pods.
pub const AGENT_LABEL: (&str, &str) = ("app.kubernetes.io/name", "edict-agent");

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
    /// A `DaemonSet` of Edict's namespace.
    DaemonSet,
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
    /// The agents' pods.
    pub agents: Store<Pod>,
    /// The revisions in Edict's namespace.
    pub revisions: Store<ControllerRevision>,
    /// The `DaemonSet`s in Edict's namespace.
    pub daemonsets: Store<DaemonSet>,
    changes: broadcast::Sender<Change>,
    synced: Arc<AtomicBool>,
}

impl Cache {
    /// The cache, and the work that keeps it up to date; that ends only with an error.
    pub fn new(
        client: &Client,
        namespace: &str,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + use<>) {
        // More changes at once than this make a listener look at everything, which it can.
        let (changes, _) = broadcast::channel(1024);
        let own = watcher::Config::default();
        let agents =
            watcher::Config::default().labels(&format!("{}={}", AGENT_LABEL.0, AGENT_LABEL.1));
        let (configs, a) = watch(
            Api::<NodeConfig>::all(client.clone()),
            own.clone(),
            &changes,
            |_| Change::NodeConfig,
        );
        let (states, b) = watch(
            Api::<NodeState>::all(client.clone()),
            own.clone(),
            &changes,
            |state| Change::NodeState(edict_crds::name(state).to_owned()),
        );
        let (fleets, c) = watch(
            Api::<Fleet>::all(client.clone()),
            own.clone(),
            &changes,
            |_| Change::Fleet,
        );
        let (nodes, d) = watch(
            Api::<Node>::all(client.clone()),
            own.clone(),
            &changes,
            |_| Change::Node,
        );
        let (agents, e) = watch(
            Api::<Pod>::namespaced(client.clone(), namespace),
            agents,
            &changes,
            |pod| Change::Agent(node_of(pod).unwrap_or_default().to_owned()),
        );
        let (revisions, f) = watch(
            Api::<ControllerRevision>::namespaced(client.clone(), namespace),
            own.clone(),
            &changes,
            |_| Change::Revision,
        );
        let (daemonsets, g) = watch(
            Api::<DaemonSet>::namespaced(client.clone(), namespace),
            own,
            &changes,
            |_| Change::DaemonSet,
        );
        let cache = Self {
            configs,
            states,
            fleets,
            nodes,
            agents,
            revisions,
            daemonsets,
            changes,
            synced: Arc::default(),
        };
        let waiting = cache.clone();
        let work = async move {
            let sync = async move {
                waiting.all_ready().await?;
                waiting.synced.store(true, Ordering::Release);
                tracing::info!("caches are synced");
                std::future::pending::<anyhow::Result<()>>().await
            };
            tokio::select! {
                ended = futures::future::select_all([a, b, c, d, e, f, g]) => {
                    ended.0;
                    anyhow::bail!("a watch ended")
                }
                ended = sync => ended,
            }
        };
        (cache, work)
    }

    async fn all_ready(&self) -> anyhow::Result<()> {
        self.configs.wait_until_ready().await?;
        self.states.wait_until_ready().await?;
        self.fleets.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.agents.wait_until_ready().await?;
        self.revisions.wait_until_ready().await?;
        self.daemonsets.wait_until_ready().await?;
        Ok(())
    }

    /// Whether every kind has been listed once.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Returns when every kind has been listed once: an empty cache is no empty cluster.
    pub async fn synced(&self) -> anyhow::Result<()> {
        self.all_ready().await
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

    /// Where `NodeConfig`s may write, as the Fleet says.
    pub fn policy(&self) -> edict_core::guard::Policy {
        self.fleet()
            .and_then(|fleet| fleet.spec.paths.clone())
            .unwrap_or_default()
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

/// A cache of one kind, and the work that fills it.
fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    changes: &broadcast::Sender<Change>,
    change: impl Fn(&K) -> Change + Send + Sync + 'static,
) -> (Store<K>, futures::future::BoxFuture<'static, ()>)
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let changes = changes.clone();
    let work = reflector::reflector(writer, watcher(api, config))
        .default_backoff()
        .touched_objects()
        .inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, kind = %K::kind(&()), "watch failed"))
        .filter_map(async |touched| touched.ok())
        .for_each(move |object| {
            // Nobody listening yet is no error.
            let _ = changes.send(change(&object));
            futures::future::ready(())
        })
        .boxed();
    (store, work)
}
