//! The API server: real HTTP on a port of its own, as much of the Kubernetes API as the operator
//! speaks, and whatever faults the script asks for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::request::Wanted;
use super::script::{Asked, Fault, Script, Verb};
use super::store::{Key, Refused, Store, kind};
use super::watch::Watch;

type Body = UnsyncBoxBody<Bytes, Broken>;

/// How long a watch goes on for which nobody says how long.
const WATCH: Duration = Duration::from_mins(5);

/// The connection ends here.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script ends the connection")
    }
}

impl std::error::Error for Broken {}

#[derive(Default)]
pub struct State {
    pub store: Store,
    pub script: Script,
    pub asked: Vec<Asked>,
}

pub struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The API server; it ends when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, shared.clone()));
        Self {
            address,
            shared,
            _serving: serving,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Changes what there is, or what goes wrong; every watch sees it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.shared.state());
        self.shared.changed.send_replace(());
        changed
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // How it ends is the script's affair, or the client's.
            drop(serving.await);
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let wanted = Wanted::new(&head);
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let given = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (fault, number) = {
        let mut state = shared.state();
        let fault = state.script.next(wanted.verb, &wanted.key.resource);
        let answer = fault.map_or_else(|| "...".to_owned(), |fault| format!("{fault:?}"));
        state.asked.push(Asked {
            at: std::time::Instant::now(),
            verb: wanted.verb,
            resource: wanted.key.resource.clone(),
            name: wanted.key.name.clone(),
            answer,
        });
        (fault, state.asked.len() - 1)
    };
    match fault {
        Some(Fault::Status(code, again)) => {
            let refused = refusal(code, "Scripted", "the script says so");
            let mut answer = whole(code, &refused);
            if let Some(seconds) = again {
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, seconds.into());
            }
            return Ok(answer);
        }
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::Silent) if wanted.verb != Verb::Watch => std::future::pending().await,
        _ => {}
    }
    if wanted.verb == Verb::Watch {
        return Ok(watching(&shared, &wanted, fault));
    }
    let done = carry_out(&shared, &wanted, given, fault == Some(Fault::Empty));
    let (code, said) = match done {
        Ok((code, said)) => (code, said),
        Err((code, reason, message)) => (code, refusal(code, reason, &message)),
    };
    if fault.is_none() {
        let version = said["metadata"]["resourceVersion"].as_str().unwrap_or("");
        shared.state().asked[number].answer = format!("{code} {version}");
    }
    shared.changed.send_replace(());
    match fault {
        Some(Fault::Lost) => Err(Broken),
        Some(Fault::Mute) => std::future::pending().await,
        Some(Fault::Cut) => {
            let mut half = said.to_string();
            half.truncate(half.len() / 2);
            let pieces = stream::iter([Ok(Frame::data(half.into())), Err(Broken)]);
            Ok(respond(code, StreamBody::new(pieces).boxed_unsync()))
        }
        _ => Ok(whole(code, &said)),
    }
}

fn carry_out(
    shared: &Shared,
    wanted: &Wanted,
    given: Value,
    empty: bool,
) -> Result<(u16, Value), Refused> {
    let mut state = shared.state();
    let store = &mut state.store;
    let Wanted {
        verb, key, patch, ..
    } = wanted;
    match verb {
        Verb::List | Verb::Watch => {
            let (version, kind) = kind(&key.resource);
            let items = if empty {
                Vec::new()
            } else {
                store.list(&wanted.scope())
            };
            let list = json!({
                "apiVersion": version, "kind": format!("{kind}List"), "items": items,
                "metadata": {"resourceVersion": store.version().to_string()},
            });
            Ok((200, list))
        }
        Verb::Get => {
            let found = store.get(key).cloned();
            let message = format!("{} {:?} not found", key.resource, key.name);
            Ok((200, found.ok_or((404, "NotFound", message))?))
        }
        Verb::Create => {
            let name = given["metadata"]["name"].as_str().unwrap_or_default();
            let key = Key {
                name: name.to_owned(),
                ..key.clone()
            };
            Ok((201, store.create(&key, given)?))
        }
        Verb::Replace | Verb::Patch => Ok((200, store.change(key, *patch, false, &given)?)),
        Verb::Status => Ok((200, store.change(key, *patch, true, &given)?)),
        Verb::Delete => {
            let uid = given["preconditions"]["uid"].as_str();
            Ok((200, store.delete(key, uid)?))
        }
    }
}

fn watching(shared: &Arc<Shared>, wanted: &Wanted, fault: Option<Fault>) -> Response<Body> {
    let number = |name: &str| wanted.query.get(name)?.parse().ok();
    if fault == Some(Fault::Ended) {
        return respond(200, full(Bytes::new()));
    }
    let watch = Watch {
        shared: shared.clone(),
        scope: wanted.scope(),
        number: shared.state().script.begin(),
        version: number("resourceVersion").unwrap_or(0),
        bookmarks: wanted.query.contains_key("allowWatchBookmarks"),
        ends: Instant::now() + number("timeoutSeconds").map_or(WATCH, Duration::from_secs),
        cut: fault == Some(Fault::Cut),
        over: false,
    };
    let frames = watch.lines().map(|line| line.map(Frame::data));
    respond(200, StreamBody::new(frames).boxed_unsync())
}

fn refusal(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn whole(code: u16, said: &Value) -> Response<Body> {
    respond(code, full(said.to_string().into()))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let code = StatusCode::from_u16(code).unwrap();
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap()
}
