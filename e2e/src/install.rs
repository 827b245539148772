//! Installs Edict the way its README tells a user to, with the images of this
//! state of the sources in place of released ones.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::{Api, Client};

use crate::cluster::Cluster;
use crate::image::Images;
use crate::process::Process;
use crate::progress::Step;
use crate::settings::Settings;
use crate::wait::{self, Seen};

/// The namespace that the manifests put everything in.
pub const NAMESPACE: &str = "edict-system";
/// Deployment and DaemonSet that come up.
pub const OPERATOR: &str = "edict-operator";
/// The DaemonSet that the operator makes.
pub const AGENT: &str = "edict-agent";

/// Images are on the nodes already: this is scheduling, certificates and an update
/// of five agents, one after the other, a few seconds each.
const READY: Duration = Duration::from_mins(3);

/// Applies CRDs, operator and Fleet, and waits until operator and agents run these
/// images.
pub async fn install(settings: &Settings, cluster: &Cluster, images: &Images) -> Result<()> {
    let step = Step::begin("install");
    apply(cluster, settings, "-f", settings.root.join("crds")).await?;
    established(cluster).await?;
    operator(settings, cluster, images, "deploy").await?;
    fleet(settings, cluster).await?;
    step.note("waiting for operator and agents");
    ready(cluster, images).await?;
    step.done("operator and agents are ready");
    Ok(())
}

/// Puts these images in the place of those that run, and waits until they run. Kinds and Fleet stay
/// as they are.
pub async fn replace(
    settings: &Settings,
    cluster: &Cluster,
    images: &Images,
    deploy: &str,
) -> Result<()> {
    let step = Step::begin("replace");
    operator(settings, cluster, images, deploy).await?;
    ready(cluster, images).await?;
    step.done(&format!("{} and {} run", images.operator, images.agent));
    Ok(())
}

/// Applies the manifests in the folder `deploy` of this repository with these images.
pub async fn operator(
    settings: &Settings,
    cluster: &Cluster,
    images: &Images,
    deploy: &str,
) -> Result<()> {
    let overlay = overlay(settings, images, deploy)?;
    apply(cluster, settings, "-k", overlay).await
}

/// Applies the Fleet of the fixtures.
pub async fn fleet(settings: &Settings, cluster: &Cluster) -> Result<()> {
    let fleet = settings.root.join("fixtures/fleet.yaml");
    apply(cluster, settings, "-f", fleet).await
}

/// Waits until operator and agents run these images.
pub async fn ready(cluster: &Cluster, images: &Images) -> Result<()> {
    let client = cluster.access.client().await?;
    operator_ready(&client, &images.operator).await?;
    agents_ready(&client, &images.agent).await
}

/// Waits until the operator runs this image.
pub async fn operator_ready(client: &Client, image: &str) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    wait::until("the operator", READY, async || {
        let found = api.get(OPERATOR).await?;
        let spec = found.spec.unwrap_or_default();
        let status = found.status.unwrap_or_default();
        let runs = spec.template.spec.is_some_and(|pod| {
            pod.containers
                .iter()
                .any(|one| one.image.as_deref() == Some(image))
        });
        let wanted = spec.replicas.unwrap_or(1);
        let seen = status.observed_generation >= found.metadata.generation;
        let done = status.updated_replicas == Some(wanted)
            && status.available_replicas == Some(wanted)
            && status.replicas == Some(wanted);
        Ok(Seen::when(runs && seen && done, status))
    })
    .await
}

/// Waits until every agent runs this image. Where it was another one, the operator
/// replaces them; the DaemonSet's numbers are of its newest template all the same.
pub async fn agents_ready(client: &Client, image: &str) -> Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    wait::until("the agents", READY, async || {
        let found = api.get(AGENT).await?;
        let pod = found.spec.and_then(|spec| spec.template.spec);
        let runs = pod.is_some_and(|pod| {
            pod.containers
                .iter()
                .any(|one| one.image.as_deref() == Some(image))
        });
        let status = found.status.unwrap_or_default();
        let wanted = status.desired_number_scheduled;
        let seen = status.observed_generation >= found.metadata.generation;
        let done = wanted > 0
            && status.number_ready == wanted
            && status.updated_number_scheduled == Some(wanted);
        Ok(Seen::when(runs && seen && done, status))
    })
    .await
}

async fn apply(cluster: &Cluster, settings: &Settings, how: &str, path: PathBuf) -> Result<()> {
    let shown = path
        .strip_prefix(&settings.root)
        .unwrap_or(&path)
        .display()
        .to_string();
    cluster
        .access
        .kubectl()
        .args(["apply", how])
        .arg(&path)
        .text()
        .await
        .with_context(|| format!("cannot apply {shown}"))?;
    Ok(())
}

/// A Fleet is refused while the API server does not serve its kind yet.
async fn established(cluster: &Cluster) -> Result<()> {
    let kubectl: Process = cluster.access.kubectl();
    kubectl
        .args([
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
        ])
        .args([
            "nodeconfigs.edict.dev",
            "nodestates.edict.dev",
            "fleets.edict.dev",
        ])
        .within(Duration::from_secs(70))
        .text()
        .await?;
    Ok(())
}

/// A kustomization over a folder of this repository that names the images.
pub fn overlay(settings: &Settings, images: &Images, deploy: &str) -> Result<PathBuf> {
    let folder = settings.output().join("install");
    fs::create_dir_all(&folder)?;
    let tag = images
        .operator
        .rsplit(':')
        .next()
        .context("an image has a tag")?;
    let agent = &images.agent;
    let text = format!(
        "# Generated: what is in deploy/, with the images built from these sources.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../../../{deploy}
images:
- name: edict/operator
  newTag: '{tag}'
patches:
- target: {{kind: Deployment, name: {OPERATOR}}}
  patch: |-
    apiVersion: apps/v1
    kind: Deployment
    metadata: {{name: {OPERATOR}}}
    spec:
      template:
        spec:
          containers:
          - name: operator
            env: [{{name: EDICT_AGENT_IMAGE, value: {agent}}}]
"
    );
    let file = folder.join("kustomization.yaml");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(folder)
}
