//! What each node must have, from the NodeConfigs that are there and the nodes' labels: written for
//! the tests alone, and as plainly as it can be said.

use std::collections::{BTreeMap, BTreeSet};

use edict_crds::nodeconfig::State;
use serde_json::{Map, Value, json};

/// A NodeConfig.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub target: Target,
    pub priority: i32,
    /// When it was created, in seconds.
    pub created: i64,
    /// Content by path below the test's folder.
    pub files: BTreeMap<String, String>,
    /// Values by key of Docker's file.
    pub docker: BTreeMap<String, String>,
}

/// Which nodes it is for.
#[derive(Clone, Debug)]
pub enum Target {
    All,
    Masters,
    Workers,
    Named(Vec<String>),
    Labelled,
}

/// A node, as far as that matters.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub master: bool,
    pub labelled: bool,
    /// What Docker's file says without Edict; none where there is no such file.
    pub docker: Option<Value>,
}

/// What a node must have.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// Content by path below the test's folder.
    pub files: BTreeMap<String, String>,
    /// The folders that there are below it.
    pub folders: BTreeSet<String>,
    /// Docker's file.
    pub docker: Option<Value>,
    /// The NodeConfigs that are for it, with their priorities.
    pub configs: BTreeMap<String, i32>,
    /// Those that lack something which another one has.
    pub losers: BTreeSet<String>,
}

/// What a NodeConfig must say.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub state: State,
    pub targeted: usize,
    pub applied: usize,
    pub pending: usize,
    pub conflict: bool,
}

impl Target {
    fn means(&self, node: &Node) -> bool {
        match self {
            Self::All => true,
            Self::Masters => node.master,
            Self::Workers => !node.master,
            Self::Named(names) => names.contains(&node.name),
            Self::Labelled => node.labelled,
        }
    }
}

/// What this node must have.
pub fn expect(configs: &[Config], node: &Node) -> Expected {
    let mut meant: Vec<&Config> = configs
        .iter()
        .filter(|one| one.target.means(node))
        .collect();
    // The higher priority has its way, then whoever was there first, then the first name.
    meant.sort_by_key(|one| (-one.priority, one.created, one.name.clone()));
    let mut expected = Expected::default();
    let mut docker: BTreeMap<&String, Value> = BTreeMap::new();
    for config in meant {
        expected
            .configs
            .insert(config.name.clone(), config.priority);
        for (path, content) in &config.files {
            if expected.files.keys().any(|taken| collide(taken, path)) {
                expected.losers.insert(config.name.clone());
            } else {
                expected.files.insert(path.clone(), content.clone());
            }
        }
        for (key, value) in &config.docker {
            if docker.contains_key(key) {
                expected.losers.insert(config.name.clone());
            } else {
                docker.insert(key, json!([value]));
            }
        }
    }
    for path in expected.files.keys() {
        if let Some((folder, _)) = path.split_once('/') {
            expected.folders.insert(folder.to_owned());
        }
    }
    expected.docker.clone_from(&node.docker);
    if !docker.is_empty() {
        let keys: Map<_, _> = docker
            .into_iter()
            .map(|(key, value)| (key.clone(), value))
            .collect();
        let Value::Object(file) = expected.docker.get_or_insert_with(|| json!({})) else {
            unreachable!("Docker's file is an object");
        };
        file.extend(keys);
    }
    expected
}

/// Whether two paths are the same, or one is a folder of the other.
fn collide(one: &str, other: &str) -> bool {
    one == other || one.starts_with(&format!("{other}/")) || other.starts_with(&format!("{one}/"))
}

/// What this NodeConfig must say, when every node has what it must have.
pub fn say(config: &Config, nodes: &BTreeMap<String, Expected>) -> Said {
    let mine: Vec<_> = nodes
        .values()
        .filter(|node| node.configs.contains_key(&config.name))
        .collect();
    Said {
        state: if mine.is_empty() {
            State::NoNodes
        } else {
            State::Applied
        },
        targeted: mine.len(),
        applied: mine.len(),
        pending: 0,
        conflict: mine.iter().any(|node| node.losers.contains(&config.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, priority: i32, created: i64, files: &[&str], keys: &[&str]) -> Config {
        let own = |all: &[&str]| {
            let pairs = all.iter().map(|one| ((*one).to_owned(), name.to_owned()));
            pairs.collect()
        };
        Config {
            name: name.to_owned(),
            target: Target::All,
            priority,
            created,
            files: own(files),
            docker: own(keys),
        }
    }

    fn node(docker: Option<Value>) -> Node {
        Node {
            name: "n".to_owned(),
            master: false,
            labelled: false,
            docker,
        }
    }

    fn owner<'a>(expected: &'a Expected, path: &str) -> Option<&'a str> {
        expected.files.get(path).map(String::as_str)
    }

    #[test]
    fn priority_then_age_then_name() {
        for (one, other, winner) in [
            (
                config("a", 0, 1, &["x"], &[]),
                config("b", 1, 2, &["x"], &[]),
                "b",
            ),
            (
                config("a", 0, 2, &["x"], &[]),
                config("b", 0, 1, &["x"], &[]),
                "b",
            ),
            (
                config("b", 0, 1, &["x"], &[]),
                config("a", 0, 1, &["x"], &[]),
                "a",
            ),
        ] {
            let expected = expect(&[one, other], &node(None));
            assert_eq!(owner(&expected, "x"), Some(winner));
            assert_eq!(expected.losers.len(), 1);
            assert!(!expected.losers.contains(winner));
        }
    }

    #[test]
    fn a_folder_and_a_file_of_its_name_do_not_go_together() {
        let configs = [
            config("a", 1, 0, &["deep"], &[]),
            config("b", 0, 0, &["deep/one", "deeper"], &[]),
        ];
        let expected = expect(&configs, &node(None));
        assert_eq!(owner(&expected, "deep"), Some("a"));
        assert_eq!(owner(&expected, "deep/one"), None);
        assert_eq!(owner(&expected, "deeper"), Some("b"));
        assert_eq!(expected.folders, BTreeSet::new());
        let expected = expect(&configs[1..], &node(None));
        assert_eq!(expected.folders, ["deep".to_owned()].into());
        assert_eq!(expected.losers, BTreeSet::new());
    }

    #[test]
    fn keys_join_what_the_node_has() {
        let configs = [
            config("a", 1, 0, &[], &["mirrors"]),
            config("b", 0, 0, &[], &["mirrors", "insecure"]),
        ];
        let own = json!({"debug": true});
        let expected = expect(&configs, &node(Some(own.clone())));
        assert_eq!(
            expected.docker,
            Some(json!({"debug": true, "mirrors": ["a"], "insecure": ["b"]}))
        );
        assert_eq!(expect(&[], &node(Some(own.clone()))).docker, Some(own));
        assert_eq!(expect(&[], &node(None)), Expected::default());
        let nodes = [("n".to_owned(), expected)].into();
        let said = Said {
            state: State::Applied,
            targeted: 1,
            applied: 1,
            pending: 0,
            conflict: true,
        };
        assert_eq!(say(&configs[1], &nodes), said);
    }

    #[test]
    fn a_target_means_its_nodes_only() {
        let master = Node {
            master: true,
            labelled: true,
            ..node(None)
        };
        for (target, on_master, on_worker) in [
            (Target::All, true, true),
            (Target::Masters, true, false),
            (Target::Workers, false, true),
            (Target::Labelled, true, false),
            (Target::Named(vec!["n".to_owned()]), true, true),
            (Target::Named(vec!["m".to_owned()]), false, false),
        ] {
            assert_eq!(target.means(&master), on_master, "{target:?}");
            assert_eq!(target.means(&node(None)), on_worker, "{target:?}");
        }
        let config = Config {
            target: Target::Masters,
            ..config("a", 0, 0, &["x"], &[])
        };
        let nodes = [(
            "n".to_owned(),
            expect(std::slice::from_ref(&config), &node(None)),
        )]
        .into();
        assert_eq!(say(&config, &nodes).state, State::NoNodes);
    }
}
