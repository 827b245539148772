//! The work on one node: look, compose, push, write the status.

mod plan;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edict_core::config::Config;
use edict_core::content::Contents;
use edict_core::wire::{self, DriftOutcome, Event, Held, Hello, Report};
use edict_crds::nodestate::{CommandStatus, Contact, DriftStatus, LayerRef, PlanStatus};
use edict_crds::{NodeConfig, NodeState, NodeStateStatus};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::pace::{HEARTBEAT, Pace};
use super::planned::Plans;
use super::proof::{self, Proof};
use super::{command, compose, orphan};
use crate::agent::{Agent, Error};
use crate::content;
use crate::context::Context;
use crate::event::reason;
use crate::metrics::{PushLabels, PushResult};
use crate::pki::Identity;
use crate::revision;

/// The field manager of everything that this controller writes.
const MANAGER: &str = "edict-node";
/// How long news of drift waits: so many looks a second an agent may ask for.
const NEWS: Duration = Duration::from_secs(1);
/// How often an agent that does not answer is asked: so long a node that is back may wait.
const KNOCK: Duration = Duration::from_secs(5);

/// Works on `node` until its `NodeState` is gone or the term ends; answers with its name.
pub async fn run(
    context: Context,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    node: String,
    wake: Arc<Notify>,
    permits: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
) -> String {
    let mut worker = Worker {
        context,
        identity,
        node,
        connection: None,
        seen: None,
        said: Vec::new(),
        ended: Vec::new(),
        pace: Pace::default(),
        plans: Plans::default(),
        permit: None,
        waiting,
        first: None,
        unheard: false,
    };
    loop {
        let stop = worker.context.term.stop.clone();
        if stop.is_cancelled() {
            return worker.node;
        }
        let looked = worker.look(&permits).await;
        let wait = match looked {
            Ok(Some(wait)) => wait,
            Ok(None) => return worker.node,
            Err(error) => {
                let error = error.context(format!("node {}", worker.node));
                worker.context.failed("node", &error);
                KNOCK
            }
        };
        // Woken or not, the next look sees everything anew.
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.notified() => {}
            () = worker.drifts() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Worker {
    context: Context,
    /// The operator's certificate, once there is one.
    identity: watch::Receiver<Option<Arc<Identity>>>,
    node: String,
    /// The connection, to which pod and with which certificate.
    connection: Option<(SocketAddr, Arc<Identity>, Agent)>,
    /// Which count of drift the agent said last, where it can be waited for another.
    seen: Option<u64>,
    /// The changes by others that were said: what the cache has of the status may be older.
    said: Vec<DriftStatus>,
    /// The same of commands.
    ended: Vec<CommandStatus>,
    /// When to push again what was pushed before.
    pace: Pace,
    /// What would be changed, as the agent said it last.
    plans: Plans,
    /// Its turn among all nodes, while it is worked on.
    permit: Option<OwnedSemaphorePermit>,
    /// Places for nodes that wait, with what is pushed to them in memory.
    waiting: Arc<Semaphore>,
    /// The desired state as it was when this began, by the API server's own word.
    first: Option<Arc<NodeState>>,
    /// Whether a push was begun and nobody heard how it ended: what the agent reports then may be older than what it
    /// has done. Whoever leads next pushes in any case.
    unheard: bool,
}

impl Worker {
    /// One look at the node; answers with how long to wait for the next, or `None` when there is
    /// nothing to look after any more.
    async fn look(&mut self, permits: &Arc<Semaphore>) -> anyhow::Result<Option<Duration>> {
        let Some(state) = self.context.cache.states.get(&ObjectRef::new(&self.node)) else {
            return Ok(None);
        };
        let state = self.newest(state).await?;
        let Some(pod) = self.context.cache.agent(&self.node) else {
            (self.connection, self.seen) = (None, None);
            let why = match self.context.cache.fleet() {
                Some(_) => "no agent runs on this node yet",
                None => {
                    "there is no Fleet, so no agents run: apply one, fixtures/fleet.yaml for example"
                }
            };
            self.away(&state, Contact::NoAgent, why).await?;
            return Ok(Some(KNOCK));
        };
        let hello = match self.hello(&pod).await {
            Ok(hello) => hello,
            Err(error) => {
                self.connection = None;
                self.away(&state, Contact::Unreachable, &error.to_string())
                    .await?;
                return Ok(Some(KNOCK));
            }
        };
        // Only now: agents that don't answer hold up none that do.
        let permit = permits.clone().acquire_owned().await;
        self.permit = Some(permit.expect("the semaphore is never closed"));
        let converged = self.converge(&state, &hello).await;
        self.permit = None;
        match converged {
            Ok(status) => {
                if let Some(status) = status {
                    self.plan(&state, &hello, status, permits).await?;
                }
                Ok(Some(self.pace.wait()))
            }
            // Who leads is to say what becomes of this node.
            Err(Failure::Agent(Error::Fenced(epoch))) => {
                self.context.term.fenced(epoch);
                Err(Error::Fenced(epoch).into())
            }
            Err(Failure::Agent(error)) => {
                self.connection = None;
                self.away(&state, Contact::Unreachable, &error.to_string())
                    .await?;
                Ok(Some(KNOCK))
            }
            Err(Failure::TooOld(message)) => {
                self.away(&state, Contact::AgentTooOld, &message).await?;
                Ok(Some(HEARTBEAT))
            }
            Err(Failure::Own(error)) => Err(error),
        }
    }

    /// The cache of an operator that has just come to lead may be behind what the one before has pushed: what it says
    /// counts once it is as new as the API server's own word at the beginning.
    async fn newest(&mut self, cached: Arc<NodeState>) -> anyhow::Result<Arc<NodeState>> {
        let first = match &self.first {
            Some(first) => first.clone(),
            None => {
                let states = Api::<NodeState>::all(self.context.client.clone());
                let first = states.get_opt(&self.node).await;
                let first = first.context("cannot read the NodeState")?;
                let first = first.map_or_else(|| cached.clone(), Arc::new);
                self.first.insert(first).clone()
            }
        };
        let same = first.metadata.uid == cached.metadata.uid;
        let is_behind = same && cached.metadata.generation < first.metadata.generation;
        Ok(if is_behind { first } else { cached })
    }

    /// Asks the agent, on the kept connection or, where that is lost, on a new one.
    async fn hello(&mut self, pod: &Pod) -> Result<Hello, Error> {
        let identity = self.identity.borrow().clone();
        let identity = identity
            .ok_or_else(|| Error::Connection("the operator has no certificate yet".to_owned()))?;
        let address = proof::listens(pod);
        let address =
            address.ok_or_else(|| Error::Connection("its pod has no address".to_owned()))?;
        if let Some((known, with, agent)) = &mut self.connection
            && *known == address
            && Arc::ptr_eq(with, &identity)
            && let Ok(hello) = agent.hello().await
        {
            return self.own(hello);
        }
        self.connection = None;
        let mut agent = Agent::connect(address, identity.client.clone()).await?;
        let hello = agent.hello().await?;
        self.connection = Some((address, identity, agent));
        self.own(hello)
    }

    /// Waits until there is drift that is not known here yet.
    fn drifts(&self) -> impl Future<Output = ()> + use<> {
        let asked = self.connection.as_ref().zip(self.seen);
        let asked = asked.map(|((_, _, agent), seen)| (agent.drifts(seen), seen));
        async {
            // Whatever goes wrong, the next look finds it.
            if let Some((asking, seen)) = asked
                && asking.await.is_ok_and(|count| count != seen)
            {
                // However often an agent says so, others get their turn.
                return tokio::time::sleep(NEWS).await;
            }
            std::future::pending::<()>().await;
        }
    }

    /// An address that was given to another node's agent meanwhile is no answer.
    fn own(&self, hello: Hello) -> Result<Hello, Error> {
        if hello.node == self.node {
            return Ok(hello);
        }
        Err(Error::Garbled(format!(
            "it is the agent of node {}",
            edict_core::guard::text::excerpt(&hello.node)
        )))
    }

    /// Has the agent do what the node is to have, where it has not yet. Answers with the status that was
    /// written, if there is one.
    async fn converge(
        &mut self,
        state: &NodeState,
        hello: &Hello,
    ) -> Result<Option<NodeStateStatus>, Failure> {
        self.seen = hello.drifts.as_ref().map(|drifts| drifts.count);
        let policy = self.context.cache.policy();
        let mut layers = Vec::new();
        for layer in &state.spec.layers {
            let (config, contents) = self.revision(&layer.revision).await?;
            layers.push((layer.clone(), config, contents));
        }
        let mut orphans = compose::orphans(&state.spec, hello);
        if !orphans.is_empty() {
            orphans = self.forsaken(orphans, hello).await?;
        }
        let facts = self.context.cache.facts();
        let composed = compose::compose(
            &self.node,
            &state.spec,
            layers,
            &orphans,
            hello,
            &policy,
            &facts,
        );
        let composed = composed.map_err(|compose::TooOld(message)| Failure::TooOld(message))?;
        let digest = composed.push.digest.clone();
        let expected = command::expected(&composed.push);

        let known = hello
            .report
            .as_ref()
            .filter(|report| report.digest == digest && report.is_of(&hello.layers));
        // An agent that has not heard of this leader may still believe the one before.
        let fences = &self.context.term.fences;
        let known = known.filter(|_| fences.are_known_to(hello) && !self.unheard);
        let known = known.filter(|report| command::are_known(&expected, report, hello));
        let (report, pushed) = match known {
            Some(report) if self.pace.rests(&digest, report, Instant::now()) => {
                (report.clone(), false)
            }
            // Another operator does it.
            _ if self.context.term.stop.is_cancelled() => return Ok(None),
            _ => {
                let mut push = composed.push.fenced(hello.wire, fences.next());
                push.probations = hello.probations;
                self.unheard = true;
                let report = self.push(&push).await?;
                self.unheard = false;
                (report, true)
            }
        };
        self.pace.note(&digest, &report, pushed, Instant::now());
        if pushed {
            for release in report.releases.iter().filter(|release| release.done) {
                let note = format!(
                    "NodeConfig {} is gone from this node. {}",
                    release.name, release.message
                );
                let (warning, reason) = if release.foreign.is_empty() {
                    (false, reason::RELEASED)
                } else {
                    (true, reason::FOREIGN_CHANGE)
                };
                self.context
                    .recorder
                    .publish(state, warning, reason, note.trim_end())
                    .await;
            }
        }
        let mut status = compose::status(state, hello, &report, composed.refused);
        command::add(&mut status, &expected, hello);
        let before = state.status.clone().unwrap_or_default();
        // What was said of them counts until they are asked for once more.
        let said = |plan: &LayerRef| {
            // The cache may lag behind what was written last.
            let last = self.plans.last(plan);
            let same = |said: &&PlanStatus| said.uid == plan.uid && said.revision == plan.revision;
            last.or_else(|| before.plans.iter().find(same).cloned())
        };
        status.plans = state.spec.plans.iter().filter_map(said).collect();
        let back = before.state != Some(Contact::Ready);
        status.last_contact = if pushed || back {
            Some(Time(Timestamp::now()))
        } else {
            before.last_contact.clone()
        };
        self.write(state, status.clone()).await?;
        self.announce(state, before, &status).await;
        Ok(Some(status))
    }

    /// Says in Events what is new of the node, beside what was said before.
    async fn announce(
        &mut self,
        state: &NodeState,
        before: NodeStateStatus,
        now: &NodeStateStatus,
    ) {
        let recorder = &self.context.recorder;
        let said = std::mem::replace(&mut self.said, now.drift.clone());
        let known = [before.drift, said].concat();
        let is_known = |news: &DriftStatus| known.iter().any(|known| known.is_same(news));
        for news in self.said.iter().filter(|one| !is_known(one)) {
            let warning = news.outcome != DriftOutcome::Corrected;
            let said = news.sentence();
            recorder.publish(state, warning, reason::DRIFT, &said).await;
        }
        let ended = std::mem::replace(&mut self.ended, now.commands.clone());
        let known = [before.commands, ended].concat();
        for (warning, said) in command::news(&known, &self.ended) {
            let reason = if warning {
                reason::COMMAND_FAILED
            } else {
                reason::COMMAND_SUCCEEDED
            };
            recorder.publish(state, warning, reason, &said).await;
        }
        if before.state == Some(Contact::Unreachable) {
            let said = "the agent answers again";
            recorder
                .publish(state, false, reason::REACHABLE, said)
                .await;
        }
    }

    fn agent(&mut self) -> Result<&mut Agent, Error> {
        match &mut self.connection {
            Some((_, _, agent)) => Ok(agent),
            None => Err(Error::Connection("it is closed".to_owned())),
        }
    }

    /// Those of `orphans` that are to leave. The cache may lag behind, or miss something: giving
    /// something back takes the API server's own word.
    async fn forsaken(&self, orphans: Vec<Held>, hello: &Hello) -> anyhow::Result<Vec<Held>> {
        let client = &self.context.client;
        let state = Api::<NodeState>::all(client.clone())
            .get_opt(&self.node)
            .await;
        let Some(state) = state.context("cannot read the NodeState")? else {
            return Ok(Vec::new());
        };
        let node = Api::<Node>::all(client.clone()).get_opt(&self.node).await;
        let node = node.context("cannot read the node")?;
        let configs = Api::<NodeConfig>::all(client.clone());
        let unnamed = compose::orphans(&state.spec, hello);
        let mut forsaken = Vec::new();
        for orphan in orphans {
            if !unnamed.contains(&orphan) {
                continue;
            }
            // None is of a name that none can have.
            let config = if orphan::is_name(&orphan.name) {
                let config = configs.get_opt(&orphan.name).await;
                config.with_context(|| format!("cannot read NodeConfig {}", orphan.name))?
            } else {
                None
            };
            if orphan::is_forsaken(&orphan, config.as_ref(), node.as_ref()) {
                forsaken.push(orphan);
            }
        }
        Ok(forsaken)
    }

    /// What a push needs that says who may reach the node.
    async fn proof(&self, push: &wire::Push) -> Option<Proof> {
        let mut configs = push.layers.iter().map(|layer| &layer.config);
        configs.find(|config| config.firewall.is_some())?;
        let (address, identity, _) = self.connection.as_ref()?;
        let (context, identity) = (self.context.clone(), identity.clone());
        Some(Proof::prepared(context, self.node.clone(), *address, identity).await)
    }

    async fn push(&mut self, push: &wire::Push) -> Result<Report, Failure> {
        let began = Instant::now();
        let node = self.node.clone();
        let proof = self.proof(push).await;
        let waiting = self.waiting.clone();
        let mut permit = self.permit.take();
        let agent = self.agent()?;
        let told = agent.shared();
        // Ends with the push.
        let mut proofs = JoinSet::new();
        let result = agent
            .push(push, |event| match event {
                Event::Probation(probation) => {
                    // It waits, most of the time: others get their turn.
                    if let Ok(place) = waiting.clone().try_acquire_owned() {
                        permit = Some(place);
                    }
                    proofs.abort_all();
                    if let Some(proof) = proof.clone() {
                        proofs.spawn(proof.give(probation.clone(), told.shared()));
                    }
                }
                Event::Layer(layer) => {
                    tracing::info!(node, layer = layer.name, outcome = ?layer.outcome, "layer");
                }
                Event::Released(release) => {
                    tracing::info!(node, layer = release.name, done = release.done, "release");
                }
                Event::Done(_) => {}
            })
            .await;
        let metrics = &self.context.metrics;
        metrics.push_duration.observe(began.elapsed().as_secs_f64());
        let word = match &result {
            Ok(report) if report.is_settled() => PushResult::settled,
            Ok(_) => PushResult::unsettled,
            Err(_) => PushResult::failed,
        };
        metrics
            .pushes
            .get_or_create(&PushLabels { result: word })
            .inc();
        result.map_err(Failure::Agent)
    }

    /// A revision with what it refers to, from the cache or, where that lags behind, from the API
    /// server. A desired state is pushed whole or not at all.
    async fn revision(&self, name: &str) -> anyhow::Result<(Config, Contents)> {
        let namespace = &self.context.namespace;
        let cached = self
            .context
            .cache
            .revisions
            .get(&ObjectRef::new(name).within(namespace));
        let found = if let Some(cached) = cached {
            (*cached).clone()
        } else {
            let api = Api::<ControllerRevision>::namespaced(self.context.client.clone(), namespace);
            api.get(name)
                .await
                .with_context(|| format!("cannot read revision {name}"))?
        };
        let secrets = &self.context.cache.secrets;
        let copy = match revision::secret(&found) {
            Some(secret) => {
                Some(content::copy(&self.context.client, secrets, namespace, &secret).await?)
            }
            None => None,
        };
        revision::read(&found, copy.as_ref()).map_err(anyhow::Error::msg)
    }

    /// Says that the node can't be told anything now. What was known of it stays in the status.
    async fn away(&self, state: &NodeState, contact: Contact, message: &str) -> anyhow::Result<()> {
        let before = state.status.clone().unwrap_or_default();
        let status = NodeStateStatus {
            state: Some(contact),
            message: message.to_owned(),
            observed_generation: state.metadata.generation,
            // They answered an earlier spec.
            releases: Vec::new(),
            ..before.clone()
        };
        let lost = before.state == Some(Contact::Ready) && contact == Contact::Unreachable;
        self.write(state, status).await?;
        if lost {
            self.context
                .recorder
                .publish(state, true, reason::UNREACHABLE, message)
                .await;
        }
        Ok(())
    }

    async fn write(&self, state: &NodeState, status: NodeStateStatus) -> anyhow::Result<()> {
        if state.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.patch(state, status).await
    }

    async fn patch(&self, state: &NodeState, status: NodeStateStatus) -> anyhow::Result<()> {
        if self.context.term.over.is_cancelled() {
            return Ok(());
        }
        let api = Api::<NodeState>::all(self.context.client.clone());
        let name = state.name_any();
        let patch = json!({
            "apiVersion": "edict.dev/v1alpha1", "kind": "NodeState",
            "metadata": {"name": name, "uid": state.metadata.uid},
            "status": status,
        });
        match api
            .patch_status(
                &name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(patch),
            )
            .await
        {
            // Gone, or another one of that name: the cache will say so.
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
            result => result
                .map(drop)
                .with_context(|| format!("cannot write the status of NodeState {name}")),
        }
    }
}

/// Why a node could not be brought to where it should be.
enum Failure {
    /// The agent did not answer or did not understand.
    Agent(Error),
    /// The agent lacks something.
    TooOld(String),
    /// Something on the operator's side.
    Own(anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Agent(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Own(error)
    }
}

/// The word for a contact, for metrics.
pub fn word(contact: Option<Contact>) -> &'static str {
    match contact {
        Some(Contact::Ready) => "Ready",
        Some(Contact::Unreachable) => "Unreachable",
        Some(Contact::NoAgent) => "NoAgent",
        Some(Contact::AgentTooOld) => "AgentTooOld",
        None => "Unknown",
    }
}
