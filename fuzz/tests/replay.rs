//! Replays what fuzzing has kept, without a fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Every input of a target holds, and some of them come as far as what the target is about.
fn replay(target: &str, holds: fn(&[u8]) -> bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut failed = Vec::new();
    let (mut far, mut all) = (0, 0);
    for kind in ["corpus", "regressions"] {
        let Ok(folder) = fs::read_dir(root.join(kind).join(target)) else {
            continue;
        };
        for entry in folder {
            let path = entry.expect("the folder can be read").path();
            let bytes = fs::read(&path).expect("the input can be read");
            match catch_unwind(|| holds(&bytes)) {
                Ok(came_far) => far += usize::from(came_far),
                Err(_) => failed.push(path),
            }
            all += 1;
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!(
        far >= 5,
        "{far} of {all} inputs come far: have the formats changed?"
    );
}

#[test]
fn guard() {
    replay("guard", fuzz::guard::holds);
}

#[test]
fn keys() {
    replay("keys", fuzz::keys::holds);
}

#[test]
fn wire() {
    replay("wire", fuzz::wire::holds);
}

/// The corpora of the injection tests are inputs as they are.
#[test]
fn injections() {
    for corpus in [
        include_str!("../../fixtures/injection/hostile.txt"),
        include_str!("../../fixtures/injection/honest.txt"),
    ] {
        for line in corpus.lines() {
            fuzz::guard::holds(line.as_bytes());
        }
        fuzz::guard::holds(corpus.as_bytes());
    }
}
