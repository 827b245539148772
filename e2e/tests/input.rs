//! Mistakes of people: each gets a sentence that names the field, the rule, the node and what to
//! do, nothing is written where it does not belong, and every other node is served.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::hostfile::{self, DAEMON};
use e2e::{Context, Draft, Node, Trees, nodeconfig, status};
use edict_crds::nodeconfig::State;
use edict_crds::{NodeConfigStatus, Role};
use serde_json::{Value, json};

/// The operator judges as soon as it sees.
const JUDGED: Duration = Duration::from_secs(30);
/// What failed on a node is tried again every thirty seconds.
const MENDED: Duration = Duration::from_secs(90);

#[tokio::test]
async fn mistakes_are_refused_at_admission() -> Result<()> {
    e2e::test("input-admission", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let all = || json!({"role": "All"});
        let motd = |target: Value| json!({"target": target, "files": [{"path": "/etc/motd", "content": "x"}]});
        let file = |path: &str| json!({"target": all(), "files": [{"path": path, "content": "x"}]});
        let mode = |mode: Value| json!({"target": all(), "files": [{"path": "/etc/motd", "content": "x", "mode": mode}]});
        let large = "x".repeat(64 * 1024 + 1);
        for (spec, field, sentence) in [
            (json!({"target": all(), "dockr": {}}), "spec.dockr", "unknown field"),
            (
                json!({"target": all(), "docker": {"registryMirror": []}}),
                "spec.docker.registryMirror",
                "unknown field",
            ),
            (motd(json!({"role": "Node"})), "spec.target.role", "role \"Node\" is not known: write Worker"),
            (motd(json!({"role": "node"})), "spec.target.role", "role \"node\" is not known: write Worker"),
            (motd(json!({"role": "worker"})), "spec.target.role", "role \"worker\" is not known: write Worker"),
            (motd(json!({"role": "master"})), "spec.target.role", "role \"master\" is not known: write Master"),
            (motd(json!({"role": "control-plane"})), "spec.target.role", "write Master"),
            (motd(json!({"role": "Etcd"})), "spec.target.role", "write All, Master or Worker"),
            (motd(json!({})), "spec.target", "an empty target is refused: give a role, nodes or a selector"),
            (motd(json!({"nodes": []})), "spec.target", "an empty target is refused"),
            (motd(json!({"selector": {}})), "spec.target", "an empty target is refused"),
            (json!({"files": []}), "spec.target", "Required value"),
            (
                motd(json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
                "spec.target.selector.matchExpressions[0]",
                "In and NotIn need values",
            ),
            (json!({"target": all()}), "spec", "there is nothing to configure: give one of caCertificates, commands, containerd, dns, docker, files, firewall, hosts, limits, modules, ntp, proxy, sysctl, units"),
            (file("etc/motd"), "spec.files[0].path", "must be an absolute path under /etc/"),
            (file("/opt/motd"), "spec.files[0].path", "must be an absolute path under /etc/"),
            (file("/etc/edict/../motd"), "spec.files[0].path", "must not have '.' or '..' in it"),
            (file("/etc/passwd"), "spec.files[0].path", "no setting allows"),
            (mode(json!("rwxr-xr-x")), "spec.files[0].mode", "Too long"),
            (mode(json!("rwx")), "spec.files[0].mode", "must be an octal number of three digits in quotes"),
            (mode(json!("1777")), "spec.files[0].mode", "no set-uid, set-gid or sticky bit"),
            (mode(json!(644)), "spec.files[0].mode", "must be of type string"),
            (
                json!({"target": all(), "files": [{"path": "/etc/motd", "content": large}]}),
                "spec.files[0].content",
                "Too long: may not be more than 65536",
            ),
            (
                json!({"target": all(), "files": [{"path": "/etc/motd", "content": "a"}, {"path": "/etc/motd", "content": "b"}]}),
                "spec.files[1]",
                "Duplicate value",
            ),
            (
                json!({"target": all(), "docker": {"registryMirrors": ["mirror.example.com"]}}),
                "spec.docker.registryMirrors",
                "for example https://mirror.example.com",
            ),
        ] {
            refused(&ctx, "NodeConfig", "input-admission", spec, field, sentence).await?;
        }
        let fleet = refused(&ctx, "Fleet", "mine", json!({}), "", "there is one Fleet, and its name is default");
        fleet.await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// The API server refuses an object and says why, and so it is not there.
async fn refused(
    ctx: &Context,
    kind: &str,
    name: &str,
    spec: Value,
    field: &str,
    sentence: &str,
) -> Result<()> {
    let manifest = json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
    .to_string();
    let output = ctx.try_apply(&manifest).await?;
    let said = &output.stderr;
    let begin: String = manifest.chars().take(300).collect();
    ensure!(
        !output.success() && said.contains(field) && said.contains(sentence),
        "{begin}: {field} and {sentence:?} were expected: {}{said}",
        output.text()
    );
    let there = ctx
        .kubectl()
        .args(["get", kind, name, "--ignore-not-found", "-o", "name"]);
    ensure!(there.text().await?.is_empty(), "{begin} is there");
    Ok(())
}

#[tokio::test]
async fn mistakes_are_refused_by_the_operator() -> Result<()> {
    e2e::test("input-operator", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        // Fewer characters than the schema allows, and more bytes than a file may have.
        let large = "\u{e9}".repeat(40 * 1024);
        let bad = Draft::new("input-operator", nodeconfig::role(Role::All))
            .file("/etc/edict/input-operator/fine", "fine\n")
            .file("/etc/systemd/system/input.service", "[Service]\n")
            .file("/etc/input.conf", "x\n")
            .file("/etc/edict-samples/locked", "x\n")
            .file("/etc/edict/input-operator/large", &large)
            .file("/etc/edict/input-operator/", "x\n")
            .file("/etc/edict/a b", "x\n");
        bad.apply(&ctx).await?;
        let message = status::refused(&ctx, bad.name(), JUDGED).await?;
        for words in [
            "spec.files[1].path: \"/etc/systemd/system/input.service\" is refused by rule path-executes: files here are programs for root: have the Fleet allow this very path",
            "spec.files[2].path: \"/etc/input.conf\" is refused by rule path-root: use a path under /etc that is allowed",
            "spec.files[3].path: \"/etc/edict-samples/locked\" is refused by rule path-protected: the Fleet protects this path",
            "spec.files[4].content: \"81920 bytes\" is refused by rule content-size: keep each file's content within 64 KiB",
            "spec.files[5].path: \"/etc/edict/input-operator/\" is refused by rule path-normal",
            "spec.files[6].path: \"/etc/edict/a b\" is refused by rule blank",
        ] {
            ensure!(message.contains(words), "no {words:?} in {message}");
        }
        ensure!(!message.contains("files[0]"), "{message}");
        before.unchanged(ctx.nodes()).await?;

        // Mended, it goes out.
        let path = "/etc/edict/input-operator/fine";
        let good = Draft::new(bad.name(), nodeconfig::role(Role::All)).file(path, "fine\n");
        good.settle(&ctx, ctx.nodes()).await?;
        let found = ctx.read_all(ctx.nodes(), path).await?;
        ensure!(found.values().all(|one| one.as_deref() == Some(b"fine\n")), "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn links_that_lead_astray_are_not_followed() -> Result<()> {
    e2e::test("input-links", async |ctx| {
        let folder = "/etc/edict/input-links";
        let workers = ctx.workers();
        let (out, inside) = (&workers[0], &workers[1]);
        for node in ctx.nodes() {
            node.remove(folder).await?;
            node.run(&["mkdir", "-p", folder]).await?;
        }
        let (link, path) = (format!("{folder}/link"), format!("{folder}/link/passwd-"));
        out.run(&["ln", "-s", "/var/tmp", &link]).await?;
        // What is there is in /etc, and still nobody's.
        inside.run(&["ln", "-s", "/etc/kubernetes", &link]).await?;
        let before = Trees::of(&workers).await?;
        let draft = Draft::new(&ctx.name, nodeconfig::role(Role::All)).file(&path, "astray\n");
        draft.apply(&ctx).await?;
        let count = u32::try_from(ctx.nodes().len())?;
        let status = status::reach(&ctx, &ctx.name, "two to fail", JUDGED, |status| {
            (status.applied, status.failed) == (count - 2, 2)
        })
        .await?;
        let words = [
            &*link,
            "is a symlink that leads out of /etc (to /var/tmp): remove the link",
        ];
        said(&status, out, State::Failed, &words)?;
        let words = [
            "files[0].path",
            "/etc/kubernetes/passwd-",
            "rule path-forbidden",
        ];
        said(&status, inside, State::Refused, &words)?;
        served(&ctx, &path, "astray\n", &[out, inside]).await?;
        before.unchanged(&workers).await?;
        let outside = out.stat("/var/tmp/passwd-").await?;
        ensure!(outside.is_none(), "{outside:?}");

        for node in &workers {
            node.remove(&link).await?;
        }
        all_applied(&ctx).await?;
        served(&ctx, &path, "astray\n", &[]).await
    })
    .await
}

#[tokio::test]
async fn a_daemon_json_that_is_none_is_left_alone() -> Result<()> {
    e2e::test("input-json", async |ctx| {
        hostfile::without_docker(&ctx).await?;
        let workers = ctx.workers();
        let (invalid, doubled) = (&workers[0], &workers[1]);
        let broken = b"{\n  \"debug\": true,,\n}\n";
        let twice = b"{\"debug\": true, \"registry-mirrors\": [], \"debug\": false}\n";
        for node in ctx.masters() {
            ctx.plant(&node, DAEMON, b"{\n  \"debug\": true\n}\n", 0o644)
                .await?;
        }
        ctx.plant(invalid, DAEMON, broken, 0o640).await?;
        ctx.plant(doubled, DAEMON, twice, 0o600).await?;
        let before = Trees::of(&workers).await?;
        let mirror = "https://input-json.example.com";
        let draft = Draft::new(&ctx.name, nodeconfig::role(Role::All)).mirrors(&[mirror]);
        draft.apply(&ctx).await?;
        let count = u32::try_from(ctx.nodes().len())?;
        let status = status::reach(&ctx, &ctx.name, "two to fail", JUDGED, |status| {
            (status.applied, status.failed) == (count - 2, 2)
        })
        .await?;
        said(
            &status,
            invalid,
            State::Failed,
            &[DAEMON, "not valid JSON", "line 2"],
        )?;
        said(
            &status,
            doubled,
            State::Failed,
            &[DAEMON, "the key \"debug\" is there twice"],
        )?;
        ensure!(status.state == Some(State::Failed), "{status:?}");
        for name in [&invalid.name, &doubled.name] {
            ensure!(status.message.contains(name), "{name}: {}", status.message);
        }
        for node in ctx.masters() {
            mirrored(&node, mirror).await?;
        }
        before.unchanged(&workers).await?;

        // Somebody mends the files; nobody tells Edict.
        for node in &workers {
            node.write(DAEMON, b"{\n  \"debug\": true\n}\n", 0o640, 0, 0)
                .await?;
        }
        all_applied(&ctx).await?;
        for node in ctx.nodes() {
            mirrored(node, mirror).await?;
        }
        draft.delete(&ctx).await?;
        for node in ctx.nodes() {
            let found = node.text(DAEMON).await?;
            ensure!(
                found.as_deref() == Some("{\n  \"debug\": true\n}\n"),
                "{}: {found:?}",
                node.name
            );
        }
        Ok(())
    })
    .await
}

/// The node's file has the mirror and, as before, `debug`: nothing else.
async fn mirrored(node: &Node, mirror: &str) -> Result<()> {
    let text = node.text(DAEMON).await?.unwrap_or_default();
    let found: Value = serde_json::from_str(&text)?;
    ensure!(
        found == json!({"debug": true, "registry-mirrors": [mirror]}),
        "{}: {text}",
        node.name
    );
    Ok(())
}

/// The status says of the node that it is in this state, in these words.
fn said(status: &NodeConfigStatus, node: &Node, state: State, words: &[&str]) -> Result<()> {
    ensure!(
        status::says(status, &node.name, state, words),
        "{} is not said to be {state:?} for {words:?}: {status:?}",
        node.name
    );
    Ok(())
}

/// Every node but these has the file.
async fn served(ctx: &Context, path: &str, content: &str, but: &[&Node]) -> Result<()> {
    for (node, found) in ctx.read_all(ctx.nodes(), path).await? {
        let expected = (!but.iter().any(|one| one.name == node)).then_some(content.as_bytes());
        ensure!(found.as_deref() == expected, "{node}: {found:?}");
    }
    Ok(())
}

/// Waits until all nodes are there, without anybody's doing.
async fn all_applied(ctx: &Context) -> Result<()> {
    let all = status::reach(ctx, &ctx.name, "all nodes", MENDED, |status| {
        status.state == Some(State::Applied) && status.failed == 0 && status.unreachable == 0
    });
    all.await?;
    Ok(())
}
