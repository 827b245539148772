//! Daemons of a node that are restarted for what they read once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A daemon of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Daemon {
    /// The Docker daemon.
    Docker,
    /// containerd.
    Containerd,
    /// The kubelet.
    Kubelet,
}

impl Daemon {
    /// Its unit.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Docker => "docker.service",
            Self::Containerd => "containerd.service",
            Self::Kubelet => "kubelet.service",
        }
    }

    /// The name of its unit without the suffix.
    pub(super) fn name(self) -> &'static str {
        self.unit().trim_end_matches(".service")
    }
}
