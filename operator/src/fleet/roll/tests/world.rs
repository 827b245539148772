//! A cluster in which things happen in any order, and what an update does to it.

use std::collections::BTreeSet;

use edict_crds::nodestate::Contact;
use proptest::prelude::*;

use crate::fleet::roll::{Agent, OTHERS_MAX, SERVING_MAX, plan};

/// A node of the simulation.
#[derive(Clone, Debug)]
struct Sim {
    attended: bool,
    /// The image of its pod, and whether that runs, answers, or is ending.
    pod: Option<(usize, Life)>,
    /// Whether it served when its pod was deleted, and has not served since.
    taken: bool,
    /// Nothing comes up here, whatever the image.
    cursed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Starting,
    Ready,
    Answering,
    Ending,
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The operator looks, and does what it plans.
    Look,
    /// The kubelet, the DaemonSet's controller or the operator's other half gets on with a node.
    Step(usize),
    /// A node goes away or comes back.
    Node(usize),
}

#[derive(Clone, Debug)]
struct World {
    nodes: Vec<Sim>,
    /// Which images work.
    images: Vec<bool>,
    newest: usize,
}

impl World {
    fn agents(&self) -> Vec<Agent> {
        let agent = |(number, node): (usize, &Sim)| {
            let (image, life) = node.pod?;
            Some(Agent {
                pod: format!("{number}"),
                uid: String::new(),
                resource_version: None,
                node: format!("{number:02}"),
                attended: node.attended,
                revision: format!("{image}"),
                current: image == self.newest,
                ending: life == Life::Ending,
                ready: node.attended && matches!(life, Life::Ready | Life::Answering),
                contact: Some(match life {
                    Life::Answering if node.attended => Contact::Ready,
                    Life::Ending => Contact::NoAgent,
                    _ => Contact::Unreachable,
                }),
                trouble: (life == Life::Starting && !self.works(node, image))
                    .then(|| "it does not".to_owned()),
            })
        };
        self.nodes.iter().enumerate().filter_map(agent).collect()
    }

    fn works(&self, node: &Sim, image: usize) -> bool {
        self.images[image] && !node.cursed
    }

    /// Looks, and gives the numbers of the nodes whose agent was replaced.
    fn look(&mut self) -> BTreeSet<usize> {
        let agents = self.agents();
        let missing = self.nodes.len() - agents.len();
        let plan = plan(&agents, missing);
        let replaced: BTreeSet<usize> = plan
            .replace
            .iter()
            .map(|one| one.pod.parse().unwrap())
            .collect();
        for number in &replaced {
            let node = &mut self.nodes[*number];
            let (image, life) = node.pod.unwrap();
            assert!(image != self.newest && life != Life::Ending, "{node:?}");
            node.taken |= life == Life::Answering && node.attended;
            node.pod = Some((image, Life::Ending));
        }
        replaced
    }

    fn step(&mut self, number: usize) {
        let newest = self.newest;
        let node = self.nodes[number].clone();
        if !node.attended {
            return;
        }
        let next = match node.pod {
            None => Some((newest, Life::Starting)),
            Some((_, Life::Ending)) => None,
            Some((image, Life::Starting)) if self.works(&node, image) => Some((image, Life::Ready)),
            Some((image, Life::Ready)) => Some((image, Life::Answering)),
            same => same,
        };
        let serves = matches!(next, Some((_, Life::Answering)));
        self.nodes[number].pod = next;
        self.nodes[number].taken &= !serves;
    }

    /// How many agents that served are away because of an update, on nodes that are there.
    fn taken(&self) -> usize {
        let taken = |node: &&Sim| node.taken && node.attended;
        self.nodes.iter().filter(taken).count()
    }

    /// Everything happens until nothing does any more; false where that does not end.
    fn settle(&mut self) -> bool {
        for _ in 0..1000 {
            let before = format!("{:?}", self.nodes);
            self.look();
            assert!(self.taken() <= SERVING_MAX, "{:#?}", self.nodes);
            (0..self.nodes.len()).for_each(|number| self.step(number));
            if format!("{:?}", self.nodes) == before {
                return true;
            }
        }
        false
    }

    fn is_updated(&self, node: &Sim) -> bool {
        node.pod == Some((self.newest, Life::Answering))
    }
}

fn world(curses: bool) -> impl Strategy<Value = World> {
    let life = prop_oneof![
        1 => Just(Life::Starting),
        1 => Just(Life::Ready),
        6 => Just(Life::Answering),
        1 => Just(Life::Ending),
    ];
    let node = (prop::bool::weighted(0.8), life, prop::bool::weighted(0.2)).prop_map(
        move |(attended, life, cursed)| Sim {
            // One that is away and at fault can't be told from a bad image when it comes back.
            attended: attended || (cursed && curses),
            // What does not come up is not up.
            pod: Some((
                0,
                if cursed && curses {
                    Life::Starting
                } else {
                    life
                },
            )),
            taken: false,
            cursed: cursed && curses,
        },
    );
    prop::collection::vec(node, 1..=OTHERS_MAX).prop_map(|nodes| World {
        nodes,
        images: vec![true],
        newest: 0,
    })
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => Just(Happening::Look),
        8 => any::<usize>().prop_map(Happening::Step),
        1 => any::<usize>().prop_map(Happening::Node),
    ];
    prop::collection::vec(one, 0..200)
}

proptest! {
    /// Whatever happens in whatever order, an update takes one serving agent away at a time.
    #[test]
    fn the_budget_is_kept(mut world in world(true), works: bool, all in happenings()) {
        world.images.push(works);
        world.newest = 1;
        let count = world.nodes.len();
        for happening in all {
            match happening {
                Happening::Look => {
                    // Those that are back with what was begun before they went count too.
                    let before = world.taken();
                    let replaced = world.look();
                    let now = world.taken();
                    prop_assert!(now <= SERVING_MAX.max(before), "{before} {now} {:#?}", world.nodes);
                    prop_assert!(replaced.len() <= OTHERS_MAX);
                }
                Happening::Step(number) => world.step(number % count),
                Happening::Node(number) => {
                    let node = &mut world.nodes[number % count];
                    node.attended = !node.attended;
                }
            }
        }
    }

    /// A broken image costs the cluster one agent that served, and a good one after it mends that.
    #[test]
    fn a_broken_image_costs_one_agent(mut world in world(false), mended: bool) {
        let serving = |world: &World| world.nodes.iter()
            .filter(|node| node.attended && matches!(node.pod, Some((_, Life::Answering))))
            .count();
        prop_assert!(world.settle());
        let before = serving(&world);
        world.images.push(false);
        world.newest = 1;
        prop_assert!(world.settle());
        prop_assert!(serving(&world) + 1 >= before);
        let bad = world.nodes.iter().filter(|node| node.pod == Some((1, Life::Starting))).count();
        prop_assert_eq!(bad, before.min(1));
        // Another image, or the old one again: the broken agent is the first one to be replaced.
        world.newest = if mended { world.images.push(true); 2 } else { 0 };
        let first = world.look();
        let was_bad = |number: &usize| world.nodes[*number].pod == Some((1, Life::Ending));
        prop_assert!(first.iter().all(was_bad) && first.len() == bad, "{first:?}");
        prop_assert!(world.settle());
        prop_assert_eq!(serving(&world), before);
    }

    /// A good image reaches every node that is there, those that are at fault themselves included,
    /// and the others when they come back.
    #[test]
    fn a_good_image_gets_everywhere(mut world in world(true)) {
        prop_assert!(world.settle());
        // Where no agent runs, nothing tells a node that is at fault from a bad image.
        prop_assume!(world.nodes.iter().any(|node| node.attended && !node.cursed));
        world.images.push(true);
        world.newest = 1;
        prop_assert!(world.settle());
        for node in world.nodes.iter().filter(|node| node.attended) {
            prop_assert_eq!(node.pod.map(|(image, _)| image), Some(1));
            prop_assert!(node.cursed || world.is_updated(node), "{:#?}", world.nodes);
        }
        world.nodes.iter_mut().for_each(|node| node.attended = true);
        prop_assert!(world.settle());
        for node in world.nodes.iter().filter(|node| !node.cursed) {
            prop_assert!(world.is_updated(node), "{:#?}", world.nodes);
        }
    }
}
