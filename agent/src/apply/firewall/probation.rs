//! Whether the operator still reaches this node once another table says who may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether there is still somebody to wait for.
const LOOK: Duration = Duration::from_millis(250);

/// An operator that is there says more often why it does not reach a node: what is lost after such a silence may
/// have been cut off.
const SILENT: Duration = Duration::from_secs(15);

/// What is waited for, and what has come.
#[derive(Default)]
pub struct Probations {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// How many have begun and ended.
    count: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// What is waited for.
    mark: Option<String>,
    confirmed: bool,
    /// What was said last of why it has not come.
    why_not: Option<String>,
    /// When something was said last.
    heard: Option<Instant>,
    /// The probation over which an operator was lost that had not been heard for a while.
    lost: Option<String>,
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

impl Inner {
    /// Whoever could say that the node is reached is gone. It may have died, or ended, or the firewall has cut its
    /// connection as well: what happens twice is the firewall.
    fn abandoned(&mut self, mark: &str) -> Ended {
        let silent = self.heard.is_none_or(|heard| heard.elapsed() >= SILENT);
        if !silent {
            return Ended::Alone;
        }
        let again = self.lost.replace(mark.to_owned());
        if again.as_deref() == Some(mark) {
            return Ended::Late(Some("its connection is lost, as it was before".to_owned()));
        }
        Ended::Alone
    }
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
        self.count();
        {
            let mut inner = self.inner();
            *inner = Inner {
                mark: Some(mark.to_owned()),
                heard: Some(Instant::now()),
                lost: inner.lost.take(),
                ..Inner::default()
            };
        }
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
                break inner.abandoned(mark);
            }
            let waited = self.changed.wait_timeout(inner, left.min(LOOK));
            (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        };
        inner.mark = None;
        drop(inner);
        self.count();
        ended
    }

    /// Whatever was looked at before is not how it is now.
    pub fn count(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one has begun or ended, or one was taken back that an agent before this one had begun.
    pub fn counted(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Somebody has reached this node, or says why not yet. Whether that is waited for.
    pub fn confirm(&self, mark: &str, why_not: Option<String>) -> bool {
        let mut inner = self.inner();
        let waits = inner.mark.as_deref() == Some(mark);
        if waits {
            inner.confirmed |= why_not.is_none();
            inner.why_not = why_not;
            inner.heard = Some(Instant::now());
            self.changed.notify_all();
        }
        waits
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
