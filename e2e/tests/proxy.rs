//! A proxy is what daemons and users of a node have in their environment, as long as a NodeConfig says so.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::named;
use e2e::{Context, Draft, Node, Role, Trees, dockerd};
use edict_core::config::{Proxy, ProxyUser};
use serde_json::json;

const UNITS: [&str; 2] = ["containerd.service", "kubelet.service"];

/// The proxies that a unit's main process was started with. One that is empty is none: kind gives those
/// to all.
async fn environ(node: &Node, unit: &str) -> Result<BTreeMap<String, String>> {
    let argv = ["systemctl", "show", "--property=MainPID", "--value", unit];
    let pid = node.run(&argv).await?;
    let file = format!("/proc/{}/environ", pid.trim());
    let all = node.run(&["cat", &file]).await?;
    let pairs = all.split('\0').filter_map(|pair| pair.split_once('='));
    let proxies = pairs.filter(|(name, _)| name.to_lowercase().ends_with("_proxy"));
    let proxies = proxies.filter(|(_, value)| !value.is_empty());
    Ok(proxies
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[tokio::test]
async fn docker_and_users_have_it() -> Result<()> {
    let host = dockerd::host().await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    let others = "LANG=\"C.UTF-8\"\n# by hand\nexport HTTPS_PROXY='http://old:1'\n";
    node.write("/etc/environment", others.as_bytes(), 0o644, 0, 0)
        .await?;
    let before = Trees::of(here).await?;

    // Whatever a password may be.
    let password = "p@:/%$\"'\\`#; é";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "proxy"},
        "type": "kubernetes.io/basic-auth",
        "stringData": {"username": "CORP\\user", "password": password},
    });
    let docker = json!({"proxy": {
        "appliesTo": ["Docker"],
        "http": "http://proxy.example.com:3128",
        "https": "http://proxy.example.com:3128",
        "noProxy": ["localhost", ".svc", "10.0.0.0/8", "fd00::/8"],
        "credentialsFrom": {"secretRef": {"name": "proxy"}},
    }});
    let users = json!({"proxy": {
        "appliesTo": ["Environment"],
        "https": "http://proxy.example.com:3128",
        "noProxy": ["localhost"],
    }});
    let manifests = [
        manifest("docker", &docker),
        manifest("users", &users),
        secret,
    ];
    let (code, said) = host.edict("apply", &manifests).await?;
    ensure!(code == 0, "{code}: {said}");
    let encoded = "p%40%3A%2F%25%24%22%27%5C%60%23%3B%20%C3%A9";
    let url = format!("http://CORP%5Cuser:{encoded}@proxy.example.com:3128");
    let expected = [
        ("HTTP_PROXY".to_owned(), url.clone()),
        ("HTTPS_PROXY".to_owned(), url),
        (
            "NO_PROXY".to_owned(),
            "localhost,.svc,10.0.0.0/8,fd00::/8".to_owned(),
        ),
    ];
    let found = environ(node, "docker.service").await?;
    ensure!(found == expected.into(), "{found:?}");
    // Docker itself has understood it, and shows it without the password.
    let info = node.run(&["docker", "info"]).await?;
    ensure!(
        info.contains("HTTPS Proxy: http://xxxxx:xxxxx@proxy.example.com:3128"),
        "{info}"
    );
    // Nobody but root finds it: not in the file, not by asking systemd, not in what Edict says.
    let stat = node.stat("/etc/edict/proxy/docker.env").await?;
    ensure!(
        stat.as_ref().is_some_and(|stat| stat.mode == 0o600),
        "{stat:?}"
    );
    let shown = node.run(&["systemctl", "show", "docker.service"]).await?;
    let (_, status) = host.edict("status", &[]).await?;
    for text in [shown, status, said] {
        ensure!(
            !text.contains(encoded) && !text.contains(password),
            "{text}"
        );
    }

    // PAM reads the environment of whoever logs in.
    let env = node.run(&["su", "root", "-c", "env"]).await?;
    for line in [
        "HTTPS_PROXY=http://proxy.example.com:3128",
        "https_proxy=http://proxy.example.com:3128",
        "NO_PROXY=localhost",
        "LANG=C.UTF-8",
    ] {
        ensure!(env.lines().any(|one| one == line), "{line}: {env}");
    }

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    let left = environ(node, "docker.service").await?;
    ensure!(left.is_empty(), "{left:?}");
    let env = node.run(&["su", "root", "-c", "env"]).await?;
    ensure!(env.contains("HTTPS_PROXY=http://old:1"), "{env}");
    before.unchanged(here).await
}

/// A proxy where nobody listens, another one for each role: what needs it and should not, fails. The
/// kubelet goes to the API server past it.
async fn draft(ctx: &Context, node: &Node) -> Result<(Draft, String)> {
    let server = "sed -n 's|.*server: https://\\([^:/]*\\).*|\\1|p' /etc/kubernetes/kubelet.conf";
    let server = node.shell(server).await?.trim().to_owned();
    let (name, url) = match node.role {
        Role::Master => ("proxy-master", "http://127.0.0.1:9"),
        Role::Worker => ("proxy-worker", "http://127.0.0.1:10"),
    };
    let target = named(std::slice::from_ref(node));
    let mut draft = Draft::new(&format!("{}-{name}", ctx.name), target);
    draft.0.spec.config.proxy = Some(Proxy {
        applies_to: vec![ProxyUser::Containerd, ProxyUser::Kubelet],
        http: None,
        https: Some(url.to_owned()),
        no_proxy: Some(vec![
            server,
            "localhost".to_owned(),
            "10.96.0.0/12".to_owned(),
        ]),
        credentials_from: None,
    });
    Ok((draft, url.to_owned()))
}

#[tokio::test]
async fn containerd_and_kubelet_have_it_on_masters_and_workers() -> Result<()> {
    e2e::test("proxy", async |ctx| {
        let here = [ctx.masters().remove(0), ctx.workers().remove(0)];
        let before = Trees::of(ctx.nodes()).await?;
        let mut drafts = Vec::new();
        for node in &here {
            let (draft, url) = draft(&ctx, node).await?;
            draft.settle(&ctx, std::slice::from_ref(node)).await?;
            drafts.push((node.name.clone(), draft, url));
        }
        ctx.ready(&here).await?;
        for node in ctx.nodes() {
            let meant = drafts.iter().find(|(name, ..)| *name == node.name);
            let expected = meant.map(|(.., url)| url.as_str());
            for unit in UNITS {
                let found = environ(node, unit).await?;
                let url = found.get("HTTPS_PROXY").map(String::as_str);
                let said = format!("{} {unit}: {found:?}, not {expected:?}", node.name);
                ensure!(url == expected, "{said}");
                ensure!(found.contains_key("NO_PROXY") == meant.is_some(), "{said}");
            }
        }
        for (_, draft, _) in &drafts {
            draft.delete(&ctx).await?;
        }
        ctx.ready(&here).await?;
        for node in &here {
            for unit in UNITS {
                let left = environ(node, unit).await?;
                ensure!(left.is_empty(), "{} {unit}: {left:?}", node.name);
            }
        }
        before.unchanged(ctx.nodes()).await
    })
    .await
}
