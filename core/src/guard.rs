//! The guard: nothing hostile gets through. Pure functions, called by the operator before a push
//! and by the agent before a write, so that neither has to trust the other.
//!
//! Values are judged by their type ([`value`], [`path`]), and what is not a file's own content by a
//! set of injection patterns as well ([`text`]), each rule by itself: every violation is answered
//! at once. [`rule`] has all rules in one place.
//! Time is linear in the input and no input panics.

pub mod path;
pub mod rule;
pub mod text;
pub mod value;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalogue::Command;
pub use rule::Rule;

/// Where NodeConfigs may write files, and may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Paths {
    /// Paths under /etc where files may be written besides those allowed from the start. A folder
    /// stands for everything in it. A place whose files are programs for root (systemd units, cron
    /// jobs and the like) is allowed only by its own name or that of something in it, never by a
    /// folder above it. Some paths, /etc/shadow or /etc/kubernetes for example, can't be allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed: Vec<String>,
    /// Paths under /etc where no NodeConfig may write, also where they are allowed otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub protected: Vec<String>,
}

/// What the cluster's administrator allows and refuses beyond the built-in tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Paths where files may be written besides [`path::ALLOWED`]; a folder stands for everything in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Paths where nothing may be written, also where it is allowed otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<String>,
    /// The commands that may be run. An agent that does not know the block `commands` is told of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Command>,
}

impl Policy {
    /// What a Fleet says.
    pub fn new(paths: Paths, commands: Vec<Command>) -> Self {
        let Paths { allowed, protected } = paths;
        Self {
            allowed,
            protected,
            commands,
        }
    }

    /// The command of this name.
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// As much of it as matters for those that run these commands.
    #[must_use]
    pub fn with_commands_of(&self, names: &[&str]) -> Self {
        let named = |command: &&Command| names.contains(&&*command.name);
        Self {
            allowed: self.allowed.clone(),
            protected: self.protected.clone(),
            commands: self.commands.iter().filter(named).cloned().collect(),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The field, `docker.registryMirrors[1]` for instance.
    pub field: String,
    /// The stable name of the rule that refuses it.
    pub rule: String,
    /// What was found there: short, credentials masked, control characters visible.
    pub excerpt: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            rule,
            excerpt,
            advice,
        } = self;
        write!(
            f,
            "{field}: \"{excerpt}\" is refused by rule {rule}: {advice}"
        )
    }
}

/// Violations as they are found, with the field that is being looked at.
#[derive(Debug, Default)]
pub struct Findings {
    at: String,
    violations: Vec<Violation>,
}

impl Findings {
    /// Looks at the part `name` of the current field: a name, or `[index]`.
    pub(crate) fn within(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let outer = self.at.len();
        if !self.at.is_empty() && !name.is_empty() && !name.starts_with('[') {
            self.at.push('.');
        }
        self.at.push_str(name);
        look(self);
        self.at.truncate(outer);
    }

    /// Says that the part `name` breaks `rule`.
    pub(crate) fn add(&mut self, name: &str, rule: &Rule, found: &str) {
        self.within(name, |this| {
            this.violations.push(Violation {
                field: this.at.clone(),
                rule: rule.name.to_owned(),
                excerpt: text::excerpt(found),
                advice: rule.advice.to_owned(),
            });
        });
    }

    /// Says that content from elsewhere breaks `rules`. Of such content no byte is shown.
    pub(crate) fn hidden(&mut self, name: &str, rules: Vec<&Rule>, content: &[u8]) {
        for rule in rules {
            self.add(name, rule, &format!("{} bytes", content.len()));
        }
    }

    /// Judges the value of the part `name` by its type and by the patterns for free text.
    pub(crate) fn one(
        &mut self,
        name: &str,
        value: &str,
        judge: impl Fn(&str) -> Vec<&'static Rule>,
    ) {
        let mut rules = judge(value);
        // Some types are judged by the patterns already.
        let patterns: Vec<_> = text::check(value)
            .filter(|one| !rules.contains(one))
            .collect();
        rules.extend(patterns);
        for rule in rules {
            self.add(name, rule, value);
        }
    }

    /// Judges every entry of a list.
    pub(crate) fn each(
        &mut self,
        name: &str,
        list: Option<&Vec<String>>,
        judge: impl Fn(&str) -> Vec<&'static Rule>,
    ) {
        self.within(name, |this| {
            for (index, value) in list.into_iter().flatten().enumerate() {
                this.one(&format!("[{index}]"), value, &judge);
            }
        });
    }

    /// Judges a place that a block writes to by itself.
    pub(crate) fn place(&mut self, name: &str, path: &str, policy: &Policy) {
        for rule in path::off_limits(path, &policy.protected) {
            self.add(name, rule, path);
        }
    }

    /// Judges a number that is given.
    pub(crate) fn number(
        &mut self,
        name: &str,
        number: Option<u32>,
        range: std::ops::RangeInclusive<u32>,
    ) {
        if let Some(number) = number.filter(|number| !range.contains(number)) {
            let (low, high) = range.into_inner();
            let excerpt = format!("{number}, not {low} to {high}");
            self.add(name, &rule::RANGE, &excerpt);
        }
    }

    pub(crate) fn into_violations(self) -> Vec<Violation> {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_as_a_sentence() {
        let mut found = Findings::default();
        found.within("docker", |found| {
            found.each(
                "registryMirrors",
                Some(&vec!["ftp://x".into()]),
                value::mirror,
            );
        });
        assert_eq!(
            found.into_violations()[0].to_string(),
            "docker.registryMirrors[0]: \"ftp://x\" is refused by rule url-scheme: \
             use a URL that begins with http:// or https://"
        );
    }

    #[test]
    fn every_value_meets_the_patterns() {
        let mut found = Findings::default();
        found.one("a", "$(id)", |_| Vec::new());
        found.one("b", "plain", |_| Vec::new());
        let violations = found.into_violations();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].rule, "substitution");
    }
}
