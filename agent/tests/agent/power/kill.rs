//! The agent is killed for real, by the kernel, before each operation of each step; the next one has
//! the node as it was before the step or as it is after it, and can go on.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::life::{self, Course, Life};
use super::record::Recorder;
use super::{Promised, Recovered, goes_on};
use crate::node::Node;

/// Says to [`victim`] where its node is, which step it takes, and when it dies.
const VICTIM: &str = "EDICT_TEST_VICTIM";

/// The process that is killed; as a test of its own it does nothing.
#[test]
fn victim() {
    let Ok(orders) = std::env::var(VICTIM) else {
        return;
    };
    let [folder, step, at]: [&str; 3] = orders.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let folder = Path::new(folder);
    let recorder = Recorder::over(folder, &["etc", "state"]).0;
    let agent = life::open(folder, &recorder, &life::mounts(Course::InPlace)).unwrap();
    recorder.with(|record| record.kill_at = Some(record.ops.len() + at.parse::<usize>().unwrap()));
    life::take(&agent, &recorder, Course::InPlace, step.parse().unwrap());
}

/// Has a process take a step until it is killed; says whether it was.
fn kill(node: &Node, step: usize, at: usize) -> bool {
    let folder = node.folder.path().display();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "power::kill::victim"])
        .env(VICTIM, format!("{folder} {step} {at}"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

#[test]
fn killed_at_any_operation() {
    let life = Life::of(Course::InPlace);
    for step in 1..=3 {
        for at in 0.. {
            let mut node = life::prepared();
            let quiet = Recorder::quiet();
            node.agent = Some(life::open(node.folder.path(), &quiet, &life.mounts).unwrap());
            for before in 1..step {
                life::take(node.agent(), &quiet, Course::InPlace, before);
            }
            node.agent = None;
            let killed = kill(&node, step, at);
            node.agent = Some(life::open(node.folder.path(), &quiet, &life.mounts).unwrap());
            let recovered = Recovered::of(&node);
            let said = if killed { step - 1 } else { step };
            let promised = Promised {
                step: said,
                report: said,
                epoch: said as u64,
            };
            promised
                .is_kept(&life, &recovered)
                .and_then(|()| goes_on(&life, &node))
                .unwrap_or_else(|said| panic!("step {step}, killed before {at}: {said}"));
            if !killed {
                assert!(at > 20, "step {step} has {at} operations");
                break;
            }
        }
    }
}
