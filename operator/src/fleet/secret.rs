//! The Secrets that hold the certificates: made once, renewed in time, never replaced by accident.

use anyhow::Context as _;
use edict_crds::Fleet;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};

use super::objects;
use crate::pki::{self, Holder, Pair};

/// The Secret of the CA. Only the operator reads it.
pub const AUTHORITY: &str = "edict-ca";
/// The Secret of the operator's certificate.
pub const OPERATOR: &str = "edict-operator-tls";
/// When a certificate is to be renewed, RFC 3339.
const RENEW: &str = "edict.dev/renew-after";

/// What the operator needs of the certificates.
pub struct Certificates {
    /// The CA's certificate, PEM.
    pub authority: String,
    /// The operator's own.
    pub operator: Pair,
}

/// Makes what is missing and renews what is due.
pub async fn ensure(
    client: &Client,
    namespace: &str,
    fleet: &Fleet,
) -> anyhow::Result<Certificates> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let now = Timestamp::now();
    let authority = match api
        .get_opt(AUTHORITY)
        .await
        .context("cannot read Secret edict-ca")?
    {
        Some(stored) => pair(&stored)?,
        None => {
            let made = pki::authority(now)?;
            let secret = secret(AUTHORITY, fleet, &made, None, now);
            // Whoever comes second uses what the first has made: the next pass reads it.
            api.create(&PostParams::default(), &secret)
                .await
                .context("cannot store Secret edict-ca")?;
            made
        }
    };
    leaf(
        &api,
        objects::AGENT_SECRET,
        Holder::Agent,
        fleet,
        &authority,
        now,
    )
    .await?;
    let operator = leaf(&api, OPERATOR, Holder::Operator, fleet, &authority, now).await?;
    Ok(Certificates {
        authority: authority.certificate,
        operator,
    })
}

async fn leaf(
    api: &Api<Secret>,
    name: &str,
    holder: Holder,
    fleet: &Fleet,
    authority: &Pair,
    now: Timestamp,
) -> anyhow::Result<Pair> {
    let stored = api
        .get_opt(name)
        .await
        .with_context(|| format!("cannot read Secret {name}"))?;
    if let Some(stored) = &stored {
        let renew = stored
            .annotations()
            .get(RENEW)
            .and_then(|time| time.parse::<Timestamp>().ok());
        let same_authority = text(stored, "ca.crt").is_ok_and(|ca| ca == authority.certificate);
        if same_authority && renew.is_some_and(|renew| now < renew) {
            return pair(stored);
        }
    }
    let made = pki::issue(authority, holder, now)?;
    let mut secret = secret(name, fleet, &made, Some(&authority.certificate), now);
    if let Some(stored) = stored {
        secret.metadata.resource_version = stored.metadata.resource_version;
        api.replace(name, &PostParams::default(), &secret)
            .await
            .with_context(|| format!("cannot renew Secret {name}"))?;
    } else {
        api.create(&PostParams::default(), &secret)
            .await
            .with_context(|| format!("cannot store Secret {name}"))?;
    }
    tracing::info!(secret = name, "certificate issued");
    Ok(made)
}

fn secret(
    name: &str,
    fleet: &Fleet,
    pair: &Pair,
    authority: Option<&str>,
    now: Timestamp,
) -> Secret {
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    let mut data = [
        entry("tls.crt", &pair.certificate),
        entry("tls.key", &pair.key),
    ];
    data.sort();
    let mut data: std::collections::BTreeMap<_, _> = data.into();
    data.extend(authority.map(|authority| entry("ca.crt", authority)));
    let renew = now + pki::RENEW_AFTER;
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(objects::labels("certificate")),
            annotations: authority.map(|_| [(RENEW.to_owned(), renew.to_string())].into()),
            owner_references: fleet.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn pair(secret: &Secret) -> anyhow::Result<Pair> {
    Ok(Pair {
        certificate: text(secret, "tls.crt")?,
        key: text(secret, "tls.key")?,
    })
}

fn text(secret: &Secret, key: &str) -> anyhow::Result<String> {
    let name = secret.name_any();
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes
        .with_context(|| format!("Secret {name} has no {key}: delete it, and it is made anew"))?;
    String::from_utf8(bytes.0.clone()).with_context(|| {
        format!("{key} of Secret {name} is no text: delete it, and it is made anew")
    })
}
