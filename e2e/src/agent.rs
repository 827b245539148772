//! A client of one agent, as the operator is one, reached through the API server's port-forward:
//! for asking what an agent does with callers that it should not believe.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use edict_core::wire::{self, Event, Hello, Push, Refusal, Report};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Portforwarder};
use kube::{Api, Client, ResourceExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::install::NAMESPACE;
use crate::wait::{self, Seen};

/// The Secret with the operator's own certificate.
pub const OPERATOR_SECRET: &str = "edict-operator-tls";
/// The Secret with the agents' certificate.
pub const AGENT_SECRET: &str = "edict-agent-tls";

/// A connection through the API server to another node and back.
const CONNECT: Duration = Duration::from_secs(15);
/// An agent ends at once, and the kubelet starts the next one when it comes to it.
const REPLACED: Duration = Duration::from_mins(2);
/// One transaction on a busy machine.
const ANSWER: Duration = Duration::from_secs(30);

/// A certificate with its key, and the CA that it is to meet: all PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The CA that the agent has to be of.
    pub authority: String,
    /// Whom the caller claims to be.
    pub certificate: String,
    /// The key of that.
    pub key: String,
}

impl Credentials {
    /// Those in a Secret of Edict's namespace.
    pub async fn of_secret(client: &Client, name: &str) -> Result<Self> {
        let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let data = api.get(name).await?.data.unwrap_or_default();
        let text = |key: &str| {
            let bytes = data
                .get(key)
                .with_context(|| format!("{name} lacks {key}"))?;
            anyhow::Ok(String::from_utf8(bytes.0.clone())?)
        };
        Ok(Self {
            authority: text("ca.crt")?,
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
        })
    }

    /// A caller that shows this certificate.
    pub fn shown(&self, version: &'static SupportedProtocolVersion) -> Result<ClientConfig> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let builder = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(self.roots()?);
        Ok(speaking_http2(
            builder.with_client_auth_cert(vec![certificate], key)?,
        ))
    }

    /// A caller that shows none.
    pub fn hidden(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(self.roots()?);
        Ok(speaking_http2(builder.with_no_client_auth()))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        Ok(roots)
    }
}

fn speaking_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The running agent of a node.
pub async fn pod(client: &Client, node: &str) -> Result<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let those = ListParams::default()
        .labels("app.kubernetes.io/name=edict-agent")
        .fields(&format!("spec.nodeName={node},status.phase=Running"));
    let pods = api.list(&those).await?;
    pods.into_iter()
        .find(|pod| pod.metadata.deletion_timestamp.is_none())
        .with_context(|| format!("no agent runs on {node}"))
}

/// Puts another pod in the place of a node's agent, and waits until that is ready.
pub async fn replace(client: &Client, node: &str) -> Result<()> {
    let before = pod(client, node).await.ok();
    if let Some(before) = &before {
        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        api.delete(&before.name_any(), &DeleteParams::default())
            .await?;
    }
    replaced(client, node, before.as_ref()).await
}

/// Waits until another pod than `before` is the ready agent of a node.
pub async fn replaced(client: &Client, node: &str, before: Option<&Pod>) -> Result<()> {
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    let what = format!("another agent on {node}");
    wait::until(&what, REPLACED, async || {
        let now = pod(client, node).await?;
        let conditions = now.status.as_ref().and_then(|it| it.conditions.as_ref());
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|one| one.type_ == "Ready" && one.status == "True");
        let other = before.is_none_or(|before| uid(before) != uid(&now));
        Ok(Seen::when(ready && other, now.status))
    })
    .await
}

/// A line to an agent's port with nothing spoken on it yet.
pub struct Line {
    forwarder: Portforwarder,
}

impl Line {
    /// To the agent of `node`.
    pub async fn to(client: &Client, node: &str) -> Result<Self> {
        let name = pod(client, node).await?.name_any();
        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let forwarder = api.portforward(&name, &[wire::PORT]).await?;
        Ok(Self { forwarder })
    }

    /// The bytes' way; once.
    pub fn stream(&mut self) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let stream = self.forwarder.take_stream(wire::PORT);
        stream.context("the line is in use already")
    }
}

/// A caller connected to an agent.
pub struct Caller {
    sender: SendRequest<Full<Bytes>>,
    _line: Line,
}

impl Caller {
    /// Calls the agent of `node`. With TLS 1.3 a caller learns with the first answer only that it
    /// is not believed.
    pub async fn connect(client: &Client, node: &str, tls: ClientConfig) -> Result<Self> {
        let connecting = async {
            let mut line = Line::to(client, node).await?;
            let name = ServerName::try_from(wire::AGENT_NAME)?;
            let stream = line.stream()?;
            let stream = TlsConnector::from(Arc::new(tls))
                .connect(name, stream)
                .await?;
            let (sender, work) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(work);
            Ok(Self {
                sender,
                _line: line,
            })
        };
        timeout(CONNECT, connecting)
            .await
            .with_context(|| format!("no connection to the agent of {node}"))?
    }

    /// As the operator, with its own certificate.
    pub async fn operator(client: &Client, node: &str) -> Result<Self> {
        let own = Credentials::of_secret(client, OPERATOR_SECRET).await?;
        Self::connect(client, node, own.shown(&rustls::version::TLS13)?).await
    }

    /// Who the agent is and what it has.
    pub async fn hello(&mut self) -> Result<Hello> {
        let (status, body) = self.ask(Method::GET, wire::HELLO, Bytes::new()).await?;
        if status != StatusCode::OK {
            bail!("hello was answered with {status}");
        }
        wire::decode(&body).map_err(|refusal| anyhow!("{refusal}"))
    }

    /// Pushes as the operator that the agent believes, and gives the report or, where the push is
    /// refused as a whole, why.
    pub async fn push(&mut self, push: &Push) -> Result<Result<Report, Refusal>> {
        loop {
            let hello = self.hello().await?;
            let push = push
                .clone()
                .fenced(hello.wire, hello.fence.unwrap_or_default());
            match self.push_bytes(serde_json::to_vec(&push)?).await? {
                // The real one has pushed in between.
                Err(refusal) if refusal.reason == wire::FENCED => {}
                result => return Ok(result),
            }
        }
    }

    /// As [`Self::push`], with any bytes in place of a push.
    pub async fn push_bytes(&mut self, body: Vec<u8>) -> Result<Result<Report, Refusal>> {
        let (status, body) = self.ask(Method::POST, wire::PUSH, body.into()).await?;
        if status != StatusCode::OK {
            let refusal = serde_json::from_slice(&body);
            return Ok(Err(
                refusal.with_context(|| format!("{status} without a reason"))?
            ));
        }
        for line in body.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let event = wire::decode(line).map_err(|refusal| anyhow!("{refusal}"))?;
            if let Event::Done(report) = event {
                return Ok(Ok(report));
            }
        }
        bail!("the answer ended without a report")
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", wire::AGENT_NAME))
            .body(Full::new(body))?;
        let asking = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(ANSWER, asking)
            .await
            .with_context(|| format!("no answer to {path}"))?
    }
}
