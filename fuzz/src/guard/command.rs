//! What commands become: arguments, each as it was meant.

use edict_core::catalogue::{Command, Parameter, Program, Range, Under};
use edict_core::config::Config;
use edict_core::guard::Policy;

use super::is_visible;

/// A command with a parameter of each type.
pub fn catalogue() -> Vec<Command> {
    let text = |text: &&str| (*text).to_owned();
    let parameter = |name: &str| Parameter {
        name: name.to_owned(),
        ..Parameter::default()
    };
    let parameters = vec![
        Parameter {
            integer: Some(Range { min: -9, max: 99 }),
            ..parameter("number")
        },
        Parameter {
            r#enum: Some(["one", "two words"].iter().map(text).collect()),
            ..parameter("word")
        },
        Parameter {
            pattern: Some("(?s).*".to_owned()),
            ..parameter("any")
        },
        Parameter {
            path: Some(Under {
                under: vec!["/var/log".to_owned()],
            }),
            ..parameter("file")
        },
    ];
    let argv = [
        "/bin/x",
        "-n$(number)",
        "$(word)",
        "$(any)",
        "--file=$(file)",
        "$$(any)",
    ];
    let one = Command {
        name: "one".to_owned(),
        argv: argv.iter().map(text).collect(),
        parameters: Some(parameters),
        ..Command::default()
    };
    vec![one]
}

/// Each has as many arguments as the catalogue has for it, none of which became an option or is more than
/// one line. Of other catalogues only that holds.
pub fn are_those_asked_for(config: &Config, policy: &Policy) {
    let runs = config.commands.iter().flat_map(|commands| &commands.0);
    let programs = config.programs(policy);
    assert_eq!(programs.len(), runs.clone().count());
    for (run, program) in runs.zip(programs) {
        let Program { name, argv, .. } = program;
        let command = policy.command(&name).expect("it is in the catalogue");
        assert_eq!(argv.len(), command.argv.len());
        assert_eq!(argv[0], command.argv[0]);
        let value = |name: &str| run.with.as_ref().and_then(|with| with.get(name));
        if policy.commands == catalogue() {
            let any = value("any").expect("every parameter is given");
            assert_eq!(
                (argv[3].as_str(), argv[5].as_str()),
                (any.as_str(), "$(any)")
            );
            assert!(
                !any.starts_with('-') && any.chars().all(is_visible),
                "{any:?}"
            );
            assert!(argv[4].starts_with("--file=/var/log/"), "{argv:?}");
        }
    }
}
