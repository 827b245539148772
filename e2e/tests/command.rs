//! Commands of the Fleet's catalogue: run by systemd, once for each revision, with their limits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host::manifest;
use e2e::nodeconfig::{event, named, role};
use e2e::settings::Settings;
use e2e::wait::{self, Seen};
use e2e::{Context, Draft, Host, Node, agent, fault, status};
use edict_core::wire::CommandOutcome;
use edict_crds::nodeconfig::State;
use edict_crds::nodestate::CommandStatus;
use edict_crds::{Fleet, NodeConfigStatus, NodeState, Role, Target};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::{Value, json};

/// Commands are run at once, one after the other; a busy machine gets time.
const ENDED: Duration = Duration::from_mins(2);

/// How long a node takes that starts anew, until its agent answers.
const BACK: Duration = Duration::from_mins(3);
/// How long a command may be on its way.
const LONG: Duration = Duration::from_mins(1);
/// Where one leaves a trace of each run.
const TRACES: &str = "/root/traces";

fn fleet() -> Value {
    let text = json!([{"name": "text", "pattern": "(?s).*"}]);
    json!({
        "apiVersion": "edict.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "default"},
        "spec": {"commands": [
            {"name": "echo", "argv": ["/usr/bin/echo", "$$(id) %n $HOME ${PATH} \\n", "$(text)"], "parameters": text},
            {"name": "trace", "argv": ["/usr/bin/mktemp", "--tmpdir=/root/traces"]},
            {"name": "sleep", "argv": ["/usr/bin/sleep", "$(seconds)"], "timeoutSeconds": 2, "parameters": [
                {"name": "seconds", "enum": ["0.5", "60"]},
            ]},
            {"name": "nap", "argv": ["/usr/bin/sleep", "3"]},
            {"name": "false", "argv": ["/usr/bin/false"]},
            {"name": "absent", "argv": ["/usr/bin/no-such-program"]},
            {"name": "numbers", "argv": ["/usr/bin/seq", "100000"], "outputKiB": 1},
            // It reads all of it before it says the last line.
            {"name": "greedy", "argv": ["/usr/bin/tail", "--bytes=100M", "/dev/zero"], "memoryMiB": 8},
            {"name": "tasks", "argv": ["/usr/bin/sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait"], "tasks": 2},
        ]},
    })
}

fn runs(name: &str, commands: &Value) -> Value {
    manifest(name, &json!({"commands": commands}))
}

/// What `status` says of commands, as a program reads it.
async fn commands(host: &Host) -> Result<Vec<Value>> {
    let argv = [
        e2e::host::AGENT,
        "status",
        "--root",
        "/",
        "--output",
        "json",
    ];
    let said = host.node().exec(&argv).await?.text();
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    Ok(said["commands"].as_array().cloned().unwrap_or_default())
}

async fn traces(node: &Node) -> Result<usize> {
    Ok(node.run(&["ls", TRACES]).await?.lines().count())
}

#[tokio::test]
async fn each_has_its_arguments_and_its_limits() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    host.node().run(&["mkdir", TRACES]).await?;
    for (name, command, expected) in [
        (
            "echo",
            json!({"run": "echo", "with": {"text": "é=1"}}),
            // As they were written, by whomever.
            "echo: echo: Succeeded\n  | $(id) %n $HOME ${PATH} \\n é=1\n",
        ),
        (
            "sleep",
            json!({"run": "sleep", "with": {"seconds": "0.5"}}),
            "sleep: sleep: Succeeded\n",
        ),
        (
            "timeout",
            json!({"run": "sleep", "with": {"seconds": "60"}}),
            "timeout: sleep: TimedOut: it took longer than the 2 s that it may, and was ended\n",
        ),
        (
            "false",
            json!({"run": "false"}),
            "false: false: Failed: it ended with exit code 1\n",
        ),
        (
            "absent",
            json!({"run": "absent"}),
            "absent: absent: Failed: systemd can't execute /usr/bin/no-such-program: is it on this node, and a program?\n",
        ),
        (
            "greedy",
            json!({"run": "greedy"}),
            // And another sentence where systemd is told that it was the memory.
            "memory than it may have",
        ),
    ] {
        let (code, said) = host
            .edict("apply", &[fleet(), runs(name, &json!([command]))])
            .await?;
        ensure!(said.contains(expected), "{said}");
        let well = i32::from(!expected.contains("Succeeded"));
        ensure!(code == well, "{code}: {said}");
    }
    let (_, said) = host
        .edict(
            "apply",
            &[fleet(), runs("tasks", &json!([{"run": "tasks"}]))],
        )
        .await?;
    ensure!(said.contains("fork"), "{said}");
    let numbers = runs("numbers", &json!([{"run": "numbers"}]));
    host.edict("apply", &[fleet(), numbers]).await?;
    let said = commands(&host).await?;
    let said = said.iter().find(|one| one["run"] == "numbers");
    let output = said.and_then(|one| one["output"].as_str());
    let output = output.context("nothing is said")?;
    let mark = "\n[… some of it is left out …]\n";
    ensure!(
        output.starts_with("1\n2\n3\n") && output.contains(mark),
        "{output}"
    );
    // The journal does not take all of it, and that is said too.
    ensure!(
        output.ends_with(" there may have been more …]\n"),
        "{output}"
    );
    ensure!(output.len() < 1024 + 64, "{output}");
    // Nothing of them is left in systemd.
    let units = [
        "systemctl",
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "edict-*",
    ];
    let units = host.node().run(&units).await?;
    ensure!(units.is_empty(), "{units}");
    Ok(())
}

#[tokio::test]
async fn each_is_run_once_whatever_becomes_of_the_agent() -> Result<()> {
    let host = Host::with_agent(&Settings::read()?, &[]).await?;
    let node = host.node();
    node.run(&["mkdir", TRACES]).await?;
    let both = runs(
        "both",
        &json!([{"run": "trace"}, {"run": "nap"}, {"run": "trace"}]),
    );
    let plan = host.edict("plan", &[fleet(), both.clone()]).await?;
    let expected = "both: would run trace: /usr/bin/mktemp --tmpdir=/root/traces\n";
    ensure!(plan.0 == 3 && plan.1.contains(expected), "{plan:?}");
    ensure!(traces(node).await? == 0, "a plan runs something");

    // Killed while a command runs.
    let documents = [fleet().to_string(), both.to_string()].join("\n---\n");
    let file = "/run/both.yaml";
    node.write(file, documents.as_bytes(), 0o600, 0, 0).await?;
    let agent = e2e::host::AGENT;
    node.shell(&format!(
        "{agent} apply --root / {file} >/run/said 2>&1 & echo $! >/run/pid"
    ))
    .await?;
    wait::until("the command to run", LONG, async || {
        let found = node.exec(&["pgrep", "--exact", "sleep"]).await?;
        Ok(Seen::when(found.success(), found.text()))
    })
    .await?;
    node.shell("kill -KILL $(cat /run/pid)").await?;
    let said = commands(&host).await?;
    ensure!(
        said[0]["outcome"] == "Succeeded" && said[1]["outcome"] == "Running",
        "{said:?}"
    );
    // Another one waits for it, and goes on.
    let (code, said) = host.edict("apply", &[fleet(), both.clone()]).await?;
    ensure!(code == 0, "{code}: {said}");
    let said = commands(&host).await?;
    ensure!(
        said.iter().all(|one| one["outcome"] == "Succeeded"),
        "{said:?}"
    );
    ensure!(traces(node).await? == 2, "{said:?}");
    let took = said[1]["milliseconds"].as_u64().unwrap_or_default();
    ensure!((2900..60_000).contains(&took), "{said:?}");

    // Not once more, unless it is another revision.
    let (code, said) = host.edict("apply", &[fleet(), both]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(traces(node).await? == 2, "{said}");
    let again = runs("both", &json!([{"run": "trace", "again": "2026-11-22"}]));
    let (code, said) = host.edict("apply", &[fleet(), again]).await?;
    ensure!(code == 0, "{code}: {said}");
    ensure!(traces(node).await? == 3, "{said}");

    // What is wrong is said before anything is run.
    for (commands, expected) in [
        (
            json!([{"run": "trace"}, {"run": "nothing"}]),
            "commands[1].run: \"nothing\" is refused by rule command:",
        ),
        (
            json!([{"run": "trace"}, {"run": "sleep"}]),
            "commands[1].with: \"seconds: missing\" is refused by rule command-parameter:",
        ),
        (
            json!([{"run": "trace"}, {"run": "trace", "with": {"a": "b"}}]),
            "commands[1].with: \"a: too much\" is refused by rule command-parameter:",
        ),
        (
            json!([{"run": "trace"}, {"run": "sleep", "with": {"seconds": "61"}}]),
            "commands[1].with.seconds: \"61\" is refused by rule command-value:",
        ),
        (
            json!([{"run": "trace"}, {"run": "echo", "with": {"text": "$(id)"}}]),
            "is refused by rule substitution:",
        ),
    ] {
        let (code, said) = host
            .edict("apply", &[fleet(), runs("bad", &commands)])
            .await?;
        ensure!(code == 1 && said.contains(expected), "{code}: {said}");
        ensure!(traces(node).await? == 3, "{said}");
    }
    Ok(())
}

/// What became of the commands of a NodeConfig, on each of these nodes.
async fn statuses(
    ctx: &Context,
    nodes: &[Node],
    name: &str,
) -> Result<BTreeMap<String, Vec<CommandStatus>>> {
    let states: Api<NodeState> = Api::all(ctx.client.clone());
    let mut all = BTreeMap::new();
    for node in nodes {
        let status = states.get(&node.name).await?.status.unwrap_or_default();
        let own = status.commands.into_iter().filter(|one| one.owner == name);
        all.insert(node.name.clone(), own.collect());
    }
    Ok(all)
}

fn commands_of(name: &str, target: Target, commands: &Value) -> Draft {
    Draft::new(name, target).block("commands", commands)
}

/// Applies it, and waits until it stands so.
async fn reaches(ctx: &Context, draft: &Draft, state: State) -> Result<NodeConfigStatus> {
    draft.apply(ctx).await?;
    let what = format!("to be {state:?}");
    status::reach(ctx, draft.name(), &what, ENDED, |status| {
        status.state == Some(state)
    })
    .await
}

/// The catalogue is that of `fixtures/fleet.yaml`.
#[tokio::test]
async fn masters_and_workers_run_what_the_fleet_ships() -> Result<()> {
    e2e::test("command", async |ctx| {
        let (masters, workers) = (ctx.masters(), ctx.workers());
        let since = Timestamp::now();
        let reports = commands_of(
            "command-masters",
            role(Role::Master),
            &json!([{"run": "node-report"}, {"run": "vacuum-journal", "with": {"size": "200"}}]),
        );
        let status = reaches(&ctx, &reports, State::Applied).await?;
        ensure!(status.applied == 3, "{status:?}");
        for (node, said) in statuses(&ctx, &masters, reports.name()).await? {
            ensure!(said.len() == 2, "{node}: {said:?}");
            let well = said.iter().all(|one| {
                one.outcome == CommandOutcome::Succeeded
                    && one.exit_code == Some(0)
                    && one.started.is_some()
                    && one.milliseconds.is_some()
            });
            ensure!(well, "{node}: {said:?}");
            // Each its own.
            ensure!(said[0].output.contains("kubelet.service"), "{node}: {said:?}");
            let host = said[0].output.lines().next().unwrap_or_default();
            ensure!(host.ends_with(&node), "{node}: {said:?}");
            ensure!(said[1].output.contains("Vacuuming done"), "{node}: {said:?}");
        }
        let elsewhere = statuses(&ctx, &workers, reports.name()).await?;
        ensure!(elsewhere.values().all(Vec::is_empty), "{elsewhere:?}");
        let said = ["command vacuum-journal of NodeConfig command-masters: Succeeded"];
        event(&ctx, since, &masters[0].name, "CommandSucceeded", &said).await?;

        // The kubelet of each worker is another process afterwards, once.
        let mut before = Vec::new();
        for worker in &workers {
            before.push(worker.process("kubelet.service").await?);
        }
        let restart = commands_of(
            "command-workers",
            role(Role::Worker),
            &json!([{"run": "restart-unit", "with": {"unit": "kubelet.service"}}]),
        );
        reaches(&ctx, &restart, State::Applied).await?;
        let mut after = Vec::new();
        for (worker, before) in workers.iter().zip(&before) {
            let pid = worker.process("kubelet.service").await?;
            ensure!(pid != *before, "{}: {pid}", worker.name);
            after.push(pid);
        }
        ctx.ready(&workers).await?;
        // Neither another agent nor anything that is no other revision runs it again.
        let mut lower = restart.clone();
        lower.0.spec.priority = Some(-1);
        reaches(&ctx, &lower, State::Applied).await?;
        restart_agents(&ctx, &workers).await?;
        for (worker, after) in workers.iter().zip(&after) {
            let pid = worker.process("kubelet.service").await?;
            ensure!(pid == *after, "{}: {pid}", worker.name);
        }

        // There is no crictl on every node.
        let prune = commands_of("command-prune", named(&workers[..1]), &json!([{"run": "prune-images"}]));
        let has = workers[0].exec(&["test", "-x", "/usr/bin/crictl"]).await?.success();
        if has {
            reaches(&ctx, &prune, State::Applied).await?;
        } else {
            let status = reaches(&ctx, &prune, State::CommandFailed).await?;
            let why = "command prune-images: systemd can't execute /usr/bin/crictl: is it on this node, and a program?";
            ensure!(status.message.contains(why) && status.failed == 1, "{status:?}");
        }

        let bad = commands_of(
            "command-bad",
            role(Role::All),
            &json!([{"run": "restart-unit", "with": {"unit": "sshd.service"}}, {"run": "reboot"}]),
        );
        let status = reaches(&ctx, &bad, State::Refused).await?;
        for part in [
            "spec.commands[0].with.unit: \"sshd.service\" is refused by rule command-value:",
            "spec.commands[1].run: \"reboot\" is refused by rule command:",
        ] {
            ensure!(status.message.contains(part), "{status:?}");
        }
        Ok(())
    })
    .await
}

/// Has the agents of these nodes replaced, and waits until the new ones answer.
async fn restart_agents(ctx: &Context, nodes: &[Node]) -> Result<()> {
    for node in nodes {
        agent::replace(&ctx.client, &node.name).await?;
    }
    ctx.ready(nodes).await
}

/// Runs `body` while the catalogue has these as well.
async fn with_catalogue(
    ctx: &Context,
    more: &[Value],
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let fleet = ["get", "fleet", "default", "-o", "jsonpath={.spec.commands}"];
    let before: Vec<Value> = serde_json::from_str(&ctx.kubectl().args(fleet).text().await?)?;
    set_catalogue(ctx, &json!([&before[..], more].concat())).await?;
    let outcome = body().await;
    set_catalogue(ctx, &json!(before)).await?;
    outcome
}

async fn is_running(ctx: &Context, nodes: &[Node], draft: &Draft) -> Result<()> {
    wait::until("the command to run", LONG, async || {
        let said = statuses(ctx, nodes, draft.name()).await?;
        let mut all = said.values().flatten();
        let running = all.any(|one| one.outcome == CommandOutcome::Running);
        Ok(Seen::when(running, said))
    })
    .await
}

/// The agent goes while a command runs, and the next one finds how it ended.
#[tokio::test]
async fn an_agent_that_is_replaced_finds_the_result() -> Result<()> {
    e2e::test("command-agent", async |ctx| {
        let worker = &ctx.workers()[..1];
        let nap = json!({"name": "nap", "argv": ["/usr/bin/sleep", "25"]});
        let broken = json!({"name": "broken", "argv": ["/usr/bin/true", "$(absent)"]});
        with_catalogue(&ctx, &[nap, broken], async || {
            let nap = commands_of("command-nap", named(worker), &json!([{"run": "nap"}, {"run": "node-report"}]));
            nap.apply(&ctx).await?;
            is_running(&ctx, worker, &nap).await?;
            restart_agents(&ctx, worker).await?;
            reaches(&ctx, &nap, State::Applied).await?;
            let said = statuses(&ctx, worker, nap.name()).await?;
            let all: Vec<_> = said.values().flatten().collect();
            let took = all.first().and_then(|one| one.milliseconds).unwrap_or_default();
            ensure!(all.len() == 2 && (24_900..60_000).contains(&took), "{said:?}");

            // What the administrator got wrong is said to him, and to whoever uses it.
            let fleets: Api<Fleet> = Api::all(ctx.client.clone());
            wait::until("the Fleet to say what is wrong", LONG, async || {
                let status = fleets.get("default").await?.status.unwrap_or_default();
                let message = status.conditions.first().map(|one| one.message.clone()).unwrap_or_default();
                let expected = "spec.commands[5].argv[1]: \"$(absent): no such parameter\" is refused by rule catalogue:";
                Ok(Seen::when(message.contains(expected), message))
            })
            .await?;
            let broken = commands_of("command-broken", named(worker), &json!([{"run": "broken"}]));
            let status = reaches(&ctx, &broken, State::Refused).await?;
            ensure!(status.message.contains("spec.commands[0].run: \"broken\" is refused by rule catalogue:"), "{status:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// The node starts anew while a command runs: nobody knows how far it came, so it is not run again, nor what is
/// behind it.
#[tokio::test]
async fn a_node_that_starts_anew_says_what_was_interrupted() -> Result<()> {
    e2e::test("command-off", async |ctx| {
        let worker = &ctx.workers()[..1];
        let long =
            json!({"name": "long", "argv": ["/usr/bin/sleep", "300"], "timeoutSeconds": 300});
        with_catalogue(&ctx, &[long], async || {
            let long = commands_of(
                "command-long",
                named(worker),
                &json!([{"run": "long"}, {"run": "node-report"}]),
            );
            long.apply(&ctx).await?;
            is_running(&ctx, worker, &long).await?;
            worker[0].kill().await?;
            worker[0].start().await?;
            let interrupted = [CommandOutcome::Interrupted, CommandOutcome::Skipped];
            wait::until("the command to be interrupted", BACK, async || {
                let said = statuses(&ctx, worker, long.name()).await?;
                let found: Vec<_> = said.values().flatten().map(|one| one.outcome).collect();
                Ok(Seen::when(found == interrupted, said))
            })
            .await?;
            reaches(&ctx, &long, State::CommandFailed).await?;
            fault::whole(&ctx).await
        })
        .await
    })
    .await
}

async fn set_catalogue(ctx: &Context, commands: &Value) -> Result<()> {
    let patch = json!({"spec": {"commands": commands}}).to_string();
    let patch = [
        "patch",
        "fleet",
        "default",
        "--type=merge",
        "--patch",
        &patch,
    ];
    ctx.kubectl().args(patch).text().await?;
    Ok(())
}
