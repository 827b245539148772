//! Units that are told when a file changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::{Findings, value};
use crate::resource::{Action, Place, Resource, Unit};

/// A systemd unit that reads a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notify {
    /// The unit's name, for example "nginx.service". A service, socket, timer or path. One that is not
    /// on a node is said to be missing, and one that does not run is left alone.
    #[schemars(length(min = 1, max = 255), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('[.](service|socket|timer|path)$')", "message": "must be the whole name of a service, socket, timer or path, for example nginx.service"},
    ]))]
    pub unit: String,
    /// What the unit needs until it uses the file: Reload, which disturbs nobody, where it can reread the
    /// file while it runs; Restart otherwise. If it does not run a few seconds later, the file is put
    /// back.
    pub action: NotifyAction,
}

/// What a unit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotifyAction {
    /// It rereads the file while it runs.
    Reload,
    /// It has to be started anew.
    Restart,
}

impl Notify {
    /// Judges the unit.
    pub fn check(&self, found: &mut Findings) {
        found.one("unit", &self.unit, value::unit);
    }

    /// The unit, as one that reads the file at `path`.
    pub fn render(&self, path: &str) -> Resource {
        let action = match self.action {
            NotifyAction::Reload => Action::Reload,
            NotifyAction::Restart => Action::Restart,
        };
        Resource::Unit(Unit {
            name: self.unit.clone(),
            action,
            gone: action,
            reads: vec![Place::file(path)],
        })
    }
}
