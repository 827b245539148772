//! Drift: what somebody else has changed of what Edict has on a host, and what becomes of that. Pure
//! but for the clock that it is given.
//!
//! Somebody who changes the same thing again and again is not fought for ever: after [`OFTEN`]
//! corrections within [`LATELY`] it is left as it is for that long, and said by name. What can't be
//! corrected although that was begun is left for as long at once: units may have been told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use edict_core::resource::Place;
use edict_core::wire::{DriftOutcome, Drifted};

/// How often the same thing is corrected within [`LATELY`].
pub const OFTEN: usize = 5;
/// How long a correction counts, and how long something is left.
pub const LATELY: Duration = Duration::from_mins(10);
/// How long something that was corrected is remembered, so that whoever asks hears of it.
pub const REMEMBERED: Duration = Duration::from_hours(1);
/// The most that is remembered.
pub const MAX: usize = 64;

/// What is known of drift on this host.
#[derive(Debug, Default)]
pub struct Drifts {
    /// Counts the changes of what is known.
    pub count: u64,
    known: Vec<Known>,
    tried: BTreeMap<Place, Tried>,
}

#[derive(Debug)]
struct Known {
    at: Place,
    when: Instant,
    said: Drifted,
}

/// The corrections of one place that came one soon after the other.
#[derive(Debug, Default)]
struct Tried {
    when: VecDeque<Instant>,
    /// Whether the last one came to nothing.
    failed: bool,
}

impl Tried {
    fn is_recent(&self, now: Instant) -> bool {
        let last = self.when.back();
        last.is_some_and(|last| now.saturating_duration_since(*last) < LATELY)
    }

    /// Until when the place is left alone.
    fn until(&self) -> Option<Instant> {
        let enough = self.failed || self.when.len() >= OFTEN;
        let last = self.when.back().filter(|_| enough)?;
        Some(*last + LATELY)
    }
}

impl Drifts {
    /// Whether something is left alone for a while.
    pub fn is_damped(&self, at: &Place, now: Instant) -> bool {
        let until = self.tried.get(at).and_then(Tried::until);
        until.is_some_and(|until| now < until)
    }

    /// Notes that something was corrected, or that it was begun and came to nothing.
    pub fn tried(&mut self, at: &Place, failed: bool, now: Instant) {
        let tried = self.tried.entry(at.clone()).or_default();
        let recent = |when: &Instant| now.saturating_duration_since(*when) < LATELY;
        tried.when.retain(recent);
        tried.when.push_back(now);
        tried.failed = failed;
    }

    /// How often something was corrected lately.
    pub fn times(&self, at: &Place) -> usize {
        self.tried.get(at).map_or(0, |tried| tried.when.len())
    }

    /// Notes what was found, and what became of it. Whether that is something new.
    pub fn note(&mut self, at: &Place, said: Drifted, now: Instant) -> bool {
        let before = self.known.iter().position(|known| known.at == *at);
        let corrected = said.outcome == DriftOutcome::Corrected;
        if let Some(before) = before.map(|at| &self.known[at].said) {
            // What was corrected once more is something new. Why something could not be is said in
            // words that differ each time.
            let same = (&before.what, before.outcome) == (&said.what, said.outcome);
            // Why it was left is said already.
            let failed = before.outcome == DriftOutcome::Failed;
            if (same && !corrected) || (failed && said.outcome == DriftOutcome::Damped) {
                return false;
            }
        } else if self.known.len() >= MAX {
            let over = |known: &Known| known.said.outcome == DriftOutcome::Corrected;
            let Some(oldest) = self.known.iter().position(over) else {
                return false;
            };
            self.known.remove(oldest);
        }
        self.known.retain(|known| known.at != *at);
        self.known.push(Known {
            at: at.clone(),
            when: now,
            said,
        });
        self.count += 1;
        true
    }

    /// Forgets what is as it should be again, but for what was corrected a while ago.
    pub fn settle(&mut self, differing: &dyn Fn(&Place) -> bool, now: Instant) {
        let before = self.known.len();
        self.known.retain(|known| {
            let recent = now.saturating_duration_since(known.when) < REMEMBERED;
            let corrected = known.said.outcome == DriftOutcome::Corrected;
            differing(&known.at) || (corrected && recent)
        });
        self.tried.retain(|_, tried| tried.is_recent(now));
        if self.known.len() != before {
            self.count += 1;
        }
    }

    /// When something that is left alone is to be looked at again.
    pub fn next(&self) -> Option<Instant> {
        self.tried.values().filter_map(Tried::until).min()
    }

    /// Everything that is known, the oldest first.
    pub fn list(&self) -> Vec<Drifted> {
        self.known.iter().map(|known| known.said.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        Place::file(path)
    }

    fn said(path: &str, outcome: DriftOutcome) -> Drifted {
        Drifted {
            path: path.to_owned(),
            key: None,
            owner: "a".to_owned(),
            what: "it is gone".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            outcome,
            times: 1,
            message: String::new(),
        }
    }

    #[test]
    fn a_fight_is_damped_and_taken_up_again_later() {
        let mut drifts = Drifts::default();
        let (at, began) = (place("/etc/a"), Instant::now());
        let minute = Duration::from_mins(1);
        for n in 0..5 {
            let now = began + minute * 2 * n;
            assert!(!drifts.is_damped(&at, now), "{n}");
            drifts.tried(&at, false, now);
            assert_eq!(drifts.times(&at), n as usize + 1);
        }
        let last = began + minute * 8;
        let over = last + LATELY;
        let just_before = last + minute * 9;
        assert_eq!(drifts.next(), Some(over));
        assert!(drifts.is_damped(&at, last) && drifts.is_damped(&at, just_before));
        assert!(!drifts.is_damped(&place("/etc/b"), last));
        drifts.settle(&|_| true, just_before);
        assert!(drifts.is_damped(&at, just_before));
        // It begins anew.
        assert!(!drifts.is_damped(&at, over));
        drifts.tried(&at, false, over);
        assert_eq!(drifts.times(&at), 1);
        assert_eq!(drifts.next(), None);
        // Corrections of long ago do not count.
        drifts.tried(&at, false, over + LATELY);
        assert_eq!(drifts.times(&at), 1);
        drifts.settle(&|_| true, over + LATELY * 2);
        assert_eq!(drifts.next(), None);
    }

    #[test]
    fn what_was_begun_and_came_to_nothing_is_left_at_once() {
        let mut drifts = Drifts::default();
        let (at, now) = (place("/etc/a"), Instant::now());
        drifts.tried(&at, true, now);
        assert!(drifts.is_damped(&at, now));
        let failed = Drifted {
            message: "for this reason".to_owned(),
            ..said("/etc/a", DriftOutcome::Failed)
        };
        assert!(drifts.note(&at, failed.clone(), now));
        let again = Drifted {
            message: "for this reason, at another time".to_owned(),
            ..failed.clone()
        };
        assert!(!drifts.note(&at, again, now));
        assert!(!drifts.note(&at, said("/etc/a", DriftOutcome::Damped), now));
        assert_eq!((drifts.count, drifts.list()), (1, vec![failed]));
    }

    #[test]
    fn what_is_known_is_said_once_and_counted() {
        let mut drifts = Drifts::default();
        let (at, now) = (place("/etc/a"), Instant::now());
        let reported = said("/etc/a", DriftOutcome::Reported);
        drifts.note(&at, reported.clone(), now);
        drifts.note(&at, reported.clone(), now);
        assert_eq!((drifts.count, drifts.list()), (1, vec![reported]));
        drifts.note(&at, said("/etc/a", DriftOutcome::Corrected), now);
        drifts.note(&at, said("/etc/a", DriftOutcome::Corrected), now);
        assert_eq!((drifts.count, drifts.list().len()), (3, 1));
        drifts.settle(&|_| false, now);
        assert_eq!((drifts.count, drifts.list().len()), (3, 1));
        drifts.settle(&|_| false, now + REMEMBERED);
        assert_eq!((drifts.count, drifts.list().len()), (4, 0));
    }

    #[test]
    fn what_differs_is_kept_and_what_does_not_is_forgotten() {
        let mut drifts = Drifts::default();
        let now = Instant::now();
        for path in ["/etc/a", "/etc/b"] {
            drifts.note(&place(path), said(path, DriftOutcome::Reported), now);
        }
        drifts.settle(&|at| at.path == "/etc/b", now + REMEMBERED);
        let left: Vec<_> = drifts.list().into_iter().map(|one| one.path).collect();
        assert_eq!(left, ["/etc/b"]);
        drifts.note(
            &place("/etc/c"),
            said("/etc/c", DriftOutcome::Corrected),
            now,
        );
        let fill = |drifts: &mut Drifts| {
            for n in 0..100 {
                let path = format!("/etc/{n}");
                drifts.note(&place(&path), said(&path, DriftOutcome::Reported), now);
            }
            (drifts.count, drifts.list().len())
        };
        let (count, length) = fill(&mut drifts);
        assert_eq!(length, MAX);
        // What was corrected goes first, and what has no room is nothing new each time.
        assert!(drifts.list().iter().all(|one| one.path != "/etc/c"));
        assert_eq!(fill(&mut drifts), (count, length));
    }
}
