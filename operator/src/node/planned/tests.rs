#![expect(
    clippy::needless_pass_by_value,
    reason = "json!() reads best where it is written"
)]

use edict_core::config::firewall::Facts;
use edict_core::wire;
use serde_json::{Value, json};

use super::*;

fn reference() -> LayerRef {
    serde_json::from_value(json!({
        "uid": "u", "name": "a", "revision": "a-1", "priority": 3,
        "created": "2026-01-01T00:00:00Z", "deletionPolicy": "Restore",
    }))
    .unwrap()
}

fn hello(change: Value) -> Hello {
    let mut hello = json!({
        "wire": wire::VERSION, "node": "n", "version": "0.1.0", "blocks": ["docker"], "layers": [],
        "plans": true,
    });
    for (key, value) in change.as_object().unwrap() {
        hello[key] = value.clone();
    }
    serde_json::from_value(hello).unwrap()
}

fn ask(hello: &Hello, mirror: &str) -> Result<Push, (PlanOutcome, String)> {
    let config = serde_json::from_value(json!({"docker": {"registryMirrors": [mirror]}})).unwrap();
    let asked = question(
        "n",
        &reference(),
        config,
        Contents::default(),
        hello,
        &Policy::default(),
        &Facts::default(),
    );
    asked.map_err(|status| {
        assert_eq!(
            (&*status.uid, &*status.name, &*status.revision),
            ("u", "a", "a-1")
        );
        (status.outcome, status.message)
    })
}

/// What an agent says that would change these files, each by a diff, and these units.
fn planned(layer: Value, diffs: &[&str], units: Value) -> Planned {
    let change = |(n, diff): (usize, &&str)| json!({"path": format!("/etc/{n}"), "change": "Change", "inPlace": false, "diff": diff});
    let mut report = json!({"uid": "u", "name": "a", "digest": "d"});
    for (key, value) in layer.as_object().unwrap() {
        report[key] = value.clone();
    }
    serde_json::from_value(json!({
        "report": {"digest": "p", "layers": [report], "releases": [], "resources": []},
        "changes": diffs.iter().enumerate().map(change).collect::<Vec<_>>(),
        "units": units,
    }))
    .unwrap()
}

fn answered(layer: Value, diffs: &[&str], units: Value) -> PlanStatus {
    answer(&reference(), planned(layer, diffs, units), 1)
}

#[test]
fn only_the_layer_in_question_is_asked_for() {
    let push = ask(&hello(json!({})), "https://m.example").unwrap();
    let layers: Vec<_> = push.layers.iter().map(|layer| &*layer.name).collect();
    assert_eq!((layers, push.releases.len()), (vec!["a"], 0));
    assert_eq!((&*push.node, push.layers[0].priority), ("n", 3));
}

#[test]
fn what_needs_no_agent_is_said_without_one() {
    let good = "https://m.example";
    let (outcome, why) = ask(&hello(json!({"plans": false})), good).unwrap_err();
    assert_eq!(outcome, PlanOutcome::Failed);
    assert!(why.contains("update the Fleet's agent image"), "{why}");
    let (outcome, why) = ask(&hello(json!({"blocks": ["files"]})), good).unwrap_err();
    assert_eq!(outcome, PlanOutcome::Failed);
    assert!(
        why.contains("does not know docker of NodeConfig a"),
        "{why}"
    );
    let (outcome, why) = ask(&hello(json!({})), "https://m.example/$(reboot)").unwrap_err();
    assert_eq!(outcome, PlanOutcome::Refused);
    assert!(why.contains("spec.docker.registryMirrors[0]"), "{why}");
}

#[test]
fn a_change_is_said_with_its_files_units_and_diff() {
    let layer = json!({"outcome": "Applied", "conflicts": [
        {"path": "/etc/b", "winner": "w", "winnerName": "other", "loser": "u"},
    ]});
    let units = json!({"docker.service": "Reload", "k.service": "Restart", "x.service": "Reread"});
    let status = answered(layer, &["+a\n", "-b\u{1b}\n"], units);
    assert_eq!(status.outcome, PlanOutcome::Changes);
    assert_eq!(
        status.message,
        "would change 2 files, reload docker.service, restart k.service, have systemd reread x.service; \
         some of it belongs to NodeConfig other"
    );
    assert_eq!(
        status.units,
        [
            "docker.service: reload",
            "k.service: restart",
            "x.service: daemon-reload"
        ]
    );
    assert_eq!(status.diff, "+a\n-b\\u{1b}\n");
    assert_eq!(status.conflicts.len(), 1);
    assert_eq!(status.conflicts[0].winner, "other");
    let setting = "/proc/sys/net/ipv4/ip_forward";
    let mut two = planned(json!({"outcome": "Applied"}), &["+1\n", "+a\n"], json!({}));
    two.changes[0].path = setting.to_owned();
    assert_eq!(
        answer(&reference(), two, 1).message,
        "would change 1 file, set 1 kernel setting"
    );
    let one = answered(
        json!({"outcome": "Unread", "message": "m"}),
        &["+a\n"],
        json!({}),
    );
    assert_eq!(
        (one.outcome, &*one.message),
        (PlanOutcome::Changes, "would change 1 file; m")
    );
    let unit = answered(
        json!({"outcome": "Applied"}),
        &[],
        json!({"a.service": "Restart"}),
    );
    assert_eq!(
        (unit.outcome, &*unit.message),
        (PlanOutcome::Changes, "would restart a.service")
    );
}

#[test]
fn what_would_not_be_applied_says_why() {
    let nothing = answered(json!({"outcome": "Applied"}), &[], json!({}));
    assert_eq!(
        (nothing.outcome, &*nothing.message),
        (PlanOutcome::Unchanged, "would change nothing")
    );
    let failed = answered(
        json!({"outcome": "Failed", "message": "see https://user:secret@host"}),
        &[],
        json!({}),
    );
    assert_eq!(
        (failed.outcome, &*failed.message),
        (PlanOutcome::Failed, "see https://***@host")
    );
    let refused = answered(
        json!({"outcome": "Refused", "message": "no"}),
        &[],
        json!({}),
    );
    assert_eq!(refused.outcome, PlanOutcome::Refused);
    let mut silent = planned(json!({"outcome": "Applied"}), &["+a\n"], json!({}));
    silent.report.layers.clear();
    let silent = answer(&reference(), silent, 1);
    assert_eq!(silent.outcome, PlanOutcome::Failed);
    assert!(silent.message.contains("says nothing"), "{silent:?}");
}

#[test]
fn all_diffs_of_a_node_have_room_together() {
    let long = "+a line of the diff\n".repeat(10_000);
    let many: Vec<_> = (0..10_000).map(|_| "").collect();
    for share in [1, 7, 256] {
        let room = DIFFS_MAX / share;
        for diffs in [&[&*long, &*long][..], &many] {
            let planned = planned(json!({"outcome": "Applied"}), diffs, json!({}));
            let status = answer(&reference(), planned, share);
            let length = status.diff.len();
            assert!(length <= room + 64, "{share}: {length}");
            assert!(length >= room / 2, "{share}: {length}");
            assert!(status.diff.contains("left out"), "{share}: {}", status.diff);
        }
    }
}

/// Of all that a status may say, a node's plans together have a share.
#[test]
fn plans_stay_small_however_many_there_are() {
    let conflict = |n: usize| json!({"path": format!("/etc/{n}/{}", "a".repeat(200)), "winner": "w", "winnerName": format!("other-{n}"), "loser": "u"});
    let layer = json!({
        "outcome": "PendingReload", "message": "m".repeat(5000),
        "conflicts": (0..200).map(conflict).collect::<Vec<_>>(),
    });
    let units: serde_json::Map<_, _> = (0..200)
        .map(|n| (format!("{n}-{}.service", "u".repeat(200)), json!("Reload")))
        .collect();
    for share in [1, 8, 64, 256] {
        let diff = "+line\n".repeat(20_000);
        let planned = planned(layer.clone(), &[&diff], json!(units));
        let one = answer(&reference(), planned, share);
        let all = serde_json::to_vec(&one).unwrap().len() * share;
        assert!(
            all < 400 * 1024 && (share > 8 || all < 160 * 1024),
            "{share}: {all}"
        );
    }
}

#[test]
fn an_answer_counts_until_something_else_would_be_asked() {
    let mut plans = Plans::default();
    let (now, reference) = (Instant::now(), reference());
    let said = failed(&reference, "see https://user:secret@host");
    assert_eq!(said.message, "see https://***@host");
    assert_eq!(plans.keep("q".to_owned(), said.clone(), AGAIN), said);
    assert_eq!(plans.known("u", "q", now), Some(said.clone()));
    let late = now + AGAIN.checked_sub(Duration::from_secs(1)).unwrap();
    assert_eq!(plans.known("u", "q", late), Some(said));
    assert_eq!(plans.known("u", "q", now + AGAIN * 2), None);
    assert_eq!(plans.known("u", "other", now), None);
    assert_eq!(plans.known("v", "q", now), None);
    let other = LayerRef {
        revision: "a-2".to_owned(),
        ..reference.clone()
    };
    assert!(plans.last(&reference).is_some());
    assert_eq!(plans.last(&other), None);
    plans.retain(&[reference]);
    assert!(plans.known("u", "q", now).is_some());
    plans.retain(&[]);
    assert_eq!(plans.known("u", "q", now), None);
}
