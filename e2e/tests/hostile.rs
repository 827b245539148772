//! A hostile value meets three refusals, one behind the other: the API server's, the operator's and
//! the agent's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Caller;
use e2e::hostfile::{self, DAEMON};
use e2e::{Context, Draft, Trees, nodeconfig, status};
use edict_core::config::files::{File, Files};
use edict_core::config::{Config, Docker};
use edict_core::content::Contents;
use edict_core::digest;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, Restarts};
use edict_core::wire::{Outcome, Push};
use edict_crds::{NodeConfig, NodeState, Role};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

/// The operator judges as soon as it sees.
const JUDGED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_api_server_refuses_first() -> Result<()> {
    e2e::test("hostile-admission", async |ctx| {
        let before = Trees::of(ctx.nodes()).await?;
        let mirrors =
            |value: &str| json!({"docker": {"registryMirrors": ["https://a.example", value]}});
        let file = |path: &str| json!({"files": [{"path": path, "content": "root::0:0:::\n"}]});
        for (mut spec, field, sentence) in [
            (
                mirrors("file:///etc/shadow"),
                "spec.docker.registryMirrors",
                "each must be a URL that begins with http:// or https://",
            ),
            (
                mirrors("https://trusted.example@evil.example/"),
                "spec.docker.registryMirrors",
                "none may have a user name, password, query or fragment",
            ),
            (
                mirrors("https://host/?$(id)"),
                "spec.docker.registryMirrors",
                "none may have a user name, password, query or fragment",
            ),
            (
                json!({"docker": {"insecureRegistries": ["http://host/$(id)"]}}),
                "spec.docker.insecureRegistries",
                "each must be a host, host:port or an address range",
            ),
            (
                file("/etc/shadow"),
                "spec.files[0].path",
                "no setting allows",
            ),
            (
                file("/etc/sudoers.d/evil"),
                "spec.files[0].path",
                "no setting allows",
            ),
            (
                file("/etc/kubernetes/manifests/evil.yaml"),
                "spec.files[0].path",
                "no setting allows",
            ),
            (
                file("/etc/edict/../shadow"),
                "spec.files[0].path",
                "must not have '.' or '..' in it",
            ),
            (
                file("/root/.ssh/authorized_keys"),
                "spec.files[0].path",
                "must be an absolute path under /etc/",
            ),
        ] {
            spec["target"] = json!({"role": "All"});
            let manifest = json!({
                "apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig",
                "metadata": {"name": "hostile-admission"}, "spec": spec,
            });
            let output = ctx.try_apply(&manifest.to_string()).await?;
            ensure!(
                !output.success()
                    && output.stderr.contains(field)
                    && output.stderr.contains(sentence),
                "{manifest}: {field} and {sentence:?} were expected: {} {}",
                output.text(),
                output.stderr
            );
        }
        let api: Api<NodeConfig> = Api::all(ctx.client.clone());
        ensure!(
            api.get_opt("hostile-admission").await?.is_none(),
            "it is there"
        );
        before.unchanged(ctx.nodes()).await
    })
    .await
}

#[tokio::test]
async fn the_operator_refuses_what_the_schema_cannot() -> Result<()> {
    e2e::test("hostile-operator", async |ctx| {
        hostfile::without_docker(&ctx).await?;
        let before = Trees::of(ctx.nodes()).await?;
        let bad = Draft::new("hostile-operator", nodeconfig::role(Role::All)).mirrors(&[
            "https://fine.example.com",
            "https://host/$(id)",
            "https://host/x\";reboot;\"",
            "https://host/%0aExecStart=x",
            "https://ho\u{202e}st",
            "https://\u{e9}",
        ]);
        let bad = bad.insecure(&["host\"],\"hosts\":[\"tcp:"]);
        bad.apply(&ctx).await?;
        let message = status::refused(&ctx, bad.name(), JUDGED).await?;
        for words in [
            "spec.docker.registryMirrors[1]: \"https://host/$(id)\" is refused by rule substitution: leave out $(",
            "spec.docker.registryMirrors[2]",
            "rule url-form: use a plain URL",
            "spec.docker.registryMirrors[3]",
            "rule encoded: leave out what is refused unencoded",
            "spec.docker.registryMirrors[4]",
            "\\u{202e}",
            "spec.docker.insecureRegistries[0]",
            "rule registry: use a host",
        ] {
            ensure!(message.contains(words), "no {words:?} in {message}");
        }
        for honest in ["registryMirrors[0]", "registryMirrors[5]"] {
            ensure!(!message.contains(honest), "{honest} in {message}");
        }
        nowhere(&ctx, bad.name()).await?;
        before.unchanged(ctx.nodes()).await?;

        // What was accepted stays when a hostile revision follows, and all is well when it goes.
        let good = bad.clone().mirrors(&["https://fine.example.com"]).insecure(&[]);
        good.settle(&ctx, ctx.nodes()).await?;
        let written = ctx.read_all(ctx.nodes(), DAEMON).await?;
        bad.apply(&ctx).await?;
        status::refused(&ctx, bad.name(), JUDGED).await?;
        ensure!(ctx.read_all(ctx.nodes(), DAEMON).await? == written, "it changed");
        good.settle(&ctx, ctx.nodes()).await?;
        bad.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}

/// No node is to have it.
async fn nowhere(ctx: &Context, name: &str) -> Result<()> {
    let api: Api<NodeState> = Api::all(ctx.client.clone());
    for state in api.list(&ListParams::default()).await? {
        let named = state.spec.layers.iter().any(|layer| layer.name == name);
        ensure!(!named, "{name} is in {:?}", state.spec);
    }
    Ok(())
}

#[tokio::test]
async fn the_agent_refuses_what_came_past_both() -> Result<()> {
    // It holds many configurations.
    Box::pin(e2e::test("hostile-agent", async |ctx| {
        let node = ctx.workers().remove(0);
        let nodes = std::slice::from_ref(&node);
        let before = Trees::of(nodes).await?;
        // A message can say that everything is allowed; the last table hears nothing of it.
        let lenient = Policy {
            allowed: ["/etc", "/etc/shadow", "/etc/kubernetes", "/etc/sudoers.d"]
                .map(ToOwned::to_owned)
                .into(),
            protected: Vec::new(),
            ..Policy::default()
        };
        for (config, policy, field, rule) in [
            (
                mirror("https://host/$(id)"),
                Policy::default(),
                "docker.registryMirrors[0]",
                "substitution",
            ),
            (
                mirror("https://host\",\"runtimes\":{\"x\":{\"path\":\"/tmp/x\"}}"),
                Policy::default(),
                "docker.registryMirrors[0]",
                "url-form",
            ),
            (
                file("/etc/systemd/system/evil.service"),
                Policy::default(),
                "files[0].path",
                "path-executes",
            ),
            (
                file("/etc/cron.d/evil"),
                lenient.clone(),
                "files[0].path",
                "path-executes",
            ),
            (
                file("/etc/shadow"),
                lenient.clone(),
                "files[0].path",
                "path-forbidden",
            ),
            (
                file("/etc/kubernetes/manifests/evil.yaml"),
                lenient.clone(),
                "files[0].path",
                "path-forbidden",
            ),
            (
                file("/etc/sudoers.d/evil"),
                lenient.clone(),
                "files[0].path",
                "path-forbidden",
            ),
            (
                file("/etc/edict/../../root/evil"),
                lenient.clone(),
                "files[0].path",
                "path-normal",
            ),
            (file("/usr/bin/evil"), lenient, "files[0].path", "path-root"),
        ] {
            let layer = layer(config);
            let uid = layer.uid.clone();
            let push = Push::new(node.name.clone(), policy, vec![layer], Vec::new());
            let mut caller = Caller::operator(&ctx.client, &node.name).await?;
            let report = caller.push(&push).await?;
            let report = report.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            let layer = report.layers.iter().find(|layer| layer.uid == uid);
            let layer = layer.context("the layer is not reported")?;
            let violation = layer.violations.first();
            ensure!(
                layer.outcome == Outcome::Refused
                    && layer.in_force.is_none()
                    && violation.is_some_and(|one| one.field == field && one.rule == rule),
                "{field} and {rule} were expected: {layer:?}"
            );
            let hello = caller.hello().await?;
            ensure!(
                !hello.layers.iter().any(|held| held.uid == uid),
                "{:?}",
                hello.layers
            );
        }
        before.unchanged(nodes).await?;
        let outside = node
            .run(&["find", "/root", "/usr/bin", "-name", "evil"])
            .await?;
        ensure!(outside.is_empty(), "{outside}");
        Ok(())
    }))
    .await
}

fn layer(config: Config) -> Layer {
    Layer {
        uid: "00000000-0000-0000-0000-00000000ffff".to_owned(),
        name: "hostile-agent".to_owned(),
        priority: 1_000_000,
        created: Timestamp::UNIX_EPOCH,
        digest: digest::of(&config),
        deletion_policy: DeletionPolicy::Retain,
        restarts: Restarts::Allowed,
        drift: edict_core::layer::Drift::Correct,
        retry: None,
        facts: None,
        config,
        contents: Contents::default(),
    }
}

fn mirror(url: &str) -> Config {
    Config {
        docker: Some(Docker {
            registry_mirrors: Some(vec![url.to_owned()]),
            insecure_registries: None,
            ..Docker::default()
        }),
        ..Config::default()
    }
}

fn file(path: &str) -> Config {
    Config {
        files: Some(Files(vec![File {
            path: path.to_owned(),
            content: Some("evil\n".to_owned()),
            content_from: None,
            mode: None,
            owner: None,
            notify: None,
        }])),
        ..Config::default()
    }
}
