//! Making a change live: units are told, and watched for a while. The files are there before, and a
//! unit that does not run with them any more has them put back.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use edict_core::guard::text::mask;
use edict_core::resource::Action;

use super::due::Due;
use super::transact::Way;
use crate::state::Pending;
use crate::units::{self, Active, Load, Manager, Shown, Units};

/// How long a unit that was told something may take until it runs. systemd itself waits for units
/// that say when they are ready.
const READY: Duration = Duration::from_secs(90);
/// How often units are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// The most characters of one line of the journal that are said.
const LINE_MAX: usize = 200;

/// A unit does not run with what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unit} {what}{}", said(.lines))]
pub struct Failure {
    /// Which one.
    pub unit: String,
    /// What it does instead.
    pub what: String,
    /// Its last lines in the journal.
    pub lines: Vec<String>,
}

fn said(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    // Masked before it is cut: an at sign behind the cut tells that credentials stand before it.
    let plain = |line: &String| {
        let line = mask(line);
        let mut plain: String = line
            .chars()
            .filter(|c| !c.is_control())
            .take(LINE_MAX)
            .collect();
        if line.chars().nth(LINE_MAX).is_some() {
            plain.push('…');
        }
        plain
    };
    let lines: Vec<_> = lines.iter().map(plain).collect();
    format!("; its journal, newest first: {}", lines.join(" | "))
}

/// What is to be told to units that are there and run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Whether systemd has to read unit files again before.
    pub unit_files: bool,
    /// The units, what each needs, and how it was before.
    pub units: BTreeMap<String, Pending>,
    /// Those among them that had failed before: they can't become worse.
    pub ill: Vec<String>,
    /// Those that do not run, or are not there: they read everything when they start.
    pub idle: Vec<String>,
    /// Those that systemd can run as they are, whether they do or not.
    pub sound: Vec<String>,
    /// The units that wait from now on.
    pub pending: BTreeMap<String, Pending>,
}

impl Orders {
    /// What can be told now. Asks how the units are, and tells them nothing.
    pub fn of(manager: &Manager, due: &Due) -> Result<Self, units::Error> {
        let mut orders = Self::default();
        let units = match manager {
            Manager::Offline => return Ok(orders),
            Manager::OutOfReach(_) | Manager::Commands(..) => {
                for (unit, action) in due.now.iter().chain(&due.later) {
                    let pending = Pending::new(*action, None);
                    orders.pending.insert(unit.clone(), pending);
                }
                return Ok(orders);
            }
            Manager::Runs(units) => units,
        };
        orders.unit_files = due.unit_files;
        for (unit, action) in &due.now {
            let shown = units.show(unit)?;
            if shown.load == Load::Loaded {
                orders.sound.push(unit.clone());
            }
            if shown.needs(*action) {
                if shown.active == Active::Failed {
                    orders.ill.push(unit.clone());
                }
                orders.units.insert(unit.clone(), shown.pending(*action));
            } else {
                orders.idle.push(unit.clone());
            }
        }
        for (unit, action) in &due.later {
            let shown = units.show(unit)?;
            if shown.needs(*action) {
                orders.pending.insert(unit.clone(), shown.pending(*action));
            }
        }
        Ok(orders)
    }

    /// The units that wait once all is done, of those that waited before.
    pub fn leave(&self, before: &BTreeMap<String, Pending>) -> BTreeMap<String, Pending> {
        let mut pending = before.clone();
        pending.retain(|unit, waits| {
            let told = self.units.get(unit);
            told.is_none_or(|told| told.action < waits.action) && !self.idle.contains(unit)
        });
        for (unit, waits) in &self.pending {
            // What it waits for already may be more.
            let more = pending
                .get(unit)
                .is_some_and(|known| known.action > waits.action);
            if !more {
                pending.insert(unit.clone(), waits.clone());
            }
        }
        pending
    }

    /// And these, which have read what is taken back, although they do not run any more: that may be
    /// why.
    pub fn also(&mut self, misled: &BTreeMap<String, Pending>) {
        for (name, unit) in misled.iter().filter(|(name, _)| self.idle.contains(name)) {
            self.units.entry(name.clone()).or_insert(unit.clone());
        }
    }

    /// The units as they are written down before the first file changes.
    pub fn begun(&self, way: &Way) -> BTreeMap<String, Pending> {
        let mut units = self.units.clone();
        if let Way::Back(before) = way {
            // What was written down of an interrupted change still holds.
            units.extend(before.clone());
        }
        units
    }

    /// Whether nobody is told anything.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.unit_files
    }

    /// Tells the units, and watches them. `told` says of a unit whether it needs to be told no more.
    pub fn carry_out(
        &self,
        units: &dyn Units,
        told: &dyn Fn(&Pending, &Shown) -> bool,
    ) -> Result<(), Failure> {
        if self.unit_files
            && let Err(error) = units.daemon_reload()
        {
            return Err(Failure {
                unit: "systemd".to_owned(),
                what: format!("does not read its unit files: {error}"),
                lines: Vec::new(),
            });
        }
        // A setting may be none for a unit of its kind, and systemd then runs it no more.
        for unit in self.sound.iter().filter(|_| self.unit_files) {
            if let Ok(Shown {
                load: Load::Broken(how),
                ..
            }) = units.show(unit)
            {
                let what = format!("can't be run by systemd any more: it is {how}");
                return Err(failure(units, unit, what));
            }
        }
        for (unit, pending) in &self.units {
            let outcome = match units.show(unit) {
                Ok(shown) if told(pending, &shown) => Ok(()),
                Ok(_) => {
                    tracing::info!(unit, action = %pending.action, "telling a unit");
                    units.tell(unit, pending.action)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome
                && !self.ill.contains(unit)
            {
                return Err(failure(units, unit, format!("does not do it: {error}")));
            }
        }
        self.watch(units)
    }

    /// Waits until the units run, and for a while longer.
    fn watch(&self, units: &dyn Units) -> Result<(), Failure> {
        let well: Vec<_> = self
            .units
            .iter()
            .filter(|(unit, _)| !self.ill.contains(unit))
            .collect();
        let deadline = Instant::now() + READY;
        let settling = units.settling();
        let mut since: Option<(Instant, Vec<Shown>)> = None;
        loop {
            let mut now = Vec::new();
            for (unit, _) in &well {
                let shown = units
                    .show(unit)
                    .map_err(|error| failure(units, unit, format!("can't be watched: {error}")))?;
                let runs = shown.active == Active::Active
                    || (shown.oneshot && shown.active == Active::Inactive);
                if !runs && (shown.active != Active::Changing || Instant::now() > deadline) {
                    return Err(failure(units, unit, shown.how().to_owned()));
                }
                now.push(shown);
            }
            let calm = now.iter().all(|shown| shown.active != Active::Changing);
            match &since {
                Some((begin, before)) if calm => {
                    let mut both = before.iter().zip(&now).zip(&well);
                    // What does something once may be started by whatever starts it.
                    let anew = |(before, now): &(&Shown, &Shown)| {
                        !now.oneshot && before.mark.invocation != now.mark.invocation
                    };
                    if let Some((_, (unit, _))) = both.find(|(pair, _)| anew(pair)) {
                        let what = "does not stay up: systemd starts it again and again";
                        return Err(failure(units, unit, what.to_owned()));
                    }
                    if begin.elapsed() >= settling {
                        return Ok(());
                    }
                }
                _ if calm => {
                    if settling.is_zero() {
                        return Ok(());
                    }
                    since = Some((Instant::now(), now));
                }
                _ => {}
            }
            thread::sleep(LOOK);
        }
    }

    /// Tells the units once more, now that what they read is as it was before, each whatever becomes of
    /// the others, and says which of them do not run even so.
    pub fn carry_back(&self, units: &dyn Units) -> Vec<String> {
        let mut sorry = Vec::new();
        let mut note = |failure: Failure| {
            if !self.ill.contains(&failure.unit) {
                sorry.push(failure.to_string());
            }
        };
        if self.unit_files
            && let Err(error) = units.daemon_reload()
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "unit files are not read"
            );
        }
        for (unit, pending) in &self.units {
            // One that ended over what it read can't reread: it has to start.
            let ended = units.show(unit).is_ok_and(|shown| {
                !shown.oneshot && matches!(shown.active, Active::Failed | Active::Inactive)
            });
            let action = if ended {
                Action::Restart
            } else {
                pending.action
            };
            if let Err(error) = units.tell(unit, action) {
                note(failure(units, unit, format!("does not do it: {error}")));
                continue;
            }
            let one = Self {
                units: [(unit.clone(), pending.clone())].into(),
                ..Self::default()
            };
            if let Err(failure) = one.watch(units) {
                note(failure);
            }
        }
        sorry
    }
}

impl Shown {
    /// Whether a unit that is so has to be told this. One that does not run reads everything when it
    /// starts; one that has failed may run now.
    pub fn needs(&self, action: Action) -> bool {
        match (&self.load, self.active) {
            (Load::Absent | Load::Broken(_), _) => false,
            (Load::Loaded, Active::Active | Active::Changing) => true,
            (Load::Loaded, Active::Failed) => action == Action::Restart,
            (Load::Loaded, Active::Inactive) => self.oneshot && action == Action::Restart,
        }
    }

    fn pending(self, action: Action) -> Pending {
        Pending::new(action, Some(self.mark))
    }

    fn how(&self) -> &'static str {
        match self.active {
            Active::Active => "runs",
            Active::Changing => "is not ready in time",
            Active::Inactive => "does not run any more",
            Active::Failed => "has failed",
        }
    }
}

fn failure(units: &dyn Units, unit: &str, what: String) -> Failure {
    Failure {
        unit: unit.to_owned(),
        what,
        lines: units.journal(unit),
    }
}
