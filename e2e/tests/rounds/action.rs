//! What happens in a round: drawn from a seed, so that it can happen again.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// So many NodeConfigs there are at most.
pub const SLOTS: usize = 6;
/// What they write, below the test's folder. `deep` can't be a file and a folder.
const PATHS: [&str; 5] = ["one", "two", "three", "deep", "deep/one"];

/// One thing that happens. Nodes and NodeConfigs are numbers.
#[derive(Clone, Debug)]
pub enum Action {
    /// A NodeConfig is made, or changed.
    Write(usize, Spec),
    /// A NodeConfig goes, if it is there.
    Delete(usize),
    /// A node gets the label, or loses it.
    Label(usize, bool),
    /// The leading operator dies.
    KillLeader,
    /// A node's agent dies.
    KillAgent(usize),
    /// A node stands still for the rest of the round, and until the operator says so if that is true.
    Freeze(usize, bool),
    /// A node's agent has no network for that long.
    Cut(usize, bool),
}

/// What a NodeConfig says.
#[derive(Clone, Debug)]
pub struct Spec {
    pub target: Target,
    pub priority: i32,
    pub files: Vec<&'static str>,
    pub mirrors: bool,
    pub insecure: bool,
}

/// Which nodes it is for.
#[derive(Clone, Debug)]
pub enum Target {
    All,
    Masters,
    Workers,
    Named(Vec<usize>),
    Labelled,
}

/// What happens, round for round.
pub struct Rounds {
    runner: TestRunner,
    nodes: usize,
}

impl Rounds {
    /// Those of a seed, for a cluster of so many nodes.
    pub fn new(seed: u64, nodes: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let runner = TestRunner::new_with_rng(Config::default(), rng);
        Self { runner, nodes }
    }

    /// The next one.
    pub fn next(&mut self) -> Vec<Action> {
        let actions = prop::collection::vec(action(self.nodes), 2..=6).prop_map(bounded);
        let tree = actions.new_tree(&mut self.runner);
        tree.expect("nothing is ever rejected").current()
    }
}

fn action(nodes: usize) -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..SLOTS, spec(nodes)).prop_map(|(slot, spec)| Action::Write(slot, spec)),
        2 => (0..SLOTS).prop_map(Action::Delete),
        2 => (0..nodes, any::<bool>()).prop_map(|(node, label)| Action::Label(node, label)),
        1 => Just(Action::KillLeader),
        1 => (0..nodes).prop_map(Action::KillAgent),
        1 => (0..nodes, any::<bool>()).prop_map(|(node, long)| Action::Freeze(node, long)),
        1 => (0..nodes, any::<bool>()).prop_map(|(node, long)| Action::Cut(node, long)),
    ]
}

fn spec(nodes: usize) -> impl Strategy<Value = Spec> {
    let target = prop_oneof![
        3 => Just(Target::All),
        2 => Just(Target::Masters),
        2 => Just(Target::Workers),
        2 => subsequence((0..nodes).collect::<Vec<_>>(), 1..=3).prop_map(Target::Named),
        2 => Just(Target::Labelled),
    ];
    let files = subsequence(PATHS.to_vec(), 0..=3);
    let keys = select(vec![
        (false, false),
        (true, false),
        (false, true),
        (true, true),
    ]);
    (target, -1..=2, files, keys).prop_map(|(target, priority, mut files, (mirrors, insecure))| {
        if files.contains(&"deep") {
            files.retain(|path| *path != "deep/one");
        }
        if files.is_empty() && !mirrors && !insecure {
            files.push(PATHS[0]);
        }
        Spec {
            target,
            priority,
            files,
            mirrors,
            insecure,
        }
    })
}

/// What goes together: each NodeConfig and each node once, one node that stands still, one that has
/// no network and one dead leader at most. Faults come first, so that the rest happens during them.
fn bounded(mut actions: Vec<Action>) -> Vec<Action> {
    let (mut slots, mut nodes, mut kinds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    actions.sort_by_key(|action| !matches!(action, Action::Freeze(..) | Action::Cut(..)));
    actions.retain(|action| match action {
        Action::Write(slot, _) | Action::Delete(slot) => slots.insert(*slot),
        Action::Label(..) => true,
        Action::KillLeader => kinds.insert("leader"),
        Action::KillAgent(node) => nodes.insert(*node),
        Action::Freeze(node, _) => kinds.insert("freeze") && nodes.insert(*node),
        Action::Cut(node, _) => kinds.insert("cut") && nodes.insert(*node),
    });
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        let drawn = |seed| {
            let mut rounds = Rounds::new(seed, 5);
            let actions: Vec<_> = (0..20).map(|_| rounds.next()).collect();
            format!("{actions:?}")
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        for kind in [
            "Write",
            "Delete",
            "Label",
            "KillLeader",
            "KillAgent",
            "Freeze",
            "Cut",
        ] {
            assert!(drawn(1).contains(kind), "{kind} is never drawn");
        }
    }
}
