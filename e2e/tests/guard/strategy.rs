//! Values to try: those of the corpora, changed and joined, and others made from the pieces that
//! such values have.

use std::sync::LazyLock;

use edict_core::config::containerd::{self, Capability, Containerd, Mirror};
use edict_core::config::files::{File, FileOwner, Files};
use edict_core::config::{
    Config, CredentialsSource, Docker, Notify, NotifyAction, Proxy, ProxyUser, Sysctl,
};
use edict_core::content::{KeyRef, Kind, SecretRef, Source};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::FileFailurePersistence;
use serde_json::json;

use crate::corpus;
use crate::plain::plain;
use crate::subject::{self, CA, Subject};

/// How a property is tried: so many cases, or `PROPTEST_CASES` where that is set. What fails is
/// kept beside the module.
pub fn cases(ordinary: u32) -> ProptestConfig {
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let given = ProptestConfig::default();
    ProptestConfig {
        cases: if told { given.cases } else { ordinary },
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        // What fails is worth half a minute of making it smaller.
        max_shrink_time: 30_000,
        ..given
    }
}

/// Pieces that values are made of.
const HONEST: &[&str] = &[
    "mirror",
    "example",
    ".com",
    ".",
    "-",
    "_",
    "/",
    ":5000",
    ":443",
    ":",
    "10.0.0.1",
    "[2001:db8::1]",
    "/16",
    "v2",
    "%C3%A9",
    "é",
    "a",
    "0",
    "~",
    "xn--bcher-kva",
    "例え",
    "/etc/edict/",
    "https://",
    "http://",
];

/// Pieces that break out of formats, or look like others.
const HOSTILE: &[&str] = &[
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\r",
    "\0",
    "\t",
    " ",
    "'",
    "`",
    "$(id)",
    "${x}",
    ";",
    "|",
    "&",
    "<",
    ">",
    "%0a",
    "%22",
    "%2e",
    "%n",
    "%",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{200b}",
    "\u{202e}",
    "\u{2028}",
    "\u{feff}",
    "@",
    "?",
    "#",
    "]",
    "}",
    ",",
    "\"]}",
    "\\u0022",
    "\\\"",
    "\"\"\"",
    "'''",
    "\"\n[host.\"x\"]\n",
    "*",
    "..",
    "/../",
    "{",
    "=",
    "^",
    "!",
    "(",
    ")",
    "\u{ff04}",
    "\u{430}",
    "\u{301}",
    "\u{e0041}",
    "\u{1f511}",
    "\u{10ffff}",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(HONEST).prop_map(ToOwned::to_owned),
        3 => select(HOSTILE).prop_map(ToOwned::to_owned),
        1 => any::<char>().prop_map(String::from),
    ]
}

/// One change of a text.
#[derive(Clone, Debug)]
enum Change {
    Insert(Index, String),
    Delete(Index, Index),
    Swap(Index, Index),
    Encode(Index, Encoding),
    /// Goes on as another text does.
    Splice(Index, String, Index),
}

/// Ways to write a character as others.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Percent,
    PercentTwice,
    Json,
    Fullwidth,
    Upper,
}

impl Encoding {
    fn of(self, character: char) -> String {
        let bytes = |sign: &str| {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).bytes();
            bytes
                .map(|byte| format!("{sign}{byte:02x}"))
                .collect::<Vec<_>>()
                .concat()
        };
        match self {
            Self::Percent => bytes("%"),
            Self::PercentTwice => bytes("%25"),
            Self::Json => format!("\\u{:04x}", u32::from(character)),
            Self::Fullwidth => {
                let wide = u32::from(character) + 0xfee0;
                let wide = if character.is_ascii_graphic() {
                    char::from_u32(wide)
                } else {
                    None
                };
                wide.unwrap_or(character).to_string()
            }
            Self::Upper => character.to_uppercase().collect(),
        }
    }
}

impl Change {
    fn apply(self, text: &mut Vec<char>) {
        // One place more than there are characters: the end counts.
        let at = |index: Index, text: &[char]| index.index(text.len() + 1);
        match self {
            Self::Insert(index, piece) => {
                let at = at(index, text);
                text.splice(at..at, piece.chars());
            }
            Self::Delete(from, to) => {
                let (from, to) = (at(from, text), at(to, text));
                text.drain(from.min(to)..from.max(to));
            }
            Self::Swap(one, other) if !text.is_empty() => {
                let (one, other) = (one.index(text.len()), other.index(text.len()));
                text.swap(one, other);
            }
            Self::Encode(index, encoding) if !text.is_empty() => {
                let at = index.index(text.len());
                let encoded = encoding.of(text[at]);
                text.splice(at..=at, encoded.chars());
            }
            Self::Splice(index, other, from) => {
                text.truncate(at(index, text));
                let other: Vec<_> = other.chars().collect();
                text.extend(&other[at(from, &other)..]);
            }
            Self::Swap(..) | Self::Encode(..) => {}
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    let encoding = select(
        &[
            Encoding::Percent,
            Encoding::PercentTwice,
            Encoding::Json,
            Encoding::Fullwidth,
            Encoding::Upper,
        ][..],
    );
    prop_oneof![
        4 => (index(), piece()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        1 => (index(), index()).prop_map(|(from, to)| Change::Delete(from, to)),
        1 => (index(), index()).prop_map(|(one, other)| Change::Swap(one, other)),
        2 => (index(), encoding).prop_map(|(at, encoding)| Change::Encode(at, encoding)),
        2 => (index(), select(corpus::TEXTS.as_slice()), index()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

/// Texts of these kinds from the corpora with some changes, or made of pieces, or anything at all.
pub fn text(kinds: &'static [&'static str]) -> impl Strategy<Value = String> {
    let known =
        (select(corpus::texts_of(kinds)), vec(change(), 0..4)).prop_map(|(text, changes)| {
            let mut text: Vec<_> = text.chars().collect();
            for change in changes {
                change.apply(&mut text);
            }
            text.into_iter().collect()
        });
    prop_oneof![
        6 => known,
        2 => vec(piece(), 0..8).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

/// A text for a field that takes any.
pub fn any_text() -> impl Strategy<Value = String> {
    text(&[
        "path",
        "url",
        "credentials",
        "sysctl-value",
        "host",
        "mirror",
    ])
}

pub fn docker() -> impl Strategy<Value = Docker> {
    let list = |kinds| option::weighted(0.8, vec(text(kinds), 0..4));
    let lists = (list(&["mirror", "url"]), list(&["registry", "host"]));
    let number = || option::weighted(0.2, 0..4000_u32);
    let debug = option::of(any::<bool>());
    (lists, debug, [number(), number(), number()]).prop_map(
        |((registry_mirrors, insecure_registries), debug, [downloads, timeout, mtu])| Docker {
            registry_mirrors,
            insecure_registries,
            debug,
            max_concurrent_downloads: downloads,
            shutdown_timeout: timeout,
            mtu,
            ..Docker::default()
        },
    )
}

fn notify() -> impl Strategy<Value = Notify> {
    let action = select(&[NotifyAction::Reload, NotifyAction::Restart][..]);
    (text(&["unit"]), action).prop_map(|(unit, action)| Notify { unit, action })
}

pub fn files() -> impl Strategy<Value = Files> {
    let owner = option::of((0..3_u32, 0..3_u32).prop_map(|(uid, gid)| FileOwner { uid, gid }));
    let file = (
        text(&["path"]),
        any_text(),
        option::of(text(&["mode"])),
        owner,
        option::weighted(0.3, vec(notify(), 1..3)),
    );
    let file = file.prop_map(|(path, content, mode, owner, notify)| File {
        path,
        content: Some(content),
        content_from: None,
        mode,
        owner,
        notify,
    });
    vec(file, 0..4).prop_map(|mut files| {
        keep_first(&mut files, |file| file.path.clone());
        Files(files)
    })
}

/// What stands behind a mirror: certificates, user name and password.
type Behind = (Option<Vec<u8>>, Option<[Vec<u8>; 2]>);

fn certificates() -> impl Strategy<Value = String> {
    static ALL: LazyLock<Vec<String>> = LazyLock::new(|| corpus::texts_of(&["ca"]));
    prop_oneof![Just(CA.to_owned()), select(ALL.as_slice()), any_text()]
}

fn mirror() -> impl Strategy<Value = (Mirror, Behind)> {
    let capabilities = option::of(subsequence(
        vec![Capability::Pull, Capability::Resolve, Capability::Push],
        1..=3,
    ));
    let behind = (
        option::of(certificates().prop_map(String::into_bytes)),
        option::of([any_text(), any_text()].prop_map(|pair| pair.map(String::into_bytes))),
    );
    let flags = (any::<Option<bool>>(), any::<Option<bool>>());
    (
        text(&["url", "mirror"]),
        capabilities,
        option::of(certificates()),
        behind,
        flags,
    )
        .prop_map(
            |(url, capabilities, ca, (elsewhere, credentials), (skip_verify, override_path))| {
                // One or the other; both is refused, and what would be rendered then means nothing.
                let elsewhere = elsewhere.filter(|_| ca.is_none());
                let mirror = Mirror {
                    url,
                    capabilities,
                    ca,
                    ca_from: None,
                    credentials_from: None,
                    skip_verify,
                    override_path,
                };
                (mirror, (elsewhere, credentials))
            },
        )
}

/// Registries with what they refer to. No registry and no mirror is there twice: that is refused,
/// and one of the two would be lost.
pub fn containerd() -> impl Strategy<Value = Subject> {
    let registry = (
        text(&["host"]),
        option::of(text(&["url", "mirror"])),
        option::weighted(0.9, vec(mirror(), 0..4)),
    );
    vec(registry, 0..3).prop_map(|mut registries| {
        keep_first(&mut registries, |(host, ..)| host.clone());
        let mut behind = Vec::new();
        let mut number = 0;
        let registries = registries.into_iter().map(|(host, server, mirrors)| {
            let mirrors = mirrors.map(|mut mirrors| {
                keep_first(&mut mirrors, |(mirror, _)| mirror.url.clone());
                mirrors
                    .into_iter()
                    .map(|(mut mirror, (ca, credentials))| {
                        number += 1;
                        let name = format!("of-{number}");
                        if let Some(ca) = ca {
                            let from = KeyRef {
                                name: name.clone(),
                                key: "ca.crt".to_owned(),
                            };
                            let from = Source {
                                secret_key_ref: Some(from),
                                config_map_key_ref: None,
                            };
                            behind.push((from.reference().expect("one is given"), ca));
                            mirror.ca_from = Some(from);
                        }
                        if let Some([username, password]) = credentials {
                            behind.push((subject::secret(&name, "username"), username));
                            behind.push((subject::secret(&name, "password"), password));
                            mirror.credentials_from = Some(CredentialsSource {
                                secret_ref: SecretRef { name },
                            });
                        }
                        mirror
                    })
                    .collect()
            });
            containerd::Registry {
                host,
                server,
                mirrors,
            }
        });
        let registries = Some(registries.collect());
        Subject {
            config: Config {
                containerd: Some(Containerd { registries }),
                ..Config::default()
            },
            contents: subject::contents(behind),
        }
    })
}

/// Who uses a proxy, the proxy, what goes past it, and perhaps who may use it.
pub fn proxy() -> impl Strategy<Value = Subject> {
    use ProxyUser::{Containerd, Docker, Environment, Kubelet};
    let url = || option::weighted(0.8, text(&["proxy", "url"]));
    (
        subsequence(vec![Docker, Containerd, Kubelet, Environment], 1..=4),
        (url(), url()),
        option::weighted(0.7, vec(text(&["no-proxy"]), 0..4)),
        option::weighted(0.3, [any_text(), any_text()]),
    )
        .prop_map(|(applies_to, (http, https), no_proxy, credentials)| {
            let name = "proxy".to_owned();
            let credentials_from = credentials.is_some().then_some(CredentialsSource {
                secret_ref: SecretRef { name },
            });
            let keys = ["username", "password"].map(|key| subject::secret("proxy", key));
            let parts = credentials.into_iter().flatten().map(String::into_bytes);
            Subject {
                config: Config {
                    proxy: Some(Proxy {
                        applies_to,
                        http,
                        https,
                        no_proxy,
                        credentials_from,
                    }),
                    ..Config::default()
                },
                contents: subject::contents(keys.into_iter().zip(parts)),
            }
        })
}

/// Settings of the kernel.
pub fn sysctl() -> impl Strategy<Value = Subject> {
    let setting = (text(&["sysctl-key"]), text(&["sysctl-value"]));
    vec(setting, 0..4).prop_map(|settings| Subject {
        config: Config {
            sysctl: Some(Sysctl(settings.into_iter().collect())),
            ..Config::default()
        },
        ..Subject::default()
    })
}

fn keep_first<T>(list: &mut Vec<T>, name: impl Fn(&T) -> String) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|one| seen.insert(name(one)));
}

/// Configurations of every kind.
pub fn subject() -> impl Strategy<Value = Subject> {
    (of_values(), option::of(plain())).prop_map(|(mut subject, plain)| {
        if let Some(plain) = plain {
            let mut config = json!(subject.config);
            for name in plain.config.block_names() {
                config[name] = json!(plain.config)[name].clone();
            }
            subject.config = serde_json::from_value(config).expect("a configuration");
        }
        subject
    })
}

/// Those whose values are free texts.
fn of_values() -> impl Strategy<Value = Subject> {
    let elsewhere = option::of((text(&["path"]), any_text(), any::<bool>()));
    (
        option::of(docker()),
        option::of(files()),
        containerd(),
        any::<bool>(),
        elsewhere,
        (
            option::weighted(0.3, proxy()),
            option::weighted(0.3, sysctl()),
        ),
    )
        .prop_map(
            |(docker, files, mut subject, with_containerd, elsewhere, (proxy, sysctl))| {
                if !with_containerd {
                    subject = Subject::default();
                }
                subject.config.sysctl = sysctl.and_then(|sysctl| sysctl.config.sysctl);
                if let Some(proxy) = proxy {
                    subject.config.proxy = proxy.config.proxy;
                    subject.contents.0.extend(proxy.contents.0);
                }
                subject.config.docker = docker;
                subject.config.files = files;
                if let (Some(files), Some((path, content, secret))) =
                    (&mut subject.config.files, elsewhere)
                {
                    let key = KeyRef {
                        name: "file".to_owned(),
                        key: "content".to_owned(),
                    };
                    let from = match if secret {
                        Kind::Secret
                    } else {
                        Kind::ConfigMap
                    } {
                        Kind::Secret => Source {
                            secret_key_ref: Some(key),
                            config_map_key_ref: None,
                        },
                        Kind::ConfigMap => Source {
                            config_map_key_ref: Some(key),
                            secret_key_ref: None,
                        },
                    };
                    let more = subject::contents(
                        from.reference()
                            .map(|reference| (reference, content.into_bytes())),
                    );
                    subject.contents.0.extend(more.0);
                    files.0.push(File {
                        path,
                        content: None,
                        content_from: Some(from),
                        mode: None,
                        owner: None,
                        notify: None,
                    });
                    keep_first(&mut files.0, |file| file.path.clone());
                }
                subject
            },
        )
}
