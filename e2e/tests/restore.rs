//! What is changed, and what is given back: contents, permissions and owners, absence, single keys
//! in a file that others write to; and what is not, since somebody else changed it or it is to stay.

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::{DAEMON, folder, same_on, without_docker};
use e2e::nodeconfig::{event, named};
use e2e::{Context, Draft, Node, Trees};
use edict_core::layer::DeletionPolicy;
use k8s_openapi::jiff::Timestamp;

/// As a person lays it out: foreign keys, odd blanks, an own value of one of the keys.
const BY_HAND: &str = "{\n   \"debug\" :true,\n\n \"insecure-registries\" :  [ \"own.example.com\" ,\"10.1.0.0/16\" ],\n \"log-opts\": {\"max-size\":  \"10m\"}\n  }\n";

#[tokio::test]
async fn an_update_changes_only_what_it_says() -> Result<()> {
    e2e::test("restore-update", async |ctx| {
        let (here, path) = begin(&ctx).await?;
        plant_by_hand(&ctx, &here[0]).await?;
        let [kept, changed, left] = ["kept", "changed", "left-out"].map(&path);
        ctx.plant(&here[0], &left, b"the node's own\n", 0o600)
            .await?;
        let before = Trees::of(ctx.nodes()).await?;
        let draft = Draft::new(&ctx.name, named(&here)).file(&kept, "kept\n");
        draft
            .clone()
            .file(&changed, "first\n")
            .file(&left, "for now\n")
            .mirrors(&["https://first.example.com"])
            .insecure(&["set.example.com:5000"])
            .settle(&ctx, &here)
            .await?;
        let first = BY_HAND.replace(
            "[ \"own.example.com\" ,\"10.1.0.0/16\" ]",
            "[\"set.example.com:5000\"]",
        );
        same_on(
            &here,
            DAEMON,
            with_mirrors(&first, "https://first.example.com"),
        )
        .await?;
        same_on(&here, &changed, "first\n").await?;
        same_on(&here, &left, "for now\n").await?;
        let kept_inode = inode(&here[0], &kept).await?;

        // Another mirror, another content; one key and one file no longer wanted.
        let second = draft
            .clone()
            .file(&changed, "second\n")
            .mirrors(&["https://second.example.com"]);
        second.settle(&ctx, &here).await?;
        let text = here[0].text(DAEMON).await?.unwrap_or_default();
        let own = "[\"own.example.com\", \"10.1.0.0/16\"]";
        let laid_out = BY_HAND.replace("[ \"own.example.com\" ,\"10.1.0.0/16\" ]", own);
        let expected = with_mirrors(&laid_out, "https://second.example.com");
        ensure!(text == expected, "{DAEMON} says {text:?}, not {expected:?}");
        same_on(&here, &changed, "second\n").await?;
        same_on(&here, &left, "the node's own\n").await?;
        ensure!(
            inode(&here[0], &kept).await? == kept_inode,
            "{kept} was written again though it stays the same"
        );
        before
            .changed_only(&here, &[DAEMON, &kept, &changed])
            .await?;

        // Nothing of Docker any more, while the files stay.
        draft
            .clone()
            .file(&changed, "second\n")
            .settle(&ctx, &here)
            .await?;
        before.changed_only(&here, &[&kept, &changed]).await?;

        second.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// An odd mode, an odd owner, bytes that are no text.
#[tokio::test]
async fn an_odd_file() -> Result<()> {
    e2e::test("restore-odd", async |ctx| {
        let (here, path) = begin(&ctx).await?;
        let (node, odd) = (&here[0], path("odd"));
        let own = b"\xff\xfe\x00 no text\r\n no line break at the end";
        ctx.plant(node, &odd, own, 0o604).await?;
        node.run(&["chown", "1234:4321", &odd]).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let draft = Draft::new(&ctx.name, named(&here));

        // Whoever says nothing about mode and owner leaves them.
        let plain = draft.clone().file(&odd, "by Edict\n");
        plain.settle(&ctx, &here).await?;
        same_on(&here, &odd, "by Edict\n").await?;
        has(node, &odd, 0o604, 1234, 4321).await?;

        let said = draft.file_as(&odd, "by Edict\n", "0640", 7, 8);
        said.settle(&ctx, &here).await?;
        has(node, &odd, 0o640, 7, 8).await?;
        plain.settle(&ctx, &here).await?;
        has(node, &odd, 0o604, 1234, 4321).await?;
        said.settle(&ctx, &here).await?;

        said.delete(&ctx).await?;
        same_on(&here, &odd, own).await?;
        has(node, &odd, 0o604, 1234, 4321).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// Files and folders that were not there are not there afterwards; a folder that somebody else put
/// something in stays.
#[tokio::test]
async fn an_absent_file_and_its_folders() -> Result<()> {
    e2e::test("restore-absent", async |ctx| {
        let (here, path) = begin(&ctx).await?;
        let node = &here[0];
        let before = Trees::of(ctx.nodes()).await?;
        let (deep, used) = (path("a/b/c/deep"), path("used/ours"));
        let draft = Draft::new(&ctx.name, named(&here))
            .file(&deep, "")
            .file(&used, "ours\n");
        draft.settle(&ctx, &here).await?;
        same_on(&here, &deep, "").await?;
        has(node, &deep, 0o644, 0, 0).await?;
        let theirs = path("used/theirs");
        ctx.plant(node, &theirs, b"theirs\n", 0o644).await?;

        draft.delete(&ctx).await?;
        same_on(&here, &theirs, "theirs\n").await?;
        before
            .changed_only(
                &here,
                &[&path("used"), &theirs, path("").trim_end_matches('/')],
            )
            .await
    })
    .await
}

#[tokio::test]
async fn keys_in_a_file_laid_out_by_hand() -> Result<()> {
    e2e::test("restore-keys", async |ctx| {
        let (here, _) = begin(&ctx).await?;
        plant_by_hand(&ctx, &here[0]).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let draft = Draft::new(&ctx.name, named(&here)).mirrors(&["https://m.example.com"]);
        draft.settle(&ctx, &here).await?;
        same_on(
            &here,
            DAEMON,
            with_mirrors(BY_HAND, "https://m.example.com"),
        )
        .await?;
        has(&here[0], DAEMON, 0o604, 1234, 4321).await?;
        before.changed_only(&here, &[DAEMON]).await?;

        draft.delete(&ctx).await?;
        same_on(&here, DAEMON, BY_HAND).await?;
        has(&here[0], DAEMON, 0o604, 1234, 4321).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn keys_in_a_file_that_was_absent() -> Result<()> {
    e2e::test("restore-keys-absent", async |ctx| {
        let (here, _) = begin(&ctx).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let draft = Draft::new(&ctx.name, named(&here))
            .mirrors(&["https://m.example.com"])
            .insecure(&["10.20.0.0/16"]);
        draft.settle(&ctx, &here).await?;
        let expected = "{\n  \"insecure-registries\": [\"10.20.0.0/16\"],\n  \"registry-mirrors\": [\"https://m.example.com\"]\n}\n";
        same_on(&here, DAEMON, expected).await?;
        has(&here[0], DAEMON, 0o644, 0, 0).await?;
        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// Somebody changes one key and adds another one: both stay, and it is said.
#[tokio::test]
async fn what_somebody_else_changed_is_left() -> Result<()> {
    e2e::test("restore-foreign", async |ctx| {
        let since = Timestamp::now();
        let (here, path) = begin(&ctx).await?;
        let node = &here[0];
        let changed = changed_by_others(&ctx, &here, &path, DeletionPolicy::Restore).await?;
        changed.delete(&ctx).await?;
        let left = "{\"insecure-registries\": [\"own.example.com\"], \"registry-mirrors\": [\"https://theirs.example.com\"], \"debug\": true}";
        let text = node.text(DAEMON).await?.unwrap_or_default();
        ensure!(
            same_json(&text, left)?,
            "{DAEMON} says {text}, where this was to be left: {left}"
        );
        same_on(&here, &path("changed"), "theirs\n").await?;
        same_on(&here, &path("untouched"), "the node's own\n").await?;
        let words = [
            changed.name(),
            DAEMON,
            "registry-mirrors",
            &path("changed"),
        ];
        let note = event(&ctx, since, &node.name, "ForeignChange", &words).await?;
        ensure!(
            !note.contains("insecure-registries") && !note.contains("untouched"),
            "the event names what was given back: {note}"
        );
        Ok(())
    })
    .await
}

/// Two NodeConfigs leave the same node one after the other: each says what was left alone.
#[tokio::test]
async fn every_foreign_change_is_said() -> Result<()> {
    e2e::test("restore-said", async |ctx| {
        let since = Timestamp::now();
        let (here, path) = begin(&ctx).await?;
        for name in ["first", "second"] {
            let draft = Draft::new(&format!("{}-{name}", ctx.name), named(&here))
                .file(&path(name), "by Edict\n")
                .reports();
            ctx.plant(&here[0], &path(name), b"own\n", 0o644).await?;
            draft.settle(&ctx, &here).await?;
            here[0].write(&path(name), b"theirs\n", 0o644, 0, 0).await?;
            draft.delete(&ctx).await?;
            let words = [draft.name(), &path(name)];
            event(&ctx, since, &here[0].name, "ForeignChange", &words).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn forced_gives_back_what_somebody_else_changed() -> Result<()> {
    e2e::test("restore-forced", async |ctx| {
        let (here, path) = begin(&ctx).await?;
        let changed = changed_by_others(&ctx, &here, &path, DeletionPolicy::RestoreForced).await?;
        changed.delete(&ctx).await?;
        // A key that was never Edict's is none of its business.
        let text = here[0].text(DAEMON).await?.unwrap_or_default();
        let expected = "{\"insecure-registries\": [\"own.example.com\"], \"debug\": true}";
        ensure!(same_json(&text, expected)?, "{DAEMON} says {text}");
        for file in ["changed", "untouched"] {
            same_on(&here, &path(file), "the node's own\n").await?;
            has(&here[0], &path(file), 0o640, 0, 0).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn retain_leaves_everything() -> Result<()> {
    e2e::test("restore-retain", async |ctx| {
        let (here, path) = begin(&ctx).await?;
        let node = &here[0];
        ctx.plant(node, DAEMON, BY_HAND.as_bytes(), 0o644).await?;
        // So that cleaning up takes it away: nobody else will.
        let file = path("retained");
        ctx.plant(node, &file, b"the node's own\n", 0o644).await?;
        let draft = Draft::new(&ctx.name, named(&here))
            .policy(DeletionPolicy::Retain)
            .file(&file, "stays\n")
            .mirrors(&["https://stays.example.com"]);
        draft.settle(&ctx, &here).await?;
        let applied = Trees::of(ctx.nodes()).await?;
        draft.delete(&ctx).await?;
        applied.unchanged(ctx.nodes()).await?;

        // What was there before is forgotten: now this is the node's own.
        let next = draft.policy(DeletionPolicy::Restore).file(&file, "next\n");
        next.settle(&ctx, &here).await?;
        same_on(&here, &file, "next\n").await?;
        next.delete(&ctx).await?;
        applied.unchanged(ctx.nodes()).await
    })
    .await
}

/// One worker without Docker's file, and paths in the test's folder, which is on no node.
async fn begin(ctx: &Context) -> Result<(Vec<Node>, impl Fn(&str) -> String + use<>)> {
    without_docker(ctx).await?;
    let folder = folder(ctx).await?;
    let here = ctx.workers()[..1].to_vec();
    Ok((here, move |name: &str| format!("{folder}/{name}")))
}

async fn plant_by_hand(ctx: &Context, node: &Node) -> Result<()> {
    ctx.plant(node, DAEMON, BY_HAND.as_bytes(), 0o604).await?;
    node.run(&["chown", "1234:4321", DAEMON]).await?;
    Ok(())
}

/// `text` with this mirror in it, indented as its first key is; every other byte as it was.
fn with_mirrors(text: &str, url: &str) -> String {
    let last = "\"10m\"}";
    text.replace(
        last,
        &format!("{last},\n   \"registry-mirrors\": [\"{url}\"]"),
    )
}

/// Has a NodeConfig set two keys and two files, and somebody else change one of each and add a key.
async fn changed_by_others(
    ctx: &Context,
    here: &[Node],
    path: &impl Fn(&str) -> String,
    policy: DeletionPolicy,
) -> Result<Draft> {
    let node = &here[0];
    let own = b"{\"insecure-registries\": [\"own.example.com\"]}";
    ctx.plant(node, DAEMON, own, 0o644).await?;
    let mut draft = Draft::new(&ctx.name, named(here))
        .policy(policy)
        .reports()
        .mirrors(&["https://ours.example.com"])
        .insecure(&["ours.example.com"]);
    for file in ["changed", "untouched"] {
        ctx.plant(node, &path(file), b"the node's own\n", 0o640)
            .await?;
        draft = draft.file(&path(file), "by Edict\n");
    }
    draft.settle(ctx, here).await?;
    let theirs = "{\n  \"insecure-registries\": [\"ours.example.com\"],\n  \"registry-mirrors\": [\"https://theirs.example.com\"],\n  \"debug\": true\n}\n";
    node.write(DAEMON, theirs.as_bytes(), 0o644, 0, 0).await?;
    node.write(&path("changed"), b"theirs\n", 0o640, 0, 0)
        .await?;
    Ok(draft)
}

async fn has(node: &Node, path: &str, mode: u32, uid: u32, gid: u32) -> Result<()> {
    let stat = node.stat(path).await?;
    let stat = stat.with_context(|| format!("{} has no {path}", node.name))?;
    ensure!(
        (stat.mode, stat.uid, stat.gid) == (mode, uid, gid),
        "{path} on {} is {stat:?}, not {mode:o} {uid}:{gid}",
        node.name
    );
    Ok(())
}

async fn inode(node: &Node, path: &str) -> Result<String> {
    node.run(&["stat", "--format=%i", path]).await
}

fn same_json(text: &str, expected: &str) -> Result<bool> {
    let read = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text).with_context(|| format!("{text:?}"))
    };
    Ok(read(text)? == read(expected)?)
}
