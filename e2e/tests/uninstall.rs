//! Edict goes: in its order, nothing of it is left on any node; in any other, nothing hangs that another
//! `kubectl apply -k deploy/` does not free.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::install::{NAMESPACE, install, overlay};
use e2e::process::Process;
use e2e::settings::Settings;
use e2e::{Context, Draft, nodeconfig, wait};
use edict_crds::{Fleet, NodeConfig, Role, fleet};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

/// Pods have their time to end in, and a namespace goes when everything in it has gone.
const GONE: Duration = Duration::from_mins(3);

/// The settings, where the cluster is the harness's own: what goes with Edict may be somebody's.
fn settings() -> Result<Option<Settings>> {
    let settings = Settings::read()?;
    let own = settings.existing.is_none();
    if !own {
        eprintln!("skipped: this cluster and what is in its {NAMESPACE} are somebody's own");
    }
    Ok(own.then_some(settings))
}

/// Runs `body`, which takes Edict away; it is there again afterwards, however that ends.
async fn without_edict(
    ctx: &Context,
    settings: &Settings,
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let outcome = body().await;
    install(settings, &ctx.cluster, &ctx.images).await?;
    outcome
}

fn draft(ctx: &Context) -> Draft {
    Draft::new(&ctx.name, nodeconfig::role(Role::All)).file(&path(ctx), "text")
}

fn path(ctx: &Context) -> String {
    format!("/etc/edict/{}/file", ctx.name)
}

async fn kinds(ctx: &Context) -> Result<Vec<String>> {
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let all = api.list(&ListParams::default()).await?.items;
    let own = all.iter().filter(|one| one.spec.group == edict_crds::GROUP);
    Ok(own.map(ResourceExt::name_any).collect())
}

#[tokio::test]
async fn in_its_order_nothing_is_left() -> Result<()> {
    e2e::test("uninstall", async |ctx| {
        let Some(settings) = settings()? else {
            return Ok(());
        };
        draft(&ctx).settle(&ctx, ctx.nodes()).await?;
        without_edict(&ctx, &settings, async || {
            let access = &ctx.cluster.access;
            let uninstall = || {
                Process::new(settings.root.join("hack/uninstall"))
                    .env("KUBECONFIG", &access.kubeconfig)
                    .env("PATH", &access.path)
                    .within(4 * GONE)
            };
            let said = uninstall().text().await?;
            ensure!(said.contains("Edict is gone"), "{said}");
            for (node, found) in ctx.read_all(ctx.nodes(), &path(&ctx)).await? {
                ensure!(found.is_none(), "{node}: {found:?}");
            }
            let namespaces: Api<Namespace> = Api::all(ctx.client.clone());
            let left = namespaces.get_opt(NAMESPACE).await?;
            ensure!(left.is_none(), "{left:?}");
            let left = kinds(&ctx).await?;
            ensure!(left.is_empty(), "{left:?}");
            // Once more takes nothing away, and says so.
            let said = uninstall().text().await?;
            ensure!(said.contains("Edict is gone"), "{said}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn in_the_wrong_order_nothing_hangs_for_ever() -> Result<()> {
    e2e::test("uninstall-wrong", async |ctx| {
        let Some(settings) = settings()? else {
            return Ok(());
        };
        let draft = draft(&ctx);
        draft.settle(&ctx, ctx.nodes()).await?;
        without_edict(&ctx, &settings, async || {
            let delete = |what: &[&str]| {
                let kubectl = ctx.kubectl().args(["delete"]).args(what);
                kubectl.within(GONE)
            };
            let (deploy, crds) = (settings.root.join("deploy"), settings.root.join("crds"));
            delete(&["-k"]).arg(deploy).text().await?;
            let nodeconfig = ["nodeconfig", draft.name(), "--wait=false"];
            delete(&nodeconfig).text().await?;
            delete(&["fleet", fleet::NAME, "--wait=false"])
                .text()
                .await?;
            delete(&["--wait=false", "-f"]).arg(crds).text().await?;
            // The kind that nobody has to let go of is gone at once. The others wait for the operator.
            wait::until("two kinds that wait", GONE, async || {
                let left = kinds(&ctx).await?;
                let expected = ["fleets.edict.dev", "nodeconfigs.edict.dev"];
                Ok(wait::Seen::when(left == expected, left))
            })
            .await?;
            let configs: Api<NodeConfig> = Api::all(ctx.client.clone());
            let fleets: Api<Fleet> = Api::all(ctx.client.clone());
            ensure!(configs.get_opt(draft.name()).await?.is_some(), "it is gone");
            ensure!(fleets.get_opt(fleet::NAME).await?.is_some(), "it is gone");

            let overlay = overlay(&settings, &ctx.images, "deploy")?;
            let apply = ctx.kubectl().args(["apply", "-k"]).arg(overlay);
            apply.text().await?;
            wait::until("all kinds to be gone", GONE, async || {
                let left = kinds(&ctx).await?;
                Ok(wait::Seen::when(left.is_empty(), left))
            })
            .await
        })
        .await?;
        // There was no agent that could have done it before.
        ctx.given_back(&path(&ctx), GONE).await
    })
    .await
}
