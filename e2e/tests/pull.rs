//! What it is all for: nodes pull an image that only a mirror has, with the CA and the password
//! that a NodeConfig brings them, and no longer when it is gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::install::NAMESPACE;
use e2e::nodeconfig::{named, role};
use e2e::registry::{PASSWORD, USER};
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Node, Registry, Seed, Trees};
use edict_crds::Role;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde_json::json;

/// A registry that does not exist: nobody listens there, and no name is asked for.
const HOST: &str = "localhost:5999";
const HOSTS: &str = "/etc/containerd/certs.d/localhost:5999/hosts.toml";
const REPOSITORY: &str = "team/app";

/// A kubelet says so with its second look, and that is up to 15 s after its first.
const REFUSED: Duration = Duration::from_mins(1);
/// By now a kubelet lets 40 s pass between two attempts.
const PULLED: Duration = Duration::from_mins(3);
/// Changed Secrets are watched.
const CHANGED: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_image_that_only_the_mirror_has() -> Result<()> {
    e2e::test("pull-mirror", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let registry = Registry::start(&ctx).await?;
        let seed = Seed::make(&ctx).await?;
        let tags = ["first", "second", "third"].map(|tag| format!("{REPOSITORY}:{tag}"));
        registry.push(&ctx, &seed, &tags).await?;
        seed.remove().await?;
        let [first, second, third] = tags.map(|tag| Puller {
            ctx: &ctx,
            registry: &registry,
            nodes: [ctx.masters().remove(0), ctx.workers().remove(0)],
            image: format!("{HOST}/{tag}"),
        });

        first.start().await?;
        first
            .is_refused(&["Back-off", "connection refused"])
            .await?;
        let draft = configure(&ctx, &registry).await?;
        draft.settled(&ctx, ctx.nodes()).await?;
        first.ends_with(&seed.word).await?;

        let with_password = ctx.read_all(ctx.nodes(), HOSTS).await?;
        credentials(&ctx, "wrong").await?;
        wait::until("another password on all nodes", CHANGED, async || {
            let now = ctx.read_all(ctx.nodes(), HOSTS).await?;
            let same = now
                .iter()
                .filter(|(node, text)| with_password.get(*node) == Some(*text));
            let same: Vec<_> = same.map(|(node, _)| node).collect();
            Ok(Seen::when(same.is_empty(), same))
        })
        .await?;
        second.start().await?;
        second.is_refused(&["authorization failed"]).await?;

        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await?;
        third.start().await?;
        third.is_refused(&["connection refused"]).await
    })
    .await
}

/// What a node trusts altogether is what containerd trusts, once it is restarted for it.
#[tokio::test]
async fn a_registry_whose_authority_the_node_trusts() -> Result<()> {
    e2e::test("pull-trusted", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let registry = Registry::start(&ctx).await?;
        let seed = Seed::make(&ctx).await?;
        let tags = ["first", "second", "third"].map(|tag| format!("{REPOSITORY}:{tag}"));
        registry.push(&ctx, &seed, &tags).await?;
        seed.remove().await?;
        let here = [ctx.masters().remove(0), ctx.workers().remove(0)];
        let [first, second, third] = tags.map(|tag| Puller {
            ctx: &ctx,
            registry: &registry,
            nodes: here.clone(),
            image: format!("{HOST}/{tag}"),
        });
        credentials(&ctx, PASSWORD).await?;
        let target = named(&here);
        let mirror = json!({"registries": [{"host": HOST, "mirrors": [{
            "url": registry.url,
            "credentialsFrom": {"secretRef": {"name": ctx.name}},
        }]}]});
        let mirror = Draft::new(&ctx.name, target.clone()).block("containerd", &mirror);
        mirror.settle(&ctx, &here).await?;
        let unknown = ["certificate signed by unknown authority"];
        first.start().await?;
        first.is_refused(&unknown).await?;

        let trust = json!({
            "appliesTo": ["Containerd"],
            "certificates": [{"ca": registry.authority}],
        });
        let trust = Draft::new(&format!("{}-ca", ctx.name), target).block("caCertificates", &trust);
        trust.settle(&ctx, &here).await?;
        ctx.ready(&here).await?;
        second.start().await?;
        second.ends_with(&seed.word).await?;

        trust.delete(&ctx).await?;
        ctx.ready(&here).await?;
        third.start().await?;
        third.is_refused(&unknown).await?;
        mirror.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// One image on a master and on a worker.
struct Puller<'a> {
    ctx: &'a Context,
    registry: &'a Registry,
    nodes: [Node; 2],
    image: String,
}

impl Puller<'_> {
    /// Has both nodes pull it.
    async fn start(&self) -> Result<()> {
        for node in &self.nodes {
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": self.name(node), "namespace": self.registry.namespace},
                "spec": {
                    "nodeName": node.name,
                    "tolerations": [{"operator": "Exists"}],
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": false,
                    "containers": [
                        {"name": "app", "image": self.image, "imagePullPolicy": "Always"},
                    ],
                },
            });
            self.ctx.apply(&pod.to_string()).await?;
        }
        Ok(())
    }

    /// Waits until neither can, for a reason that has all of `words` in it.
    async fn is_refused(&self, words: &[&str]) -> Result<()> {
        let refused = self.nodes.iter().map(async |node| {
            let what = format!("{} to say {words:?}", self.name(node));
            wait::until(&what, REFUSED, async || {
                let pod = self.pods().get(&self.name(node)).await?;
                let status = pod.status.unwrap_or_default();
                let containers = status.container_statuses.iter().flatten();
                let waiting = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
                let said: String = waiting.filter_map(|one| one.message.as_deref()).collect();
                let holds = words.iter().all(|word| said.contains(word));
                Ok(Seen::when(holds, (status.phase, said)))
            })
            .await
        });
        try_join_all(refused).await?;
        Ok(())
    }

    /// Waits until its program has ended well on both, and said `word`.
    async fn ends_with(&self, word: &str) -> Result<()> {
        let ended = self.nodes.iter().map(async |node| {
            let name = self.name(node);
            wait::object(&self.pods(), &name, "has ended", PULLED, |pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                phase == Some("Succeeded")
            })
            .await?;
            let said = self.pods().logs(&name, &LogParams::default()).await?;
            ensure!(said.trim() == word, "{name} says {said:?}, not {word:?}");
            Ok(())
        });
        try_join_all(ended).await?;
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.ctx.client.clone(), &self.registry.namespace)
    }

    fn name(&self, node: &Node) -> String {
        let tag = self.image.rsplit(':').next().unwrap_or_default();
        format!("{tag}-{}", node.name)
    }
}

/// Has all nodes ask the registry for what nobody else has.
async fn configure(ctx: &Context, registry: &Registry) -> Result<Draft> {
    let authority = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ctx.name, "namespace": NAMESPACE},
        "data": {"ca.crt": registry.authority},
    });
    ctx.apply(&authority.to_string()).await?;
    credentials(ctx, PASSWORD).await?;
    let config = json!({
        "apiVersion": "edict.dev/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": ctx.name},
        "spec": {
            "target": {"role": "All"},
            "containerd": {"registries": [{
                "host": HOST,
                "mirrors": [{
                    "url": registry.url,
                    "caFrom": {"configMapKeyRef": {"name": ctx.name, "key": "ca.crt"}},
                    "credentialsFrom": {"secretRef": {"name": ctx.name}},
                }],
            }]},
        },
    });
    ctx.apply(&config.to_string()).await?;
    Ok(Draft::new(&ctx.name, role(Role::All)))
}

async fn credentials(ctx: &Context, password: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/basic-auth",
        "metadata": {"name": ctx.name, "namespace": NAMESPACE},
        "stringData": {"username": USER, "password": password},
    });
    ctx.apply(&secret.to_string()).await
}
