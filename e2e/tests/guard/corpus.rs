//! The lines of the injection corpora.

use std::sync::LazyLock;

use serde_json::Value;

/// Values that have to be refused.
pub static HOSTILE: LazyLock<Vec<Entry>> =
    LazyLock::new(|| read(include_str!("../../../fixtures/injection/hostile.txt")));
/// Values that have to be let through.
pub static HONEST: LazyLock<Vec<Entry>> =
    LazyLock::new(|| read(include_str!("../../../fixtures/injection/honest.txt")));

/// A value of a corpus.
#[derive(Debug)]
pub struct Entry {
    /// The comment above it.
    pub section: String,
    /// The line as it is written.
    pub line: &'static str,
    /// The field that the value is for.
    pub kind: &'static str,
    pub value: Value,
}

fn read(text: &'static str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for block in text.split("\n\n") {
        let (comments, lines): (Vec<_>, Vec<_>) = block
            .lines()
            .partition(|line| line.is_empty() || line.starts_with('#'));
        entries.extend(lines.into_iter().map(|line| {
            let (kind, value) = entry(line);
            let section = comments.join("\n");
            Entry {
                section,
                line,
                kind,
                value,
            }
        }));
    }
    entries
}

/// The kind and the value that a line says.
pub fn entry(line: &str) -> (&str, Value) {
    let (kind, value) = line.split_once(' ').expect("a line is a kind and a value");
    let value = serde_json::from_str(value);
    (
        kind,
        value.unwrap_or_else(|error| unreachable!("{line}: {error}")),
    )
}

/// Every text of both corpora that is short enough to be changed in many ways.
pub static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut texts = Vec::new();
    for entry in HOSTILE.iter().chain(HONEST.iter()) {
        collect(&entry.value, &mut texts);
    }
    texts.retain(|text| text.len() <= 200);
    texts.sort();
    texts.dedup();
    texts
});

/// The texts of one kind.
pub fn texts_of(kinds: &[&str]) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in HOSTILE.iter().chain(HONEST.iter()) {
        if kinds.contains(&entry.kind) {
            collect(&entry.value, &mut texts);
        }
    }
    texts
}

fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(map) => map.values().for_each(|item| collect(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn no_value_is_there_twice() {
    for corpus in [&HOSTILE, &HONEST] {
        let mut seen = std::collections::BTreeSet::new();
        let twice = corpus
            .iter()
            .filter(|entry| !seen.insert((entry.kind, entry.value.to_string())));
        let twice: Vec<_> = twice.map(|entry| entry.line).collect();
        assert_eq!(twice, [""; 0]);
    }
}

#[test]
fn every_section_says_where_it_comes_from() {
    for (name, corpus) in [("hostile", &HOSTILE), ("honest", &HONEST)] {
        assert!(corpus.len() >= 350, "{name}: {}", corpus.len());
        let bare = corpus.iter().find(|entry| entry.section.is_empty());
        assert!(bare.is_none(), "{name}: no comment above {bare:?}");
    }
}
