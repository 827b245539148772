//! A change is live, or is put back: units are told no more than they need, and watched.

use std::panic::{AssertUnwindSafe, catch_unwind};

use edict_agent::units::{Active, Manager};
use edict_core::config::NotifyAction::{Reload, Restart};
use edict_core::layer::{Layer, Restarts};
use edict_core::wire::{self, LayerReport, Outcome};

use crate::node::{DOCKER, Node, Say as _, layer};
use crate::services::{BROKEN, Services};

const UNIT: &str = "app.service";
const OTHER: &str = "other.service";
const CONF: &str = "/etc/edict/app.conf";

struct Live {
    node: Node,
    services: Services,
}

impl Live {
    /// A node on which [`UNIT`] and [`OTHER`] read [`CONF`], and Docker its own file.
    fn new() -> Self {
        let mut node = Node::prepared();
        let services = Services::default()
            .with(UNIT, &[node.at(CONF)])
            .with(OTHER, &[node.at(CONF)])
            .with("docker.service", &[node.at(DOCKER)]);
        node.serve(&services);
        Self { node, services }
    }

    fn push(&self, layer: &Layer) -> LayerReport {
        self.node.push(&[layer]).layers.remove(0)
    }

    fn told(&self) -> Vec<String> {
        self.services.told()
    }

    /// The agent dies over it, and another one comes.
    fn dies(&mut self, unit: &str, after: bool, work: impl FnOnce(&Node)) {
        self.services.dies(unit, after);
        self.ends(work);
        self.node.restart();
    }

    /// The agent does not live to see the end of it.
    fn ends(&self, work: impl FnOnce(&Node)) {
        let died = catch_unwind(AssertUnwindSafe(|| work(&self.node)));
        assert!(died.is_err());
    }

    /// What the unit runs with is what is on disk.
    fn current(&self, unit: &str) -> bool {
        self.services.service(unit).is_current()
    }
}

fn conf(content: &str) -> Layer {
    layer("a").file(CONF, content).notify(UNIT, Restart)
}

#[test]
fn docker_is_reloaded_when_its_keys_change_and_only_then() {
    let live = Live::new();
    let report = live.push(&layer("a").mirrors(&["https://m"]).file("/etc/motd", "1"));
    assert_eq!((report.outcome, &*report.message), (Outcome::Applied, ""));
    assert_eq!(live.told(), ["reload docker.service"]);
    live.push(&layer("a").mirrors(&["https://m"]).file("/etc/motd", "2"));
    assert_eq!(live.told(), [""; 0]);
    let a = layer("a").mirrors(&["https://n"]);
    live.push(&a);
    assert_eq!(live.told(), ["reload docker.service"]);
    let released = live.node.release(&a);
    assert_eq!(released.message, "");
    // A reload does not undo what is there no more.
    assert_eq!(live.told(), ["restart docker.service"]);
    assert!(live.current("docker.service"));
}

#[test]
fn a_unit_that_runs_with_it_has_it() {
    let live = Live::new();
    let a = conf("one");
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(live.told(), ["restart app.service"]);
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(live.told(), [""; 0]);
    live.node.release(&a);
    assert_eq!(live.told(), ["restart app.service"]);
    assert!(live.current(UNIT));
}

#[test]
fn a_unit_that_does_not_run_with_it_has_it_put_back() {
    let live = Live::new();
    live.push(&conf("good"));
    live.told();
    let tree = live.node.tree();
    let bad = conf(BROKEN).file("/etc/motd", "along with it");
    let report = live.push(&bad);
    assert!(report.held, "{report:?}");
    assert!(
        report.message.starts_with(
            "app.service does not do it: restart app.service: failed; its journal, newest first: \
             app.service: parse error; what was changed is put back"
        ),
        "{}",
        report.message
    );
    assert_eq!(report.in_force, Some(conf("good").digest));
    assert_eq!(live.node.tree(), tree);
    assert_eq!(live.told(), ["restart app.service"; 2]);
    assert!(live.services.runs(UNIT) && live.current(UNIT));
    // Nobody is told again, until somebody asks.
    let again = live.push(&bad);
    assert_eq!(again.message, report.message);
    assert_eq!(live.told(), [""; 0]);
    live.push(&bad.clone().retry("1"));
    assert_eq!(live.told(), ["restart app.service"; 2]);
}

#[test]
fn one_of_two_units_that_does_not_run_has_both_told_again() {
    let live = Live::new();
    let report = live.push(&conf(BROKEN).notify(OTHER, Reload));
    assert!(report.held);
    assert_eq!(
        live.told(),
        [
            "restart app.service",
            "restart app.service",
            "reload other.service"
        ]
    );
    assert!(live.current(UNIT) && live.current(OTHER));
}

#[test]
fn a_unit_that_is_not_there_is_said_to_be_missing() {
    let live = Live::new();
    let report = live.push(&layer("a").file(CONF, "x").notify("none.service", Restart));
    assert_eq!(report.outcome, Outcome::Applied);
    assert_eq!(report.message, "none.service is not on this node");
    assert_eq!(live.told(), [""; 0]);
    assert_eq!(live.node.read(CONF), "x");
}

#[test]
fn a_unit_that_does_not_run_is_left_alone() {
    let live = Live::new();
    live.services.set(UNIT, Active::Inactive, false);
    assert_eq!(live.push(&conf("x")).outcome, Outcome::Applied);
    assert_eq!(live.told(), [""; 0]);
    // But for one that does something once.
    live.services.set(UNIT, Active::Inactive, true);
    assert_eq!(live.push(&conf("y")).outcome, Outcome::Applied);
    assert_eq!(live.told(), ["restart app.service"]);
}

#[test]
fn a_unit_that_had_failed_before_can_be_mended_and_not_made_worse() {
    let live = Live::new();
    live.services.set(UNIT, Active::Failed, false);
    let worse = live.push(&conf(BROKEN));
    assert_eq!(worse.outcome, Outcome::Applied, "{worse:?}");
    assert_eq!(worse.message, "app.service has failed, and does not run");
    assert_eq!(live.push(&conf("good")).outcome, Outcome::Applied);
    assert!(live.services.runs(UNIT));
}

#[test]
fn what_may_not_be_restarted_waits_until_somebody_does_it() {
    let live = Live::new();
    let mut never = conf("x").mirrors(&["https://m"]);
    never.restarts = Restarts::Never;
    let report = live.push(&never);
    assert_eq!(report.outcome, Outcome::PendingReload);
    assert!(report.restart);
    assert_eq!(report.pending, [UNIT]);
    assert_eq!(
        report.message,
        "app.service has yet to be restarted to read /etc/edict/app.conf, and spec.restarts is \
         Never: restart it on the node, or allow that"
    );
    // A reload disturbs nobody.
    assert_eq!(live.told(), ["reload docker.service"]);
    assert_eq!(live.push(&never).pending, [UNIT]);
    live.services.restart(UNIT);
    let report = live.push(&never);
    assert_eq!((report.outcome, &*report.message), (Outcome::Applied, ""));
    assert_eq!(live.told(), [""; 0]);
}

#[test]
fn what_waits_is_restarted_once_it_may_be() {
    let mut live = Live::new();
    let mut layer = conf("x");
    layer.restarts = Restarts::Never;
    assert_eq!(live.push(&layer).outcome, Outcome::PendingReload);
    live.node.restart();
    layer.restarts = Restarts::Allowed;
    assert_eq!(live.push(&layer).outcome, Outcome::Applied);
    assert_eq!(live.told(), ["restart app.service"]);
    assert_eq!(live.push(&layer).outcome, Outcome::Applied);
    assert_eq!(live.told(), [""; 0]);
}

#[test]
fn what_waits_while_systemd_is_out_of_reach_is_told_when_it_is_not() {
    let mut live = Live::new();
    let services = live.node.services.take();
    live.node.restart();
    let a = conf("x").mirrors(&["https://m"]);
    let report = live.push(&a);
    assert_eq!(report.pending, [UNIT, "docker.service"]);
    assert!(report.restart && report.message.contains(crate::node::NOBODY));
    live.node.services = services;
    live.node.restart();
    assert_eq!(live.told(), [""; 0]);
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(
        live.told(),
        ["restart app.service", "reload docker.service"]
    );
}

#[test]
fn a_restart_that_waits_is_not_forgotten_over_less() {
    let mut node = Node::prepared();
    node.restart();
    let set = |settings: serde_json::Value| {
        let unit = serde_json::json!([{"unit": UNIT, "settings": settings}]);
        layer("a").block("units", unit)
    };
    let first = set(serde_json::json!({"LimitNOFILE": "9"}));
    assert!(node.push(&[&first]).layers[0].restart);
    let second = set(serde_json::json!({"LimitNOFILE": "9", "MemoryMax": "1G"}));
    let report = node.push(&[&second]).layers.remove(0);
    assert!(report.restart, "{}", report.message);
    assert!(
        report.message.contains("has yet to be restarted to read"),
        "{}",
        report.message
    );
}

#[test]
fn an_agent_that_knew_nothing_of_units_left_all_of_them_waiting() {
    let mut live = Live::new();
    let a = layer("a").mirrors(&["https://m"]);
    live.push(&a);
    live.told();
    live.node.agent = None;
    let state = live.node.read("state/state.json");
    live.node
        .write("state/state.json", &state.replace(",\"pending\":{}", ""));
    live.node.restart();
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(live.told(), ["reload docker.service"]);
}

#[test]
fn a_systemd_that_does_not_answer_fails_the_layer_before_anything_is_written() {
    let live = Live::new();
    let tree = live.node.tree();
    live.services.silent(true);
    let report = live.push(&conf("x"));
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(!report.held, "{report:?}");
    assert_eq!(report.message, "systemd can't be asked: no answer");
    assert_eq!(live.node.tree(), tree);
    live.services.silent(false);
    assert_eq!(live.push(&conf("x")).outcome, Outcome::Applied);
}

#[test]
fn in_an_image_nobody_waits() {
    let mut live = Live::new();
    live.node.offline = true;
    live.node.restart();
    let report = live.push(&conf("x").mirrors(&["https://m"]));
    assert_eq!((report.outcome, &*report.message), (Outcome::Applied, ""));
    assert_eq!(live.told(), [""; 0]);
}

#[test]
fn an_older_operator_is_not_told_what_it_does_not_know() {
    let live = Live::new();
    let mut never = conf("x");
    never.restarts = Restarts::Never;
    let report = live.push(&never);
    let event = wire::Event::Layer(report.clone());
    assert_eq!(event.clone().said_to(wire::UNITS), event);
    let wire::Event::Layer(older) = event.said_to(wire::UNITS - 1) else {
        unreachable!("it was a layer's");
    };
    assert!(!older.restart && older.pending == report.pending);
}

#[test]
fn drop_ins_are_read_before_the_unit_starts() {
    let mut live = Live::new();
    live.node.policy.allowed = vec!["/etc/systemd/system/app.service.d".to_owned()];
    let drop_in = "/etc/systemd/system/app.service.d/edict.conf";
    let a = layer("a")
        .file(drop_in, "[Service]\n")
        .notify(UNIT, Restart);
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(
        live.services.told_all(),
        ["daemon-reload", "restart app.service"]
    );
    live.node.release(&a);
    assert_eq!(
        live.services.told_all(),
        ["daemon-reload", "restart app.service"]
    );
}

#[test]
fn a_restart_that_ends_the_agent_is_not_done_twice() {
    let mut live = Live::new();
    let a = conf("good");
    live.dies(UNIT, true, |node| _ = node.push(&[&a]));
    assert_eq!(live.told(), ["restart app.service"]);
    assert_eq!(live.node.in_force(), ["a"]);
    assert_eq!(live.push(&a).outcome, Outcome::Applied);
    assert_eq!(live.told(), [""; 0]);
    live.dies(UNIT, true, |node| _ = node.release(&a));
    assert_eq!(live.told(), ["restart app.service"]);
    assert_eq!(live.node.in_force(), [""; 0]);
    assert!(live.current(UNIT));
}

#[test]
fn a_restart_that_did_not_come_about_is_done_by_the_next_agent() {
    let mut live = Live::new();
    let a = conf("good");
    live.dies(UNIT, false, |node| _ = node.push(&[&a]));
    assert_eq!(live.told(), ["restart app.service"; 2]);
    assert_eq!(live.node.in_force(), ["a"]);
    assert!(live.current(UNIT));
    live.dies(UNIT, false, |node| _ = node.release(&a));
    assert_eq!(live.told(), ["restart app.service"; 2]);
    assert!(live.current(UNIT));
}

#[test]
fn a_bad_change_over_which_the_agent_dies_is_put_back_and_held() {
    for after in [false, true] {
        let mut live = Live::new();
        live.push(&conf("good"));
        let tree = live.node.tree();
        live.told();
        live.dies(UNIT, after, |node| _ = node.push(&[&conf(BROKEN)]));
        assert_eq!(live.node.tree(), tree, "{after}");
        assert!(live.services.runs(UNIT) && live.current(UNIT), "{after}");
        let told = if after { 2 } else { 3 };
        assert_eq!(live.told(), vec!["restart app.service"; told]);
        let report = live.push(&conf(BROKEN));
        assert!(
            report.held && report.message.contains("parse error"),
            "{report:?}"
        );
        assert_eq!(live.told(), [""; 0], "{after}");
    }
}

#[test]
fn a_unit_that_ends_over_a_reload_is_started_again() {
    let live = Live::new();
    live.push(&conf("good"));
    live.told();
    let report = live.push(&layer("a").file(CONF, BROKEN).notify(UNIT, Reload));
    assert!(report.held, "{report:?}");
    assert_eq!(live.told(), ["reload app.service", "restart app.service"]);
    assert!(live.services.runs(UNIT) && live.current(UNIT));
    // Also where the agent ended with it.
    let mut live = Live::new();
    live.push(&conf("good"));
    live.told();
    let bad = layer("a").file(CONF, BROKEN).notify(UNIT, Reload);
    live.dies(UNIT, true, |node| _ = node.push(&[&bad]));
    assert!(live.services.runs(UNIT) && live.current(UNIT));
}

#[test]
fn a_unit_that_had_failed_before_keeps_no_other_from_being_told_again() {
    let live = Live::new();
    live.services.set(UNIT, Active::Failed, false);
    // The first one has failed before, and does again; the second one is why it is put back.
    let bad = conf(BROKEN).notify(OTHER, Restart);
    let report = live.push(&bad);
    assert!(report.held, "{report:?}");
    assert!(live.services.runs(OTHER) && live.current(OTHER));
    let good = conf("good").notify(OTHER, Restart);
    assert_eq!(live.push(&good).outcome, Outcome::Applied);
    live.services.set(UNIT, Active::Failed, false);
    live.node.release(&good);
    assert!(live.current(OTHER));
}

#[test]
fn another_one_s_restart_does_not_come_with_a_change() {
    let live = Live::new();
    let mut never = conf("x");
    never.restarts = Restarts::Never;
    live.push(&never);
    let other = layer("b").file("/etc/edict/b", "1").notify(UNIT, Restart);
    let report = live
        .node
        .push(&[&never, &layer("c").file("/etc/motd", "1")]);
    assert_eq!(report.layers[0].pending, [UNIT]);
    assert_eq!(live.told(), [""; 0]);
    // What it changes itself is its own matter.
    live.node.push(&[&never, &other]);
    assert_eq!(live.told(), ["restart app.service"]);
}

#[test]
fn credentials_in_a_journal_are_masked_before_it_is_cut() {
    let live = Live::new();
    let line = format!("{}http://user:{}@host", "x".repeat(180), "p".repeat(40));
    live.services.says(&line);
    let report = live.push(&conf(BROKEN));
    assert!(report.message.contains("http://***"), "{}", report.message);
    assert!(!report.message.contains("ppp"), "{}", report.message);
}

#[test]
fn an_agent_that_dies_on_the_way_back_leaves_no_unit_behind() {
    for after in [false, true] {
        let mut live = Live::new();
        live.push(&conf("good"));
        let tree = live.node.tree();
        live.told();
        // Told once with what it does not run with, and then with what was there before.
        live.services.dies_later(UNIT, after, 1);
        live.ends(|node| _ = node.push(&[&conf(BROKEN)]));
        live.node.restart();
        assert_eq!(live.node.tree(), tree, "{after}");
        assert!(live.services.runs(UNIT) && live.current(UNIT), "{after}");
        let told = if after { 2 } else { 3 };
        assert_eq!(live.told(), vec!["restart app.service"; told], "{after}");
        assert!(live.push(&conf(BROKEN)).held);
        assert_eq!(live.told(), [""; 0], "{after}");
    }
}

/// As where the container runtime ends the agent with it: each time.
#[test]
fn an_agent_that_dies_with_each_restart_comes_to_an_end() {
    let mut live = Live::new();
    live.push(&conf("good"));
    live.told();
    live.dies(UNIT, true, |node| _ = node.push(&[&conf("fine")]));
    assert_eq!(live.told(), ["restart app.service"]);
    live.services.dies(UNIT, true);
    live.ends(|node| _ = node.push(&[&conf(BROKEN)]));
    // The agent that puts it back dies as well, and the one after that has nothing left to do.
    live.services.dies(UNIT, true);
    assert!(catch_unwind(AssertUnwindSafe(|| live.node.restart())).is_err());
    live.node.restart();
    assert_eq!(live.told(), ["restart app.service"; 2]);
    assert!(live.services.runs(UNIT) && live.current(UNIT));
    assert!(live.push(&conf(BROKEN)).held);
    assert_eq!(live.told(), [""; 0]);
}

#[test]
fn what_somebody_changed_meanwhile_ends_what_was_interrupted() {
    let mut live = Live::new();
    live.services.dies(UNIT, true);
    live.ends(|node| _ = node.push(&[&conf("good")]));
    live.node.write(CONF, "somebody's");
    live.node.restart();
    // Not what was tried: so it is taken back as far as it is Edict's.
    assert_eq!(live.node.in_force(), [""; 0]);
    assert_eq!(live.node.read(CONF), "somebody's");
    assert!(live.current(UNIT));
}

#[test]
fn a_plan_says_what_would_be_told_and_tells_nobody() {
    let live = Live::new();
    let push = |layer: Layer| {
        wire::Push::new(
            crate::node::NAME.into(),
            live.node.policy.clone(),
            vec![layer],
            vec![],
        )
    };
    let both = conf("x")
        .mirrors(&["https://m"])
        .notify("none.service", Restart);
    let dry = live.node.agent().dry(&push(both)).unwrap().unwrap();
    let units: Vec<_> = dry
        .units
        .iter()
        .map(|(unit, action)| format!("{action} {unit}"))
        .collect();
    assert_eq!(units, ["restart app.service", "reload docker.service"]);
    assert_eq!(dry.report.layers[0].outcome, Outcome::Applied);
    assert_eq!(live.told(), [""; 0]);
    let Manager::Runs(_) = live.services.manager() else {
        unreachable!("they can be asked");
    };
}
