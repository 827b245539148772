//! When an agent is told again what it was told before. Pure.

use std::time::{Duration, Instant};

use edict_core::wire::Report;

/// How often an agent that answers is asked: so long a lost node may go unnoticed.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long after a push in which something failed the same is tried again. The reason may be
/// mended on the node, which nobody tells the operator.
pub const RETRY: Duration = Duration::from_secs(30);

/// What the last push left to be tried again.
#[derive(Debug, Default)]
pub struct Pace {
    /// The digest of the push in which something failed, and when.
    unsettled: Option<(String, Instant)>,
}

impl Pace {
    /// Whether an agent that answered a push of `digest` so is left alone at `now`: everything is
    /// there, or is held until somebody asks for it, or was tried a moment ago.
    pub fn rests(&self, digest: &str, report: &Report, now: Instant) -> bool {
        let recent = self.unsettled.as_ref().is_some_and(|(last, when)| {
            last == digest && now.saturating_duration_since(*when) < RETRY
        });
        report.is_at_rest() || recent
    }

    /// Notes the answer to a push of `digest`, which was made now or, not `pushed`, before.
    pub fn note(&mut self, digest: &str, report: &Report, pushed: bool, now: Instant) {
        let known = |(last, _): &(String, Instant)| !pushed && last == digest;
        self.unsettled = match self.unsettled.take() {
            _ if report.is_at_rest() => None,
            Some(earlier) if known(&earlier) => Some(earlier),
            _ => Some((digest.to_owned(), now)),
        };
    }

    /// How long to wait before the agent is asked again.
    pub fn wait(&self) -> Duration {
        match self.unsettled {
            Some(_) => RETRY,
            None => HEARTBEAT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A report of layers that ended like this, as an agent sends it.
    fn report(layers: &[(&str, bool)]) -> Report {
        let layer = |(outcome, held): &(&str, bool)| {
            json!({
                "uid": "u", "name": "n", "digest": "r", "outcome": outcome, "held": held,
            })
        };
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let report = json!({"digest": "d", "layers": layers, "releases": [], "resources": []});
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn what_failed_is_tried_every_half_minute_and_what_is_held_is_not() {
        for (layers, again) in [
            (&[("Applied", false)][..], false),
            (&[("Failed", true)], false),
            (&[("Failed", true), ("PendingReload", false)], false),
            (&[("Failed", false)], true),
            (&[("Failed", true), ("Failed", false)], true),
            (&[("Failed", true), ("Refused", false)], true),
            (&[("Failed", true), ("Unread", false)], true),
        ] {
            let (mut pace, report) = (Pace::default(), report(layers));
            let began = Instant::now();
            pace.note("d", &report, true, began);
            assert_eq!(pace.wait(), if again { RETRY } else { HEARTBEAT });
            let just_before = began + Duration::from_millis(29_999);
            assert!(pace.rests("d", &report, just_before), "{layers:?}");
            // To look at it changes nothing.
            pace.note("d", &report, false, just_before);
            for later in [RETRY, RETRY * 1000] {
                assert_eq!(
                    pace.rests("d", &report, began + later),
                    !again,
                    "{layers:?}"
                );
            }
        }
    }

    #[test]
    fn each_push_has_its_own_time() {
        let (mut pace, failed) = (Pace::default(), report(&[("Failed", false)]));
        let began = Instant::now();
        // An operator that has just begun to lead knows of no push.
        assert!(!pace.rests("d", &failed, began));
        pace.note("d", &failed, true, began);
        assert!(!pace.rests("e", &failed, began), "this is another one");
        pace.note("d", &failed, true, began + RETRY);
        assert!(pace.rests("d", &failed, began + RETRY));
        pace.note("d", &report(&[("Applied", false)]), true, began + RETRY);
        assert!(!pace.rests("d", &failed, began + RETRY), "it is over");
    }
}
