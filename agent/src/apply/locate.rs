//! Where the paths of a layer lead on this host, and whether Edict may write there.

use std::collections::BTreeMap;

use edict_core::guard::path::{check, off_limits};
use edict_core::guard::rule::{self, Rule};
use edict_core::guard::{Policy, Violation, text};
use edict_core::layer::Layer;
use edict_core::resource::Resource;

use crate::host::Host;
use crate::host::path::{self, resolve};

/// What was found out about the paths of a layer.
#[derive(Debug, Default)]
pub struct Located {
    /// Where each path leads, by path as written.
    pub paths: BTreeMap<String, String>,
    /// The paths that lead to where Edict may not write.
    pub violations: Vec<Violation>,
}

/// Follows every path of a layer that passed the guard, and judges where it leads.
pub fn locate(host: &dyn Host, layer: &Layer, policy: &Policy) -> Result<Located, path::Error> {
    let mut located = Located::default();
    let mut files = Vec::new();
    for (block, resource) in layer.render() {
        match resource {
            Resource::File(file) => {
                let real = located.follow(host, &file.path)?;
                let twice = files.contains(&real).then_some(&rule::DUPLICATE);
                for rule in check(&real, policy).into_iter().chain(twice) {
                    let field = field(layer, block, &file.path);
                    located.violate(field, rule, &file.path, &real);
                }
                files.push(real);
            }
            Resource::Keys(keys) => {
                let real = located.follow(host, &keys.path)?;
                for rule in off_limits(&real, &policy.protected) {
                    located.violate(block.to_owned(), rule, &keys.path, &real);
                }
            }
            Resource::Unit(unit) => {
                for path in &unit.reads {
                    located.follow(host, path)?;
                }
            }
            Resource::Setting(_) => {}
        }
    }
    Ok(located)
}

impl Located {
    fn follow(&mut self, host: &dyn Host, path: &str) -> Result<String, path::Error> {
        if let Some(real) = self.paths.get(path) {
            return Ok(real.clone());
        }
        let real = resolve(host, path)?;
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
