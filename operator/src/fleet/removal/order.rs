//! A Fleet's end: what it brought up goes in reverse order. Pure.
//!
//! What is in force on the nodes stays so, and so do the agents' state folders: a Fleet that is
//! created again goes on from there.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// What is waited for is given up on after this time, counted from the Fleet's deletion: an agent has
/// half a minute to end, and garbage collection may be behind.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Something that a Fleet brought up, in the order in which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The certificate authority.
    Authority,
    /// The agents' certificate.
    AgentCertificate,
    /// The operator's certificate.
    OperatorCertificate,
    /// The agents' `ServiceAccount`.
    ServiceAccount,
    /// The agents' Service.
    Service,
    /// The agents.
    DaemonSet,
}

impl Object {
    /// In the order in which they are brought up.
    pub const ALL: [Self; 6] = [
        Self::Authority,
        Self::AgentCertificate,
        Self::OperatorCertificate,
        Self::ServiceAccount,
        Self::Service,
        Self::DaemonSet,
    ];
}

/// What is there still.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Left {
    /// NodeConfigs that are being deleted and not given back everywhere yet.
    pub leaving: Vec<String>,
    /// What the Fleet brought up, and whether it is being deleted already.
    pub objects: Vec<(Object, bool)>,
    /// The nodes whose kubelet is there and where an agent has not ended.
    pub agents: Vec<String>,
    /// For how long the Fleet has been deleted.
    pub since: Duration,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing, for this reason.
    Wait(String),
    /// Delete this.
    Delete(Object),
    /// Nothing is left: let go of the Fleet.
    Free,
}

/// Says what is to be done next. A node that is away holds nothing up.
pub fn next(left: &Left) -> Step {
    let patient = left.since < PATIENCE;
    if patient && !left.leaving.is_empty() {
        let names = left.leaving.join(", ");
        return Step::Wait(format!("NodeConfigs are being given back first: {names}"));
    }
    let left_of = |object| left.objects.iter().find(|(other, _)| *other == object);
    for object in Object::ALL.into_iter().rev() {
        match left_of(object) {
            Some((_, false)) => return Step::Delete(object),
            Some((_, true)) if patient => {
                return Step::Wait(format!("{object:?} is being deleted"));
            }
            _ => {}
        }
        if object == Object::DaemonSet && patient && !left.agents.is_empty() {
            let nodes = left.agents.join(", ");
            return Step::Wait(format!("agents are ending on {nodes}"));
        }
    }
    Step::Free
}
