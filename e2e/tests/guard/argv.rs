//! What a command is run with: each value is one argument or a piece of one, as it was written, whatever is
//! in it.

use edict_core::catalogue::Program;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::broken::sees;
use crate::strategy::{cases, text};
use crate::subject::{policy, subject};

type Verdict = Result<(), TestCaseError>;

const TYPES: &[&str] = &["integer", "enum", "pattern", "path", "any"];

fn value() -> impl Strategy<Value = (&'static str, String)> {
    let texts = text(&[
        "command-integer",
        "command-enum",
        "command-pattern",
        "command-path",
        "command-any",
    ]);
    let plain = "[a-z0-9-]{0,5}|/var/log/[a-z]{1,5}|[0-9]{1,4}";
    (select(TYPES), prop_oneof![texts.boxed(), plain.boxed()])
}

/// Whatever is let through is where it belongs, and nowhere else.
fn holds(run: impl Fn(Program, &str) -> Program, of: &str, value: &str) -> Verdict {
    let subject = subject(&format!("command-{of}"), &json!(value));
    if !subject.is_let_through() {
        return Ok(());
    }
    let programs = subject.config.programs(&policy());
    prop_assert_eq!(programs.len(), 1);
    let program = programs
        .into_iter()
        .next()
        .map(|program| run(program, value));
    let argv = program.map(|program| program.argv).unwrap_or_default();
    let expected = ["/usr/bin/x", &format!("-a{value}"), value, "b"].map(ToOwned::to_owned);
    prop_assert_eq!(&argv[..], &expected[..]);
    // Words that the administrator wrote may be options.
    prop_assert!(of == "enum" || !value.starts_with('-'), "{value:?}");
    prop_assert!(!value.chars().any(char::is_control), "{value:?}");
    Ok(())
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn a_value_is_one_argument((of, value) in value()) {
        holds(|program, _| program, of, &value)?;
    }
}

#[test]
fn a_broken_way_to_make_arguments_is_seen() {
    type Run = fn(Program, &str) -> Program;
    fn argv(program: Program, change: impl Fn(Vec<String>) -> Vec<String>) -> Program {
        Program {
            argv: change(program.argv),
            ..program
        }
    }
    let ways: &[(&str, Run)] = &[
        ("split at blanks", |program, _| {
            argv(program, |all| {
                let words = all.iter().flat_map(|one| one.split(' '));
                words.map(ToOwned::to_owned).collect()
            })
        }),
        ("empty ones are lost", |program, _| {
            argv(program, |mut all| {
                all.retain(|one| !one.is_empty());
                all
            })
        }),
        ("a value is trimmed", |program, value| {
            let trimmed = value.trim_start_matches('/').to_owned();
            argv(program, |mut all| {
                all[2].clone_from(&trimmed);
                all
            })
        }),
        ("only the first place is filled", |program, _| {
            argv(program, |mut all| {
                "$(p)".clone_into(&mut all[2]);
                all
            })
        }),
    ];
    let seen = |run: Run| sees(&value(), |(of, value)| holds(run, of, &value));
    assert!(
        !seen(|program, _| program),
        "the real one is seen as broken"
    );
    let missed: Vec<_> = ways
        .iter()
        .filter(|(_, run)| !seen(*run))
        .map(|(name, _)| name)
        .collect();
    assert!(missed.is_empty(), "not seen: {missed:?}");
}
