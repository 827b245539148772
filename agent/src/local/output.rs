//! What was done, or would be, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::time::Duration;

use edict_core::guard::text;
use edict_core::resource::Action;
use edict_core::wire::{Hello, Outcome, Report, Written};
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use crate::apply::{Change, Dry};
use crate::args::Output;
use crate::host::Whole;

/// Lines around a change.
const CONTEXT: usize = 3;
/// After so long a diff may be longer than it has to be.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who may look into a file that is shown: everybody.
const READABLE: u32 = 0o004;

/// What would become of a file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    path: &'a str,
    change: &'static str,
    in_place: bool,
    /// A unified diff, or why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<&'static str>,
    /// Permissions and owner before and after, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<[String; 2]>,
}

impl<'a> Shown<'a> {
    fn of(change: &'a Change) -> Self {
        let Change {
            path,
            before,
            after,
            in_place,
            secret,
        } = change;
        let (name, meta) = match (before, after) {
            (Some(before), Some(after)) if before.meta != after.meta => {
                ("Change", Some([before, after].map(permissions)))
            }
            (Some(_), Some(_)) => ("Change", None),
            (None, _) => ("Create", None),
            (Some(_), None) => ("Remove", None),
        };
        let (diff, hidden) = match difference(path, before.as_ref(), after.as_ref(), *secret) {
            Ok(diff) => (Some(diff), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            path,
            change: name,
            in_place: *in_place,
            diff,
            hidden,
            meta,
        }
    }
}

fn permissions(whole: &Whole) -> String {
    let meta = whole.meta;
    format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid)
}

/// A unified diff, or why there is none.
fn difference(
    path: &str,
    before: Option<&Whole>,
    after: Option<&Whole>,
    secret: bool,
) -> Result<String, &'static str> {
    if secret {
        return Err("it comes from a Secret");
    }
    let mut sides = before.into_iter().chain(after);
    if sides.any(|whole| whole.meta.mode & READABLE == 0) {
        return Err("not everybody may read it");
    }
    let lines = |whole: Option<&'_ Whole>| {
        let content = whole.map_or(&[][..], |whole| &whole.content);
        // JSON may write the slashes of a URL so that it is not seen to be one.
        std::str::from_utf8(content)
            .map(|content| text::mask(&content.replace(":\\/\\/", "://")).into_owned())
    };
    let (Ok(old), Ok(new)) = (lines(before), lines(after)) else {
        return Err("it is no text");
    };
    let name = |whole: Option<&Whole>| whole.map_or("/dev/null", |_| path);
    let diff = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(&old, &new);
    let mut diff = diff.unified_diff();
    let diff = diff.context_radius(CONTEXT);
    Ok(diff.header(name(before), name(after)).to_string())
}

/// Shows a plan.
pub fn plan(dry: &Dry, output: Output) -> io::Result<()> {
    let changes: Vec<_> = dry.changes.iter().map(Shown::of).collect();
    match output {
        Output::Json => json(&serde_json::json!({
            "changes": changes,
            "units": dry.units,
            "layers": dry.report.layers,
            "releases": dry.report.releases,
        })),
        Output::Text => print(&text(&changes, &dry.units, &dry.report)),
    }
}

fn text(changes: &[Shown<'_>], units: &BTreeMap<String, Action>, report: &Report) -> String {
    let mut text = String::new();
    for shown in changes {
        let Shown {
            path,
            change,
            in_place,
            diff,
            hidden,
            meta,
        } = shown;
        match (diff, hidden) {
            (Some(diff), _) if !diff.is_empty() => text.push_str(diff),
            (_, Some(why)) => line(&mut text, format_args!("{change} {path}: not shown, {why}")),
            _ => line(&mut text, format_args!("{change} {path}")),
        }
        if let Some([before, after]) = meta {
            line(&mut text, format_args!("{path}: {before} -> {after}"));
        }
        if *in_place {
            line(
                &mut text,
                format_args!("{path} is a mount point: it is written over in its place"),
            );
        }
    }
    for (unit, action) in units {
        line(&mut text, format_args!("{unit}: {action}"));
    }
    said(&mut text, report, "would be ");
    let count = changes.len();
    let files = if count == 1 { "file" } else { "files" };
    line(
        &mut text,
        format_args!("{count} {files} would change; nothing was written"),
    );
    text
}

/// Shows what was done.
pub fn report(report: &Report, absent: &[String], output: Output) -> io::Result<()> {
    match output {
        Output::Json => json(&serde_json::json!({"report": report, "notInForce": absent})),
        Output::Text => {
            let mut text = String::new();
            for name in absent {
                line(&mut text, format_args!("{name}: is not in force here"));
            }
            said(&mut text, report, "");
            resources(&mut text, report);
            print(&text)
        }
    }
}

/// Shows what is in force.
pub fn status(hello: &Hello, interrupted: bool, output: Output) -> io::Result<()> {
    if output == Output::Json {
        return json(&serde_json::json!({
            "layers": hello.layers,
            "interrupted": interrupted,
            "report": hello.report,
        }));
    }
    let mut text = String::new();
    if interrupted {
        for layer in &hello.layers {
            line(&mut text, format_args!("{}: in force before", layer.name));
        }
        text.push_str("a change was interrupted: apply and restore take it back first\n");
        return print(&text);
    }
    let report = hello.report.clone().unwrap_or_default();
    said(&mut text, &report, "");
    resources(&mut text, &report);
    if hello.layers.is_empty() {
        text.push_str("nothing is in force\n");
    }
    print(&text)
}

fn said(text: &mut String, report: &Report, would: &str) {
    for release in &report.releases {
        let how = if release.done {
            "given back"
        } else {
            "not given back"
        };
        became(
            text,
            &release.name,
            &format!("{would}{how}"),
            &release.message,
        );
    }
    for layer in &report.layers {
        let outcome = match layer.outcome {
            Outcome::Applied => "Applied",
            Outcome::PendingReload if layer.restart => "PendingRestart",
            Outcome::PendingReload => "PendingReload",
            Outcome::Unread => "Unread",
            Outcome::Refused => "Refused",
            Outcome::Failed => "Failed",
        };
        became(
            text,
            &layer.name,
            &format!("{would}{outcome}"),
            &layer.message,
        );
        // The message has the first.
        for violation in layer.violations.iter().skip(1) {
            line(text, format_args!("  {violation}"));
        }
        for conflict in &layer.conflicts {
            let place = place(&conflict.path, conflict.key.as_ref());
            let winner = &conflict.winner_name;
            line(
                text,
                format_args!("  {place} is {winner}'s, which goes before it"),
            );
        }
    }
}

fn became(text: &mut String, name: &str, how: &str, message: &str) {
    match message {
        "" => line(text, format_args!("{name}: {how}")),
        message => line(text, format_args!("{name}: {how}: {message}")),
    }
}

/// A file, or a key in it.
fn place(path: &str, key: Option<impl Display>) -> String {
    match key {
        None => path.to_owned(),
        Some(key) => format!("{path} {key}"),
    }
}

fn resources(text: &mut String, report: &Report) {
    for resource in &report.resources {
        let place = place(&resource.path, resource.key.as_ref());
        let how = match resource.result {
            Written::Replaced => "",
            Written::InPlace => ", written over in its place",
            Written::Unchanged => ", as it was",
        };
        line(text, format_args!("  {place} of {}{how}", resource.owner));
    }
}

fn line(text: &mut String, what: impl Display) {
    writeln!(text, "{what}").expect("a string takes everything");
}

/// What comes from a file may hold anything, a terminal's commands too.
fn visible(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for one in text.chars() {
        if one.is_control() && !matches!(one, '\n' | '\t') {
            plain.extend(one.escape_default());
        } else {
            plain.push(one);
        }
    }
    plain
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(visible(text).as_bytes())
}

/// Shows a value without digests: what they are keyed with here is no secret, and they count what
/// comes from Secrets.
fn json(what: &impl Serialize) -> io::Result<()> {
    let mut what = serde_json::to_value(what)?;
    without_digests(&mut what);
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &what)?;
    writeln!(out)
}

fn without_digests(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| name != "digest" && name != "inForce");
            fields.values_mut().for_each(without_digests);
        }
        Value::Array(values) => values.iter_mut().for_each(without_digests),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Meta;

    fn whole(content: &str, mode: u32) -> Whole {
        Whole {
            content: content.into(),
            meta: Meta {
                mode,
                uid: 0,
                gid: 0,
            },
        }
    }

    #[test]
    fn a_diff_names_what_changes_and_hides_what_is_not_for_everybody() {
        let (one, two) = (whole("a\none\n", 0o644), whole("a\ntwo\n", 0o644));
        assert_eq!(
            difference("/etc/motd", Some(&one), Some(&two), false),
            Ok("--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +1,2 @@\n a\n-one\n+two\n".to_owned())
        );
        assert_eq!(
            difference("/etc/motd", None, Some(&two), false),
            Ok("--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1,2 @@\n+a\n+two\n".to_owned())
        );
        let secret = "it comes from a Secret";
        assert_eq!(difference("/etc/motd", None, Some(&two), true), Err(secret));
        let closed = whole("a", 0o640);
        for (before, after) in [(&closed, &two), (&two, &closed)] {
            let why = Err("not everybody may read it");
            assert_eq!(
                difference("/etc/motd", Some(before), Some(after), false),
                why
            );
        }
        let bytes = Whole {
            content: vec![0xff],
            ..one.clone()
        };
        let why = Err("it is no text");
        assert_eq!(
            difference("/etc/motd", Some(&one), Some(&bytes), false),
            why
        );
        let url = whole("proxy http://user:pass@proxy.example.com\n", 0o644);
        let escaped = whole("\"http:\\/\\/user:pass@proxy.example.com\"\n", 0o644);
        for url in [url, escaped] {
            let masked = difference("/etc/motd", None, Some(&url), false).unwrap();
            assert!(!masked.contains("pass@"), "{masked}");
        }
    }

    #[test]
    fn nothing_reaches_a_terminal_but_text() {
        assert_eq!(visible("a\tb\n"), "a\tb\n");
        assert_eq!(visible("\u{1b}[2J\r\u{9b}"), "\\u{1b}[2J\\r\\u{9b}");
    }
}
