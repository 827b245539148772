//! Content by reference: what a configuration takes from a ConfigMap or a Secret of Edict's own
//! namespace instead of saying it itself.
//!
//! A configuration names a [`Reference`]; its [`Content`] travels beside it, so that a revision is
//! complete and an agent asks nobody. The bytes are never shown: not in a status, an event, a log
//! or an error. What may be shown is their digest, and that is keyed (HMAC): a plain one would let
//! anybody who sees it try out short secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A ConfigMap or Secret in Edict's own namespace, and the key in it. Exactly one of the two is
/// given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.configMapKeyRef) != has(self.secretKeyRef)", "message": "give either configMapKeyRef or secretKeyRef"},
]))]
pub struct Source {
    /// A key of a ConfigMap in Edict's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret in Edict's own namespace. What comes from there never shows in a status,
    /// an event or a log, and only root can read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// A key of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in Edict's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// One key of one object in Edict's own namespace. Written `Secret/name/key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

impl Source {
    /// What it refers to; `None` unless exactly one of the two is given.
    pub fn reference(&self) -> Option<Reference> {
        let (kind, given) = match (&self.config_map_key_ref, &self.secret_key_ref) {
            (Some(given), None) => (Kind::ConfigMap, given),
            (None, Some(given)) => (Kind::Secret, given),
            _ => return None,
        };
        Some(Reference {
            kind,
            name: given.name.clone(),
            key: given.key.clone(),
        })
    }
}

impl Reference {
    /// Whether it leads to a Secret: what is there is never shown.
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}

impl SecretRef {
    /// One key of the Secret.
    pub fn key(&self, key: &str) -> Reference {
        Reference {
            kind: Kind::Secret,
            name: self.name.clone(),
            key: key.to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, key } = self;
        write!(f, "{kind}/{name}/{key}")
    }
}

/// A text that is no reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reference is written ConfigMap/name/key or Secret/name/key")]
pub struct NoReference;

impl FromStr for Reference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        let (kind, rest) = text.split_once('/').ok_or(NoReference)?;
        let (name, key) = rest.split_once('/').ok_or(NoReference)?;
        let kind = match kind {
            "ConfigMap" => Kind::ConfigMap,
            "Secret" => Kind::Secret,
            _ => return Err(NoReference),
        };
        Ok(Self {
            kind,
            name: name.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a reference led to when the revision was made.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Keyed digest of the bytes: may be shown.
    pub digest: String,
    /// The bytes; base64 in JSON.
    #[serde(with = "base64_text")]
    pub bytes: Vec<u8>,
}

impl Content {
    /// The content with its digest under `key`.
    pub fn new(key: &[u8], bytes: Vec<u8>) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(&bytes);
        Self {
            digest: crate::digest::hex(&mac.finalize().into_bytes()),
            bytes,
        }
    }
}

/// Contents are never shown, not even by accident.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("digest", &self.digest)
            .field("size", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Everything that a configuration refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Contents(pub BTreeMap<Reference, Content>);

impl Contents {
    /// Whether nothing is referred to.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that `reference` leads to, if they are here.
    pub fn get(&self, reference: &Reference) -> Option<&[u8]> {
        Some(&self.0.get(reference)?.bytes)
    }

    /// The digest of each content: what may be shown of it.
    pub fn digests(&self) -> BTreeMap<&Reference, &str> {
        let digest = |(reference, content)| (reference, digest_of(content));
        self.0.iter().map(digest).collect()
    }

    /// These contents without their bytes.
    #[must_use]
    pub fn outline(&self) -> Self {
        let hollow = |(reference, content): (&Reference, &Content)| {
            let digest = content.digest.clone();
            let bytes = Vec::new();
            (reference.clone(), Content { digest, bytes })
        };
        Self(self.0.iter().map(hollow).collect())
    }
}

fn digest_of(content: &Content) -> &str {
    &content.digest
}

mod base64_text {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The decoder's own words would quote a byte of what is not to be shown.
        BASE64_STANDARD
            .decode(text)
            .map_err(|_| serde::de::Error::custom("a content is not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_reference_reads_back_as_it_is_written() {
        for text in ["Secret/a.b/tls.key", "ConfigMap/x/y"] {
            assert_eq!(reference(text).to_string(), text);
        }
        for text in ["", "Secret", "Secret/x", "secret/x/y", "Pod/x/y"] {
            assert_eq!(text.parse::<Reference>(), Err(NoReference), "{text}");
        }
        assert!(serde_json::from_str::<Reference>("\"x\"").is_err());
    }

    #[test]
    fn a_source_is_one_thing() {
        let given = |name: &str| {
            Some(KeyRef {
                name: name.into(),
                key: "k".into(),
            })
        };
        let source = |config_map_key_ref, secret_key_ref| Source {
            config_map_key_ref,
            secret_key_ref,
        };
        let refers = |source: Source| source.reference().map(|r| r.to_string());
        assert_eq!(refers(source(given("a"), None)).unwrap(), "ConfigMap/a/k");
        assert_eq!(refers(source(None, given("a"))).unwrap(), "Secret/a/k");
        assert_eq!(refers(source(given("a"), given("b"))), None);
        assert_eq!(refers(source(None, None)), None);
        let secret = SecretRef { name: "s".into() };
        assert_eq!(secret.key("password").to_string(), "Secret/s/password");
    }

    #[test]
    fn a_digest_needs_the_key() {
        // RFC 4231, test case 2.
        let known = Content::new(b"Jefe", b"what do ya want for nothing?".to_vec());
        assert_eq!(
            known.digest,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_ne!(
            known.digest,
            Content::new(b"other", known.bytes.clone()).digest
        );
    }

    #[test]
    fn contents_travel_and_are_not_shown() {
        let secret = Content::new(b"key", vec![0, 255, b's', b'e']);
        let contents = Contents([(reference("Secret/a/b"), secret.clone())].into());
        let text = serde_json::to_string(&contents).unwrap();
        assert_eq!(serde_json::from_str::<Contents>(&text).unwrap(), contents);
        assert_eq!(
            contents.get(&reference("Secret/a/b")),
            Some(&secret.bytes[..])
        );
        assert_eq!(contents.get(&reference("Secret/a/c")), None);
        assert!(!contents.is_empty() && Contents::default().is_empty());
        assert_eq!(
            contents.digests(),
            [(&reference("Secret/a/b"), secret.digest.as_str())].into()
        );
        let outline = contents.outline();
        assert_eq!(outline.digests(), contents.digests());
        assert_eq!(outline.get(&reference("Secret/a/b")), Some(&[][..]));
        let shown = format!("{contents:?}");
        assert!(
            shown.contains("size: 4") && !shown.contains("255"),
            "{shown}"
        );
        let error = serde_json::from_str::<Content>("{\"digest\": \"d\", \"bytes\": \"s*cret\"}");
        let said = error.unwrap_err().to_string();
        assert!(said.contains("not base64") && !said.contains('*'), "{said}");
    }
}
