//! Several layers on one file or key.

use edict_core::layer::{DeletionPolicy, Layer};
use edict_core::wire::Outcome;

use crate::node::{DOCKER, Node, Say as _, layer, leaving, resources};

#[test]
fn both_orders_of_leaving() {
    let (a, b) = (
        layer("a")
            .priority(1)
            .file("/etc/motd", "a")
            .mirrors(&["https://a"]),
        layer("b")
            .file("/etc/motd", "b")
            .mirrors(&["https://b"])
            .insecure(&["b"]),
    );
    for (first, second, between) in [(&a, &b, "b"), (&b, &a, "a")] {
        let node = Node::new();
        node.write("/etc/motd", "before");
        node.write(DOCKER, "{ \"registry-mirrors\": [] }");
        let tree = node.tree();
        let report = node.push(&[&b, &a]);
        assert_eq!(node.read("/etc/motd"), "a");
        assert_eq!(report.layers[0].name, "a", "the winner goes first");
        let lost: Vec<_> = report.layers[1]
            .conflicts
            .iter()
            .map(|c| (c.path.as_str(), c.winner_name.as_str()))
            .collect();
        assert_eq!(lost, [(DOCKER, "a"), ("/etc/motd", "a")]);
        assert_eq!(
            resources(&report),
            [
                "/etc/motd a replaced",
                "/etc/docker/daemon.json#insecure-registries b replaced",
                "/etc/docker/daemon.json#registry-mirrors a replaced"
            ]
        );
        node.release(first);
        assert_eq!(node.read("/etc/motd"), between);
        assert!(node.read(DOCKER).contains(&format!("https://{between}")));
        assert_eq!(node.in_force(), [between]);
        node.release(second);
        assert_eq!(node.tree(), tree);
    }
}

#[test]
fn the_loser_is_told_in_the_last_report_too() {
    let node = Node::new();
    let b = layer("b").file("/etc/motd", "b");
    node.apply(&b);
    // The winner comes later in time, and the loser's own part stays what it was.
    let a = layer("a").priority(1).file("/etc/motd", "a");
    let report = node.push(&[&a, &b]);
    assert_eq!(report.layers[1].conflicts.len(), 1);
    assert_eq!(report.layers[1].outcome, Outcome::Applied);
    let report = node.push_all(&[&b], &[leaving(&a, DeletionPolicy::Restore)]);
    assert_eq!(report.layers[0].conflicts, []);
    assert_eq!(node.read("/etc/motd"), "b");
}

#[test]
fn a_file_takes_over_from_keys_and_back() {
    let mut node = Node::new();
    node.policy.allowed = vec![DOCKER.into()];
    let original = "{ \"debug\":true ,\"registry-mirrors\":[]}";
    node.write(DOCKER, original);
    let tree = node.tree();
    let keys = layer("keys").mirrors(&["https://m"]);
    let file = layer("file").priority(1).file(DOCKER, "{\"all\": 1}");
    let report = node.push(&[&keys, &file]);
    assert_eq!(node.read(DOCKER), "{\"all\": 1}");
    assert_eq!(report.layers[1].conflicts.len(), 1);
    assert_eq!(report.layers[1].pending, [""; 0], "it has nothing there");
    node.release(&file);
    assert!(
        node.read(DOCKER)
            .starts_with("{ \"debug\":true ,\"registry-mirrors\":[")
    );
    assert!(node.read(DOCKER).contains("https://m"));
    node.apply(&file);
    assert_eq!(node.read(DOCKER), "{\"all\": 1}");
    node.release(&keys);
    assert_eq!(node.read(DOCKER), "{\"all\": 1}");
    node.release(&file);
    assert_eq!(node.tree(), tree);

    // The keys were there first this time.
    node.apply(&keys);
    node.apply(&file);
    assert_eq!(node.read(DOCKER), "{\"all\": 1}");
    node.release(&file);
    node.release(&keys);
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_file_takes_over_from_those_under_it_and_back() {
    let node = Node::new();
    let tree = node.tree();
    let under = layer("under")
        .file("/etc/edict/x/y", "1")
        .file("/etc/edict/z", "2");
    let file = layer("file").priority(1).file("/etc/edict/x", "3");
    node.apply(&under);
    node.apply(&file);
    assert_eq!(node.read("/etc/edict/x"), "3");
    assert_eq!(node.read("/etc/edict/z"), "2");
    node.release(&file);
    assert_eq!(node.read("/etc/edict/x/y"), "1");
    node.apply(&file);
    node.release(&under);
    assert_eq!(node.read("/etc/edict/x"), "3");
    node.release(&file);
    assert_eq!(node.tree(), tree);
}

#[test]
fn retained_files_stay_with_the_next_owner() {
    let node = Node::new();
    node.write("/etc/motd", "before");
    let a = layer("a")
        .priority(1)
        .file("/etc/motd", "a")
        .file("/etc/issue", "a");
    let b = layer("b").file("/etc/motd", "b");
    node.push(&[&a, &b]);
    node.release_with(&a, DeletionPolicy::Retain);
    assert_eq!(node.read("/etc/motd"), "b");
    assert_eq!(node.read("/etc/issue"), "a");
    node.release(&b);
    assert_eq!(node.read("/etc/motd"), "before");
    assert_eq!(node.read("/etc/issue"), "a");
}

/// Whoever wins, the loser is told so and nobody fails: a file of Edict's in the way of another one is
/// no file of the host.
#[test]
fn a_file_and_a_file_under_it() {
    let above = layer("above").file("/etc/edict/x", "above");
    let under = layer("under").file("/etc/edict/x/y", "under");
    for (winner, loser) in [(&above, &under), (&under, &above)] {
        let winner = &winner.clone().priority(1);
        let path = |layer: &Layer| {
            if layer.name == "above" {
                "/etc/edict/x"
            } else {
                "/etc/edict/x/y"
            }
        };
        for pushes in [
            vec![vec![loser], vec![winner, loser]],
            vec![vec![winner], vec![loser, winner]],
        ] {
            let node = Node::new();
            let tree = node.tree();
            for layers in pushes {
                let report = node.push(&layers);
                assert!(report.is_settled(), "{:?}", report.layers);
            }
            let report = node.push(&[winner, loser]);
            assert_eq!(node.read(path(winner)), winner.name);
            assert_eq!(report.layers[0].conflicts, []);
            let lost = report.layers[1].conflicts.iter().map(|lost| &*lost.path);
            assert_eq!(lost.collect::<Vec<_>>(), [path(loser)]);
            node.release(winner);
            assert_eq!(node.read(path(loser)), loser.name);
            node.release(loser);
            assert_eq!(node.tree(), tree);
        }
    }
}

#[test]
fn a_layer_moves_its_file_into_a_folder_of_that_name_and_back() {
    let node = Node::new();
    let tree = node.tree();
    let file = layer("a").file("/etc/edict/x", "x");
    let folder = layer("a").file("/etc/edict/x/y", "y");
    for _ in 0..2 {
        node.apply(&file);
        assert_eq!(node.read("/etc/edict/x"), "x");
        node.apply(&folder);
        assert_eq!(node.read("/etc/edict/x/y"), "y");
    }
    // What somebody else made of it is not Edict's to take away.
    node.apply(&file);
    node.write("/etc/edict/x", "somebody's");
    let message = node.fail(&folder);
    assert!(
        message.starts_with("/etc/edict/x is not a folder"),
        "{message}"
    );
    node.write("/etc/edict/x", "x");
    node.release(&file);
    assert_eq!(node.tree(), tree);
}
