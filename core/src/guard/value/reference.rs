//! References to ConfigMaps and Secrets, and what stands in them.

use super::super::rule::{self, Rule};
use super::broken;
use crate::content::Reference;

/// What the names of Edict's own objects begin with, in its own namespace.
const OWN: &str = "edict-";

/// A key of a ConfigMap or Secret that is not Edict's own.
///
/// Source: [`is_object_name`] for names, `IsConfigMapKey` of Kubernetes for keys.
pub fn reference(reference: &Reference) -> Vec<&'static Rule> {
    let Reference { kind: _, name, key } = reference;
    let name_holds = is_object_name(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let key_holds = (1..=253).contains(&key.len())
        && key.bytes().all(plain)
        && key != "."
        && !key.starts_with("..");
    broken([
        (!name_holds || !key_holds, &rule::REFERENCE),
        (name.starts_with(OWN), &rule::REFERENCE_OWN),
    ])
}

/// Whether `name` can be that of an object.
///
/// Source: RFC 1123 as Kubernetes has it for names (`IsDNS1123Subdomain`).
pub fn is_object_name(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(first, last)| edge(*first) && edge(*last))
            && bytes.iter().all(|b| edge(*b) || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A user name and a password as a header of Basic authentication carries them.
///
/// Source: RFC 7617, section 2.
pub fn credentials(username: &[u8], password: &[u8]) -> Vec<&'static Rule> {
    let printable = |bytes: &[u8]| {
        std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
    };
    let holds = !username.is_empty()
        && !username.contains(&b':')
        && printable(username)
        && printable(password);
    broken([(!holds, &rule::CREDENTIALS)])
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn references() {
        let judge = |name: &str, key: &str| {
            let text = format!("Secret/{name}/{key}");
            let rules = reference(&text.parse().unwrap());
            names(&rules).join(" ")
        };
        for (name, key) in [
            ("a", "k"),
            ("a.b-c.0", "tls.key"),
            ("a", "_-A9"),
            ("a", ".k"),
        ] {
            assert_eq!(judge(name, key), "", "{name} {key}");
        }
        let long = "a".repeat(254);
        for (name, key) in [
            ("", "k"),
            ("A", "k"),
            ("a_b", "k"),
            ("-a", "k"),
            ("a-", "k"),
            ("a..b", "k"),
            ("é", "k"),
            (&long, "k"),
            ("a", ""),
            ("a", "."),
            ("a", ".."),
            ("a", "..k"),
            ("a", "a/b"),
            ("a", "a b"),
            ("a", &long),
        ] {
            assert_eq!(judge(name, key), "reference", "{name} {key}");
        }
        assert_eq!(judge(&long[1..], &long[1..]), "");
        assert_eq!(judge("edict-ca", "k"), "reference-own");
    }

    #[test]
    fn credentials_are_printable() {
        for (username, password) in [("a", ""), ("a", "b:c \"$`"), ("é", "ü")] {
            assert_eq!(
                names(&credentials(username.as_bytes(), password.as_bytes())),
                [""; 0]
            );
        }
        for (username, password) in [
            ("", "b"),
            ("a:b", "c"),
            ("a\n", "c"),
            ("a", "c\n"),
            ("a", "\0"),
        ] {
            assert_eq!(
                credentials(username.as_bytes(), password.as_bytes()),
                [&rule::CREDENTIALS]
            );
        }
        assert_eq!(credentials(b"\xff", b"c"), [&rule::CREDENTIALS]);
        assert_eq!(credentials(b"a", b"\xff"), [&rule::CREDENTIALS]);
    }
}
