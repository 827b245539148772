//! One file of 1 KiB, journal and all, beside the least that makes a file safe on disk; and a push that
//! changes nothing beside reading and hashing the same files.
//!
//! Both sides of a comparison take turns in one run, and the median turn of each counts: a disk is
//! slow at times, for both.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use edict_agent::apply::Agent;
use edict_agent::host::Rooted;
use edict_agent::host::mount::MountInfo;
use edict_agent::state::Store;
use edict_agent::units::Manager;
use edict_core::config::Config;
use edict_core::config::files::{File as Wanted, Files};
use edict_core::content::Contents;
use edict_core::digest::of_bytes;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, Restarts, digest};
use edict_core::wire::Push;
use jiff::Timestamp;

const KIB: usize = 1024;
const TURNS: usize = 101;
/// Files of a push that changes nothing.
const RESOURCES: usize = 50;
fn agent(folder: &Path) -> Agent {
    let etc = folder.join("etc");
    fs::create_dir_all(&etc).unwrap();
    let host = Rooted::open(&etc, MountInfo::new(&etc).unwrap()).unwrap();
    let store = Store::open(&folder.join("state")).unwrap();
    Agent::open("node".to_owned(), host, Manager::Offline, store, None).unwrap()
}

fn push(files: impl IntoIterator<Item = (String, String)>) -> Push {
    let file = |(path, content)| Wanted {
        path,
        content: Some(content),
        content_from: None,
        mode: None,
        owner: None,
        notify: None,
    };
    let config = Config {
        files: Some(Files(files.into_iter().map(file).collect())),
        ..Config::default()
    };
    let layer = Layer {
        uid: "uid".to_owned(),
        name: "name".to_owned(),
        priority: 0,
        created: Timestamp::UNIX_EPOCH,
        digest: digest(&config, &Contents::default()),
        deletion_policy: DeletionPolicy::Restore,
        restarts: Restarts::Allowed,
        drift: edict_core::layer::Drift::Correct,
        retry: None,
        facts: None,
        config,
        contents: Contents::default(),
    };
    Push::new(
        "node".to_owned(),
        Policy::default(),
        vec![layer],
        Vec::new(),
    )
}

fn median(mut turns: Vec<Duration>) -> Duration {
    turns.sort();
    turns[turns.len() / 2]
}

/// Turns of both, one after the other.
fn turns(mut ours: impl FnMut(usize), mut least: impl FnMut(usize)) -> [Duration; 2] {
    let timed = |work: &mut dyn FnMut(usize), turn| {
        let began = Instant::now();
        work(turn);
        began.elapsed()
    };
    let both: (Vec<_>, Vec<_>) = (0..TURNS)
        .map(|turn| (timed(&mut ours, turn), timed(&mut least, turn)))
        .unzip();
    [median(both.0), median(both.1)]
}

/// One file, applied and made safe.
pub fn one(folder: &Path) -> [Duration; 2] {
    let agent = agent(folder);
    let contents = ["a", "b"].map(|letter| letter.repeat(KIB));
    let pushes = contents
        .clone()
        .map(|content| push([("/etc/motd".to_owned(), content)]));
    let beside = File::open(folder).unwrap();
    turns(
        |turn| {
            let report = agent.push(&pushes[turn % 2], &mut |_| {});
            assert!(report.is_settled(), "{report:?}");
        },
        |turn| {
            let partial = folder.join("partial");
            let mut file = File::create(&partial).unwrap();
            file.write_all(contents[turn % 2].as_bytes()).unwrap();
            file.sync_all().unwrap();
            fs::rename(&partial, folder.join("whole")).unwrap();
            beside.sync_all().unwrap();
        },
    )
}

/// A push that changes nothing.
pub fn idle(folder: &Path) -> [Duration; 2] {
    let folder = &folder.join("idle");
    let agent = agent(folder);
    let content = "a".repeat(KIB);
    let files = (0..RESOURCES).map(|number| (format!("/etc/edict/{number}"), content.clone()));
    let push = push(files);
    assert!(agent.push(&push, &mut |_| {}).is_settled(), "it applies");
    turns(
        |_| {
            black_box(agent.push(&push, &mut |_| {}));
        },
        |_| {
            for number in 0..RESOURCES {
                let path = folder.join(format!("etc/edict/{number}"));
                black_box(of_bytes(&fs::read(path).unwrap()));
            }
        },
    )
}
