//! What failed on this node and is not tried again by itself.

use edict_core::layer::Layer;
use edict_core::retry::Retry;
use serde::{Deserialize, Serialize};

/// The most characters of a message that are kept: paths are what is long in one.
const MESSAGE_MAX: usize = 1000;

/// A revision of a layer that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Digest of the revision.
    pub digest: String,
    /// Which try it was, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Why it failed.
    pub message: String,
}

impl Hold {
    /// The layer failed, for this reason.
    pub fn new(layer: &Layer, why: &str) -> Self {
        let message = match why.char_indices().nth(MESSAGE_MAX) {
            Some((end, _)) => format!("{}…", &why[..end]),
            None => why.to_owned(),
        };
        Self {
            digest: layer.digest.clone(),
            retry: layer.retry.clone(),
            message,
        }
    }

    /// Whether the layer is the one that failed, and no other try of it was asked for since. A
    /// layer that asks for none does not ask again.
    pub fn is_of(&self, layer: &Layer) -> bool {
        let asked = layer.retry.is_some() && layer.retry != self.retry;
        layer.digest == self.digest && !asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edict_core::config::Config;
    use edict_core::content::Contents;
    use edict_core::layer::DeletionPolicy;

    fn layer(digest: &str, retry: Option<&str>) -> Layer {
        Layer {
            uid: "u".into(),
            name: "n".into(),
            priority: 0,
            created: jiff::Timestamp::UNIX_EPOCH,
            digest: digest.into(),
            deletion_policy: DeletionPolicy::Restore,
            restarts: edict_core::layer::Restarts::Allowed,
            drift: edict_core::layer::Drift::Correct,
            retry: retry.map(Retry::of),
            facts: None,
            config: Config::default(),
            contents: Contents::default(),
        }
    }

    #[test]
    fn another_revision_and_another_try_are_not_held() {
        for (failed, then, held) in [
            (("d", None), ("d", None), true),
            (("d", None), ("d", Some("1")), false),
            (("d", None), ("e", None), false),
            (("d", Some("1")), ("d", Some("1")), true),
            (("d", Some("1")), ("d", Some("2")), false),
            (("d", Some("1")), ("e", Some("1")), false),
            (("d", Some("1")), ("d", None), true),
        ] {
            let hold = Hold::new(&layer(failed.0, failed.1), "");
            let then = layer(then.0, then.1);
            assert_eq!(hold.is_of(&then), held, "{hold:?}, {then:?}");
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        let keep = |why: &str| Hold::new(&layer("d", None), why).message;
        assert_eq!(keep(&"ä".repeat(1000)), "ä".repeat(1000));
        assert_eq!(keep(&"ä".repeat(1001)), "ä".repeat(1000) + "…");
    }
}
