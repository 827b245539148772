//! Faults of a cluster, and how each of them is undone.
//!
//! A test that is cut short leaves its fault behind: [`heal`] makes whole whatever that was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edict_crds::NodeState;
use edict_crds::nodestate::Contact;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::agent;
use crate::container;
use crate::context::Context;
use crate::install::{NAMESPACE, OPERATOR, operator_ready};
use crate::node::Node;
use crate::wait::{self, Seen};

/// As many operators as `deploy/operator.yaml` has.
const OPERATORS: i32 = 2;
/// A master that was stopped starts its control plane first, and a Lease has to end.
const WHOLE: Duration = Duration::from_mins(4);
/// Where a small volume is filled before it takes a folder's place.
const STAGE: &str = "/run/edict-e2e-volume";
/// What that is called in the table of mounts.
const VOLUME: &str = "edict-e2e";
/// The file that leaves no space to others.
pub const FILLER: &str = "e2e-filler";

/// Something that does not work as long as this is there. Undo it with [`Fault::end`].
#[derive(Debug)]
#[must_use = "a fault has to end"]
pub enum Fault {
    /// The node answers nothing.
    Frozen(Node),
    /// The node is off.
    Stopped(Node, String),
    /// The agent's pod has no network: its link on the node is down.
    Cut {
        /// The node.
        node: Node,
        /// The node's end of the pod's network.
        link: String,
        /// The pod's address.
        address: String,
    },
    /// No operator runs.
    NoOperators,
    /// A folder of the node is on a small volume of its own.
    Volume(Node),
}

impl Fault {
    /// Freezes a node.
    pub async fn freeze(node: &Node) -> Result<Self> {
        node.pause().await?;
        Ok(Self::Frozen(node.clone()))
    }

    /// Turns a node off.
    pub async fn stop(node: &Node) -> Result<Self> {
        let address = address(node).await?;
        node.stop().await?;
        Ok(Self::Stopped(node.clone(), address))
    }

    /// Takes the network away from the agent of a node.
    pub async fn cut(ctx: &Context, node: &Node) -> Result<Self> {
        let pod = agent::pod(&ctx.client, &node.name).await?;
        let address = pod.status.and_then(|status| status.pod_ip);
        let address = address.context("the agent's pod has no address")?;
        let route = node.run(&["ip", "route", "get", &address]).await?;
        let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
        let link = words
            .nth(1)
            .with_context(|| format!("{address} is on no link: {route}"))?;
        ensure!(link != "eth0", "{address} is not on {}: {route}", node.name);
        node.run(&["ip", "link", "set", link, "down"]).await?;
        Ok(Self::Cut {
            node: node.clone(),
            link: link.to_owned(),
            address,
        })
    }

    /// Takes every operator away.
    pub async fn no_operators(ctx: &Context) -> Result<Self> {
        scale(ctx, 0).await?;
        let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        let none = wait::object(&api, OPERATOR, "no operators", WHOLE, |found| {
            let status = found.status.as_ref();
            status.is_none_or(|status| status.replicas.unwrap_or_default() == 0)
                && found.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
        });
        if let Err(error) = none.await {
            scale(ctx, OPERATORS).await?;
            return Err(error);
        }
        Ok(Self::NoOperators)
    }

    /// Puts a folder of a node, with all that is in it, on a volume of `kibibytes`.
    pub async fn volume(node: &Node, folder: &str, kibibytes: u32) -> Result<Self> {
        let size = format!("size={kibibytes}k");
        node.run(&["mkdir", "-p", STAGE, folder]).await?;
        node.run(&["mount", "-t", "tmpfs", "-o", &size, VOLUME, STAGE])
            .await?;
        let moving = async {
            let all = format!("{folder}/.");
            node.run(&["cp", "-a", &all, STAGE]).await?;
            node.run(&["mount", "--bind", STAGE, folder]).await?;
            node.run(&["umount", STAGE]).await
        };
        match moving.await {
            Ok(_) => Ok(Self::Volume(node.clone())),
            Err(error) => {
                unmount(node).await?;
                Err(error)
            }
        }
    }

    /// Runs `body`, and ends the fault however that ends.
    pub async fn during<T>(
        self,
        ctx: &Context,
        body: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let outcome = body().await;
        self.ended(ctx, outcome).await
    }

    /// Ends the fault. The error of what was done meanwhile counts first.
    async fn ended<T>(self, ctx: &Context, outcome: Result<T>) -> Result<T> {
        let described = format!("{self:?}");
        let ended = self.end(ctx).await;
        match (outcome, ended) {
            (Err(error), Err(left)) => {
                Err(error.context(format!("{described} can't be undone either: {left:#}")))
            }
            (Ok(_), Err(left)) => Err(left.context(format!("{described} can't be undone"))),
            (outcome, Ok(())) => outcome,
        }
    }

    /// Undoes it.
    pub async fn end(self, ctx: &Context) -> Result<()> {
        match self {
            Self::Frozen(node) => node.unpause().await,
            Self::Stopped(node, before) => {
                node.start().await?;
                let now = address(&node).await?;
                ensure!(
                    now == before,
                    "{} was at {before} and is at {now}: its certificates are for the other one",
                    node.name
                );
                Ok(())
            }
            Self::Cut {
                node,
                link,
                address,
            } => {
                node.run(&["ip", "link", "set", &link, "up"]).await?;
                // The route went with the link. ptp, kind's network plugin, makes it with the pod.
                let route = ["ip", "route", "replace", &address, "dev", &link];
                node.run(&[&route[..], &["scope", "host"]].concat())
                    .await
                    .map(drop)
            }
            Self::NoOperators => {
                scale(ctx, OPERATORS).await?;
                operator_ready(&ctx.client, &ctx.images.operator).await
            }
            Self::Volume(node) => unmount(&node).await.map(drop),
        }
    }
}

/// Makes the cluster whole again: what a test that was cut short has left is undone, and every agent
/// answers.
pub async fn heal(ctx: &Context) -> Result<()> {
    scale(ctx, OPERATORS).await?;
    let unmounted = try_join_all(ctx.nodes().iter().map(async |node| {
        let unmounted = unmount(node).await?;
        anyhow::Ok(unmounted.then_some(node))
    }));
    for node in unmounted.await?.into_iter().flatten() {
        // The one that runs has the state folder of the volume in its hand.
        agent::replace(&ctx.client, &node.name).await?;
    }
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    for node in ctx.nodes() {
        let status = api.get_opt(&node.name).await?.and_then(|it| it.status);
        if status.is_some_and(|it| it.state == Some(Contact::Unreachable)) {
            renew(ctx, node).await?;
        }
    }
    whole(ctx).await
}

/// Puts other pods in the place of a node's: one that joined again has other addresses for them.
pub async fn renew(ctx: &Context, node: &Node) -> Result<()> {
    let own = format!("--field-selector=spec.nodeName={}", node.name);
    // Where the network's plugin would read the addresses of before, as long as the new pod has not
    // written it anew.
    let stale = [
        "/run/flannel/subnet.env",
        "/etc/cni/net.d/10-kindnet.conflist",
    ];
    node.run(&[&["rm", "-f"], &stale[..]].concat()).await?;
    let network = [
        "-n",
        "kube-system",
        "-l",
        "k8s-app in (flannel,kindnet)",
        &own,
    ];
    ctx.kubectl()
        .args(["delete", "pod"])
        .args(network)
        .text()
        .await?;
    wait::until("the node's network", WHOLE, async || {
        let ready = ["wait", "--for=condition=Ready", "--timeout=5s", "pod"];
        let output = ctx.kubectl().args(ready).args(network).output().await?;
        Ok(Seen::when(output.success(), output))
    })
    .await?;
    agent::replace(&ctx.client, &node.name).await
}

/// Waits until all nodes are Ready, all operators run and every agent answers.
pub async fn whole(ctx: &Context) -> Result<()> {
    let ready = ["wait", "--for=condition=Ready", "node", "--all"];
    let ready = ctx.kubectl().args(ready).arg("--timeout=180s");
    ready.within(WHOLE).text().await?;
    operator_ready(&ctx.client, &ctx.images.operator).await?;
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    let expected = ctx.nodes().len();
    wait::until("every agent to answer", WHOLE, async || {
        let found = api.list(&ListParams::default()).await?.items;
        let contacts: BTreeMap<_, _> = found
            .iter()
            .map(|state| {
                let status = state.status.as_ref();
                let contact = status.and_then(|status| status.state);
                (edict_crds::name(state).to_owned(), contact)
            })
            .collect();
        let all = contacts.values().all(|one| *one == Some(Contact::Ready));
        Ok(Seen::when(all && contacts.len() == expected, contacts))
    })
    .await
}

/// Waits until the operator says this of whether a node's agent answers, and gives why.
pub async fn contact(
    ctx: &Context,
    node: &Node,
    contact: Contact,
    deadline: Duration,
) -> Result<String> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    let what = format!("to be {contact:?}");
    let state = wait::object(&api, &node.name, &what, deadline, |state| {
        let status = state.status.as_ref();
        status.is_some_and(|status| status.state == Some(contact))
    });
    Ok(state.await?.status.unwrap_or_default().message)
}

/// Leaves no space on the volume that a folder is on.
pub async fn fill(node: &Node, folder: &str) -> Result<()> {
    let filler = format!("of={folder}/{FILLER}");
    let full = node
        .exec(&["dd", "if=/dev/zero", &filler, "bs=1024"])
        .await?;
    ensure!(
        full.stderr.contains("No space left on device"),
        "{folder} is not full: {}",
        full.stderr
    );
    Ok(())
}

/// Leaves space again.
pub async fn free(node: &Node, folder: &str) -> Result<()> {
    node.remove(&format!("{folder}/{FILLER}")).await
}

async fn scale(ctx: &Context, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch(OPERATOR, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Takes away every volume that tests have put on a node; says whether there was any.
async fn unmount(node: &Node) -> Result<bool> {
    let table = node.run(&["cat", "/proc/self/mounts"]).await?;
    let mounted: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix(VOLUME)?.split_whitespace().next())
        .collect();
    for folder in &mounted {
        // Lazily: an agent may look into it just now.
        node.run(&["umount", "--lazy", folder]).await?;
    }
    node.remove(STAGE).await?;
    Ok(!mounted.is_empty())
}

async fn address(node: &Node) -> Result<String> {
    let found = container::address(&node.name).await?;
    ensure!(!found.is_empty(), "{} has no address", node.name);
    Ok(found)
}
