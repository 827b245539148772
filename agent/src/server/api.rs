//! What can be asked: see [`edict_core::wire`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use edict_core::wire::{
    self, CONFIRM, DRIFTS, Event, HELLO, Hello, MESSAGE_MAX, PLAN, PUSH, Planned, Push, REACH,
    Refusal,
};
use futures::stream;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apply::Agent;

/// A whole message over a slow line; a client that takes longer holds memory for nothing.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The most bytes of a message that is a sentence at most.
const SMALL_MAX: usize = 4096;

/// How long a connection to another node may take: it is one hop away.
const REACH_WITHIN: Duration = Duration::from_secs(3);

/// How long nothing is said while a push is being done. Well below what an operator puts up with.
const SILENCE: Duration = Duration::from_secs(15);

/// How long drift is waited for: well below what an operator puts up with.
const DRIFTLESS: Duration = Duration::from_secs(30);

/// The most bytes of all diffs of a plan.
const DIFFS_MAX: usize = 1024 * 1024;

/// The reason for which a push is refused that came too late.
const ENDING: &str = "Ending";

#[derive(Clone)]
struct Shared {
    agent: Arc<Agent>,
    /// Whose turn it is to push: the others wait here, and hold no thread.
    turn: Arc<Mutex<()>>,
    pushes: TaskTracker,
    ending: CancellationToken,
}

/// The routes. Pushes under way are tracked by `pushes`; none is begun once the server is `ending`.
pub fn router(agent: Arc<Agent>, pushes: TaskTracker, ending: CancellationToken) -> Router {
    let shared = Shared {
        agent,
        turn: Arc::default(),
        pushes,
        ending,
    };
    Router::new()
        .route(HELLO, get(hello))
        .route(&format!("{DRIFTS}/{{seen}}"), get(drifts))
        .route(&format!("{CONFIRM}/{{mark}}"), post(confirm))
        .route(REACH, post(reach))
        .route(PLAN, post(plan))
        .route(PUSH, post(push))
        .with_state(shared)
}

async fn hello(State(shared): State<Shared>) -> Json<Hello> {
    Json(shared.agent.hello())
}

/// Waits until it is worth while to say hello.
async fn drifts(State(shared): State<Shared>, Path(seen): Path<u64>) -> Json<u64> {
    let mut count = shared.agent.drifts();
    tokio::select! {
        // The agent itself is behind it: it does not end before.
        _ = count.wait_for(|count| *count != seen) => {}
        () = shared.ending.cancelled() => {}
        () = tokio::time::sleep(DRIFTLESS) => {}
    }
    let now = *count.borrow();
    Json(now)
}

/// The operator has reached this node by the connection that this comes by, or says why not yet.
async fn confirm(
    State(shared): State<Shared>,
    Path(mark): Path<String>,
    request: Request,
) -> Result<Json<bool>, Refused> {
    let why_not: Option<String> = small(request).await?;
    Ok(Json(shared.agent.confirm(&mark, why_not)))
}

/// Whether something is reached from this node.
async fn reach(request: Request) -> Result<Json<bool>, Refused> {
    let to: SocketAddr = small(request).await?;
    let connected = tokio::time::timeout(REACH_WITHIN, TcpStream::connect(to)).await;
    Ok(Json(connected.is_ok_and(|connected| connected.is_ok())))
}

/// What a request carries that is a sentence at most.
async fn small<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), SMALL_MAX));
    let bad = || Refused::bad("the message can't be read");
    let body = body.await.ok().and_then(Result::ok).ok_or_else(bad)?;
    serde_json::from_slice(&body).map_err(|_| bad())
}

/// The push that a request carries, which this agent does not refuse.
async fn read(agent: &Agent, request: Request) -> Result<Push, Refused> {
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), MESSAGE_MAX));
    let body = body
        .await
        .map_err(|_| Refused::bad("the message took too long"))?
        .map_err(|_| Refused::bad("the message broke off, or is larger than 16 MiB"))?;
    let push: Push = wire::decode(&body).map_err(Refused)?;
    match agent.refuse(&push) {
        Some(refusal) => Err(Refused(refusal)),
        None => Ok(push),
    }
}

/// Says what a push would do, unless there is something to do: nobody waits for a plan.
async fn plan(State(shared): State<Shared>, request: Request) -> Result<Json<Planned>, Refused> {
    let push = read(&shared.agent, request).await?;
    let busy = || Refused(Refusal::new(wire::BUSY, "this agent is at work: ask again"));
    let turn = shared.turn.clone().try_lock_owned().map_err(|_| busy())?;
    let agent = shared.agent.clone();
    let work = move || {
        let dry = agent.dry(&push);
        drop(turn);
        dry.map(|dry| dry.map(|dry| dry.public()))
    };
    let planned = tokio::task::spawn_blocking(work).await;
    let planned = planned.map_err(|_| Refused::defect())?.map_err(|error| {
        Refused(Refusal::new(
            "Failed",
            format!("this can't be planned: {error}"),
        ))
    })?;
    let mut planned = planned.ok_or_else(busy)?;
    planned.cut(DIFFS_MAX);
    Ok(Json(planned))
}

async fn push(State(shared): State<Shared>, request: Request) -> Result<Response, Refused> {
    let push = read(&shared.agent, request).await?;
    // A client that goes away meanwhile ends this here: what is pushed next is newer.
    let turn = shared.turn.clone().lock_owned().await;
    // Whoever waited here while the server was told to end would not be waited for.
    if shared.ending.is_cancelled() {
        return Err(Refused(Refusal::new(
            ENDING,
            "this agent is ending, and another one takes its place",
        )));
    }
    let agent = shared.agent.clone();
    let admit = move || (agent.admit(&push), push, turn);
    let (refusal, push, turn) = tokio::task::spawn_blocking(admit)
        .await
        .map_err(|_| Refused::defect())?;
    if let Some(refusal) = refusal {
        return Err(Refused(refusal));
    }
    let (said, events) = mpsc::unbounded_channel();
    let wire = push.wire;
    // A task of its own: it goes on when the client goes away.
    let work = work(shared.agent, push, turn, said, shared.ending);
    shared.pushes.spawn(work);
    let lines = stream::unfold(events, move |mut events| async move {
        let event = match tokio::time::timeout(SILENCE, events.recv()).await {
            Ok(event) => line(&event?.said_to(wire)),
            Err(_) if wire >= wire::UNITS => Bytes::from_static(b"\n"),
            // An older operator knows no empty lines.
            Err(_) => line(&events.recv().await?.said_to(wire)),
        };
        Some((Ok::<_, Infallible>(event), events))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

async fn work(
    agent: Arc<Agent>,
    push: Push,
    turn: OwnedMutexGuard<()>,
    said: UnboundedSender<Event>,
    ending: CancellationToken,
) {
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut say = |event| {
            // The client may be gone; what is begun is done all the same.
            let _ = said.send(event);
        };
        // An agent that ends takes no new connection.
        let gone = || said.is_closed() || ending.is_cancelled();
        agent.push_for(&push, &mut say, &gone);
    });
    if let Err(error) = done.await {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "a push ended in a defect of the agent");
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("events have string keys and serialize");
    line.push(b'\n');
    line.into()
}

struct Refused(Refusal);

impl Refused {
    fn defect() -> Self {
        Self(Refusal::new(
            "Failed",
            "the agent has a defect, see its log",
        ))
    }

    fn bad(message: &str) -> Self {
        Self(Refusal::new("BadMessage", message))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(refusal) = self;
        let status = match refusal.reason.as_str() {
            "WrongNode" => StatusCode::MISDIRECTED_REQUEST,
            wire::FENCED => StatusCode::CONFLICT,
            "Failed" => StatusCode::INTERNAL_SERVER_ERROR,
            ENDING | wire::BUSY => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        tracing::warn!(
            reason = refusal.reason,
            message = refusal.message,
            "a request is refused"
        );
        (status, Json(refusal)).into_response()
    }
}
