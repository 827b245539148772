//! Settings of the kernel: each node's own network has them, as long as a NodeConfig says so.

use anyhow::{Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::named;
use e2e::settings::Settings;
use e2e::{Context, Draft, Host, Node, Role, Trees};
use edict_core::config::Sysctl;
use serde_json::{Value, json};

/// Settings that each network has for itself: those of this machine stay as they are.
const KEEPALIVE: &str = "net.ipv4.tcp_keepalive_time";
const MEMORY: &str = "net.ipv4.tcp_rmem";

/// What the kernel runs with in the network of a node.
async fn now(node: &Node, key: &str) -> Result<String> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let said = node.run(&["cat", &path]).await?;
    Ok(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn config(sysctl: &Value) -> Value {
    manifest("kernel", &json!({"sysctl": sysctl}))
}

#[tokio::test]
async fn the_kernel_has_them_at_once_and_after_a_start() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    // Somebody's own file, which is read late.
    let own = format!("{KEEPALIVE} = 6900\n");
    let late = "/etc/sysctl.d/99-sysctl.conf";
    node.write(late, own.as_bytes(), 0o644, 0, 0).await?;
    let before = Trees::of(here).await?;
    let first = [now(node, KEEPALIVE).await?, now(node, MEMORY).await?];

    let wanted = config(&json!({KEEPALIVE: "7100", "net/ipv4/tcp_rmem": "4096  131072\t6291456"}));
    let (code, said) = host.edict("plan", std::slice::from_ref(&wanted)).await?;
    let line = "+7100\n";
    ensure!(code == 3 && said.contains(line), "{code}: {said}");
    ensure!(now(node, KEEPALIVE).await? == first[0], "a plan has set it");
    let (code, said) = host.edict("apply", std::slice::from_ref(&wanted)).await?;
    ensure!(code == 0 && said.starts_with("kernel: Applied\n"), "{said}");
    let set = ["7100", "4096 131072 6291456"];
    ensure!([now(node, KEEPALIVE).await?, now(node, MEMORY).await?] == set);
    // As when the host starts.
    node.run(&["systemctl", "restart", "systemd-sysctl.service"])
        .await?;
    ensure!([now(node, KEEPALIVE).await?, now(node, MEMORY).await?] == set);

    // What the kernel does not take, and what it does not have.
    for (key, value, says) in [
        (
            KEEPALIVE,
            "soon",
            [
                "/proc/sys/net/ipv4/tcp_keepalive_time can't be written in place",
                "what was changed before it is put back",
            ],
        ),
        (
            "net.ipv4.no_such_setting",
            "1",
            // Before anything is written.
            [
                "/proc/sys/net/ipv4/no_such_setting can't be read",
                "this node's kernel has no such setting",
            ],
        ),
    ] {
        let bad = config(&json!({"net.ipv4.tcp_rmem": "4096 100000 6291456", key: value}));
        let (code, said) = host.edict("apply", &[bad]).await?;
        for word in says {
            ensure!(code == 1 && said.contains(word), "{word}: {said}");
        }
        ensure!(
            [now(node, KEEPALIVE).await?, now(node, MEMORY).await?] == set,
            "{said}"
        );
    }

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!([now(node, KEEPALIVE).await?, now(node, MEMORY).await?] == first);
    before.unchanged(here).await
}

fn draft(ctx: &Context, node: &Node, value: &str) -> Draft {
    let role = match node.role {
        Role::Master => "master",
        Role::Worker => "worker",
    };
    let target = named(std::slice::from_ref(node));
    let mut draft = Draft::new(&format!("{}-{role}", ctx.name), target);
    let settings = [(KEEPALIVE.to_owned(), value.to_owned())];
    draft.0.spec.config.sysctl = Some(Sysctl(settings.into()));
    draft
}

#[tokio::test]
async fn masters_and_workers_have_their_own() -> Result<()> {
    e2e::test("sysctl", async |ctx| {
        let (master, worker) = (ctx.masters().remove(0), ctx.workers().remove(0));
        let before = Trees::of(ctx.nodes()).await?;
        let mut first = Vec::new();
        for node in ctx.nodes() {
            first.push(now(node, KEEPALIVE).await?);
        }
        let wanted = [(&master, "7101"), (&worker, "7102")];
        for (node, value) in wanted {
            let one = std::slice::from_ref(node);
            draft(&ctx, node, value).settle(&ctx, one).await?;
        }
        for (node, first) in ctx.nodes().iter().zip(&first) {
            let own = wanted.iter().find(|(one, _)| one.name == node.name);
            let value = own.map_or(first.as_str(), |(_, value)| value);
            let found = now(node, KEEPALIVE).await?;
            ensure!(found == value, "{}: {found}, not {value}", node.name);
        }
        for (node, value) in wanted {
            draft(&ctx, node, value).delete(&ctx).await?;
        }
        for (node, first) in ctx.nodes().iter().zip(&first) {
            let found = now(node, KEEPALIVE).await?;
            ensure!(found == *first, "{}: {found}, not {first}", node.name);
        }
        before.unchanged(ctx.nodes()).await
    })
    .await
}
