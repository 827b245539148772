mod world;

use super::*;

/// An agent that serves, of this revision, where "new" is the newest.
fn agent(node: &str, revision: &str) -> Agent {
    Agent {
        pod: format!("edict-agent-{node}"),
        uid: format!("{node} {revision}"),
        resource_version: None,
        node: node.to_owned(),
        attended: true,
        revision: revision.to_owned(),
        current: revision == "new",
        ending: false,
        ready: true,
        contact: Some(Contact::Ready),
        trouble: None,
    }
}

fn old(node: &str) -> Agent {
    agent(node, "old")
}

fn new(node: &str) -> Agent {
    agent(node, "new")
}

/// It does not come up, as its kubelet says.
fn broken(agent: Agent) -> Agent {
    Agent {
        ready: false,
        contact: Some(Contact::Unreachable),
        trouble: Some("ErrImagePull: not found".to_owned()),
        ..agent
    }
}

/// It is on its way.
fn starting(agent: Agent) -> Agent {
    Agent {
        ready: false,
        contact: Some(Contact::NoAgent),
        ..agent
    }
}

fn ending(agent: Agent) -> Agent {
    Agent {
        ending: true,
        contact: Some(Contact::NoAgent),
        ..agent
    }
}

/// The operator does not reach it.
fn mute(agent: Agent) -> Agent {
    Agent {
        contact: Some(Contact::Unreachable),
        ..agent
    }
}

/// Its node is away.
fn away(agent: Agent) -> Agent {
    Agent {
        attended: false,
        ready: false,
        ..mute(agent)
    }
}

fn replaced(agents: &[Agent], missing: usize) -> Vec<&str> {
    let plan = plan(agents, missing);
    plan.replace
        .iter()
        .map(|agent| agent.node.as_str())
        .collect()
}

#[test]
fn serving_agents_go_one_at_a_time() {
    for (agents, missing, expected) in [
        (vec![new("a"), new("b")], 0, vec![]),
        (vec![old("c"), old("a"), old("b")], 0, vec!["a"]),
        (vec![new("a"), old("b"), old("c")], 0, vec!["b"]),
        // One that is on its way, from its pod's end to its first word.
        (vec![ending(old("a")), old("b")], 0, vec![]),
        (vec![old("b")], 1, vec![]),
        (vec![starting(new("a")), old("b")], 0, vec![]),
        (vec![mute(new("a")), old("b")], 0, vec![]),
        (vec![new("a"), mute(new("b")), old("c")], 0, vec![]),
        (vec![new("a"), ending(new("b")), old("c")], 0, vec![]),
        (vec![new("a"), old("c")], 1, vec![]),
        // One that is too old serves; one that comes up too old does not.
        (
            vec![new("a"), mute(old("b")), too_old(old("c"))],
            0,
            vec!["c"],
        ),
        (vec![too_old(new("a")), old("b")], 0, vec![]),
    ] {
        assert_eq!(replaced(&agents, missing), expected, "{agents:#?}");
    }
}

fn too_old(agent: Agent) -> Agent {
    Agent {
        contact: Some(Contact::AgentTooOld),
        ..agent
    }
}

#[test]
fn what_does_not_serve_has_a_budget_of_its_own() {
    let many = |make: fn(Agent) -> Agent| (10..30).map(move |n| make(old(&n.to_string())));
    for (what, agents, expected) in [
        (
            "away nodes hold up nobody",
            vec![away(new("a")), ending(away(old("b"))), new("c"), old("d")],
            vec!["d"],
        ),
        (
            "and come last",
            vec![away(old("a")), mute(old("b")), new("c"), old("d")],
            vec!["d"],
        ),
        (
            "all at once",
            vec![
                away(old("a")),
                mute(old("b")),
                new("c"),
                starting(old("d")),
                old("e"),
            ],
            vec!["e"],
        ),
        (
            "those that are away, when nobody else is left",
            vec![away(old("a")), mute(old("b")), new("c")],
            vec!["a"],
        ),
        (
            "those at fault after all others",
            vec![
                ending(away(old("a"))),
                mute(old("b")),
                mute(old("d")),
                new("c"),
            ],
            vec!["b", "d"],
        ),
        (
            "one that does not come up where others do is its node's fault",
            vec![broken(old("a")), old("b"), new("c")],
            vec!["b"],
        ),
        (
            "one that serves while its kubelet is away is left alone",
            vec![
                Agent {
                    attended: false,
                    ..old("a")
                },
                mute(old("b")),
                new("c"),
            ],
            vec![],
        ),
        (
            "a node that is away is no canary",
            vec![away(old("a")), mute(old("b"))],
            vec!["b"],
        ),
        ("nor is there any other", vec![away(old("a"))], vec![]),
    ] {
        assert_eq!(replaced(&agents, 0), expected, "{what}");
    }
    for make in [away as fn(Agent) -> Agent, mute] {
        let mut agents: Vec<_> = many(make).collect();
        agents.push(new("a"));
        assert_eq!(replaced(&agents, 0).len(), OTHERS_MAX);
        for agent in &mut agents[..4] {
            agent.ending = true;
        }
        assert_eq!(replaced(&agents, 0).len(), OTHERS_MAX - 4);
    }
}

#[test]
fn a_broken_image_halts_after_the_first_node() {
    let agents = [broken(new("b")), old("a"), old("c"), away(old("d"))];
    let plan = plan(&agents, 0);
    assert_eq!(plan.replace, Vec::<&Agent>::new());
    assert_eq!(plan.outdated, 3);
    let (agent, why) = plan.halted().unwrap();
    assert_eq!((agent.node.as_str(), why), ("b", "ErrImagePull: not found"));
    // So does one that came up elsewhere and not on this node.
    assert_eq!(
        replaced(&[new("a"), broken(new("b")), old("c")], 0),
        [""; 0]
    );
}

#[test]
fn what_is_a_matter_of_time_is_no_halt() {
    for agents in [
        vec![starting(new("a")), old("b")],
        // There is nothing left to halt.
        vec![broken(new("a")), new("b")],
        // It goes on.
        vec![broken(new("a")), new("b"), mute(old("c"))],
    ] {
        assert_eq!(plan(&agents, 0).halted(), None, "{agents:#?}");
    }
    let agents = [broken(new("a")), new("b")];
    let first = plan(&agents, 0).trouble().map(|(agent, _)| &*agent.node);
    assert_eq!(first, Some("a"));
}

#[test]
fn what_is_broken_is_mended_first() {
    let bad = |node: &str| broken(agent(node, "bad"));
    for (what, agents, expected) in [
        (
            "another image",
            vec![old("a"), bad("b"), old("c")],
            vec!["b"],
        ),
        (
            "the old one again",
            vec![new("a"), bad("b"), new("c")],
            vec!["b"],
        ),
        ("as a canary", vec![bad("a"), bad("b")], vec!["a"]),
        (
            "then the others",
            vec![new("a"), bad("b"), bad("c"), old("d")],
            vec!["b", "c"],
        ),
        (
            "which wait for that",
            vec![new("a"), starting(new("b")), old("d")],
            vec![],
        ),
        (
            "broken again",
            vec![broken(new("a")), bad("b"), old("c")],
            vec![],
        ),
    ] {
        assert_eq!(replaced(&agents, 0), expected, "{what}");
    }
}
