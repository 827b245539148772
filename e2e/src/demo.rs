//! The demo: samples on a real cluster, and what they did on every node.
#![expect(clippy::print_stdout, reason = "the demo is what it prints")]

mod scenes;

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};

use crate::cluster::Cluster;
use crate::node::Node;
use crate::progress::Step;
use crate::settings::Settings;
use crate::wait::{self, Seen};

/// Samples are small, but roll out node by node.
const SETTLED: Duration = Duration::from_mins(3);

/// Files that the samples write, shown whole.
const SHOWN: [&str; 2] = ["/etc/docker/daemon.json", "/etc/motd"];

/// Applies `fixtures/samples/` to a cluster with Edict on it and shows the result.
pub async fn demo(settings: &Settings, cluster: &Cluster) -> Result<()> {
    let step = Step::begin("samples");
    let samples = settings.root.join("fixtures/samples");
    let kubectl = cluster.access.kubectl();
    kubectl
        .args(["apply", "-f"])
        .arg(samples)
        .text()
        .await
        .context("cannot apply fixtures/samples")?;
    settle(cluster).await?;
    step.done("applied on every node that they are for");
    show(cluster).await?;
    scenes::on_a_host().await?;
    scenes::drift(cluster).await?;
    farewell();
    Ok(())
}

/// Takes the samples back, where a demo was on the cluster.
pub async fn take_back(settings: &Settings, cluster: &Cluster) -> Result<()> {
    const GONE: Duration = Duration::from_mins(2);
    let kubectl = cluster.access.kubectl();
    kubectl
        .args(["delete", "--ignore-not-found", "--timeout=110s", "-f"])
        .arg(settings.root.join("fixtures/samples"))
        .within(GONE)
        .text()
        .await
        .context("the samples do not go away")?;
    Ok(())
}

/// Waits until every NodeConfig has had its say on every node that it is for.
async fn settle(cluster: &Cluster) -> Result<()> {
    let kind = GroupVersionKind::gvk("edict.dev", "v1alpha1", "NodeConfig");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::all_with(cluster.access.client().await?, &resource);
    wait::until("the samples to be applied", SETTLED, async || {
        let all = api.list(&ListParams::default()).await?.items;
        let waiting: Vec<String> = all
            .iter()
            .filter(|one| !is_settled(one))
            .map(|one| {
                format!(
                    "{}: {}",
                    kube::ResourceExt::name_any(one),
                    one.data["status"]
                )
            })
            .collect();
        Ok(Seen::when(!all.is_empty() && waiting.is_empty(), waiting))
    })
    .await
}

/// The status is of this generation, and no node is left to come.
fn is_settled(config: &DynamicObject) -> bool {
    let status = &config.data["status"];
    let seen = status["observedGeneration"].as_i64();
    let there = status["state"] == "Applied";
    seen.is_some() && seen == config.metadata.generation && there
}

async fn show(cluster: &Cluster) -> Result<()> {
    let files = cluster.nodes.iter().map(async |node| {
        let texts = try_join_all(SHOWN.iter().map(|path| node.text(path))).await?;
        anyhow::Ok((node, texts))
    });
    for (node, texts) in try_join_all(files).await? {
        show_node(node, &texts);
    }
    for kind in ["nodeconfigs", "nodestates"] {
        let table = cluster.access.kubectl().args(["get", kind]).text().await?;
        println!("\n$ kubectl get {kind}\n{table}");
    }
    Ok(())
}

fn farewell() {
    println!(
        "
Go on from here:
  eval \"$(cargo run -q -p e2e -- env)\"       kubectl talks to this cluster
  kubectl explain nodeconfig.spec            what can be configured
  kubectl delete -f fixtures/samples/        every node is as it was
  cargo run -p e2e -- down                   the cluster goes away"
    );
}

fn show_node(node: &Node, texts: &[Option<String>]) {
    println!("\n{} ({:?})", node.name, node.role);
    for (path, text) in SHOWN.iter().zip(texts) {
        match text {
            Some(text) => {
                println!("  {path}");
                for line in text.trim_end().lines() {
                    println!("    {line}");
                }
            }
            None => println!("  {path}: none"),
        }
    }
}
