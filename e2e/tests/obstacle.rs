//! What stands in the way on a host: links, mounts and disks. Each ends in a sentence and with
//! `/etc` as it was, or in the right file with everything around it as it was.

use anyhow::{Context as _, Result, ensure};
use e2e::host::{AGENT, manifest};
use e2e::hostfile::same_on;
use e2e::settings::Settings;
use e2e::{Host, Trees};
use edict_core::digest;
use serde_json::{Value, json};

/// Where the tests may make a mess.
const HERE: &str = "/etc/edict";

/// A host with the agent's program on it, and folders to make a mess in.
async fn boot() -> Result<Host> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
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
    manifest("ground", spec)
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
        node.shell(case.before).await.context(name)?;
        let outcome = refused(&host, &case).await;
        node.shell(case.after).await.context(name)?;
        outcome.context(name)?;
        // What was in the way is gone, and nothing was remembered of it.
        let (code, said) = host.edict("restore", &case.manifests[..1]).await?;
        let forgotten = code == 0 && said == "ground: is not in force here\n";
        ensure!(forgotten, "{name}: {code}: {said}");
    }
    Ok(())
}

async fn refused(host: &Host, case: &Case) -> Result<()> {
    let node = host.node();
    // The first does not look into what is mounted there.
    let names = ["find", HERE, "/var/lib/edict", "-name", ".edict*"];
    let here = std::slice::from_ref(node);
    let before = Trees::of(here).await?;
    for command in ["plan", "apply"] {
        let (code, said) = host.edict(command, &case.manifests).await?;
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
        before.unchanged(here).await.context(command)?;
        let left = node.exec(&names).await?.text();
        ensure!(left.trim().is_empty(), "{command} left {left}");
    }
    Ok(())
}

/// Applies, looks, and gives back: then all of `/etc` is as it was.
async fn and_back(
    host: &Host,
    manifest: Value,
    look: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let here = std::slice::from_ref(host.node());
    let before = Trees::of(here).await?;
    let manifest = [manifest];
    let (code, said) = host.edict("apply", &manifest).await?;
    ensure!(
        code == 0 && said.contains("ground: Applied"),
        "{code}: {said}"
    );
    look().await?;
    let (code, said) = host.edict("restore", &manifest).await?;
    ensure!(
        code == 0 && said.contains("ground: given back"),
        "{code}: {said}"
    );
    before.unchanged(here).await
}

#[tokio::test]
async fn what_is_odd_is_written_and_given_back() -> Result<()> {
    let host = boot().await?;
    let node = host.node();
    let here = std::slice::from_ref(node);

    // The other name of a file keeps what the file was.
    node.shell("echo old >/etc/edict/one; ln /etc/edict/one /etc/edict/two")
        .await?;
    let one = "/etc/edict/one";
    and_back(&host, files(&[(one, "new\n")]), async || {
        same_on(here, one, "new\n").await?;
        same_on(here, "/etc/edict/two", "old\n").await
    })
    .await
    .context("hard link")?;

    // Where a rename is impossible the file stays the same one.
    let hosts = "/etc/hosts";
    let was = node.identity(hosts).await?;
    and_back(
        &host,
        files(&[(hosts, "127.0.0.1 localhost\n")]),
        async || {
            same_on(here, hosts, "127.0.0.1 localhost\n").await?;
            ensure!(
                node.identity(hosts).await? == was,
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
        node.identity(hosts).await? == was,
        "{hosts} is another file"
    );

    // The largest file that is kept.
    let large = "/etc/edict/large";
    node.shell("head --bytes=10M /dev/urandom >/etc/edict/large; chmod 640 /etc/edict/large; chown 3:4 /etc/edict/large").await?;
    let was = digest::of_bytes(&node.read(large).await?.unwrap_or_default());
    and_back(&host, files(&[(large, "small\n")]), async || {
        same_on(here, large, "small\n").await
    })
    .await
    .context("10 MiB")?;
    let now = digest::of_bytes(&node.read(large).await?.unwrap_or_default());
    ensure!(now == was, "the 10 MiB are others");

    // Names that are no text, beside a file and in a folder that was made for one.
    node.shell("touch $'/etc/edict/\\xff'; mkdir $'/etc/edict/\\xfe'")
        .await?;
    and_back(
        &host,
        files(&[("/etc/edict/new/file", "new\n")]),
        async || {
            node.shell("touch $'/etc/edict/new/\\xff'").await?;
            let (_, said) = host
                .edict("plan", &[files(&[("/etc/edict/new/file", "newer\n")])])
                .await?;
            ensure!(said.contains("+newer"), "{said}");
            node.shell("rm $'/etc/edict/new/\\xff'").await.map(drop)
        },
    )
    .await
    .context("names")?;

    // Behind a link within /etc the file itself is written, and the link stays.
    node.shell("echo old >/etc/edict/real; ln -s real /etc/edict/link")
        .await?;
    and_back(&host, files(&[("/etc/edict/link", "new\n")]), async || {
        same_on(here, "/etc/edict/real", "new\n").await?;
        let leads = node.run(&["readlink", "/etc/edict/link"]).await?;
        ensure!(leads.trim() == "real", "{leads}");
        Ok(())
    })
    .await
    .context("link")
}
