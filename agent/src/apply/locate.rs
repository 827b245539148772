//! Where the paths of a layer lead on this host, and whether Edict may write there.

use std::collections::BTreeMap;

use edict_core::guard::path::{check, off_limits};
use edict_core::guard::rule::{self, Rule};
use edict_core::guard::{Policy, Violation, text};
use edict_core::layer::Layer;
use edict_core::resource::Resource;

use crate::host::Host;
use crate::host::path::{self, resolve};
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
    host: &dyn Host,
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
                for rule in check(&real, policy).into_iter().chain(twice) {
                    let field = field(layer, block, &file.path);
                    located.violate(field, rule, &file.path, &real);
                }
                files.push(real);
            }
            Resource::Keys(keys) => {
                let real = located.follow(way, &keys.path)?;
                for rule in off_limits(&real, &policy.protected) {
                    located.violate(block.to_owned(), rule, &keys.path, &real);
                }
            }
            Resource::Unit(unit) => {
                for path in &unit.reads {
                    located.follow(way, path)?;
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
    host: &'a dyn Host,
    yields: &'a dyn Fn(&str) -> bool,
}

impl Located {
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
