//! The kinds of configuration, each one file: its typed block (which is also its part of the CRD's
//! schema), its rules, and how it is rendered to resources.

pub mod docker;
pub mod files;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::{Findings, Policy, Violation};
use crate::resource::Resource;

pub use docker::Docker;
pub use files::Files;

/// Every kind of configuration that a `NodeConfig` can carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Settings of the Docker daemon, as keys of /etc/docker/daemon.json. Keys that are not named
    /// here stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// Whole files under /etc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// What each kind of configuration can do.
trait Block {
    /// Reports everything that is wrong with the block.
    fn check(&self, policy: &Policy, found: &mut Findings);
    /// What the block wants of a host. Called on blocks that passed `check`.
    fn render(&self) -> Vec<Resource>;
}

impl Config {
    /// The names of the blocks that this release knows, as an agent's hello says them.
    pub const BLOCKS: &[&str] = &["docker", "files"];

    fn blocks(&self) -> impl Iterator<Item = (&'static str, &dyn Block)> {
        let Self { docker, files } = self;
        [
            ("docker", docker.as_ref().map(|block| block as &dyn Block)),
            ("files", files.as_ref().map(|block| block as &dyn Block)),
        ]
        .into_iter()
        .filter_map(|(name, block)| Some((name, block?)))
    }

    /// The names of the blocks that are given here.
    pub fn block_names(&self) -> impl Iterator<Item = &'static str> {
        self.blocks().map(|(name, _)| name)
    }

    /// Everything that is wrong with this configuration under `policy`; empty when nothing is.
    pub fn check(&self, policy: &Policy) -> Vec<Violation> {
        let mut found = Findings::default();
        for (name, block) in self.blocks() {
            found.within(name, |found| block.check(policy, found));
        }
        found.into_violations()
    }

    /// What this configuration wants of a host. For configurations that passed [`Self::check`].
    pub fn render(&self) -> Vec<Resource> {
        self.blocks()
            .flat_map(|(_, block)| block.render())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_blocks_are_those_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let mut names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, Config::BLOCKS);
        let full = Config {
            docker: Some(Docker::default()),
            files: Some(Files::default()),
        };
        assert_eq!(full.block_names().collect::<Vec<_>>(), Config::BLOCKS);
        assert_eq!(Config::default().block_names().count(), 0);
    }
}
