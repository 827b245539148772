//! The evidence of a failure: what a person needs to see why, in one folder.
//!
//! Never fails itself. What could not be had is named in a file beside the rest.

use std::fs;
use std::path::Path;

use futures::future::join_all;

use crate::cluster::Cluster;
use crate::install::NAMESPACE;
use crate::process::Output;

/// What is asked of the API server: file, and kubectl's arguments.
const ASKED: [(&str, &[&str]); 12] = [
    ("nodeconfigs.yaml", &["get", "nodeconfigs", "-o", "yaml"]),
    ("nodestates.yaml", &["get", "nodestates", "-o", "yaml"]),
    ("fleets.yaml", &["get", "fleets", "-o", "yaml"]),
    (
        "revisions.yaml",
        &["get", "controllerrevisions", "-n", NAMESPACE, "-o", "yaml"],
    ),
    (
        "events.txt",
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
    ),
    ("nodes.txt", &["get", "nodes", "-o", "wide"]),
    ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
    ("pods-described.txt", &["describe", "pods", "-n", NAMESPACE]),
    (
        "operator.log",
        &logs("app.kubernetes.io/name=edict-operator", "--previous=false"),
    ),
    (
        "operator-previous.log",
        &logs("app.kubernetes.io/name=edict-operator", "--previous"),
    ),
    (
        "agents.log",
        &logs("app.kubernetes.io/name=edict-agent", "--previous=false"),
    ),
    (
        "agents-previous.log",
        &logs("app.kubernetes.io/name=edict-agent", "--previous"),
    ),
];

/// What is asked of each node.
const LOOKED_AT: [(&str, &[&str]); 3] = [
    ("journal.log", &["journalctl", "--no-pager", "-n", "500"]),
    (
        "etc.txt",
        &[
            "find",
            "/etc",
            "-xdev",
            "-newer",
            "/kind/version",
            "-printf",
            "%p %m %U:%G %s %l\\n",
        ],
    ),
    ("daemon.json", &["cat", "/etc/docker/daemon.json"]),
];

const fn logs(selector: &'static str, previous: &'static str) -> [&'static str; 9] {
    [
        "logs",
        "-n",
        NAMESPACE,
        "-l",
        selector,
        "--all-containers",
        "--tail=-1",
        "--prefix",
        previous,
    ]
}

/// Writes all of it into `folder`, in place of what was there.
pub async fn dump(cluster: &Cluster, folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    let asked = ASKED.iter().map(async |(file, args)| {
        let output = cluster.access.kubectl().args(*args).output().await;
        (folder.join(file), output)
    });
    let looked = cluster.nodes.iter().flat_map(|node| {
        LOOKED_AT.iter().map(async |(file, argv)| {
            let output = node.exec(argv).await;
            (folder.join(&node.name).join(file), output)
        })
    });
    let (asked, looked) = futures::join!(join_all(asked), join_all(looked));
    let mut missing = Vec::new();
    for (path, output) in asked.into_iter().chain(looked) {
        if let Err(problem) = keep(&path, output) {
            missing.push(format!("{}: {problem}", path.display()));
        }
    }
    if !missing.is_empty() {
        let _ = fs::create_dir_all(folder);
        let _ = fs::write(folder.join("missing.txt"), missing.join("\n"));
    }
}

fn keep(path: &Path, output: anyhow::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("{error:#}"))?;
    if !output.success() {
        return Err(output.stderr.trim().to_owned());
    }
    if output.stdout.is_empty() {
        return Ok(());
    }
    let folder = path.parent().ok_or("no folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, &output.stdout))
        .map_err(|error| error.to_string())
}
