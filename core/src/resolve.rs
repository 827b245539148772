//! Resolve: from the layers of a node to its resources, each file and each key with one owner, and
//! the conflicts. Pure and deterministic: the order in which layers are given does not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::Format;
use crate::layer::Layer;
use crate::resource::{self, KeyPath, Resource, Unit, is_under};

/// What a node is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolution {
    /// Whole files by path.
    pub files: BTreeMap<String, Owned<resource::File>>,
    /// Files of which single keys are owned, by path.
    pub keys: BTreeMap<String, SharedFile>,
    /// Units to be told when something that they read changes.
    pub units: Vec<Owned<Unit>>,
    /// What was not granted, to whom, and who has it.
    pub conflicts: Vec<Conflict>,
}

/// A file of which single keys are owned.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedFile {
    /// How the file is written.
    pub format: Format,
    /// The owned keys.
    pub values: BTreeMap<KeyPath, Owned<Value>>,
}

/// Something that one layer owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned<T> {
    /// Uid of the layer.
    pub by: String,
    /// What it owns.
    pub what: T,
}

/// Two layers wanted the same; one got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// Uid of the layer that did not get it.
    pub loser: String,
    /// Uid of the layer that has it.
    pub winner: String,
    /// Name of the layer that has it.
    pub winner_name: String,
    /// Path of the file.
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPath>,
}

/// A layer with what it was rendered to, paths as they are on this host (symlinks resolved).
#[derive(Clone, Debug)]
pub struct Rendered<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// Its resources.
    pub resources: Vec<Resource>,
}

/// Gives each file and each key to one layer: the one with the higher priority, then the older
/// one, then the one whose name comes first. What does not collide is granted all the same.
pub fn resolve(mut layers: Vec<Rendered<'_>>) -> Resolution {
    layers.sort_by(|a, b| a.layer.precedence().cmp(&b.layer.precedence()));
    let names: BTreeMap<_, _> = layers
        .iter()
        .map(|rendered| (rendered.layer.uid.clone(), rendered.layer.name.clone()))
        .collect();
    let mut resolution = Resolution::default();
    for Rendered { layer, resources } in layers {
        for resource in resources {
            resolution.grant(&layer.uid, resource, &names);
        }
    }
    resolution
}

impl Resolution {
    fn grant(&mut self, by: &str, resource: Resource, names: &BTreeMap<String, String>) {
        match resource {
            Resource::File(file) => match self.holder_of_file(&file.path) {
                Some(holder) => self.refuse(by, holder, names, file.path, None),
                None => {
                    let by = by.to_owned();
                    self.files
                        .insert(file.path.clone(), Owned { by, what: file });
                }
            },
            Resource::Keys(keys) => {
                for (key, value) in keys.values {
                    if self.is_shared(&keys.path, keys.format, &key, &value) {
                        continue;
                    }
                    match self.holder_of_key(&keys.path, keys.format, &key) {
                        Some(holder) => {
                            self.refuse(by, holder, names, keys.path.clone(), Some(key));
                        }
                        None => {
                            let shared =
                                self.keys
                                    .entry(keys.path.clone())
                                    .or_insert_with(|| SharedFile {
                                        format: keys.format,
                                        values: BTreeMap::new(),
                                    });
                            let by = by.to_owned();
                            shared.values.insert(key, Owned { by, what: value });
                        }
                    }
                }
            }
            Resource::Unit(unit) => self.units.push(Owned {
                by: by.to_owned(),
                what: unit,
            }),
            Resource::Live(live) => self.grant(by, Resource::File(live.file()), names),
            // It is asked, not owned.
            Resource::Setting(_) => {}
        }
    }

    /// Whether another layer has just that already, where the key says it all: two that want the same
    /// module, or trust the same authority, do not collide.
    fn is_shared(&self, path: &str, format: Format, key: &KeyPath, value: &Value) -> bool {
        let shared = self.keys.get(path).filter(|shared| shared.format == format);
        let owned = shared.and_then(|shared| shared.values.get(key));
        matches!(format, Format::Modules | Format::Bundle)
            && owned.is_some_and(|owned| owned.what == *value)
    }

    /// Who has the file at `path`, a file that `path` would be under, something under `path`, or
    /// keys in any of these.
    fn holder_of_file(&self, path: &str) -> Option<String> {
        let collides =
            |taken: &str| taken == path || is_under(taken, path) || is_under(path, taken);
        let file = self.files.iter().find(|(taken, _)| collides(taken));
        let keys = self.keys.iter().find(|(taken, _)| collides(taken));
        file.map(|(_, owned)| &owned.by)
            .or_else(|| Some(&keys?.1.values.values().next()?.by))
            .cloned()
    }

    fn holder_of_key(&self, path: &str, format: Format, key: &KeyPath) -> Option<String> {
        let collides =
            |taken: &str| taken == path || is_under(taken, path) || is_under(path, taken);
        let file = self.files.iter().find(|(taken, _)| collides(taken));
        let keys = self.keys.iter().flat_map(|(taken, shared)| {
            shared.values.iter().filter(move |(other, _)| {
                if taken == path {
                    // Written in another format the file can't be shared at all.
                    shared.format != format || other.overlaps(key)
                } else {
                    collides(taken)
                }
            })
        });
        file.map(|(_, owned)| &owned.by)
            .or_else(|| keys.map(|(_, owned)| &owned.by).next())
            .cloned()
    }

    fn refuse(
        &mut self,
        loser: &str,
        winner: String,
        names: &BTreeMap<String, String>,
        path: String,
        key: Option<KeyPath>,
    ) {
        self.conflicts.push(Conflict {
            loser: loser.to_owned(),
            winner_name: names.get(&winner).cloned().unwrap_or_default(),
            winner,
            path,
            key,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::resource::{Action, File, Keys};
    use proptest::prelude::*;
    use serde_json::json;

    fn layer(name: &str, priority: i32, created: i64) -> Layer {
        Layer {
            uid: format!("uid-{name}"),
            name: name.into(),
            priority,
            created: jiff::Timestamp::from_second(created).unwrap(),
            digest: String::new(),
            deletion_policy: crate::layer::DeletionPolicy::Restore,
            restarts: crate::layer::Restarts::Allowed,
            drift: crate::layer::Drift::Correct,
            retry: None,
            facts: None,
            config: Config::default(),
            contents: crate::content::Contents::default(),
        }
    }

    fn file(path: &str) -> Resource {
        Resource::File(File {
            path: path.into(),
            content: b"x".to_vec(),
            mode: None,
            owner: None,
            secret: false,
        })
    }

    fn keys(path: &str, names: &[&str]) -> Resource {
        Resource::Keys(Keys {
            path: path.into(),
            format: Format::Json,
            values: names
                .iter()
                .map(|name| (KeyPath(name.split('.').map(Into::into).collect()), json!(1)))
                .collect(),
            elsewhere: &[],
        })
    }

    fn resolved(layers: &[(&Layer, Vec<Resource>)]) -> Resolution {
        resolve(
            layers
                .iter()
                .map(|(layer, resources)| Rendered {
                    layer,
                    resources: resources.clone(),
                })
                .collect(),
        )
    }

    /// Who has what, in words.
    fn owners(resolution: &Resolution) -> Vec<String> {
        let files = resolution
            .files
            .iter()
            .map(|(path, owned)| format!("{path} {}", owned.by));
        let keys = resolution.keys.iter().flat_map(|(path, shared)| {
            shared
                .values
                .iter()
                .map(move |(key, owned)| format!("{path}#{key} {}", owned.by))
        });
        files.chain(keys).collect()
    }

    fn losses(resolution: &Resolution) -> Vec<String> {
        let key = |c: &Conflict| {
            c.key
                .as_ref()
                .map(|key| format!("#{key}"))
                .unwrap_or_default()
        };
        resolution
            .conflicts
            .iter()
            .map(|c| {
                format!(
                    "{} loses {}{} to {}",
                    c.loser,
                    c.path,
                    key(c),
                    c.winner_name
                )
            })
            .collect()
    }

    #[test]
    fn precedence_is_priority_then_age_then_name() {
        for (a, b, winner) in [
            (layer("a", 0, 2), layer("b", 1, 2), "b"),
            (layer("a", -1, 1), layer("b", 0, 2), "b"),
            (layer("a", 0, 2), layer("b", 0, 1), "b"),
            (layer("a", 0, 1), layer("b", 0, 1), "a"),
        ] {
            let resolution = resolved(&[(&a, vec![file("/etc/x")]), (&b, vec![file("/etc/x")])]);
            assert_eq!(owners(&resolution), [format!("/etc/x uid-{winner}")]);
            assert_eq!(resolution.conflicts[0].winner_name, winner);
        }
    }

    #[test]
    fn what_does_not_collide_is_granted() {
        let (a, b) = (layer("a", 1, 0), layer("b", 0, 0));
        let resolution = resolved(&[
            (&b, vec![keys("/etc/d.json", &["m", "i"]), file("/etc/y")]),
            (&a, vec![keys("/etc/d.json", &["m"]), file("/etc/x")]),
        ]);
        assert_eq!(
            owners(&resolution),
            [
                "/etc/x uid-a",
                "/etc/y uid-b",
                "/etc/d.json#i uid-b",
                "/etc/d.json#m uid-a"
            ]
        );
        assert_eq!(losses(&resolution), ["uid-b loses /etc/d.json#m to a"]);
    }

    #[test]
    fn files_and_keys_collide_where_one_contains_the_other() {
        let (a, b) = (layer("a", 1, 0), layer("b", 0, 0));
        for (first, second, loss) in [
            (file("/etc/x"), file("/etc/x/y"), "/etc/x/y"),
            (file("/etc/x/y"), file("/etc/x"), "/etc/x"),
            (file("/etc/x"), keys("/etc/x", &["k"]), "/etc/x#k"),
            (keys("/etc/x", &["k"]), file("/etc/x"), "/etc/x"),
            (file("/etc/x"), keys("/etc/x/y", &["k"]), "/etc/x/y#k"),
            (keys("/etc/x/y", &["k"]), file("/etc/x"), "/etc/x"),
            (file("/etc/x/y"), keys("/etc/x", &["k"]), "/etc/x#k"),
            (
                keys("/etc/x", &["k"]),
                keys("/etc/x/y", &["k"]),
                "/etc/x/y#k",
            ),
            (keys("/etc/x/y", &["k"]), keys("/etc/x", &["k"]), "/etc/x#k"),
            (
                keys("/etc/x", &["k"]),
                keys("/etc/x", &["k.l"]),
                "/etc/x#k.l",
            ),
            (keys("/etc/x", &["k.l"]), keys("/etc/x", &["k"]), "/etc/x#k"),
        ] {
            let resolution = resolved(&[(&a, vec![first]), (&b, vec![second])]);
            assert_eq!(losses(&resolution), [format!("uid-b loses {loss} to a")]);
        }
        for (first, second) in [
            (file("/etc/x"), file("/etc/xy")),
            (file("/etc/x"), keys("/etc/y", &["k"])),
            (keys("/etc/x", &["k"]), keys("/etc/x", &["l"])),
            (keys("/etc/x", &["k"]), keys("/etc/y", &["k"])),
        ] {
            assert_eq!(
                losses(&resolved(&[(&a, vec![first]), (&b, vec![second])])),
                [""; 0]
            );
        }
    }

    #[test]
    fn units_are_never_in_conflict() {
        let (a, b) = (layer("a", 1, 0), layer("b", 0, 0));
        let unit = Resource::Unit(Unit {
            name: "docker.service".into(),
            action: Action::Reload,
            gone: Action::Reload,
            reads: vec![],
        });
        let resolution = resolved(&[(&a, vec![unit.clone()]), (&b, vec![unit])]);
        let by: Vec<_> = resolution
            .units
            .iter()
            .map(|unit| unit.by.as_str())
            .collect();
        assert_eq!(by, ["uid-a", "uid-b"]);
        assert_eq!(resolution.conflicts, []);
    }

    fn any_resource() -> impl Strategy<Value = Resource> {
        let path = prop::sample::select(vec!["/etc/a", "/etc/a/b", "/etc/c", "/etc/d"]);
        let names = prop::sample::subsequence(vec!["k", "k.l", "m", "n"], 1..3);
        prop_oneof![
            path.clone().prop_map(file),
            (path, names).prop_map(|(path, names)| keys(path, &names)),
        ]
    }

    /// Priority, age and resources of a layer.
    type Wanted = (i32, i64, Vec<Resource>);

    proptest! {
        #[test]
        fn the_order_of_layers_does_not_matter(
            given in prop::collection::vec((0..3, 0..3_i64, prop::collection::vec(any_resource(), 0..4)), 0..5)
                .prop_flat_map(|given| {
                    let numbered: Vec<_> = given.into_iter().enumerate().collect();
                    (Just(numbered.clone()), Just(numbered).prop_shuffle())
                })
        ) {
            let layers = |given: &[(usize, Wanted)]| -> Vec<_> {
                given.iter().map(|(n, (p, c, r))| (layer(&format!("l{n}"), *p, *c), r.clone())).collect()
            };
            let (one, two) = (layers(&given.0), layers(&given.1));
            let borrow = |layers: &'_ [(Layer, Vec<Resource>)]| -> Resolution {
                resolve(layers.iter().map(|(layer, resources)| Rendered { layer, resources: resources.clone() }).collect())
            };
            prop_assert_eq!(borrow(&one), borrow(&two));
        }
    }
}
