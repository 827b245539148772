//! One node, seen from outside: its files and its programs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;

use crate::container;
use crate::process::Output;

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs a control plane.
    Master,
    /// Everything else.
    Worker,
}

/// A handle on one node: a container, whoever made it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, in Kubernetes and as a container.
    pub name: String,
    /// What it is for.
    pub role: Role,
}

/// What there is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Permission bits, 0o644.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// As `stat` calls it: "regular file", "directory", "symbolic link".
    pub kind: String,
}

impl Node {
    /// Runs a program on it and takes any exit code.
    pub async fn exec(&self, argv: &[&str]) -> Result<Output> {
        container::exec(&self.name, argv, Vec::new()).await
    }

    /// Runs a program on it, asks for success and gives what it printed.
    pub async fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.exec(argv).await?;
        if !output.success() {
            bail!(
                "{} on {} ended with {:?}: {}",
                argv.join(" "),
                self.name,
                output.code,
                output.stderr.trim()
            );
        }
        Ok(output.text())
    }

    /// The content of a file; none when there is no such file.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let output = self.exec(&["cat", "--", path]).await?;
        match output {
            found if found.success() => Ok(Some(found.stdout)),
            missing if is_missing(&missing) => Ok(None),
            other => bail!("cannot read {path} on {}: {}", self.name, other.stderr),
        }
    }

    /// The content of a text file; none when there is no such file.
    pub async fn text(&self, path: &str) -> Result<Option<String>> {
        let bytes = self.read(path).await?;
        bytes
            .map(String::from_utf8)
            .transpose()
            .with_context(|| format!("{path} on {} is not UTF-8", self.name))
    }

    /// What there is at a path, links not followed; none when nothing is.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>> {
        let output = self
            .exec(&["stat", "--format=%a %u %g %s %F", "--", path])
            .await?;
        match output {
            found if found.success() => Ok(Some(parse_stat(found.text().trim())?)),
            missing if is_missing(&missing) => Ok(None),
            other => bail!("cannot stat {path} on {}: {}", self.name, other.stderr),
        }
    }

    /// Runs a script of bash, and gives what it says.
    pub async fn shell(&self, script: &str) -> Result<String> {
        self.run(&["bash", "-euc", script]).await
    }

    /// The main process of a unit, and whether it is active.
    pub async fn process(&self, unit: &str) -> Result<String> {
        let argv = ["systemctl", "show", "--property=MainPID,ActiveState", unit];
        self.run(&argv).await
    }

    /// What stays the same when a file is written over: inode, device, mode and owner.
    pub async fn identity(&self, path: &str) -> Result<String> {
        self.run(&["stat", "--format=%i %d %a %u:%g", path]).await
    }

    /// Writes a file, and the folders above it, as somebody on the host would.
    pub async fn write(
        &self,
        path: &str,
        content: &[u8],
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<()> {
        let (mode, uid, gid) = (format!("{mode:o}"), uid.to_string(), gid.to_string());
        let argv = [
            "install",
            "-D",
            "-m",
            &mode,
            "-o",
            &uid,
            "-g",
            &gid,
            "/dev/stdin",
            path,
        ];
        let output = container::exec(&self.name, &argv, content.to_vec()).await?;
        if !output.success() {
            bail!("cannot write {path} on {}: {}", self.name, output.stderr);
        }
        Ok(())
    }

    /// Removes a file or folder, also one that is not there.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.run(&["rm", "-rf", "--", path]).await?;
        Ok(())
    }

    /// Everything under a folder: path -> mode, owner, group and kind, and the
    /// checksum or the link's target. Two of these are equal when nothing changed.
    pub async fn tree(&self, folder: &str) -> Result<BTreeMap<String, String>> {
        let listed = ["find", folder, "-xdev", "-printf", "%p\\t%m %U:%G %y %l\\n"];
        let summed = [
            "find",
            folder,
            "-xdev",
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "{}",
            "+",
        ];
        let (listed, summed) = futures::try_join!(self.run(&listed), self.run(&summed))?;
        let mut tree: BTreeMap<String, String> = listed
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(path, what)| (path.to_owned(), what.trim().to_owned()))
            .collect();
        for (sum, path) in summed.lines().filter_map(|line| line.split_once("  ")) {
            if let Some(what) = tree.get_mut(path) {
                what.push(' ');
                what.push_str(sum);
            }
        }
        Ok(tree)
    }

    /// Edict's table of nftables, as nft says it.
    pub async fn table(&self) -> Result<Option<String>> {
        let listed = self
            .exec(&["nft", "list", "table", "inet", "edict"])
            .await?;
        if listed.success() {
            return Ok(Some(listed.text()));
        }
        ensure!(
            listed.stderr.contains("No such file or directory"),
            "{}",
            listed.stderr
        );
        Ok(None)
    }

    /// Cuts its power: no program on it comes to say anything.
    pub async fn kill(&self) -> Result<()> {
        container::kill(&self.name).await
    }

    /// Stops the machine, as a power cut does from the cluster's view.
    pub async fn stop(&self) -> Result<()> {
        container::stop(&self.name).await
    }

    /// Freezes the machine: its addresses are there and nothing answers.
    pub async fn pause(&self) -> Result<()> {
        container::pause(&self.name).await
    }

    /// Lets a frozen machine go on, also one that is not frozen.
    pub async fn unpause(&self) -> Result<()> {
        container::unpause(&self.name).await
    }

    /// Starts it again.
    pub async fn start(&self) -> Result<()> {
        container::start(&self.name).await
    }
}

/// The content of one path on many nodes, read at once: node name -> content.
pub async fn read_all(nodes: &[Node], path: &str) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
    let reads = nodes.iter().map(async |node| {
        let content = node.read(path).await?;
        anyhow::Ok((node.name.clone(), content))
    });
    Ok(try_join_all(reads).await?.into_iter().collect())
}

fn is_missing(output: &Output) -> bool {
    output.stderr.contains("No such file or directory") || output.stderr.contains("Not a directory")
}

fn parse_stat(line: &str) -> Result<Stat> {
    let mut fields = line.splitn(5, ' ');
    let mut next = || fields.next().with_context(|| format!("stat said {line:?}"));
    Ok(Stat {
        mode: u32::from_str_radix(next()?, 8)?,
        uid: next()?.parse()?,
        gid: next()?.parse()?,
        size: next()?.parse()?,
        kind: next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_file() {
        let stat = parse_stat("644 0 5 120 regular empty file").unwrap();
        assert_eq!((stat.mode, stat.gid, stat.size), (0o644, 5, 120));
        assert_eq!(stat.kind, "regular empty file");
    }
}
