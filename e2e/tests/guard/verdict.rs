//! What the guard says of every known value.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use edict_core::guard::rule;

use crate::corpus::{Entry, HONEST, HOSTILE, entry};
use crate::subject::rules;

/// A line for each value, under the comment of its section: the rules that refuse it, and the value.
/// What gets the wrong verdict stands apart, so that it can't be accepted with the others.
fn verdicts(corpus: &[Entry], is_right: fn(&BTreeSet<String>) -> bool) -> (String, String) {
    let (mut right, mut wrong) = (String::new(), String::new());
    let mut section = "";
    for entry in corpus {
        if entry.section != section {
            section = &entry.section;
            let _ = writeln!(right, "\n{section}");
        }
        let rules = rules(entry.kind, &entry.value);
        let names: Vec<_> = rules.iter().map(String::as_str).collect();
        let names = if names.is_empty() {
            "let through".to_owned()
        } else {
            names.join(" ")
        };
        let into = if is_right(&rules) {
            &mut right
        } else {
            &mut wrong
        };
        let _ = writeln!(into, "{names:<24} {}", shortened(entry.line));
    }
    (right, wrong)
}

/// A certificate is no text to read.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[test]
fn every_hostile_value_is_refused() {
    let (refused, let_through) = verdicts(&HOSTILE, |rules| !rules.is_empty());
    assert_eq!(let_through, "");
    insta::assert_snapshot!(refused);
}

#[test]
fn every_honest_value_is_let_through() {
    let (let_through, refused) = verdicts(&HONEST, BTreeSet::is_empty);
    assert_eq!(refused, "");
    insta::assert_snapshot!(let_through);
}

/// A rule that stops nothing which the others let through could go.
#[test]
fn every_rule_alone_stops_something() {
    let alone: BTreeSet<_> = HOSTILE
        .iter()
        .map(|entry| rules(entry.kind, &entry.value))
        .filter(|rules| rules.len() == 1)
        .flatten()
        .collect();
    let names = rule::ALL.iter().map(|rule| rule.name);
    let idle: Vec<_> = names.filter(|name| !alone.contains(*name)).collect();
    assert!(
        idle.is_empty(),
        "no value is stopped by these alone: {idle:?}"
    );
}

/// The examples are what people read: each is a value of the corpus that its rule stops.
#[test]
fn every_rule_stops_its_own_example() {
    for rule in rule::ALL {
        let (kind, value) = entry(rule.example);
        let rules = rules(kind, &value);
        assert!(
            rules.contains(rule.name),
            "{}: {} breaks {rules:?}",
            rule.name,
            rule.example
        );
        let known = HOSTILE
            .iter()
            .any(|entry| entry.kind == kind && entry.value == value);
        assert!(
            known,
            "{}: {} is not in the corpus",
            rule.name, rule.example
        );
    }
}
