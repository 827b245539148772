//! What a `NodeConfig` probes has to hold once it is in force; where it does not, the node is put back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::role;
use e2e::settings::Settings;
use e2e::{Draft, Host, Trees, hostfile, status};
use edict_crds::Role;
use edict_crds::nodeconfig::State;
use serde_json::{Value, json};

/// Probes are tried for a few seconds, and the node is put back after that.
const TRIED: Duration = Duration::from_mins(1);

/// Where a service of a host answers, with what a file says.
const PORT: u16 = 8099;
const ANSWER: &str = "/etc/edict/answer";
/// The service, which knows nothing of the agent; one that has a unit to be probed beside it.
const FILES: &str = r#"
mkdir -p /etc/edict
cat >/usr/local/bin/answer <<'END'
#!/bin/bash
while read -r line && [ "${line%$'\r'}" ]; do echo "$line" >>/run/asked; done
printf 'HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n' "$(cat /etc/edict/answer)"
END
chmod +x /usr/local/bin/answer
cat >/etc/systemd/system/answer.socket <<'END'
[Socket]
ListenStream=8099
Accept=yes
END
cat >/etc/systemd/system/answer@.service <<'END'
[Service]
ExecStart=/usr/local/bin/answer
StandardInput=socket
StandardOutput=socket
END
cat >/etc/systemd/system/idle.service <<'END'
[Service]
ExecStart=/bin/bash -c 'echo nobody has started me'
END
systemctl daemon-reload
systemctl start answer.socket
"#;

/// A file that says what is answered, and what is probed then.
fn answers(answer: &str, probe: &Value) -> Value {
    let files = json!([{"path": ANSWER, "content": answer}]);
    let probes = json!([{"unit": "answer.socket"}, probe]);
    manifest("answers", &json!({"files": files, "probes": probes}))
}

#[tokio::test]
async fn a_host_is_put_back_where_a_probe_does_not_hold() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    let here = std::slice::from_ref(node);
    node.shell(FILES).await?;
    let before = Trees::of(here).await?;

    let http = json!({"http": {"port": PORT, "path": "/up?a=%20"}, "timeoutSeconds": 2});
    let idle = json!({"unit": "idle.service", "timeoutSeconds": 1});
    let closed = json!({"tcp": {"port": PORT + 1}, "timeoutSeconds": 1});
    for (answer, probe, says) in [
        (
            "503 Not Now",
            &http,
            "the probe of http://127.0.0.1:8099/up?a=%20 does not hold within 2 s: it answers with 503",
        ),
        (
            "200 OK",
            &idle,
            "the probe of idle.service does not hold within 1 s: it does not run",
        ),
        (
            "200 OK",
            &closed,
            "the probe of 127.0.0.1:8100 does not hold within 1 s: nobody listens there",
        ),
    ] {
        let (code, said) = host.edict("apply", &[answers(answer, probe)]).await?;
        let whole = format!("answers: Failed: {says}");
        ensure!(
            code == 1 && said.contains(&whole) && said.contains("what was changed is put back"),
            "{code}: {said}, not {whole}"
        );
        before.unchanged(here).await.context(says)?;
    }

    let (code, said) = host.edict("apply", &[answers("200 OK", &http)]).await?;
    ensure!(code == 0 && said.contains("answers: Applied"), "{said}");
    let asked = node.text("/run/asked").await?.unwrap_or_default();
    ensure!(asked.contains("GET /up?a=%20 HTTP/1.1"), "{asked}");

    // One that is in force stays so where the next one does not hold.
    let (code, said) = host.edict("apply", &[answers("500", &http)]).await?;
    ensure!(code == 1 && said.contains("answers with 500"), "{said}");
    let answer = node.text(ANSWER).await?;
    ensure!(answer.as_deref() == Some("200 OK"), "{answer:?}");

    let (code, said) = host.edict("restore", &[]).await?;
    ensure!(code == 0, "{said}");
    before.unchanged(here).await
}

#[tokio::test]
async fn masters_hold_it_and_workers_are_put_back() -> Result<()> {
    e2e::test("probe-role", async |ctx| {
        let path = hostfile::folder(&ctx).await?;
        let before = Trees::of(ctx.nodes()).await?;
        // The API server listens on masters only, the kubelet everywhere.
        let probes = json!([
            {"unit": "kubelet.service"},
            {"tcp": {"port": 10250}},
            {"tcp": {"port": 6443}, "timeoutSeconds": 2},
        ]);
        let draft = Draft::new(&ctx.name, role(Role::All)).file(&path, "wanted\n");
        let draft = draft.block("probes", &probes);
        draft.apply(&ctx).await?;
        let masters = u32::try_from(ctx.masters().len())?;
        let workers = u32::try_from(ctx.workers().len())?;
        let status = status::reach(&ctx, &ctx.name, "to be held", TRIED, |status| {
            status.state == Some(State::Held)
                && (status.applied, status.failed) == (masters, workers)
        })
        .await?;
        for node in ctx.workers() {
            let words = [
                ":6443 does not hold within 2 s: nobody listens there",
                "is put back",
            ];
            ensure!(
                status::says(&status, &node.name, State::Held, &words),
                "{status:?}"
            );
        }
        before.unchanged(&ctx.workers()).await?;
        before.changed_only(&ctx.masters(), &[&path]).await?;

        // kube-proxy answers on every node: workers have it too.
        let healthy = json!([{"http": {"port": 10256, "path": "/healthz"}}]);
        let draft = draft.block("probes", &healthy);
        draft.settle(&ctx, ctx.nodes()).await?;
        before.changed_only(ctx.nodes(), &[&path]).await?;
        draft.delete(&ctx).await?;
        before.unchanged(ctx.nodes()).await
    })
    .await
}
