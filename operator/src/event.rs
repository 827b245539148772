//! Kubernetes Events: what happened to an object, for `kubectl describe`.

use kube::runtime::events::{Event, EventType, Recorder as Events, Reporter};
use kube::{Client, Resource, ResourceExt as _};

/// Stable reasons of Events. Documented in the README.
pub mod reason {
    /// Every node of a `NodeConfig` has it.
    pub const APPLIED: &str = "Applied";
    /// Files are written, a daemon has yet to reread them.
    pub const PENDING_RELOAD: &str = "PendingReload";
    /// A rule refuses the configuration.
    pub const REFUSED: &str = "Refused";
    /// A node could not apply it.
    pub const FAILED: &str = "Failed";
    /// Another `NodeConfig` has some of what this one wants.
    pub const CONFLICT: &str = "Conflict";
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
}

/// Publishes Events; one that cannot be published is logged and changes nothing else.
#[derive(Clone)]
pub struct Recorder(Events);

impl Recorder {
    /// A recorder that speaks as Edict's operator.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "edict-operator".to_owned(),
            instance: std::env::var("HOSTNAME").ok(),
        };
        Self(Events::new(client, reporter))
    }

    /// Publishes an Event on `object`. Repetitions are counted, not listed.
    pub async fn publish<K>(&self, object: &K, warning: bool, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            // The API server takes 1 kB.
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &object.object_ref(&())).await {
            let object = object.name_any();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object,
                reason,
                "cannot publish an event"
            );
        }
    }
}
