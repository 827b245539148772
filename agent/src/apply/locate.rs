//! Where the paths of a layer lead on this host, and whether Edict may write there.

use std::collections::BTreeMap;

use edict_core::guard::path::{check, off_limits};
use edict_core::guard::rule::{self, Rule};
use edict_core::guard::{Policy, Violation, text};
use edict_core::layer::Layer;
use edict_core::resource::{Keys, Resource};

use crate::host::path::{self, resolve};
use crate::host::{Found, View};
use crate::ledger::{Ledger, Original};

/// What was found out about the paths of a layer.
#[derive(Debug, Default)]
pub struct Located {
    /// Where each path leads, by path as written.
    pub paths: BTreeMap<String, String>,
    /// The paths that lead to where Edict may not write.
    pub violations: Vec<Violation>,
}

/// Follows every path of a layer that passed the guard, and judges where it leads.
pub fn locate(
    host: &dyn View,
    ledger: &Ledger,
    layer: &Layer,
    policy: &Policy,
) -> Result<Located, path::Error> {
    // Without Edict there is nothing, and nobody else has made anything of it.
    let yields = |path: &str| {
        let entry = ledger.files.get(path);
        let looked = || host.look(path).map(|seen| seen.found);
        entry.is_some_and(|entry| {
            entry.original == Original::Absent
                && looked().is_ok_and(|found| entry.wrote(found.file()))
        })
    };
    let way = Way {
        host,
        yields: &yields,
    };
    let mut located = Located::default();
    let mut files = Vec::new();
    for (block, resource) in layer.render() {
        match resource {
            Resource::File(file) => {
                let real = located.follow(way, &file.path)?;
                let twice = files.contains(&real).then_some(&rule::DUPLICATE);
                // The blocks know where they write, as long as it is there that this leads.
                let rules = if block == "files" || real != file.path {
                    check(&real, policy)
                } else {
                    off_limits(&real, &policy.protected)
                };
                for rule in rules.into_iter().chain(twice) {
                    let field = field(layer, block, &file.path);
                    located.violate(field, rule, &file.path, &real);
                }
                files.push(real);
            }
            Resource::Keys(keys) => {
                let real = located.follow_keys(way, &keys)?;
                for rule in off_limits(&real, &policy.protected) {
                    located.violate(block.to_owned(), rule, &keys.path, &real);
                }
            }
            Resource::Unit(unit) => {
                for read in &unit.reads {
                    located.follow(way, &read.path)?;
                }
            }
            // The kernel has no symlinks there.
            Resource::Live(live) if host.is_live() => {
                located.paths.insert(live.path.clone(), live.path);
            }
            Resource::Live(live) => {
                for read in &live.otherwise.reads {
                    located.follow(way, &read.path)?;
                }
            }
            Resource::Setting(_) => {}
        }
    }
    Ok(located)
}

/// What paths are followed on, and which files on the way do not count.
#[derive(Clone, Copy)]
struct Way<'a> {
    host: &'a dyn View,
    yields: &'a dyn Fn(&str) -> bool,
}

impl Located {
    /// Where keys are: in the first of their places that is there. What is written as the path of the
    /// first one means that from here on.
    fn follow_keys(&mut self, way: Way<'_>, keys: &Keys) -> Result<String, path::Error> {
        if !self.paths.contains_key(&keys.path) && !keys.elsewhere.is_empty() {
            let places = std::iter::once(&*keys.path).chain(keys.elsewhere.iter().copied());
            for path in places {
                // One that is there and can't be used is said, not passed over: programs would read it.
                let real = resolve(way.host, path, way.yields)?;
                let seen = way.host.look(&real);
                if seen.is_ok_and(|seen| seen.found != Found::Absent) {
                    self.paths.insert(keys.path.clone(), real);
                    break;
                }
            }
        }
        self.follow(way, &keys.path)
    }

    fn follow(&mut self, way: Way<'_>, path: &str) -> Result<String, path::Error> {
        if let Some(real) = self.paths.get(path) {
            return Ok(real.clone());
        }
        let real = resolve(way.host, path, way.yields)?;
        self.paths.insert(path.to_owned(), real.clone());
        Ok(real)
    }

    fn violate(&mut self, field: String, rule: &Rule, path: &str, real: &str) {
        let found = if path == real {
            path.to_owned()
        } else {
            format!("{path} -> {real}")
        };
        self.violations.push(Violation {
            field,
            rule: rule.name.to_owned(),
            excerpt: text::excerpt(&found),
            advice: rule.advice.to_owned(),
        });
    }
}

/// The field that `path` comes from: an entry of `files`, or the block that has such a path.
fn field(layer: &Layer, block: &str, path: &str) -> String {
    let files = layer.config.files.iter().flat_map(|files| &files.0);
    match files.clone().position(|file| file.path == path) {
        Some(index) if block == "files" => format!("files[{index}].path"),
        _ => block.to_owned(),
    }
}
