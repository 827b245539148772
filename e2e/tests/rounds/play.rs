//! A round on the cluster: its actions, the end of its faults, and whether what there is then is what
//! the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::DAEMON;
use e2e::install::NAMESPACE;
use e2e::nodeconfig::{named, role, selected};
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Fault, agent, fault, status};
use edict_crds::nodeconfig::condition::CONFLICT;
use edict_crds::nodestate::Contact;
use edict_crds::target::Selector;
use edict_crds::{NodeConfig, NodeState, Role, name};
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::action::{Action, Spec, Target};
use super::model::{self, Config, Expected, expect};

/// The label that targets ask for.
const LABEL: &str = "edict.dev/e2e-rounds";
/// A master that stood still, a leader that died and an agent that died, one after the other.
const SETTLED: Duration = Duration::from_mins(4);
/// The API while a master stands still.
const TAKEN: Duration = Duration::from_mins(2);
/// The operator asks every ten seconds; before that another one may have to take over.
const NOTICED: Duration = Duration::from_mins(2);

/// The cluster, and what the model knows of it.
pub struct Play {
    ctx: Context,
    folder: String,
    nodes: Vec<model::Node>,
    configs: BTreeMap<usize, Config>,
    /// How often something was asked for: a NodeConfig or a label.
    pub changes: u32,
}

impl Play {
    /// Begins without any NodeConfig and without labels, on nodes of which some have a file of Docker.
    pub async fn begin(ctx: &Context, folder: String) -> Result<Self> {
        let nodes = ctx.nodes().iter().map(async |node| {
            label(ctx, &node.name, false).await?;
            let docker = node.text(DAEMON).await?;
            anyhow::Ok(model::Node {
                name: node.name.clone(),
                master: node.role == e2e::Role::Master,
                labelled: false,
                docker: docker.as_deref().map(serde_json::from_str).transpose()?,
            })
        });
        Ok(Self {
            ctx: ctx.clone(),
            folder,
            nodes: try_join_all(nodes).await?,
            configs: BTreeMap::new(),
            changes: 0,
        })
    }

    /// One round. `word` stands in all that is written in it.
    pub async fn round(&mut self, actions: &[Action], word: &str) -> Result<()> {
        let mut faults = Vec::new();
        let played = self.play(actions, word, &mut faults).await;
        // They all end, also where one can't.
        let mut ended = Ok(());
        for fault in faults {
            ended = ended.and(fault.end(&self.ctx).await);
        }
        played.and(ended)?;
        self.agrees().await
    }

    /// Everything goes.
    pub async fn end(&mut self) -> Result<()> {
        let all: Vec<_> = self.configs.keys().copied().map(Action::Delete).collect();
        self.round(&all, "end").await?;
        for node in 0..self.nodes.len() {
            self.act(&Action::Label(node, false), "end").await?;
        }
        self.agrees().await
    }

    async fn play(
        &mut self,
        actions: &[Action],
        word: &str,
        faults: &mut Vec<Fault>,
    ) -> Result<()> {
        let ctx = self.ctx.clone();
        let mut noticed = Vec::new();
        for action in actions {
            match action {
                Action::Freeze(node, long) => {
                    let node = &ctx.nodes()[*node];
                    faults.push(Fault::freeze(node).await?);
                    noticed.extend(long.then(|| node.clone()));
                }
                Action::Cut(node, long) => {
                    let node = &ctx.nodes()[*node];
                    taken("the agent", async || {
                        agent::pod(&ctx.client, &node.name).await
                    })
                    .await?;
                    faults.push(Fault::cut(&ctx, node).await?);
                    noticed.extend(long.then(|| node.clone()));
                }
                other => self.act(other, word).await?,
            }
        }
        for node in noticed {
            fault::contact(&ctx, &node, Contact::Unreachable, NOTICED).await?;
        }
        Ok(())
    }

    async fn act(&mut self, action: &Action, word: &str) -> Result<()> {
        let ctx = &self.ctx;
        match action {
            Action::Write(slot, spec) => {
                let config = self.config(*slot, spec, word);
                let draft = self.draft(&config);
                let what = format!("writing {}", config.name);
                let created = taken(&what, async || {
                    draft.apply(ctx).await?;
                    draft.created(ctx).await
                });
                let created = created.await?.as_second();
                self.configs.insert(*slot, Config { created, ..config });
                self.changes += 1;
            }
            Action::Delete(slot) => {
                let Some(config) = self.configs.remove(slot) else {
                    return Ok(());
                };
                let api: Api<NodeConfig> = Api::all(ctx.client.clone());
                taken(&format!("deleting {}", config.name), async || {
                    match api.delete(&config.name, &DeleteParams::default()).await {
                        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                        result => Ok(result.map(drop)?),
                    }
                })
                .await?;
                self.changes += 1;
            }
            Action::Label(node, labelled) => {
                let node = &mut self.nodes[*node];
                if node.labelled == *labelled {
                    return Ok(());
                }
                taken("a label", async || label(ctx, &node.name, *labelled).await).await?;
                node.labelled = *labelled;
                self.changes += 1;
            }
            Action::KillLeader => {
                taken("the end of the leader", async || kill_leader(ctx).await).await?;
            }
            Action::KillAgent(node) => kill_agent(ctx, &ctx.nodes()[*node]).await?,
            Action::Freeze(..) | Action::Cut(..) => anyhow::bail!("{action:?} is a fault"),
        }
        Ok(())
    }

    fn config(&self, slot: usize, spec: &Spec, word: &str) -> Config {
        let name = format!("{}-{slot}", self.ctx.name);
        let key = |is: bool, key: &str, value: String| is.then(|| (key.to_owned(), value));
        let docker = [
            key(
                spec.mirrors,
                "registry-mirrors",
                format!("https://{slot}.{word}.example.com"),
            ),
            key(
                spec.insecure,
                "insecure-registries",
                format!("{slot}.{word}.example.com:5000"),
            ),
        ];
        let target = match &spec.target {
            Target::All => model::Target::All,
            Target::Masters => model::Target::Masters,
            Target::Workers => model::Target::Workers,
            Target::Labelled => model::Target::Labelled,
            Target::Named(numbers) => {
                let names = numbers
                    .iter()
                    .map(|number| self.nodes[*number].name.clone());
                model::Target::Named(names.collect())
            }
        };
        let content = format!("{name} {word}\n");
        Config {
            target,
            priority: spec.priority,
            created: 0,
            files: spec
                .files
                .iter()
                .map(|path| ((*path).to_owned(), content.clone()))
                .collect(),
            docker: docker.into_iter().flatten().collect(),
            name,
        }
    }

    fn draft(&self, config: &Config) -> Draft {
        let target = match &config.target {
            model::Target::All => role(Role::All),
            model::Target::Masters => role(Role::Master),
            model::Target::Workers => role(Role::Worker),
            model::Target::Labelled => selected(Selector {
                match_labels: Some([(LABEL.to_owned(), "yes".to_owned())].into()),
                match_expressions: None,
            }),
            model::Target::Named(names) => {
                let nodes = self.ctx.nodes().iter();
                let meant: Vec<_> = nodes
                    .filter(|node| names.contains(&node.name))
                    .cloned()
                    .collect();
                named(&meant)
            }
        };
        let mut draft = Draft::new(&config.name, target).priority(config.priority);
        for (path, content) in &config.files {
            draft = draft.file(&format!("{}/{path}", self.folder), content);
        }
        for (key, value) in &config.docker {
            draft = match key.as_str() {
                "registry-mirrors" => draft.mirrors(&[value]),
                _ => draft.insecure(&[value]),
            };
        }
        draft
    }

    /// Waits until all statuses say what the model says; then the nodes have it, at the first look.
    async fn agrees(&self) -> Result<()> {
        let configs: Vec<_> = self.configs.values().cloned().collect();
        let expected: BTreeMap<_, _> = self
            .nodes
            .iter()
            .map(|node| (node.name.clone(), expect(&configs, node)))
            .collect();
        wait::until("what the model says", SETTLED, async || {
            let wrong = self.said_otherwise(&configs, &expected).await?;
            Ok(Seen::when(wrong.is_empty(), wrong))
        })
        .await?;
        let found = try_join_all(self.ctx.nodes().iter().map(async |node| {
            let found = found(node, &self.folder).await?;
            anyhow::Ok((&node.name, found))
        }));
        for (node, found) in found.await? {
            let Expected {
                files,
                folders,
                docker,
                ..
            } = &expected[node];
            let (wanted, found) = ((files, folders, docker), (&found.0, &found.1, &found.2));
            ensure!(
                wanted == found,
                "{node} must have {wanted:#?} and has {found:#?}, while all statuses say that it is so"
            );
        }
        Ok(())
    }

    /// Where a status says something else than the model, in words.
    async fn said_otherwise(
        &self,
        configs: &[Config],
        expected: &BTreeMap<String, Expected>,
    ) -> Result<Vec<String>> {
        let all = ListParams::default();
        let api: Api<NodeState> = Api::all(self.ctx.client.clone());
        let states = api.list(&all).await?.items;
        let api: Api<NodeConfig> = Api::all(self.ctx.client.clone());
        let there = api.list(&all).await?.items;
        let mut wrong = Vec::new();
        let names: BTreeSet<_> = there.iter().map(name).collect();
        let wanted: BTreeSet<_> = configs.iter().map(|config| &*config.name).collect();
        if names != wanted {
            wrong.push(format!("there are {names:?}, not {wanted:?}"));
        }
        for (node, expected) in expected {
            let Some(state) = states.iter().find(|state| name(*state) == node) else {
                wrong.push(format!("{node} has no NodeState"));
                continue;
            };
            let status = state.status.clone().unwrap_or_default();
            let layers = state.spec.layers.iter();
            let layers = layers.map(|layer| (layer.name.clone(), layer.priority));
            let layers: BTreeMap<_, _> = layers.collect();
            if status.state != Some(Contact::Ready)
                || status.observed_generation != state.metadata.generation
                || !state.spec.releases.is_empty()
                || layers != expected.configs
            {
                let (spec, configs) = (&state.spec, &expected.configs);
                wrong.push(format!("{node}: {configs:?} and not {spec:?}, {status:?}"));
            }
        }
        for config in configs {
            let Some(found) = there.iter().find(|one| name(*one) == config.name) else {
                continue;
            };
            let status = found.status.clone().unwrap_or_default();
            let conflict = status::of_type(&status, CONFLICT);
            let said = model::Said {
                state: status.state.context("no state")?,
                targeted: status.targeted as usize,
                applied: status.applied as usize,
                pending: status.pending as usize,
                conflict: conflict.is_ok_and(|conflict| conflict.status == "True"),
            };
            let wanted = model::say(config, expected);
            if said != wanted || status.observed_generation != found.metadata.generation {
                wrong.push(format!("{}: {wanted:?} and not {status:?}", config.name));
            }
        }
        Ok(wrong)
    }
}

/// Files and folders of the test on a node, and Docker's file.
type Found = (BTreeMap<String, String>, BTreeSet<String>, Option<Value>);

async fn found(node: &e2e::Node, folder: &str) -> Result<Found> {
    let list = ["find", folder, "-mindepth", "1", "-printf", "%y %P\\n"];
    let lines = ["grep", "--recursive", "--with-filename", "", folder];
    let (list, lines, docker) =
        futures::try_join!(node.exec(&list), node.exec(&lines), node.text(DAEMON))?;
    let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::new());
    for line in list.text().lines() {
        match line.split_once(' ') {
            Some(("d", path)) => _ = folders.insert(path.to_owned()),
            Some(("f", path)) => _ = files.insert(path.to_owned(), String::new()),
            _ => anyhow::bail!("{} has {line} in {folder}", node.name),
        }
    }
    for line in lines.text().lines() {
        let (path, content) = line.split_once(':').context("grep names no file")?;
        let path = path.strip_prefix(folder).unwrap_or(path);
        let file = files.entry(path.trim_start_matches('/').to_owned());
        file.or_default().extend([content, "\n"]);
    }
    let docker = docker.as_deref().map(serde_json::from_str).transpose();
    Ok((files, folders, docker?))
}

/// Asks for something until the API takes it.
async fn taken<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    wait::until(what, TAKEN, async || ask().await.map(Seen::Done)).await
}

async fn label(ctx: &Context, node: &str, labelled: bool) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(ctx.client.clone());
    let value = labelled.then_some("yes");
    let patch = json!({"metadata": {"labels": {LABEL: value}}});
    api.patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// At once, and without a word to whoever comes next.
async fn kill_leader(ctx: &Context) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let lease = leases.get("edict-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    // One that is gone already is dead enough.
    let Some(pod) = pods.get_opt(&holder.unwrap_or_default()).await? else {
        return Ok(());
    };
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    if let Some(node) = ctx.nodes().iter().find(|node| Some(&node.name) == on) {
        // A node that stands still can't kill anything: its pod is taken away all the same.
        node.exec(&["pkill", "-KILL", "-x", "edict-operator"])
            .await?;
    }
    delete_pod(ctx, &pod.name_any()).await
}

/// At once, whatever it was doing.
async fn kill_agent(ctx: &Context, node: &e2e::Node) -> Result<()> {
    // One that is being replaced already is dead enough.
    let Ok(pod) = agent::pod(&ctx.client, &node.name).await else {
        return Ok(());
    };
    node.exec(&["pkill", "-KILL", "-x", "edict-agent"]).await?;
    // Or it would be started ever later.
    taken("the agent's pod", async || {
        delete_pod(ctx, &pod.name_any()).await
    })
    .await
}

async fn delete_pod(ctx: &Context, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    match pods
        .delete(name, &DeleteParams::default().grace_period(0))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
