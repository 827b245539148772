//! Whether the operator still reaches this node once another table says who may.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is waited for, and what has come.
#[derive(Default)]
pub struct Probations {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Whether there is anybody who could say so.
    heard: bool,
    /// What is waited for.
    mark: Option<String>,
    confirmed: bool,
}

impl Probations {
    /// From now on somebody can say that this node is reached.
    pub fn hear(&self) {
        self.inner().heard = true;
    }

    /// Whether anybody could: an agent without an operator has nobody to wait for.
    pub fn is_heard(&self) -> bool {
        self.inner().heard
    }

    /// Waits for the confirmation of this mark; `say` asks for it. Whether it has come in time.
    pub fn wait(&self, mark: &str, within: Duration, say: impl FnOnce()) -> bool {
        *self.inner() = Inner {
            heard: true,
            mark: Some(mark.to_owned()),
            confirmed: false,
        };
        say();
        let deadline = Instant::now() + within;
        let mut inner = self.inner();
        while !inner.confirmed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(inner, left);
            (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        inner.mark = None;
        inner.confirmed
    }

    /// Somebody has reached this node, and says so. Whether that was waited for.
    pub fn confirm(&self, mark: &str) -> bool {
        let mut inner = self.inner();
        let waited = inner.mark.as_deref() == Some(mark);
        if waited {
            inner.confirmed = true;
            self.changed.notify_all();
        }
        waited
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
