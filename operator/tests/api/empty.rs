//! Lists that are empty though there is something: nothing is given back for that.

use futures::future::join_all;
use serde_json::json;

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::operator::Operator;
use super::script::{Fault, Verb};
use super::store::Scope;
use super::watches::WATCHED;

struct Case {
    cluster: Cluster,
    node: Agent,
    operator: Operator,
}

/// Two `NodeConfig`s of which one takes its content from elsewhere and one writes where only the
/// Fleet allows it.
async fn case(test: &str) -> Case {
    let cluster = Cluster::new(test).await;
    let node = cluster.node("w").await;
    let paths = json!({"spec": {"paths": {"allowed": ["/etc/more"]}}});
    cluster.edit("fleets", "default", &paths);
    cluster.create("configmaps", "words", json!({"data": {"motd": "hello"}}));
    cluster.create("secrets", "words", json!({"data": {"motd": "aGVsbG8="}}));
    let from = |kind: &str, path: &str| {
        let source = json!({kind: {"name": "words", "key": "motd"}});
        json!({"path": path, "content": null, "contentFrom": source})
    };
    let files = [
        from("configMapKeyRef", "/etc/edict/a"),
        from("secretKeyRef", "/etc/edict/b"),
    ];
    cluster.config("a", &json!({"spec": {"files": files}}));
    let files = json!([{"path": "/etc/more/b", "content": "b"}]);
    cluster.config("b", &json!({"spec": {"files": files}}));
    let operator = cluster.operator("one");
    cluster
        .settled(&operator, &[("w", &node)], &["a", "b"])
        .await;
    Case {
        cluster,
        node,
        operator,
    }
}

impl Case {
    /// The lists of these have come, with nothing in them; the operator decides something from what
    /// it believes, and then hears the truth.
    async fn lives_through(self, empty: &[&str], lists: usize) {
        let Self {
            cluster,
            node,
            operator,
        } = self;
        cluster
            .until(&operator, SOON, || {
                let told = empty
                    .iter()
                    .all(|one| cluster.asked(Verb::List, one).len() >= lists);
                told.then_some(())
                    .ok_or("not everything is listed".to_owned())
            })
            .await;
        cluster.config("c", &json!({}));
        // It says something of the new NodeConfig: it has planned.
        cluster
            .until(&operator, SOON, || {
                let state = cluster.get("nodeconfigs", "c")["status"]["state"].clone();
                (!state.is_null())
                    .then_some(())
                    .ok_or(format!("{empty:?}: c is {state}"))
            })
            .await;
        for resource in empty {
            cluster.relist(resource);
        }
        cluster.config("d", &json!({}));
        let all = ["a", "b", "c", "d"];
        cluster.settled(&operator, &[("w", &node)], &all).await;
        cluster.has_kept_everything(&[&node]);
    }
}

#[tokio::test]
async fn at_the_start_they_give_nothing_back() {
    let cases = WATCHED
        .map(|resource| vec![resource])
        .into_iter()
        .chain([WATCHED.to_vec()]);
    join_all(cases.map(async |empty| {
        let mut case = case(&format!("empty-start-{}", empty.join("-"))).await;
        case.operator.kill().await;
        for resource in &empty {
            case.cluster.fault(1, Verb::List, resource, Fault::Empty);
        }
        case.operator = case.cluster.operator("two");
        case.lives_through(&empty, 2).await;
    }))
    .await;
}

#[tokio::test]
async fn later_on_they_give_nothing_back() {
    let cases = WATCHED
        .map(|resource| vec![resource])
        .into_iter()
        .chain([WATCHED.to_vec()]);
    join_all(cases.map(async |empty| {
        let case = case(&format!("empty-later-{}", empty.join("-"))).await;
        for resource in &empty {
            case.cluster.fault(1, Verb::List, resource, Fault::Empty);
            case.cluster.relist(resource);
        }
        case.lives_through(&empty, 2).await;
    }))
    .await;
}

/// Their `NodeState` is gone as well, so that nothing names what the node has but the node.
#[tokio::test]
async fn without_a_node_state_they_give_nothing_back() {
    let Case {
        cluster,
        node,
        operator,
    } = case("empty-orphans").await;
    let reads = cluster.asked(Verb::Get, "nodeconfigs").len();
    cluster.fault(1, Verb::List, "nodeconfigs", Fault::Empty);
    cluster.relist("nodeconfigs");
    cluster.listed_anew(&operator, "nodeconfigs").await;
    // What is made after the list is seen after it.
    cluster.config("c", &json!({}));
    cluster
        .until(&operator, SOON, || {
            let names = node.memory().names();
            (names == ["a", "b", "c"])
                .then_some(())
                .ok_or(format!("it has {names:?}"))
        })
        .await;
    cluster.delete("nodestates", "w");
    // Nobody believes it before each of them was asked for by its name.
    cluster
        .until(&operator, SOON, || {
            let given_back = node.memory().given_back.clone();
            assert!(given_back.is_empty(), "{given_back:?} was given back");
            let asked = &cluster.asked(Verb::Get, "nodeconfigs")[reads..];
            let both = ["a", "b"]
                .iter()
                .all(|name| asked.iter().any(|one| one.name == *name));
            let anew = !cluster.get("nodestates", "w").is_null();
            (both && anew)
                .then_some(())
                .ok_or(format!("the NodeConfigs were not asked for: {asked:?}"))
        })
        .await;
    cluster.relist("nodeconfigs");
    let all = ["a", "b", "c"];
    cluster.settled(&operator, &[("w", &node)], &all).await;
    cluster.has_kept_everything(&[&node]);
}

/// What a node runs is refused by now: the copy of what it refers to is the only one there is.
#[tokio::test]
async fn copies_of_what_is_in_force_are_kept() {
    let Case {
        cluster,
        node: _node,
        operator,
    } = case("empty-copies").await;
    let copies = || {
        let secrets = cluster.state().store.list(&everything("secrets"));
        let copies = secrets
            .iter()
            .filter(|secret| secret["type"] == "edict.dev/content");
        copies
            .map(|copy| copy["metadata"]["name"].clone())
            .collect::<Vec<_>>()
    };
    let before = copies();
    assert_eq!(before.len(), 1);
    cluster.delete("configmaps", "words");
    let refused = async |name| {
        let config = ("nodeconfigs", name);
        cluster.says(&operator, config, "Refused", |_| {}).await;
    };
    refused("a").await;
    cluster.fault(1, Verb::List, "controllerrevisions", Fault::Empty);
    cluster.relist("controllerrevisions");
    cluster.listed_anew(&operator, "controllerrevisions").await;
    // Passes are made from what was listed.
    for name in ["c", "d"] {
        let files = json!([{"path": "/etc/shadow", "content": ""}]);
        cluster.config(name, &json!({"spec": {"files": files}}));
        refused(name).await;
    }
    assert_eq!(copies(), before);
}

fn everything(resource: &str) -> Scope {
    Scope {
        resource: resource.to_owned(),
        namespace: String::new(),
        label: None,
    }
}
