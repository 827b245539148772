//! Which units have to be told what, so that a change is in force. Pure.

use std::collections::{BTreeMap, BTreeSet};

use edict_core::layer::Restarts;
use edict_core::resolve::{Owned, Resolution};
use edict_core::resource::{Action, Place, Unit, is_under};

use crate::state::Pending;

/// Where unit files and their drop-ins are, under `/etc`.
const UNIT_FILES: &str = "/etc/systemd/system";

/// What has to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Whether unit files have changed, so that systemd has to read them again.
    pub unit_files: bool,
    /// The least that each unit needs, and may have.
    pub now: BTreeMap<String, Action>,
    /// What a unit needs and may not have.
    pub later: BTreeMap<String, Action>,
}

impl Due {
    /// After a change of the places in `changed`, on the way from one resolution to the next.
    /// `pending` are units that wait already: where `layer`, which is being brought in, has one that may
    /// have now what it waits for, it gets that.
    pub fn of(
        before: &Resolution,
        after: &Resolution,
        restarts: &dyn Fn(&str) -> Restarts,
        changed: &BTreeSet<Place>,
        pending: &BTreeMap<String, Pending>,
        layer: Option<&str>,
    ) -> Self {
        let mut due = Self {
            unit_files: changed.iter().any(|at| is_under(&at.path, UNIT_FILES)),
            ..Self::default()
        };
        let read = |place: &Place, unit: &Unit| unit.reads.iter().any(|read| read.overlaps(place));
        for place in changed {
            let now = after.units.iter().filter(|unit| read(place, &unit.what));
            for owned in now.clone() {
                due.add(owned, owned.what.action, restarts);
            }
            // What a unit reads from now on says what it needs; what it read before, where it reads
            // that no more.
            let now: Vec<_> = now.map(|unit| &unit.what.name).collect();
            let left = before.units.iter();
            let left =
                left.filter(|unit| read(place, &unit.what) && !now.contains(&&unit.what.name));
            for owned in left {
                due.add(owned, owned.what.gone, restarts);
            }
        }
        for (name, waits) in pending {
            let readers = after.units.iter().filter(|owned| owned.what.name == *name);
            let mut readers = readers.filter(|owned| waits.is_for(owned.what.action));
            // Whose change waits is not known: where one of them says never, nobody is told for
            // another's sake. And no layer is judged by what another one has changed.
            let allowed = |owned: &Owned<Unit>| {
                owned.what.action < Action::Restart || restarts(&owned.by).is_allowed()
            };
            let own = readers.clone().find(|owned| Some(&*owned.by) == layer);
            if let Some(own) = own
                && readers.all(allowed)
            {
                due.unit_files = true;
                due.add(own, waits.action, restarts);
            }
        }
        let now = &due.now;
        due.later
            .retain(|unit, action| now.get(unit) < Some(action));
        due
    }

    fn add(&mut self, owned: &Owned<Unit>, action: Action, restarts: &dyn Fn(&str) -> Restarts) {
        let name = &owned.what.name;
        let allowed = action < Action::Restart || restarts(&owned.by).is_allowed();
        let units = if allowed {
            &mut self.now
        } else {
            &mut self.later
        };
        need(units, name, action);
    }

    /// These units have read what is taken back, and are told whatever was found.
    pub fn misled(&mut self, misled: &BTreeMap<String, Pending>) {
        self.unit_files |= !misled.is_empty();
        for (name, unit) in misled {
            need(&mut self.now, name, unit.action);
        }
    }
}

/// Notes what a unit needs: of two, the one that does for both.
pub fn need(units: &mut BTreeMap<String, Action>, unit: &str, action: Action) {
    let needs = units.entry(unit.to_owned()).or_insert(action);
    *needs = action.max(*needs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use edict_core::resource::KeyPath;

    const FILE: &str = "/etc/docker/daemon.json";

    fn place(key: &str) -> Place {
        Place::key(FILE, &KeyPath::top(key))
    }

    fn unit(by: &str, name: &str, action: Action, reads: &[Place]) -> Owned<Unit> {
        Owned {
            by: by.to_owned(),
            what: Unit {
                name: name.to_owned(),
                action,
                gone: Action::Restart,
                reads: reads.to_vec(),
            },
        }
    }

    fn units(units: &[Owned<Unit>]) -> Resolution {
        Resolution {
            units: units.to_vec(),
            ..Resolution::default()
        }
    }

    /// Units, and what each needs.
    type Told = Vec<(String, Action)>;

    fn due(
        before: &[Owned<Unit>],
        after: &[Owned<Unit>],
        changed: &[Place],
        pending: &[(&str, Action)],
    ) -> (Told, Told) {
        let restarts = |uid: &str| match uid {
            "never" => Restarts::Never,
            _ => Restarts::Allowed,
        };
        let changed = changed.iter().cloned().collect();
        let pending = pending
            .iter()
            .map(|(name, action)| ((*name).to_owned(), Pending::new(*action, None)));
        let due = Due::of(
            &units(before),
            &units(after),
            &restarts,
            &changed,
            &pending.collect(),
            Some("x"),
        );
        let list = |units: BTreeMap<String, Action>| units.into_iter().collect();
        (list(due.now), list(due.later))
    }

    fn one(action: Action) -> Told {
        vec![("a.service".to_owned(), action)]
    }

    #[test]
    fn a_unit_is_told_when_something_changes_that_it_reads() {
        use Action::{Reload, Restart};
        let mirrors = unit("x", "a.service", Reload, &[place("mirrors")]);
        let root = unit("x", "a.service", Restart, &[place("root")]);
        let both = [mirrors.clone(), root.clone()];
        assert_eq!(due(&[], &both, &[], &[]), (vec![], vec![]));
        assert_eq!(
            due(&[], &both, &[Place::file("/etc/motd")], &[]),
            (vec![], vec![])
        );
        assert_eq!(
            due(&[], &both, &[place("mirrors")], &[]),
            (one(Reload), vec![])
        );
        assert_eq!(
            due(&[], &both, &[place("root")], &[]),
            (one(Restart), vec![])
        );
        let all = [place("mirrors"), place("root")];
        assert_eq!(due(&[], &both, &all, &[]), (one(Restart), vec![]));
        assert_eq!(due(&both, &[], &all, &[]), (one(Restart), vec![]));
        assert_eq!(
            due(&[], &both, &[Place::file(FILE)], &[]),
            (one(Restart), vec![])
        );
    }

    #[test]
    fn what_a_unit_needs_is_what_the_new_revision_says() {
        use Action::{Reload, Restart};
        let unit = |action| unit("x", "a.service", action, &[place("root")]);
        let changed = [place("root")];
        for (before, after) in [(Restart, Reload), (Reload, Restart)] {
            let due = due(&[unit(before)], &[unit(after)], &changed, &[]);
            assert_eq!(due, (one(after), vec![]));
        }
    }

    #[test]
    fn what_may_not_be_done_is_left_for_later() {
        use Action::{Reload, Restart};
        let root = unit("never", "a.service", Restart, &[place("root")]);
        let mirrors = unit("never", "a.service", Reload, &[place("mirrors")]);
        let other = unit("other", "a.service", Restart, &[place("root")]);
        let all = [place("mirrors"), place("root")];
        let both = [mirrors, root.clone()];
        assert_eq!(due(&[], &both, &all, &[]), (one(Reload), one(Restart)));
        assert_eq!(due(&[], &[root, other], &all, &[]), (one(Restart), vec![]));
    }

    #[test]
    fn what_waits_is_told_once_it_may_be() {
        use Action::{Reload, Restart};
        let unit = |by, action| unit(by, "a.service", action, &[place("root")]);
        let waits = [("a.service", Restart)];
        let nothing = (vec![], vec![]);
        let told = |after: &[Owned<Unit>], waits: &[_]| due(&[], after, &[], waits);
        assert_eq!(told(&[unit("x", Restart)], &waits), (one(Restart), vec![]));
        assert_eq!(told(&[unit("never", Restart)], &waits), nothing);
        // Not in another one's transaction, and not where somebody else says never.
        assert_eq!(told(&[unit("other", Restart)], &waits), nothing);
        let both = [unit("x", Restart), unit("never", Restart)];
        assert_eq!(told(&both, &waits), nothing);
        // What could not be told at all may be more than one of them needs.
        let reload = told(&[unit("x", Reload)], &waits);
        assert_eq!(reload, (one(Restart), vec![]));
        // It waits for something that none of its layers asks for any more.
        let less = [("a.service", Reload)];
        assert_eq!(told(&[unit("x", Restart)], &less), nothing);
        assert_eq!(told(&[], &waits), nothing);
    }

    #[test]
    fn what_is_taken_away_needs_what_the_unit_says_of_that() {
        let before = [unit("x", "a.service", Action::Reload, &[place("mirrors")])];
        assert_eq!(
            due(&before, &[], &[place("mirrors")], &[]),
            (one(Action::Restart), vec![])
        );
    }

    #[test]
    fn unit_files_are_read_again() {
        let due = |path: &str| {
            let changed = [Place::file(path)].into();
            let none = units(&[]);
            Due::of(
                &none,
                &none,
                &|_| Restarts::Allowed,
                &changed,
                &BTreeMap::new(),
                None,
            )
        };
        assert!(due("/etc/systemd/system/docker.service.d/edict.conf").unit_files);
        assert!(!due("/etc/systemd/timesyncd.conf.d/edict.conf").unit_files);
    }
}
