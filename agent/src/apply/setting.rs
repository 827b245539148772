//! Whether what was written is read: settings of other programs, which Edict only looks at.

use edict_core::guard::path::ROOT;
use edict_core::resource::Resource;
use edict_core::setting::Files;

use crate::host::path::resolve;
use crate::host::{Found, View};

/// What keeps `resources` from being read, a sentence each.
pub fn unmet(host: &dyn View, resources: &[Resource]) -> Vec<String> {
    let unmet = |resource: &Resource| match resource {
        Resource::Setting(setting) => setting.unmet(&Etc(host)),
        Resource::File(_) | Resource::Keys(_) | Resource::Live(_) | Resource::Unit(_) => None,
    };
    resources.iter().filter_map(unmet).collect()
}

struct Etc<'a>(&'a dyn View);

impl Etc<'_> {
    /// Where a path leads, if it is one under `/etc`: somebody else may have written anything.
    fn real(&self, path: &str) -> Option<String> {
        let under = path.strip_prefix(ROOT)?.strip_prefix('/')?;
        let normal = under
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".."));
        normal.then(|| resolve(self.0, path, &|_| false).ok())?
    }
}

impl Files for Etc<'_> {
    fn read(&self, path: &str) -> Option<String> {
        let real = self.real(path)?;
        match self.0.look(&real).ok()?.found {
            Found::File(whole) => String::from_utf8(whole.content).ok(),
            _ => None,
        }
    }

    fn list(&self, path: &str) -> Vec<String> {
        let real = self.real(path);
        let names = real.and_then(|real| self.0.list(&real).ok());
        names.unwrap_or_default()
    }
}
