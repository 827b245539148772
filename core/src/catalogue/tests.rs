use serde_json::{Value, json};

use super::*;

fn command(value: Value) -> Command {
    serde_json::from_value(value).unwrap()
}

fn vacuum() -> Command {
    command(json!({
        "name": "vacuum-journal",
        "argv": ["/usr/bin/journalctl", "--vacuum-size=$(size)M"],
        "parameters": [{"name": "size", "integer": {"min": 10, "max": 500}}],
    }))
}

fn with(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    values.iter().map(owned).collect()
}

fn said(violations: &[Violation]) -> Vec<String> {
    let said = |one: &Violation| format!("{} {} {}", one.field, one.rule, one.excerpt);
    violations.iter().map(said).collect()
}

fn judged(command: &Command, values: &[(&str, &str)]) -> Vec<String> {
    let mut found = Findings::default();
    command.judge_values(&with(values), &mut found);
    let found = found.into_violations();
    let said = found
        .iter()
        .map(|one| format!("{} {}", one.field, one.rule));
    said.collect()
}

#[test]
fn values_stand_where_their_names_stood() {
    for (argument, expected) in [
        ("--vacuum-size=$(size)M", "--vacuum-size=7M"),
        ("$(size)", "7"),
        ("$(size)$(size)", "77"),
        ("$$(size)", "$(size)"),
        ("$$$(size)", "$$(size)"),
        ("a$b", "a$b"),
        ("$HOME", "$HOME"),
        ("%n {{.Names}}", "%n {{.Names}}"),
        ("$", "$"),
        ("", ""),
    ] {
        let command = Command {
            argv: vec!["/bin/x".to_owned(), argument.to_owned()],
            ..vacuum()
        };
        let program = command.program(&with(&[("size", "7")]));
        assert_eq!(program.argv, ["/bin/x", expected], "{argument}");
    }
    assert_eq!(pieces("a$(b"), None);
}

#[test]
fn what_a_value_says_is_not_read_again() {
    let program = vacuum().program(&with(&[("size", "$(size)")]));
    assert_eq!(program.argv[1], "--vacuum-size=$(size)M");
}

#[test]
fn limits_have_defaults() {
    let program = vacuum().program(&with(&[("size", "10")]));
    let Program {
        timeout_seconds,
        memory_mib,
        tasks,
        output_kib,
        ..
    } = program;
    assert_eq!(
        (timeout_seconds, memory_mib, tasks, output_kib),
        (60, 256, 64, 16)
    );
    let limited = command(json!({
        "name": "a", "argv": ["/bin/a"],
        "timeoutSeconds": 5, "memoryMiB": 9, "tasks": 3, "outputKiB": 2,
    }));
    let program = limited.program(&BTreeMap::new());
    assert_eq!(
        (
            program.timeout_seconds,
            program.memory_mib,
            program.tasks,
            program.output_kib
        ),
        (5, 9, 3, 2)
    );
}

#[test]
fn honest_commands_make_sense() {
    let catalogue = [
        vacuum(),
        command(json!({"name": "a", "argv": ["/bin/a"]})),
        command(json!({
            "name": "b1",
            "argv": ["/bin/b", "--", "$(unit)", "$(file)", "$(word)", "$$(x)"],
            "parameters": [
                {"name": "unit", "enum": ["a.service", "b c", ""]},
                {"name": "file", "path": {"under": ["/var/log"]}},
                {"name": "word", "pattern": "[a-z]+|x"},
            ],
            "timeoutSeconds": 3600, "memoryMiB": 8, "tasks": 4096, "outputKiB": 64,
        })),
    ];
    assert_eq!(said(&check(&catalogue)), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_said() {
    let limit = |field: &str, value: u32| json!({"name": "a", "argv": ["/bin/a"], field: value});
    for (value, expected) in [
        (json!({"name": "A", "argv": ["/bin/a"]}), "name catalogue A"),
        (json!({"name": "", "argv": ["/bin/a"]}), "name catalogue "),
        (
            json!({"name": "-a", "argv": ["/bin/a"]}),
            "name catalogue -a",
        ),
        (
            json!({"name": "a-", "argv": ["/bin/a"]}),
            "name catalogue a-",
        ),
        (
            json!({"name": "a", "argv": []}),
            "argv[0] catalogue : not the absolute path of a program",
        ),
        (
            json!({"name": "a", "argv": ["a"]}),
            "argv[0] catalogue a: not the absolute path of a program",
        ),
        (
            json!({"name": "a", "argv": ["/bin/../a"]}),
            "argv[0] catalogue /bin/../a: not the absolute path of a program",
        ),
        (
            json!({"name": "a", "argv": ["/bin/a", "b\n"]}),
            "argv[1] catalogue a control character",
        ),
        (
            json!({"name": "a", "argv": ["/bin/a", "$(b"]}),
            "argv[1] catalogue $(b: a $( without its )",
        ),
        (
            json!({"name": "a", "argv": ["/bin/a", "$(b)"]}),
            "argv[1] catalogue $(b): no such parameter",
        ),
        (
            json!({"name": "a", "argv": ["/bin/$(p)"], "parameters": [{"name": "p", "pattern": "a"}]}),
            "argv[0] catalogue /bin/$(p): not the absolute path of a program",
        ),
        (
            json!({"name": "a", "argv": ["/bin/a"], "parameters": [{"name": "p", "pattern": "a"}]}),
            "parameters[0].name catalogue p: in no argument",
        ),
        (
            limit("timeoutSeconds", 0),
            "timeoutSeconds range 0, not 1 to 3600",
        ),
        (
            limit("timeoutSeconds", 3601),
            "timeoutSeconds range 3601, not 1 to 3600",
        ),
        (limit("memoryMiB", 7), "memoryMiB range 7, not 8 to 65536"),
        (limit("tasks", 4097), "tasks range 4097, not 1 to 4096"),
        (limit("outputKiB", 65), "outputKiB range 65, not 1 to 64"),
    ] {
        first_is(&value, expected);
    }
    let twice = check(&[vacuum(), vacuum()]);
    assert_eq!(said(&twice), ["commands[1].name duplicate vacuum-journal"]);
    let same = command(json!({
        "name": "a", "argv": ["/bin/a", "$(p)"],
        "parameters": [{"name": "p", "pattern": "a"}, {"name": "p", "pattern": "b"}],
    }));
    assert_eq!(
        said(&same.check()),
        ["parameters[1].name catalogue p: there twice"]
    );
}

#[test]
fn parameters_that_make_no_sense_are_said() {
    let parameter = |parameter: Value| {
        let argv = json!(["/bin/a", "$(p)"]);
        json!({"name": "a", "argv": argv, "parameters": [parameter]})
    };
    for (value, expected) in [
        (
            parameter(json!({"name": "P", "pattern": "a"})),
            "argv[1] catalogue $(p): no such parameter",
        ),
        (
            parameter(json!({"name": "p"})),
            "parameters[0].name catalogue not exactly one of enum, integer, pattern and path",
        ),
        (
            parameter(json!({"name": "p", "pattern": "a", "enum": ["a"]})),
            "parameters[0].name catalogue not exactly one of enum, integer, pattern and path",
        ),
        (
            parameter(json!({"name": "p", "enum": []})),
            "parameters[0].enum catalogue no values, or one that is too long or has a control character",
        ),
        (
            parameter(json!({"name": "p", "enum": ["a\n"]})),
            "parameters[0].enum catalogue no values, or one that is too long or has a control character",
        ),
        (
            parameter(json!({"name": "p", "enum": ["x".repeat(513)]})),
            "parameters[0].enum catalogue no values, or one that is too long or has a control character",
        ),
        (
            parameter(json!({"name": "p", "integer": {"min": 2, "max": 1}})),
            "parameters[0].integer catalogue min is greater than max",
        ),
        (
            parameter(json!({"name": "p", "pattern": "a)|(b"})),
            "parameters[0].pattern catalogue no regular expression, or too large a one",
        ),
        (
            parameter(json!({"name": "p", "pattern": "(a{1000}){1000}"})),
            "parameters[0].pattern catalogue no regular expression, or too large a one",
        ),
        (
            parameter(json!({"name": "p", "path": {"under": []}})),
            "parameters[0].path.under catalogue no folders, or one that is not absolute and normal",
        ),
        (
            parameter(json!({"name": "p", "path": {"under": ["/a", "/a/../b"]}})),
            "parameters[0].path.under catalogue no folders, or one that is not absolute and normal",
        ),
    ] {
        first_is(&value, expected);
    }
}

/// What is said first of a command.
fn first_is(value: &Value, expected: &str) {
    let found = said(&command(value.clone()).check());
    assert_eq!(found.first().map(String::as_str), Some(expected), "{value}");
}

#[test]
fn values_are_what_their_parameter_says() {
    let of = |parameter: Value| {
        command(json!({"name": "a", "argv": ["/bin/a", "-x$(p)"], "parameters": [parameter]}))
    };
    let number = of(json!({"name": "p", "integer": {"min": -5, "max": 10}}));
    let word = of(json!({"name": "p", "enum": ["a b", "-c", "$(d)"]}));
    let pattern = of(json!({"name": "p", "pattern": "[a-z]+|x.*"}));
    let path = of(json!({"name": "p", "path": {"under": ["/var/log", "/srv/a"]}}));
    let long = format!("x{}", "y".repeat(512));
    for (command, value, rules) in [
        (&number, "10", &[""; 0][..]),
        (&number, "-5", &[]),
        (&number, "0", &[]),
        (&number, "11", &["command-value"]),
        (&number, "-6", &["command-value"]),
        (&number, "+1", &["command-value"]),
        (&number, "01", &["command-value"]),
        (&number, "-0", &["command-value"]),
        (&number, "1 ", &["command-value"]),
        (&number, "", &["command-value"]),
        (&number, "99999999999999999999", &["command-value"]),
        (&word, "a b", &[]),
        (&word, "-c", &[]),
        (&word, "$(d)", &[]),
        (&word, "a", &["command-value"]),
        (&pattern, "abc", &[]),
        (&pattern, "x1", &[]),
        (&pattern, "abc1", &["command-value"]),
        (&pattern, "1abc", &["command-value"]),
        (&pattern, "abc\n", &["command-value", "control"]),
        (&pattern, "x;y", &["shell"]),
        (&pattern, &long, &["length"]),
        (&pattern, &long[..512], &[]),
        (&path, "/var/log/a", &[]),
        (&path, "/srv/a/b/c", &[]),
        (&path, "/var/log", &["command-value"]),
        (&path, "/var/logs/a", &["command-value"]),
        (&path, "/var/log/../a", &["command-value"]),
        (&path, "var/log/a", &["command-value"]),
        (&path, "/var/log/a b", &["blank"]),
    ] {
        let said = judged(command, &[("p", value)]);
        let expected: Vec<_> = rules.iter().map(|rule| format!("with.p {rule}")).collect();
        assert_eq!(said, expected, "{value}");
    }
}

#[test]
fn no_value_becomes_an_option() {
    let of = |argument: &str| {
        let parameters = json!([{"name": "p", "pattern": ".*"}]);
        command(json!({"name": "a", "argv": ["/bin/a", argument], "parameters": parameters}))
    };
    assert_eq!(
        judged(&of("$(p)"), &[("p", "--force")]),
        ["with.p command-option"]
    );
    assert_eq!(judged(&of("$(p)"), &[("p", "force-")]), [""; 0]);
    assert_eq!(judged(&of("--name=$(p)"), &[("p", "-a")]), [""; 0]);
    assert_eq!(judged(&of("-$(p)"), &[("p", "x")]), [""; 0]);
    assert_eq!(
        judged(&of("-$(p)"), &[("p", "-x")]),
        ["with.p command-option"]
    );
    // Nor do two together.
    let two = command(
        json!({"name": "a", "argv": ["/bin/a", "$(p)$(q)"], "parameters": [
            {"name": "p", "pattern": "[a-z-]*"}, {"name": "q", "pattern": "[a-z-]*"},
        ]}),
    );
    assert_eq!(
        judged(&two, &[("p", ""), ("q", "-x")]),
        ["with.q command-option"]
    );
    assert_eq!(judged(&two, &[("p", "a"), ("q", "-x")]), [""; 0]);
    assert_eq!(
        judged(&two, &[("p", "-"), ("q", "-x")]),
        ["with.p command-option", "with.q command-option"]
    );
}

#[test]
fn every_parameter_is_given_and_no_other() {
    assert_eq!(judged(&vacuum(), &[("size", "10")]), [""; 0]);
    assert_eq!(judged(&vacuum(), &[]), ["with command-parameter"]);
    assert_eq!(
        judged(&vacuum(), &[("size", "10"), ("time", "1")]),
        ["with command-parameter"]
    );
}
