//! What a test holds: the cluster, and a label on everything that it makes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edict_crds::NodeState;
use edict_crds::nodestate::Contact;
use futures::future::try_join_all;
use kube::{Api, Client};

use crate::cluster::Cluster;
use crate::image::Images;
use crate::install::NAMESPACE;
use crate::node::{self, Node, Role};
use crate::process::{Output, Process};
use crate::wait;

/// The label that says which test made an object.
pub const LABEL: &str = "edict.dev/test";

/// Giving a NodeConfig back runs on every node that it was for, in its order and
/// at its pace.
const GONE: Duration = Duration::from_mins(3);
/// A kubelet that was started anew says so within seconds, a busy machine gets time.
const READY: Duration = Duration::from_mins(3);

/// One test's hold on the shared cluster.
#[derive(Clone)]
pub struct Context {
    /// The test's name; every object of it carries it in [`LABEL`].
    pub name: String,
    /// A client of this test's own runtime.
    pub client: Client,
    /// The cluster.
    pub cluster: Cluster,
    /// The images that run on it.
    pub images: Images,
    /// Where this test may leave files, and where its evidence goes.
    pub folder: PathBuf,
    planted: Arc<Mutex<Vec<Planted>>>,
}

/// A host file as it was before the test put its own there.
struct Planted {
    node: Node,
    path: String,
    before: Option<(Vec<u8>, node::Stat)>,
}

impl Context {
    /// A test of this name on that cluster.
    pub async fn new(
        name: &str,
        cluster: Cluster,
        images: Images,
        folder: PathBuf,
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            client: cluster.access.client().await?,
            cluster,
            images,
            folder,
            planted: Arc::default(),
        })
    }

    /// All nodes, masters first.
    pub fn nodes(&self) -> &[Node] {
        &self.cluster.nodes
    }

    /// Those that run a control plane.
    pub fn masters(&self) -> Vec<Node> {
        self.of_role(Role::Master)
    }

    /// The others.
    pub fn workers(&self) -> Vec<Node> {
        self.of_role(Role::Worker)
    }

    fn of_role(&self, role: Role) -> Vec<Node> {
        let nodes = self.nodes().iter();
        nodes.filter(|node| node.role == role).cloned().collect()
    }

    /// One path on many nodes, read at once: node name -> content, none where there is no such file.
    pub async fn read_all(
        &self,
        nodes: &[Node],
        path: &str,
    ) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
        node::read_all(nodes, path).await
    }

    /// Waits until the kubelets say that all is well with these nodes, and their agents too.
    pub async fn ready(&self, nodes: &[Node]) -> Result<()> {
        let states: Api<NodeState> = Api::all(self.client.clone());
        let cluster: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        wait::until("the nodes to be ready", READY, async || {
            let mut said = Vec::new();
            for node in nodes {
                let found = cluster.get(&node.name).await?;
                let conditions = found.status.and_then(|status| status.conditions);
                let mut conditions = conditions.into_iter().flatten();
                let ready = conditions.find(|one| one.type_ == "Ready");
                let ready = ready.is_some_and(|one| one.status == "True");
                let state = states.get(&node.name).await?.status.unwrap_or_default();
                let contact = state.state == Some(Contact::Ready);
                said.push((node.name.clone(), ready, contact));
            }
            let all = said.iter().all(|(_, ready, contact)| *ready && *contact);
            Ok(wait::Seen::when(all, said))
        })
        .await
    }

    /// Waits until no node has anything at `path` any more.
    pub async fn given_back(&self, path: &str, deadline: Duration) -> Result<()> {
        wait::until(&format!("{path} to be given back"), deadline, async || {
            let found = self.read_all(self.nodes(), path).await?;
            let gone = found.values().all(Option::is_none);
            Ok(wait::Seen::when(gone, found))
        })
        .await
    }

    /// Which file is at `path` of each node, and when it was last touched: whoever writes it
    /// changes that.
    pub async fn touched(&self, nodes: &[Node], path: &str) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for node in nodes {
            let stat = node.run(&["stat", "--format=%i %z %y", path]).await?;
            all.insert(node.name.clone(), stat);
        }
        Ok(all)
    }

    /// A kubectl that talks to the cluster.
    pub fn kubectl(&self) -> Process {
        self.cluster.access.kubectl()
    }

    /// The label of this test, as selectors write it.
    pub fn selector(&self) -> String {
        format!("{LABEL}={}", self.name)
    }

    /// Applies YAML or JSON as a user does, with the label of this test on every object.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let output = self.try_apply(manifest).await?;
        if !output.success() {
            bail!("kubectl apply refused: {}", output.stderr.trim());
        }
        Ok(())
    }

    /// As [`Self::apply`], for manifests that should be refused: any outcome is given.
    pub async fn try_apply(&self, manifest: &str) -> Result<Output> {
        let labelled = self
            .kubectl()
            .args(["label", "--local", "--overwrite", "-o", "json", "-f", "-"])
            .arg(self.selector())
            .stdin(manifest)
            .bytes()
            .await
            .context("the manifest is no object that kubectl can read")?;
        let apply = self.kubectl().args(["apply", "-f", "-"]);
        apply.stdin(labelled).output().await
    }

    /// Deletes one object and waits until it is gone: "nodeconfig", "motd".
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", GONE.as_secs());
        let delete = self
            .kubectl()
            .args(["delete", "--ignore-not-found", &timeout, kind, name]);
        delete.within(GONE + Duration::from_secs(10)).text().await?;
        Ok(())
    }

    /// Puts a file on a node as somebody on the host would. What was there before
    /// comes back when the test ends.
    pub async fn plant(&self, node: &Node, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let (stat, bytes) = futures::try_join!(node.stat(path), node.read(path))?;
        let planted = Planted {
            node: node.clone(),
            path: path.to_owned(),
            before: bytes.zip(stat),
        };
        self.planted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(planted);
        node.write(path, content, mode, 0, 0).await
    }

    /// Takes away what this test made, now or in a run that was cut short, and
    /// waits until it is gone.
    pub async fn clean(&self) -> Result<()> {
        self.start_stopped().await?;
        let timeout = format!("--timeout={}s", GONE.as_secs());
        // The configurations first: they may refer to the others.
        for kinds in ["nodeconfigs", "configmaps,secrets,namespaces"] {
            self.kubectl()
                .args([
                    "delete",
                    kinds,
                    "--ignore-not-found",
                    "-n",
                    NAMESPACE,
                    &timeout,
                    "-l",
                ])
                .arg(self.selector())
                .within(GONE + Duration::from_secs(10))
                .text()
                .await
                .with_context(|| format!("{kinds} of {} do not go away", self.name))?;
        }
        let planted =
            std::mem::take(&mut *self.planted.lock().unwrap_or_else(PoisonError::into_inner));
        for one in planted.into_iter().rev() {
            match one.before {
                Some((bytes, stat)) => {
                    one.node
                        .write(&one.path, &bytes, stat.mode, stat.uid, stat.gid)
                        .await?;
                }
                None => one.node.remove(&one.path).await?,
            }
        }
        Ok(())
    }

    /// A test that stops nodes may have been cut short.
    async fn start_stopped(&self) -> Result<()> {
        let looks = self.nodes().iter().map(async |node| {
            let runs = node.exec(&["true"]).await?.success();
            anyhow::Ok((node, runs))
        });
        let mut started = false;
        for (node, runs) in try_join_all(looks).await? {
            if !runs {
                node.unpause().await?;
                node.start().await?;
                started = true;
            }
        }
        if started {
            let ready = self.kubectl().args([
                "wait",
                "--for=condition=Ready",
                "node",
                "--all",
                "--timeout=120s",
            ]);
            ready.within(Duration::from_secs(130)).text().await?;
        }
        Ok(())
    }
}
