//! Files that are mount points, as /etc/hosts is in a container: a rename over them is refused, so
//! they are written in place.

use anyhow::{Context as _, Result, ensure};
use e2e::hostfile::same_on;
use e2e::nodeconfig::named;
use e2e::{Draft, Trees};
use edict_crds::NodeState;
use kube::Api;

const HOSTS: &str = "/etc/hosts";

#[tokio::test]
async fn hosts_is_written_in_place() -> Result<()> {
    e2e::test("mount-hosts", async |ctx| {
        let here = &ctx.workers()[..1];
        let node = &here[0];
        node.run(&["mountpoint", HOSTS]).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let (original, was) = (node.read(HOSTS).await?, node.identity(HOSTS).await?);
        let original = original.with_context(|| format!("{} has no {HOSTS}", node.name))?;
        // The node goes on working: its own lines stay.
        let own = String::from_utf8(original.clone())?;
        let with = |line: &str| format!("{}\n{line}\n", own.trim_end());

        let draft = Draft::new(&ctx.name, named(here));
        let longer = with("192.0.2.1 mirror.example.com # longer than what comes next");
        for content in [&longer, &with("192.0.2.2 m"), &longer] {
            let draft = draft.clone().file(HOSTS, content);
            draft.settle(&ctx, here).await?;
            same_on(here, HOSTS, content).await?;
            ensure!(
                node.identity(HOSTS).await? == was,
                "{HOSTS} is another file, or someone else's: {was} before"
            );
            let states: Api<NodeState> = Api::all(ctx.client.clone());
            let status = states.get(&node.name).await?.status.unwrap_or_default();
            let resource = status
                .resources
                .iter()
                .find(|one| one.path == HOSTS && one.owner == draft.name());
            ensure!(
                resource.is_some_and(|one| one.result == "InPlace"),
                "the report on {HOSTS} says {resource:?}"
            );
            before.changed_only(here, &[HOSTS]).await?;
            before.unchanged(&ctx.workers()[1..]).await?;
            before.unchanged(&ctx.masters()).await?;
        }

        draft.delete(&ctx).await?;
        same_on(here, HOSTS, &original).await?;
        ensure!(
            node.identity(HOSTS).await? == was,
            "{HOSTS} is another file now"
        );
        before.unchanged(ctx.nodes()).await
    })
    .await
}
