//! The Fleet goes and comes: what is in force stays so, and what left meanwhile is given back then.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::install::{AGENT, NAMESPACE, agents_ready};
use e2e::{Context, Draft, Node, nodeconfig, status, wait};
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::Contact;
use edict_crds::{NodeState, Role};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::Api;
use kube::api::ListParams;

/// The garbage collector takes its time, and pods have one to end in.
const GONE: Duration = Duration::from_mins(2);

/// Which file this is and when it was last touched: whoever writes it changes that.
async fn touched(nodes: &[Node], path: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for node in nodes {
        let stat = node.run(&["stat", "--format=%i %z %y", path]).await?;
        all.insert(node.name.clone(), stat);
    }
    Ok(all)
}

async fn nothing_left(ctx: &Context) -> Result<()> {
    let daemonsets: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    wait::until("nothing of the Fleet to be left", GONE, async || {
        let mut left = Vec::new();
        left.extend(daemonsets.get_opt(AGENT).await?.map(|_| "DaemonSet"));
        left.extend(services.get_opt(AGENT).await?.map(|_| "Service"));
        for name in ["edict-ca", "edict-operator-tls", "edict-agent-tls"] {
            left.extend(secrets.get_opt(name).await?.map(|_| name));
        }
        let agents = ListParams::default().labels("app.kubernetes.io/name=edict-agent");
        let agents = pods.list(&agents).await?.items;
        left.extend(agents.iter().map(|_| "a pod"));
        Ok(wait::Seen::when(left.is_empty(), left))
    })
    .await
}

#[tokio::test]
async fn it_goes_and_comes_and_nothing_is_lost() -> Result<()> {
    e2e::test("fleet-life", async |ctx| {
        let [kept, left, new] = ["kept", "left", "new"].map(|name| {
            let path = format!("/etc/edict/fleet-life/{name}");
            let draft = Draft::new(&format!("fleet-life-{name}"), nodeconfig::role(Role::All));
            (draft.file(&path, name), path)
        });
        kept.0.settle(&ctx, ctx.nodes()).await?;
        left.0.settle(&ctx, ctx.nodes()).await?;
        let before = touched(ctx.nodes(), &kept.1).await?;

        ctx.kubectl()
            .args(["delete", "fleet", "default"])
            .within(GONE)
            .text()
            .await?;
        let meanwhile = async {
            nothing_left(&ctx).await?;
            let states: Api<NodeState> = Api::all(ctx.client.clone());
            for node in ctx.nodes() {
                let what = "to say that it has no agent";
                wait::object(&states, &node.name, what, GONE, |state| {
                    let status = state.status.as_ref();
                    status.is_some_and(|status| status.state == Some(Contact::NoAgent))
                })
                .await?;
            }
            // Nobody is there to give it back: it goes all the same, and the nodes remember.
            left.0.delete(&ctx).await?;
            new.0.apply(&ctx).await?;
            let count = u32::try_from(ctx.nodes().len())?;
            let status = status::reach(&ctx, new.0.name(), "nowhere", GONE, |status| {
                status.targeted == count && status.applied == 0 && status.state.is_some()
            })
            .await?;
            ensure!(status.state != Some(State::Applied), "{status:?}");
            for (node, found) in ctx.read_all(ctx.nodes(), &left.1).await? {
                ensure!(found.as_deref() == Some(b"left"), "{node}: {found:?}");
            }
            ensure!(touched(ctx.nodes(), &kept.1).await? == before, "touched");
            anyhow::Ok(())
        };
        let outcome = meanwhile.await;
        let fleet = format!("{}/../fixtures/fleet.yaml", env!("CARGO_MANIFEST_DIR"));
        ctx.kubectl().args(["apply", "-f", &fleet]).text().await?;
        agents_ready(&ctx.client, &ctx.images.agent).await?;
        outcome?;

        new.0.settled(&ctx, ctx.nodes()).await?;
        wait::until("what left to be given back", GONE, async || {
            let found = ctx.read_all(ctx.nodes(), &left.1).await?;
            let gone = found.values().all(Option::is_none);
            Ok(wait::Seen::when(gone, found))
        })
        .await?;
        kept.0.settled(&ctx, ctx.nodes()).await?;
        let after = touched(ctx.nodes(), &kept.1).await?;
        ensure!(after == before, "written anew: {before:?}, then {after:?}");
        new.0.delete(&ctx).await?;
        kept.0.delete(&ctx).await
    })
    .await
}
