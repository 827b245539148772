//! Whom the server lets in, over the loopback interface.

mod ending;
mod probation;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edict_agent::server::Server;
use edict_agent::server::tls::Identity;
use edict_core::config::NotifyAction;
use edict_core::guard::Policy;
use edict_core::resource::Action;
use edict_core::wire::{self, Event, Hello, Outcome, Planned, Push, Refusal};
use futures::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::node::{NAME, Node, Say as _, layer};
use crate::services::Services;
use crate::tree::tree;

type Outcomes<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

/// A CA of its own for each test.
struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "edict");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    fn issue(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Pair { certificate, key }
    }
}

struct Served {
    node: Node,
    ca: Ca,
    tls: TempDir,
    port: u16,
    end: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Served {
    async fn new() -> Self {
        Self::of(Node::new()).await
    }

    async fn of(node: Node) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (ca, tls) = (Ca::new(), tempfile::tempdir().unwrap());
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, told) = oneshot::channel::<()>();
        let identity = Identity::new(tls.path().into());
        let agent = Server::new(Arc::clone(node.agent()), identity);
        let serving = tokio::spawn(agent.serve(listener, async {
            let _ = told.await;
        }));
        let served = Self {
            node,
            ca,
            tls,
            port,
            end: Some(end),
            serving: Some(serving),
        };
        served.identify(&served.ca);
        served
    }

    /// Puts the agent's certificate and the CA that it believes in where they are read.
    fn identify(&self, ca: &Ca) {
        let Pair { certificate, key } = ca.issue(wire::AGENT_NAME);
        let put = |name: &str, text: &str| {
            let at: PathBuf = self.tls.path().join(name);
            std::fs::write(at, text).unwrap();
        };
        put("tls.crt", &certificate);
        put("tls.key", &key);
        put("ca.crt", &ca.certificate);
    }

    fn operator(&self) -> Client {
        Client {
            port: self.port,
            ca: self.ca.certificate.clone(),
            pair: Some(self.ca.issue(wire::OPERATOR_NAME)),
            version: &rustls::version::TLS13,
        }
    }
}

struct Client {
    port: u16,
    ca: String,
    pair: Option<Pair>,
    version: &'static SupportedProtocolVersion,
}

impl Client {
    async fn ask(&self, request: Request<Full<Bytes>>) -> Outcomes<(StatusCode, Bytes)> {
        let asked = tokio::time::timeout(Duration::from_mins(1), self.ask_patiently(request));
        asked.await.expect("an answer or a refusal in time")
    }

    async fn connect<B>(&self) -> Outcomes<(SendRequest<B>, JoinHandle<()>)>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes())?)?;
        let config = ClientConfig::builder_with_protocol_versions(&[self.version])
            .with_root_certificates(roots);
        let mut config = match &self.pair {
            None => config.with_no_client_auth(),
            Some(pair) => config.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?,
            )?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(("::1", self.port)).await?;
        let name = ServerName::try_from(wire::AGENT_NAME)?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        // How it ends is for whoever asked over it.
        let connection = tokio::spawn(async { drop(connection.await) });
        Ok((sender, connection))
    }

    async fn ask_patiently(&self, request: Request<Full<Bytes>>) -> Outcomes<(StatusCode, Bytes)> {
        let (mut sender, connection) = self.connect().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    /// Begins a push and never ends it; gives what the agent says to that.
    async fn stall(&self) -> Outcomes<JoinHandle<StatusCode>> {
        let (mut sender, _connection) = self.connect().await?;
        let begun = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let body = StreamBody::new(begun.chain(stream::pending()));
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{}", wire::AGENT_NAME, wire::PUSH))
            .body(body)?;
        let asked = sender.send_request(request);
        Ok(tokio::spawn(async move {
            let answer = asked.await.unwrap();
            drop(sender);
            answer.status()
        }))
    }

    async fn hello(&self) -> Outcomes<Hello> {
        let (status, body) = self.ask(request(Method::GET, wire::HELLO, vec![])).await?;
        assert_eq!(status, StatusCode::OK);
        Ok(wire::decode(&body).map_err(|refusal| refusal.to_string())?)
    }

    async fn refused(&self, body: Vec<u8>) -> (StatusCode, Refusal) {
        let (status, body) = self
            .ask(request(Method::POST, wire::PUSH, body))
            .await
            .unwrap();
        (status, wire::decode(&body).unwrap())
    }
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("https://{}{path}", wire::AGENT_NAME))
        .body(Full::new(body.into()))
        .unwrap()
}

fn push(node: &str) -> Push {
    let a = layer("a").file("/etc/motd", "hello\n");
    Push::new(node.into(), Policy::default(), vec![a], vec![])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_pushes_and_hears_what_happens() {
    let served = Served::new().await;
    let operator = served.operator();
    let hello = operator.hello().await.unwrap();
    assert_eq!(hello.node, NAME);
    assert_eq!(hello.layers, []);
    assert_eq!(hello.report, None);
    let body = serde_json::to_vec(&push(NAME)).unwrap();
    let (status, body) = operator
        .ask(request(Method::POST, wire::PUSH, body))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    let events: Vec<Event> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| wire::decode(line).unwrap())
        .collect();
    let [Event::Layer(layer), Event::Done(report)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(layer.outcome, Outcome::Applied);
    assert_eq!(served.node.read("/etc/motd"), "hello\n");
    let hello = operator.hello().await.unwrap();
    assert_eq!(hello.report.as_ref(), Some(report));
    assert_eq!(hello.layers[0].name, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_push_would_do_is_said_and_not_done() {
    let mut node = Node::prepared();
    let services = Services::default().with("app.service", &[node.at("/etc/motd")]);
    node.services = Some(services.clone());
    node.write("/etc/motd", "before\n");
    node.restart();
    let served = Served::of(node).await;
    let operator = served.operator();
    let push = |node: &str| {
        let a = layer("a").file("/etc/motd", "hello\n");
        let a = a.notify("app.service", NotifyAction::Restart);
        Push::new(node.into(), Policy::default(), vec![a], vec![])
    };
    assert!(operator.hello().await.unwrap().plans);
    let before = tree(served.node.folder.path());
    let plan = |push: &Push| request(Method::POST, wire::PLAN, serde_json::to_vec(push).unwrap());
    let (status, body) = operator.ask(plan(&push(NAME))).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let planned: Planned = wire::decode(&body).unwrap();
    assert_eq!(planned.report.layers[0].outcome, Outcome::Applied);
    let [change] = &planned.changes[..] else {
        panic!("{planned:?}");
    };
    // What somebody else has written there is nothing for a status.
    let diff = "--- /etc/motd\n+++ /etc/motd\n@@ -0,0 +1 @@\n+hello\n";
    assert_eq!(change.diff.as_deref(), Some(diff));
    assert!(change.hidden.as_ref().unwrap().contains("not Edict's"));
    assert_eq!(planned.units["app.service"], Action::Restart);
    assert_eq!(services.told(), [""; 0]);
    // Neither the host nor what the agent keeps, and nobody is told that something was done.
    assert_eq!(tree(served.node.folder.path()), before);
    let hello = operator.hello().await.unwrap();
    assert_eq!((hello.layers, hello.report), (vec![], None));
    // It is refused as a push would be.
    let (status, body) = operator.ask(plan(&push("other"))).await.unwrap();
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST);
    let refusal: Refusal = wire::decode(&body).unwrap();
    assert_eq!(refusal.reason, "WrongNode");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_in() {
    let served = Served::new().await;
    let foreign = Ca::new();
    for (who, client) in [
        (
            "nobody",
            Client {
                pair: None,
                ..served.operator()
            },
        ),
        (
            "another CA's",
            Client {
                pair: Some(foreign.issue(wire::OPERATOR_NAME)),
                ..served.operator()
            },
        ),
        (
            "an agent",
            Client {
                pair: Some(served.ca.issue(wire::AGENT_NAME)),
                ..served.operator()
            },
        ),
        (
            "a longer name",
            Client {
                pair: Some(served.ca.issue("edict-operator.example")),
                ..served.operator()
            },
        ),
        (
            "TLS 1.2",
            Client {
                version: &rustls::version::TLS12,
                ..served.operator()
            },
        ),
    ] {
        let error = client.hello().await.expect_err(who);
        let body = serde_json::to_vec(&push(NAME)).unwrap();
        let pushed = client.ask(request(Method::POST, wire::PUSH, body)).await;
        assert!(pushed.is_err(), "{who}: {error}");
        if who == "TLS 1.2" {
            // For its version, and not for what comes later in a handshake.
            assert!(error.to_string().contains("ProtocolVersion"), "{error}");
        }
    }
    assert!(!served.node.exists("/etc/motd"));
    served.operator().hello().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_no_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = Served::new().await;
    let mut stream = TcpStream::connect(("::1", served.port)).await.unwrap();
    stream
        .write_all(b"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("HTTP") && !text.contains(NAME), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_is_refused_as_a_whole() {
    let served = Served::new().await;
    let operator = served.operator();
    let good = serde_json::to_value(push(NAME)).unwrap();
    let mut unknown = good.clone();
    unknown["layers"][0]["config"]["novel"] = 1.into();
    let mut newer = good.clone();
    newer["wire"] = 99.into();
    let mut altered = good;
    altered["layers"][0]["priority"] = 9.into();
    for (body, status, reason, said) in [
        (
            serde_json::to_value(push("node-2")).unwrap(),
            StatusCode::MISDIRECTED_REQUEST,
            "WrongNode",
            "this is node node-1",
        ),
        (unknown, StatusCode::BAD_REQUEST, "BadMessage", "novel"),
        (newer, StatusCode::BAD_REQUEST, "WireVersion", "not 99"),
        (altered, StatusCode::BAD_REQUEST, "Digest", "digest"),
        ("text".into(), StatusCode::BAD_REQUEST, "BadMessage", ""),
    ] {
        let (answered, refusal) = operator.refused(serde_json::to_vec(&body).unwrap()).await;
        assert_eq!((answered, refusal.reason.as_str()), (status, reason));
        assert!(refusal.message.contains(said), "{refusal}");
    }
    let (status, _) = operator.refused(vec![b' '; wire::MESSAGE_MAX + 1]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let elsewhere = operator
        .ask(request(Method::GET, "/v1/else", vec![]))
        .await
        .unwrap();
    assert_eq!(elsewhere.0, StatusCode::NOT_FOUND);
    assert!(!served.node.exists("/etc/motd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_counts_at_once() {
    let mut served = Served::new().await;
    let old = served.operator();
    old.hello().await.unwrap();
    let ca = Ca::new();
    served.identify(&ca);
    served.ca = ca;
    assert!(old.hello().await.is_err());
    served.operator().hello().await.unwrap();
    std::fs::write(served.tls.path().join("tls.key"), "").unwrap();
    assert!(served.operator().hello().await.is_err());
    let ca = Ca::new();
    served.identify(&ca);
    served.ca = ca;
    served.operator().hello().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_told_also_with_a_silent_client() {
    let mut served = Served::new().await;
    served.operator().hello().await.unwrap();
    let _idle = TcpStream::connect(("::1", served.port)).await.unwrap();
    served.end.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), served.serving.take().unwrap()).await;
    ended.unwrap().unwrap();
    assert!(TcpStream::connect(("::1", served.port)).await.is_err());
}

/// Connections on which nothing is said, and on which a handshake is begun and never ended.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_keeps_the_operator_out_for_no_moment() {
    use tokio::io::AsyncWriteExt as _;
    let served = Served::new().await;
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(("::1", served.port)).await.unwrap();
        if number % 2 == 0 {
            // The head of a ClientHello of 512 bytes.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
        if number % 20 == 0 {
            served.operator().hello().await.unwrap();
        }
    }
    served.operator().hello().await.unwrap();
    drop(silent);
}

/// As many connections as a leader and its successor never have: none of them is held for another.
#[tokio::test(flavor = "multi_thread")]
async fn many_operators_are_served_one_after_the_other() {
    let served = Arc::new(Served::new().await);
    let asking = (0..200).map(|_| {
        let served = Arc::clone(&served);
        tokio::spawn(async move { served.operator().hello().await.map(drop) })
    });
    let mut answered = 0;
    for asked in asking.collect::<Vec<_>>() {
        answered += usize::from(asked.await.unwrap().is_ok());
    }
    // Those that found no place were told so at once, and one that comes now finds it.
    assert!(answered >= 16, "{answered} of 200");
    served.operator().hello().await.unwrap();
}

/// A body that comes slowly is given up on; others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_pushes_slowly_holds_nobody_up() {
    let served = Served::new().await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(served.operator().stall().await.unwrap());
    }
    let body = serde_json::to_vec(&push(NAME)).unwrap();
    let (status, _) = served
        .operator()
        .ask(request(Method::POST, wire::PUSH, body))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(served.node.read("/etc/motd"), "hello\n");
    for stalled in waiting {
        let answer = tokio::time::timeout(Duration::from_mins(1), stalled).await;
        assert_eq!(answer.unwrap().unwrap(), StatusCode::BAD_REQUEST);
    }
}
