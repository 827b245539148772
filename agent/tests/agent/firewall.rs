//! The firewall: Edict's own table, as a whole, on probation, and given back.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use edict_agent::apply::Agent;
use edict_agent::units::UNKNOWN;
use edict_core::config::NotifyAction;
use edict_core::config::firewall::{Facts, PATH, STATE, TRIAL, UNIT_PATH, WANTED_PATH, mark};
use edict_core::layer::{DeletionPolicy, Drift, Layer};
use edict_core::wire::{Event, Fence, LayerReport, Outcome, Probation, Push, Release, VERSION};
use serde_json::json;

use crate::node::{NAME, Node, Say as _, layer};
use crate::services::Services;

const FILES: [&str; 3] = [PATH, UNIT_PATH, WANTED_PATH];

fn prepared() -> (Node, Services) {
    let services = Services::default();
    let mut node = Node::prepared();
    node.services = Some(services.clone());
    node.restart();
    (node, services)
}

fn facts(node: &str) -> Facts {
    Facts {
        nodes: [node.parse().unwrap()].into(),
        pods: ["10.244.0.0/16".parse().unwrap()].into(),
        services: BTreeSet::new(),
    }
}

/// A firewall that lets this port in, in a cluster that has one node.
pub fn firewall(port: u16) -> Layer {
    let block = json!({"allow": [{"ports": [{"port": port}]}], "probationSeconds": 15});
    Layer {
        facts: Some(facts("10.0.0.1")),
        ..layer("a").block("firewall", block)
    }
}

/// The ports and addresses that the loaded table lets in.
fn loaded(services: &Services) -> Vec<String> {
    let script = services.loaded().unwrap_or_default();
    let rules = script
        .lines()
        .filter(|line| line.contains('{') && line.contains("accept"));
    rules.skip(1).map(|rule| rule.trim().to_owned()).collect()
}

#[test]
fn the_table_is_there_with_what_loads_it_and_goes_again() {
    let (node, services) = prepared();
    let report = node.push(&[&firewall(22)]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert_eq!(
        loaded(&services),
        [
            "ip saddr { 10.0.0.1/32, 10.244.0.0/16 } accept",
            "tcp dport { 22 } accept"
        ]
    );
    assert_eq!(node.read(PATH), services.loaded().unwrap());
    assert!(FILES.iter().all(|path| node.exists(path)));
    node.push(&[&firewall(23)]);
    assert_eq!(loaded(&services)[1], "tcp dport { 23 } accept");
    node.release(&layer("a"));
    assert_eq!(services.loaded(), None);
    assert!(!FILES.iter().any(|path| node.exists(path)));
}

/// What an operator pushes that has these layers for the node.
fn all(node: &Node, layers: &[&Layer]) -> Push {
    let layers = layers.iter().map(|layer| (*layer).clone()).collect();
    let push = Push::new(NAME.into(), node.policy.clone(), layers, Vec::new());
    push.fenced(VERSION, Fence::default())
}

/// Reaches the node whenever that is asked for.
fn reaches(agent: &Agent) -> impl FnMut(Event) {
    |event| {
        if let Event::Probation(probation) = event {
            agent.confirm(&probation.mark, None);
        }
    }
}

/// Pushes as an operator that reaches the node anew, or does not, and says whether it was asked to.
fn push(node: &Node, layers: &[&Layer], reaches: bool) -> (LayerReport, Option<Probation>) {
    let agent = node.agent();
    let mut asked = None;
    let say = &mut |event| {
        if let Event::Probation(probation) = event {
            assert!(!agent.confirm("another", None));
            assert!(!reaches || agent.confirm(&probation.mark, None));
            asked = Some(probation);
        }
    };
    let mut report = agent.push_for(&all(node, layers), say, &|| false);
    (report.layers.remove(0), asked)
}

#[test]
fn who_does_not_reach_the_node_in_time_has_it_put_back() {
    let (node, services) = prepared();
    let (report, asked) = push(&node, &[&firewall(22)], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    let first = services.loaded().unwrap();
    let wanted = Probation {
        name: "a".to_owned(),
        mark: mark(&first).unwrap().to_owned(),
        seconds: 15,
    };
    assert_eq!(asked, Some(wanted));

    let began = Instant::now();
    let (report, asked) = push(&node, &[&firewall(23)], false);
    assert!(began.elapsed() >= Duration::from_secs(15));
    assert_eq!(
        (report.outcome, report.held),
        (Outcome::Failed, true),
        "{report:?}"
    );
    assert!(
        asked.is_some()
            && report.message.starts_with(
                "the firewall keeps the cluster out: 15 s later the operator is not heard"
            ),
        "{report:?}"
    );
    assert_eq!(services.loaded(), Some(first.clone()));
    assert_eq!(node.read(PATH), first);
    // What was confirmed before is not asked for again, nor what is known to be wrong.
    let (_, asked) = push(&node, &[&firewall(22)], false);
    assert_eq!(asked, None);
}

fn addresses(nodes: &[&str]) -> Facts {
    Facts {
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
        ..facts("10.0.0.1")
    }
}

/// What the cluster knows of itself is no other revision. Who is let in besides keeps nobody out.
#[test]
fn another_node_is_let_in_without_a_probation() {
    let (node, services) = prepared();
    let mut a = firewall(22);
    push(&node, &[&a], true);
    a.facts = Some(addresses(&["10.0.0.1", "10.0.0.3"]));
    let (report, asked) = push(&node, &[&a], false);
    assert_eq!(
        (report.outcome, asked),
        (Outcome::Applied, None),
        "{report:?}"
    );
    assert_eq!(
        loaded(&services)[0],
        "ip saddr { 10.0.0.1/32, 10.0.0.3/32, 10.244.0.0/16 } accept"
    );
    // Nor where it counts for more, or another NodeConfig is applied.
    a.priority = 7;
    let (report, asked) = push(&node, &[&a, &layer("b").file("/etc/motd", "x")], false);
    assert_eq!(
        (report.outcome, asked),
        (Outcome::Applied, None),
        "{report:?}"
    );
}

/// An address that goes may be the one that the operator comes from.
#[test]
fn a_node_that_leaves_is_kept_out_once_the_cluster_still_reaches_the_host() {
    let (node, services) = prepared();
    let mut a = firewall(22);
    a.facts = Some(addresses(&["10.0.0.1", "10.0.0.2"]));
    push(&node, &[&a], true);
    let before = services.loaded();
    a.facts = Some(addresses(&["10.0.0.1"]));
    let (report, asked) = push(&node, &[&a], false);
    assert!(asked.is_some());
    assert_eq!(
        (report.outcome, report.held),
        (Outcome::Applied, false),
        "{report:?}"
    );
    let said = "the addresses of the cluster that were known before stay let in: the firewall keeps the cluster out";
    assert!(report.message.starts_with(said), "{report:?}");
    assert_eq!(services.loaded(), before);
    // It is known, and said again, with another revision too.
    let b = layer("b").file("/etc/motd", "x");
    let (report, asked) = push(&node, &[&a, &b], true);
    assert!(report.message.starts_with(said) && asked.is_none());
    let other = Layer {
        facts: a.facts.clone(),
        ..firewall(23)
    };
    let (report, asked) = push(&node, &[&other], true);
    assert!(report.message.starts_with(said) && asked.is_some());
    assert_eq!(
        loaded(&services),
        [
            "ip saddr { 10.0.0.1/32, 10.0.0.2/32, 10.244.0.0/16 } accept",
            "tcp dport { 23 } accept"
        ]
    );
    // A node that joins meanwhile is let in at once.
    let joined = Layer {
        facts: Some(addresses(&["10.0.0.1", "10.0.0.3"])),
        ..other.clone()
    };
    let (report, asked) = push(&node, &[&joined], false);
    assert!(report.message.starts_with(said) && asked.is_some());
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert_eq!(
        loaded(&services)[0],
        "ip saddr { 10.0.0.1/32, 10.0.0.2/31, 10.244.0.0/16 } accept"
    );
    // Another address less, and the operator says that it comes through.
    let less = Layer {
        facts: Some(addresses(&["10.0.0.2"])),
        ..other
    };
    let (report, asked) = push(&node, &[&less], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert!(report.message.is_empty() && asked.is_some(), "{report:?}");
    assert_eq!(
        loaded(&services)[0],
        "ip saddr { 10.0.0.2/32, 10.244.0.0/16 } accept"
    );
}

/// Who could say that the node is reached is gone: that is nothing against the firewall.
#[test]
fn without_anybody_to_say_so_it_is_put_back_and_tried_again() {
    let (node, services) = prepared();
    let push_for = |gone: bool| {
        let agent = node.agent();
        let push = all(&node, &[&firewall(22)]);
        let say = &mut |event| {
            if let Event::Probation(probation) = event
                && !gone
            {
                agent.confirm(&probation.mark, None);
            }
        };
        agent.push_for(&push, say, &|| gone).layers.remove(0)
    };
    let report = push_for(true);
    assert_eq!(
        (report.outcome, report.held),
        (Outcome::Failed, false),
        "{report:?}"
    );
    assert!(
        report.message.contains("the operator or the agent ended"),
        "{report:?}"
    );
    assert_eq!(services.loaded(), None);
    assert!(!FILES.iter().any(|path| node.exists(path)));
    assert_eq!(push_for(false).outcome, Outcome::Applied);
    assert!(services.loaded().is_some());
}

/// A host that starts in the middle of it does not load what nobody knows to let the cluster in.
#[test]
fn a_host_that_starts_over_a_probation_is_told_to_leave_the_firewall_alone() {
    let (mut node, services) = prepared();
    let told = node.at("state").join(TRIAL);
    let (here, at) = (node.agent().clone(), told.clone());
    let push = all(&node, &[&firewall(22)]);
    let say = &mut |event| {
        if let Event::Probation(probation) = event {
            assert!(at.exists());
            here.confirm(&probation.mark, None);
        }
    };
    assert!(here.push_for(&push, say, &|| false).is_settled());
    assert!(!told.exists());
    let unit = node.read(UNIT_PATH);
    let condition = format!("ConditionPathExists=!{STATE}/{TRIAL}\n");
    assert!(unit.contains(&condition), "{unit}");
    // The agent that starts with it has put back what was there before, and only then it is loaded again.
    std::fs::write(&told, "").unwrap();
    drop(here);
    services.set_table(None);
    node.restart();
    node.agent().look_for_drift(Instant::now());
    assert!(!told.exists() && services.loaded().is_some());
}

/// What the operator has looked at before may have been the node behind a table that is taken out by now.
#[test]
fn what_was_looked_at_over_another_probation_proves_nothing() {
    let (node, services) = prepared();
    let push = |seen: u64| {
        let agent = node.agent();
        let mut push = all(&node, &[&firewall(22)]);
        push.probations = Some(seen);
        let report = agent.push_for(&push, &mut reaches(agent), &|| false);
        report.layers[0].clone()
    };
    let now = node.agent().hello().probations.unwrap();
    let report = push(now + 1);
    assert_eq!(
        (report.outcome, report.held, services.loaded()),
        (Outcome::Failed, false, None),
        "{report:?}"
    );
    assert!(report.message.contains("with the next push"), "{report:?}");
    assert_eq!(push(now).outcome, Outcome::Applied);
    assert_eq!(node.agent().hello().probations, Some(now + 2));
}

/// It can't be told from what it was made of then: an agent has died right after it was loaded.
#[test]
fn a_table_on_trial_is_taken_out_whatever_it_says_by_then() {
    let (mut node, services) = prepared();
    dies_over_a_probation(&node);
    let script = services.loaded().unwrap();
    services.set_table(Some(&format!("# Changed since it was loaded.\n{script}")));
    node.restart();
    assert_eq!(services.loaded(), None);
    // Nor is it what was there before Edict.
    push(&node, &[&firewall(22)], true);
    services.set_table(Some(UNKNOWN));
    node.release(&layer("a"));
    assert_eq!(services.loaded(), None);
}

/// What stays is no proof.
#[test]
fn a_table_that_was_left_is_proven_before_it_counts() {
    let (node, services) = prepared();
    let a = firewall(22);
    push(&node, &[&a], true);
    let mut leaves = Push::new(NAME.into(), node.policy.clone(), Vec::new(), Vec::new());
    leaves.releases = vec![Release {
        uid: a.uid.clone(),
        name: a.name.clone(),
        policy: DeletionPolicy::Retain,
    }];
    assert!(node.agent().push(&leaves, &mut |_| {}).is_settled());
    assert!(services.loaded().is_some());
    let (report, asked) = push(&node, &[&a], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert!(asked.is_some());
    services.set_table(None);
    node.agent().look_for_drift(Instant::now());
    assert!(services.loaded().is_some());
}

/// Its files are there for the next start of the host, which is told to leave them alone.
#[test]
fn one_that_waits_is_not_loaded_by_a_host_that_starts() {
    let (mut node, services) = prepared();
    let told = node.at("state").join(TRIAL);
    let mut a = firewall(22);
    a.priority = 7;
    let b = Layer {
        facts: a.facts.clone(),
        ..layer("b").block("firewall", json!({"probationSeconds": 15}))
    };
    push(&node, &[&a, &b], true);
    assert!(!told.exists());
    node.release(&layer("a"));
    assert!(told.exists());
    node.restart();
    assert!(told.exists() && services.loaded().is_none());
    // Nor where it has failed.
    let (report, _) = push(&node, &[&b], false);
    assert!(report.held && told.exists(), "{report:?}");
    assert_eq!(services.loaded(), None);
    // Another revision that can't be is no reason for it to stay out.
    let mut bad = firewall(666);
    (bad.uid, bad.name) = (b.uid.clone(), b.name.clone());
    let (report, asked) = push(&node, &[&bad], true);
    assert!(report.held && asked.is_some(), "{report:?}");
    assert!(!told.exists() && loaded(&services).len() == 1);
}

#[test]
fn a_table_that_somebody_takes_away_or_changes_is_loaded_again() {
    let (node, services) = prepared();
    push(&node, &[&firewall(22)], true);
    let script = services.loaded();
    for foreign in [None, Some(UNKNOWN)] {
        services.set_table(foreign);
        node.agent().look_for_drift(Instant::now());
        assert_eq!(services.loaded(), script);
    }
    // One that was there before Edict is nobody's, and goes with it.
    let (node, services) = prepared();
    services.set_table(Some(UNKNOWN));
    push(&node, &[&firewall(22)], true);
    node.release(&layer("a"));
    assert_eq!(services.loaded(), None);
}

#[test]
fn what_nft_refuses_leaves_everything_as_it_is() {
    let (node, services) = prepared();
    push(&node, &[&firewall(22)], true);
    let before = (services.loaded(), node.read(PATH));
    let (report, asked) = push(&node, &[&firewall(666)], true);
    assert_eq!(
        (report.outcome, asked),
        (Outcome::Failed, None),
        "{report:?}"
    );
    assert_eq!((services.loaded(), node.read(PATH)), before);
}

/// An agent that dies when it asks whether it is reached.
fn dies_over_a_probation(node: &Node) {
    let agent = node.agent().clone();
    let all = all(node, &[&firewall(22)]);
    let died = catch_unwind(AssertUnwindSafe(|| {
        let say = &mut |event| assert!(!matches!(event, Event::Probation(_)));
        agent.push_for(&all, say, &|| false)
    }));
    assert!(died.is_err());
}

/// The next agent has nobody to ask yet: what was on probation is taken back, and tried anew.
#[test]
fn an_agent_that_dies_over_a_probation_leaves_nothing() {
    let (mut node, services) = prepared();
    dies_over_a_probation(&node);
    assert!(services.loaded().is_some());
    node.restart();
    assert_eq!(services.loaded(), None);
    assert!(!FILES.iter().any(|path| node.exists(path)));
    let (report, asked) = push(&node, &[&firewall(22)], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert!(asked.is_some());
}

#[test]
fn who_can_not_have_one_is_told_why() {
    // Without an operator nobody knows the cluster's addresses.
    let (node, _) = prepared();
    let mut a = firewall(22);
    a.facts = None;
    let (report, _) = push(&node, &[&a], true);
    let why = "without an operator nobody knows the cluster's addresses: give nodeCIDRs, podCIDRs, serviceCIDRs, [] for none";
    assert!(report.message.contains(why), "{report:?}");
    assert_eq!(
        (report.outcome, report.held),
        (Outcome::Failed, false),
        "{report:?}"
    );
    // Without systemd nobody can ask the kernel, and what has not been on probation is not for the next start.
    let node = Node::new();
    let (report, _) = push(&node, &[&firewall(22)], true);
    assert!(
        report.message.contains("nobody can be told here"),
        "{report:?}"
    );
    assert!(!node.exists(PATH));
}

/// One that was never the node's has to be proven when it becomes so, whoever leaves.
#[test]
fn one_that_waited_behind_another_is_on_probation_when_its_turn_comes() {
    let (node, services) = prepared();
    let mut a = firewall(22);
    a.priority = 7;
    let b = Layer {
        facts: a.facts.clone(),
        ..layer("b").block("firewall", json!({"probationSeconds": 15}))
    };
    push(&node, &[&a, &b], true);
    assert_eq!(loaded(&services)[1], "tcp dport { 22 } accept");
    node.release(&layer("a"));
    assert_eq!(
        services.loaded(),
        None,
        "nobody has reached this node through it"
    );
    node.agent().look_for_drift(Instant::now());
    assert_eq!(services.loaded(), None);
    let (report, asked) = push(&node, &[&b], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert_eq!(asked.unwrap().name, "b");
    assert!(services.loaded().is_some());
    // It is known now: whoever has its place for a while gives it back at once.
    push(&node, &[&a, &b], true);
    assert_eq!(loaded(&services)[1], "tcp dport { 22 } accept");
    node.release(&layer("a"));
    assert_eq!(loaded(&services).len(), 1);
}

/// A node that joins is let in whatever becomes of what is pushed.
#[test]
fn what_the_cluster_knows_goes_out_where_the_pushed_revision_is_held() {
    let (node, services) = prepared();
    push(&node, &[&firewall(22)], true);
    let mut bad = firewall(666);
    let (report, _) = push(&node, &[&bad], true);
    assert!(report.held, "{report:?}");
    bad.facts = Some(addresses(&["10.0.0.1", "10.0.0.3"]));
    let (report, asked) = push(&node, &[&bad], true);
    assert!(report.held && asked.is_none(), "{report:?}");
    assert_eq!(
        loaded(&services),
        [
            "ip saddr { 10.0.0.1/32, 10.0.0.3/32, 10.244.0.0/16 } accept",
            "tcp dport { 22 } accept"
        ]
    );
}

/// A restart that ends the agent comes after the proof: the next agent goes on, and restarts nothing again.
#[test]
fn a_restart_that_ends_the_agent_is_not_done_again() {
    const UNIT: &str = "app.service";
    const FILE: &str = "/etc/edict/app";
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.services = Some(services.clone());
    node.restart();
    let a = firewall(22)
        .file(FILE, "x")
        .notify(UNIT, NotifyAction::Restart);
    services.dies(UNIT, true);
    let died = catch_unwind(AssertUnwindSafe(|| push(&node, &[&a], true)));
    assert!(died.is_err());
    node.restart();
    services.told_all();
    assert!(node.exists(FILE) && services.loaded().is_some());
    let (report, asked) = push(&node, &[&a], true);
    assert_eq!(
        (report.outcome, asked),
        (Outcome::Applied, None),
        "{report:?}"
    );
    assert_eq!(services.told(), [""; 0]);
}

/// What is in the kernel on trial is not forgotten where nobody can be asked any more.
#[test]
fn what_is_on_trial_waits_for_who_can_take_it_out() {
    let (mut node, services) = prepared();
    dies_over_a_probation(&node);
    node.services = None;
    node.restart();
    assert!(node.agent().is_interrupted() && services.loaded().is_some());
    node.services = Some(services.clone());
    node.restart();
    assert!(!node.agent().is_interrupted());
    assert_eq!(services.loaded(), None);
}

/// Who is kept out pushes nothing: an agent takes back by itself what it could not at first.
#[test]
fn what_could_not_be_put_back_is_tried_again_without_a_push() {
    let (mut node, services) = prepared();
    dies_over_a_probation(&node);
    services.silent(true);
    node.restart();
    assert!(node.agent().is_interrupted() && services.loaded().is_some());
    let again = node.agent().look_for_drift(Instant::now());
    assert!(again.is_some() && services.loaded().is_some());
    services.silent(false);
    node.agent().look_for_drift(Instant::now());
    assert_eq!(services.loaded(), None);
    assert!(!node.agent().is_interrupted());
}

/// Whose turn comes when another one's goes has its table loaded, also where changes by others are only said.
#[test]
fn one_that_only_reports_drift_is_loaded_when_its_turn_comes() {
    let (node, services) = prepared();
    let mut a = firewall(22);
    a.priority = 7;
    let b = Layer {
        facts: a.facts.clone(),
        drift: Drift::Report,
        ..layer("b").block("firewall", json!({"probationSeconds": 15}))
    };
    push(&node, &[&a, &b], true);
    node.release(&layer("a"));
    assert_eq!(services.loaded(), None);
    let (report, asked) = push(&node, &[&b], true);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert!(asked.is_some() && services.loaded().is_some());
}

/// A host that starts leaves the firewall to the agent where something is on trial by its disk, whoever is to say
/// what else has changed.
#[test]
fn what_a_host_has_left_to_the_agent_is_loaded_once_it_can_be() {
    let (mut node, services) = prepared();
    let a = Layer {
        drift: Drift::Report,
        ..firewall(22)
    };
    let other = layer("b").file("/etc/motd", "as it should be\n");
    push(&node, &[&a, &other], true);
    let table = services.loaded();
    let trial = format!("state/{TRIAL}");
    std::fs::write(node.at(&trial), "").unwrap();
    services.set_table(None);
    services.silent(true);
    node.restart();
    // What has nothing to do with it is looked after meanwhile.
    node.write("/etc/motd", "another\n");
    let again = node.agent().look_for_drift(Instant::now());
    assert!(again.is_some() && services.loaded().is_none());
    assert_eq!(node.read("/etc/motd"), "as it should be\n");
    services.silent(false);
    node.agent().look_for_drift(Instant::now());
    assert_eq!(services.loaded(), table);
    assert!(!node.at(&trial).exists());
}

/// What waits for its turn has nothing to do with it.
#[test]
fn a_restart_that_ends_the_agent_is_not_done_again_while_a_firewall_waits() {
    const UNIT: &str = "app.service";
    const FILE: &str = "/etc/edict/app";
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.services = Some(services.clone());
    node.restart();
    let mut first = firewall(22);
    first.priority = 7;
    let waits = Layer {
        facts: first.facts.clone(),
        ..layer("b").block("firewall", json!({"probationSeconds": 15}))
    };
    push(&node, &[&first, &waits], true);
    node.release(&layer("a"));
    let file = layer("c")
        .file(FILE, "x")
        .notify(UNIT, NotifyAction::Restart);
    services.dies(UNIT, true);
    let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&file])));
    assert!(died.is_err());
    services.told_all();
    node.restart();
    assert_eq!(services.told(), [""; 0]);
    assert!(node.exists(FILE) && services.loaded().is_none());
    assert!(node.in_force().contains(&"c".to_owned()));
}
