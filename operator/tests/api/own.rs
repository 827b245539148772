//! The operator's own writes: nothing is planned from before them.

use serde_json::{Value, json};

use super::cluster::{Cluster, SOON};
use super::script::Verb;

#[tokio::test]
async fn nothing_is_planned_before_the_cache_shows_them() {
    let (cluster, node, operator) = Cluster::running("own").await;
    // The next write of it is not seen for a while.
    cluster
        .server
        .change(|state| state.script.hold("nodestates"));
    let writes = cluster.asked(Verb::Patch, "nodestates").len();
    let reads = cluster.asked(Verb::Get, "nodestates").len();
    cluster.config("b", &json!({}));
    cluster
        .until(&operator, SOON, || {
            let now = cluster.asked(Verb::Patch, "nodestates").len();
            (now > writes)
                .then_some(())
                .ok_or("b is not planned".to_owned())
        })
        .await;
    // Whatever happens meanwhile: no pass is made. When it takes too long the operator asks whether
    // there is anything to wait for.
    cluster.config("c", &json!({}));
    cluster
        .until(&operator, SOON, || {
            let c = cluster.get("nodeconfigs", "c");
            assert!(c["status"].is_null(), "a pass was made: {c:#}");
            let now = cluster.asked(Verb::Get, "nodestates").len();
            (now > reads + 1)
                .then_some(())
                .ok_or("nobody asks".to_owned())
        })
        .await;
    assert_eq!(cluster.asked(Verb::Patch, "nodestates").len(), writes + 1);
    cluster
        .server
        .change(|state| state.script.speak("nodestates"));
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b", "c"])
        .await;
    cluster.has_kept_everything(&[&node]);
}

/// It is made and gone again before the cache has heard of it: there is nothing to wait for.
#[tokio::test]
async fn what_is_gone_again_is_not_waited_for() {
    let cluster = Cluster::new("own-gone").await;
    let node = cluster.node("w").await;
    let operator = cluster.operator("one");
    cluster.settled(&operator, &[("w", &node)], &[]).await;
    cluster.delete("nodes", "w");
    cluster.config("a", &json!({}));
    let a = ("nodeconfigs", "a");
    cluster.says(&operator, a, "NoNodes", |_| {}).await;
    cluster.delete("nodestates", "w");
    // Who knows of this one knows that the other one is gone.
    cluster.register("v");
    let v = ("nodestates", "v");
    cluster.says(&operator, v, "NoAgent", |_| {}).await;
    cluster
        .server
        .change(|state| state.script.hold("nodestates"));
    cluster.register("w");
    let made = cluster.made_anew(&operator, "w", &Value::Null).await;
    cluster.delete("nodestates", "w");
    // A list that is made now has nothing to say of it.
    cluster.relist("nodestates");
    cluster
        .server
        .change(|state| state.script.speak("nodestates"));
    cluster.made_anew(&operator, "w", &made).await;
}
