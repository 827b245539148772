//! The arrows between the crates: `core <- crds <- operator, e2e` and `core <- agent`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Who may use whom, of this repository.
const ARROWS: &[(&str, &[&str])] = &[
    ("edict-core", &[]),
    ("edict-crds", &["edict-core"]),
    ("edict-operator", &["edict-core", "edict-crds"]),
    ("edict-agent", &["edict-core"]),
    ("e2e", &["edict-core", "edict-crds"]),
    ("fuzz", &["edict-core"]),
];

/// What would let the pure crate reach a cluster, a network or a clock.
const IMPURE: &[&str] = &[
    "cap-std",
    "hyper",
    "k8s-openapi",
    "kube",
    "mio",
    "rustls",
    "tokio",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata reads this workspace")
}

#[test]
fn the_arrows_are_those_of_the_design() {
    let metadata = metadata();
    let members: BTreeSet<_> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, known, "say what a new crate may use");
    for package in metadata.workspace_packages() {
        // Tests and build scripts count too.
        let uses: BTreeSet<_> = package
            .dependencies
            .iter()
            .filter(|dependency| members.contains(&dependency.name))
            .map(|dependency| dependency.name.as_str())
            .collect();
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .expect("every member is known");
        let more: Vec<_> = uses.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(more.is_empty(), "{} uses {more:?}", package.name);
    }
}

#[test]
fn core_knows_neither_cluster_nor_network() {
    let metadata = metadata();
    let reached = reached_from(&metadata, "edict-core");
    assert!(
        reached.contains("serde"),
        "nothing is reached, so nothing is looked at"
    );
    let impure: Vec<_> = IMPURE
        .iter()
        .filter(|name| reached.contains(**name))
        .collect();
    assert!(impure.is_empty(), "core reaches {impure:?}");
}

#[test]
fn the_agent_knows_no_cluster() {
    let metadata = metadata();
    let reached = reached_from(&metadata, "edict-agent");
    for name in ["kube", "kube-client", "k8s-openapi", "edict-crds"] {
        assert!(!reached.contains(name), "the agent reaches {name}");
    }
    let operator = reached_from(&metadata, "edict-operator");
    assert!(
        !operator.contains("cap-std"),
        "only the agent touches a host"
    );
}

/// Every package that a member is built with, tests aside.
fn reached_from(metadata: &Metadata, member: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo resolves");
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut ahead: Vec<&PackageId> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| package.name.as_str() == member)
        .map(|package| &package.id)
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if !reached.insert(id) {
            continue;
        }
        ahead.extend(nodes[id].deps.iter().filter_map(|dependency| {
            let built = dependency
                .dep_kinds
                .iter()
                .any(|info| info.kind != DependencyKind::Development);
            built.then_some(&dependency.pkg)
        }));
    }
    reached
        .into_iter()
        .map(|id| metadata[id].name.to_string())
        .collect()
}
