//! Who the agent is and whom it believes. TLS 1.3 only, and no client but the operator.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use edict_core::wire::OPERATOR_NAME;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// The folder with the agent's certificate. It is read for each connection: connections are few,
/// and so a new certificate counts at once.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: PathBuf,
    clock: Arc<dyn TimeProvider>,
}

/// Why there is no identity to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("{file} of the TLS folder can't be read: {source}")]
    Unreadable {
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{0} of the TLS folder is not in PEM form, or is empty")]
    Malformed(&'static str),
    /// The files do not go together.
    #[error("the TLS folder makes no sense: {0}")]
    Useless(String),
}

impl Identity {
    /// The identity in `folder`: `tls.crt`, `tls.key` and `ca.crt`.
    pub fn new(folder: PathBuf) -> Self {
        let clock = Arc::new(DefaultTimeProvider);
        Self { folder, clock }
    }

    /// With another clock than the system's to judge the operator's certificate by.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn TimeProvider>) -> Self {
        Self { clock, ..self }
    }

    /// How to meet a client right now.
    pub async fn load(&self) -> Result<Arc<ServerConfig>, Error> {
        let chain = certificates("tls.crt", &self.read("tls.crt").await?)?;
        let key = self.read("tls.key").await?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| Error::Malformed("tls.key"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca.crt", &self.read("ca.crt").await?)? {
            roots.add(certificate).map_err(useless)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(useless)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(useless)?
            .with_client_cert_verifier(Arc::new(OperatorOnly { inner }))
            .with_single_cert(chain, key)
            .map_err(useless)?;

        config.time_provider = self.clock.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection proves anew who it is.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    async fn read(&self, file: &'static str) -> Result<Vec<u8>, Error> {
        tokio::fs::read(self.folder.join(file))
            .await
            .map_err(|source| Error::Unreadable { file, source })
    }
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or(Error::Malformed(file))
}

fn useless(error: impl std::fmt::Display) -> Error {
    Error::Useless(error.to_string())
}

/// Believes whom the CA vouches for, if it is the operator: agents have certificates of the same
/// CA.
#[derive(Debug)]
struct OperatorOnly {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OperatorOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(certificate, intermediates, now)?;
        let operator = ServerName::try_from(OPERATOR_NAME)
            .map_err(|_| rustls::Error::General("the operator's name is no DNS name".into()))?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, &operator)
            .map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
