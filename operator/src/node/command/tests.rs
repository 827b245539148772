use edict_core::guard::Policy;
use edict_core::layer::Layer;
use serde_json::{Value, json};

use super::*;

fn hello(commands: &Value) -> Hello {
    serde_json::from_value(json!({
        "wire": 4, "node": "n", "version": "0.1.0", "blocks": [], "layers": [], "commands": commands,
    }))
    .unwrap()
}

fn ran(uid: &str, digest: &str, index: u32, outcome: &str) -> Value {
    let message = match outcome {
        "Failed" => "it ended with exit code 3",
        _ => "",
    };
    json!({
        "uid": uid, "owner": format!("name-{uid}"), "digest": digest, "index": index, "run": format!("run-{index}"),
        "outcome": outcome, "message": message,
    })
}

fn push(commands: usize) -> Push {
    let layer = |uid: &str, commands: usize| {
        let runs = vec![json!({"run": "x"}); commands];
        let layer = json!({
            "uid": uid, "name": uid, "priority": 0, "created": "2026-01-01T00:00:00Z", "digest": "d",
            "config": {"commands": runs},
        });
        serde_json::from_value::<Layer>(layer).unwrap()
    };
    let layers = vec![layer("a", commands), layer("b", 0)];
    Push::new("n".to_owned(), Policy::default(), layers, Vec::new())
}

fn layer_status(outcome: OutcomeStatus, in_force: &str) -> LayerStatus {
    serde_json::from_value(json!({
        "uid": "a", "name": "name-a", "digest": "d", "inForce": in_force, "outcome": outcome,
        "message": "said",
    }))
    .unwrap()
}

fn judged(outcome: OutcomeStatus, in_force: &str, commands: &Value) -> (OutcomeStatus, String) {
    let mut status = NodeStateStatus {
        layers: vec![layer_status(outcome, in_force)],
        ..NodeStateStatus::default()
    };
    add(&mut status, &expected(&push(2)), &hello(commands));
    let layer = status.layers.remove(0);
    (layer.outcome, layer.message)
}

#[test]
fn a_layer_is_there_when_its_commands_have_ended_well() {
    use OutcomeStatus::{Applied, CommandFailed, Failed, PendingRestart, Running, Unread};
    let of = |first: &str, second: &str| json!([ran("a", "d", 0, first), ran("a", "d", 1, second)]);
    for (outcome, commands, expected, message) in [
        (Applied, of("Succeeded", "Succeeded"), Applied, "said"),
        (
            Applied,
            of("Succeeded", "Running"),
            Running,
            "command run-1 has yet to end; said",
        ),
        (
            Applied,
            of("Succeeded", "Waiting"),
            Running,
            "command run-1 has yet to end; said",
        ),
        // One that says nothing of all of them has yet to write them down.
        (Applied, json!([]), Running, "command has yet to end; said"),
        (
            Applied,
            json!([ran("a", "d", 0, "Succeeded")]),
            Running,
            "command has yet to end; said",
        ),
        (
            Applied,
            json!([ran("a", "e", 0, "Failed"), ran("b", "d", 0, "Failed")]),
            Running,
            "command has yet to end; said",
        ),
        (
            Applied,
            of("Failed", "Skipped"),
            CommandFailed,
            "command run-0: it ended with exit code 3; said",
        ),
        (
            Unread,
            of("Succeeded", "TimedOut"),
            CommandFailed,
            "command run-1: TimedOut; said",
        ),
        (
            PendingRestart,
            of("Succeeded", "Running"),
            PendingRestart,
            "command run-1 has yet to end; said",
        ),
        (Failed, of("Failed", "Skipped"), Failed, "said"),
    ] {
        assert_eq!(
            judged(outcome, "d", &commands),
            (expected, message.to_owned()),
            "{commands}"
        );
    }
    let other = judged(Applied, "e", &of("Failed", "Skipped"));
    assert_eq!(other, (Applied, "said".to_owned()));
}

#[test]
fn an_agent_that_knows_of_no_commands_is_told_again() {
    let report = |in_force: &str| -> Report {
        serde_json::from_value(
            json!({"digest": "p", "releases": [], "resources": [], "layers": [{
                "uid": "a", "name": "a", "digest": "d", "inForce": in_force, "outcome": "Applied",
            }]}),
        )
        .unwrap()
    };
    let known = |count: usize, commands: &Value, in_force: &str| {
        are_known(&expected(&push(count)), &report(in_force), &hello(commands))
    };
    let one = json!([ran("a", "d", 0, "Running")]);
    assert!(known(0, &json!([]), "d"));
    assert!(known(1, &one, "d"));
    assert!(!known(2, &one, "d"));
    assert!(!known(1, &json!([ran("a", "e", 0, "Running")]), "d"));
    // What is not in force runs nothing yet.
    assert!(known(2, &one, "e"));
}

#[test]
fn what_is_shown_is_bounded_and_masked() {
    let mut command = ran("a", "d", 0, "Failed");
    command["output"] = json!("https://user:word@host ".repeat(10_000));
    command["message"] = json!("https://user:word@host ".repeat(100));
    command["exitCode"] = json!(3);
    command["milliseconds"] = json!(7);
    command["started"] = json!("2026-01-01T00:00:01.123456789Z");
    let mut status = NodeStateStatus::default();
    let many = vec![command; 200];
    add(&mut status, &[], &hello(&json!(many)));
    assert_eq!(status.commands.len(), COMMANDS_MAX);
    let all: usize = status.commands.iter().map(|one| one.output.len()).sum();
    assert!(all < OUTPUTS_MAX + COMMANDS_MAX * 50, "{all}");
    let first = &status.commands[0];
    assert!(!first.output.contains("word") && !first.message.contains("word"));
    assert_eq!((first.exit_code, first.milliseconds), (Some(3), Some(7)));
    assert_eq!(first.owner, "name-a");
    // What is read back is the same.
    let read: CommandStatus = serde_json::from_value(json!(first)).unwrap();
    assert_eq!(read, *first);
    assert_eq!(first.message.chars().count(), MESSAGE_MAX + 1);
}

#[test]
fn an_end_is_news_once() {
    let shown = |commands: &[Value]| {
        let mut status = NodeStateStatus::default();
        add(&mut status, &[], &hello(&json!(commands)));
        status.commands
    };
    let before = shown(&[ran("a", "d", 0, "Running"), ran("a", "d", 1, "Waiting")]);
    let after = shown(&[ran("a", "d", 0, "Failed"), ran("a", "d", 1, "Skipped")]);
    let said: Vec<_> = news(&before, &after).collect();
    let failed = "command run-0 of NodeConfig name-a: Failed: it ended with exit code 3";
    assert_eq!(said, [(true, failed.to_owned())]);
    assert_eq!(news(&after, &after).count(), 0);
    assert_eq!(news(&[], &before).count(), 0);
    // One that was not known to run, and one of a revision that came back.
    let at = |second: u32| json!(format!("2026-01-01T00:00:{second:02}Z"));
    let mut first = ran("a", "d", 0, "Succeeded");
    first["started"] = at(1);
    let mut second = ran("a", "e", 0, "Succeeded");
    second["started"] = at(2);
    let (first, second) = (shown(&[first]), shown(&[second]));
    assert_eq!(news(&first, &second).count(), 1);
    assert_eq!(news(&second, &first).count(), 0);
    assert_eq!(news(&[], &first).count(), 1);
    let mut well = ran("a", "e", 0, "Succeeded");
    well["started"] = at(1);
    let well = shown(&[well]);
    let said: Vec<_> = news(&after, &well).collect();
    let succeeded = "command run-0 of NodeConfig name-a: Succeeded";
    assert_eq!(said, [(false, succeeded.to_owned())]);
}
