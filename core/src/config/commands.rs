//! `commands`: commands of the Fleet's catalogue, each run once for each revision.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Block;
use crate::catalogue::Program;
use crate::content::Contents;
use crate::guard::{Findings, Policy, rule};
use crate::resource::Resource;

/// Commands of the Fleet's catalogue, run on each node one after the other, once the rest of the NodeConfig
/// is in force there. One that fails holds up those behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "atomic"))]
pub struct Commands(#[schemars(length(max = 16))] pub Vec<CommandRun>);

/// A command that is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandRun {
    /// The command, by its name in the Fleet's spec.commands, for example "vacuum-journal".
    #[schemars(length(min = 1, max = 63))]
    pub run: String,
    /// The values of its parameters, by name, for example {"size": "500"}. All of them have to be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [
        {"rule": "self.all(key, self[key].size() <= 512)", "message": "a value has at most 512 characters"},
    ]))]
    pub with: Option<BTreeMap<String, String>>,
    /// Any word, today's date for example: another one has all commands of the NodeConfig run once more,
    /// as every change of what the NodeConfig says has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub again: Option<String>,
}

impl Commands {
    /// What is run, in this order. For blocks that passed `check` under `policy`.
    pub fn programs(&self, policy: &Policy) -> Vec<Program> {
        let none = BTreeMap::new();
        let program = |run: &CommandRun| {
            let command = policy.command(&run.run)?;
            Some(command.program(run.with.as_ref().unwrap_or(&none)))
        };
        self.0.iter().filter_map(program).collect()
    }

    /// The names of the commands.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|run| &*run.run)
    }
}

impl Block for Commands {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        let none = BTreeMap::new();
        for (index, run) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                if let Some(again) = &run.again {
                    found.one("again", again, |_| Vec::new());
                }
                let command = policy.command(&run.run);
                found.one("run", &run.run, |_| match command {
                    None => vec![&rule::COMMAND],
                    Some(command) if !command.check().is_empty() => vec![&rule::CATALOGUE],
                    Some(_) => Vec::new(),
                });
                if let Some(command) = command {
                    command.judge_values(run.with.as_ref().unwrap_or(&none), found);
                }
            });
        }
    }

    /// They are no part of what a host is to be like.
    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;

    fn policy() -> Policy {
        let commands = json!([
            {"name": "report", "argv": ["/bin/report"]},
            {"name": "say", "argv": ["/bin/say", "$(word)"], "parameters": [{"name": "word", "pattern": "[a-z]+"}]},
            {"name": "broken", "argv": ["broken"]},
        ]);
        Policy {
            commands: serde_json::from_value(commands).unwrap(),
            ..Policy::default()
        }
    }

    fn said(commands: &Value) -> Vec<String> {
        let config = json!({"commands": commands});
        let config: Config = serde_json::from_value(config).unwrap();
        let found = config.check(&policy(), &Contents::default());
        let said = found.iter().map(|v| format!("{} {}", v.field, v.rule));
        said.collect()
    }

    #[test]
    fn what_the_fleet_names_is_run_in_this_order() {
        let commands = json!([
            {"run": "say", "with": {"word": "a"}},
            {"run": "report", "again": "2026-11-22"},
            {"run": "say", "with": {"word": "b"}},
        ]);
        assert_eq!(said(&commands), [""; 0]);
        let commands: Commands = serde_json::from_value(commands).unwrap();
        let programs = commands.programs(&policy());
        let argv: Vec<_> = programs
            .iter()
            .map(|program| program.argv.join(" "))
            .collect();
        assert_eq!(argv, ["/bin/say a", "/bin/report", "/bin/say b"]);
        assert_eq!(
            commands.names().collect::<Vec<_>>(),
            ["say", "report", "say"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (commands, violations) in [
            (json!([{"run": "absent"}]), vec!["commands[0].run command"]),
            (
                json!([{"run": "report"}, {"run": "re port"}]),
                vec!["commands[1].run command", "commands[1].run blank"],
            ),
            (
                json!([{"run": "broken"}]),
                vec!["commands[0].run catalogue"],
            ),
            (
                json!([{"run": "say"}]),
                vec!["commands[0].with command-parameter"],
            ),
            (
                json!([{"run": "say", "with": {"word": "$(id)"}}]),
                vec![
                    "commands[0].with.word command-value",
                    "commands[0].with.word substitution",
                ],
            ),
            (
                json!([{"run": "report", "again": "a;b"}]),
                vec!["commands[0].again shell"],
            ),
        ] {
            assert_eq!(said(&commands), violations, "{commands}");
        }
    }
}
