//! NodeConfigs as tests write them, and what became of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use edict_core::config::files::{File, FileOwner, Files};
use edict_core::config::{Config, Docker, Notify, NotifyAction};
use edict_core::layer::{DeletionPolicy, Drift, Mode};
use edict_core::retry;
use edict_crds::nodeconfig::State;
use edict_crds::target::Selector;
use edict_crds::{NodeConfig, NodeConfigSpec, NodeConfigStatus, NodeState, Role, Target, name};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use serde_json::{Value, json};

use crate::context::Context;
use crate::node::Node;
use crate::wait::{self, Seen};

/// A change goes out at once; what takes long is an operator that has just started and
/// knocks at every agent first.
const SETTLED: Duration = Duration::from_mins(1);

/// Nodes of this role.
pub fn role(role: Role) -> Target {
    Target {
        role: Some(role),
        ..Target::default()
    }
}

/// These nodes, by their names.
pub fn named(nodes: &[Node]) -> Target {
    Target {
        nodes: Some(nodes.iter().map(|node| node.name.clone()).collect()),
        ..Target::default()
    }
}

/// Nodes with these labels.
pub fn selected(selector: Selector) -> Target {
    Target {
        selector: Some(selector),
        ..Target::default()
    }
}

/// A `NodeConfig` that a test writes.
#[derive(Clone, Debug)]
pub struct Draft(pub NodeConfig);

impl Draft {
    /// One without any configuration yet. Names are the cluster's: begin them with the test's.
    pub fn new(name: &str, target: Target) -> Self {
        let spec = NodeConfigSpec {
            target,
            priority: None,
            deletion_policy: None,
            restarts: None,
            drift: None,
            mode: None,
            config: Config::default(),
        };
        Self(NodeConfig::new(name, spec))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        name(&self.0)
    }

    /// With another target.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.0.spec.target = target;
        self
    }

    /// With this priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.0.spec.priority = Some(priority);
        self
    }

    /// With this policy for when it leaves.
    #[must_use]
    pub fn policy(mut self, policy: DeletionPolicy) -> Self {
        self.0.spec.deletion_policy = Some(policy);
        self
    }

    /// What somebody else changes of it stays, and is said.
    #[must_use]
    pub fn reports(mut self) -> Self {
        self.0.spec.drift = Some(Drift::Report);
        self
    }

    /// Only what it would change is said.
    #[must_use]
    pub fn plans(mut self) -> Self {
        self.0.spec.mode = Some(Mode::Plan);
        self
    }

    /// With this block of configuration, as its YAML says it.
    #[must_use]
    pub fn block(mut self, name: &str, block: &Value) -> Self {
        let mut config = json!(self.0.spec.config);
        config[name] = block.clone();
        self.0.spec.config = serde_json::from_value(config).expect("a block as in the CRD");
        self
    }

    /// With these Docker mirrors.
    #[must_use]
    pub fn mirrors(mut self, urls: &[&str]) -> Self {
        self.docker().registry_mirrors = Some(owned(urls));
        self
    }

    /// With these insecure Docker registries.
    #[must_use]
    pub fn insecure(mut self, registries: &[&str]) -> Self {
        self.docker().insecure_registries = Some(owned(registries));
        self
    }

    /// With this file, mode and owner left to the node.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Self {
        self.whole(File {
            path: path.to_owned(),
            content: Some(content.to_owned()),
            content_from: None,
            mode: None,
            owner: None,
            notify: None,
        })
    }

    /// With this file, permissions and owner included.
    #[must_use]
    pub fn file_as(self, path: &str, content: &str, mode: &str, uid: u32, gid: u32) -> Self {
        self.whole(File {
            path: path.to_owned(),
            content: Some(content.to_owned()),
            content_from: None,
            mode: Some(mode.to_owned()),
            owner: Some(FileOwner { uid, gid }),
            notify: None,
        })
    }

    /// With a unit that reads the last file.
    #[must_use]
    pub fn notify(mut self, unit: &str, action: NotifyAction) -> Self {
        let files = self.0.spec.config.files.get_or_insert_default();
        if let Some(file) = files.0.last_mut() {
            let unit = unit.to_owned();
            let notify = file.notify.get_or_insert_default();
            notify.push(Notify { unit, action });
        }
        self
    }

    fn whole(mut self, file: File) -> Self {
        let Files(files) = self.0.spec.config.files.get_or_insert_default();
        files.retain(|other| other.path != file.path);
        files.push(file);
        self
    }

    fn docker(&mut self) -> &mut Docker {
        self.0.spec.config.docker.get_or_insert_default()
    }

    /// Applies it as a user does.
    pub async fn apply(&self, ctx: &Context) -> Result<()> {
        ctx.apply(&serde_json::to_string(&self.0)?).await
    }

    /// Applies it and waits until exactly these nodes have it.
    pub async fn settle(&self, ctx: &Context, nodes: &[Node]) -> Result<NodeConfigStatus> {
        self.apply(ctx).await?;
        self.settled(ctx, nodes).await
    }

    /// Waits until exactly these nodes have it as it stands in the cluster, and no other node is
    /// still giving it back.
    pub async fn settled(&self, ctx: &Context, nodes: &[Node]) -> Result<NodeConfigStatus> {
        let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
        let states: Api<NodeState> = Api::all(ctx.client.clone());
        let expected: BTreeSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
        let what = format!("{} to be on {expected:?}", self.name());
        wait::until(&what, SETTLED, async || {
            let config = configs.get(self.name()).await?;
            let generation = config.metadata.generation;
            let status = config.status.clone().unwrap_or_default();
            let states = states.list(&ListParams::default()).await?.items;
            let uid = edict_crds::uid(&config);
            let on: BTreeSet<_> = states
                .iter()
                .filter(|state| state.spec.layers.iter().any(|layer| layer.uid == uid))
                .map(|state| name(state).to_owned())
                .collect();
            let leaving: Vec<_> = states
                .iter()
                .filter(|state| state.spec.releases.iter().any(|one| one.uid == uid))
                .map(name)
                .collect();
            let end = if expected.is_empty() {
                State::NoNodes
            } else {
                State::Applied
            };
            let there = status.state == Some(end)
                && status.observed_generation == generation
                && status.targeted as usize == expected.len();
            if there && on == expected && leaving.is_empty() {
                return Ok(Seen::Done(status));
            }
            Ok(Seen::NotYet(format!(
                "generation {generation:?}, on {on:?}, leaving {leaving:?}, {status:?}"
            )))
        })
        .await
    }

    /// Asks for another try where it is held, as a user does.
    pub async fn retry(&self, ctx: &Context, value: &str) -> Result<()> {
        let asked = format!("{}={value}", retry::ANNOTATION);
        let annotate = ["annotate", "nodeconfig", self.name(), &asked, "--overwrite"];
        ctx.kubectl().args(annotate).text().await?;
        Ok(())
    }

    /// Waits for a condition of this type and status ("True" or "False"), and gives it.
    pub async fn condition(&self, ctx: &Context, kind: &str, status: &str) -> Result<Condition> {
        let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
        let what = format!("{}: condition {kind}={status}", self.name());
        wait::until(&what, SETTLED, async || {
            let config = configs.get(self.name()).await?;
            let conditions = config.status.unwrap_or_default().conditions;
            let found = conditions
                .iter()
                .find(|one| one.type_ == kind && one.status == status);
            Ok(match found {
                Some(found) => Seen::Done(found.clone()),
                None => Seen::NotYet(format!("{conditions:?}")),
            })
        })
        .await
    }

    /// When the API server says that it was created.
    pub async fn created(&self, ctx: &Context) -> Result<Timestamp> {
        let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
        let ObjectMeta {
            creation_timestamp, ..
        } = configs.get(self.name()).await?.metadata;
        Ok(creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0))
    }

    /// Deletes it and waits until it is gone, which it is when its nodes are as they were.
    pub async fn delete(&self, ctx: &Context) -> Result<()> {
        ctx.delete("nodeconfig", self.name()).await
    }
}

/// Waits for an Event of this reason on an object, no older than `since`, that says all of `words`.
pub async fn event(
    ctx: &Context,
    since: Timestamp,
    object: &str,
    reason: &str,
    words: &[&str],
) -> Result<String> {
    let events: Api<Event> = Api::all(ctx.client.clone());
    let what = format!("an event {reason} on {object} that says {words:?}");
    wait::until(&what, SETTLED, async || {
        let all = events.list(&ListParams::default()).await?.items;
        let notes: Vec<_> = all
            .iter()
            .filter(|one| {
                let last = one.series.as_ref().map(|series| &series.last_observed_time);
                let time = last.or(one.event_time.as_ref()).map(|time| time.0);
                let regarding = one.regarding.as_ref().and_then(|it| it.name.as_deref());
                one.reason.as_deref() == Some(reason)
                    && regarding == Some(object)
                    && time.is_some_and(|time| time >= since)
            })
            .filter_map(|one| one.note.clone())
            .collect();
        let said = |note: &&String| words.iter().all(|word| note.contains(word));
        Ok(match notes.iter().find(said) {
            Some(note) => Seen::Done(note.clone()),
            None => Seen::NotYet(format!("{notes:?}")),
        })
    })
    .await
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
