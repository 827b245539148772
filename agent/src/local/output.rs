//! What was done, or would be, for people and for programs.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

use edict_core::guard::text;
use edict_core::wire::{CommandReport, Hello, Outcome, Planned, Report, Written};
use serde::Serialize;
use serde_json::Value;

use crate::args::Output;

/// Shows a plan.
pub fn plan(planned: &Planned, output: Output) -> io::Result<()> {
    let Planned {
        report,
        changes,
        units,
        commands,
    } = planned;
    match output {
        Output::Json => json(&serde_json::json!({
            "changes": changes,
            "units": units,
            "commands": commands,
            "layers": report.layers,
            "releases": report.releases,
        })),
        Output::Text => print(&shown(planned)),
    }
}

fn shown(planned: &Planned) -> String {
    let mut text = String::new();
    for change in &planned.changes {
        write!(text, "{change}").expect("a string takes everything");
    }
    for (unit, action) in &planned.units {
        line(&mut text, format_args!("{unit}: {action}"));
    }
    for command in &planned.commands {
        let owner = &command.owner;
        line(&mut text, format_args!("{owner}: would run {command}"));
    }
    said(&mut text, &planned.report, "would be ");
    let count = planned.changes.len();
    let files = if count == 1 { "file" } else { "files" };
    line(
        &mut text,
        format_args!("{count} {files} would change; nothing was written"),
    );
    text
}

/// Shows what was done.
pub fn report(
    report: &Report,
    commands: &[CommandReport],
    absent: &[String],
    output: Output,
) -> io::Result<()> {
    match output {
        Output::Json => {
            json(&serde_json::json!({"report": report, "commands": commands, "notInForce": absent}))
        }
        Output::Text => {
            let mut text = String::new();
            for name in absent {
                line(&mut text, format_args!("{name}: is not in force here"));
            }
            said(&mut text, report, "");
            resources(&mut text, report);
            run(&mut text, commands);
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
            "commands": hello.commands,
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
    run(&mut text, &hello.commands);
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

fn run(text: &mut String, commands: &[CommandReport]) {
    for command in commands {
        let CommandReport {
            owner,
            run,
            outcome,
            output,
            message,
            ..
        } = command;
        became(text, owner, &format!("{run}: {outcome:?}"), message);
        for said in output.lines() {
            line(text, format_args!("  | {said}"));
        }
    }
}

fn line(text: &mut String, what: impl Display) {
    writeln!(text, "{what}").expect("a string takes everything");
}

fn print(text: &str) -> io::Result<()> {
    io::stdout()
        .lock()
        .write_all(text::visible(text).as_bytes())
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
