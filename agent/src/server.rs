//! The server: mutual TLS 1.3, HTTP/2, for the operator alone.

mod api;
pub mod tls;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apply::Agent;
use tls::Identity;

/// Two operators during a change of leader, with room for connections that are not yet known to be
/// dead; small enough for an agent's memory.
const CONNECTIONS_MAX: usize = 16;
/// Callers of whom nothing is known yet. One more takes the place of the one that has waited longest:
/// whoever opens connections and says nothing keeps nobody out.
const HANDSHAKES_MAX: usize = 64;
/// Longer than a handshake takes across continents.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long one that is refused has to hear why: an alert, over the way that the handshake came.
const ALERT_WITHIN: Duration = Duration::from_secs(2);
/// What such a one may have sent already and is thrown away.
const UNREAD_MAX: u64 = 64 * 1024;
/// How long to wait when nothing can be accepted: out of file handles mostly.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// A connection ends after this time, so that a certificate is not believed for ever.
const CONNECTION_FOR: Duration = Duration::from_hours(1);
/// A peer that is gone without a word is noticed after this time and the next.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a peer may take to answer that.
const PING_WITHIN: Duration = Duration::from_secs(10);
/// Paths and a handful of headers fit in many times.
const HEADERS_MAX: u32 = 16 * 1024;
/// The operator has one push and one hello under way.
const STREAMS_MAX: u32 = 8;
/// How long an ending server waits for a push under way: within the kubelet's usual 30 seconds.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);

/// Serves an agent.
pub struct Server {
    agent: Arc<Agent>,
    identity: Identity,
}

impl Server {
    /// For this agent, which proves who it is with this identity.
    pub fn new(agent: Arc<Agent>, identity: Identity) -> Self {
        Self { agent, identity }
    }

    /// Serves until `end`, then lets what is under way finish.
    pub async fn serve(self, listener: TcpListener, end: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut handshakes = Handshakes::default();
        let (connections, pushes) = (TaskTracker::new(), TaskTracker::new());
        let ending = CancellationToken::new();
        let router = api::router(self.agent, pushes.clone(), ending.clone());
        let mut end = std::pin::pin!(end);
        loop {
            // The end comes first: under a flood of connections it would not be seen otherwise.
            let accepted = tokio::select! {
                biased;
                () = &mut end => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    unaccepted(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = Connection {
                identity: self.identity.clone(),
                router: router.clone(),
                handshake: handshakes.begin(&ending),
                slots: slots.clone(),
                ending: ending.clone(),
            };
            connections.spawn(async move {
                if let Err(error) = connection.serve(stream).await {
                    let error: &dyn std::error::Error = &*error;
                    if peer.ip().is_loopback() {
                        // The kubelet's probe looks every few seconds and says nothing.
                        tracing::debug!(error, %peer, "connection ended");
                    } else {
                        tracing::info!(error, %peer, "connection ended");
                    }
                }
            });
        }
        drop(listener);
        ending.cancel();
        connections.close();
        pushes.close();
        let drained = async {
            connections.wait().await;
            pushes.wait().await;
        };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            tracing::warn!("ending with requests under way");
        }
    }
}

/// The handshakes under way, the longest first.
#[derive(Default)]
struct Handshakes(VecDeque<(Weak<()>, CancellationToken)>);

/// A handshake under way.
struct Handshake {
    /// Cancelled when another one takes its place, and when the server ends.
    over: CancellationToken,
    /// As long as this is there, the handshake counts.
    _place: Arc<()>,
}

impl Handshakes {
    fn begin(&mut self, ending: &CancellationToken) -> Handshake {
        let Self(under_way) = self;
        under_way.retain(|(place, _)| place.strong_count() > 0);
        if under_way.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = under_way.pop_front()
        {
            oldest.cancel();
        }
        let (place, over) = (Arc::new(()), ending.child_token());
        under_way.push_back((Arc::downgrade(&place), over.clone()));
        Handshake {
            over,
            _place: place,
        }
    }
}

struct Connection {
    identity: Identity,
    router: axum::Router,
    handshake: Handshake,
    /// For those that have proved who they are.
    slots: Arc<Semaphore>,
    ending: CancellationToken,
}

impl Connection {
    async fn serve(
        self,
        stream: TcpStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let config = self.identity.load().await?;
        let accept = accept(config, stream);
        let stream = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_WITHIN, accept) => {
                accepted.map_err(|_| "the handshake took too long")??
            }
            () = self.handshake.over.cancelled() => {
                return if self.ending.is_cancelled() {
                    Ok(())
                } else {
                    Err("too many others wanted to connect meanwhile".into())
                };
            }
        };
        drop(self.handshake);
        let _slot = self
            .slots
            .try_acquire_owned()
            .map_err(|_| "the operator has too many connections")?;
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .max_header_list_size(HEADERS_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = &mut connection => return Ok(ended?),
            () = self.ending.cancelled() => {}
            () = tokio::time::sleep(CONNECTION_FOR) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// Meets a client; one that is not believed is told why.
async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let accepted = TlsAcceptor::from(config).accept(stream).into_fallible();
    let (error, mut stream) = match accepted.await {
        Ok(stream) => return Ok(stream),
        Err(refused) => refused,
    };
    // What it has sent already and nobody has read would have the connection reset, and the alert
    // lost on its way.
    let heard = async {
        stream.shutdown().await?;
        let mut rest = stream.take(UNREAD_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(ALERT_WITHIN, heard).await;
    Err(error)
}

/// Not within the loop: what is logged can't be held across an await.
fn unaccepted(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "no connection can be accepted");
}
