//! An operator and an agent whose clocks differ by hours: whatever the reason is, the status says that
//! it is their clocks.
//!
//! What is faked: the operator's time by the dates of the certificates that it makes, and the
//! agent's by the time at which its TLS configuration judges them.
#![expect(
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use edict_operator::agent::Agent;
use edict_operator::pki::{self, Holder, Identity, Pair};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An agent with this certificate that asks for the operator's and says nothing more.
async fn agent(authority: &Pair, own: &Pair) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap())
        .unwrap();
    let clients = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config.clone()))
                .accept(stream)
                .await
            {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    });
    address
}

/// What a status says when the operator's certificate was made so long from now, and the agent's.
async fn said(operator: SignedDuration, agents: SignedDuration) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let now = Timestamp::now();
    // The CA is as old as the installation.
    let authority = pki::authority(now - SignedDuration::from_hours(2400)).unwrap();
    let own = pki::issue(&authority, Holder::Agent, now + agents).unwrap();
    let address = agent(&authority, &own).await;
    let own = pki::issue(&authority, Holder::Operator, now + operator).unwrap();
    let identity = Identity::new(&authority.certificate, &own).unwrap();
    let error = match Agent::connect(address, identity.client).await {
        Err(error) => error,
        Ok(mut agent) => agent.hello().await.unwrap_err(),
    };
    error.to_string()
}

const NOW: SignedDuration = SignedDuration::ZERO;
const AHEAD: SignedDuration = SignedDuration::from_hours(2);
const LONG_AGO: SignedDuration = SignedDuration::from_hours(-2400);

#[tokio::test]
async fn the_agent_finds_the_operator_s_certificate_out_of_time() {
    for operator in [AHEAD, LONG_AGO] {
        assert_eq!(
            said(operator, NOW).await,
            "no connection to the agent: the agent finds the operator's certificate expired, or \
             not valid yet: compare the clocks of this node and of the operator's"
        );
    }
}

#[tokio::test]
async fn the_operator_finds_the_agent_s_certificate_out_of_time() {
    for (agents, word) in [(AHEAD, "not valid yet"), (LONG_AGO, "expired")] {
        assert_eq!(
            said(NOW, agents).await,
            format!(
                "no connection to the agent: the agent's certificate is {word}: compare the clocks \
                 of this node and of the operator's"
            )
        );
    }
}

#[tokio::test]
async fn nobody_speaks_of_clocks_that_nearly_agree() {
    // Certificates begin an hour before they are made.
    for clock in [NOW, SignedDuration::from_mins(50)] {
        let said = said(clock, clock).await;
        assert_eq!(said, "the agent does not answer within 5 s");
    }
}
