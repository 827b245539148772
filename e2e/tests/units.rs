//! What services and users may have: settings of units, limits of those who log in, modules of the
//! kernel, and the time.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::named;
use e2e::settings::Settings;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Host, Node, Role, Trees};
use serde_json::{Value, json};

/// A daemon asks its sources as soon as it runs.
const ASKED: Duration = Duration::from_secs(30);

/// Debian's package has that alias. It is not to set the clock, which is this machine's, and asks nobody.
const CHRONY: &str = r#"
echo 'DAEMON_OPTS="-x -F 0"' >/etc/default/chrony
ln -s /usr/lib/systemd/system/chrony.service /etc/systemd/system/chronyd.service
sed -i '/^pool/d' /etc/chrony/chrony.conf
systemctl daemon-reload
systemctl start chronyd.service
"#;

const APP: &str = "\
[Service]
ExecStart=/bin/sleep infinity
LimitNOFILE=2048
";

async fn shown(node: &Node, unit: &str, property: &str) -> Result<String> {
    let property = format!("--property={property}");
    let said = node
        .run(&["systemctl", "show", "--value", &property, unit])
        .await?;
    Ok(said.trim().to_owned())
}

/// How many files the unit's main process may have open, as the kernel has it.
async fn open_files(node: &Node, unit: &str) -> Result<String> {
    let limits = format!("/proc/{}/limits", shown(node, unit, "MainPID").await?);
    let limits = node.run(&["cat", &limits]).await?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let words: Vec<_> = line
        .unwrap_or_default()
        .split_whitespace()
        .take(2)
        .collect();
    Ok(words.join(":"))
}

fn units(unit: &str, settings: &Value) -> Value {
    json!({"units": [{"unit": unit, "settings": settings}]})
}

#[tokio::test]
async fn a_service_has_what_it_is_given() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    node.write(
        "/etc/systemd/system/app.service",
        APP.as_bytes(),
        0o644,
        0,
        0,
    )
    .await?;
    node.shell("systemctl daemon-reload; systemctl start app.service")
        .await?;
    let before = Trees::of(here).await?;
    let first = shown(node, "app.service", "MainPID").await?;

    // systemd gives it these while it runs.
    let settings = json!({"MemoryMax": "64M", "CPUWeight": "50", "RestartSec": "1min30s"});
    let memory = manifest("memory", &units("app.service", &settings));
    let (code, said) = host.edict("apply", std::slice::from_ref(&memory)).await?;
    ensure!(
        code == 0 && said.starts_with("memory: Applied\n"),
        "{code}: {said}"
    );
    ensure!(
        shown(node, "app.service", "MainPID").await? == first,
        "it was restarted: {said}"
    );
    for (property, value) in [
        ("MemoryMax", "67108864"),
        ("CPUWeight", "50"),
        ("RestartUSec", "1min 30s"),
    ] {
        let found = shown(node, "app.service", property).await?;
        ensure!(found == value, "{property}: {found}, not {value}");
    }

    // For these it has to start anew. Another NodeConfig may have others of the same service.
    let files = manifest(
        "files",
        &units(
            "app.service",
            &json!({"LimitNOFILE": "3000:4000", "Nice": "5"}),
        ),
    );
    let (code, said) = host.edict("apply", &[memory, files]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(
        shown(node, "app.service", "MainPID").await? != first,
        "it was not restarted"
    );
    let found = open_files(node, "app.service").await?;
    ensure!(found == "3000:4000", "{found}");

    let missing = manifest("missing", &units("absent.service", &json!({"Nice": "1"})));
    let (code, said) = host.edict("plan", &[missing]).await?;
    ensure!(
        code == 3 && said.contains("absent.service is not on this node"),
        "{code}: {said}"
    );

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    let found = open_files(node, "app.service").await?;
    ensure!(found == "2048:2048", "{found}");
    let found = shown(node, "app.service", "MemoryMax").await?;
    ensure!(found == "infinity", "{found}");
    before.unchanged(here).await
}

/// What PAM gives to whoever logs in.
async fn limit(node: &Node, user: &str, which: &str) -> Result<String> {
    let argv = ["su", user, "--shell", "/bin/bash", "--command", which];
    Ok(node.run(&argv).await?.trim().to_owned())
}

#[tokio::test]
async fn users_have_their_limits() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    // Somebody's own file, which is read before.
    let own = "nobody soft nofile 99\n";
    node.write(
        "/etc/security/limits.d/50-own.conf",
        own.as_bytes(),
        0o644,
        0,
        0,
    )
    .await?;
    let before = Trees::of(here).await?;
    ensure!(limit(node, "nobody", "ulimit -Sn").await? == "99");
    let limits = json!([
        {"domain": "nobody", "type": "Both", "item": "nofile", "value": "500"},
        {"domain": "nobody", "type": "Hard", "item": "core", "value": "0"},
    ]);
    let (code, said) = host
        .edict("apply", &[manifest("limits", &json!({"limits": limits}))])
        .await?;
    ensure!(code == 0, "{code}: {said}");
    for (which, value) in [
        ("ulimit -Sn", "500"),
        ("ulimit -Hn", "500"),
        ("ulimit -Hc", "0"),
    ] {
        let found = limit(node, "nobody", which).await?;
        ensure!(found == value, "{which}: {found}, not {value}");
    }
    ensure!(
        limit(node, "root", "ulimit -Sn").await? != "500",
        "root has it too"
    );
    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(limit(node, "nobody", "ulimit -Sn").await? == "99");
    before.unchanged(here).await
}

/// The kernels of test machines have no modules: what would load one reads them.
#[tokio::test]
async fn modules_have_their_parameters_parsed() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    let before = Trees::of(here).await?;
    let modules = json!([
        {"name": "nf-conntrack", "parameters": {"hashsize": "65536"}},
        {"name": "no_such_module"},
    ]);
    let spec = json!({"modules": modules, "restarts": "Never"});
    let (code, said) = host.edict("apply", &[manifest("modules", &spec)]).await?;
    ensure!(
        code == 0 && said.contains("PendingRestart"),
        "{code}: {said}"
    );
    ensure!(said.contains("systemd-modules-load.service"), "{said}");
    let shown = node.run(&["modprobe", "--showconfig"]).await?;
    ensure!(
        shown.contains("options nf_conntrack hashsize=65536"),
        "{shown}"
    );
    let list = node
        .run(&["systemd-analyze", "cat-config", "modules-load.d"])
        .await?;
    let names: Vec<_> = list.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(
        names.contains(&"nf_conntrack") && names.contains(&"no_such_module"),
        "{list}"
    );

    // Where it is to be loaded at once, there is none.
    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    let spec = json!({"modules": [{"name": "no_such_module"}]});
    let (code, said) = host.edict("apply", &[manifest("modules", &spec)]).await?;
    for word in [
        "this node's kernel has no module no_such_module",
        "correct the name",
    ] {
        ensure!(code == 1 && said.contains(word), "{word}: {code}: {said}");
    }
    before.unchanged(here).await
}

#[tokio::test]
async fn chrony_asks_its_sources() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    // It is not to set the clock, which is this machine's.
    node.shell(CHRONY).await?;
    let before = Trees::of(here).await?;
    let ntp = json!({"ntp": {
        "appliesTo": ["Chrony"], "servers": ["192.0.2.123", "2001:db8::123"],
    }});
    let (code, said) = host.edict("apply", &[manifest("time", &ntp)]).await?;
    ensure!(
        code == 0 && said.starts_with("time: Applied\n"),
        "{code}: {said}"
    );
    let sources = async || node.run(&["chronyc", "-n", "-c", "sources"]).await;
    wait::until("chrony to have its sources", ASKED, async || {
        let said = sources().await?;
        let there = said.contains(",192.0.2.123,") && said.contains(",2001:db8::123,");
        Ok(Seen::when(there, said))
    })
    .await?;
    let read = node.run(&["chronyd", "-p"]).await?;
    ensure!(read.contains("sourcedir /etc/chrony/sources.d"), "{read}");

    // Where chrony does not read them, Edict says so.
    node.shell("sed -i.before '/^sourcedir.*sources.d/d' /etc/chrony/chrony.conf")
        .await?;
    let (code, said) = host.edict("apply", &[manifest("time", &ntp)]).await?;
    ensure!(
        code != 0 && said.contains("chrony does not read /etc/chrony/sources.d"),
        "{code}: {said}"
    );
    node.shell("mv /etc/chrony/chrony.conf.before /etc/chrony/chrony.conf")
        .await?;
    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    let left = sources().await?;
    ensure!(left.trim().is_empty(), "{left}");
    before.unchanged(here).await
}

/// It is not there beside chrony: what systemd has of its configuration is read.
#[tokio::test]
async fn timesyncd_asks_its_servers_parsed() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    let before = Trees::of(here).await?;
    let ntp = json!({"ntp": {"appliesTo": ["Timesyncd"], "servers": ["time.edict.test"]}});
    let (code, said) = host.edict("apply", &[manifest("time", &ntp)]).await?;
    ensure!(
        code == 0 && said.contains("systemd-timesyncd.service is not on this node"),
        "{said}"
    );
    let read = node
        .run(&["systemd-analyze", "cat-config", "systemd/timesyncd.conf"])
        .await?;
    ensure!(
        read.contains("[Time]\nNTP=\nNTP=time.edict.test\n"),
        "{read}"
    );
    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{code}: {said}");
    before.unchanged(here).await
}

/// Each role with its own, below what a machine may have that gives its containers less than others.
fn draft(ctx: &Context, node: &Node) -> (Draft, &'static str) {
    let (name, files) = match node.role {
        Role::Master => ("master", "15001"),
        Role::Worker => ("worker", "15002"),
    };
    let target = named(std::slice::from_ref(node));
    let settings = json!([{"unit": "kubelet.service", "settings": {
        "LimitNOFILE": files, "TimeoutStopSec": "45",
    }}]);
    let limits = json!([{"domain": "nobody", "type": "Soft", "item": "nofile", "value": "77"}]);
    let draft = Draft::new(&format!("{}-{name}", ctx.name), target)
        .block("units", &settings)
        .block("limits", &limits);
    (draft, files)
}

#[tokio::test]
async fn kubelets_of_masters_and_workers_have_their_own() -> Result<()> {
    e2e::test("units", async |ctx| {
        let here = [ctx.masters().remove(1), ctx.workers().remove(1)];
        let before = Trees::of(ctx.nodes()).await?;
        let mut first = Vec::new();
        for node in &here {
            first.push(open_files(node, "kubelet.service").await?);
        }
        for node in &here {
            let (draft, files) = draft(&ctx, node);
            draft.settle(&ctx, std::slice::from_ref(node)).await?;
            let found = open_files(node, "kubelet.service").await?;
            ensure!(
                found == format!("{files}:{files}"),
                "{}: {found}",
                node.name
            );
            let found = shown(node, "kubelet.service", "TimeoutStopUSec").await?;
            ensure!(found == "45s", "{}: {found}", node.name);
            let found = limit(node, "nobody", "ulimit -Sn").await?;
            ensure!(found == "77", "{}: {found}", node.name);
        }
        ctx.ready(&here).await?;
        for (node, first) in here.iter().zip(&first) {
            draft(&ctx, node).0.delete(&ctx).await?;
            let found = open_files(node, "kubelet.service").await?;
            ensure!(found == *first, "{}: {found}, not {first}", node.name);
        }
        ctx.ready(&here).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}
