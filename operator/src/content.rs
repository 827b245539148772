//! Content by reference: what ConfigMaps and Secrets of Edict's own namespace say, and the key of
//! its digests.

use std::sync::Arc;

use anyhow::Context as _;
use edict_core::config::Config;
use edict_core::content::{Content, Contents, Kind, Reference};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};

/// The type of the Secrets that keep what revisions refer to. Nothing refers to these.
pub const TYPE: &str = "edict.dev/content";
/// A ServiceAccount's token is nothing to put into a file.
const TOKEN: &str = "kubernetes.io/service-account-token";
/// The Secret with the key of the digests. It belongs to no Fleet: were it made anew, every
/// revision with references would be another one.
const KEY: &str = "edict-digest-key";
/// As long as the digests are (RFC 2104, section 3).
const KEY_LENGTH: usize = 32;

/// The key of the digests, made when there is none yet.
pub async fn key(client: &Client, namespace: &str) -> anyhow::Result<Vec<u8>> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let read = async || {
        let stored = api
            .get_opt(KEY)
            .await
            .context("cannot read Secret edict-digest-key")?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let key = stored
            .data
            .and_then(|mut data| data.remove("key"))
            .map(|key| key.0);
        let key = key.filter(|key| key.len() >= KEY_LENGTH);
        key.map(Some).context(
            "Secret edict-digest-key has no key of 32 bytes: delete it, and it is made anew",
        )
    };
    if let Some(key) = read().await? {
        return Ok(key);
    }
    let mut made = vec![0; KEY_LENGTH];
    getrandom::fill(&mut made).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(KEY.to_owned()),
            labels: Some(crate::fleet::objects::labels("digest-key")),
            ..ObjectMeta::default()
        },
        data: Some([("key".to_owned(), ByteString(made))].into()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        // Another replica was faster: its key counts.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => {
            result.context("cannot store Secret edict-digest-key")?;
        }
    }
    read()
        .await?
        .context("Secret edict-digest-key is gone again")
}

/// What can be referred to.
pub struct Sources {
    /// The key of the digests.
    pub key: Vec<u8>,
    /// The Secrets of Edict's own namespace.
    pub secrets: Vec<Arc<Secret>>,
    /// Its ConfigMaps.
    pub config_maps: Vec<Arc<ConfigMap>>,
}

impl Sources {
    /// What `config` refers to, as far as it is there.
    pub fn contents(&self, config: &Config) -> Contents {
        let found = |reference: Reference| {
            let bytes = match reference.kind {
                Kind::ConfigMap => self.config_map(&reference),
                Kind::Secret => self.secret(&reference),
            }?;
            Some((reference, Content::new(&self.key, bytes)))
        };
        Contents(config.references().into_iter().filter_map(found).collect())
    }

    fn secret(&self, Reference { name, key, .. }: &Reference) -> Option<Vec<u8>> {
        let named = |secret: &&Arc<Secret>| edict_crds::name(&***secret) == name;
        let secret = self.secrets.iter().find(named)?;
        if matches!(secret.type_.as_deref(), Some(TYPE | TOKEN)) {
            return None;
        }
        Some(secret.data.as_ref()?.get(key)?.0.clone())
    }

    fn config_map(&self, Reference { name, key, .. }: &Reference) -> Option<Vec<u8>> {
        let named = |map: &&Arc<ConfigMap>| edict_crds::name(&***map) == name;
        let map = self.config_maps.iter().find(named)?;
        let text = map.data.as_ref().and_then(|data| data.get(key));
        let binary = map.binary_data.as_ref().and_then(|data| data.get(key));
        text.map(|text| text.clone().into_bytes())
            .or_else(|| Some(binary?.0.clone()))
    }
}

/// The Secret `name`, from the cache or, where that lags behind, from the API server.
pub async fn copy(
    client: &Client,
    cached: &Store<Secret>,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Secret> {
    if let Some(cached) = cached.get(&ObjectRef::new(name).within(namespace)) {
        return Ok((*cached).clone());
    }
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let read = api.get(name).await;
    read.with_context(|| format!("cannot read the revision's Secret {name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sources() -> Sources {
        let secret = |value| Arc::new(serde_json::from_value(value).unwrap());
        Sources {
            key: b"key".to_vec(),
            secrets: vec![
                secret(json!({"metadata": {"name": "a"}, "data": {"k": "c2VjcmV0"}})),
                secret(json!({"metadata": {"name": "copy"}, "type": TYPE, "data": {"k": "eA=="}})),
                secret(
                    json!({"metadata": {"name": "token"}, "type": TOKEN, "data": {"k": "eA=="}}),
                ),
            ],
            config_maps: vec![Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": "a"}, "data": {"k": "text"}, "binaryData": {"b": "AAE="},
                }))
                .unwrap(),
            )],
        }
    }

    fn file(kind: &str, name: &str, key: &str) -> Config {
        let source = json!({kind: {"name": name, "key": key}});
        serde_json::from_value(json!({"files": [{"path": "/etc/motd", "contentFrom": source}]}))
            .unwrap()
    }

    #[test]
    fn what_is_there_is_found() {
        for (kind, name, key, expected) in [
            ("secretKeyRef", "a", "k", Some(&b"secret"[..])),
            ("configMapKeyRef", "a", "k", Some(b"text")),
            ("configMapKeyRef", "a", "b", Some(&[0, 1])),
            ("secretKeyRef", "a", "x", None),
            ("secretKeyRef", "b", "k", None),
            ("configMapKeyRef", "b", "k", None),
            ("secretKeyRef", "copy", "k", None),
            ("secretKeyRef", "token", "k", None),
        ] {
            let contents = sources().contents(&file(kind, name, key));
            let found = contents
                .0
                .values()
                .next()
                .map(|content| content.bytes.as_slice());
            assert_eq!(found, expected, "{kind} {name} {key}");
        }
    }
}
