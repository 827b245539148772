//! An update of the agents: which pod is deleted next, and what that waits for. A pure function of
//! what was observed.
//!
//! The `DaemonSet` has the strategy `OnDelete`: an agent becomes what the template says when its pod
//! is deleted, and at no other time. The first one to be replaced is a canary: as long as no agent of
//! the newest revision answers the operator, only one is there at a time. After it come those that
//! are outdated, one kind after the other:
//!
//! 1. **broken**: they do not come up, and nowhere does their revision. Whatever the template says
//!    now is most likely to mend them.
//! 2. **serving**: one at a time; the next when the one before answers.
//! 3. **away**: their node is. Their pods end when it comes back.
//! 4. **at fault**: they do not come up where others of the same revision do, or can't be reached. They
//!    come last of all: nothing would tell such a node from a bad image.
//!
//! All but those that serve have a budget of their own, since nobody is served by them: they neither
//! hold up the others nor use up what those are allowed.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use edict_crds::nodestate::Contact;

/// How many of the agents that serve may be away at once because of an update.
pub const SERVING_MAX: usize = 1;
/// How many of those that do not serve may be replaced at once: it bounds the load on the registry.
pub const OTHERS_MAX: usize = 10;

/// An agent's pod, and what is known of its node.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are facts of three observers, and any of them go together"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Name of the pod.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's version, as it was observed.
    pub resource_version: Option<String>,
    /// Name of the node.
    pub node: String,
    /// Whether the node's kubelet is there, to end and to start pods.
    pub attended: bool,
    /// Which revision of the template the pod was made from.
    pub revision: String,
    /// Whether that is the newest.
    pub current: bool,
    /// Whether the pod is being deleted.
    pub ending: bool,
    /// Whether the kubelet says that the agent runs.
    pub ready: bool,
    /// What the operator says of the node's agent.
    pub contact: Option<Contact>,
    /// Why it does not come up, where that is more than a matter of time.
    pub trouble: Option<String>,
}

impl Agent {
    /// Whether it is there, and the operator can talk to it.
    fn is_well(&self) -> bool {
        !self.ending && self.ready && self.contact == Some(Contact::Ready)
    }

    /// Whether the operator hears from it. One that is too old answers too.
    fn answers(&self) -> bool {
        matches!(self.contact, Some(Contact::Ready | Contact::AgentTooOld))
    }

    /// Whether its node is without an agent, or about to be, in a way that somebody waits for.
    fn is_awaited(&self) -> bool {
        self.attended && (self.ending || (self.current && !self.is_well()))
    }
}

/// The kinds of outdated agents, in the order in which they are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Broken,
    Serving,
    Away,
    /// It serves, and with its kubelet away no other would take its place: it is left alone.
    Unattended,
    AtFault,
}

/// What is to be done, and what has to happen first.
#[derive(Debug, Default, PartialEq)]
pub struct Plan<'a> {
    /// The agents whose pods are to be deleted now.
    pub replace: Vec<&'a Agent>,
    /// Those that are on their way, or should be.
    pub awaited: Vec<&'a Agent>,
    /// Those whose node is away, and that are not what they should be.
    pub away: Vec<&'a Agent>,
    /// How many nodes should have an agent and have no pod yet.
    pub missing: usize,
    /// How many agents are not of the newest revision and not being replaced yet.
    pub outdated: usize,
}

impl<'a> Plan<'a> {
    /// The agent that halts the update, with the reason: there is more to replace, nothing is, and
    /// that is no matter of time.
    pub fn halted(&self) -> Option<(&'a Agent, &'a str)> {
        if self.outdated == 0 || !self.replace.is_empty() {
            return None;
        }
        self.trouble()
    }

    /// The first agent that does not come up, with the reason.
    pub fn trouble(&self) -> Option<(&'a Agent, &'a str)> {
        self.awaited
            .iter()
            .find_map(|agent| Some((*agent, agent.trouble.as_deref()?)))
    }
}

/// Plans. `missing` is the number of nodes that should have an agent and have no pod yet.
pub fn plan(agents: &[Agent], missing: usize) -> Plan<'_> {
    let mut awaited: Vec<_> = agents.iter().filter(|agent| agent.is_awaited()).collect();
    awaited.sort_by(|a, b| a.node.cmp(&b.node));
    let mut outdated: Vec<_> = agents
        .iter()
        .filter(|agent| !agent.current && !agent.ending)
        .collect();
    outdated.sort_by(|a, b| a.node.cmp(&b.node));
    let proven = agents
        .iter()
        .any(|agent| agent.current && agent.attended && agent.is_well());
    let ready = agents.iter().filter(|agent| agent.ready);
    let working: BTreeSet<&str> = ready.map(|agent| &*agent.revision).collect();
    let candidates = outdated.iter().map(|agent| (kind(agent, &working), *agent));
    // A canary on a node that is away would prove nothing.
    let candidates: Vec<_> = candidates
        .filter(|(_, agent)| proven || agent.attended)
        .collect();
    let first = candidates.iter().map(|(kind, _)| *kind).min();
    let down = awaited.len() + missing;
    let unattended = agents.iter().filter(|agent| !agent.attended);
    // These end when their kubelet is back.
    let stuck = unattended.clone().filter(|agent| agent.ending);
    let budget = match first {
        _ if !proven => 1_usize.saturating_sub(down),
        Some(Kind::Serving) => SERVING_MAX.saturating_sub(down),
        Some(Kind::Broken | Kind::AtFault) => OTHERS_MAX.saturating_sub(down),
        Some(Kind::Away) => OTHERS_MAX.saturating_sub(stuck.count()),
        Some(Kind::Unattended) | None => 0,
    };
    let replace = candidates
        .into_iter()
        .filter(|(kind, _)| Some(*kind) == first)
        .map(|(_, agent)| agent)
        .take(budget)
        .collect();
    let right = |agent: &&Agent| agent.current && agent.is_well();
    Plan {
        replace,
        awaited,
        away: unattended.filter(|agent| !right(agent)).collect(),
        missing,
        outdated: outdated.len(),
    }
}

/// Of which kind an outdated agent is, where these are the revisions that come up somewhere.
fn kind(agent: &Agent, working: &BTreeSet<&str>) -> Kind {
    match (agent.attended, agent.answers()) {
        (false, false) => Kind::Away,
        (false, true) => Kind::Unattended,
        (true, true) if agent.ready => Kind::Serving,
        (true, _) if agent.ready || working.contains(&*agent.revision) => Kind::AtFault,
        (true, _) => Kind::Broken,
    }
}
