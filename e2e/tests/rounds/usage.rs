//! What Edict uses: memory of its processes, objects in the API server, files on the nodes.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use e2e::Context;
use e2e::install::NAMESPACE;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;

/// On a node: resident memory of each of Edict's processes in KiB, then the files in its state folder.
const LOOK: &str = r#"
for name in edict-operator edict-agent; do
    for pid in $(pgrep -x $name); do
        echo "$name $(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$pid/status)"
    done
done
echo "files $(find /var/lib/edict -type f | wc -l)"
"#;

/// As it is at one time.
#[derive(Debug)]
pub struct Usage {
    /// Resident memory of each operator and each agent, in KiB.
    operators: Vec<u64>,
    agents: Vec<u64>,
    secrets: usize,
    revisions: usize,
    /// Files in each node's state folder.
    files: BTreeMap<String, u64>,
    pub events: usize,
}

impl Usage {
    /// As it is now.
    pub async fn of(ctx: &Context) -> Result<Self> {
        let all = ListParams::default();
        let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        let revisions: Api<ControllerRevision> = Api::namespaced(ctx.client.clone(), NAMESPACE);
        let events: Api<Event> = Api::all(ctx.client.clone());
        let of_edict =
            |event: &&Event| event.reporting_controller.as_deref() == Some("edict-operator");
        let mut usage = Self {
            operators: Vec::new(),
            agents: Vec::new(),
            secrets: secrets.list(&all).await?.items.len(),
            revisions: revisions.list(&all).await?.items.len(),
            files: BTreeMap::new(),
            events: events
                .list(&all)
                .await?
                .items
                .iter()
                .filter(of_edict)
                .count(),
        };
        let looks = ctx
            .nodes()
            .iter()
            .map(async |node| anyhow::Ok((&node.name, node.run(&["bash", "-c", LOOK]).await?)));
        for (node, said) in try_join_all(looks).await? {
            for line in said.lines() {
                let (what, number) = line
                    .split_once(' ')
                    .context("a line is a name and a number")?;
                // One that ended meanwhile has no memory.
                let Ok(number) = number.parse() else { continue };
                match what {
                    "edict-operator" => usage.operators.push(number),
                    "edict-agent" => usage.agents.push(number),
                    _ => _ = usage.files.insert(node.clone(), number),
                }
            }
        }
        ensure!(
            !usage.operators.is_empty() && !usage.agents.is_empty(),
            "no process of Edict is to be seen: {usage}"
        );
        Ok(usage)
    }

    /// Whether nothing is left of what was done since `before`.
    pub fn is_back_at(&self, before: &Self) -> bool {
        (self.secrets, self.revisions) == (before.secrets, before.revisions)
            && self.files == before.files
    }

    /// Holds when no process has grown to more than it needs at the beginning and half as much again.
    pub fn is_flat_since(&self, before: &Self) -> Result<()> {
        for (what, now, first) in [
            ("operator", &self.operators, &before.operators),
            ("agent", &self.agents, &before.agents),
        ] {
            let most = |all: &[u64]| all.iter().max().copied().unwrap_or_default();
            let (now, first) = (most(now), most(first));
            ensure!(
                2 * now <= 3 * first,
                "an {what} has {now} KiB of memory, where the most were {first} at first"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operators,
            agents,
            secrets,
            revisions,
            files,
            events,
        } = self;
        let files: Vec<_> = files.values().collect();
        write!(
            f,
            "operators {operators:?} KiB, agents {agents:?} KiB, {secrets} Secrets, {revisions} \
             ControllerRevisions, {events} Events, files in state folders {files:?}"
        )
    }
}
