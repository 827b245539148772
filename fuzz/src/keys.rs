//! Single keys of a JSON file: a key that was set is there, whatever else the file says is still
//! there, byte for byte, and taking the key away is the way back.
//!
//! An input is a line with the key (a JSON array of names, or names with dots between them), a
//! line with the value (JSON, or else a string as it stands), and the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use edict_core::format::json::{self, Error};
use edict_core::resource::KeyPath;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How deep the key and its value may go together. A parser takes 128 levels, and no key of
/// Edict's has more than a handful.
const DEPTH_MAX: usize = 64;

/// Whether the key could be set.
pub fn holds(bytes: &[u8]) -> bool {
    let whole = String::from_utf8_lossy(bytes);
    let (key, rest) = whole.split_once('\n').unwrap_or((&whole, ""));
    let (value, text) = rest.split_once('\n').unwrap_or((rest, ""));
    let key = KeyPath(
        serde_json::from_str(key)
            .unwrap_or_else(|_| key.split('.').map(ToOwned::to_owned).collect()),
    );
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    if key.0.is_empty() || key.0.len() + depth(&value) > DEPTH_MAX {
        return false;
    }
    let Ok(before) = json::parse(text) else {
        assert!(json::get(text, &key).is_err());
        assert!(json::set(text, &key, &value).is_err());
        assert!(json::unset(text, &key).is_err());
        return false;
    };
    // Remove this once core has serde_json read every number as it is written (float_roundtrip).
    if !is_exact(&value) || !is_exact(&before) {
        return false;
    }
    if !text.trim_ascii().is_empty() {
        let read: Value = serde_json::from_str(text).expect("what is taken is JSON");
        assert_eq!(read, before);
    }
    takes_away(text, &key, &before);

    let after = match (json::set(text, &key, &value), with(&before, &key.0, &value)) {
        (Ok(after), Some(expected)) => {
            let read: Value = serde_json::from_str(&after).expect("what is written is JSON");
            assert_eq!(read, expected, "{after}");
            after
        }
        (Err(Error::NotAnObjectAt(_)), None) => return false,
        (result, expected) => unreachable!("{result:?} where {expected:?} is due"),
    };
    assert_eq!(json::get(&after, &key), Ok(Some(value.clone())));
    assert_eq!(json::set(&after, &key, &value).as_ref(), Ok(&after));
    changes_nothing_else(text, &after, &key);

    let expected = json::parse(&after).expect("it has been read above");
    takes_away(&after, &key, &expected);
    if let Some(old) = at(&before, &key.0) {
        let back = json::set(&after, &key, old).expect("it was there");
        assert_eq!(json::parse(&back).as_ref(), Ok(&before), "{back}");
    } else {
        // The objects on the way stay, as a person may have come to use them.
        let back = json::unset(&after, &key).expect("it can be set");
        let way = with(&before, &key.0, &value).and_then(|whole| without(&whole, &key.0));
        assert_eq!(json::parse(&back).ok(), way, "{back}");
        if key.0.len() == 1 {
            assert_eq!(json::parse(&back).as_ref(), Ok(&before), "{back}");
        }
    }
    true
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

/// Whether the numbers in it read back as they are written.
fn is_exact(value: &Value) -> bool {
    serde_json::from_str(&value.to_string()).is_ok_and(|read: Value| read == *value)
}

fn at<'a>(whole: &'a Value, key: &[String]) -> Option<&'a Value> {
    key.iter()
        .try_fold(whole, |value, name| value.as_object()?.get(name))
}

/// `whole` with `value` at `key`; none where something on the way has no keys.
fn with(whole: &Value, key: &[String], value: &Value) -> Option<Value> {
    let Some((name, rest)) = key.split_first() else {
        return Some(value.clone());
    };
    let mut map = whole.as_object()?.clone();
    let empty = Value::Object(Map::new());
    let inner = with(map.get(name).unwrap_or(&empty), rest, value)?;
    map.insert(name.clone(), inner);
    Some(Value::Object(map))
}

/// `whole` without `key`; none where it is not there.
fn without(whole: &Value, key: &[String]) -> Option<Value> {
    let (name, rest) = key.split_first()?;
    let mut map = whole.as_object()?.clone();
    if rest.is_empty() {
        map.remove(name)?;
    } else {
        let inner = without(map.get(name)?, rest)?;
        map.insert(name.clone(), inner);
    }
    Some(Value::Object(map))
}

fn takes_away(text: &str, key: &KeyPath, whole: &Value) {
    let taken = json::unset(text, key).expect("it is JSON");
    assert_eq!(json::get(&taken, key), Ok(None), "{taken}");
    assert_eq!(json::unset(&taken, key).as_ref(), Ok(&taken));
    match without(whole, &key.0) {
        Some(expected) => {
            assert_eq!(json::parse(&taken), Ok(expected), "{taken}");
            let (before, after) = (raw(text), raw(&taken));
            for (name, value) in &before {
                let own = *name == key.0[0];
                let kept = after
                    .get(name)
                    .is_some_and(|kept| kept.get() == value.get());
                assert!(own || kept, "{name:?} in {taken}");
            }
        }
        None => assert_eq!(taken, text),
    }
}

/// The bytes that are not the key's own are those that were there.
fn changes_nothing_else(text: &str, after: &str, key: &KeyPath) {
    if text.trim_ascii().is_empty() || text == after {
        return;
    }
    if let Some(Range { start, end }) = place(text, &key.0) {
        assert!(after.starts_with(&text[..start]), "{after}");
        assert!(after.ends_with(&text[end..]), "{after}");
    } else {
        let blank = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let text: Vec<_> = text.bytes().filter(blank).collect();
        let after: Vec<_> = after.bytes().filter(blank).collect();
        let same = |(a, b): &(&u8, &u8)| a == b;
        let ahead = text.iter().zip(&after).take_while(same).count();
        let behind = text.iter().rev().zip(after.iter().rev());
        let behind = behind.take_while(same).count();
        assert!(ahead + behind >= text.len(), "something is put in, no more");
    }
}

fn raw(text: &str) -> BTreeMap<Cow<'_, str>, &RawValue> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Where the value of `key` stands in `text`.
fn place(text: &str, key: &[String]) -> Option<Range<usize>> {
    let (name, rest) = key.split_first()?;
    let found = raw(text).get(name.as_str())?.get();
    let start = found.as_ptr().addr() - text.as_ptr().addr();
    if rest.is_empty() {
        return Some(start..start + found.len());
    }
    let inner = place(found, rest)?;
    Some(start + inner.start..start + inner.end)
}
