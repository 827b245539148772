//! Commands: each run once for each revision, whatever becomes of the agent meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use edict_core::layer::Layer;
use edict_core::wire::{CommandOutcome, CommandReport, Outcome};
use serde_json::{Value, json};

use crate::node::{NOBODY, Node, Say as _, layer};
use crate::programs::Programs;
use crate::services::Services;

/// A node where programs can be run, and a catalogue of some.
fn node() -> (Node, Programs) {
    let services = Services::default();
    let mut node = Node::prepared();
    node.policy.commands = serde_json::from_value(json!([
        {"name": "say", "argv": ["/bin/say", "$(word)"], "parameters": [{"name": "word", "pattern": "[a-z]+"}]},
        {"name": "ok", "argv": ["/bin/ok"]},
        {"name": "fails", "argv": ["/bin/fails"]},
        {"name": "slow", "argv": ["/bin/slow"], "timeoutSeconds": 5},
        {"name": "large", "argv": ["/bin/large"], "memoryMiB": 9},
        {"name": "absent", "argv": ["/bin/absent"]},
        {"name": "killed", "argv": ["/bin/killed"]},
        {"name": "crashed", "argv": ["/bin/crashed"]},
        {"name": "lost", "argv": ["/bin/lost"]},
        {"name": "refused", "argv": ["/bin/refused"]},
    ]))
    .unwrap();
    let programs = services.1.clone();
    node.serve(&services);
    (node, programs)
}

fn run(name: &str, commands: Value) -> Layer {
    layer(name).block("commands", commands)
}

/// Pushes these layers and runs what they run.
fn push(node: &Node, layers: &[&Layer]) -> Vec<CommandReport> {
    node.push(layers);
    node.agent().run_commands();
    node.agent().hello().commands
}

fn outcomes(reports: &[CommandReport]) -> Vec<(&str, CommandOutcome)> {
    reports.iter().map(|one| (&*one.run, one.outcome)).collect()
}

#[test]
fn a_command_is_run_once_and_its_result_is_kept() {
    let (mut node, programs) = node();
    let a = run(
        "a",
        json!([{"run": "say", "with": {"word": "x"}}, {"run": "ok"}]),
    );
    let reports = push(&node, &[&a]);
    assert_eq!(programs.started(), ["/bin/say x", "/bin/ok"]);
    let CommandReport {
        uid,
        owner,
        digest,
        index,
        exit_code,
        started,
        milliseconds,
        output,
        message,
        ..
    } = reports[0].clone();
    assert_eq!(
        (uid, owner, digest),
        (a.uid.clone(), a.name.clone(), a.digest.clone())
    );
    assert_eq!((index, exit_code, milliseconds), (0, Some(0), Some(7)));
    assert!(started.is_some());
    // Credentials are masked.
    assert_eq!(output, "/bin/say x https://***@host\n");
    assert_eq!(message, "");
    assert_eq!(
        outcomes(&reports),
        [
            ("say", CommandOutcome::Succeeded),
            ("ok", CommandOutcome::Succeeded)
        ]
    );
    assert_eq!(programs.there(), [""; 0]);
    // Neither the same push nor another agent runs it again, nor the revision coming back.
    push(&node, &[&a]);
    node.restart();
    assert_eq!(push(&node, &[&a]), reports);
    let b = run("a", json!([{"run": "ok"}]));
    push(&node, &[&b]);
    assert_eq!(programs.started(), ["/bin/ok"]);
    push(&node, &[&a]);
    assert_eq!(programs.started(), [""; 0]);
    // What only says how does not make another revision.
    push(&node, &[&a.clone().priority(7).retry("now")]);
    assert_eq!(programs.started(), [""; 0]);
    let again = run("a", json!([{"run": "ok", "again": "today"}]));
    push(&node, &[&again]);
    assert_eq!(programs.started(), ["/bin/ok"]);
}

#[test]
fn whoever_waits_hears_of_it() {
    let (node, _) = node();
    let mut count = node.agent().drifts();
    count.mark_unchanged();
    push(&node, &[&run("a", json!([{"run": "ok"}]))]);
    assert!(count.has_changed().unwrap());
    let said = node.agent().hello().drifts.unwrap();
    assert_eq!(said.count, *count.borrow());
}

#[test]
fn how_it_ended_is_said() {
    for (name, outcome, code, message) in [
        (
            "fails",
            CommandOutcome::Failed,
            Some(3),
            "it ended with exit code 3",
        ),
        (
            "slow",
            CommandOutcome::TimedOut,
            None,
            "it took longer than the 5 s that it may, and was ended",
        ),
        (
            "large",
            CommandOutcome::Failed,
            None,
            "it needed more memory than it may have (9 MiB), or than the node had, and was ended",
        ),
        (
            "absent",
            CommandOutcome::Failed,
            Some(203),
            "systemd can't execute /bin/absent: is it on this node, and a program?",
        ),
        (
            "killed",
            CommandOutcome::Failed,
            None,
            "it was killed, as the kernel does with what needs more memory than it may have: 256 MiB",
        ),
        (
            "crashed",
            CommandOutcome::Failed,
            None,
            "it was ended by signal 11",
        ),
        (
            "lost",
            CommandOutcome::Failed,
            None,
            "it did not end by itself: systemd says resources",
        ),
        (
            "refused",
            CommandOutcome::Failed,
            None,
            "systemd refuses to start refused: no",
        ),
    ] {
        let (node, programs) = node();
        let a = run("a", json!([{"run": name}, {"run": "ok"}]));
        let reports = push(&node, &[&a, &run("b", json!([{"run": "ok"}]))]);
        let said = (
            reports[0].outcome,
            reports[0].exit_code,
            &*reports[0].message,
        );
        assert_eq!(said, (outcome, code, message));
        // What is behind it is held up, others are not.
        assert_eq!(reports[1].outcome, CommandOutcome::Skipped);
        assert_eq!(reports[2].outcome, CommandOutcome::Succeeded);
        assert_eq!(programs.there(), [""; 0]);
        programs.started();
        push(&node, &[&a]);
        assert_eq!(programs.started(), [""; 0]);
    }
}

#[test]
fn what_is_not_in_force_runs_nothing() {
    let (node, programs) = node();
    let bad = run("a", json!([{"run": "ok"}])).file("/etc/docker", "a folder");
    let report = node.push(&[&bad]);
    assert_ne!(report.layers[0].outcome, Outcome::Applied);
    node.agent().run_commands();
    assert_eq!(programs.started(), [""; 0]);
    assert_eq!(node.agent().hello().commands, []);
    // Nor does what the guard refuses.
    for commands in [
        json!([{"run": "nothing"}]),
        json!([{"run": "ok"}, {"run": "say"}]),
        json!([{"run": "say", "with": {"word": "$(id)"}}]),
    ] {
        let report = node.push(&[&run("b", commands)]);
        assert_eq!(report.layers[0].outcome, Outcome::Refused);
        node.agent().run_commands();
        assert_eq!(programs.started(), [""; 0]);
    }
    // What was not begun when another revision came is not run any more.
    node.push(&[&run("c", json!([{"run": "ok"}]))]);
    node.push(&[&run("c", json!([{"run": "say", "with": {"word": "x"}}]))]);
    node.agent().run_commands();
    assert_eq!(programs.started(), ["/bin/say x"]);
}

/// The agent dies when it starts a command, and another one comes.
fn dies(node: &mut Node, programs: &Programs, after: bool, a: &Layer) {
    programs.dies(after);
    node.push(&[a]);
    let died = catch_unwind(AssertUnwindSafe(|| node.agent().run_commands()));
    assert!(died.is_err());
    node.restart();
}

#[test]
fn an_agent_that_dies_finds_the_result() {
    let (mut node, programs) = node();
    let a = run(
        "a",
        json!([{"run": "ok"}, {"run": "say", "with": {"word": "x"}}]),
    );
    dies(&mut node, &programs, true, &a);
    let waits = node.agent().hello().commands;
    assert_eq!(
        outcomes(&waits),
        [
            ("ok", CommandOutcome::Running),
            ("say", CommandOutcome::Waiting)
        ]
    );
    let reports = push(&node, &[&a]);
    assert_eq!(
        outcomes(&reports),
        [
            ("ok", CommandOutcome::Succeeded),
            ("say", CommandOutcome::Succeeded)
        ]
    );
    assert_eq!(programs.started(), ["/bin/ok", "/bin/say x"]);
}

#[test]
fn what_may_have_been_started_is_not_started_again() {
    for (after, reboots) in [(false, false), (false, true), (true, true)] {
        let (mut node, programs) = node();
        let a = run("a", json!([{"run": "ok"}, {"run": "ok"}]));
        dies(&mut node, &programs, after, &a);
        if reboots {
            programs.reboot();
        }
        programs.started();
        let reports = push(&node, &[&a]);
        assert_eq!(programs.started(), [""; 0]);
        assert_eq!(
            outcomes(&reports),
            [
                ("ok", CommandOutcome::Interrupted),
                ("ok", CommandOutcome::Skipped)
            ]
        );
        let message = &reports[0].message;
        let expected = if reboots {
            "the node started anew"
        } else {
            "systemd knows nothing of it"
        };
        assert!(message.contains(expected), "{message}");
    }
    // Somebody else has stopped it.
    let (mut node, programs) = node();
    let a = run("a", json!([{"run": "ok"}]));
    dies(&mut node, &programs, true, &a);
    programs.clear();
    let reports = push(&node, &[&a]);
    assert_eq!(reports[0].outcome, CommandOutcome::Interrupted);
}

#[test]
fn a_systemd_that_does_not_answer_is_asked_again() {
    let (node, programs) = node();
    node.push(&[&run("a", json!([{"run": "ok"}]))]);
    programs.silent(2);
    node.agent().run_commands();
    let reports = node.agent().hello().commands;
    assert_eq!(reports[0].outcome, CommandOutcome::Succeeded);
}

#[test]
fn where_nothing_can_be_run_it_waits() {
    let (mut node, programs) = node();
    let a = run("a", json!([{"run": "ok"}]));
    let services = node.services.take();
    node.restart();
    let reports = push(&node, &[&a]);
    assert_eq!(reports[0].outcome, CommandOutcome::Waiting);
    assert_eq!(reports[0].message, format!("it can't be run: {NOBODY}"));
    // Nor does the root of an image run anything.
    node.offline = true;
    node.restart();
    assert_eq!(push(&node, &[&a])[0].outcome, CommandOutcome::Waiting);
    (node.offline, node.services) = (false, services);
    node.restart();
    push(&node, &[&a]);
    assert_eq!(programs.started(), ["/bin/ok"]);
}

#[test]
fn what_waits_is_run_as_the_last_push_says() {
    let (mut node, programs) = node();
    let (a, b) = (
        run("a", json!([{"run": "ok"}])),
        run("b", json!([{"run": "ok"}])),
    );
    node.push(&[&a, &b]);
    // An agent that was told nothing yet starts nothing.
    node.restart();
    node.agent().run_commands();
    assert_eq!(programs.started(), [""; 0]);
    // Somebody has mended the catalogue meanwhile, and b is no more to be had.
    node.policy.commands[1].argv.push("mended".to_owned());
    node.push(&[&a]);
    node.agent().run_commands();
    assert_eq!(programs.started(), ["/bin/ok mended"]);
    node.policy.commands.remove(1);
    assert_eq!(node.push(&[&b]).layers[0].outcome, Outcome::Refused);
    node.agent().run_commands();
    assert_eq!(programs.started(), [""; 0]);
}

/// Waits until a thread of the agent's own has come so far.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_serving_agent_runs_what_comes() {
    let (node, programs) = node();
    node.agent().start_running().unwrap();
    let outcome = |node: &Node, index: usize| node.agent().hello().commands[index].outcome;
    let a = run("a", json!([{"run": "ok"}]));
    node.push(&[&a]);
    until("a command to be run", || {
        outcome(&node, 0) == CommandOutcome::Succeeded
    });
    // What can't be written down is not started, and is once that is mended.
    let file = node.at("state/commands.json");
    std::fs::rename(&file, node.at("state/aside")).unwrap();
    std::fs::create_dir(&file).unwrap();
    let b = run("b", json!([{"run": "say", "with": {"word": "x"}}]));
    node.push(&[&a, &b]);
    node.agent().run_commands();
    assert_eq!(programs.started(), ["/bin/ok"]);
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(node.at("state/aside"), &file).unwrap();
    node.push(&[&a, &b]);
    until("the other one to be run", || {
        outcome(&node, 1) == CommandOutcome::Succeeded
    });
    assert_eq!(programs.started(), ["/bin/say x"]);
}

#[test]
fn a_serving_agent_asks_for_a_push_where_something_waits_for_one() {
    let (mut node, programs) = node();
    let a = run("a", json!([{"run": "ok"}]));
    node.push(&[&a]);
    node.restart();
    // Who only looks finds the report.
    assert!(node.agent().hello().report.is_some());
    node.agent().start_running().unwrap();
    assert_eq!(node.agent().hello().report, None);
    node.push(&[&a]);
    until("the command to be run", || {
        node.agent().hello().commands[0].outcome == CommandOutcome::Succeeded
    });
    assert!(node.agent().hello().report.is_some());
    assert_eq!(programs.started(), ["/bin/ok"]);
}

#[test]
fn a_plan_says_what_would_be_run() {
    let (node, programs) = node();
    let a = run("a", json!([{"run": "say", "with": {"word": "x"}}]));
    let plan = |layers: &[&Layer]| {
        let layers = layers.iter().map(|layer| (*layer).clone()).collect();
        let push = edict_core::wire::Push::new(
            crate::node::NAME.into(),
            node.policy.clone(),
            layers,
            Vec::new(),
        );
        let dry = node.agent().dry(&push).unwrap().unwrap();
        let commands = dry.public().commands.into_iter();
        commands
            .map(|one| format!("{}: {one}", one.owner))
            .collect::<Vec<_>>()
    };
    assert_eq!(plan(&[&a]), ["a: say: /bin/say x"]);
    let bad = run("b", json!([{"run": "ok"}])).file("/etc/docker", "a folder");
    assert_eq!(plan(&[&bad]), [""; 0]);
    node.agent().run_commands();
    assert_eq!(programs.started(), [""; 0]);
    push(&node, &[&a]);
    assert_eq!(plan(&[&a]), [""; 0]);
}
