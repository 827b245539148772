//! What a watch tells, when the API server does not know the kind and when it does not answer.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};

/// The first pause of a watch that fails; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest. So long an operator is blind after a change that takes its watches away: two of them
/// with a handful of watches are no burden for an API server that comes back.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long it is until a kind that there may not be is asked for again.
pub const RARELY: Duration = Duration::from_mins(1);

/// The pauses of a watch that fails.
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The same events, and an empty list where the API server does not know the kind: without its
/// CustomResourceDefinition there is no object of it. Those of the other kinds may wait for somebody
/// to let go of them, while their own definition is being deleted.
pub fn none_without_kind<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    events.flat_map(|event| {
        let unknown = refusal(&event) == Some(404);
        // The error comes last: what is paused after it is the next look.
        stream::iter(none(unknown).chain([event]))
    })
}

/// The same, and for so long, where the API server has no such kind or does not let it be listed: one that is of use
/// and that nothing hangs on. What was listed once stays known, unless the kind is gone.
pub fn none_for<K: Send + 'static>(
    pause: Duration,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let mut listed = false;
    events.flat_map(move |event| {
        listed |= matches!(&event, Ok(Event::InitDone));
        let code = refusal(&event);
        let lacks = matches!(code, Some(403 | 404));
        let forgets = code == Some(404) || lacks && !listed;
        let last = async move {
            if lacks {
                tokio::time::sleep(pause).await;
            }
            event
        };
        stream::iter(none(forgets)).chain(stream::once(last))
    })
}

/// The HTTP status by which the API server refused to list.
fn refusal<K>(event: &watcher::Result<Event<K>>) -> Option<u16> {
    match event {
        Err(watcher::Error::InitialListFailed(kube::Error::Api(answer))) => Some(answer.code),
        _ => None,
    }
}

/// A list with nothing in it, if there is to be one.
fn none<K>(is: bool) -> impl Iterator<Item = watcher::Result<Event<K>>> {
    let empty = is.then_some([Ok(Event::Init), Ok(Event::InitDone)]);
    empty.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use edict_crds::{NodeState, NodeStateSpec};

    use super::*;

    fn refused(code: u16) -> watcher::Result<Event<NodeState>> {
        let status = kube::core::Status::failure("no", "No")
            .with_code(code)
            .boxed();
        let error = kube::Error::Api(status);
        Err(watcher::Error::InitialListFailed(error))
    }

    async fn shown(events: Vec<watcher::Result<Event<NodeState>>>) -> Vec<&'static str> {
        let shown = none_without_kind(stream::iter(events)).map(|event| match event {
            Ok(Event::Init) => "init",
            Ok(Event::InitDone) => "done",
            Ok(_) => "object",
            Err(_) => "error",
        });
        shown.collect().await
    }

    #[tokio::test]
    async fn without_its_definition_a_kind_has_no_objects() {
        // As a watch tells it: each list begins before it fails.
        let (begins, gone) = (|| Ok(Event::Init), || refused(404));
        assert_eq!(
            shown(vec![begins(), gone()]).await,
            ["init", "init", "done", "error"]
        );
        let there = Ok(Event::InitApply(NodeState::new(
            "n",
            NodeStateSpec::default(),
        )));
        assert_eq!(
            shown(vec![begins(), there, Ok(Event::InitDone)]).await,
            ["init", "object", "done"]
        );
        for code in [403, 429, 500, 503] {
            let kept = shown(vec![begins(), refused(code)]).await;
            assert_eq!(kept, ["init", "error"], "{code}");
        }
    }

    #[tokio::test]
    async fn a_kind_that_may_be_missing_has_no_objects_for_a_while() {
        for code in [403, 404] {
            let begun = tokio::time::Instant::now();
            let pause = Duration::from_millis(50);
            let mut events = Box::pin(none_for(pause, stream::iter([refused(code)])));
            assert!(matches!(events.next().await, Some(Ok(Event::Init))));
            assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
            assert!(matches!(events.next().await, Some(Err(_))));
            assert!(begun.elapsed() >= pause);
        }
        // What is known already stays so where it is only not to be had just now.
        let events = stream::iter([Ok(Event::InitDone), refused(403)]);
        let mut events = Box::pin(none_for(Duration::ZERO, events));
        assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
        assert!(matches!(events.next().await, Some(Err(_))));
        // What passes is no answer.
        let mut events = Box::pin(none_for(RARELY, stream::iter([refused(429)])));
        assert!(matches!(events.next().await, Some(Err(_))));
    }

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut pauses = Pauses::default();
        let seconds = |pauses: &mut Pauses| pauses.next().unwrap().as_secs();
        let all: Vec<_> = (0..6).map(|_| seconds(&mut pauses)).collect();
        assert_eq!(all, [1, 2, 4, 5, 5, 5]);
        pauses.reset();
        assert_eq!(seconds(&mut pauses), 1);
    }
}
