//! Single keys of a JSON file, changed on its text: every byte that is not the key's own stays as
//! somebody wrote it.
//!
//! The file has to be JSON as Docker reads it (RFC 8259), with an object at the top. Duplicate
//! keys are an error: programs differ in which of them they mean. A file without anything in it
//! counts as an empty object.

use std::collections::HashSet;
use std::fmt;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::resource::KeyPath;

/// Why a file's keys can't be read or changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON, or has a key twice.
    #[error("not valid JSON: {0}")]
    Invalid(String),
    /// There is something other than an object at the top.
    #[error("not a JSON object: keys can only be set in {{...}}")]
    NotAnObject,
    /// A key on the way holds something that has no keys.
    #[error("{0} is not an object, so nothing can be set in it")]
    NotAnObjectAt(KeyPath),
}

/// What the file says, if it is JSON without duplicate keys and an object.
pub fn parse(text: &str) -> Result<Value, Error> {
    if is_blank(text) {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let unique = Unique.deserialize(&mut reader).and_then(|()| reader.end());
    unique.map_err(|error| Error::Invalid(error.to_string()))?;
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::NotAnObject),
        Err(error) => Err(Error::Invalid(error.to_string())),
    }
}

/// The value at `key`; `None` where there is none.
pub fn get(text: &str, key: &KeyPath) -> Result<Option<Value>, Error> {
    let mut value = parse(text)?;
    for name in &key.0 {
        match value.get_mut(name) {
            Some(inner) => value = inner.take(),
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// `text` with `value` at `key`. What already says so stays as it is, byte for byte.
pub fn set(text: &str, key: &KeyPath, value: &Value) -> Result<String, Error> {
    if get(text, key)?.as_ref() == Some(value) {
        return Ok(text.to_owned());
    }
    let (root, mut object) = open(text)?;
    let Some((last, outer)) = key.0.split_last() else {
        return Ok(text.to_owned());
    };
    for (depth, name) in outer.iter().enumerate() {
        if object.get(name).is_none() {
            // In one piece: objects made one inside the other take twice as long with each.
            let within = key.0[depth + 1..].iter().rev();
            let whole = within.fold(input(value), |inner, name| {
                CstInputValue::Object(vec![(name.clone(), inner)])
            });
            object.append(name, whole);
            return Ok(root.to_string());
        }
        object = object
            .object_value(name)
            .ok_or_else(|| Error::NotAnObjectAt(KeyPath(outer[..=depth].to_vec())))?;
    }
    match object.get(last) {
        Some(property) => property.set_value(input(value)),
        None => {
            object.append(last, input(value));
        }
    }
    Ok(root.to_string())
}

/// `text` without `key`, if it was there.
pub fn unset(text: &str, key: &KeyPath) -> Result<String, Error> {
    if get(text, key)?.is_none() {
        return Ok(text.to_owned());
    }
    let (root, mut object) = open(text)?;
    let Some((last, outer)) = key.0.split_last() else {
        return Ok(text.to_owned());
    };
    for name in outer {
        match object.object_value(name) {
            Some(inner) => object = inner,
            None => return Ok(text.to_owned()),
        }
    }
    if let Some(property) = object.get(last) {
        property.remove();
    }
    Ok(root.to_string())
}

/// Whether the file says nothing: no key at all.
pub fn is_empty(text: &str) -> bool {
    parse(text).is_ok_and(|value| value.as_object().is_some_and(serde_json::Map::is_empty))
}

fn is_blank(text: &str) -> bool {
    text.trim_matches([' ', '\t', '\r', '\n']).is_empty()
}

/// A syntax tree of a text that [`parse`] has accepted.
fn open(text: &str) -> Result<(CstRootNode, CstObject), Error> {
    let text = if is_blank(text) { "{\n}\n" } else { text };
    let root = CstRootNode::parse(text, &ParseOptions::default())
        .map_err(|error| Error::Invalid(error.to_string()))?;
    let object = root.object_value().ok_or(Error::NotAnObject)?;
    Ok((root, object))
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(bool) => CstInputValue::Bool(*bool),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(string) => CstInputValue::String(string.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(k, v)| (k.clone(), input(v))).collect())
        }
    }
}

/// Reads any JSON and refuses an object that has a key twice.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                let key: String = key.escape_debug().take(80).collect();
                return Err(A::Error::custom(format!(
                    "the key \"{key}\" is there twice"
                )));
            }
            map.next_value_seed(Self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Creating 60 objects one inside the other took gigabytes.
    #[test]
    fn a_deep_key_takes_no_longer_than_its_depth() {
        let deep = KeyPath(vec!["a".to_owned(); 60]);
        let text = set("{\r\n }", &deep, &json!(1)).unwrap();
        assert_eq!(get(&text, &deep), Ok(Some(json!(1))));
        assert!(text.len() < 60 * 60 * 4, "{}", text.len());
    }

    fn key(path: &str) -> KeyPath {
        KeyPath(path.split('.').map(Into::into).collect())
    }

    /// As a person lays it out, foreign keys and odd blanks included.
    const BY_HAND: &str =
        "{\n   \"debug\" :true,\n\n \"log-opts\": {\"max-size\":  \"10m\"}\n  }\n";

    #[test]
    fn a_new_key_leaves_all_other_bytes_alone() {
        let after = set(BY_HAND, &key("registry-mirrors"), &json!(["https://m"])).unwrap();
        let line = "\n   \"registry-mirrors\": [\"https://m\"]";
        assert_eq!(after.replace(&format!(",{line}"), ""), BY_HAND, "{after}");
        assert_eq!(unset(&after, &key("registry-mirrors")).unwrap(), BY_HAND);
    }

    #[test]
    fn an_existing_key_is_changed_in_place() {
        let text = "{ \"a\": 1,   \"m\" :  [ \"x\" ] , \"z\": 2 }";
        let after = set(text, &key("m"), &json!("new")).unwrap();
        assert_eq!(after, "{ \"a\": 1,   \"m\" :  \"new\" , \"z\": 2 }");
        assert_eq!(set(text, &key("m"), &json!(["x"])).unwrap(), text);
    }

    #[test]
    fn keys_inside_objects() {
        let after = set(BY_HAND, &key("log-opts.max-file"), &json!("3")).unwrap();
        assert_eq!(
            get(&after, &key("log-opts")).unwrap(),
            Some(json!({"max-size": "10m", "max-file": "3"}))
        );
        let made = set(BY_HAND, &key("a.b"), &json!(null)).unwrap();
        assert_eq!(get(&made, &key("a.b")).unwrap(), Some(json!(null)));
        assert_eq!(unset(&made, &key("a.b.c")).unwrap(), made);
        assert_eq!(
            get(&unset(&made, &key("a.b")).unwrap(), &key("a")).unwrap(),
            Some(json!({}))
        );
        let error = set(BY_HAND, &key("debug.x"), &json!(1)).unwrap_err();
        assert_eq!(error, Error::NotAnObjectAt(key("debug")));
        let error = set("{\"a\": {\"b\": 1}}", &key("a.b.c"), &json!(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.b is not an object, so nothing can be set in it"
        );
    }

    #[test]
    fn a_file_without_content_is_an_empty_object() {
        for text in ["", " \n", "{}", "{ }"] {
            assert!(is_empty(text), "{text:?}");
            let after = set(text, &key("a"), &json!(1)).unwrap();
            assert_eq!(parse(&after).unwrap(), json!({"a": 1}), "{after}");
            assert!(is_empty(&unset(&after, &key("a")).unwrap()));
        }
        assert_eq!(set("", &key("a"), &json!(1)).unwrap(), "{\n  \"a\": 1\n}\n");
        assert!(!is_empty("{\"a\": 1}"));
        assert!(!is_empty("["));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for (text, reason) in [
            ("{", "EOF"),
            ("{} x", "trailing characters"),
            ("{\"a\": 1,}", "trailing comma"),
            ("{/* c */}", "key must be a string"),
            ("{'a': 1}", "key must be a string"),
            ("{\"a\": 1, \"a\": 2}", "the key \"a\" is there twice"),
            ("{\"a\": 1, \"\\u0061\": 2}", "the key \"a\" is there twice"),
            (
                "{\"o\": {\"b\": 1, \"b\": 1}}",
                "the key \"b\" is there twice",
            ),
            (
                "{\"o\": [{\"b\": 1, \"b\": 1}]}",
                "the key \"b\" is there twice",
            ),
            ("\u{feff}{}", "expected"),
        ] {
            let Err(Error::Invalid(said)) = parse(text) else {
                panic!("{text}");
            };
            assert!(said.contains(reason), "{text}: {said}");
            assert!(set(text, &key("a"), &json!(1)).is_err(), "{text}");
            assert!(unset(text, &key("a")).is_err(), "{text}");
        }
        assert_eq!(parse("[]"), Err(Error::NotAnObject));
        let all = "{\"a\": [null, true, -1, 1.5, 18446744073709551615, \"s\", {}]}";
        assert!(parse(all).is_ok());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = (Value, String)> {
        prop::collection::btree_map("[a-e]|.{0,3}", any_json(), 0..5).prop_flat_map(|map| {
            let value = Value::Object(map.into_iter().collect());
            let plain = value.to_string();
            let pretty = serde_json::to_string_pretty(&value).expect("it is JSON");
            (Just(value), prop::sample::select(vec![plain, pretty]))
        })
    }

    proptest! {
        #[test]
        fn set_reads_back_and_changes_nothing_else((before, text) in any_object(), name in "[a-e]|.{0,3}", value in any_json()) {
            let after = set(&text, &KeyPath::top(&name), &value).unwrap();
            let mut expected = before;
            expected[&name] = value;
            prop_assert_eq!(parse(&after).unwrap(), expected);
        }

        #[test]
        fn unset_is_the_way_back((before, text) in any_object(), name in "[a-e]", value in any_json()) {
            let key = KeyPath::top(&name);
            let after = set(&text, &key, &value).unwrap();
            let back = match before.get(&name) {
                Some(old) => set(&after, &key, old).unwrap(),
                None => unset(&after, &key).unwrap(),
            };
            prop_assert_eq!(parse(&back).unwrap(), before);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\",:a1 \n\\\\/*]{0,24}") {
            let _ = set(&text, &KeyPath::top("a"), &json!([1]));
            let _ = unset(&text, &KeyPath::top("a"));
        }
    }
}
