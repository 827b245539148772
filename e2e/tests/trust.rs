//! Nobody but the operator tells an agent anything, and an agent can do nothing in the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{self, AGENT_SECRET, Caller, Credentials, Line, OPERATOR_SECRET};
use e2e::install::NAMESPACE;
use e2e::{Context, Node, Trees};
use edict_core::config::files::{File, Files};
use edict_core::config::{Config, Docker};
use edict_core::content::Contents;
use edict_core::digest;
use edict_core::guard::Policy;
use edict_core::layer::{DeletionPolicy, Layer, Restarts};
use edict_core::wire::{self, AGENT_NAME, OPERATOR_NAME, Push};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// The Secret with the CA.
const AUTHORITY_SECRET: &str = "edict-ca";
/// A server that says no to plain text does so at once.
const PLAIN: Duration = Duration::from_secs(20);

/// A push that would write on `node`, were it believed.
fn push(node: &str) -> Push {
    let config = Config {
        docker: Some(Docker {
            registry_mirrors: Some(vec!["https://trust.example.com".to_owned()]),
            insecure_registries: None,
            ..Docker::default()
        }),
        files: Some(Files(vec![File {
            path: "/etc/edict/trust/pushed".to_owned(),
            content: Some("pushed\n".to_owned()),
            content_from: None,
            mode: None,
            owner: None,
            notify: None,
        }])),
        ..Config::default()
    };
    let layer = Layer {
        uid: "00000000-0000-0000-0000-000000000000".to_owned(),
        name: "trust-pushed".to_owned(),
        priority: 0,
        created: Timestamp::UNIX_EPOCH,
        digest: digest::of(&config),
        deletion_policy: DeletionPolicy::Restore,
        restarts: Restarts::Allowed,
        drift: edict_core::layer::Drift::Correct,
        retry: None,
        facts: None,
        config,
        contents: Contents::default(),
    };
    Push::new(node.to_owned(), Policy::default(), vec![layer], Vec::new())
}

#[tokio::test]
async fn callers_that_are_not_the_operator_are_refused() -> Result<()> {
    e2e::test("trust-callers", async |ctx| {
        let node = worker(&ctx);
        let before = Trees::of(std::slice::from_ref(&node)).await?;
        greet(&ctx, &node).await?;
        for (who, tls) in callers(&ctx).await? {
            let alert = refused(&ctx, &node, tls)
                .await
                .with_context(|| format!("a caller {who} on {}", node.name))?;
            eprintln!("{who}: {alert}");
            before
                .unchanged(std::slice::from_ref(&node))
                .await
                .with_context(|| format!("after a caller {who}"))?;
        }
        greet(&ctx, &node).await
    })
    .await
}

/// Callers that an agent must not believe, and what each of them lacks.
async fn callers(ctx: &Context) -> Result<Vec<(&'static str, ClientConfig)>> {
    let operator = Credentials::of_secret(&ctx.client, OPERATOR_SECRET).await?;
    let agent = Credentials::of_secret(&ctx.client, AGENT_SECRET).await?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let ours = authority(ctx).await?;
    let foreign = foreign_authority()?;
    let of = |issuer: &Issuer<'_, KeyPair>, name: &str, usage| {
        issue(issuer, name, usage, false, &operator.authority)
    };
    let hours_ago = issue(
        &ours,
        OPERATOR_NAME,
        client.clone(),
        true,
        &operator.authority,
    )?;
    Ok(vec![
        ("without a certificate", operator.hidden()?),
        (
            "of a foreign CA",
            of(&foreign, OPERATOR_NAME, client.clone())?.shown(&TLS13)?,
        ),
        ("with the agents' own certificate", agent.shown(&TLS13)?),
        (
            "of the CA with another name",
            of(&ours, AGENT_NAME, client)?.shown(&TLS13)?,
        ),
        (
            "of the CA with a server's certificate",
            of(&ours, OPERATOR_NAME, ExtendedKeyUsagePurpose::ServerAuth)?.shown(&TLS13)?,
        ),
        ("whose certificate has ended", hours_ago.shown(&TLS13)?),
        ("over TLS 1.2", operator.shown(&TLS12)?),
    ])
}

/// A push of this caller comes to nothing before it is read; gives what it was told.
async fn refused(ctx: &Context, node: &Node, tls: ClientConfig) -> Result<String> {
    let call = async {
        let mut caller = Caller::connect(&ctx.client, &node.name, tls).await?;
        caller.push(&push(&node.name)).await
    };
    let told = match call.await {
        Ok(answer) => anyhow::bail!("it was listened to: {answer:?}"),
        Err(error) => format!("{error:#}"),
    };
    // Any other error may be one of the way there.
    ensure!(told.contains("received fatal alert"), "{told}");
    Ok(told)
}

#[tokio::test]
async fn plain_http_is_refused() -> Result<()> {
    e2e::test("trust-plain", async |ctx| {
        let node = worker(&ctx);
        let before = Trees::of(std::slice::from_ref(&node)).await?;
        let body = serde_json::to_string(&push(&node.name))?;
        let requests = [
            format!("GET {} HTTP/1.1\r\nHost: {AGENT_NAME}\r\n\r\n", wire::HELLO),
            format!(
                "POST {} HTTP/1.1\r\nHost: {AGENT_NAME}\r\nContent-Length: {}\r\n\r\n{body}",
                wire::PUSH,
                body.len()
            ),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ];
        for request in requests {
            let mut line = Line::to(&ctx.client, &node.name).await?;
            let mut stream = line.stream()?;
            // The agent may hang up before it has heard all of it.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let read = timeout(PLAIN, stream.read_to_end(&mut answer)).await;
            read.context("the agent keeps the line open")??;
            // An alert of TLS at most (RFC 8446, section 5.1: type 21).
            ensure!(
                answer.first().is_none_or(|kind| *kind == 21) && answer.len() < 16,
                "answered with {}",
                String::from_utf8_lossy(&answer)
            );
        }
        before.unchanged(std::slice::from_ref(&node)).await?;
        greet(&ctx, &node).await
    })
    .await
}

#[tokio::test]
async fn a_push_that_is_not_meant_or_not_whole_is_refused() -> Result<()> {
    e2e::test("trust-push", async |ctx| {
        let node = worker(&ctx);
        let nodes = std::slice::from_ref(&node);
        let before = Trees::of(nodes).await?;
        let other = ctx.masters().remove(0).name;
        let mut newer = push(&node.name);
        newer.wire = wire::VERSION + 1;
        let mut altered = push(&node.name);
        altered.layers[0].config.docker = None;
        let mut unknown = serde_json::to_value(push(&node.name))?;
        unknown["layers"][0]["config"]["shell"] = serde_json::json!("reboot");
        let pushes = [
            ("WrongNode", serde_json::to_vec(&push(&other))?, &*other),
            ("WireVersion", serde_json::to_vec(&newer)?, "wire version"),
            ("Digest", serde_json::to_vec(&altered)?, "digest"),
            // As an operator from before there were fences would push.
            (
                wire::FENCED,
                serde_json::to_vec(&push(&node.name))?,
                "leads since",
            ),
            ("BadMessage", unknown.to_string().into(), "config.shell"),
            ("BadMessage", b"{}{}".to_vec(), "missing field"),
        ];
        let mut caller = Caller::operator(&ctx.client, &node.name).await?;
        for (reason, bytes, word) in pushes {
            let refusal = match caller.push_bytes(bytes).await? {
                Ok(report) => anyhow::bail!("{reason}: it was taken: {report:?}"),
                Err(refusal) => refusal,
            };
            ensure!(
                refusal.reason == reason && refusal.message.contains(word),
                "{reason} was expected: {refusal}"
            );
        }
        before.unchanged(nodes).await?;
        greet(&ctx, &node).await
    })
    .await
}

/// The control: the same way is open to the operator.
async fn greet(ctx: &Context, node: &Node) -> Result<()> {
    let mut caller = Caller::operator(&ctx.client, &node.name).await?;
    let hello = caller.hello().await?;
    ensure!(hello.node == node.name, "{hello:?}");
    ensure!(hello.wire == wire::VERSION, "{hello:?}");
    ensure!(
        !hello.layers.iter().any(|held| held.name == "trust-pushed"),
        "{hello:?}"
    );
    Ok(())
}

fn worker(ctx: &Context) -> Node {
    ctx.workers().remove(0)
}

/// The installation's own CA: what only whoever reads its Secret can make.
async fn authority(ctx: &Context) -> Result<Issuer<'static, KeyPair>> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), NAMESPACE);
    let data = api.get(AUTHORITY_SECRET).await?.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data
            .get(key)
            .with_context(|| format!("the CA lacks {key}"))?;
        anyhow::Ok(std::str::from_utf8(&bytes.0)?.to_owned())
    };
    let key = KeyPair::from_pem(&text("tls.key")?)?;
    Ok(Issuer::from_ca_cert_pem(&text("tls.crt")?, key)?)
}

fn foreign_authority() -> Result<Issuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // The same name as ours has: it is the key that counts.
    let name = rcgen::DnType::CommonName;
    parameters.distinguished_name.push(name, "edict");
    Ok(Issuer::new(parameters, KeyPair::generate()?))
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    ended: bool,
    meets: &str,
) -> Result<Credentials> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
    parameters.extended_key_usages = vec![usage];
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let year = if ended { 2021 } else { 2099 };
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    Ok(Credentials {
        authority: meets.to_owned(),
        certificate: parameters.signed_by(&key, issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

#[tokio::test]
async fn an_agent_is_given_nothing_but_etc_and_systemds_socket() -> Result<()> {
    e2e::test("trust-pod", async |ctx| {
        for node in ctx.nodes() {
            let pod = agent::pod(&ctx.client, &node.name).await?;
            let pod = serde_json::to_value(&pod.spec)?;
            for absent in ["hostNetwork", "hostPID", "hostIPC"] {
                ensure!(pod[absent] != true, "{absent} on {}", node.name);
            }
            let volumes = pod["volumes"].as_array().context("it has volumes")?;
            let tokens = volumes.iter().any(|volume| {
                volume["projected"]["sources"]
                    .as_array()
                    .is_some_and(|sources| {
                        sources
                            .iter()
                            .any(|one| one["serviceAccountToken"].is_object())
                    })
            });
            ensure!(!tokens, "an API token is mounted: {volumes:?}");
            let folders: BTreeSet<_> = volumes
                .iter()
                .filter_map(|volume| volume["hostPath"]["path"].as_str())
                .collect();
            let wanted = ["/etc", "/var/lib/edict", "/run/systemd"].into();
            ensure!(folders == wanted, "{folders:?}");
            let containers = pod["containers"].as_array().context("it has containers")?;
            ensure!(containers.len() == 1, "{containers:?}");
            let mounts = containers[0]["volumeMounts"].as_array();
            let mut systemd = mounts.into_iter().flatten();
            let systemd = systemd.find(|mount| mount["mountPath"] == "/run/systemd");
            ensure!(
                systemd.is_some_and(|mount| mount["readOnly"] == true),
                "{mounts:?}"
            );
            let mounts = containers[0]["volumeMounts"].to_string();
            ensure!(!mounts.contains("serviceaccount"), "{mounts}");
            let rights = &containers[0]["securityContext"];
            ensure!(
                rights["privileged"] != true
                    && rights["allowPrivilegeEscalation"] == false
                    && rights["readOnlyRootFilesystem"] == true,
                "{rights}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agents_process_has_few_rights() -> Result<()> {
    e2e::test("trust-process", async |ctx| {
        for node in ctx.nodes() {
            let id = node.run(&["pgrep", "--exact", "edict-agent"]).await?;
            let id = id.trim();
            let status = node.run(&["cat", &format!("/proc/{id}/status")]).await?;
            let field = |name: &str| {
                let mut lines = status.lines();
                let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                value.map(str::trim).unwrap_or_default()
            };
            // CHOWN, DAC_OVERRIDE and FOWNER: bits 0, 1 and 3 (capabilities(7)).
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                ensure!(field(set) == "000000000000000b", "{set} {}", field(set));
            }
            ensure!(field("NoNewPrivs") == "1", "{status}");
            ensure!(field("Seccomp") == "2", "{status}");
            for space in ["net", "pid", "ipc", "mnt", "uts"] {
                let of = async |id: &str| {
                    node.run(&["readlink", &format!("/proc/{id}/ns/{space}")])
                        .await
                };
                let (agents, hosts) = (of(id).await?, of("1").await?);
                ensure!(agents != hosts, "{space} is the host's on {}", node.name);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agents_account_may_do_nothing() -> Result<()> {
    e2e::test("trust-account", async |ctx| {
        let account = format!("--as=system:serviceaccount:{NAMESPACE}:edict-agent");
        let may = async |verb: &str, what: &str| {
            let asked = ctx.kubectl().args(["auth", "can-i", verb, what, &account]);
            anyhow::Ok(asked.args(["-n", NAMESPACE]).output().await?)
        };
        for (verb, what) in [
            ("create", "nodeconfigs.edict.dev"),
            ("patch", "nodeconfigs.edict.dev"),
            ("delete", "nodeconfigs.edict.dev"),
            ("patch", "nodestates.edict.dev"),
            ("patch", "fleets.edict.dev"),
            ("get", "nodeconfigs.edict.dev"),
            ("get", "secrets"),
            ("get", "pods"),
            ("list", "nodes"),
        ] {
            let answer = may(verb, what).await?;
            let said = answer.text();
            ensure!(said.trim() == "no", "{verb} {what}: {said} {}", answer.stderr);
        }
        let manifest = r#"{"apiVersion": "edict.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "trust-account"},
            "spec": {"target": {"role": "All"}, "files": [{"path": "/etc/motd", "content": "x"}]}}"#;
        let create = ctx.kubectl().args(["create", &account, "-f", "-"]);
        let created = create.stdin(manifest).output().await?;
        ensure!(
            !created.success() && created.stderr.contains("is forbidden"),
            "{}",
            created.stderr
        );
        Ok(())
    })
    .await
}
