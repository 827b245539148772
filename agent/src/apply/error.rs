//! Why a transaction did not happen.

use super::activate;
use crate::host::explain;
use crate::{commit, plan, state, units};

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path can't be looked at.
    #[error("{path} can't be read: {}", explain(.source))]
    Look {
        path: String,
        source: std::io::Error,
    },
    /// Modules that the kernel does not have; nothing was changed yet.
    #[error(
        "this node's kernel has no module {0} (asked by /sbin/modprobe): correct the name, or leave it out here"
    )]
    Modules(String),
    /// What was found can't be made safe.
    #[error("/etc can't be made safe on disk: {}", explain(.0))]
    Sync(std::io::Error),
    /// What is wanted can't be had here.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The host could not be changed.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// The units that read what is to change can't be asked about; nothing was changed yet.
    #[error(transparent)]
    Units(#[from] units::Error),
    /// A unit does not run with it; the host was changed, and is as it was before.
    #[error("{failure}; what was changed is put back{}", again(.sorry))]
    Activate {
        failure: activate::Failure,
        /// What does not run even so.
        sorry: Vec<String>,
    },
    /// Nobody is there any more who could say that the cluster reaches this node; the host was changed, and is as it
    /// was before.
    #[error(
        "nobody is there to say that the cluster reaches this node through the firewall, since the operator or \
        the agent ended; what was changed is put back, and tried again with the next push"
    )]
    Alone,
    /// What is to be on probation can't be now; nothing was changed yet.
    #[error("the firewall is put on probation with the next push: another one has ended just now")]
    Later,
    /// The state can't be read or written; nothing was changed yet.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The state can't be written; the host was changed, and is as it was before.
    #[error("{0}; what was changed before it is put back")]
    PutBack(state::Error),
    /// It did not end well; the host was changed, and is not as it was before.
    #[error("{trouble}; and what was changed can't be put back: {path}: {}", explain(.source))]
    Left {
        /// Why it was to be put back.
        trouble: String,
        path: String,
        source: std::io::Error,
    },
}

fn again(sorry: &[String]) -> String {
    if sorry.is_empty() {
        return String::new();
    }
    format!(", and even so {}", sorry.join("; "))
}

impl Error {
    /// Whether anything on the host was changed, or may have been, because of what the layer says.
    pub fn was_begun(&self) -> bool {
        match self {
            Self::Look { .. }
            | Self::Modules(_)
            | Self::Sync(_)
            | Self::Plan(_)
            | Self::Units(_)
            | Self::Alone
            | Self::Later
            | Self::State(_) => false,
            Self::Commit(_) | Self::Activate { .. } | Self::PutBack(_) | Self::Left { .. } => true,
        }
    }

    /// What is left to say once everything is as it was before.
    pub fn once_put_back(&self) -> String {
        match self {
            Self::Commit(error) => error.once_put_back(),
            Self::Left { trouble, .. } => {
                format!("{trouble}; what was changed before it is put back")
            }
            error => error.to_string(),
        }
    }
}
