//! What a `NodeConfig` of mode Plan would change on a node: what to ask its agent, and what the answer
//! means. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use edict_core::config::firewall::Facts;
use edict_core::config::{Config, sysctl};
use edict_core::content::Contents;
use edict_core::guard::{Policy, text};
use edict_core::resource::{Action, is_under};
use edict_core::wire::{Change, Hello, Outcome, Planned, Push};
use edict_crds::nodestate::{LayerRef, PlanOutcome, PlanStatus};

use super::compose::{self, ENTRIES_MAX, MESSAGE_MAX, TooOld};

/// How long a plan is taken for true while nothing says otherwise: nobody tells when somebody else
/// changes a file that is not Edict's.
pub const AGAIN: Duration = Duration::from_mins(5);
/// How long it is left at that where a plan could not be made.
pub const RETRY: Duration = Duration::from_secs(30);
/// How long a node may be asked for its plans in one go: what is to be in force goes before them.
pub const WITHIN: Duration = Duration::from_secs(30);
/// The shortest that a message is cut to, in characters, however many plans there are.
const MESSAGE_MIN: usize = 200;
/// The longest command that is shown, in characters, where there is one plan.
const COMMAND_MAX: usize = 1024;
/// And however many plans there are.
const COMMAND_MIN: usize = 80;
/// The most bytes that all diffs of a node may have in its status.
const DIFFS_MAX: usize = 64 * 1024;

/// The plans of a node, as its agent said them.
#[derive(Default)]
pub struct Plans(BTreeMap<String, Known>);

struct Known {
    /// What was asked, of which state of the node.
    asked: String,
    /// Until when it counts.
    until: Instant,
    status: PlanStatus,
}

impl Plans {
    /// What is known of a `NodeConfig`'s plan, if that is what would be asked now.
    pub fn known(&self, uid: &str, asked: &str, now: Instant) -> Option<PlanStatus> {
        let known = self.0.get(uid)?;
        (known.asked == asked && now < known.until).then(|| known.status.clone())
    }

    /// What was said last of a revision.
    pub fn last(&self, reference: &LayerRef) -> Option<PlanStatus> {
        let known = self.0.get(&reference.uid)?;
        let same = known.status.revision == reference.revision;
        same.then(|| known.status.clone())
    }

    /// Keeps for so long what is said, and gives it back.
    pub fn keep(&mut self, asked: String, status: PlanStatus, lasts: Duration) -> PlanStatus {
        let known = Known {
            asked,
            until: Instant::now() + lasts,
            status: status.clone(),
        };
        self.0.insert(status.uid.clone(), known);
        status
    }

    /// Forgets the plans that are wanted no more.
    pub fn retain(&mut self, wanted: &[LayerRef]) {
        self.0
            .retain(|uid, _| wanted.iter().any(|plan| plan.uid == *uid));
    }
}

/// What to ask the agent of `node`, or what is to be said without asking.
pub fn question(
    node: &str,
    reference: &LayerRef,
    config: Config,
    contents: Contents,
    hello: &Hello,
    policy: &Policy,
    facts: &Facts,
) -> Result<Push, Box<PlanStatus>> {
    let said = |outcome, message: &str| Err(Box::new(status(reference, outcome, message)));
    if !hello.plans {
        let old = "the agent plans nothing yet: update the Fleet's agent image";
        return said(PlanOutcome::Failed, old);
    }
    match compose::layer(reference, config, contents, hello, policy, facts) {
        Err(TooOld(message)) => said(PlanOutcome::Failed, &message),
        Ok(Err((_, violations))) => said(PlanOutcome::Refused, &compose::message("", &violations)),
        Ok(Ok(layer)) => Ok(compose::push(node, policy, vec![layer], Vec::new())),
    }
}

/// What an agent's answer makes of the status. `share` is how many plans of this node there are.
pub fn answer(reference: &LayerRef, mut planned: Planned, share: usize) -> PlanStatus {
    let room = DIFFS_MAX / share.max(1);
    // The rest is for what is said of files without a diff.
    planned.cut(room / 4 * 3);
    let changes = sentence(&planned);
    let most = ENTRIES_MAX / share.max(1);
    let layers = &planned.report.layers;
    let Some(layer) = layers.iter().find(|layer| layer.uid == reference.uid) else {
        return status(
            reference,
            PlanOutcome::Failed,
            "the agent says nothing of it",
        );
    };
    let said = compose::message(&layer.message, &layer.violations);
    let (outcome, message) = match layer.outcome {
        Outcome::Refused => (PlanOutcome::Refused, said),
        Outcome::Failed => (PlanOutcome::Failed, said),
        Outcome::Applied | Outcome::PendingReload | Outcome::Unread => {
            let outcome = if changes.is_some() {
                PlanOutcome::Changes
            } else {
                PlanOutcome::Unchanged
            };
            let changes = changes.unwrap_or_else(|| "would change nothing".to_owned());
            let others: BTreeSet<_> = layer
                .conflicts
                .iter()
                .map(|conflict| &*conflict.winner_name)
                .collect();
            let others = others.into_iter().filter(|name| !name.is_empty());
            let others = others.map(|name| format!("some of it belongs to NodeConfig {name}"));
            let all = [changes].into_iter().chain(others).chain([said]);
            let all: Vec<_> = all.filter(|said| !said.is_empty()).collect();
            (outcome, all.join("; "))
        }
    };
    let units = planned.units.iter().take(most);
    let message = compose::cut_to(&message, (MESSAGE_MAX / share.max(1)).max(MESSAGE_MIN));
    PlanStatus {
        conflicts: compose::conflicts(&planned.report, layer, most),
        units: units
            .map(|(unit, action)| format!("{unit}: {action}"))
            .collect(),
        diff: diff(&planned, room),
        commands: commands(&planned, share),
        ..status(reference, outcome, &message)
    }
}

/// The status where nobody can say what would change.
pub fn failed(reference: &LayerRef, why: &str) -> PlanStatus {
    status(reference, PlanOutcome::Failed, &text::mask(why))
}

/// What the plan says of files, one after the other, as long as there is room.
fn diff(planned: &Planned, room: usize) -> String {
    let mut diff = String::new();
    for (n, change) in planned.changes.iter().enumerate() {
        let said = text::visible(&text::mask(&change.to_string()));
        if diff.len() + said.len() > room {
            let more = planned.changes.len() - n;
            writeln!(diff, "{more} more files are left out").expect("a string takes everything");
            break;
        }
        diff.push_str(&said);
    }
    diff
}

/// Commands as they would be run: what a `NodeConfig` says, and so no more than its readers know.
fn commands(planned: &Planned, share: usize) -> Vec<String> {
    let most = (COMMAND_MAX / share.max(1)).max(COMMAND_MIN);
    let shown = planned
        .commands
        .iter()
        .take((ENTRIES_MAX / share.max(1)).max(1));
    let said = shown.map(|command| text::visible(&text::mask(&command.to_string())));
    said.map(|said| compose::cut_to(&said, most)).collect()
}

/// How many files and settings of the kernel, which units, and which commands.
fn sentence(planned: &Planned) -> Option<String> {
    let is_setting = |change: &&Change| is_under(&change.path, sysctl::ROOT);
    let settings = planned.changes.iter().filter(is_setting).count();
    let counted = |count, verb, what| match count {
        0 => None,
        1 => Some(format!("{verb} 1 {what}")),
        more => Some(format!("{verb} {more} {what}s")),
    };
    let files = counted(planned.changes.len() - settings, "change", "file");
    let settings = counted(settings, "set", "kernel setting");
    let units = planned.units.iter().take(ENTRIES_MAX);
    let units = units.map(|(unit, action)| match action {
        Action::Reread => format!("have systemd reread {unit}"),
        Action::Reload | Action::Restart => format!("{action} {unit}"),
    });
    let commands = planned.commands.iter().take(ENTRIES_MAX);
    let commands = commands.map(|command| format!("run {}", command.run));
    let all = files.into_iter().chain(settings).chain(units);
    let all: Vec<_> = all.chain(commands).collect();
    (!all.is_empty()).then(|| format!("would {}", all.join(", ")))
}

fn status(reference: &LayerRef, outcome: PlanOutcome, message: &str) -> PlanStatus {
    PlanStatus {
        uid: reference.uid.clone(),
        name: reference.name.clone(),
        revision: reference.revision.clone(),
        outcome,
        message: compose::cut(message),
        conflicts: Vec::new(),
        units: Vec::new(),
        diff: String::new(),
        commands: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
