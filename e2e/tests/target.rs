//! Which nodes a NodeConfig reaches, read from the disk of every node: those that are meant have
//! it, all others are as they were.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::{DAEMON, folder, same_on, without_docker};
use e2e::nodeconfig::{named, role, selected};
use e2e::{Context, Draft, Node, Trees};
use edict_crds::Role;
use edict_crds::target::{Operator, Requirement, Selector};

#[tokio::test]
async fn masters_only() -> Result<()> {
    e2e::test("target-masters", async |ctx| {
        by_role(&ctx, Role::Master, &ctx.masters(), &ctx.workers()).await
    })
    .await
}

#[tokio::test]
async fn workers_only() -> Result<()> {
    e2e::test("target-workers", async |ctx| {
        by_role(&ctx, Role::Worker, &ctx.workers(), &ctx.masters()).await
    })
    .await
}

/// A file and Docker's mirrors on nodes of one role; nothing on the others, and nothing anywhere
/// afterwards.
async fn by_role(ctx: &Context, wanted: Role, meant: &[Node], others: &[Node]) -> Result<()> {
    ensure!(
        !meant.is_empty() && !others.is_empty(),
        "both roles are needed"
    );
    without_docker(ctx).await?;
    let folder = folder(ctx).await?;
    let before = Trees::of(ctx.nodes()).await?;
    let file = format!("{folder}/role");
    let content = format!("for the role {wanted:?} only\n");
    let draft = Draft::new(&ctx.name, role(wanted))
        .file(&file, &content)
        .mirrors(&["https://mirror.example.com"]);
    let status = draft.settle(ctx, meant).await?;
    let nodes = u32::try_from(meant.len())?;
    ensure!(
        (status.targeted, status.applied, status.failed) == (nodes, nodes, 0),
        "the status counts otherwise: {status:?}"
    );
    // The nodes of these clusters have none.
    ensure!(
        status
            .message
            .ends_with("docker.service is not on this node"),
        "it does not say that nobody reads it: {status:?}"
    );

    same_on(meant, &file, &content).await?;
    let json = "{\n  \"registry-mirrors\": [\"https://mirror.example.com\"]\n}\n";
    same_on(meant, DAEMON, json).await?;
    before
        .changed_only(meant, &["/etc/docker", DAEMON, &folder, &file])
        .await?;
    before.unchanged(others).await?;

    draft.delete(ctx).await?;
    before.unchanged(ctx.nodes()).await
}

#[tokio::test]
async fn both_roles_with_different_content() -> Result<()> {
    e2e::test("target-both", async |ctx| {
        without_docker(&ctx).await?;
        let file = format!("{}/role", folder(&ctx).await?);
        let before = Trees::of(ctx.nodes()).await?;
        let draft = |suffix: &str, wanted, mirrors: &[&str]| {
            Draft::new(&format!("{}-{suffix}", ctx.name), role(wanted))
                .file(&file, &format!("these are {suffix}\n"))
                .mirrors(mirrors)
        };
        let masters = draft("masters", Role::Master, &["https://masters.example.com"]);
        let workers = draft(
            "workers",
            Role::Worker,
            &["https://workers.example.com", "http://10.20.0.5:5000"],
        );
        masters.apply(&ctx).await?;
        workers.apply(&ctx).await?;
        masters.settled(&ctx, &ctx.masters()).await?;
        workers.settled(&ctx, &ctx.workers()).await?;

        same_on(&ctx.masters(), &file, "these are masters\n").await?;
        same_on(&ctx.workers(), &file, "these are workers\n").await?;
        let json = |mirrors: &str| format!("{{\n  \"registry-mirrors\": [{mirrors}]\n}}\n");
        let on_masters = json("\"https://masters.example.com\"");
        let on_workers = json("\"https://workers.example.com\", \"http://10.20.0.5:5000\"");
        same_on(&ctx.masters(), DAEMON, &on_masters).await?;
        same_on(&ctx.workers(), DAEMON, &on_workers).await?;

        masters.delete(&ctx).await?;
        before.unchanged(&ctx.masters()).await?;
        same_on(&ctx.workers(), &file, "these are workers\n").await?;
        same_on(&ctx.workers(), DAEMON, &on_workers).await?;
        workers.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn every_node() -> Result<()> {
    e2e::test("target-all", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let file = format!("/etc/motd.d/{}", ctx.name);
        let draft = Draft::new(&ctx.name, role(Role::All)).file(&file, "hello, all\n");
        let status = draft.settle(&ctx, ctx.nodes()).await?;
        ensure!(
            status.applied as usize == ctx.nodes().len() && status.nodes.is_empty(),
            "the status counts otherwise: {status:?}"
        );
        same_on(ctx.nodes(), &file, "hello, all\n").await?;
        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn by_name() -> Result<()> {
    e2e::test("target-name", async |ctx| {
        let (masters, workers) = (ctx.masters(), ctx.workers());
        let folder = folder(&ctx).await?;
        let file = format!("{folder}/named");
        let before = Trees::of(ctx.nodes()).await?;
        // Of both roles, and not the first of its role.
        let (meant, others) = split(&ctx, |node| {
            is(node, masters.last()) || is(node, workers.last())
        });
        let draft = Draft::new(&ctx.name, named(&meant)).file(&file, "you are meant\n");
        draft.settle(&ctx, &meant).await?;
        same_on(&meant, &file, "you are meant\n").await?;
        before.changed_only(&meant, &[&folder, &file]).await?;
        before.unchanged(&others).await?;

        // One name less, another one more, and a role that the first does not have: all must hold.
        let (fewer, others) = split(&ctx, |node| is(node, workers.first()));
        let mut target = named(&[fewer.clone(), masters].concat());
        target.role = Some(Role::Worker);
        let draft = draft.target(target);
        draft.settle(&ctx, &fewer).await?;
        same_on(&fewer, &file, "you are meant\n").await?;
        before.unchanged(&others).await?;

        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn by_labels() -> Result<()> {
    const KEY: &str = "edict-e2e/target-labels";
    e2e::test("target-labels", async |ctx| {
        let (masters, workers) = (ctx.masters(), ctx.workers());
        let disks = [
            (&masters[0], "ssd"),
            (&masters[1], "hdd"),
            (&workers[0], "ssd"),
        ];
        with_label(&ctx, KEY, async || {
            for (node, disk) in disks {
                label(&ctx, node, KEY, Some(disk)).await?;
            }
            let file = format!("{}/disk", folder(&ctx).await?);
            let before = Trees::of(ctx.nodes()).await?;
            let ssd = BTreeMap::from([(KEY.to_owned(), "ssd".to_owned())]);
            let selector = Selector {
                match_labels: Some(ssd.clone()),
                ..Selector::default()
            };
            let draft = Draft::new(&ctx.name, selected(selector)).file(&file, "fast\n");
            let (meant, others) = split(&ctx, |node| {
                is(node, masters.first()) || is(node, workers.first())
            });
            draft.settle(&ctx, &meant).await?;
            same_on(&meant, &file, "fast\n").await?;
            before.unchanged(&others).await?;

            // In or not in, there or not there.
            let with = |operator, values: &[&str]| Requirement {
                key: KEY.to_owned(),
                operator,
                values: (!values.is_empty())
                    .then(|| values.iter().map(ToString::to_string).collect()),
            };
            let disk = |node: &Node| {
                let found = disks.iter().find(|(one, _)| is(node, Some(one)));
                found.map_or("none", |(_, disk)| disk)
            };
            for (requirements, wanted) in [
                (
                    vec![with(Operator::In, &["hdd", "tape"])],
                    &["hdd"] as &[&str],
                ),
                (vec![with(Operator::NotIn, &["ssd"])], &["hdd", "none"]),
                (vec![with(Operator::DoesNotExist, &[])], &["none"]),
                (
                    vec![with(Operator::Exists, &[]), with(Operator::NotIn, &["hdd"])],
                    &["ssd"],
                ),
            ] {
                let shown = format!("{requirements:?}");
                let selector = Selector {
                    match_labels: None,
                    match_expressions: Some(requirements),
                };
                let draft = draft.clone().target(selected(selector));
                let (meant, others) = split(&ctx, |node| wanted.contains(&disk(node)));
                ensure!(!others.is_empty(), "{shown} tells no nodes apart");
                let checked = async {
                    draft.settle(&ctx, &meant).await?;
                    same_on(&meant, &file, "fast\n").await?;
                    before.unchanged(&others).await
                };
                checked.await.context(shown)?;
            }

            draft.delete(&ctx).await?;
            before.unchanged(ctx.nodes()).await
        })
        .await
    })
    .await
}

/// A node moves from one NodeConfig to another one by its label. The file had a content of its own
/// there, which comes back when no NodeConfig wants the node any more.
#[tokio::test]
async fn a_label_that_changes() -> Result<()> {
    const KEY: &str = "edict-e2e/target-moves";
    e2e::test("target-moves", async |ctx| {
        let moving = &ctx.workers()[0];
        let (here, others) = split(&ctx, |node| is(node, Some(moving)));
        with_label(&ctx, KEY, async || {
            let folder = folder(&ctx).await?;
            let (shared, only_blue) = (format!("{folder}/shared"), format!("{folder}/blue"));
            ctx.plant(moving, &shared, b"the node's own\n", 0o640)
                .await?;
            ctx.plant(moving, &only_blue, b"its other own\n", 0o600)
                .await?;
            let before = Trees::of(ctx.nodes()).await?;
            let of_color = |color: &str| {
                let labels = BTreeMap::from([(KEY.to_owned(), color.to_owned())]);
                let target = selected(Selector {
                    match_labels: Some(labels),
                    ..Selector::default()
                });
                Draft::new(&format!("{}-{color}", ctx.name), target)
                    .file(&shared, &format!("{color} everywhere\n"))
            };
            let blue = of_color("blue").file(&only_blue, "blue here\n");
            let green = of_color("green");
            blue.settle(&ctx, &[]).await?;
            green.settle(&ctx, &[]).await?;
            before.unchanged(ctx.nodes()).await?;

            label(&ctx, moving, KEY, Some("blue")).await?;
            blue.settled(&ctx, &here).await?;
            same_on(&here, &shared, "blue everywhere\n").await?;
            same_on(&here, &only_blue, "blue here\n").await?;

            label(&ctx, moving, KEY, Some("green")).await?;
            green.settled(&ctx, &here).await?;
            blue.settled(&ctx, &[]).await?;
            same_on(&here, &shared, "green everywhere\n").await?;
            before.changed_only(&here, &[&shared]).await?;
            before.unchanged(&others).await?;

            label(&ctx, moving, KEY, None).await?;
            green.settled(&ctx, &[]).await?;
            before.unchanged(ctx.nodes()).await
        })
        .await?;
        Ok(())
    })
    .await
}

/// The nodes that are meant, and all others.
fn split(ctx: &Context, meant: impl Fn(&Node) -> bool) -> (Vec<Node>, Vec<Node>) {
    ctx.nodes().iter().cloned().partition(meant)
}

fn is(node: &Node, other: Option<&Node>) -> bool {
    other.is_some_and(|other| other.name == node.name)
}

/// Takes a label off all nodes before and after `body`.
async fn with_label(
    ctx: &Context,
    key: &str,
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let unlabel = async || {
        let label = ctx.kubectl().args(["label", "nodes", "--all"]);
        label.arg(format!("{key}-")).text().await
    };
    unlabel().await?;
    let outcome = body().await;
    let unlabelled = unlabel().await;
    outcome?;
    unlabelled.map(drop)
}

async fn label(ctx: &Context, node: &Node, key: &str, value: Option<&str>) -> Result<()> {
    let change = value.map_or_else(|| format!("{key}-"), |value| format!("{key}={value}"));
    let label = ctx.kubectl().args(["label", "node", "--overwrite"]);
    label.arg(&node.name).arg(change).text().await?;
    Ok(())
}
