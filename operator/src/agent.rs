//! The client of one agent: a kept-alive HTTP/2 connection over mutual TLS 1.3.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edict_core::wire::{self, Event, Hello, Planned, Push, Refusal, Report};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// How long a connection may take: an agent is one hop away.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an agent may take to say hello: it reads its state, no more.
const HELLO: Duration = Duration::from_secs(5);
/// How long an agent may be silent during a push: one transaction, on a slow disk.
const SILENCE: Duration = Duration::from_mins(1);
/// How long an agent may take to say what a push would do: it looks at the host, and writes nothing.
const PLAN: Duration = Duration::from_secs(20);
/// How long a push may take in all: one that says a little now and then holds up the others. Long
/// enough for a few units that take as long as systemd lets them.
const PUSH: Duration = Duration::from_mins(10);

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or none any more.
    #[error("no connection to the agent: {0}")]
    Connection(String),
    /// No answer in time.
    #[error("the agent does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It answers, and says no.
    #[error("the agent refuses the request: {0}")]
    Refused(String),
    /// It answers that it has something to do just now.
    #[error("the agent is at work")]
    Busy,
    /// It answers that another operator leads, whose epoch it says.
    #[error("another operator leads since, of epoch {0}")]
    Fenced(u64),
    /// It answers, and it makes no sense.
    #[error("the agent's answer can't be read: {0}")]
    Garbled(String),
}

/// A connection to one agent.
pub struct Agent {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with the connection, which ends when the sender is dropped, and says why it did.
    work: Option<JoinHandle<hyper::Result<()>>>,
}

impl Agent {
    /// Connects to the agent at `address`, with the operator's certificate.
    pub async fn connect(
        address: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, Error> {
        let name = ServerName::try_from(wire::AGENT_NAME).expect("the agents' name is a DNS name");
        let connecting = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| lost(&error))?;
            // The requests are small and wait for their answers.
            let _ = stream.set_nodelay(true);
            let stream = TlsConnector::from(tls)
                .connect(name, stream)
                .await
                .map_err(|error| lost(&error))?;
            let (sender, work) = handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| lost(&error))?;
            let work = Some(tokio::spawn(work));
            Ok(Self { sender, work })
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| Error::Silent(CONNECT))?
    }

    /// Who the agent is and what it has.
    pub async fn hello(&mut self) -> Result<Hello, Error> {
        self.ask(Method::GET, wire::HELLO, Bytes::new(), HELLO)
            .await
    }

    /// Waits until what the agent knows of drift has changed since it was counted as `seen`. Says so
    /// also where nothing has for a while.
    pub fn drifts(&self, seen: u64) -> impl Future<Output = Result<u64, Error>> + use<> {
        let mut agent = self.shared();
        let path = format!("{}/{seen}", wire::DRIFTS);
        async move { agent.ask(Method::GET, &path, Bytes::new(), SILENCE).await }
    }

    /// The same connection, for something else at the same time.
    #[must_use]
    pub fn shared(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            work: None,
        }
    }

    /// Asks what a push would do.
    pub async fn plan(&mut self, push: &Push) -> Result<Planned, Error> {
        let body = serde_json::to_vec(push).expect("a push serializes to JSON");
        self.ask(Method::POST, wire::PLAN, body.into(), PLAN).await
    }

    /// Says that the node is reached by this connection, or why it is not yet. Whether the agent waits for that.
    pub async fn confirm(&mut self, mark: &str, why_not: Option<&str>) -> Result<bool, Error> {
        let path = format!("{}/{mark}", wire::CONFIRM);
        let body = serde_json::to_vec(&why_not).expect("a string serializes to JSON");
        self.ask(Method::POST, &path, body.into(), HELLO).await
    }

    /// Whether the agent gets a connection from its node to some address.
    pub async fn reach(&mut self, to: SocketAddr) -> Result<bool, Error> {
        let body = serde_json::to_vec(&to).expect("an address serializes to JSON");
        self.ask(Method::POST, wire::REACH, body.into(), HELLO)
            .await
    }

    /// Asks for something that is answered at once and whole.
    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, Error> {
        let asking = async {
            let response = self.send(method, path, body).await?;
            let body = Limited::new(response, wire::MESSAGE_MAX).collect().await;
            let body = body
                .map_err(|error| Error::Connection(error.to_string()))?
                .to_bytes();
            // A newer agent may say more: what is known of it suffices to talk.
            serde_json::from_slice(&body).map_err(|error| Error::Garbled(error.to_string()))
        };
        tokio::time::timeout(within, asking)
            .await
            .map_err(|_| Error::Silent(within))?
    }

    /// Pushes a desired state; `each` hears every event as it comes.
    pub async fn push(&mut self, push: &Push, each: impl FnMut(&Event)) -> Result<Report, Error> {
        let pushing = self.push_slowly(push, each);
        tokio::time::timeout(PUSH, pushing)
            .await
            .map_err(|_| Error::Silent(PUSH))?
    }

    async fn push_slowly(
        &mut self,
        push: &Push,
        mut each: impl FnMut(&Event),
    ) -> Result<Report, Error> {
        let body = serde_json::to_vec(push).expect("a push serializes to JSON");
        let asking = self.send(Method::POST, wire::PUSH, body.into());
        let response = tokio::time::timeout(SILENCE, asking)
            .await
            .map_err(|_| Error::Silent(SILENCE))??;
        let mut body = Limited::new(response, wire::MESSAGE_MAX);
        let mut buffer = Vec::new();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Error::Silent(SILENCE))?;
            let Some(frame) = frame else {
                return Err(Error::Connection(
                    "it ended before the report was complete".to_owned(),
                ));
            };
            let frame = frame.map_err(|error| Error::Connection(error.to_string()))?;
            // What is there already has no line break: looked through again with every piece, a
            // long line would take quadratic time.
            let mut begin = buffer.len();
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = buffer[begin..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=begin + end).collect();
                begin = 0;
                // The agent waits for something.
                if line == b"\n" {
                    continue;
                }
                let event =
                    wire::decode(&line).map_err(|refusal| Error::Garbled(refusal.message))?;
                each(&event);
                if let Event::Done(report) = event {
                    return Ok(report);
                }
            }
        }
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Incoming, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", wire::AGENT_NAME))
            .body(Full::new(body))
            .expect("the request is made of constants");
        let asking = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = match asking.await {
            Ok(response) => response,
            Err(error) => return Err(self.ended(&error).await),
        };
        let status = response.status();
        let body = response.into_body();
        if status == StatusCode::OK {
            return Ok(body);
        }
        // An error page needs no more than this.
        let text = Limited::new(body, 64 * 1024).collect().await;
        let text = text
            .map_err(|error| Error::Connection(error.to_string()))?
            .to_bytes();
        Err(match serde_json::from_slice::<Refusal>(&text) {
            Ok(Refusal {
                seen: Some(seen), ..
            }) => Error::Fenced(seen.epoch),
            Ok(refusal) if refusal.reason == wire::BUSY => Error::Busy,
            Ok(refusal) => Error::Refused(refusal.to_string()),
            Err(_) => Error::Refused(format!("HTTP status {status}")),
        })
    }

    /// Why a request came to nothing. With TLS 1.3 an agent refuses a certificate after the handshake,
    /// and only the connection hears of it.
    async fn ended(&mut self, error: &hyper::Error) -> Error {
        if (error.is_canceled() || error.is_closed())
            && let Some(work) = self.work.take()
            && let Ok(Err(end)) = work.await
        {
            return lost(&end);
        }
        lost(error)
    }
}

/// What became of a connection, in words that stay the same: they go into a status.
fn lost(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut behind = vec![error];
    while let Some(source) = behind.last().and_then(|error| error.source()) {
        behind.push(source);
    }
    let own = behind.iter().find_map(|error| {
        let error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
        error.downcast_ref::<rustls::Error>()
    });
    let dates = match own {
        Some(rustls::Error::InvalidCertificate(error)) => dates(error),
        _ => None,
    };
    // HTTP/2 keeps the words of an alert and nothing else. TLS has one word for both.
    let refused = || behind.iter().any(|error| error.to_string().contains(ALERT));
    let whose = match dates {
        Some(dates) => format!("the agent's certificate is {dates}"),
        None if refused() => {
            "the agent finds the operator's certificate expired, or not valid yet".to_owned()
        }
        None => return Error::Connection(error.to_string()),
    };
    Error::Connection(format!(
        "{whose}: compare the clocks of this node and of the operator's"
    ))
}

/// How rustls calls the alert of a certificate whose time is over or has not come.
const ALERT: &str = "CertificateExpired";

/// What is wrong with the dates of a certificate; without the time, which is another one each time.
fn dates(error: &CertificateError) -> Option<&'static str> {
    use CertificateError as Is;
    match error {
        Is::Expired | Is::ExpiredContext { .. } => Some("expired"),
        Is::NotValidYet | Is::NotValidYetContext { .. } => Some("not valid yet"),
        _ => None,
    }
}
