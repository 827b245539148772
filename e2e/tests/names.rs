//! Names: those that a node has in /etc/hosts, and whom it asks for all others.

use anyhow::{Context as _, Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::named;
use e2e::settings::Settings;
use e2e::{Context, Draft, Host, Node, Trees};
use serde_json::{Value, json};

/// The name servers that systemd-resolved has for itself, written by itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The addresses by which programs of a node find a name.
async fn addresses(node: &Node, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // The first asks for IPv6 before anything else, also on a node that has none.
    for family in ["hosts", "ahostsv4"] {
        let said = node.exec(&["getent", family, name]).await?.text();
        let words = said
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        found.extend(words.map(ToOwned::to_owned));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The lines of resolved's own file that say something.
async fn resolved(node: &Node) -> Result<Vec<String>> {
    let text = node
        .text(RESOLVED)
        .await?
        .context("resolved does not run")?;
    let said = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(said.map(ToOwned::to_owned).collect())
}

fn hosts(address: &str) -> Value {
    json!([
        {"address": address, "names": ["registry.edict.test", "mirror.edict.test"]},
        {"address": "2001:db8::7", "names": ["registry.edict.test"]},
    ])
}

#[tokio::test]
async fn programs_find_what_stands_in_hosts() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    // A container's /etc/hosts is a mount: it is written over in its place.
    let text = node.text("/etc/hosts").await?.context("no hosts")?;
    let text = format!("{text}10.9.9.9\tmirror.edict.test # by hand");
    node.shell(&format!("printf %s '{text}' >/etc/hosts"))
        .await?;
    let before = Trees::of(here).await?;
    let wanted = manifest("names", &json!({"hosts": hosts("192.0.2.7")}));
    let (code, said) = host.edict("apply", &[wanted]).await?;
    ensure!(code == 0 && said.contains("/etc/hosts"), "{code}: {said}");
    let found = addresses(node, "REGISTRY.edict.test").await?;
    ensure!(found == ["192.0.2.7", "2001:db8::7"], "{found:?}");
    let found = addresses(node, "mirror.edict.test").await?;
    ensure!(found == ["192.0.2.7"], "{found:?}");
    let found = addresses(node, "localhost").await?;
    ensure!(!found.is_empty(), "localhost is lost");

    // A name among others is somebody else's line.
    let bad = json!([{"address": "2001:db8::8", "names": ["two.edict.test"]}]);
    node.shell("cp /etc/hosts /run/hosts; echo '::1 one.edict.test two.edict.test' >>/etc/hosts")
        .await?;
    let with = Trees::of(here).await?;
    let (code, said) = host
        .edict("apply", &[manifest("bad", &json!({"hosts": bad}))])
        .await?;
    ensure!(
        code == 1 && said.contains("together with others"),
        "{code}: {said}"
    );
    with.unchanged(here).await?;
    node.shell("cat /run/hosts >/etc/hosts").await?;

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    before.unchanged(here).await
}

#[tokio::test]
async fn resolved_asks_whom_it_is_told_to() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    node.run(&["systemctl", "start", "systemd-resolved.service"])
        .await?;
    let own = "[Resolve]\nDNS=10.9.9.9\nDomains=old.test\n";
    let drop_in = "/etc/systemd/resolved.conf.d/own.conf";
    node.write(drop_in, own.as_bytes(), 0o644, 0, 0).await?;
    node.run(&["systemctl", "restart", "systemd-resolved.service"])
        .await?;
    let first = resolved(node).await?;
    ensure!(
        first.contains(&"nameserver 10.9.9.9".to_owned()),
        "{first:?}"
    );
    let before = Trees::of(here).await?;
    let dns = json!({
        "servers": ["192.0.2.53#dns.edict.test", "2001:db8::53"],
        "domains": ["edict.test", "~."],
        "dnsOverTLS": "No",
    });
    let (code, said) = host
        .edict("apply", &[manifest("dns", &json!({"dns": dns}))])
        .await?;
    ensure!(code == 0, "{code}: {said}");
    let now = resolved(node).await?;
    let expected = [
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
        "search edict.test",
    ];
    ensure!(now == expected, "{now:?}");
    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(
        resolved(node).await? == first,
        "{:?}",
        resolved(node).await?
    );
    before.unchanged(here).await
}

/// Each of the two with its own.
fn draft(ctx: &Context, node: &Node, last: u8) -> Draft {
    let target = named(std::slice::from_ref(node));
    let dns = json!({"servers": [format!("192.0.2.{last}")]});
    Draft::new(&format!("{}-{last}", ctx.name), target)
        .block("hosts", &hosts(&format!("198.51.100.{last}")))
        .block("dns", &dns)
}

#[tokio::test]
async fn masters_and_workers_have_their_own() -> Result<()> {
    e2e::test("names", async |ctx| {
        let here = [ctx.masters().remove(0), ctx.workers().remove(0)];
        // The cluster's nodes go on asking whom they ask: nothing points to this one.
        for node in &here {
            node.run(&["systemctl", "start", "systemd-resolved.service"])
                .await?;
        }
        let outcome = own(&ctx, &here).await;
        for node in &here {
            node.run(&["systemctl", "stop", "systemd-resolved.service"])
                .await?;
        }
        outcome
    })
    .await
}

async fn own(ctx: &Context, here: &[Node]) -> Result<()> {
    let before = Trees::of(ctx.nodes()).await?;
    let drafts: Vec<_> = here
        .iter()
        .zip([11, 12])
        .map(|(node, last)| draft(ctx, node, last))
        .collect();
    for (draft, node) in drafts.iter().zip(here) {
        draft.settle(ctx, std::slice::from_ref(node)).await?;
    }
    for node in ctx.nodes() {
        let last = here
            .iter()
            .zip([11, 12])
            .find(|(one, _)| one.name == node.name);
        let found = addresses(node, "mirror.edict.test").await?;
        let expected: Vec<_> = last
            .iter()
            .map(|(_, last)| format!("198.51.100.{last}"))
            .collect();
        ensure!(
            found == expected,
            "{}: {found:?}, not {expected:?}",
            node.name
        );
        if let Some((_, last)) = last {
            let found = resolved(node).await?;
            let server = format!("nameserver 192.0.2.{last}");
            ensure!(found.contains(&server), "{}: {found:?}", node.name);
        }
    }
    for draft in &drafts {
        draft.delete(ctx).await?;
    }
    for node in here {
        let found = addresses(node, "mirror.edict.test").await?;
        ensure!(found.is_empty(), "{}: {found:?}", node.name);
    }
    before.unchanged(ctx.nodes()).await
}
