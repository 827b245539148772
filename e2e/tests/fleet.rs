//! The Fleet goes and comes: what is in force stays so, and what left meanwhile is given back then. Its
//! agents are replaced one after the other, and no further than one that does not come up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::install::{AGENT, NAMESPACE, agents_ready};
use e2e::{Context, Draft, nodeconfig, status, wait};
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::Contact;
use edict_crds::{Fleet, NodeState, Role, fleet};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

/// The garbage collector takes its time, and pods have one to end in.
const GONE: Duration = Duration::from_mins(2);
/// Five agents end and come up one after the other, each in its own time.
const ROLLED: Duration = Duration::from_mins(3);
/// An image that no registry has: none listens there, which is known at once.
const NOWHERE: &str = "127.0.0.1:1/edict/agent:none";

/// Applies the Fleet of the fixtures as a user does, with these agents.
async fn apply(ctx: &Context, agent: Value) -> Result<()> {
    let path = format!("{}/../fixtures/fleet.yaml", env!("CARGO_MANIFEST_DIR"));
    let read = ["create", "--dry-run=client", "-o", "json", "-f", &path];
    let fleet = ctx.kubectl().args(read).bytes().await?;
    let mut fleet: Value = serde_json::from_slice(&fleet)?;
    if !agent.is_null() {
        fleet["spec"]["agent"] = agent;
    }
    let apply = ctx.kubectl().args(["apply", "-f", "-"]);
    apply.stdin(fleet.to_string()).text().await.map(drop)
}

async fn agents(ctx: &Context) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let agents = ListParams::default().labels("app.kubernetes.io/name=edict-agent");
    Ok(pods.list(&agents).await?.items)
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

fn image_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// The nodes whose agent runs and is there to stay.
fn serving(agents: &[Pod]) -> BTreeSet<String> {
    let ready = |pod: &&Pod| {
        let status = pod.status.as_ref();
        let mut conditions = status
            .iter()
            .flat_map(|status| &status.conditions)
            .flatten();
        pod.metadata.deletion_timestamp.is_none()
            && conditions.any(|one| one.type_ == "Ready" && one.status == "True")
    };
    agents.iter().filter(ready).filter_map(node_of).collect()
}

/// Waits for this state of the Fleet as it stands now, and gives what it says.
async fn reaches(ctx: &Context, state: fleet::State) -> Result<String> {
    let api: Api<Fleet> = Api::all(ctx.client.clone());
    let what = format!("to be {state:?}");
    let found = wait::object(&api, fleet::NAME, &what, ROLLED, |found| {
        let status = found.status.as_ref();
        status.is_some_and(|status| {
            status.state == Some(state) && status.observed_generation == found.metadata.generation
        })
    })
    .await?;
    let status = found.status.unwrap_or_default();
    let mut conditions = status.conditions.into_iter();
    let ready = conditions.find(|one| one.type_ == fleet::READY);
    Ok(ready.context("it has no condition Ready")?.message)
}

async fn nothing_left(ctx: &Context) -> Result<()> {
    let daemonsets: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let services: Api<Service> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    wait::until("nothing of the Fleet to be left", GONE, async || {
        let mut left = Vec::new();
        left.extend(daemonsets.get_opt(AGENT).await?.map(|_| "DaemonSet"));
        left.extend(services.get_opt(AGENT).await?.map(|_| "Service"));
        for name in ["edict-ca", "edict-operator-tls", "edict-agent-tls"] {
            left.extend(secrets.get_opt(name).await?.map(|_| name));
        }
        left.extend(agents(ctx).await?.iter().map(|_| "a pod"));
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
        let before = ctx.touched(ctx.nodes(), &kept.1).await?;

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
            ensure!(
                ctx.touched(ctx.nodes(), &kept.1).await? == before,
                "touched"
            );
            anyhow::Ok(())
        };
        let outcome = meanwhile.await;
        apply(&ctx, Value::Null).await?;
        agents_ready(&ctx.client, &ctx.images.agent).await?;
        outcome?;

        new.0.settled(&ctx, ctx.nodes()).await?;
        ctx.given_back(&left.1, GONE).await?;
        kept.0.settled(&ctx, ctx.nodes()).await?;
        let after = ctx.touched(ctx.nodes(), &kept.1).await?;
        ensure!(after == before, "written anew: {before:?}, then {after:?}");
        new.0.delete(&ctx).await?;
        kept.0.delete(&ctx).await
    })
    .await
}

/// The first node, whose agent does not come up; the others serve, and know nothing of it.
async fn halted(ctx: &Context, since: Timestamp) -> Result<()> {
    let message = reaches(ctx, fleet::State::Halted).await?;
    let all = agents(ctx).await?;
    let mut broken = all.iter().filter(|pod| image_of(pod) == Some(NOWHERE));
    let (broken, others) = (broken.next(), broken.next());
    let broken = broken.context("no agent was replaced")?;
    ensure!(
        others.is_none(),
        "more than one agent was replaced: {all:?}"
    );
    let node = node_of(broken).context("its pod is on no node")?;
    let pod = broken.metadata.name.clone().unwrap_or_default();
    for word in [&node, &pod, "Pull"] {
        ensure!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let words = [node.as_str(), pod.as_str()];
    nodeconfig::event(ctx, since, fleet::NAME, "Halted", &words).await?;

    let path = "/etc/edict/fleet-halted/meanwhile";
    let meanwhile = meanwhile().file(path, "meanwhile");
    meanwhile.apply(ctx).await?;
    let count = u32::try_from(ctx.nodes().len())?;
    let status = status::reach(ctx, meanwhile.name(), "all but one", GONE, |status| {
        status.applied == count - 1 && status.unreachable == 1
    })
    .await?;
    ensure!(
        status::says(&status, &node, State::Unreachable, &["agent"]),
        "{status:?}"
    );
    for (name, found) in ctx.read_all(ctx.nodes(), path).await? {
        let expected = (name != node).then_some(&b"meanwhile"[..]);
        ensure!(found.as_deref() == expected, "{name}: {found:?}");
    }
    let now = serving(&agents(ctx).await?);
    ensure!(
        now.len() == ctx.nodes().len() - 1,
        "only {now:?} are served"
    );
    Ok(())
}

fn meanwhile() -> Draft {
    Draft::new("fleet-halted-meanwhile", nodeconfig::role(Role::All))
}

/// At no look more than one node is without its agent, until all of them are new.
async fn rolled(ctx: &Context, before: &BTreeSet<String>) -> Result<()> {
    let count = ctx.nodes().len();
    let old = |pod: &&Pod| before.contains(pod.metadata.uid.as_deref().unwrap_or_default());
    wait::until("every agent to be replaced", ROLLED, async || {
        let all = agents(ctx).await?;
        let (left, serve) = (all.iter().filter(old).count(), serving(&all));
        if serve.len() + 1 < count {
            let late = anyhow::anyhow!("of {count} nodes only {serve:?} are served");
            return Ok(wait::Seen::Done(Err(late)));
        }
        Ok(if left == 0 && serve.len() == count {
            wait::Seen::Done(Ok(()))
        } else {
            wait::Seen::NotYet(format!("{left} are old, {serve:?} are served"))
        })
    })
    .await?
}

#[tokio::test]
async fn a_broken_image_halts_after_the_first_node() -> Result<()> {
    e2e::test("fleet-halted", async |ctx| {
        let path = "/etc/edict/fleet-halted/kept";
        let kept = Draft::new(&ctx.name, nodeconfig::role(Role::All)).file(path, "kept");
        kept.settle(&ctx, ctx.nodes()).await?;
        let before = ctx.touched(ctx.nodes(), path).await?;
        let body = async {
            let since = Timestamp::now();
            apply(&ctx, json!({"image": NOWHERE})).await?;
            halted(&ctx, since).await?;
            // Something else that works: what is broken goes first, and then all the others.
            let uids = agents(&ctx).await?.into_iter();
            let uids = uids.filter_map(|pod| pod.metadata.uid).collect();
            apply(&ctx, json!({"resources": {"limits": {"memory": "160Mi"}}})).await?;
            rolled(&ctx, &uids).await?;
            reaches(&ctx, fleet::State::Ready).await?;
            meanwhile().settled(&ctx, ctx.nodes()).await
        };
        let outcome = body.await;
        apply(&ctx, Value::Null).await?;
        agents_ready(&ctx.client, &ctx.images.agent).await?;
        outcome?;
        kept.settled(&ctx, ctx.nodes()).await?;
        let after = ctx.touched(ctx.nodes(), path).await?;
        ensure!(after == before, "written anew: {before:?}, then {after:?}");
        meanwhile().delete(&ctx).await?;
        kept.delete(&ctx).await
    })
    .await
}
