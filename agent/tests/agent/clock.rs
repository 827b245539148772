//! Clocks that differ by hours.
//!
//! What is faked: the time at which the agent judges the operator's certificate, in its own TLS
//! configuration, and the dates in that certificate. All containers of a machine share the kernel's
//! clock, so a cluster of containers can't show this.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edict_agent::server::Server;
use edict_agent::server::tls::Identity;
use edict_core::wire;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::node::{NAME, Node};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Says the time with so many seconds more.
#[derive(Debug)]
struct Ahead(i64);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now().as_secs().checked_add_signed(self.0)?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// What the agent says to an operator whose certificate holds from `from` until `until`, in seconds
/// from now, when its own clock is `ahead`.
async fn meets(ahead: i64, [from, until]: [i64; 2]) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (node, tls) = (Node::new(), tempfile::tempdir().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "edict");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let (certificate, key) = issue(&issuer, wire::AGENT_NAME, [-HOUR, 90 * DAY]);
    write(tls.path(), "tls.crt", &certificate);
    write(tls.path(), "tls.key", &key);
    write(tls.path(), "ca.crt", &authority.pem());

    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = Identity::new(tls.path().into()).with_clock(Arc::new(Ahead(ahead)));
    let server = Server::new(Arc::clone(node.agent()), identity);
    let serving = tokio::spawn(server.serve(listener, std::future::pending()));

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let (certificate, key) = issue(&issuer, wire::OPERATOR_NAME, [from, until]);
    let mut client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let answer = hello(address, client).await;
    serving.abort();
    answer.map(|hello| assert_eq!(hello.node, NAME))
}

fn issue(issuer: &Issuer<'_, KeyPair>, name: &str, [from, until]: [i64; 2]) -> (String, String) {
    let date = |ahead| {
        let at = Ahead(ahead).current_time().unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_secs())
    };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date(from), date(until));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// With TLS 1.3 a client hears after the handshake only that it is not believed: what that was stands
/// behind the end of the connection.
async fn hello(address: SocketAddr, client: ClientConfig) -> Result<wire::Hello, String> {
    let asking = async {
        let name = ServerName::try_from(wire::AGENT_NAME)?;
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await?;
        let stream = TokioIo::new(stream);
        let (mut sender, work) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let work = tokio::spawn(work);
        let request = Request::get(format!("https://{}{}", wire::AGENT_NAME, wire::HELLO));
        let request = request.body(Empty::<Bytes>::new())?;
        let Ok(answer) = sender.send_request(request).await else {
            work.await??;
            return Err("the connection ended well, and there was no answer".into());
        };
        let body = answer.into_body().collect().await?.to_bytes();
        wire::decode(&body).map_err(|refusal| refusal.to_string().into())
    };
    asking.await.map_err(|error: Box<dyn std::error::Error>| {
        let (mut text, mut source) = (error.to_string(), error.source());
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_two_hours_ahead_believes_a_fresh_certificate() {
    meets(2 * HOUR, [-HOUR, 90 * DAY]).await.unwrap();
    // Renewed after 60 of 90 days: a third is left at the worst.
    meets(2 * HOUR, [-60 * DAY, 30 * DAY]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_two_hours_ahead_refuses_one_that_ends_in_an_hour() {
    let error = meets(2 * HOUR, [-90 * DAY, HOUR]).await.unwrap_err();
    assert!(error.contains("CertificateExpired"), "{error}");
    meets(0, [-90 * DAY, HOUR]).await.unwrap();
}

/// An operator two hours ahead makes certificates that begin in an hour.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_begin_an_hour_ago_and_no_more() {
    meets(0, [HOUR, 90 * DAY]).await.unwrap_err();
    meets(-2 * HOUR, [-HOUR, 90 * DAY]).await.unwrap_err();
    meets(-HOUR / 2, [-HOUR, 90 * DAY]).await.unwrap();
}
