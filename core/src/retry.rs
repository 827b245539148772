//! Asking for another try: what failed on a node is held there until it changes or somebody asks.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::digest;

/// The annotation of a `NodeConfig` that asks: each new value asks once.
pub const ANNOTATION: &str = "edict.dev/retry";

/// Which try was asked for: the digest of the annotation's value. The value itself may be anything
/// of any length, so it goes nowhere; this is only ever compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Retry(String);

impl Retry {
    /// What an annotation of this value asks for.
    pub fn of(value: &str) -> Self {
        Self(digest::of_bytes(value.as_bytes()))
    }
}

impl TryFrom<String> for Retry {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text))
        } else {
            Err("a retry is a digest of 64 hexadecimal characters")
        }
    }
}

impl From<Retry> for String {
    fn from(Retry(digest): Retry) -> Self {
        digest
    }
}

impl JsonSchema for Retry {
    fn schema_name() -> Cow<'static, str> {
        "Retry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 64, "pattern": "^[0-9a-f]{64}$"})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// How to have a held `NodeConfig` tried again, for the end of a sentence.
pub fn advice(name: &str) -> String {
    format!(
        "held: set the annotation {ANNOTATION} of NodeConfig {name} to a new value to try again, or change its configuration"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_becomes_a_digest_of_its_own() {
        let long = "x".repeat(1 << 20);
        let values = ["", "1", "2026-01-01", "$(id)\n\u{202e}", &long];
        for value in values {
            let text = String::from(Retry::of(value));
            assert_eq!(text, digest::of_bytes(value.as_bytes()));
            assert_eq!(Retry::try_from(text), Ok(Retry::of(value)));
            let alike = values.map(|other| Retry::of(other) == Retry::of(value));
            assert_eq!(alike.iter().filter(|alike| **alike).count(), 1, "{value}");
        }
    }

    #[test]
    fn the_advice_names_what_to_set() {
        assert_eq!(
            advice("mirrors"),
            "held: set the annotation edict.dev/retry of NodeConfig mirrors to a new value to try \
             again, or change its configuration"
        );
    }

    #[test]
    fn nothing_else_is_one() {
        let digest = String::from(Retry::of("1"));
        for text in [
            String::new(),
            "now".to_owned(),
            digest[1..].to_owned(),
            format!("{digest}0"),
            format!("{}$", &digest[1..]),
            format!("{}\n", &digest[1..]),
            digest.to_uppercase(),
        ] {
            let read = serde_json::from_value::<Retry>(text.clone().into());
            assert!(read.is_err(), "{text:?}");
        }
    }
}
