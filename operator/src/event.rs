//! Kubernetes Events: what happened to an object, for `kubectl describe`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

/// What publishes the Events, as they say.
const CONTROLLER: &str = "edict-operator";
/// Events of objects that are in no namespace live here.
const NAMESPACE: &str = "default";
/// The same is counted as a repetition for so long after it was said last, as everywhere in
/// Kubernetes.
const REPETITION: SignedDuration = SignedDuration::from_mins(6);

/// Stable reasons of Events. Documented in the README.
pub mod reason {
    /// Every node of a `NodeConfig` has it.
    pub const APPLIED: &str = "Applied";
    /// What a `NodeConfig` of mode Plan would change is known of every node.
    pub const PLANNED: &str = "Planned";
    /// Files are written, a daemon has yet to reread them.
    pub const PENDING_RELOAD: &str = "PendingReload";
    /// Written everywhere; a unit has yet to be restarted.
    pub const PENDING_RESTART: &str = "PendingRestart";
    /// The files are written; a program on the node is set up not to read them.
    pub const UNREAD: &str = "Unread";
    /// A rule refuses the configuration.
    pub const REFUSED: &str = "Refused";
    /// A node could not apply it; it is tried again.
    pub const FAILED: &str = "Failed";
    /// A node could not apply it; it is tried again when it changes or somebody asks.
    pub const HELD: &str = "Held";
    /// Another `NodeConfig` has some of what this one wants.
    pub const CONFLICT: &str = "Conflict";
    /// Somebody else has changed something on a node.
    pub const DRIFT: &str = "Drift";
    /// A command has ended on a node with exit code 0.
    pub const COMMAND_SUCCEEDED: &str = "CommandSucceeded";
    /// A command came to nothing on a node: it failed, took too long or was interrupted.
    pub const COMMAND_FAILED: &str = "CommandFailed";
    /// An agent does not answer.
    pub const UNREACHABLE: &str = "Unreachable";
    /// An agent answers again.
    pub const REACHABLE: &str = "Reachable";
    /// A node was given back what a `NodeConfig` had changed.
    pub const RELEASED: &str = "Released";
    /// Something was left alone, since somebody else had changed it.
    pub const FOREIGN_CHANGE: &str = "ForeignChange";
    /// The installation is complete.
    pub const READY: &str = "Ready";
    /// An agent that was replaced does not come up, and no other is replaced.
    pub const HALTED: &str = "Halted";
}

/// Publishes Events; one that cannot be published is logged and changes nothing else.
///
/// Not kube's own recorder: to that one Events are the same whatever they say, so that a second
/// node's or `NodeConfig`'s would go under in the count of the first.
#[derive(Clone)]
pub struct Recorder {
    api: Api<Event>,
    instance: String,
    said: Arc<Mutex<HashMap<Key, Said>>>,
}

/// What makes two Events the same: the object's uid, the reason and the note.
type Key = (String, String, String);

/// An Event that was published.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    name: String,
    count: i32,
    last: Timestamp,
}

impl Recorder {
    /// A recorder that speaks as Edict's operator.
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            instance: std::env::var("HOSTNAME").unwrap_or_else(|_| CONTROLLER.to_owned()),
            said: Arc::default(),
        }
    }

    /// Publishes an Event on `object`. Repetitions are counted, not listed.
    pub async fn publish<K>(&self, object: &K, warning: bool, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        // The API server takes 1 kB.
        let note: String = note.chars().take(1000).collect();
        let name = object.name_any();
        let uid = object.uid().unwrap_or_default();
        let key = (uid, reason.to_owned(), note.clone());
        let said = say(&mut self.said(), key.clone(), &name, Timestamp::now());
        let published = if said.count > 1 {
            let series = json!({"count": said.count, "lastObservedTime": MicroTime(said.last)});
            let patch = Patch::Merge(json!({"series": series}));
            let parameters = PatchParams::default();
            self.api.patch(&said.name, &parameters, &patch).await
        } else {
            let type_ = if warning { "Warning" } else { "Normal" };
            let event = self.event(object.object_ref(&()), type_, reason, note, &said);
            self.api.create(&PostParams::default(), &event).await
        };
        if let Err(error) = published {
            // Next time it is said anew.
            self.said().remove(&key);
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object = name,
                reason,
                "cannot publish an event"
            );
        }
    }

    fn event(
        &self,
        regarding: ObjectReference,
        type_: &str,
        reason: &str,
        note: String,
        said: &Said,
    ) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(said.name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(note),
            action: Some("Reconcile".to_owned()),
            regarding: Some(regarding),
            event_time: Some(MicroTime(said.last)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    fn said(&self) -> MutexGuard<'_, HashMap<Key, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that this is said about the object `name` now, and how many times it has been of late.
fn say(said: &mut HashMap<Key, Said>, key: Key, name: &str, now: Timestamp) -> Said {
    said.retain(|_, one| now.duration_since(one.last) < REPETITION);
    let one = said.entry(key).or_insert_with(|| {
        // A name has 253 characters at most.
        let object: String = name.chars().take(200).collect();
        Said {
            name: format!("{object}.{:x}", now.as_nanosecond()),
            count: 0,
            last: now,
        }
    });
    one.count = one.count.saturating_add(1);
    one.last = now;
    one.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_the_same_is_a_repetition() {
        let mut said = HashMap::new();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut say = |uid: &str, reason: &str, note: &str, seconds| {
            let key = (uid.to_owned(), reason.to_owned(), note.to_owned());
            let said = super::say(&mut said, key, "node-1", at(seconds));
            (said.name, said.count)
        };
        let (first, count) = say("u", "Released", "a is gone", 0);
        assert_eq!(count, 1);
        assert_eq!(say("u", "Released", "a is gone", 100), (first.clone(), 2));
        assert_eq!(say("u", "Released", "a is gone", 400), (first.clone(), 3));
        for (uid, reason, note) in [
            ("u", "Released", "b is gone"),
            ("u", "ForeignChange", "a is gone"),
            ("v", "Released", "a is gone"),
        ] {
            assert_eq!(say(uid, reason, note, 401).1, 1, "{uid} {reason} {note}");
        }
        // After a while it is news again, under another name.
        let (again, count) = say("u", "Released", "a is gone", 400 + 360);
        assert!(count == 1 && again != first, "{again} {count}");
        assert!(again.starts_with("node-1."));
    }

    #[test]
    fn the_longest_name_has_room() {
        let key = Default::default();
        let said = say(&mut HashMap::new(), key, &"n".repeat(253), Timestamp::MAX);
        assert!(said.name.len() <= 253, "{}", said.name.len());
    }
}
