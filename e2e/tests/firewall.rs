//! Who may reach a node: those that the firewall lets in, the cluster, and nobody else; and a firewall that keeps
//! the cluster out is taken out again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::{named, role};
use e2e::settings::Settings;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Host, Node, Trees, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long somebody waits who is not answered: another container of this machine answers at once.
const ANSWER: Duration = Duration::from_secs(2);
/// A host that starts anew, or a probation that is over.
const SOON: Duration = Duration::from_mins(2);
/// Ports of every node: the kubelet's, and that where kube-proxy says how it is.
const KUBELET: u16 = 10250;
const PROXY: u16 = 10256;

/// Two services that answer whoever comes, and a table of somebody else.
const SERVICES: &str = "
for port in 8098 8099; do
cat >/etc/systemd/system/answer$port.socket <<END
[Socket]
ListenStream=$port
Accept=yes
[Install]
WantedBy=sockets.target
END
cat >/etc/systemd/system/answer$port@.service <<END
[Service]
ExecStart=/bin/echo here
StandardOutput=socket
END
systemctl enable --quiet --now answer$port.socket
done
nft add table inet mine
nft add chain inet mine in '{ type filter hook input priority 10; policy accept; }'
nft add rule inet mine in tcp dport 8097 drop
";

/// The address by which others on this machine reach a node.
async fn address(node: &Node) -> Result<String> {
    let said = node
        .run(&["ip", "-4", "-brief", "address", "show", "eth0"])
        .await?;
    let range = said
        .split_whitespace()
        .nth(2)
        .context("it has no address")?;
    Ok(range.split('/').next().unwrap_or_default().to_owned())
}

/// Whether this machine, which is no part of any cluster, gets a connection to a port of a node.
async fn reaches(node: &Node, port: u16) -> Result<bool> {
    let at = format!("{}:{port}", address(node).await?);
    Ok(timeout(ANSWER, TcpStream::connect(&at))
        .await
        .is_ok_and(|connected| connected.is_ok()))
}

async fn reached(node: &Node, ports: [(u16, bool); 2]) -> Result<()> {
    for (port, expected) in ports {
        let found = reaches(node, port).await?;
        ensure!(
            found == expected,
            "{}:{port}: reached {found}, not {expected}",
            node.name
        );
    }
    Ok(())
}

/// Whether one node gets a connection from within to some address.
async fn connects(node: &Node, to: &str, port: u16) -> Result<bool> {
    let script = format!("timeout 3 bash -c '</dev/tcp/{to}/{port}'");
    Ok(node.exec(&["bash", "-c", &script]).await?.success())
}

async fn without_table(nodes: &[Node]) -> Result<()> {
    let found = try_join_all(nodes.iter().map(Node::table)).await?;
    ensure!(found.iter().all(Option::is_none), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_lets_in_whom_it_is_told_to() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    node.shell(SERVICES).await?;
    let mine = node.run(&["nft", "list", "table", "inet", "mine"]).await?;
    let before = Trees::of(here).await?;
    reached(node, [(8098, true), (8099, true)]).await?;

    let open = json!({"allow": [{"ports": [{"port": 8099}]}]});
    let (code, said) = host
        .edict("apply", &[manifest("open", &json!({"firewall": open}))])
        .await?;
    let why = "give nodeCIDRs, podCIDRs, serviceCIDRs, [] for none";
    ensure!(code == 1 && said.contains(why), "{code}: {said}");

    let none = json!({"nodeCIDRs": [], "podCIDRs": [], "serviceCIDRs": []});
    let firewall = |port: u16| {
        let allow = json!([{"ports": [{"port": port}], "from": ["0.0.0.0/0", "::/0"]}]);
        manifest(
            "wall",
            &json!({"firewall": {"allow": allow, "cluster": none}}),
        )
    };
    let (code, said) = host.edict("plan", &[firewall(8099)]).await?;
    let drops = "what other tables drop stays dropped, whatever the firewall lets in: see chain in of table inet mine";
    ensure!(code == 3 && said.contains(drops), "{code}: {said}");
    ensure!(
        said.contains("+\t\tmeta nfproto ipv4 tcp dport { 8099 } accept"),
        "{said}"
    );
    before.unchanged(here).await?;
    without_table(here).await?;

    let (code, said) = host.edict("apply", &[firewall(8099)]).await?;
    ensure!(
        code == 0 && said.starts_with("wall: Applied"),
        "{code}: {said}"
    );
    reached(node, [(8098, false), (8099, true)]).await?;
    ensure!(
        connects(node, "127.0.0.1", 8098).await?,
        "its own programs are kept out"
    );
    // What is asked of others is answered: this machine's docker has its registry's port, or any.
    let gateway = node.run(&["ip", "route", "show", "default"]).await?;
    let gateway = gateway.split_whitespace().nth(2).context("no way out")?;
    let out = tokio::net::TcpListener::bind((gateway, 0)).await?;
    ensure!(
        connects(node, gateway, out.local_addr()?.port()).await?,
        "it reaches nobody"
    );
    let now = node.run(&["nft", "list", "table", "inet", "mine"]).await?;
    ensure!(now == mine, "{now}");

    // What somebody adds to it is no part of it.
    let added = "nft add rule inet edict input tcp dport 8098 accept";
    node.shell(added).await?;
    reached(node, [(8098, true), (8099, true)]).await?;
    let (code, said) = host.edict("apply", &[firewall(8099)]).await?;
    ensure!(code == 0, "{code}: {said}");
    reached(node, [(8098, false), (8099, true)]).await?;

    // It is there when the host starts, before anybody can ask.
    node.stop().await?;
    node.start().await?;
    wait::until("the host to be up again", SOON, async || {
        let said = node.exec(&["systemctl", "is-system-running"]).await?.text();
        Ok(Seen::when(
            ["running", "degraded"].contains(&said.trim()),
            said,
        ))
    })
    .await?;
    let loaded = node.table().await?.unwrap_or_default();
    ensure!(loaded.contains("8099"), "{loaded}");
    reached(node, [(8098, false), (8099, true)]).await?;

    let (code, said) = host.edict("apply", &[firewall(8098)]).await?;
    ensure!(code == 0, "{code}: {said}");
    reached(node, [(8098, true), (8099, false)]).await?;

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    without_table(here).await?;
    reached(node, [(8098, true), (8099, true)]).await?;
    // kind's entrypoint makes another one with each start.
    before.changed_only(here, &["/etc/machine-id"]).await
}

/// What a cluster needs of its nodes goes on: the API server reaches each kubelet, nodes reach services and
/// each other.
async fn cluster_goes_on(ctx: &Context, nodes: &[Node]) -> Result<()> {
    let services = [
        "get",
        "service",
        "kube-dns",
        "--namespace=kube-system",
        "--output=jsonpath={.spec.clusterIP}",
    ];
    let dns = ctx.kubectl().args(services).text().await?;
    for node in nodes {
        let at = address(node).await?;
        ensure!(
            connects(node, dns.trim(), 53).await?,
            "{} reaches no service",
            node.name
        );
        for other in ctx.nodes() {
            ensure!(
                connects(other, &at, KUBELET).await?,
                "{} is not reached by {}",
                node.name,
                other.name
            );
        }
        let field = format!("--field-selector=spec.nodeName={}", node.name);
        let pod = ctx
            .kubectl()
            .args([
                "get",
                "pods",
                "--namespace=edict-system",
                "--selector=app.kubernetes.io/name=edict-agent",
            ])
            .args([&*field, "--output=jsonpath={.items[0].metadata.name}"])
            .text()
            .await?;
        let logs = ["logs", "--namespace=edict-system", "--tail=1", pod.trim()];
        ctx.kubectl().args(logs).text().await?;
    }
    ctx.ready(nodes).await
}

async fn everybody_is_let_in(nodes: &[Node]) -> Result<()> {
    try_join_all(
        nodes
            .iter()
            .map(|node| reached(node, [(KUBELET, true), (PROXY, true)])),
    )
    .await?;
    Ok(())
}

/// A firewall for nodes of a role, and what comes of it: on those nodes, and on no other.
async fn on_one_role(ctx: &Context, to: Role, allow: &Value) -> Result<()> {
    let (own, others) = match to {
        Role::Master => (ctx.masters(), ctx.workers()),
        _ => (ctx.workers(), ctx.masters()),
    };
    let before = Trees::of(ctx.nodes()).await?;
    everybody_is_let_in(ctx.nodes()).await?;
    let draft = Draft::new(&ctx.name, role(to)).block("firewall", &json!({"allow": allow}));
    draft.apply(ctx).await?;
    draft.settled(ctx, &own).await?;
    for node in &own {
        reached(node, [(KUBELET, false), (PROXY, true)]).await?;
        ensure!(node.table().await?.is_some(), "there is no table");
    }
    without_table(&others).await?;
    everybody_is_let_in(&others).await?;
    cluster_goes_on(ctx, &own).await?;
    draft.delete(ctx).await?;
    without_table(&own).await?;
    everybody_is_let_in(&own).await?;
    before.unchanged(ctx.nodes()).await
}

#[tokio::test]
async fn workers_let_in_the_cluster_and_whom_they_are_told_to() -> Result<()> {
    e2e::test("firewall-workers", async |ctx| {
        let allow = json!([{"ports": [{"port": PROXY}]}]);
        on_one_role(&ctx, Role::Worker, &allow).await
    })
    .await
}

/// The load balancer before the API server is no node.
#[tokio::test]
async fn masters_let_in_the_cluster_and_whom_they_are_told_to() -> Result<()> {
    e2e::test("firewall-masters", async |ctx| {
        let allow = json!([{"ports": [{"port": PROXY}, {"port": 6443}]}]);
        on_one_role(&ctx, Role::Master, &allow).await
    })
    .await
}

/// A firewall for one node that keeps others out, and what is said when it is taken out again.
async fn taken_out(ctx: &Context, node: &Node, firewall: &Value, why: &str) -> Result<()> {
    let here = std::slice::from_ref(node);
    let others = ctx.nodes().iter().find(|other| other.name != node.name);
    let other = others.context("there is one node only")?;
    let before = Trees::of(ctx.nodes()).await?;
    let draft = Draft::new(&ctx.name, named(here)).block("firewall", firewall);
    draft.apply(ctx).await?;
    wait::until("the table to be there", SOON, async || {
        let found = node.table().await?;
        Ok(Seen::when(found.is_some(), found))
    })
    .await?;
    ensure!(
        !connects(other, &address(node).await?, KUBELET).await?,
        "it cuts nobody off"
    );
    let status = status::reach(ctx, &ctx.name, "to be held", SOON, |status| {
        status.state == Some(State::Held)
    })
    .await?;
    let words = [
        "the firewall keeps the cluster out: 20 s later",
        why,
        "is put back",
    ];
    ensure!(
        status::says(&status, &node.name, State::Held, &words),
        "{status:?}"
    );
    without_table(ctx.nodes()).await?;
    cluster_goes_on(ctx, here).await?;
    before.unchanged(ctx.nodes()).await?;
    draft.delete(ctx).await?;
    before.unchanged(ctx.nodes()).await
}

#[tokio::test]
async fn one_that_keeps_the_cluster_out_is_taken_out_again() -> Result<()> {
    e2e::test("firewall-cut", async |ctx| {
        let node = ctx.workers().remove(0);
        let none = json!({"nodeCIDRs": [], "podCIDRs": [], "serviceCIDRs": []});
        let firewall = json!({"cluster": none, "probationSeconds": 20});
        taken_out(&ctx, &node, &firewall, "kubelet's port").await
    })
    .await
}

/// The operator reaches the node that it runs on through any firewall: others are asked.
#[tokio::test]
async fn one_that_keeps_other_nodes_out_is_taken_out_where_the_operator_runs_too() -> Result<()> {
    e2e::test("firewall-own", async |ctx| {
        let get = ["get", "--namespace=edict-system", "--output"];
        let leads = ["jsonpath={.spec.holderIdentity}", "lease", "edict-operator"];
        let leader = ctx.kubectl().args(get).args(leads).text().await?;
        let runs = ["jsonpath={.spec.nodeName}", "pod", leader.trim()];
        let name = ctx.kubectl().args(get).args(runs).text().await?;
        let node = ctx.nodes().iter().find(|node| node.name == name.trim());
        let node = node.with_context(|| format!("the operator runs on {name:?}"))?;
        let firewall = json!({
            "cluster": {"nodeCIDRs": []}, "allow": [{"ports": [{"port": 6443}]}], "probationSeconds": 20,
        });
        taken_out(&ctx, node, &firewall, "from node").await
    })
    .await
}
