use edict_crds::FleetSpec;
use edict_crds::nodestate::Contact;
use serde_json::json;

use super::*;
use crate::fleet::roll::{self, Agent};

fn fleet() -> Fleet {
    let mut fleet = Fleet::new("default", FleetSpec::default());
    fleet.metadata.generation = Some(4);
    fleet
}

fn daemonset(seen: bool, ready: i32, updated: i32) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"generation": 2},
        "status": {
            "observedGeneration": if seen { 2 } else { 1 }, "desiredNumberScheduled": 3,
            "currentNumberScheduled": 3, "numberMisscheduled": 0, "numberReady": ready,
            "updatedNumberScheduled": updated,
        },
    }))
    .unwrap()
}

fn agent(node: &str, current: bool, trouble: Option<&str>) -> Agent {
    Agent {
        pod: format!("p-{node}"),
        uid: String::new(),
        resource_version: None,
        node: node.to_owned(),
        attended: true,
        revision: format!("{current}"),
        current,
        ending: false,
        ready: !current,
        contact: Some(Contact::Ready),
        trouble: trouble.map(str::to_owned),
    }
}

fn away(node: &str, current: bool) -> Agent {
    Agent {
        attended: false,
        ..agent(node, current, None)
    }
}

fn said(daemonset: &DaemonSet, agents: &[Agent], missing: usize) -> (State, String) {
    let plan = roll::plan(agents, missing);
    let status = installed(&fleet(), daemonset, Some(&plan), Timestamp::UNIX_EPOCH);
    let [condition] = &status.conditions[..] else {
        panic!("{status:?}");
    };
    let state = status.state.unwrap();
    assert_eq!(condition.type_, "Ready");
    assert_eq!(condition.reason, format!("{state:?}"));
    assert_eq!(condition.status == "True", state == State::Ready);
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(condition.observed_generation, Some(4));
    (state, condition.message.clone())
}

#[test]
fn ready_is_every_agent_of_the_newest_revision() {
    let say = |seen, ready, updated| said(&daemonset(seen, ready, updated), &[], 0);
    assert_eq!(say(true, 3, 3), (State::Ready, "3 of 3 agents run".into()));
    for (seen, ready, updated, message) in [
        (true, 2, 3, "2 of 3 agents run"),
        (true, 3, 1, "3 of 3 agents run, 1 updated"),
        // The controller's numbers are of the template before.
        (false, 3, 3, "3 of 3 agents run, 0 updated"),
    ] {
        let found = say(seen, ready, updated);
        assert_eq!(found, (State::Progressing, message.into()));
    }
    let none = DaemonSet::default();
    assert_eq!(
        said(&none, &[], 0),
        (State::Progressing, "0 of 0 agents run".into())
    );
}

#[test]
fn a_halt_names_node_pod_and_reason() {
    let agents = [
        agent("a", true, Some("ErrImagePull: x")),
        agent("b", false, None),
    ];
    let message = "the agent of node a does not come up, pod p-a: ErrImagePull: x. No other is \
                   replaced until it does, or until the Fleet names another image. 2 of 3 agents \
                   run, 1 updated";
    let found = said(&daemonset(true, 2, 1), &agents, 0);
    assert_eq!(found, (State::Halted, message.into()));
}

#[test]
fn what_is_waited_for_is_said() {
    for (agents, missing, message) in [
        (vec![agent("a", true, None)], 0, "node a is on its way"),
        (vec![agent("b", false, None)], 0, "node b is on its way"),
        (vec![], 2, "2 nodes have no pod yet"),
        (vec![away("a", true), away("b", false)], 0, "node a is away"),
        (
            vec![away("a", true), agent("b", true, None)],
            0,
            "node b is on its way",
        ),
        (
            vec![agent("a", true, None), agent("c", true, Some("OOM"))],
            0,
            "node c, pod p-c: OOM",
        ),
    ] {
        let (state, found) = said(&daemonset(true, 2, 3), &agents, missing);
        assert_eq!(state, State::Progressing);
        assert_eq!(found, format!("2 of 3 agents run; {message}"));
    }
}

#[test]
fn the_time_of_a_change_is_kept() {
    let mut fleet = fleet();
    let at = |second| Timestamp::from_second(second).unwrap();
    let time = |status: &FleetStatus| status.conditions[0].last_transition_time.0;
    let removed = removing(&fleet, "why".into(), at(1));
    assert_eq!(removed.state, Some(State::Removing));
    assert_eq!(removed.conditions[0].message, "why");
    assert_eq!(time(&removed), at(1));
    fleet.status = Some(removed);
    // Still not ready, for another reason.
    assert_eq!(
        time(&installed(&fleet, &daemonset(true, 1, 3), None, at(2))),
        at(1)
    );
    assert_eq!(
        time(&installed(&fleet, &daemonset(true, 3, 3), None, at(3))),
        at(3)
    );
}
