//! Commands: an agent is told of those that it runs, and what became of them is said once.

use edict_core::layer::Layer;
use edict_core::wire::{CommandOutcome, CommandReport, Push};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, SOON};

fn report(layer: &Layer, index: u32, outcome: CommandOutcome, message: &str) -> CommandReport {
    CommandReport {
        uid: layer.uid.clone(),
        owner: layer.name.clone(),
        digest: layer.digest.clone(),
        index,
        run: "two".to_owned(),
        outcome,
        exit_code: None,
        started: Some(Timestamp::now()),
        milliseconds: Some(7),
        output: "https://user:password@host\n".to_owned(),
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn an_agent_is_told_until_it_knows_and_what_it_says_is_said_once() {
    let (cluster, node, operator) = Cluster::running("command").await;
    let command = |name: &str| json!({"name": name, "argv": [format!("/bin/{name}")]});
    let catalogue =
        json!([command("one"), command("two"), {"name": "broken", "argv": ["no path"]}]);
    cluster.edit(
        "fleets",
        "default",
        &json!({"spec": {"commands": catalogue}}),
    );
    cluster.config(
        "b",
        &json!({"spec": {"commands": [{"run": "two"}, {"run": "two"}]}}),
    );
    let b = ("nodeconfigs", "b");
    cluster.says(&operator, b, "Progressing", |_| {}).await;
    let pushes = || {
        let memory = node.memory();
        let of = |push: &&Push| push.layers.iter().any(|layer| layer.name == "b");
        memory.pushes.iter().filter(of).cloned().collect::<Vec<_>>()
    };
    // As long as it knows nothing of them, it is told again.
    let told = cluster
        .until(&operator, SOON, || {
            let pushes = pushes();
            let enough = pushes.len() > 1;
            enough.then_some(pushes).ok_or("told once".to_owned())
        })
        .await;
    let names = |push: &Push| -> Vec<_> {
        let commands = push.policy.commands.iter();
        commands.map(|command| command.name.clone()).collect()
    };
    assert!(told.iter().all(|push| names(push) == ["two"]));
    // Who runs none is told of none.
    let others = node.memory().pushes.clone();
    let mut others = others
        .iter()
        .filter(|push| push.layers.iter().all(|layer| layer.name != "b"));
    assert!(others.all(|push| push.policy.commands.is_empty()));

    let layer = told[0]
        .layers
        .iter()
        .find(|layer| layer.name == "b")
        .unwrap();
    let report = |index, outcome, message: &str| report(layer, index, outcome, message);
    node.ran(vec![
        report(0, CommandOutcome::Succeeded, ""),
        report(1, CommandOutcome::Running, ""),
    ]);
    let states = ("nodestates", "w");
    cluster
        .until(&operator, SOON, || {
            let status = cluster.get(states.0, states.1)["status"].clone();
            let there = status["commands"][1]["outcome"] == "Running";
            assert!(!status.to_string().contains("password"), "{status}");
            there.then_some(()).ok_or(format!("{status:#}"))
        })
        .await;
    let before = pushes().len();
    node.ran(vec![
        report(0, CommandOutcome::Succeeded, ""),
        report(1, CommandOutcome::Failed, "it ended with exit code 3"),
    ]);
    cluster.says(&operator, b, "CommandFailed", |_| {}).await;
    let message = cluster.get(b.0, b.1)["status"]["message"].clone();
    assert_eq!(message, "w: command two: it ended with exit code 3");
    // However often it is asked, it is not told again, and nothing is said twice.
    let hellos = node.memory().hellos;
    cluster
        .until(&operator, SOON, || {
            let ran = node.memory().commands.clone();
            node.ran(ran);
            let asked = node.memory().hellos - hellos;
            (asked > 2)
                .then_some(())
                .ok_or(format!("asked {asked} times"))
        })
        .await;
    assert_eq!(pushes().len(), before);
    let state = cluster.server.state();
    let all = state.store.history("events").into_iter();
    let mut said: Vec<_> = all
        .filter(|event| event["regarding"]["kind"] == "NodeState")
        .filter(|event| {
            event["reason"]
                .as_str()
                .is_some_and(|one| one.starts_with("Command"))
        })
        .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
        .collect();
    said.sort();
    assert_eq!(
        said,
        [
            "command two of NodeConfig b: Failed: it ended with exit code 3",
            "command two of NodeConfig b: Succeeded",
        ]
    );
}
