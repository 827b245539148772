//! A layer: one `NodeConfig`'s revision as one node gets it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::firewall::Facts;
use crate::content::Contents;
use crate::digest;
use crate::guard::{Policy, Violation};
use crate::resource::Resource;
use crate::retry::Retry;

/// One `NodeConfig`'s revision as one node gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The `NodeConfig`'s uid: a deleted and recreated one is another layer.
    pub uid: String,
    /// The `NodeConfig`'s name, for people.
    pub name: String,
    /// The higher one wins where two layers set one key.
    pub priority: i32,
    /// When the `NodeConfig` was created: among equal priorities the older one wins.
    pub created: Timestamp,
    /// Digest of `config` and of what it refers to, as [`digest()`] makes it: names the revision.
    pub digest: String,
    /// What becomes of the node's configuration when this layer leaves.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Whether units are restarted for it. No part of the revision.
    #[serde(default, skip_serializing_if = "Restarts::is_allowed")]
    pub restarts: Restarts,
    /// What becomes of it when somebody else changes what Edict has written. No part of the revision.
    #[serde(default, skip_serializing_if = "Drift::is_correct")]
    pub drift: Drift,
    /// Which try was asked for last, if ever one was. No part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What the cluster knows of its own addresses, where the layer is about them. No part of the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// What the layer says.
    pub config: Config,
    /// What the configuration refers to.
    #[serde(default, skip_serializing_if = "Contents::is_empty")]
    pub contents: Contents,
}

/// The digest of a revision: of what the user wrote, and of what that refers to.
///
/// Contents count with their keyed digests. So the agent can make it from what it is sent, and
/// whoever sees it learns nothing about a secret.
pub fn digest(config: &Config, contents: &Contents) -> String {
    if contents.is_empty() {
        digest::of(config)
    } else {
        digest::of(&(config, contents.digests()))
    }
}

impl Layer {
    /// Everything that is wrong with the layer under `policy`; empty when nothing is.
    pub fn check(&self, policy: &Policy) -> Vec<Violation> {
        self.config.check(policy, &self.contents)
    }

    /// What the layer wants of a host, by block. For layers that passed [`Self::check`].
    pub fn render(&self) -> Vec<(&'static str, Resource)> {
        let facts = self.facts.as_ref().zip(self.config.firewall.as_ref());
        let Some((facts, firewall)) = facts else {
            return self.config.render(&self.contents);
        };
        let config = Config {
            firewall: Some(firewall.with(facts)),
            ..self.config.clone()
        };
        config.render(&self.contents)
    }

    /// What the layer wants of a host, whichever block it comes from. For layers that passed
    /// [`Self::check`].
    pub fn resources(&self) -> Vec<Resource> {
        let rendered = self.render().into_iter();
        rendered.map(|(_, resource)| resource).collect()
    }

    /// The layer without the bytes that it refers to.
    #[must_use]
    pub fn outline(&self) -> Self {
        Self {
            contents: self.contents.outline(),
            ..self.clone()
        }
    }

    /// Sorts the layer that wins first: higher priority, then older, then by name. The uid makes
    /// the order total.
    pub fn precedence(&self) -> impl Ord + use<'_> {
        (
            std::cmp::Reverse(self.priority),
            self.created,
            &self.name,
            &self.uid,
        )
    }
}

/// What becomes of the files and keys when the NodeConfig is deleted or no longer meant for a node.
/// Restore (the default) gives everything back as it was, but leaves alone what somebody else
/// changed meanwhile; RestoreForced gives that back too; Retain leaves everything as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Every file and key is given back as it was before; what somebody else changed meanwhile is
    /// left alone and reported.
    #[default]
    Restore,
    /// Every file and key is given back as it was before, also where somebody else changed it.
    RestoreForced,
    /// Files and keys stay as they are; what was there before is forgotten.
    Retain,
}

/// Whether programs on the node are restarted where that is what it takes until a change is in force.
/// Allowed (the default) restarts them; Never leaves that to somebody else, and the status says
/// PendingRestart with the units that wait. A NodeConfig's reloads, which disturb nobody, are done in
/// any case; with a Fleet's Never agents tell systemd of no change, so they reload nothing either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Restarts {
    /// Units are restarted where that is needed.
    #[default]
    Allowed,
    /// No unit is restarted.
    Never,
}

/// What becomes of it when somebody else changes on a node what Edict has written there. Correct (the
/// default) has it again as the NodeConfig says, at once; Report leaves it until the NodeConfig changes.
/// Either way the NodeState says it, and an Event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Drift {
    /// It is written again. Who changes the same thing again and again is not fought for ever.
    #[default]
    Correct,
    /// It stays, and is said; but a key in a file that others have keys in goes along when that file is
    /// written for them.
    Report,
}

/// Whether the configuration is brought to the nodes. Enforce (the default) does that; Plan only says in
/// status.plans of each NodeState what it would change there, as a diff, and writes nothing: what the nodes
/// have of this NodeConfig stays in force as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The nodes get it.
    #[default]
    Enforce,
    /// The nodes only say what it would change.
    Plan,
}

impl Mode {
    /// Whether it is only planned.
    pub fn is_plan(&self) -> bool {
        *self == Self::Plan
    }
}

impl Drift {
    /// Whether it is written again.
    pub fn is_correct(&self) -> bool {
        *self == Self::Correct
    }
}

impl Restarts {
    /// Whether units may be restarted.
    pub fn is_allowed(&self) -> bool {
        *self == Self::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use serde_json::json;

    fn layer(bytes: &[u8]) -> Layer {
        let from = json!({"secretKeyRef": {"name": "a", "key": "k"}});
        let config = json!({"files": [{"path": "/etc/motd", "contentFrom": from}]});
        let config: Config = serde_json::from_value(config).unwrap();
        let content = Content::new(b"key", bytes.to_vec());
        let contents = Contents([("Secret/a/k".parse().unwrap(), content)].into());
        Layer {
            uid: "uid".to_owned(),
            name: "name".to_owned(),
            priority: 0,
            created: jiff::Timestamp::UNIX_EPOCH,
            digest: digest(&config, &contents),
            deletion_policy: DeletionPolicy::Restore,
            restarts: Restarts::Allowed,
            drift: Drift::Correct,
            retry: None,
            facts: None,
            config,
            contents,
        }
    }

    #[test]
    fn the_digest_is_of_what_is_referred_to_as_well() {
        assert_eq!(layer(b"a").digest, layer(b"a").digest);
        assert_ne!(layer(b"a").digest, layer(b"b").digest);
        let config = Config::default();
        let plain = digest(&config, &Contents::default());
        assert_eq!(plain, digest::of(&config));
        assert_ne!(plain, layer(b"a").digest);
    }

    #[test]
    fn a_layer_is_judged_and_rendered_with_what_it_refers_to() {
        let whole = layer(b"a");
        assert_eq!(whole.check(&Policy::default()), []);
        let rendered = whole.render();
        assert!(
            matches!(&rendered[..], [("files", Resource::File(file))] if file.content == b"a"),
            "{rendered:?}"
        );
        let mut without = layer(b"a");
        without.contents = Contents::default();
        assert_eq!(without.check(&Policy::default()).len(), 1);
    }

    #[test]
    fn an_outline_has_digests_and_no_bytes() {
        let whole = layer(b"secret");
        let outline = whole.outline();
        assert_ne!(outline, whole);
        assert_eq!(outline.contents.digests(), whole.contents.digests());
        assert_eq!(
            outline.contents.get(&"Secret/a/k".parse().unwrap()),
            Some(&b""[..])
        );
        let contents = whole.contents.clone();
        assert_eq!(
            Layer {
                contents,
                ..outline
            },
            whole
        );
    }
}
