//! The messages between operator and agent: JSON over HTTP/2 over mutual TLS 1.3.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/hello` | | [`Hello`] |
//! | `GET /v1/drift/N` | | how often what is known of drift has changed, a number: as soon as it is not N, or after half a minute |
//! | `POST /v1/plan` | [`Push`] | [`Planned`]: what the push would do; nothing is written |
//! | `POST /v1/confirm/MARK` | `null`, or a sentence that says why not yet | whether that [`Probation`] is waited for |
//! | `POST /v1/reach` | an address with a port | whether a TCP connection to it comes about within 3 s |
//! | `POST /v1/push` | [`Push`] | a stream of [`Event`]s, one JSON object a line, the last one [`Event::Done`]; an empty line while the agent waits for something |
//!
//! A request that is refused as a whole answers with a status of 4xx and a [`Refusal`].

mod command;
mod planned;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decode;
use crate::guard::{Policy, Violation};
use crate::layer::{DeletionPolicy, Layer};
use crate::resolve::Conflict;
pub use command::{CommandOutcome, CommandReport};
pub use planned::{Change, Kind, Planned, PlannedCommand};

/// The version of these messages.
pub const VERSION: u32 = 4;
/// The oldest version that both sides still speak. An agent refuses a push of any before.
pub const OLDEST: u32 = 1;
/// The version that added [`Fence`].
pub const FENCES: u32 = 2;
/// The version that added [`Layer::retry`] and [`LayerReport::held`]. Who speaks an older one reads
/// no message that has them, and can't ask for another try: nothing is held for it.
pub const HOLDS: u32 = 3;
/// The version that added [`Layer::restarts`], [`LayerReport::restart`], and empty lines between events
/// while nothing happens.
pub const UNITS: u32 = 4;
/// The most bytes that a message may have, 16 MiB: every layer of a node at its largest, with room.
pub const MESSAGE_MAX: usize = 16_777_216;
/// The path of [`Hello`].
pub const HELLO: &str = "/v1/hello";
/// The path where drift is waited for; behind it the count that is known.
pub const DRIFTS: &str = "/v1/drift";
/// The path of a [`Push`] that is only planned. Its fence is not compared: nothing is done.
pub const PLAN: &str = "/v1/plan";
/// The path where an operator says that it has reached a node anew; behind it the mark of a [`Probation`].
pub const CONFIRM: &str = "/v1/confirm";
/// The path where an agent is asked whether another node is reached from its own.
pub const REACH: &str = "/v1/reach";
/// The path of [`Push`].
pub const PUSH: &str = "/v1/push";
/// The port that agents listen on.
pub const PORT: u16 = 9443;
/// The DNS name in every agent's server certificate.
pub const AGENT_NAME: &str = "edict-agent";
/// The DNS name in the operator's client certificate: agents accept no other.
pub const OPERATOR_NAME: &str = "edict-operator";

/// Who the agent is and what it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The wire version that it speaks.
    pub wire: u32,
    /// The name of its node.
    pub node: String,
    /// Its release, `0.1.0` for instance.
    pub version: String,
    /// The blocks of configuration that it knows.
    pub blocks: Vec<String>,
    /// The greatest fence that it has seen; absent in wire version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The layers that are in force on the node.
    pub layers: Vec<Held>,
    /// How the last push ended; absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What somebody else has changed of what is in force. An agent that says it knows [`Layer::drift`]
    /// too, and can be asked to wait at [`DRIFTS`]; one that does not knows neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drifts: Option<Drifts>,
    /// Whether it can be asked at [`PLAN`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plans: bool,
    /// What became of the commands of the layers that are in force; their count is that of `drifts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandReport>,
    /// Counts the beginnings and ends of [`Probation`]s since the agent started. One that does not say so reads no
    /// [`Push::probations`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probations: Option<u64>,
}

/// What an agent knows of drift on its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifts {
    /// Counts the changes of what is known, and of [`Hello::commands`], since the agent started.
    pub count: u64,
    /// What differs now, and what was corrected within the last hour; 64 at most.
    pub list: Vec<Drifted>,
}

/// Something that somebody else has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifted {
    /// Path of the file, symlinks resolved.
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name of the `NodeConfig` that owns it.
    pub owner: String,
    /// What differs, in a sentence; never what it says.
    pub what: String,
    /// When that was seen.
    pub at: jiff::Timestamp,
    /// What became of it.
    pub outcome: DriftOutcome,
    /// How often it was corrected lately, this time included.
    pub times: u32,
    /// Why it could not be corrected; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What became of something that somebody else has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriftOutcome {
    /// It is again as it should be.
    Corrected,
    /// It is left, as its `NodeConfig` asks.
    Reported,
    /// It is left for a while: somebody changes it again and again.
    Damped,
    /// It could not be corrected.
    Failed,
}

/// A layer that is in force on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The `NodeConfig`'s uid.
    pub uid: String,
    /// The `NodeConfig`'s name.
    pub name: String,
    /// Digest of the revision.
    pub digest: String,
    /// What becomes of it when it leaves, as it was pushed.
    pub deletion_policy: DeletionPolicy,
}

/// The whole desired state of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// The wire version.
    pub wire: u32,
    /// The node that it is meant for: another one's agent refuses it.
    pub node: String,
    /// Who pushes, in the order of those who may; absent in wire version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// What [`Hello::probations`] was before the operator looked by which ways it reaches the node, if it did. Where
    /// it is another number now, nothing can be on probation: what was looked at may have been another one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probations: Option<u64>,
    /// Digest of everything below: names this desired state.
    pub digest: String,
    /// What the administrator allows and refuses.
    pub policy: Policy,
    /// The layers that the node is to have. One that is not named here stays as it is.
    pub layers: Vec<Layer>,
    /// The layers that leave.
    pub releases: Vec<Release>,
}

impl Push {
    /// A push with its digest.
    ///
    /// The digest stands in reports, so contents count in it with their own, keyed ones. Who
    /// pushes does not: the same desired state has the same digest under every leader.
    pub fn new(node: String, policy: Policy, layers: Vec<Layer>, releases: Vec<Release>) -> Self {
        let outlines: Vec<_> = layers.iter().map(Layer::outline).collect();
        let digest = crate::digest::of(&(&policy, &outlines, &releases));
        Self {
            wire: OLDEST,
            node,
            fence: None,
            probations: None,
            digest,
            policy,
            layers,
            releases,
        }
    }

    /// The push as `fence` sends it to an agent that speaks wire version `wire`. What such an agent
    /// does not know is not in `self` already, since it would count in the digest.
    #[must_use]
    pub fn fenced(self, wire: u32, fence: Fence) -> Self {
        let wire = wire.min(VERSION);
        let fence = (wire >= FENCES).then_some(fence);
        Self {
            wire,
            fence,
            ..self
        }
    }
}

/// Which operator pushes, and its which push this is. Of two, the later one is greater: an agent
/// does nothing for one that is less than the greatest that it has seen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fence {
    /// Counts the operators that became leader.
    pub epoch: u64,
    /// Counts the pushes of one leader, to whichever node.
    pub sequence: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// Why a push with the fence `given` is refused by an agent that has seen `seen`.
///
/// An operator that knows no fences is older than any that does.
pub fn refuse_fence(given: Option<Fence>, seen: Fence) -> Option<Refusal> {
    if given.unwrap_or_default() >= seen {
        return None;
    }
    let given = given.map_or_else(|| "none".to_owned(), |fence| fence.to_string());
    Some(Refusal {
        seen: Some(seen),
        ..Refusal::new(
            FENCED,
            format!(
                "another operator leads since: the push has fence {given}, this agent has seen {seen}"
            ),
        )
    })
}

/// A layer that leaves a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The `NodeConfig`'s uid.
    pub uid: String,
    /// The `NodeConfig`'s name.
    pub name: String,
    /// What becomes of its files and keys.
    pub policy: DeletionPolicy,
}

/// What the agent says while it works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// A layer has been released, or could not be.
    Released(ReleaseReport),
    /// A layer has been applied, or could not be.
    Layer(LayerReport),
    /// The operator has to show that it still reaches the node. Only said of layers that an operator who does not
    /// know this does not push.
    Probation(Probation),
    /// Everything is done; the last line.
    Done(Report),
}

/// What of a node is in force on probation: it is put back unless the operator says in time, at [`CONFIRM`]
/// and by a new connection, that it reaches the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probation {
    /// Name of the `NodeConfig`.
    pub name: String,
    /// Names this probation.
    pub mark: String,
    /// How long it is.
    pub seconds: u32,
}

impl Event {
    /// The event as an operator of wire version `wire` reads it.
    #[must_use]
    pub fn said_to(mut self, wire: u32) -> Self {
        if wire < UNITS {
            let layers = match &mut self {
                Self::Released(_) | Self::Probation(_) => &mut [][..],
                Self::Layer(layer) => std::slice::from_mut(layer),
                Self::Done(report) => &mut report.layers,
            };
            for layer in layers {
                layer.restart = false;
            }
        }
        self
    }
}

/// How a push ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Digest of the push.
    pub digest: String,
    /// What became of each layer.
    pub layers: Vec<LayerReport>,
    /// What became of each release.
    pub releases: Vec<ReleaseReport>,
    /// What Edict has on the node now, and whose it is.
    pub resources: Vec<ResourceReport>,
}

impl Report {
    /// Whether everything is there: what is not is worth another try later. What only the agent
    /// refuses is so for where a path leads on its node, and what is not read for how a program is
    /// set up there: both may be mended there.
    pub fn is_settled(&self) -> bool {
        self.layers.iter().all(LayerReport::is_there) && self.is_released()
    }

    /// Whether the same push would end the same: everything is there, or is held until it changes
    /// or another try is asked for.
    pub fn is_at_rest(&self) -> bool {
        let rests = |layer: &LayerReport| layer.is_there() || layer.held;
        self.layers.iter().all(rests) && self.is_released()
    }

    /// Whether it still says what is in force on a node that has these layers. An agent that dies over a push, or is
    /// ended by what it tells, may have put a revision in force that its last report knows nothing of.
    pub fn is_of(&self, held: &[Held]) -> bool {
        let of = |uid: &String| held.iter().find(|held| held.uid == *uid);
        let same = |layer: &LayerReport| {
            of(&layer.uid).map(|held| &held.digest) == layer.in_force.as_ref()
        };
        let gone = |release: &ReleaseReport| !release.done || of(&release.uid).is_none();
        self.layers.iter().all(same) && self.releases.iter().all(gone)
    }

    fn is_released(&self) -> bool {
        self.releases.iter().all(|release| release.done)
    }
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    /// The `NodeConfig`'s uid.
    pub uid: String,
    /// The `NodeConfig`'s name.
    pub name: String,
    /// Digest of the revision that was pushed.
    pub digest: String,
    /// Digest of the revision that is in force, the last good one where the pushed one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it failed and is not tried again until it changes or another try is asked for. Only
    /// said to an operator of wire version [`HOLDS`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Why it ended so; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the guard refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// What others have that this layer wanted too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// The units that still run with what they read before, `docker.service` for instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// Whether one of those has to be restarted; a reload is enough otherwise. Only said to an operator
    /// of wire version [`UNITS`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

impl LayerReport {
    fn is_there(&self) -> bool {
        matches!(self.outcome, Outcome::Applied | Outcome::PendingReload)
    }
}

/// How a layer ended on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of it that does not collide with another layer's is in force.
    Applied,
    /// Its files are written; a unit has yet to reread them.
    PendingReload,
    /// Its files are written; a program on the node is set up not to read them.
    Unread,
    /// The guard refused it: nothing of it was written.
    Refused,
    /// It could not be applied and the node was put back.
    Failed,
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseReport {
    /// The `NodeConfig`'s uid.
    pub uid: String,
    /// The `NodeConfig`'s name.
    pub name: String,
    /// Whether the layer is gone from the node.
    pub done: bool,
    /// Why it is not, or what was left alone; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Files and keys that somebody else had changed meanwhile, and that were left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<String>,
}

/// One file or key that Edict has on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceReport {
    /// Path of the file, symlinks resolved.
    pub path: String,
    /// The key in it; absent where the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name of the `NodeConfig` that owns it.
    pub owner: String,
    /// How it was written last.
    pub result: Written,
}

/// How a file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// Replaced by a complete new file.
    Replaced,
    /// Written over in its place, since the path is a mount point.
    InPlace,
    /// It said so already.
    Unchanged,
}

/// Why a request was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Stable name: `WrongNode`, `WireVersion`, `BadMessage`, `Digest`, `Fenced`, `Busy`, `Failed`.
    pub reason: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// With [`FENCED`], the greatest fence that the agent has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Fence>,
}

/// The reason of a refusal of what an operator pushes that leads no more.
pub const FENCED: &str = "Fenced";

/// The reason of a refusal to plan while something is being done.
pub const BUSY: &str = "Busy";

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            seen: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// Why a push is refused by the agent of `node` before anything of it is looked at.
pub fn refuse(push: &Push, node: &str) -> Option<Refusal> {
    let refusal = |reason: &str, message: String| Some(Refusal::new(reason, message));
    if !(OLDEST..=VERSION).contains(&push.wire) {
        let wire = push.wire;
        return refusal(
            "WireVersion",
            format!("this agent speaks wire versions {OLDEST} to {VERSION}, not {wire}"),
        );
    }
    if (push.wire >= FENCES) != push.fence.is_some() {
        return refusal(
            "BadMessage",
            format!("a push has a fence since wire version {FENCES}, and none before"),
        );
    }
    if push.node != node {
        let meant = crate::guard::text::excerpt(&push.node);
        return refusal(
            "WrongNode",
            format!("the push is for node {meant}, this is node {node}"),
        );
    }
    let whole = Push::new(
        push.node.clone(),
        push.policy.clone(),
        push.layers.clone(),
        push.releases.clone(),
    );
    if whole.digest != push.digest {
        return refusal("Digest", "the digest is not that of the content".to_owned());
    }
    None
}

/// Reads a message. What this release does not know in it is an error, never skipped.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let bad = |message: String| Refusal::new("BadMessage", message);
    let (message, unknown) = decode::decode(bytes).map_err(|error| bad(error.to_string()))?;
    match unknown.first() {
        None => Ok(message),
        Some(field) => Err(bad(format!(
            "the field {field} is not known here: is the other side newer?"
        ))),
    }
}

#[cfg(test)]
mod tests;
