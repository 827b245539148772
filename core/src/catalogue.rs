//! The catalogue: what a cluster's administrator lets `NodeConfig`s run on nodes, each command with
//! typed parameters and limits. Pure.
//!
//! In an argument, `$(name)` stands for the value of a parameter and `$$(` for `$(` itself, as in the
//! arguments of a container of a pod. No shell is between: what stands there after that is what the
//! program gets.

use std::collections::{BTreeMap, HashSet};

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::{Findings, Rule, Violation, path, rule};
use crate::resource::is_under;

/// The longest value of a parameter, in bytes.
pub const VALUE_MAX: usize = 512;
/// How long a command may take where it does not say, in seconds.
const TIMEOUT: u32 = 60;
/// How much memory it may have where it does not say, in MiB.
const MEMORY: u32 = 256;
/// How many processes and threads where it does not say.
const TASKS: u32 = 64;
/// How much of its output is kept where it does not say, in KiB.
const OUTPUT: u32 = 16;
/// The most bytes that a pattern may take once it is compiled.
const PATTERN_MAX: usize = 256 * 1024;

/// A command that NodeConfigs may run on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The name by which NodeConfigs run it, for example "vacuum-journal".
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The program, by its absolute path on the node, and its arguments. No shell is between. In an
    /// argument, $(size) stands for the value of the parameter size, and $$( for $( itself.
    #[schemars(length(min = 1, max = 64), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self[0].startsWith('/')", "message": "must begin with the absolute path of a program, for example /usr/bin/journalctl"},
    ]))]
    pub argv: Vec<String>,
    /// What NodeConfigs have to give, each with what it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parameters: Option<Vec<Parameter>>,
    /// How many seconds it may take; it is ended then. 60 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// How much memory it may have with all that it starts, in MiB; it is ended when it needs more. 256
    /// if left out.
    #[serde(default, rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 65536))]
    pub memory_mib: Option<u32>,
    /// How many processes and threads it may have at once. 64 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub tasks: Option<u32>,
    /// How much of what it says is kept, in KiB: of more than that, the beginning and the end. 16 if left
    /// out.
    #[serde(default, rename = "outputKiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub output_kib: Option<u32>,
}

/// What a NodeConfig gives a command: a word of a list, a number, a text of a pattern or a path. Exactly
/// one of enum, integer, pattern and path says which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.enum), has(self.integer), has(self.pattern), has(self.path)].exists_one(given, given)", "message": "give exactly one of enum, integer, pattern and path"},
]))]
pub struct Parameter {
    /// Its name, for example "size".
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The values that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub r#enum: Option<Vec<String>>,
    /// It is a whole number of this range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<Range>,
    /// It is a text that this regular expression matches from its beginning to its end. Signs that mean
    /// something to a shell, and blanks, are refused all the same. Syntax: the Rust crate regex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,
    /// It is an absolute path under one of these folders, judged as it is written: where symlinks of the
    /// node lead is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Under>,
}

/// A range of whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.min <= self.max", "message": "min must not be greater than max"},
]))]
pub struct Range {
    /// The smallest.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

/// Folders that a path has to be under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Under {
    /// The folders, absolute.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub under: Vec<String>,
}

/// What is run on a host: a command with all that its parameters stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The name of the command.
    pub name: String,
    /// The program's path, and its arguments.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_seconds: u32,
    /// How much memory it may have, in MiB.
    pub memory_mib: u32,
    /// How many processes and threads.
    pub tasks: u32,
    /// How much of its output is kept, in KiB.
    pub output_kib: u32,
}

/// A piece of an argument.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The value of a parameter.
    Value(&'a str),
}

/// The pieces of an argument; none where a `$(` has no end.
fn pieces(argument: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(at) = rest.find("$(") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            pieces.push(Piece::Text(before));
            pieces.push(Piece::Text("$("));
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Text(&rest[..at]));
        let (name, behind) = rest[at + 2..].split_once(')')?;
        pieces.push(Piece::Value(name));
        rest = behind;
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Some(pieces)
}

/// Whether the value of this parameter makes an option of an argument, or another one than its own text
/// begins: where nothing but hyphens and what is empty stands before it.
fn makes_option(argument: &str, parameter: &str, with: &BTreeMap<String, String>) -> bool {
    for piece in pieces(argument).unwrap_or_default() {
        let (text, own) = match piece {
            Piece::Text(text) => (text, false),
            Piece::Value(name) => {
                let value = with.get(name).map(String::as_str);
                (value.unwrap_or_default(), name == parameter)
            }
        };
        if own && text.starts_with('-') {
            return true;
        }
        if text.bytes().any(|byte| byte != b'-') {
            return false;
        }
    }
    false
}

/// A pattern that has to match a whole text.
fn whole(pattern: &str) -> Option<Regex> {
    // By itself first: what closes a bracket that is not its own would open the pattern.
    let sized = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_MAX).build().ok();
    sized(pattern)?;
    sized(&format!(r"\A(?:{pattern})\z"))
}

/// Whether a text is an absolute path without anything that leads elsewhere.
fn is_path(text: &str) -> bool {
    path::form(text).is_empty()
}

/// Everything that makes no sense in a catalogue.
pub fn check(catalogue: &[Command]) -> Vec<Violation> {
    let mut found = Findings::default();
    let mut names = HashSet::new();
    for (index, command) in catalogue.iter().enumerate() {
        found.within(&format!("commands[{index}]"), |found| {
            if !names.insert(&command.name) {
                found.add("name", &rule::DUPLICATE, &command.name);
            }
            command.judge(found);
        });
    }
    found.into_violations()
}

impl Command {
    /// What makes no sense in it.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Findings::default();
        self.judge(&mut found);
        found.into_violations()
    }

    fn parameters(&self) -> &[Parameter] {
        self.parameters.as_deref().unwrap_or_default()
    }

    fn judge(&self, found: &mut Findings) {
        let mut says = |field: &str, what: &str| found.add(field, &rule::CATALOGUE, what);
        if !is_name(&self.name) {
            says("name", &self.name);
        }
        let program = self.argv.first().map(String::as_str).unwrap_or_default();
        if !is_path(program) || program.contains("$(") {
            says(
                "argv[0]",
                &format!("{program}: not the absolute path of a program"),
            );
        }
        let mut used = HashSet::new();
        for (index, argument) in self.argv.iter().enumerate() {
            let field = format!("argv[{index}]");
            if argument.chars().any(char::is_control) {
                says(&field, "a control character");
            }
            let Some(pieces) = pieces(argument) else {
                says(&field, &format!("{argument}: a $( without its )"));
                continue;
            };
            for piece in pieces {
                let Piece::Value(name) = piece else { continue };
                if !self.parameters().iter().any(|one| one.name == name) {
                    says(&field, &format!("$({name}): no such parameter"));
                }
                used.insert(name);
            }
        }
        let mut names = HashSet::new();
        for (index, parameter) in self.parameters().iter().enumerate() {
            let at = |field: &str| format!("parameters[{index}].{field}");
            let name = parameter.name.as_str();
            if !is_name(name) {
                says(&at("name"), name);
            } else if !names.insert(name) {
                says(&at("name"), &format!("{name}: there twice"));
            } else if !used.contains(name) {
                says(&at("name"), &format!("{name}: in no argument"));
            }
            if let Some((field, what)) = parameter.trouble() {
                says(&at(field), what);
            }
        }
        for (field, given, range) in [
            ("timeoutSeconds", self.timeout_seconds, 1..=3600),
            ("memoryMiB", self.memory_mib, 8..=65536),
            ("tasks", self.tasks, 1..=4096),
            ("outputKiB", self.output_kib, 1..=64),
        ] {
            found.number(field, given, range);
        }
    }

    /// Judges what a `NodeConfig` gives this command.
    pub(crate) fn judge_values(&self, with: &BTreeMap<String, String>, found: &mut Findings) {
        let parameters = self.parameters();
        for name in with.keys() {
            if !parameters.iter().any(|parameter| parameter.name == *name) {
                found.add(
                    "with",
                    &rule::COMMAND_PARAMETER,
                    &format!("{name}: too much"),
                );
            }
        }
        for parameter in parameters {
            let name = &parameter.name;
            let Some(value) = with.get(name) else {
                found.add(
                    "with",
                    &rule::COMMAND_PARAMETER,
                    &format!("{name}: missing"),
                );
                continue;
            };
            let field = format!("with.{name}");
            if parameter.is_closed() {
                for rule in parameter.judge(value) {
                    found.add(&field, rule, value);
                }
                continue;
            }
            found.one(&field, value, |value| {
                let mut rules = parameter.judge(value);
                if self.argv.iter().any(|one| makes_option(one, name, with)) {
                    rules.push(&rule::COMMAND_OPTION);
                }
                rules
            });
        }
    }

    /// What is run. For values that passed [`Self::judge_values`].
    pub fn program(&self, with: &BTreeMap<String, String>) -> Program {
        let argument = |argument: &String| {
            let pieces = pieces(argument).unwrap_or_default().into_iter();
            let text = pieces.map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Value(name) => with.get(name).map(String::as_str).unwrap_or_default(),
            });
            text.collect()
        };
        Program {
            name: self.name.clone(),
            argv: self.argv.iter().map(argument).collect(),
            timeout_seconds: self.timeout_seconds.unwrap_or(TIMEOUT),
            memory_mib: self.memory_mib.unwrap_or(MEMORY),
            tasks: self.tasks.unwrap_or(TASKS),
            output_kib: self.output_kib.unwrap_or(OUTPUT),
        }
    }
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl Parameter {
    /// Whether everything that it may be is known: words that the administrator wrote, or numbers.
    fn is_closed(&self) -> bool {
        self.r#enum.is_some() || self.integer.is_some()
    }

    /// What makes no sense in it: the field, and why.
    fn trouble(&self) -> Option<(&'static str, &'static str)> {
        let Self {
            name: _,
            r#enum,
            integer,
            pattern,
            path,
        } = self;
        let given = [
            r#enum.is_some(),
            integer.is_some(),
            pattern.is_some(),
            path.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Some(("name", "not exactly one of enum, integer, pattern and path"));
        }
        if let Some(values) = r#enum {
            let long =
                |value: &String| value.len() > VALUE_MAX || value.chars().any(char::is_control);
            if values.is_empty() || values.iter().any(long) {
                return Some((
                    "enum",
                    "no values, or one that is too long or has a control character",
                ));
            }
        }
        if integer.is_some_and(|range| range.min > range.max) {
            return Some(("integer", "min is greater than max"));
        }
        if pattern
            .as_ref()
            .is_some_and(|pattern| whole(pattern).is_none())
        {
            return Some(("pattern", "no regular expression, or too large a one"));
        }
        if path.as_ref().is_some_and(|path| {
            path.under.is_empty() || !path.under.iter().all(|root| is_path(root))
        }) {
            return Some((
                "path.under",
                "no folders, or one that is not absolute and normal",
            ));
        }
        None
    }

    /// Every rule that a value breaks.
    fn judge(&self, value: &str) -> Vec<&'static Rule> {
        let fits = match self {
            Self {
                r#enum: Some(values),
                ..
            } => values.iter().any(|one| one == value),
            Self {
                integer: Some(range),
                ..
            } => value
                .parse::<i64>()
                // Only as it is usually written: no sign before a positive one, no zeros.
                .is_ok_and(|number| {
                    (range.min..=range.max).contains(&number) && number.to_string() == value
                }),
            Self {
                pattern: Some(pattern),
                ..
            } => whole(pattern).is_some_and(|whole| whole.is_match(value)),
            Self {
                path: Some(path), ..
            } => is_path(value) && path.under.iter().any(|root| is_under(value, root)),
            _ => false,
        };
        let mut rules = Vec::new();
        if value.len() > VALUE_MAX {
            rules.push(&rule::LENGTH);
        }
        if !fits {
            rules.push(&rule::COMMAND_VALUE);
        }
        rules
    }
}

#[cfg(test)]
mod tests;
