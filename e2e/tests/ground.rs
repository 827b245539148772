//! What stands in the way on a host: links, mounts and disks. Each ends in a sentence and with
//! `/etc` as it was, or in the right file with everything around it as it was.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::settings::Settings;
use e2e::{Host, Node, image};
use edict_core::digest;
use serde_json::{Value, json};

const AGENT: &str = "/usr/local/bin/edict-agent";
/// Where the tests may make a mess.
const HERE: &str = "/etc/edict";

/// A host with the agent's program on it, and folders to make a mess in.
async fn boot() -> Result<Host> {
    let settings = Settings::read()?;
    let agent = image::agent(&settings).await?;
    let host = Host::boot(&settings, &[(&agent, AGENT)]).await?;
    host.node().run(&["mkdir", HERE]).await?;
    Ok(host)
}

/// A NodeConfig of these files.
fn files(files: &[(&str, &str)]) -> Value {
    let files = files.iter();
    let files = files.map(|(path, content)| json!({"path": path, "content": content}));
    config(&json!({"files": files.collect::<Vec<_>>()}))
}

fn config(spec: &Value) -> Value {
    json!({
        "apiVersion": "edict.dev/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": "ground"},
        "spec": spec,
    })
}

/// Runs a command of the agent with these manifests: exit code, and what it said.
async fn edict(node: &Node, command: &str, manifests: &[Value]) -> Result<(i32, String)> {
    let documents: Vec<_> = manifests.iter().map(Value::to_string).collect();
    let file = "/run/manifest.yaml";
    let text = documents.join("\n---\n");
    node.write(file, text.as_bytes(), 0o600, 0, 0).await?;
    let ended = node.exec(&[AGENT, command, "--root", "/", file]).await?;
    let code = ended.code.context("it was killed")?;
    Ok((code, format!("{}{}", ended.text(), ended.stderr)))
}

async fn shell(node: &Node, script: &str) -> Result<String> {
    node.run(&["bash", "-euc", script]).await
}

/// Something in the way.
struct Case {
    name: &'static str,
    /// Makes it so, and takes it away again.
    before: &'static str,
    after: &'static str,
    manifests: Vec<Value>,
    /// What has to be said.
    says: &'static [&'static str],
    /// Whether a plan says so too: only who writes finds out that nothing can be written.
    planned: bool,
}

/// A NodeConfig with a second file, so that half of it could be done.
fn with(path: &str) -> Vec<Value> {
    vec![files(&[("/etc/edict/beside", "beside\n"), (path, "new\n")])]
}

/// Paths that lead elsewhere, or to what is not Edict's.
fn ways() -> Vec<Case> {
    let protected = json!({
        "apiVersion": "edict.dev/v1alpha1",
        "kind": "Fleet",
        "metadata": {"name": "default"},
        "spec": {"paths": {"protected": ["/etc/edict/mine"]}},
    });
    vec![
        Case {
            name: "a link out of /etc",
            before: "ln -s /root/elsewhere /etc/edict/link",
            after: "test ! -e /root/elsewhere; rm /etc/edict/link",
            manifests: with("/etc/edict/link"),
            says: &["Failed", "/etc/edict/link", "/root/elsewhere"],
            planned: true,
        },
        Case {
            name: "a folder that is a link out of /etc",
            before: "ln -s /root /etc/edict/link",
            after: "test ! -e /root/file; rm /etc/edict/link",
            manifests: with("/etc/edict/link/file"),
            says: &["Failed", "/etc/edict/link", "/root"],
            planned: true,
        },
        Case {
            name: "a link to what nobody may write",
            before: "ln -s /etc/shadow /etc/edict/link",
            after: "rm /etc/edict/link",
            manifests: with("/etc/edict/link"),
            says: &["Refused", "files[1].path", "/etc/edict/link -> /etc/shadow"],
            planned: true,
        },
        Case {
            name: "a link in a circle",
            before: "ln -s b /etc/edict/a; ln -s a /etc/edict/b",
            after: "rm /etc/edict/a /etc/edict/b",
            manifests: with("/etc/edict/a"),
            says: &["Failed", "/etc/edict/a"],
            planned: true,
        },
        Case {
            name: "what the Fleet protects",
            before: "true",
            after: "true",
            manifests: [with("/etc/edict/mine"), vec![protected]].concat(),
            says: &["Refused", "files[1].path", "/etc/edict/mine"],
            planned: true,
        },
    ]
}

/// What is there already, and does not give way.
fn obstacles() -> Vec<Case> {
    vec![
        Case {
            name: "a folder where a file should be",
            before: "mkdir /etc/edict/file",
            after: "rmdir /etc/edict/file",
            manifests: with("/etc/edict/file"),
            says: &["Failed", "/etc/edict/file is a folder, not a file"],
            planned: true,
        },
        Case {
            name: "a file where a folder should be",
            before: "echo mine >/etc/edict/folder",
            after: "rm /etc/edict/folder",
            manifests: with("/etc/edict/folder/file"),
            says: &["Failed", "/etc/edict/folder"],
            planned: true,
        },
        Case {
            name: "a pipe",
            before: "mkfifo /etc/edict/pipe",
            after: "rm /etc/edict/pipe",
            manifests: with("/etc/edict/pipe"),
            says: &["Failed", "/etc/edict/pipe is", "not a file"],
            planned: true,
        },
        Case {
            name: "a file that is too large to keep",
            before: "truncate --size=$((10 * 1024 * 1024 + 1)) /etc/edict/large",
            after: "rm /etc/edict/large",
            manifests: with("/etc/edict/large"),
            says: &["Failed", "/etc/edict/large has more than 10 MiB"],
            planned: true,
        },
        Case {
            name: "an /etc that is mounted read-only",
            before: "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
            after: "umount /etc",
            manifests: with("/etc/edict/file"),
            says: &[
                "Failed",
                "Read-only file system",
                "is /etc of this node meant to be writable?",
            ],
            planned: false,
        },
        Case {
            name: "a full disk under one of two files",
            before: "mkdir /etc/edict/full; mount -t tmpfs -o size=64k tmpfs /etc/edict/full
                head --bytes=1M /dev/zero >/etc/edict/full/filler || true",
            after: "umount /etc/edict/full; rmdir /etc/edict/full",
            manifests: with("/etc/edict/full/file"),
            says: &[
                "Failed",
                "No space left on device",
                "free some space on the node",
            ],
            planned: false,
        },
        Case {
            name: "a state folder that can't be written",
            before: "mkdir -p /var/lib/edict; mount -t tmpfs -o ro tmpfs /var/lib/edict",
            after: "umount /var/lib/edict",
            manifests: with("/etc/edict/file"),
            says: &["/var/lib/edict can't be used", "Read-only file system"],
            planned: false,
        },
        Case {
            name: "a shared file that is no JSON",
            before: "mkdir -p /etc/docker; echo '{' >/etc/docker/daemon.json",
            after: "rm -r /etc/docker",
            manifests: vec![config(&json!({
                "docker": {"registryMirrors": ["https://mirror.example.com"]},
                "files": [{"path": "/etc/edict/beside", "content": "beside\n"}],
            }))],
            says: &["Failed", "/etc/docker/daemon.json", "nothing was written"],
            planned: true,
        },
    ]
}

#[tokio::test]
async fn what_can_not_be_done_is_said_and_nothing_changed() -> Result<()> {
    let host = boot().await?;
    let node = host.node();
    for case in ways().into_iter().chain(obstacles()) {
        let name = case.name;
        shell(node, case.before).await.context(name)?;
        let outcome = refused(node, &case).await;
        shell(node, case.after).await.context(name)?;
        outcome.context(name)?;
        // What was in the way is gone, and nothing was remembered of it.
        let (code, said) = edict(node, "restore", &case.manifests[..1]).await?;
        let forgotten = code == 0 && said == "ground: is not in force here\n";
        ensure!(forgotten, "{name}: {code}: {said}");
    }
    Ok(())
}

async fn refused(node: &Node, case: &Case) -> Result<()> {
    // The first does not look into what is mounted there.
    let names = ["find", HERE, "/var/lib/edict", "-name", ".edict*"];
    let before = node.tree("/etc").await?;
    for command in ["plan", "apply"] {
        let (code, said) = edict(node, command, &case.manifests).await?;
        if command == "apply" || case.planned {
            ensure!(code == 1, "{command} ended with {code}: {said}");
            for word in case.says {
                ensure!(
                    said.contains(word),
                    "{command} does not say {word:?}: {said}"
                );
            }
        } else {
            ensure!(code == 3, "{command} ended with {code}: {said}");
        }
        let after = node.tree("/etc").await?;
        ensure!(
            after == before,
            "{command} changed {}",
            difference(&before, &after)
        );
        let left = node.exec(&names).await?.text();
        ensure!(left.trim().is_empty(), "{command} left {left}");
    }
    Ok(())
}

fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let all = before.keys().chain(after.keys());
    let differ = all.filter(|path| before.get(*path) != after.get(*path));
    let differ =
        differ.map(|path| format!("{path}: {:?} -> {:?}", before.get(path), after.get(path)));
    differ.collect::<Vec<_>>().join("\n")
}

/// The inode, mode and owner of a file.
async fn identity(node: &Node, path: &str) -> Result<String> {
    node.run(&["stat", "--format=%i %a %u:%g", path]).await
}

/// Applies, looks, and gives back: then all of `/etc` is as it was.
async fn and_back(
    node: &Node,
    manifest: Value,
    look: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let before = node.tree("/etc").await?;
    let manifest = [manifest];
    let (code, said) = edict(node, "apply", &manifest).await?;
    ensure!(
        code == 0 && said.contains("ground: Applied"),
        "{code}: {said}"
    );
    look().await?;
    let (code, said) = edict(node, "restore", &manifest).await?;
    ensure!(
        code == 0 && said.contains("ground: given back"),
        "{code}: {said}"
    );
    let after = node.tree("/etc").await?;
    ensure!(
        after == before,
        "not as it was: {}",
        difference(&before, &after)
    );
    Ok(())
}

async fn says(node: &Node, path: &str, content: &str) -> Result<()> {
    let found = node.text(path).await?;
    ensure!(found.as_deref() == Some(content), "{path}: {found:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_odd_is_written_and_given_back() -> Result<()> {
    let host = boot().await?;
    let node = host.node();

    // The other name of a file keeps what the file was.
    shell(
        node,
        "echo old >/etc/edict/one; ln /etc/edict/one /etc/edict/two",
    )
    .await?;
    let one = "/etc/edict/one";
    and_back(node, files(&[(one, "new\n")]), async || {
        says(node, one, "new\n").await?;
        says(node, "/etc/edict/two", "old\n").await
    })
    .await
    .context("hard link")?;

    // Where a rename is impossible the file stays the same one.
    let hosts = "/etc/hosts";
    let was = identity(node, hosts).await?;
    and_back(
        node,
        files(&[(hosts, "127.0.0.1 localhost\n")]),
        async || {
            says(node, hosts, "127.0.0.1 localhost\n").await?;
            ensure!(
                identity(node, hosts).await? == was,
                "{hosts} is another file"
            );
            let said = node.run(&[AGENT, "status", "--root", "/"]).await?;
            ensure!(said.contains("written over in its place"), "{said}");
            Ok(())
        },
    )
    .await
    .context("mount point")?;
    ensure!(
        identity(node, hosts).await? == was,
        "{hosts} is another file"
    );

    // The largest file that is kept.
    let large = "/etc/edict/large";
    shell(node, "head --bytes=10M /dev/urandom >/etc/edict/large; chmod 640 /etc/edict/large; chown 3:4 /etc/edict/large").await?;
    let was = digest::of_bytes(&node.read(large).await?.unwrap_or_default());
    and_back(node, files(&[(large, "small\n")]), async || {
        says(node, large, "small\n").await
    })
    .await
    .context("10 MiB")?;
    let now = digest::of_bytes(&node.read(large).await?.unwrap_or_default());
    ensure!(now == was, "the 10 MiB are others");

    // Names that are no text, beside a file and in a folder that was made for one.
    shell(node, "touch $'/etc/edict/\\xff'; mkdir $'/etc/edict/\\xfe'").await?;
    and_back(
        node,
        files(&[("/etc/edict/new/file", "new\n")]),
        async || {
            shell(node, "touch $'/etc/edict/new/\\xff'").await?;
            let (_, said) = edict(
                node,
                "plan",
                &[files(&[("/etc/edict/new/file", "newer\n")])],
            )
            .await?;
            ensure!(said.contains("+newer"), "{said}");
            shell(node, "rm $'/etc/edict/new/\\xff'").await.map(drop)
        },
    )
    .await
    .context("names")?;

    // Behind a link within /etc the file itself is written, and the link stays.
    shell(
        node,
        "echo old >/etc/edict/real; ln -s real /etc/edict/link",
    )
    .await?;
    and_back(node, files(&[("/etc/edict/link", "new\n")]), async || {
        says(node, "/etc/edict/real", "new\n").await?;
        let leads = node.run(&["readlink", "/etc/edict/link"]).await?;
        ensure!(leads.trim() == "real", "{leads}");
        Ok(())
    })
    .await
    .context("link")
}
