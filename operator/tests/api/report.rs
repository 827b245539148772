//! What an agent has in force counts, and not only what it reported last.

use super::cluster::{Cluster, SOON};

/// It was ended by what it applied, before it could say so; and by then the change is taken back.
#[tokio::test]
async fn a_change_that_is_in_force_and_not_reported_is_taken_back() {
    let (cluster, node, operator) = Cluster::running("report").await;
    let wanted = node.memory().held.clone();
    let before = node.memory().pushes.len();
    node.go_away().await;
    for held in node.memory().held.values_mut() {
        held.digest = "of what was wanted for a moment".to_owned();
    }
    node.come_back().await;
    cluster
        .until(&operator, SOON, || {
            let memory = node.memory();
            let pushes = memory.pushes.len() - before;
            (memory.held == wanted && pushes == 1)
                .then_some(())
                .ok_or(format!("{pushes} pushes, {:?}", memory.held))
        })
        .await;
}
