//! The plan by tables: no host, only what was seen.

use std::collections::{BTreeMap, BTreeSet};

use edict_agent::host::{Found, Meta, Seen, Whole};
use edict_agent::ledger::{FileEntry, Ledger, Original, Stamp};
use edict_agent::plan::{Error, Facts, Plan, plan};
use edict_core::format::Format;
use edict_core::layer::DeletionPolicy::{self, Restore, RestoreForced, Retain};
use edict_core::resolve::{Owned, Resolution, SharedFile};
use edict_core::resource::{File, KeyPath, Owner};
use serde_json::json;

const PATH: &str = "/etc/x";

fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        uid: 1,
        gid: 2,
    }
}

fn whole(content: &str, mode: u32) -> Whole {
    let content = content.into();
    Whole {
        content,
        meta: meta(mode),
    }
}

fn file(content: &str) -> Found {
    Found::File(whole(content, 0o640))
}

fn seen(found: Found) -> BTreeMap<String, Seen> {
    let seen = Seen {
        found,
        missing: vec![],
        mount_point: false,
    };
    [(PATH.into(), seen)].into()
}

fn wants_file(mode: Option<u32>) -> Resolution {
    let what = File {
        path: PATH.into(),
        content: b"ours".into(),
        mode,
        owner: None,
        secret: false,
    };
    let by = "a".into();
    Resolution {
        files: [(PATH.into(), Owned { by, what })].into(),
        ..Resolution::default()
    }
}

fn wants_key(key: &str) -> Resolution {
    let key = KeyPath(key.split('.').map(Into::into).collect());
    let (by, what) = ("a".into(), json!("ours"));
    let shared = SharedFile {
        format: Format::Json,
        values: [(key, Owned { by, what })].into(),
    };
    Resolution {
        keys: [(PATH.into(), shared)].into(),
        ..Resolution::default()
    }
}

fn planned(
    wanted: &Resolution,
    found: Found,
    ledger: &Ledger,
    leaving: DeletionPolicy,
) -> Result<Plan, Error> {
    let original = whole("before", 0o600);
    let sha256 = Stamp::of(&original).sha256;
    let facts = Facts {
        seen: &seen(found),
        ledger,
        originals: &[(sha256, original.content)].into(),
        owner: Owner { uid: 3, gid: 4 },
        layer: Some("a"),
    };
    plan(wanted, &BTreeSet::from([PATH.to_owned()]), facts, leaving)
}

/// A ledger that says that Edict wrote `ours` over `before`, or over nothing.
fn wrote(before: bool) -> Ledger {
    let original = before.then(|| whole("before", 0o600));
    let entry = FileEntry {
        original: Original::of(original.as_ref()),
        written: vec![Stamp::of(&whole("ours", 0o640))],
    };
    Ledger {
        files: [(PATH.into(), entry)].into(),
        ..Ledger::default()
    }
}

/// What a plan does, in words.
fn words(plan: &Plan) -> String {
    let mut words: Vec<_> = plan
        .writes
        .values()
        .map(|whole| {
            let Meta { mode, uid, gid } = whole.meta;
            let content = String::from_utf8_lossy(&whole.content);
            format!("write {content} {mode:o} {uid}:{gid}")
        })
        .collect();
    words.extend(plan.removals.iter().map(|_| "remove".to_owned()));
    words.extend(plan.foreign.iter().map(|what| format!("leave {what}")));
    words.join(", ")
}

#[test]
fn a_file_is_taken() {
    for (found, mode, does, kept) in [
        (Found::Absent, None, "write ours 644 3:4", 0),
        (Found::Absent, Some(0o600), "write ours 600 3:4", 0),
        (file("theirs"), None, "write ours 640 1:2", 1),
        (file("theirs"), Some(0o600), "write ours 600 1:2", 1),
        (file("ours"), None, "", 1),
        (file("ours"), Some(0o640), "", 1),
        (file("ours"), Some(0o600), "write ours 600 1:2", 1),
    ] {
        let said = format!("{found:?} {mode:?}");
        let plan = planned(&wants_file(mode), found, &Ledger::default(), Restore).unwrap();
        assert_eq!(words(&plan), does, "{said}");
        assert_eq!(plan.blobs.len(), kept, "{said}");
        assert!(plan.ledger.files.contains_key(PATH), "{said}");
    }
}

#[test]
fn a_file_is_kept() {
    for (found, does) in [
        // As somebody gave it that mode, or as it was before Edict.
        (Found::File(whole("ours", 0o400)), ""),
        (Found::File(whole("theirs", 0o400)), "write ours 400 1:2"),
        (file("ours"), "write ours 600 1:2"),
        (Found::Absent, "write ours 600 1:2"),
    ] {
        let said = format!("{found:?}");
        let plan = planned(&wants_file(None), found, &wrote(true), Restore).unwrap();
        assert_eq!(words(&plan), does, "{said}");
        assert_eq!(plan.blobs.len(), 0, "the original is taken once");
        assert_eq!(
            plan.ledger.files[PATH].original,
            wrote(true).files[PATH].original
        );
    }
}

#[test]
fn a_file_is_given_back() {
    let ours = || file("ours");
    let before = || Found::File(whole("before", 0o600));
    for (was_there, found, leaving, does) in [
        (true, ours(), Restore, "write before 600 1:2"),
        (true, ours(), RestoreForced, "write before 600 1:2"),
        (true, ours(), Retain, ""),
        (false, ours(), Restore, "remove"),
        (false, ours(), Retain, ""),
        (true, file("theirs"), Restore, "leave /etc/x"),
        (true, file("theirs"), RestoreForced, "write before 600 1:2"),
        (true, file("theirs"), Retain, ""),
        (false, file("theirs"), Restore, "leave /etc/x"),
        (false, file("theirs"), RestoreForced, "remove"),
        (
            true,
            Found::File(whole("ours", 0o644)),
            Restore,
            "leave /etc/x",
        ),
        (true, before(), Restore, ""),
        (true, Found::Absent, Restore, "leave /etc/x"),
        (true, Found::Absent, RestoreForced, "write before 600 1:2"),
        (false, Found::Absent, Restore, ""),
        (true, Found::Folder, Restore, "leave /etc/x"),
        (true, Found::Folder, RestoreForced, "leave /etc/x"),
        (true, Found::TooLarge, RestoreForced, "leave /etc/x"),
        (
            false,
            Found::Other("a symlink"),
            RestoreForced,
            "leave /etc/x",
        ),
    ] {
        let said = format!("{was_there} {found:?} {leaving:?}");
        let plan = planned(&Resolution::default(), found, &wrote(was_there), leaving).unwrap();
        assert_eq!(words(&plan), does, "{said}");
        assert_eq!(plan.ledger, Ledger::default(), "{said}");
    }
}

#[test]
fn keys_are_set_and_given_back() {
    for (text, key, set) in [
        (None, "k", "{\n  \"k\": \"ours\"\n}\n"),
        (Some("{ }"), "k", "{\n  \"k\": \"ours\"\n}"),
        (Some("{\"k\" :  null}"), "k", "{\"k\" :  \"ours\"}"),
        (Some("{\"k\":1, \"l\":2}"), "k", "{\"k\":\"ours\", \"l\":2}"),
        (Some("{\"o\":{\"k\":1}}"), "o.k", "{\"o\":{\"k\":\"ours\"}}"),
    ] {
        let found = text.map_or(Found::Absent, file);
        let there = planned(&wants_key(key), found.clone(), &Ledger::default(), Restore).unwrap();
        let written = there.writes[PATH].clone();
        assert_eq!(String::from_utf8(written.content.clone()).unwrap(), set);
        let now = Found::File(written.clone());
        let again = planned(&wants_key(key), now, &there.ledger, Restore).unwrap();
        assert!(again.is_idle());
        assert_eq!(again.ledger, there.ledger);
        let facts = Facts {
            seen: &seen(Found::File(written)),
            ledger: &there.ledger,
            originals: &there.blobs,
            owner: Owner { uid: 3, gid: 4 },
            layer: Some("a"),
        };
        let touched = BTreeSet::from([PATH.to_owned()]);
        let back = plan(&Resolution::default(), &touched, facts, Restore).unwrap();
        match found {
            Found::File(whole) => assert_eq!(back.writes[PATH], whole),
            _ => assert_eq!(words(&back), "remove"),
        }
        assert_eq!(back.ledger, Ledger::default());
        assert_eq!(back.foreign, [""; 0]);
    }
}

#[test]
fn what_can_not_be_planned() {
    for (wanted, found, said) in [
        (
            wants_file(None),
            Found::Folder,
            "/etc/x is a folder, not a file",
        ),
        (
            wants_file(None),
            Found::Other("a symlink"),
            "/etc/x is a symlink, not a file",
        ),
        (
            wants_file(None),
            Found::TooLarge,
            "/etc/x has more than 10 MiB",
        ),
        (
            wants_key("k"),
            Found::TooLarge,
            "/etc/x has more than 10 MiB",
        ),
        (wants_key("k"), file("{"), "/etc/x: not valid JSON: EOF"),
        (wants_key("k"), file("[]"), "/etc/x: not a JSON object"),
        (
            wants_key("k.l"),
            file("{\"k\":1}"),
            "/etc/x: k is not an object",
        ),
    ] {
        let error = planned(&wanted, found, &Ledger::default(), Restore).unwrap_err();
        assert!(error.to_string().starts_with(said), "{error}");
    }
}

#[test]
fn a_lost_original_is_missed_where_it_is_needed_only() {
    let ledger = wrote(true);
    for (leaving, lost) in [(Restore, true), (Retain, false)] {
        let facts = Facts {
            seen: &seen(file("ours")),
            ledger: &ledger,
            originals: &BTreeMap::new(),
            owner: Owner { uid: 0, gid: 0 },
            layer: Some("a"),
        };
        let touched = BTreeSet::from([PATH.to_owned()]);
        let plan = plan(&Resolution::default(), &touched, facts, leaving);
        let expected = Err(Error::OriginalLost(PATH.into()));
        assert_eq!(plan.is_err(), lost);
        assert!(!lost || plan == expected);
    }
}
