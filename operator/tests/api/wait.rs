//! Waiting for what several tests wait for.

use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, SOON};
use super::operator::Operator;
use super::script::Verb;

impl Cluster {
    /// A cluster of the node "w" with its agent, which has the `NodeConfig` "a".
    pub async fn running(test: &str) -> (Self, Agent, Operator) {
        let cluster = Self::new(test).await;
        let node = cluster.node("w").await;
        cluster.config("a", &json!({}));
        let operator = cluster.operator("one");
        cluster.settled(&operator, &[("w", &node)], &["a"]).await;
        (cluster, node, operator)
    }

    /// Waits until there is no `NodeConfig` of this name any more. `meanwhile` is looked at as often.
    pub async fn gone(&self, operator: &Operator, name: &str, meanwhile: impl Fn(&Value)) {
        self.until(operator, SOON, || {
            let found = self.get("nodeconfigs", name);
            meanwhile(&found);
            found
                .is_null()
                .then_some(())
                .ok_or(format!("it is still there: {found:#}"))
        })
        .await;
    }

    /// Waits until this object's status says `state`. `meanwhile` is looked at as often.
    pub async fn says(
        &self,
        operator: &Operator,
        (resource, name): (&str, &str),
        state: &str,
        meanwhile: impl Fn(&Value),
    ) {
        self.until(operator, SOON, || {
            let found = self.get(resource, name);
            meanwhile(&found);
            let said = &found["status"]["state"];
            (said == state)
                .then_some(())
                .ok_or(format!("{name} is {said}"))
        })
        .await;
    }

    /// Waits until there is a `NodeState` of this name that is not the one of the uid `before`.
    pub async fn made_anew(&self, operator: &Operator, name: &str, before: &Value) -> Value {
        self.until(operator, SOON, || {
            let now = self.get("nodestates", name)["metadata"]["uid"].clone();
            (!now.is_null() && now != *before)
                .then_some(now.clone())
                .ok_or(format!("the NodeState has uid {now}"))
        })
        .await
    }

    /// Waits until `resource` was listed more than once.
    pub async fn listed_anew(&self, operator: &Operator, resource: &str) {
        self.until(operator, SOON, || {
            let lists = self.asked(Verb::List, resource).len();
            (lists > 1)
                .then_some(())
                .ok_or(format!("{resource} are not listed anew"))
        })
        .await;
    }

    /// Waits until the agent was pushed to more than `before` times.
    pub async fn pushed(&self, operator: &Operator, agent: &Agent, before: usize) {
        self.until(operator, SOON, || {
            let pushes = agent.memory().pushes.len();
            (pushes > before)
                .then_some(())
                .ok_or(format!("there is no push after {pushes}"))
        })
        .await;
    }

    /// Waits until the operator has said that it stops.
    pub async fn stops(&self, operator: &Operator) {
        self.until(operator, SOON, || {
            let said = operator.said();
            said.contains("\"stopping\"")
                .then_some(())
                .ok_or("it does not stop".to_owned())
        })
        .await;
    }
}
