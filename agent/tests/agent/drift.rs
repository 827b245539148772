//! What somebody else changes of what is in force: seen, corrected or only said, and not for ever.

use std::fs;
use std::time::{Duration, Instant};

use edict_agent::watch;
use edict_core::layer::{Drift, Layer, Restarts};
use edict_core::wire::DriftOutcome::{self, Corrected, Damped, Failed, Reported};
use edict_core::wire::{Drifted, Outcome};
use serde_json::json;

use crate::node::{DOCKER, Node, Say as _, layer};
use crate::services::{BROKEN, Services};

const FILE: &str = "/etc/edict/a";
const UNIT: &str = "app.service";
/// What is to be seen at once; a busy machine gets time.
const SEEN: Duration = Duration::from_secs(20);

fn file() -> Layer {
    let file = json!({"path": FILE, "content": "ours\n", "mode": "0644"});
    layer("a").block("files", json!([file]))
}

fn reporting(mut layer: Layer) -> Layer {
    layer.drift = Drift::Report;
    layer
}

/// Looks once, and says what is known then.
fn look(node: &Node) -> Vec<Drifted> {
    look_at(node, Instant::now())
}

fn look_at(node: &Node, now: Instant) -> Vec<Drifted> {
    node.agent().look_for_drift(now);
    known(node)
}

fn known(node: &Node) -> Vec<Drifted> {
    node.agent().hello().drifts.unwrap().list
}

/// Path and key, what became of it, and how often it was corrected.
fn short(known: &[Drifted]) -> Vec<(String, DriftOutcome, u32)> {
    let short = |one: &Drifted| {
        let key = one
            .key
            .as_ref()
            .map(|key| format!("#{key}"))
            .unwrap_or_default();
        (format!("{}{key}", one.path), one.outcome, one.times)
    };
    known.iter().map(short).collect()
}

#[test]
fn what_is_in_force_is_no_drift() {
    let node = Node::new();
    node.write(DOCKER, "{\"debug\": true}\n");
    node.push(&[&file(), &layer("b").mirrors(&["https://a.example"])]);
    assert_eq!(look(&node), []);
    // Nor is what somebody changes beside it.
    let text = node.read(DOCKER).replace("true", "false");
    node.write(DOCKER, &text);
    node.write("/etc/edict/other", "x");
    assert_eq!(look(&node), []);
    assert_eq!(node.read(DOCKER), text);
    assert_eq!(node.agent().hello().drifts.unwrap().count, 0);
}

#[test]
fn a_file_that_somebody_changes_is_written_again() {
    let node = Node::new();
    node.apply(&file());
    let tree = node.tree();
    for (n, (change, what)) in (1..).zip([
        (
            (|node: &Node| node.write(FILE, "theirs\n")) as fn(&Node),
            "it says something else",
        ),
        (|node| fs::remove_file(node.at(FILE)).unwrap(), "it is gone"),
        (
            |node| fs::remove_dir_all(node.at("/etc/edict")).unwrap(),
            "it is gone",
        ),
        (
            |node| node.chmod(FILE, 0o666),
            "it has mode 0666 and belongs to",
        ),
    ]) {
        change(&node);
        let known = look(&node);
        assert_eq!(short(&known), [(FILE.to_owned(), Corrected, n)]);
        assert!(known[0].what.starts_with(what), "{known:?}");
        assert_eq!((&*known[0].owner, &*known[0].message), ("a", ""));
        assert_eq!(node.tree(), tree);
        // It is corrected once.
        assert_eq!(look(&node), known);
    }
    node.release(&file());
    assert!(!node.exists("/etc/edict"));
}

#[test]
fn a_key_that_somebody_changes_is_named() {
    let node = Node::new();
    node.write(DOCKER, "{\"debug\": true}\n");
    let a = layer("a").mirrors(&["https://a.example"]);
    let b = layer("b").insecure(&["b:5000"]);
    node.push(&[&a, &reporting(b)]);
    let ours = node.read(DOCKER);
    let theirs = ours
        .replace("a.example", "evil.example")
        .replace("b:5000", "c:5000");
    node.write(DOCKER, &theirs);
    let known = short(&look(&node));
    // The file is one: where a part of it is written again, all that is Edict's own is.
    assert_eq!(
        known,
        [
            (format!("{DOCKER}#registry-mirrors"), Corrected, 1),
            (format!("{DOCKER}#insecure-registries"), Reported, 0),
        ]
    );
    assert!(node.read(DOCKER).contains("a.example"));
    let known = format!("{:?}", look(&node));
    assert!(
        !known.contains("evil") && !known.contains("c:5000"),
        "{known}"
    );
}

#[test]
fn what_is_only_reported_stays_until_the_nodeconfig_changes() {
    let node = Node::new();
    let a = reporting(file());
    node.apply(&a);
    node.write(FILE, "theirs\n");
    let known = look(&node);
    assert_eq!(short(&known), [(FILE.to_owned(), Reported, 0)]);
    assert_eq!(look(&node), known);
    // Another one's push leaves it, too.
    node.push(&[&a, &layer("b").file("/etc/edict/b", "")]);
    assert_eq!(node.read(FILE), "theirs\n");
    let b = reporting(layer("a").file(FILE, "new\n"));
    node.push(&[&b]);
    assert_eq!(node.read(FILE), "new\n");
    assert_eq!(look(&node), []);
    // Or until somebody else mends it.
    node.write(FILE, "theirs\n");
    assert_eq!(look(&node).len(), 1);
    node.write(FILE, "new\n");
    assert_eq!(look(&node), []);
}

#[test]
fn who_changes_it_again_and_again_is_not_fought_for_ever() {
    let node = Node::new();
    node.apply(&file());
    let began = Instant::now();
    for n in 1..=5 {
        node.write(FILE, "theirs\n");
        let known = short(&look_at(&node, began));
        assert_eq!(known, [(FILE.to_owned(), Corrected, n)]);
    }
    node.write(FILE, "theirs\n");
    assert_eq!(
        short(&look_at(&node, began)),
        [(FILE.to_owned(), Damped, 5)]
    );
    assert_eq!(node.read(FILE), "theirs\n");
    let later = node.agent().look_for_drift(began).unwrap();
    assert_eq!(later - began, Duration::from_mins(10));
    // What it does not fight about is corrected meanwhile.
    node.push(&[&file(), &layer("b").file("/etc/edict/b", "b\n")]);
    node.write("/etc/edict/b", "theirs\n");
    look_at(&node, began);
    assert_eq!(node.read("/etc/edict/b"), "b\n");
    look_at(&node, later);
    assert_eq!(node.read(FILE), "ours\n");
}

#[test]
fn units_are_told_of_what_is_corrected() {
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.serve(&services);
    let wanted = file().notify(UNIT, edict_core::config::NotifyAction::Restart);
    node.apply(&wanted);
    services.told();
    node.write(FILE, "theirs\n");
    assert_eq!(short(&look(&node)), [(FILE.to_owned(), Corrected, 1)]);
    assert_eq!(services.told(), [format!("restart {UNIT}")]);
    assert!(services.service(UNIT).is_current());
}

#[test]
fn what_can_t_be_corrected_says_why() {
    let node = Node::new();
    node.write(DOCKER, "{}\n");
    node.apply(&layer("a").mirrors(&["https://a.example"]));
    node.write(DOCKER, "{ no JSON");
    let known = look(&node);
    assert_eq!(
        short(&known),
        [(format!("{DOCKER}#registry-mirrors"), Failed, 0)]
    );
    assert!(
        known[0].message.contains("correct the file on the node"),
        "{known:?}"
    );
    assert_eq!(node.read(DOCKER), "{ no JSON");
    assert_eq!(look(&node), known);
    node.write(DOCKER, "{}\n");
    assert_eq!(
        short(&look(&node)),
        [(format!("{DOCKER}#registry-mirrors"), Corrected, 1)]
    );
}

#[test]
fn one_that_can_t_be_corrected_keeps_no_other_from_it() {
    let node = Node::new();
    node.write(DOCKER, "{}\n");
    node.apply(&file().mirrors(&["https://a.example"]));
    node.write(DOCKER, "{ no JSON");
    node.write(FILE, "theirs\n");
    let known = look(&node);
    let said = short(&known);
    assert!(said.contains(&(FILE.to_owned(), Corrected, 1)), "{said:?}");
    assert!(
        said.contains(&(format!("{DOCKER}#registry-mirrors"), Failed, 0)),
        "{said:?}"
    );
    assert_eq!(node.read(FILE), "ours\n");
}

/// It would have its daemon restarted again and again.
#[test]
fn what_a_unit_does_not_run_with_is_left_and_holds_nothing() {
    let mut node = Node::prepared();
    let other = node.at("/etc/edict/other");
    let services = Services::default().with(UNIT, &[node.at(FILE), other]);
    node.serve(&services);
    let wanted = file().notify(UNIT, edict_core::config::NotifyAction::Restart);
    node.apply(&wanted);
    services.told();
    watch::start(node.agent().clone(), node.at("/etc")).unwrap();
    // Another file of the same daemon, which Edict does not have, is what it does not run with.
    node.write("/etc/edict/other", BROKEN);
    node.write(FILE, "theirs\n");
    let known = until(&node, |known| known.len() == 1);
    assert_eq!(short(&known), [(FILE.to_owned(), Failed, 1)]);
    assert!(known[0].message.contains(UNIT), "{known:?}");
    let (told, now) = (services.told().len(), Instant::now());
    assert!(told <= 3, "{told}");
    while now.elapsed() < Duration::from_secs(3) {
        std::thread::yield_now();
    }
    assert_eq!(services.told(), [""; 0]);
    // And it can be mended.
    node.write("/etc/edict/other", "");
    let report = node.push(&[&wanted]).layers.remove(0);
    assert_eq!(
        (report.outcome, report.held),
        (Outcome::Applied, false),
        "{report:?}"
    );
}

#[test]
fn what_is_corrected_and_not_live_is_said_to_be_pending() {
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.serve(&services);
    let mut wanted = file().notify(UNIT, edict_core::config::NotifyAction::Restart);
    node.apply(&wanted);
    wanted.restarts = Restarts::Never;
    node.push(&[&wanted]);
    node.write(FILE, "theirs\n");
    look(&node);
    assert_eq!(node.read(FILE), "ours\n");
    let report = node.agent().hello().report.unwrap().layers.remove(0);
    assert_eq!(
        (report.outcome, report.pending),
        (Outcome::PendingReload, vec![UNIT.to_owned()])
    );
}

/// A kernel's setting that somebody sets has no folder to be watched.
#[test]
fn settings_of_the_kernel_are_looked_at_as_well() {
    const SETTING: &str = "/proc/sys/vm/swappiness";
    let mut node = Node::prepared();
    let services = Services::default().kernel(SETTING, "60");
    node.serve(&services);
    node.apply(&layer("a").sysctl(json!({"vm.swappiness": "10"})));
    services.set_kernel(SETTING, "99");
    assert_eq!(short(&look(&node)), [(SETTING.to_owned(), Corrected, 1)]);
    assert_eq!(services.runs_with(SETTING), "10");
    // That it can't be asked for is nobody's doing.
    let known = known(&node);
    services.silent(true);
    assert_eq!(look(&node), known);
}

#[test]
fn a_line_that_is_spoiled_is_said() {
    let node = Node::new();
    let hosts = json!([{"address": "10.0.0.1", "names": ["mirror"]}]);
    node.apply(&layer("a").block("hosts", hosts));
    let spoiled = "10.0.0.1 mirror\n10.0.0.9 mirror\n";
    node.write("/etc/hosts", spoiled);
    let known = look(&node);
    assert_eq!(
        short(&known),
        [("/etc/hosts#mirror.ipv4".to_owned(), Failed, 0)]
    );
    assert!(
        known[0].message.contains("stands in lines 1 and 2"),
        "{known:?}"
    );
    assert_eq!(node.read("/etc/hosts"), spoiled);
}

#[test]
fn an_interrupted_change_is_nobody_s_drift() {
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.serve(&services);
    let bad = layer("a")
        .file(FILE, BROKEN)
        .notify(UNIT, edict_core::config::NotifyAction::Restart);
    node.push(&[&bad]);
    assert_eq!(look(&node), []);
}

/// What happens beside it in the same folder is nobody's business; but who moves the folder away is seen.
#[test]
fn what_happens_elsewhere_wakes_nobody() {
    let mut node = Node::prepared();
    let services = Services::default().kernel("/proc/sys/vm/swappiness", "60");
    node.serve(&services);
    node.push(&[&file(), &layer("b").sysctl(json!({"vm.swappiness": "10"}))]);
    watch::start(node.agent().clone(), node.at("/etc")).unwrap();
    // Once this is corrected the watcher is at work.
    node.write(FILE, "theirs\n");
    until(&node, |known| known.len() == 1);
    // It looks once more, since that was written; what is asked after that is asked for nothing.
    let asked = || services.asked();
    let deadline = Instant::now() + SEEN;
    let mut before = asked();
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(2500) {
        assert!(Instant::now() < deadline, "it goes on looking");
        if asked() != before {
            (before, quiet) = (asked(), Instant::now());
        }
        std::thread::yield_now();
    }
    for n in 0..20 {
        node.write(&format!("/etc/edict/other-{n}"), "x");
        node.write(&format!("/etc/other-{n}"), "x");
    }
    fs::rename(node.at("/etc/edict"), node.at("/etc/moved")).unwrap();
    until(&node, |known| known.iter().any(|one| one.times == 2));
    assert!(asked() - before <= 3, "{before} {}", asked());
}

/// Waits until what is known is so, and says it.
fn until(node: &Node, holds: impl Fn(&[Drifted]) -> bool) -> Vec<Drifted> {
    let deadline = Instant::now() + SEEN;
    loop {
        let now = known(node);
        if holds(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "last seen: {now:?}");
        std::thread::yield_now();
    }
}

#[test]
fn it_is_seen_as_soon_as_it_happens() {
    let node = Node::new();
    watch::start(node.agent().clone(), node.at("/etc")).unwrap();
    // What comes later is watched as well.
    node.apply(&file());
    node.push(&[&file(), &layer("b").file("/etc/edict/deep/b", "b\n")]);
    for (n, path) in (1..).zip([FILE, "/etc/edict/deep/b"]) {
        node.write(path, "theirs\n");
        until(&node, |known| known.len() == n);
        assert_ne!(node.read(path), "theirs\n");
    }
    let times =
        |known: &[Drifted], n: u32| known.iter().any(|one| one.path == FILE && one.times == n);
    fs::remove_dir_all(node.at("/etc/edict")).unwrap();
    until(&node, |known| times(known, 2));
    fs::rename(node.at(FILE), node.at("/etc/moved")).unwrap();
    until(&node, |known| times(known, 3));
    let mut count = node.agent().drifts();
    assert!(*count.borrow_and_update() >= 4);
}
