//! Whether the operator still reaches this node once another table says who may.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether there is still somebody to wait for.
const LOOK: Duration = Duration::from_millis(250);

/// What is waited for, and what has come.
#[derive(Default)]
pub struct Probations {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// What is waited for.
    mark: Option<String>,
    confirmed: bool,
    /// What was said last of why it has not come.
    why_not: Option<String>,
}

/// What came of a probation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node is reached.
    Confirmed,
    /// It is not, within its time. Why, where that was said.
    Late(Option<String>),
    /// Nobody is there any more who could say so.
    Alone,
}

impl Probations {
    /// Waits for the confirmation of this mark; `say` asks for it, and `gone` says when whoever was asked is gone.
    pub fn wait(
        &self,
        mark: &str,
        within: Duration,
        say: impl FnOnce(),
        gone: &dyn Fn() -> bool,
    ) -> Ended {
        *self.inner() = Inner {
            mark: Some(mark.to_owned()),
            ..Inner::default()
        };
        say();
        let deadline = Instant::now() + within;
        let mut inner = self.inner();
        let ended = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if inner.confirmed {
                break Ended::Confirmed;
            } else if left.is_zero() {
                break Ended::Late(inner.why_not.take());
            } else if gone() {
                break Ended::Alone;
            }
            let waited = self.changed.wait_timeout(inner, left.min(LOOK));
            (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        inner.mark = None;
        ended
    }

    /// Somebody has reached this node, or says why not yet. Whether that is waited for.
    pub fn confirm(&self, mark: &str, why_not: Option<String>) -> bool {
        let mut inner = self.inner();
        let waits = inner.mark.as_deref() == Some(mark);
        if waits {
            inner.confirmed |= why_not.is_none();
            inner.why_not = why_not;
            self.changed.notify_all();
        }
        waits
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
