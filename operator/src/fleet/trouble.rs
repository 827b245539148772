//! Why an agent does not come up, in the kubelet's words or the operator's. Pure.

#[cfg(test)]
mod tests;

use edict_core::guard::text;
use edict_crds::NodeStateStatus;
use edict_crds::nodestate::Contact;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How long an agent may take to come up, to answer or to end before that is worth a word. Its probe
/// gives it one minute to start, its grace period half of one to end.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);
/// What a container waits for that is on its way.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The most of anybody's words that are passed on, in characters.
const WORDS_MAX: usize = 300;

/// Why the agent in `pod` does not come up, does not answer or does not end, where that is more than
/// a matter of time. `state` is what the operator says of its node.
pub fn of(pod: &Pod, state: Option<&NodeStateStatus>, now: Timestamp) -> Option<String> {
    let minutes = PATIENCE.as_mins();
    let long =
        |since: Option<&Time>| since.is_some_and(|since| now.duration_since(since.0) > PATIENCE);
    if let ending @ Some(_) = pod.metadata.deletion_timestamp.as_ref() {
        let why = || format!("it should have ended more than {minutes} minutes ago");
        return long(ending).then(why);
    }
    let ready = condition(pod, "Ready");
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref());
    if ready.is_some_and(|ready| ready.status == "True") {
        let said = words(state.map_or("", |state| &state.message));
        return match state.and_then(|state| state.state) {
            Some(Contact::Ready) => None,
            Some(Contact::AgentTooOld) => Some(said),
            _ => long(since).then(|| format!("it runs, and can't be reached: {said}")),
        };
    }
    stuck(pod).or_else(|| {
        let since = since.or(pod.metadata.creation_timestamp.as_ref());
        let why = || {
            format!(
                "it is not ready for more than {minutes} minutes: {}",
                slow(pod)
            )
        };
        long(since).then(why)
    })
}

/// A condition of a pod.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|one| one.type_ == kind)
}

/// Why it does not get on by itself, or only after a while.
fn stuck(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        return Some(said(reason, status.message.as_deref()));
    }
    let waiting = |container: &ContainerStatus| {
        let state = container.state.as_ref()?.waiting.clone()?;
        let reason = state.reason.as_deref()?;
        (!STARTING.contains(&reason)).then(|| crashed(container, &state, reason))
    };
    status.container_statuses.iter().flatten().find_map(waiting)
}

/// What a container waits for and, where it has ended before, how.
fn crashed(container: &ContainerStatus, state: &ContainerStateWaiting, reason: &str) -> String {
    let waits = said(reason, state.message.as_deref());
    let last = container.last_state.as_ref();
    match last.and_then(|last| last.terminated.as_ref()) {
        Some(ended) => format!("{waits}; it ended with exit code {}", ended.exit_code),
        None => waits,
    }
}

/// The nearest to a reason that there is for one that takes its time.
fn slow(pod: &Pod) -> String {
    let unmet = |kind| condition(pod, kind).filter(|one| one.status != "True");
    let unmet = ["PodScheduled", "ContainersReady", "Ready"]
        .into_iter()
        .find_map(unmet);
    let Some(unmet) = unmet else {
        return "its kubelet says nothing about it".to_owned();
    };
    said(
        unmet.reason.as_deref().unwrap_or("?"),
        unmet.message.as_deref(),
    )
}

fn said(reason: &str, message: Option<&str>) -> String {
    match message {
        Some(message) if !message.is_empty() => words(&format!("{reason}: {message}")),
        _ => words(reason),
    }
}

/// Somebody's words in one line, cut, and without credentials.
fn words(text: &str) -> String {
    let masked = text::mask(text);
    let line: Vec<_> = masked.split_whitespace().collect();
    let line = line.join(" ");
    let mut cut: String = line.chars().take(WORDS_MAX).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}
