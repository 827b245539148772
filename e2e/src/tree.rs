//! Whether anything under `/etc` of some nodes is other than it was.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use crate::node::Node;

/// `/etc` of some nodes as it was at one time: every path with mode, owner, kind and checksum.
#[derive(Clone, Debug)]
pub struct Trees(BTreeMap<String, BTreeMap<String, String>>);

impl Trees {
    /// As it is now.
    pub async fn of(nodes: &[Node]) -> Result<Self> {
        let trees = nodes.iter().map(async |node| {
            let tree = node.tree("/etc").await?;
            ensure!(tree.len() > 10, "/etc of {} is nearly empty", node.name);
            Ok((node.name.clone(), tree))
        });
        Ok(Self(try_join_all(trees).await?.into_iter().collect()))
    }

    /// Holds when these nodes, which were looked at before, are as they were.
    pub async fn unchanged(&self, nodes: &[Node]) -> Result<()> {
        let changed = self.changed(nodes).await?;
        ensure!(
            changed.is_empty(),
            "changed under /etc:\n{}",
            changed.join("\n")
        );
        Ok(())
    }

    /// Holds when these paths, and nothing else, are other than they were on each of these nodes.
    pub async fn changed_only(&self, nodes: &[Node], paths: &[&str]) -> Result<()> {
        let mut expected: Vec<_> = nodes
            .iter()
            .flat_map(|node| {
                paths
                    .iter()
                    .map(move |path| format!("{} {path}", node.name))
            })
            .collect();
        expected.sort();
        let changed = self.changed(nodes).await?;
        let mut found: Vec<_> = changed
            .iter()
            .filter_map(|line| Some(line.split_once(": ")?.0.to_owned()))
            .collect();
        found.sort();
        ensure!(
            found == expected,
            "changed under /etc:\n{}\nwhere this was to change:\n{}",
            changed.join("\n"),
            expected.join("\n")
        );
        Ok(())
    }

    /// What is other than it was, a line for each path.
    async fn changed(&self, nodes: &[Node]) -> Result<Vec<String>> {
        let Self(now) = Self::of(nodes).await?;
        let none = BTreeMap::new();
        let mut changed = Vec::new();
        for (node, now) in &now {
            let before = self.0.get(node).unwrap_or(&none);
            let paths: BTreeSet<_> = before.keys().chain(now.keys()).collect();
            for path in paths {
                let (was, is) = (before.get(path), now.get(path));
                if was != is {
                    let show =
                        |what: Option<&String>| what.map_or("absent", String::as_str).to_owned();
                    changed.push(format!("{node} {path}: was {}, is {}", show(was), show(is)));
                }
            }
        }
        Ok(changed)
    }
}
