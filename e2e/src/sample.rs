//! Samples of a change that is on its way: whether what a status says is true, and whether what is on
//! the nodes is whole, at every look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edict_crds::nodestate::{Contact, LayerStatus, OutcomeStatus};
use edict_crds::{NodeConfig, NodeState, name, uid};
use futures::future::try_join_all;
use kube::Api;
use kube::api::ListParams;
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use crate::context::Context;
use crate::node::Node;
use crate::nodeconfig::Draft;
use crate::progress::Step;

/// How long after a look the next one begins.
const INTERVAL: Duration = Duration::from_millis(200);
/// An API server that does not answer by then says nothing that could be untrue.
const ANSWER: Duration = Duration::from_secs(5);

/// Runs `body`, and looks at these changes again and again meanwhile. A look that finds something
/// untrue or torn ends both.
pub async fn throughout<T>(
    ctx: &Context,
    changes: &[Change],
    body: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let step = Step::begin("sampling");
    let (mut looks, mut answers) = (0_u32, 0_u32);
    let mut look = async || {
        looks += 1;
        for change in changes {
            answers += u32::from(change.look(ctx).await?);
        }
        anyhow::Ok(())
    };
    let sampling = async {
        loop {
            if let Err(error) = look().await {
                return error;
            }
            sleep(INTERVAL).await;
        }
    };
    let outcome = tokio::select! {
        outcome = body() => outcome?,
        error = sampling => return Err(error),
    };
    look().await?;
    ensure!(
        answers > 0,
        "{looks} looks, and the API server answered none"
    );
    step.done(&format!("{looks} looks, nothing untrue"));
    Ok(outcome)
}

/// A change of what a `NodeConfig` puts on nodes, which other content was on before.
#[derive(Clone, Debug)]
pub struct Change {
    config: String,
    uid: String,
    /// The revision before, and the digests that nodes had of it.
    revision: Option<String>,
    digests: BTreeSet<String>,
    /// The files, by checksum before and after.
    paths: Vec<String>,
    before: String,
    after: String,
    nodes: Vec<Node>,
    /// Nodes that can't be looked into, and that can't have been told.
    away: Vec<String>,
}

impl Change {
    /// Of a `NodeConfig` that is on exactly these nodes, as it is now, and that will bring its files
    /// from one content to the other.
    pub async fn of(
        ctx: &Context,
        draft: &Draft,
        nodes: &[Node],
        [before, after]: [&str; 2],
    ) -> Result<Self> {
        let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
        let config = configs.get(draft.name()).await?;
        let files = draft.0.spec.config.files.as_ref();
        let files = files.context("a change without files")?;
        let uid = uid(&config).to_owned();
        let digests = states(ctx)
            .await?
            .iter()
            .filter_map(|state| Some(layer(state, &uid)?.digest.clone()))
            .collect();
        let sum = |content: &str| format!("{:x}", Sha256::digest(content));
        Ok(Self {
            config: draft.name().to_owned(),
            uid,
            revision: config.status.unwrap_or_default().revision,
            digests,
            paths: files.0.iter().map(|file| file.path.clone()).collect(),
            before: sum(before),
            after: sum(after),
            nodes: nodes.to_vec(),
            away: Vec::new(),
        })
    }

    /// The revision before the change.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// While this node can't be looked into, and can't be told anything.
    #[must_use]
    pub fn without(mut self, away: &Node) -> Self {
        self.away.push(away.name.clone());
        self
    }

    /// One look; says whether the API server answered.
    ///
    /// The status is read first: what it says then must be so on the nodes afterwards.
    async fn look(&self, ctx: &Context) -> Result<bool> {
        let api: Api<NodeConfig> = Api::all(ctx.client.clone());
        let asking = async { anyhow::Ok((api.get_opt(&self.config).await?, states(ctx).await?)) };
        let asked = timeout(ANSWER, asking).await.ok().and_then(Result::ok);
        let looks = self.nodes.iter().map(async |node| {
            let away = self.away.contains(&node.name);
            let new = !away && self.is_new(node).await?;
            anyhow::Ok((&node.name, new))
        });
        let new: BTreeMap<&String, bool> = try_join_all(looks).await?.into_iter().collect();
        let Some((config, states)) = asked else {
            return Ok(false);
        };
        for node in self.said(config, &states)? {
            ensure!(
                new.get(&node).copied().unwrap_or_default(),
                "{} is said to be new on {node}, which does not have it: {new:?}",
                self.config
            );
        }
        Ok(true)
    }

    /// The nodes that are said to have what is new.
    fn said(&self, config: Option<NodeConfig>, states: &[NodeState]) -> Result<BTreeSet<String>> {
        let applied = |state: &&NodeState| {
            let contact = state.status.as_ref().and_then(|status| status.state);
            let good = [OutcomeStatus::Applied, OutcomeStatus::PendingReload];
            contact == Some(Contact::Ready)
                && layer(state, &self.uid).is_some_and(|layer| {
                    !self.digests.contains(&layer.digest) && good.contains(&layer.outcome)
                })
        };
        let states = states.iter().filter(applied);
        let mut said: BTreeSet<_> = states.map(|state| name(state).to_owned()).collect();
        let status = config.and_then(|config| config.status).unwrap_or_default();
        // None stands there while it leaves.
        if status.revision.is_some() && status.revision != self.revision {
            let missing = |node: &&Node| status.nodes.iter().any(|one| one.name == node.name);
            let applied: Vec<_> = self.nodes.iter().filter(|node| !missing(node)).collect();
            ensure!(
                status.applied as usize == applied.len(),
                "{} counts other nodes than it names: {status:?}",
                self.config
            );
            said.extend(applied.iter().map(|node| node.name.clone()));
        }
        Ok(said)
    }

    /// Whether all files on a node are the new ones. Each is the one or the other, and whole.
    async fn is_new(&self, node: &Node) -> Result<bool> {
        let mut argv = vec!["sha256sum", "--"];
        argv.extend(self.paths.iter().map(String::as_str));
        let output = node.exec(&argv).await?;
        let text = output.text();
        let mut new = 0;
        for line in text.lines() {
            let (sum, path) = line.split_once("  ").context("sha256sum says no sum")?;
            if sum == self.after {
                new += 1;
            } else if sum != self.before {
                bail!("{path} on {} is neither old nor new: {sum}", node.name);
            }
        }
        ensure!(
            output.success() && text.lines().count() == self.paths.len(),
            "not every file is on {}: {}",
            node.name,
            output.stderr.trim()
        );
        Ok(new == self.paths.len())
    }
}

async fn states(ctx: &Context) -> Result<Vec<NodeState>> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

fn layer<'a>(state: &'a NodeState, uid: &str) -> Option<&'a LayerStatus> {
    let mut layers = state.status.as_ref()?.layers.iter();
    layers.find(|layer| layer.uid == uid)
}
