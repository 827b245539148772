//! The installation's own certificates: a CA in a Secret, one certificate for the agents and one
//! for the operator.

use std::sync::Arc;
use std::time::Duration;

use edict_core::wire::{AGENT_NAME, OPERATOR_NAME};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates start in the past, for clocks that differ.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
/// How long the CA holds.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long a certificate holds. It is renewed when two thirds of it are over.
const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// When a certificate is renewed, counted from its making.
pub const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(60 * 24);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

/// Who a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The agents, as servers.
    Agent,
    /// The operator, as a client.
    Operator,
}

/// Why certificates can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate can't be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// What stands in a Secret is no certificate or key.
    #[error("the stored certificate or key can't be read: {0}")]
    Read(String),
    /// The TLS library refuses it.
    #[error("the certificate can't be used")]
    Use(#[from] rustls::Error),
}

/// A new CA.
pub fn authority(now: Timestamp) -> Result<Pair, Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "edict");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_lifetime(&mut parameters, now, CA_LIFETIME);
    let certificate = parameters.self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A new certificate of `authority` for `holder`.
///
/// An agent's is good for a server only and the operator's for a client only, and each has a name
/// of its own: what an agent holds does not open another agent.
pub fn issue(authority: &Pair, holder: Holder, now: Timestamp) -> Result<Pair, Error> {
    let key = KeyPair::generate()?;
    let (name, usage) = match holder {
        Holder::Agent => (AGENT_NAME, ExtendedKeyUsagePurpose::ServerAuth),
        Holder::Operator => (OPERATOR_NAME, ExtendedKeyUsagePurpose::ClientAuth),
    };
    let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    parameters.use_authority_key_identifier_extension = true;
    set_lifetime(&mut parameters, now, LIFETIME);
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn set_lifetime(parameters: &mut CertificateParams, now: Timestamp, lifetime: SignedDuration) {
    let date = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    parameters.not_before = date(now - BACKDATE);
    parameters.not_after = date(now + lifetime);
}

/// What the operator shows to agents, and what it asks of them.
pub struct Identity {
    /// TLS 1.3 with the operator's certificate, trusting the installation's CA alone.
    pub client: Arc<rustls::ClientConfig>,
}

impl Identity {
    /// From the operator's certificate and the CA's.
    pub fn new(authority: &str, own: &Pair) -> Result<Self, Error> {
        let read = |error: rustls::pki_types::pem::Error| Error::Read(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).map_err(read)?)?;
        let certificate =
            CertificateDer::from_pem_slice(own.certificate.as_bytes()).map_err(read)?;
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(read)?;
        let mut client =
            rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            client: Arc::new(client),
        })
    }
}
