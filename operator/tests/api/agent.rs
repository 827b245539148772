//! An agent that remembers: which layers it has, what it was told, what it gave back. It writes no
//! files; it answers as the real one does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use edict_core::config::Config;
use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::{
    self, Drifted, Drifts, Event, Fence, Held, Hello, LayerReport, Outcome, Planned, Push, Report,
};
use edict_operator::pki::Pair;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tls::{self, Pieces};

/// What the agent of a node has and has been told.
#[derive(Default)]
pub struct Memory {
    pub held: BTreeMap<String, Held>,
    pub report: Option<Report>,
    pub fence: Fence,
    /// Pushes that were begun, in their order.
    pub pushes: Vec<Push>,
    /// How many of them were heard to the end.
    pub heard: usize,
    /// What was in force and left: name and policy.
    pub given_back: Vec<(String, DeletionPolicy)>,
    pub hellos: usize,
    /// What was only to be planned, in that order.
    pub plans: Vec<Push>,
    /// It is of a release that plans nothing.
    pub plans_nothing: bool,
    /// What became of commands.
    pub commands: Vec<wire::CommandReport>,
}

impl Memory {
    /// The names of the layers in force.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.held.values().map(|held| held.name.clone()).collect();
        names.sort();
        names
    }
}

struct Shared {
    node: String,
    memory: Mutex<Memory>,
    /// Whether pushes are done, or wait.
    goes: watch::Sender<bool>,
    /// What somebody else has changed on its node.
    drifts: watch::Sender<Drifts>,
}

pub struct Agent {
    pub address: IpAddr,
    authority: Pair,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Agent {
    /// The agent of `node`, on an address of its own: every agent listens on the same port.
    pub async fn start(node: &str, authority: &Pair) -> Self {
        let (address, listener) = bind().await;
        let agent = Self {
            address,
            authority: authority.clone(),
            shared: Arc::new(Shared {
                node: node.to_owned(),
                memory: Mutex::default(),
                goes: watch::Sender::new(true),
                drifts: watch::Sender::default(),
            }),
            serving: Mutex::new(None),
        };
        agent.serve(listener);
        agent
    }

    fn serve(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let answers = move |request| answer(shared.clone(), request);
        let serving = tokio::spawn(tls::serve(listener, self.authority.clone(), answers));
        *self.serving.lock().unwrap() = Some(serving);
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        let memory = self.shared.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else has changed something on its node.
    pub fn drifts(&self, drifted: Drifted) {
        self.shared.drifts.send_modify(|drifts| {
            drifts.count += 1;
            drifts.list = vec![drifted];
        });
    }

    /// This has become of commands.
    pub fn ran(&self, commands: Vec<wire::CommandReport>) {
        self.memory().commands = commands;
        self.shared.drifts.send_modify(|drifts| drifts.count += 1);
    }

    /// Pushes that come from now on are begun and not ended.
    pub fn pause(&self) {
        self.shared.goes.send_replace(false);
    }

    pub fn resume(&self) {
        self.shared.goes.send_replace(true);
    }

    /// Nobody answers on its address any more.
    pub async fn go_away(&self) {
        let serving = self.serving.lock().unwrap().take();
        if let Some(serving) = serving {
            serving.abort();
            drop(serving.await);
        }
    }

    /// It is there again, with what it had.
    pub async fn come_back(&self) {
        let listener = TcpListener::bind((self.address, wire::PORT)).await.unwrap();
        self.serve(listener);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }
}

/// An address of this machine's own that no other agent has. Another run of these tests may be under
/// way: each begins somewhere else.
async fn bind() -> (IpAddr, TcpListener) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id() % 60_000 * 256;
    loop {
        let number = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, b, c, d] = (number + 256).to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, b, c, d));
        if let Ok(listener) = TcpListener::bind((address, wire::PORT)).await {
            return (address, listener);
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    let respond = |status, body| Response::builder().status(status).body(body).unwrap();
    let path = request.uri().path().to_owned();
    if path == wire::HELLO {
        let hello = serde_json::to_vec(&hello(&shared)).unwrap();
        let once = stream::iter([Bytes::from(hello)]);
        return Ok(respond(StatusCode::OK, tls::pieces(once)));
    }
    if let Some(seen) = path.strip_prefix(wire::DRIFTS) {
        let seen: u64 = seen.trim_start_matches('/').parse().unwrap();
        let mut drifts = shared.drifts.subscribe();
        let now = drifts.wait_for(|drifts| drifts.count != seen).await;
        let count = Bytes::from(now.unwrap().count.to_string());
        let once = tls::pieces(stream::iter([count]));
        return Ok(respond(StatusCode::OK, once));
    }
    // A client that breaks off here wants no answer.
    let body = request.into_body().collect().await;
    let body = body.unwrap_or_default().to_bytes();
    let push: Push = serde_json::from_slice(&body).unwrap();
    if path == wire::PLAN {
        let planned = serde_json::to_vec(&shared.plan(push)).unwrap();
        let once = stream::iter([Bytes::from(planned)]);
        return Ok(respond(StatusCode::OK, tls::pieces(once)));
    }
    let mut memory = shared.memory.lock().unwrap();
    let refusal =
        wire::refuse(&push, &shared.node).or_else(|| wire::refuse_fence(push.fence, memory.fence));
    if let Some(refusal) = refusal {
        let said = Bytes::from(serde_json::to_vec(&refusal).unwrap());
        let once = tls::pieces(stream::iter([said]));
        return Ok(respond(StatusCode::CONFLICT, once));
    }
    memory.fence = push.fence.unwrap_or_default();
    memory.pushes.push(push.clone());
    drop(memory);
    let events = stream::unfold(Some((shared, push)), async |doing| {
        let (shared, push) = doing?;
        let mut goes = shared.goes.subscribe();
        goes.wait_for(|goes| *goes).await.ok()?;
        let mut line = serde_json::to_vec(&Event::Done(shared.carry_out(&push))).unwrap();
        line.push(b'\n');
        Some((Bytes::from(line), None))
    });
    Ok(respond(StatusCode::OK, tls::pieces(events)))
}

fn hello(shared: &Shared) -> Hello {
    let mut memory = shared.memory.lock().unwrap();
    memory.hellos += 1;
    Hello {
        wire: wire::VERSION,
        node: shared.node.clone(),
        version: "0.1.0".to_owned(),
        blocks: Config::known(),
        fence: Some(memory.fence),
        layers: memory.held.values().cloned().collect(),
        report: memory.report.clone(),
        drifts: Some(shared.drifts.borrow().clone()),
        plans: !memory.plans_nothing,
        commands: memory.commands.clone(),
        probations: None,
    }
}

impl Shared {
    /// Each layer would change one file.
    fn plan(&self, push: Push) -> Planned {
        let mut memory = self.memory.lock().unwrap();
        let changes = push.layers.iter().map(|layer| wire::Change {
            path: format!("/etc/{}", layer.name),
            change: wire::Kind::Create,
            in_place: false,
            diff: Some(format!("+{}\n", layer.name)),
            hidden: None,
            meta: None,
        });
        let planned = Planned {
            changes: changes.collect(),
            report: Report {
                digest: push.digest.clone(),
                layers: push.layers.iter().map(applied).collect(),
                ..Report::default()
            },
            units: BTreeMap::new(),
            commands: Vec::new(),
        };
        memory.plans.push(push);
        planned
    }

    fn carry_out(&self, push: &Push) -> Report {
        let mut memory = self.memory.lock().unwrap();
        let mut report = Report {
            digest: push.digest.clone(),
            ..Report::default()
        };
        for release in &push.releases {
            if let Some(held) = memory.held.remove(&release.uid) {
                memory.given_back.push((held.name, release.policy));
            }
            report.releases.push(wire::ReleaseReport {
                uid: release.uid.clone(),
                name: release.name.clone(),
                done: true,
                message: String::new(),
                foreign: Vec::new(),
            });
        }
        for layer in &push.layers {
            let held = Held {
                uid: layer.uid.clone(),
                name: layer.name.clone(),
                digest: layer.digest.clone(),
                deletion_policy: layer.deletion_policy,
            };
            memory.held.insert(layer.uid.clone(), held);
            report.layers.push(applied(layer));
        }
        memory.report = Some(report.clone());
        memory.heard += 1;
        report
    }
}

fn applied(layer: &Layer) -> LayerReport {
    LayerReport {
        uid: layer.uid.clone(),
        name: layer.name.clone(),
        digest: layer.digest.clone(),
        in_force: Some(layer.digest.clone()),
        outcome: Outcome::Applied,
        message: String::new(),
        violations: Vec::new(),
        conflicts: Vec::new(),
        held: false,
        pending: Vec::new(),
        restart: false,
    }
}
