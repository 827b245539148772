//! What an agent has in force counts, and not only what it reported last.

use serde_json::json;

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

/// What it has done of a push that broke off may be more than which revisions are in force: who comes first is no
/// part of any.
#[tokio::test]
async fn a_push_that_nobody_heard_the_end_of_is_followed_by_another() {
    let (cluster, node, operator) = Cluster::running("unheard").await;
    let before = node.memory().pushes.len();
    let pushed = |want: &[i32]| {
        let memory = node.memory();
        let pushes = memory.pushes[before..].iter();
        let priorities: Vec<_> = pushes.map(|push| push.layers[0].priority).collect();
        (priorities == want)
            .then_some(())
            .ok_or(format!("{priorities:?}"))
    };
    let first = cluster.get("nodestates", "w")["spec"]["layers"][0]["priority"].clone();
    let first = i32::try_from(first.as_i64().unwrap()).unwrap();
    node.pause();
    cluster.edit("nodeconfigs", "a", &json!({"spec": {"priority": 7}}));
    cluster.until(&operator, SOON, || pushed(&[7])).await;
    cluster.edit("nodeconfigs", "a", &json!({"spec": {"priority": first}}));
    node.go_away().await;
    cluster
        .until(&operator, SOON, || {
            let now = &cluster.get("nodestates", "w")["spec"]["layers"][0]["priority"];
            (*now == first).then_some(()).ok_or(now.to_string())
        })
        .await;
    node.resume();
    node.come_back().await;
    cluster.until(&operator, SOON, || pushed(&[7, first])).await;
}
