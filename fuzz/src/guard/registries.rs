//! The files of containerd's registries, read back by a TOML parser that has nothing in common
//! with the one that wrote them.

use std::fmt;

use edict_core::config::Config;
use edict_core::config::containerd::{Capability, Mirror, Registry};
use edict_core::content::{Contents, Kind};
use edict_core::resource::File;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

pub fn are_those_asked_for(config: &Config, contents: &Contents, found: &[&File]) {
    let wanted = config.containerd.iter();
    let mut found = found.iter();
    for registry in wanted.flat_map(|containerd| containerd.registries.iter().flatten()) {
        let folder = format!("/etc/containerd/certs.d/{}", registry.host);
        for (number, mirror) in (1..).zip(registry.mirrors.iter().flatten()) {
            if let Some(certificates) = certificates(mirror, contents) {
                let file = found.next().expect("the certificates are there");
                assert_eq!(file.path, format!("{folder}/mirror-{number}.pem"));
                assert_eq!(file.content, certificates);
            }
        }
        let file = found.next().expect("hosts.toml is there");
        assert_eq!(file.path, format!("{folder}/hosts.toml"));
        let text = std::str::from_utf8(&file.content).expect("TOML is UTF-8");
        says_exactly(text, registry, contents);
        let mut mirrors = registry.mirrors.iter().flatten();
        let secret = mirrors.any(|mirror| mirror.credentials_from.is_some());
        assert_eq!(file.mode, secret.then_some(0o600));
    }
    assert_eq!(found.next(), None, "nothing that was not asked for");
}

fn certificates<'a>(mirror: &'a Mirror, contents: &'a Contents) -> Option<&'a [u8]> {
    let from = mirror.ca_from.as_ref();
    let referred = from.map(|from| {
        let reference = from.reference().expect("it is one thing");
        contents.get(&reference).expect("it is there")
    });
    mirror.ca.as_ref().map(String::as_bytes).or(referred)
}

/// `hosts.toml`, as containerd reads it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hosts {
    server: Option<String>,
    #[serde(default)]
    host: InOrder,
}

/// A table, in the order in which it is written: containerd asks the mirrors in that order.
#[derive(Debug, Default, PartialEq)]
struct InOrder(Vec<(String, Value)>);

fn says_exactly(text: &str, registry: &Registry, contents: &Contents) {
    let Hosts { server, host } = basic_toml::from_str(text).expect("what is written is TOML");
    assert_eq!(server, registry.server, "{text}");
    let expected = (1..).zip(registry.mirrors.iter().flatten());
    let expected = expected
        .map(|(number, mirror)| (mirror.url.clone(), of_mirror(number, mirror, contents)))
        .collect();
    assert_eq!(host, InOrder(expected), "{text}");
    let visible = |c| c == '\n' || super::is_visible(c);
    assert!(text.chars().all(visible), "{text:?}");
}

fn of_mirror(number: usize, mirror: &Mirror, contents: &Contents) -> Value {
    let mut expected = json!({});
    if let Some(capabilities) = &mirror.capabilities {
        let word = |capability: &Capability| match capability {
            Capability::Pull => "pull",
            Capability::Resolve => "resolve",
            Capability::Push => "push",
        };
        expected["capabilities"] = capabilities.iter().map(word).collect();
    }
    if let Some(flag) = mirror.skip_verify {
        expected["skip_verify"] = json!(flag);
    }
    if let Some(flag) = mirror.override_path {
        expected["override_path"] = json!(flag);
    }
    if certificates(mirror, contents).is_some() {
        expected["ca"] = json!(format!("mirror-{number}.pem"));
    }
    if let Some(from) = &mirror.credentials_from {
        let part = |key| {
            let reference = from.secret_ref.key(key);
            assert_eq!(reference.kind, Kind::Secret);
            contents.get(&reference).expect("it is there")
        };
        let pair = [part("username"), part("password")].join(&b':');
        expected["header"]["Authorization"] = json!(format!("Basic {}", base64(&pair)));
    }
    expected
}

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        reader.deserialize_map(Entries)
    }
}

/// RFC 4648, section 4, written down once more.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0_usize;
        for at in 0..3 {
            bits = bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = char::from(ALPHABET[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}
