//! What became of commands, as a node's agent says it. Pure.

use edict_core::guard::text;
use edict_core::wire::{CommandOutcome, CommandReport, Hello, Push, Report};
use edict_crds::NodeStateStatus;
use edict_crds::nodestate::{CommandStatus, LayerStatus, OutcomeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::compose::cut_to;

/// The most commands that a status lists.
const COMMANDS_MAX: usize = 64;
/// The most bytes that all outputs of a node have in its status.
const OUTPUTS_MAX: usize = 48 * 1024;
/// The longest message of one of them, in characters.
const MESSAGE_MAX: usize = 300;

/// The commands of a layer: which it is, and how many.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    uid: String,
    digest: String,
    count: usize,
}

/// The commands that an agent is told to run.
pub fn expected(push: &Push) -> Vec<Expected> {
    let count = |layer: &edict_core::layer::Layer| layer.config.command_names().count();
    let layers = push.layers.iter().filter(|layer| count(layer) > 0);
    layers
        .map(|layer| Expected {
            uid: layer.uid.clone(),
            digest: layer.digest.clone(),
            count: count(layer),
        })
        .collect()
}

impl Expected {
    fn reports<'a>(&'a self, hello: &'a Hello) -> impl Iterator<Item = &'a CommandReport> {
        let own = |one: &&CommandReport| one.uid == self.uid && one.digest == self.digest;
        hello.commands.iter().filter(own)
    }
}

/// Whether an agent that has answered so knows of all commands of what is in force there: it may have
/// had no room to write them down.
pub fn are_known(expected: &[Expected], report: &Report, hello: &Hello) -> bool {
    let in_force = |one: &&Expected| {
        let mut layers = report.layers.iter();
        layers.any(|layer| layer.uid == one.uid && layer.in_force.as_ref() == Some(&one.digest))
    };
    let mut expected = expected.iter().filter(in_force);
    expected.all(|one| one.reports(hello).count() >= one.count)
}

/// Adds what became of commands to the status of a node.
pub fn add(status: &mut NodeStateStatus, expected: &[Expected], hello: &Hello) {
    for layer in &mut status.layers {
        let own = |one: &&Expected| one.uid == layer.uid && one.digest == layer.digest;
        if let Some(expected) = expected.iter().find(own) {
            judge(layer, expected, hello);
        }
    }
    let listed = hello.commands.iter().take(COMMANDS_MAX);
    let speaking = listed.clone().filter(|one| !one.output.is_empty()).count();
    let share = OUTPUTS_MAX / speaking.max(1);
    status.commands = listed.map(|report| shown(report, share)).collect();
}

/// What the commands of a layer make of it.
fn judge(layer: &mut LayerStatus, expected: &Expected, hello: &Hello) {
    if layer.in_force.as_ref() != Some(&layer.digest) {
        return;
    }
    let pending = match layer.outcome {
        OutcomeStatus::Applied => false,
        OutcomeStatus::PendingReload | OutcomeStatus::PendingRestart | OutcomeStatus::Unread => {
            true
        }
        _ => return,
    };
    let mut failed = expected.reports(hello).filter(|one| came_to_nothing(one));
    let running = expected.reports(hello).find(|one| !one.outcome.is_over());
    let said = if let Some(failed) = failed.next() {
        layer.outcome = OutcomeStatus::CommandFailed;
        format!("command {}: {}", failed.run, words(failed))
    } else if running.is_some() || expected.reports(hello).count() < expected.count {
        if !pending {
            layer.outcome = OutcomeStatus::Running;
        }
        let name = running.map(|running| format!(" {}", running.run));
        let why = running.filter(|running| !running.message.is_empty());
        let why = why.map(|running| format!(": {}", words(running)));
        let (name, why) = (name.unwrap_or_default(), why.unwrap_or_default());
        format!("command{name} has yet to end{why}")
    } else {
        return;
    };
    let all = [said, std::mem::take(&mut layer.message)];
    let all: Vec<_> = all.into_iter().filter(|said| !said.is_empty()).collect();
    layer.message = cut_to(&all.join("; "), super::compose::MESSAGE_MAX);
}

/// Whether it is what went wrong, and not only what was held up by that.
fn came_to_nothing(report: &CommandReport) -> bool {
    report.outcome.has_failed() && report.outcome != CommandOutcome::Skipped
}

fn words(report: &CommandReport) -> String {
    match &*report.message {
        "" => format!("{:?}", report.outcome),
        message => cut_to(&text::mask(message), MESSAGE_MAX),
    }
}

/// As Kubernetes has times: what is compared with a status that was read is not to differ from it.
fn to_the_second(at: Timestamp) -> Option<Time> {
    Timestamp::from_second(at.as_second()).ok().map(Time)
}

fn shown(report: &CommandReport, share: usize) -> CommandStatus {
    let CommandReport {
        uid: _,
        owner,
        digest,
        index,
        run,
        outcome,
        exit_code,
        started,
        milliseconds,
        output,
        message,
    } = report;
    CommandStatus {
        owner: owner.clone(),
        digest: digest.clone(),
        index: *index,
        run: run.clone(),
        outcome: *outcome,
        exit_code: *exit_code,
        started: started.and_then(to_the_second),
        milliseconds: milliseconds.map(|time| i64::try_from(time).unwrap_or(i64::MAX)),
        output: text::shorten(&text::mask(output), share),
        message: cut_to(&text::mask(message), MESSAGE_MAX),
    }
}

/// The commands that have ended and were not known to have: each in a sentence, with whether it is to be
/// looked at. What has ended before others that are known to have is of a revision that came back.
pub fn news<'a>(
    known: &'a [CommandStatus],
    now: &'a [CommandStatus],
) -> impl Iterator<Item = (bool, String)> + use<'a> {
    fn is_same(one: &CommandStatus, other: &CommandStatus) -> bool {
        (&one.owner, &one.digest, one.index) == (&other.owner, &other.digest, other.index)
    }
    let over = known.iter().filter(|one| one.outcome.is_over());
    let newest = over.filter_map(|one| one.started.as_ref()).max();
    let is_news = move |one: &&CommandStatus| {
        let mut before = known
            .iter()
            .filter(|before| is_same(before, one))
            .peekable();
        match before.peek() {
            Some(_) => before.all(|before| !before.outcome.is_over()),
            None => one.started.as_ref() > newest,
        }
    };
    let ended = now
        .iter()
        .filter(|one| one.outcome.is_over() && one.outcome != CommandOutcome::Skipped);
    ended.filter(is_news).map(|one| {
        let CommandStatus {
            owner,
            run,
            outcome,
            message,
            ..
        } = one;
        let why = match &**message {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let warning = *outcome != CommandOutcome::Succeeded;
        let said = format!("command {run} of NodeConfig {owner}: {outcome:?}{why}");
        (warning, said)
    })
}

#[cfg(test)]
mod tests;
