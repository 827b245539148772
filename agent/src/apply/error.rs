//! Why a transaction did not happen.

use crate::host::explain;
use crate::{commit, plan, state};

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path can't be looked at.
    #[error("{path} can't be read: {}", explain(.source))]
    Look {
        path: String,
        source: std::io::Error,
    },
    /// What was found can't be made safe.
    #[error("/etc can't be made safe on disk: {}", explain(.0))]
    Sync(std::io::Error),
    /// What is wanted can't be had here.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The host could not be changed.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// The state can't be read or written; nothing was changed yet.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The state can't be written; the host was changed, and is as it was before.
    #[error("{0}; what was changed before it is put back")]
    PutBack(state::Error),
    /// The state can't be written; the host was changed, and is not as it was before.
    #[error("{state}; and what was changed can't be put back: {path}: {}", explain(.source))]
    Left {
        state: state::Error,
        path: String,
        source: std::io::Error,
    },
}

impl Error {
    /// Whether anything on the host was changed, or may have been.
    pub fn was_begun(&self) -> bool {
        match self {
            Self::Look { .. } | Self::Sync(_) | Self::Plan(_) | Self::State(_) => false,
            Self::Commit(_) | Self::PutBack(_) | Self::Left { .. } => true,
        }
    }

    /// What is left to say once everything is as it was before.
    pub fn once_put_back(&self) -> String {
        match self {
            Self::Commit(error) => error.once_put_back(),
            Self::Left { state, .. } => format!("{state}; what was changed before it is put back"),
            error => error.to_string(),
        }
    }
}
