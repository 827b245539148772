//! The guard in `core`: it never panics, it says what it should of known values, and what it lets
//! through is, read back by the format's own parser, that value and nothing else.

use std::fmt::Write as _;

use edict_core::config::files::{File, Files};
use edict_core::config::{Config, Docker};
use edict_core::content::Contents;
use edict_core::guard::{Policy, text};
use edict_core::json;
use edict_core::resource::{KeyPath, Resource};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A corpus of values that have to be refused.
const HOSTILE: &str = include_str!("../../fixtures/injection/hostile.txt");
/// One of values that have to be let through.
const HONEST: &str = include_str!("../../fixtures/injection/honest.txt");

/// A `daemon.json` as a person leaves it.
const BY_HAND: &str = "{\n   \"debug\" :true,\n\n  \"registry-mirrors\": [\"https://old\" ],\n \"log-opts\": {\"max-size\":  \"10m\"}\n  }\n";

fn mirrors(values: &[String]) -> Config {
    Config {
        docker: Some(Docker {
            registry_mirrors: Some(values.to_vec()),
            ..Docker::default()
        }),
        ..Config::default()
    }
}

fn registries(values: &[String]) -> Config {
    Config {
        docker: Some(Docker {
            insecure_registries: Some(values.to_vec()),
            ..Docker::default()
        }),
        ..Config::default()
    }
}

fn file(path: &str, content: &str, mode: Option<&str>) -> Config {
    Config {
        files: Some(Files(vec![File {
            path: path.to_owned(),
            content: Some(content.to_owned()),
            content_from: None,
            mode: mode.map(ToOwned::to_owned),
            owner: None,
        }])),
        ..Config::default()
    }
}

fn is_let_through(config: &Config) -> bool {
    config
        .check(&Policy::default(), &Contents::default())
        .is_empty()
}

/// The keys that `config` sets, as text and as the value that serde_json reads from that.
fn written(config: &Config, before: &str) -> (String, Value) {
    let mut after = before.to_owned();
    for (_, resource) in config.render(&Contents::default()) {
        if let Resource::Keys(keys) = resource {
            for (key, value) in &keys.values {
                after = json::set(&after, key, value).expect("the file before is JSON");
            }
        }
    }
    let value = serde_json::from_str(&after).expect("what is written is JSON");
    (after, value)
}

/// `values` stand under `key` in what is written, and nothing else has come or gone.
fn round_trip(config: &Config, key: &str, values: &[String]) {
    let (text, value) = written(config, "{}");
    assert_eq!(value, json!({key: values}), "{text}");
    let (text, value) = written(config, BY_HAND);
    let mut expected: Value = serde_json::from_str(BY_HAND).expect("it is JSON");
    expected[key] = json!(values);
    assert_eq!(value, expected, "{text}");
    let taken = json::unset(&text, &KeyPath::top(key)).expect("it is JSON");
    assert!(!taken.contains("\"insecure-registries\""), "{taken}");
}

/// Pieces that values are made of, and pieces that break out of formats.
fn piece() -> impl Strategy<Value = String> {
    let honest = prop::sample::select(vec![
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
    ]);
    let hostile = prop::sample::select(vec![
        "\"", "\\", "\n", "\r", "\0", "\t", " ", "'", "`", "$(id)", "${x}", ";", "|", "&", "<",
        ">", "%0a", "%22", "%2e", "\u{200b}", "\u{202e}", "\u{2028}", "\u{feff}", "@", "?", "#",
        "]", "}", ",", "\"]}", "\\u0022", "*", "..", "%", "{", "=", "^", "!", "(", ")",
    ]);
    prop_oneof![
        8 => honest.prop_map(ToOwned::to_owned),
        1 => hostile.prop_map(ToOwned::to_owned),
        1 => any::<char>().prop_map(|c| c.to_string()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec!["https://", "http://", "", "HTTPS://", "https:"]);
    prop_oneof![
        9 => (scheme, vec(piece(), 0..8)).prop_map(|(scheme, rest)| scheme.to_owned() + &rest.concat()),
        1 => any::<String>(),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let start = prop::sample::select(vec![
        "/etc/edict/",
        "/etc/",
        "/etc",
        "/",
        "",
        "/etc/docker/",
        "/etc/motd",
    ]);
    (start, vec(piece(), 0..6)).prop_map(|(start, rest)| start.to_owned() + &rest.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_panics(values in vec(any::<String>(), 0..4), other in value(), path in path(), mode in any::<String>()) {
        let configs = [
            mirrors(&values),
            registries(&values),
            mirrors(std::slice::from_ref(&other)),
            registries(std::slice::from_ref(&other)),
            file(&path, &other, Some(&mode)),
            file(&other, "", None),
        ];
        for config in configs {
            for violation in config.check(&Policy::default(), &Contents::default()) {
                prop_assert!(!violation.field.is_empty() && !violation.advice.is_empty());
                prop_assert!(violation.excerpt.chars().count() < 100, "{}", violation.excerpt);
                prop_assert!(!violation.excerpt.chars().any(char::is_control), "{:?}", violation.excerpt);
            }
        }
        let _ = (text::excerpt(&other), text::mask(&other));
    }

    #[test]
    fn a_mirror_that_is_let_through_is_read_back_as_it_is(mirror in value(), more in value()) {
        for values in [vec![mirror.clone()], vec![mirror, more]] {
            let config = mirrors(&values);
            if is_let_through(&config) {
                round_trip(&config, "registry-mirrors", &values);
            }
        }
    }

    #[test]
    fn a_registry_that_is_let_through_is_read_back_as_it_is(rest in vec(piece(), 1..6)) {
        let values = [rest.concat()];
        let config = registries(&values);
        if is_let_through(&config) {
            round_trip(&config, "insecure-registries", &values);
        }
    }

    #[test]
    fn a_path_that_is_let_through_stays_under_etc(path in path(), content in any::<String>()) {
        let config = file(&path, &content, None);
        if is_let_through(&config) {
            prop_assert!(path.starts_with("/etc/"), "{path}");
            prop_assert!(path[1..].split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
            let rendered = config.render(&Contents::default());
            let whole = matches!(&rendered[..], [(_, Resource::File(file))] if file.path == path && file.content == content.as_bytes());
            prop_assert!(whole, "{rendered:?}");
        }
    }

    /// Without this the tests above might look at nothing.
    #[test]
    fn honest_mirrors_are_let_through(host in "[a-z][a-z0-9]{0,20}(\\.[a-z][a-z0-9]{0,10}){0,3}", port in 1024_u16.., path in "(/[a-z0-9._~-]{0,8}[a-z0-9]){0,3}") {
        let values = [format!("https://{host}:{port}{path}")];
        let config = mirrors(&values);
        prop_assert_eq!(config.check(&Policy::default(), &Contents::default()), vec![]);
        round_trip(&config, "registry-mirrors", &values);
    }
}

/// The rule that refuses a line of a corpus; none when it is let through.
fn verdict(line: &str) -> Option<String> {
    let (kind, value) = line.split_once(' ').expect("a line is a kind and a value");
    let value: String = serde_json::from_str(value).expect("a value is a JSON string");
    let config = match kind {
        "mirror" => mirrors(&[value]),
        "registry" => registries(&[value]),
        "path" => file(&value, "", None),
        "mode" => file("/etc/motd", "", Some(&value)),
        other => unreachable!("there is no kind {other}"),
    };
    let rules: Vec<_> = config
        .check(&Policy::default(), &Contents::default())
        .into_iter()
        .map(|violation| violation.rule)
        .collect();
    (!rules.is_empty()).then(|| rules.join(", "))
}

fn lines(corpus: &str) -> impl Iterator<Item = &str> {
    corpus
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn every_hostile_value_is_refused() {
    let mut verdicts = String::new();
    for line in lines(HOSTILE) {
        let verdict = verdict(line).unwrap_or_else(|| "LET THROUGH".to_owned());
        let _ = writeln!(verdicts, "{verdict:<16} {line}");
    }
    insta::assert_snapshot!(verdicts);
    assert!(!verdicts.contains("LET THROUGH"), "{verdicts}");
}

#[test]
fn every_honest_value_is_let_through() {
    let refused: Vec<_> = lines(HONEST)
        .filter_map(|line| Some(format!("{}: {line}", verdict(line)?)))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
