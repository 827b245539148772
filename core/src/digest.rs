//! Digests: a short name for "exactly this content".

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of `bytes`, in lower-case hexadecimal (64 characters).
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The SHA-256 of what `value` says as JSON, keys sorted.
///
/// Absent fields are left out by the types' own serializers, so that a new optional field in a
/// later release changes no digest.
///
/// # Panics
/// Never for this crate's types: they have string keys and no serializer of their own that fails.
pub fn of<T: Serialize>(value: &T) -> String {
    // serde_json's own map sorts its keys.
    let sorted = serde_json::to_value(value).expect("the type serializes to JSON");
    of_bytes(sorted.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_well_known_sum() {
        assert_eq!(
            of_bytes(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn order_of_fields_does_not_matter() {
        #[derive(Serialize)]
        struct One {
            a: u8,
            b: u8,
        }
        #[derive(Serialize)]
        struct Two {
            b: u8,
            a: u8,
        }
        assert_eq!(of(&One { a: 1, b: 2 }), of(&Two { b: 2, a: 1 }));
        assert_ne!(of(&One { a: 1, b: 2 }), of(&One { a: 2, b: 1 }));
    }
}
