//! Modules of the kernel: which of them a layer names, and which stay when it leaves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::config::modules;
use edict_core::format::Format;
use edict_core::resolve::Resolution;
use edict_core::resource::{Place, Resource};

/// The modules that are to be loaded.
pub fn named(resources: &[Resource]) -> Vec<&str> {
    let keys = resources.iter().filter_map(|resource| match resource {
        Resource::Keys(keys) if keys.format == Format::Modules => Some(keys.values.keys()),
        _ => None,
    });
    let names = keys.flatten().flat_map(|key| &key.0);
    names.map(String::as_str).collect()
}

/// The modules that are to be loaded, each with its place.
fn listed(resolution: &Resolution) -> BTreeMap<String, Place> {
    let lists = resolution.keys.iter();
    let lists = lists.filter(|(_, list)| list.format == Format::Modules);
    let places = lists.flat_map(|(path, list)| {
        let keys = list.values.keys();
        keys.map(move |key| (key.to_string(), Place::key(path, key)))
    });
    places.collect()
}

/// The modules that are to be loaded no more, of those whose place has changed. A kernel that has loaded
/// one keeps it.
pub fn left(before: &Resolution, after: &Resolution, changed: &BTreeSet<Place>) -> Vec<String> {
    let after = listed(after);
    let gone = listed(before).into_iter();
    let gone = gone.filter(|(name, at)| !after.contains_key(name) && changed.contains(at));
    gone.map(|(name, _)| name).collect()
}

/// The modules whose parameters are others now, of those that were to be loaded before: a kernel that has
/// loaded one runs it with those that it was loaded with.
pub fn stale(before: &Resolution, after: &Resolution, changed: &BTreeSet<Place>) -> Vec<String> {
    let before = listed(before);
    let still = listed(after).into_keys();
    let still = still.filter(|name| before.contains_key(name));
    let changed = |name: &String| {
        let file = Place::file(&modules::parameters(name));
        changed.iter().any(|place| place.overlaps(&file))
    };
    still.filter(changed).collect()
}

#[cfg(test)]
mod tests {
    use edict_core::resolve::{Owned, SharedFile};
    use edict_core::resource::KeyPath;
    use serde_json::Value;

    use super::*;

    const PATH: &str = "/etc/modules-load.d/x.conf";

    fn list(format: Format, names: &[&str]) -> Resolution {
        let value = |name: &&str| {
            let owned = Owned {
                by: "a".to_owned(),
                what: Value::from(""),
            };
            (KeyPath::top(name), owned)
        };
        let shared = SharedFile {
            format,
            values: names.iter().map(value).collect(),
        };
        Resolution {
            keys: [(PATH.to_owned(), shared)].into(),
            ..Resolution::default()
        }
    }

    #[test]
    fn what_leaves_and_was_taken_out_stays_loaded() {
        let before = list(Format::Modules, &["a", "b", "c"]);
        let after = list(Format::Modules, &["b"]);
        let place = |name: &str| Place::key(PATH, &KeyPath::top(name));
        let left = |after: &Resolution, changed: &[Place]| {
            super::left(&before, after, &changed.iter().cloned().collect())
        };
        let all = ["a", "b", "c"].map(place);
        assert_eq!(left(&after, &all), ["a", "c"]);
        // One that is left in the file goes nowhere.
        assert_eq!(left(&after, &all[..2]), ["a"]);
        assert_eq!(left(&Resolution::default(), &all), ["a", "b", "c"]);
        let parameters = Place::file("/etc/modprobe.d/zz-edict-b.conf");
        let changed: BTreeSet<_> = [parameters, place("c")].into();
        assert_eq!(stale(&before, &after, &changed), ["b"]);
        assert_eq!(stale(&Resolution::default(), &after, &changed), [""; 0]);
        assert_eq!(stale(&before, &Resolution::default(), &changed), [""; 0]);
        let other = list(Format::Sysctl, &["a"]);
        let none = super::left(&other, &Resolution::default(), &[place("a")].into());
        assert_eq!(none, [""; 0]);
    }
}
