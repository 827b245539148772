//! A cluster as the operator sees it: an API server, nodes with their agents, and waiting.

use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use edict_operator::pki::{self, Pair};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::agent::Agent;
use super::operator::Operator;
use super::script::{Asked, Fault, Verb};
use super::server::{Server, State};
use super::store::{Key, merge};

/// Edict's namespace.
pub const NAMESPACE: &str = "edict-system";
/// How long what is to come may take where nothing is said to be slow. It takes a second on an idle
/// machine; an agent that was away is asked again after five.
pub const SOON: Duration = Duration::from_secs(30);
/// How often is looked whether it has come.
const LOOK: Duration = Duration::from_millis(10);

pub struct Cluster {
    pub server: Server,
    authority: Pair,
    folder: PathBuf,
}

impl Cluster {
    /// A cluster without nodes, for the test of this name.
    pub async fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("api");
        let folder = folder.join(test);
        std::fs::create_dir_all(&folder).unwrap();
        let cluster = Self {
            server: Server::start().await,
            authority: pki::authority(Timestamp::now()).unwrap(),
            folder,
        };
        let Pair { certificate, key } = cluster.authority.clone();
        let data = [("tls.crt", certificate), ("tls.key", key)];
        let data = data.map(|(name, text)| (name, ByteString(text.into_bytes())));
        let secret = json!({"type": "kubernetes.io/tls", "data": serde_json::Map::from_iter(
            data.map(|(name, text)| (name.to_owned(), json!(text))),
        )});
        cluster.create("secrets", "edict-ca", secret);
        cluster.create("fleets", "default", json!({"spec": {}}));
        cluster
    }

    /// The operator of this cluster.
    pub fn operator(&self, identity: &str) -> Operator {
        Operator::start(self.server.address, identity, &self.folder)
    }

    /// A worker node and its agent.
    pub async fn node(&self, name: &str) -> Agent {
        let agent = Agent::start(name, &self.authority).await;
        self.register(name);
        self.run_agent(name, &agent);
        agent
    }

    /// The Node object, as the kubelet makes it.
    pub fn register(&self, name: &str) {
        let labels = json!({"kubernetes.io/os": "linux"});
        self.create("nodes", name, json!({"metadata": {"labels": labels}}));
    }

    /// The agent's pod.
    pub fn run_agent(&self, node: &str, agent: &Agent) {
        let labels = json!({"app.kubernetes.io/name": "edict-agent"});
        self.create(
            "pods",
            &format!("edict-agent-{node}"),
            json!({
                "metadata": {"labels": labels},
                "spec": {"nodeName": node, "containers": []},
                "status": {"podIP": agent.address},
            }),
        );
    }

    /// A `NodeConfig` with one file, for all nodes unless `change` says otherwise.
    pub fn config(&self, name: &str, change: &Value) {
        let mut object = json!({"spec": {
            "target": {"role": "All"},
            "files": [{"path": format!("/etc/edict/{name}"), "content": name}],
        }});
        merge(&mut object, change);
        self.create("nodeconfigs", name, object);
    }

    pub fn create(&self, resource: &str, name: &str, object: Value) {
        let key = key(resource, name);
        let created = self.server.change(|state| state.store.create(&key, object));
        created.unwrap();
    }

    /// Changes an object as its owner may, by a merge patch on all of it.
    pub fn edit(&self, resource: &str, name: &str, change: &Value) {
        let key = key(resource, name);
        self.server
            .change(|state| state.store.edit(&key, |object| merge(object, change)));
    }

    pub fn delete(&self, resource: &str, name: &str) {
        let key = key(resource, name);
        let deleted = self.server.change(|state| state.store.delete(&key, None));
        deleted.unwrap();
    }

    /// An object, `Null` where there is none.
    pub fn get(&self, resource: &str, name: &str) -> Value {
        let found = self.server.state().store.get(&key(resource, name)).cloned();
        found.unwrap_or_default()
    }

    /// The next `times` requests of this kind go wrong so.
    pub fn fault(&self, times: usize, verb: Verb, resource: &str, fault: Fault) {
        self.server
            .change(|state| state.script.fault(times, verb, resource, fault));
    }

    /// No request of this kind goes wrong any more.
    pub fn mend(&self, verb: Verb, resource: &str) {
        self.server
            .change(|state| state.script.mend(verb, resource));
    }

    /// The operator's next look at `resource` begins with a list: its watch ends, and what happened
    /// up to now is forgotten.
    pub fn relist(&self, resource: &str) {
        self.server.change(|state| {
            state.store.forget(resource);
            state.script.close(resource);
        });
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.server.state()
    }

    /// What was asked so far of `resource`.
    pub fn asked(&self, verb: Verb, resource: &str) -> Vec<Asked> {
        let state = self.state();
        let asked = state.asked.iter();
        asked
            .filter(|asked| asked.verb == verb && asked.resource == resource)
            .cloned()
            .collect()
    }

    /// Nothing was given back, and nothing was ever to be.
    pub fn has_kept_everything(&self, agents: &[&Agent]) {
        for state in self.state().store.history("nodestates") {
            let releases = state["spec"]["releases"].as_array();
            let none = releases.is_none_or(Vec::is_empty);
            assert!(none, "a release was planned: {state:#}");
        }
        for agent in agents {
            let given_back = agent.memory().given_back.clone();
            assert!(given_back.is_empty(), "{given_back:?} was given back");
        }
    }

    /// Waits until `look` finds what it looks for; what it says until then is shown where that does
    /// not come.
    pub async fn until<T>(
        &self,
        operator: &Operator,
        within: Duration,
        mut look: impl FnMut() -> Result<T, String>,
    ) -> T {
        let began = Instant::now();
        loop {
            match look() {
                Ok(found) => return found,
                Err(seen) if began.elapsed() > within => {
                    let asked: Vec<_> =
                        self.state().asked.iter().map(ToString::to_string).collect();
                    let last = asked[asked.len().saturating_sub(40)..].join("\n");
                    let said = operator.said();
                    panic!("after {within:?}: {seen}\n\n{last}\n\n{said}");
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until each of the nodes has exactly these layers, and everybody says so.
    pub async fn settled(&self, operator: &Operator, agents: &[(&str, &Agent)], names: &[&str]) {
        self.settled_within(SOON, operator, agents, names).await;
    }

    pub async fn settled_within(
        &self,
        within: Duration,
        operator: &Operator,
        agents: &[(&str, &Agent)],
        names: &[&str],
    ) {
        self.until(operator, within, || {
            for (node, agent) in agents {
                let has = agent.memory().names();
                if has != names {
                    return Err(format!("{node} has {has:?}, not {names:?}"));
                }
                let state = self.get("nodestates", node);
                let layers = state["spec"]["layers"].as_array().cloned();
                let mut named: Vec<_> = layers
                    .iter()
                    .flatten()
                    .map(|layer| layer["name"].as_str().unwrap_or_default().to_owned())
                    .collect();
                named.sort();
                let observed = &state["status"]["observedGeneration"];
                let current = *observed == state["metadata"]["generation"];
                let left = state["spec"]["releases"].as_array().map_or(1, Vec::len);
                if named != names || !current || left > 0 {
                    return Err(format!("NodeState {node} is {state:#}"));
                }
            }
            for name in names {
                let said = self.get("nodeconfigs", name)["status"]["state"].clone();
                if said != "Applied" {
                    return Err(format!("NodeConfig {name} is {said}"));
                }
            }
            Ok(())
        })
        .await;
    }
}

pub fn key(resource: &str, name: &str) -> Key {
    let cluster_wide = ["fleets", "nodeconfigs", "nodes", "nodestates"];
    let namespace = if cluster_wide.contains(&resource) {
        ""
    } else {
        NAMESPACE
    };
    Key {
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
