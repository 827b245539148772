//! No input panics, and none takes more than linear time.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use edict_core::guard::{Policy, text, value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::strategy::{any_text, cases, subject};
use crate::subject::{policy, rules};

const MIB: usize = 1024 * 1024;

/// A debug build takes a few seconds for a mebibyte on a slow machine. What takes quadratic time
/// would take a day.
const DEADLINE: Duration = Duration::from_mins(4);

/// Every kind whose value is a text.
const KINDS: &[&str] = &[
    "mirror",
    "registry",
    "path",
    "mode",
    "unit",
    "size",
    "host",
    "url",
    "ca",
    "proxy",
    "no-proxy",
    "sysctl-key",
    "sysctl-value",
    "address",
    "host-name",
    "time-server",
    "name-server",
    "search-domain",
    "limit-domain",
    "limit-value",
    "module",
    "module-value",
    "unit-setting",
    "unit-value",
    "command",
    "command-again",
    "command-integer",
    "command-enum",
    "command-pattern",
    "command-path",
    "command-any",
    "probe-path",
    "address-range",
];

/// What careless parsers go back over: the same piece without an end, open brackets, signs that
/// want more behind them.
const UNITS: &[&str] = &[
    "a",
    "/",
    "../",
    "a.",
    ".",
    "-",
    ":",
    "::",
    "://",
    "@",
    "a:b@",
    "%",
    "%2",
    "%25",
    "$(",
    "${",
    "\\",
    "\"",
    "\n",
    "\r\n",
    " ",
    "[",
    "]",
    "[::",
    "1.",
    "0x",
    "xn--",
    "\u{200b}",
    "\u{202e}",
    "\u{301}",
    "\u{430}a",
    "\u{ff04}",
    "-----BEGIN CERTIFICATE-----\n",
    "-----BEGIN ",
    "-----END CERTIFICATE-----\n",
    "*.",
    "https://",
    "#",
    "?",
];

/// A value of one kind, judged; and the same value in all other fields that take a text.
fn judge(kind: &str, text: &str) {
    let _ = rules(kind, &json!(text));
}

/// Does `work` in a thread of its own, and fails when it is not done in time.
fn in_time(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, waits) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match waits.recv_timeout(DEADLINE) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            unreachable!("{what} is not done within {DEADLINE:?}")
        }
        // A panic of the worker closes the channel too.
        _ => worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

#[test]
fn a_mebibyte_of_anything_takes_linear_time() {
    in_time("a mebibyte of everything", || {
        for (index, unit) in UNITS.iter().enumerate() {
            let text = unit.repeat(MIB / unit.len());
            // Each unit in some of the kinds: all together they meet every one often. Behind a
            // scheme the parser of URLs goes on.
            for (turn, kind) in KINDS.iter().skip(index % 4).step_by(4).enumerate() {
                if turn % 2 == 0 {
                    judge(kind, &text);
                } else {
                    judge(kind, &format!("https://{text}"));
                }
            }
        }
    });
}

#[test]
fn a_long_list_takes_linear_time() {
    in_time("long lists", || {
        let many = 20_000;
        let names: Vec<_> = (0..many)
            .map(|number| format!("r{number}.example"))
            .collect();
        let files = names
            .iter()
            .map(|name| json!({"path": format!("/etc/edict/{name}"), "content": ""}));
        let hosts = names.iter().map(|name| json!({"host": name}));
        let config = json!({
            "docker": {"insecureRegistries": names},
            "files": files.collect::<Value>(),
            "containerd": {"registries": hosts.collect::<Value>()},
        });
        assert_eq!(rules("config", &config), [].into());
    });
}

#[test]
fn a_mebibyte_is_shown_short() {
    in_time("excerpts of a mebibyte", || {
        for unit in UNITS {
            let text = unit.repeat(MIB / unit.len());
            assert!(text::excerpt(&text).chars().count() < 100, "{unit}");
            let _ = text::mask(&text);
        }
    });
}

/// So many cases at most: each takes as long as thousands of others.
fn large_cases() -> ProptestConfig {
    let config = cases(24);
    ProptestConfig {
        cases: config.cases.min(200),
        // A shorter text would be no mebibyte.
        max_shrink_iters: 0,
        ..config
    }
}

proptest! {
    #![proptest_config(large_cases())]

    #[test]
    fn a_mebibyte_of_any_text_takes_linear_time(kind in select(KINDS), unit in any_text()) {
        let unit = if unit.is_empty() { " ".to_owned() } else { unit };
        in_time("a mebibyte", move || judge(kind, &unit.repeat(MIB / unit.len())));
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn no_text_panics(text in any_text(), other in any::<String>()) {
        for text in [&text, &other] {
            for kind in KINDS {
                judge(kind, text);
            }
            let _ = (text::excerpt(text), text::mask(text));
        }
        let _ = rules("credentials", &json!({"username": text, "password": other}));
        let _ = rules("reference", &json!({"name": text, "key": other}));
    }

    #[test]
    fn no_bytes_panic(one in vec(any::<u8>(), 0..64), other in vec(any::<u8>(), 0..64)) {
        let _ = value::pem(&one);
        let _ = value::credentials(&one, &other);
    }

    /// What is shown of a refused value can't harm who reads it, and says what to do.
    #[test]
    fn a_violation_can_be_shown(subject in subject(), allowed in vec(any_text(), 0..2)) {
        let policy = Policy { allowed, ..policy() };
        for violation in subject.check(&policy) {
            prop_assert!(!violation.advice.is_empty());
            prop_assert!(violation.excerpt.chars().count() < 100, "{}", violation.excerpt);
            let seen = !violation.excerpt.chars().any(|c| c.is_control() || matches!(c, '\u{200b}' | '\u{202e}' | '\u{2028}'));
            prop_assert!(seen, "{:?}", violation.excerpt);
        }
    }
}
