//! What was applied last, and whether it is still there.

use std::time::{Duration, Instant};

use edict_crds::{Fleet, uid};
use k8s_openapi::api::apps::v1::DaemonSet;

/// Everything is applied this often even when nothing seems to have changed: Secrets, Services and
/// ServiceAccounts that somebody deletes are not watched, and certificates run out.
pub const INTERVAL: Duration = Duration::from_mins(1);

/// What was applied last.
pub struct Applied {
    /// Uid and generation of the Fleet.
    fleet: (String, Option<i64>),
    daemonset: DaemonSet,
    when: Instant,
}

impl Applied {
    /// What this Fleet says was applied now, and the API server answered with this `DaemonSet`.
    pub fn now(fleet: &Fleet, daemonset: DaemonSet) -> Self {
        Self {
            fleet: (uid(fleet).to_owned(), fleet.metadata.generation),
            daemonset,
            when: Instant::now(),
        }
    }

    /// The `DaemonSet` as it is at this time, if it is still as it was applied for this Fleet. The
    /// cache may lag behind what the API server answered.
    pub fn holds(
        &self,
        fleet: &Fleet,
        cached: Option<&DaemonSet>,
        time: Instant,
    ) -> Option<DaemonSet> {
        let same = self.fleet == (uid(fleet).to_owned(), fleet.metadata.generation);
        let cached = cached.filter(|cached| uid(*cached) == uid(&self.daemonset))?;
        let (applied, now) = (
            self.daemonset.metadata.generation,
            cached.metadata.generation,
        );
        if !same || time >= self.when + INTERVAL || now > applied {
            return None;
        }
        let newer = if now == applied {
            cached
        } else {
            &self.daemonset
        };
        Some(newer.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn daemonset(uid: &str, generation: i64, ready: i32) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"uid": uid, "generation": generation},
            "status": {
                "numberReady": ready, "currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                "numberMisscheduled": 0,
            },
        }))
        .unwrap()
    }

    fn fleet(uid: &str, generation: i64) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.metadata.uid = Some(uid.to_owned());
        fleet.metadata.generation = Some(generation);
        fleet
    }

    #[test]
    fn what_was_applied_holds_until_somebody_changes_it() {
        let applied = Applied::now(&fleet("f", 1), daemonset("d", 5, 0));
        let soon = applied.when + INTERVAL / 2;
        let cached = || daemonset("d", 5, 3);
        let holds = |fleet, cached: Option<DaemonSet>, time| {
            let held = applied.holds(&fleet, cached.as_ref(), time)?;
            Some(held.status.unwrap().number_ready)
        };
        assert_eq!(holds(fleet("f", 1), Some(cached()), soon), Some(3));
        // The cache lags behind: what it says is of a template before.
        let lagging = daemonset("d", 4, 3);
        assert_eq!(holds(fleet("f", 1), Some(lagging), soon), Some(0));
        assert_eq!(holds(fleet("f", 1), None, soon), None);
        for (fleet, cached, time) in [
            (fleet("f", 2), cached(), soon),
            (fleet("g", 1), cached(), soon),
            (fleet("f", 1), daemonset("d", 6, 3), soon),
            (fleet("f", 1), daemonset("e", 5, 3), soon),
            (fleet("f", 1), cached(), applied.when + INTERVAL),
        ] {
            let (metadata, now) = (fleet.metadata.clone(), cached.metadata.clone());
            assert_eq!(
                holds(fleet, Some(cached), time),
                None,
                "{metadata:?} {now:?}"
            );
        }
    }
}
