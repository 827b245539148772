//! Waiting for a condition with a deadline, never for a time.
//!
//! What was seen last goes into the error: "waited 60 s for agents ready; last
//! seen: 3 of 5".

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, bail};
use kube::Api;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at. Short beside anything that a cluster does,
/// and light on its API server.
const INTERVAL: Duration = Duration::from_millis(300);

/// One look that takes longer than this found something that does not answer; the
/// next look may find it back.
const LOOK: Duration = Duration::from_secs(20);

/// What one look at a condition found.
#[derive(Clone, Debug)]
pub enum Seen<T> {
    /// It holds.
    Done(T),
    /// It does not hold yet; the text says what is there instead.
    NotYet(String),
}

impl Seen<()> {
    /// Holds when `holds`; `state` is what is there otherwise.
    pub fn when(holds: bool, state: impl Debug) -> Self {
        if holds {
            Self::Done(())
        } else {
            Self::NotYet(format!("{state:?}"))
        }
    }
}

/// Looks until the condition holds. An error of one look counts as "not yet": a
/// cluster that loses a master answers with errors for a while.
pub async fn until<T, F>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Seen<T>>,
{
    let end = Instant::now() + deadline;
    let mut last = "nothing".to_owned();
    loop {
        match timeout(LOOK.min(deadline), look()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(state))) => last = state,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = format!("no answer; before that: {last}"),
        }
        if Instant::now() + INTERVAL >= end {
            bail!(
                "waited {} s for {what}; last seen: {last}",
                deadline.as_secs()
            );
        }
        sleep(INTERVAL).await;
    }
}

/// Looks at one object until `condition` holds for it, and gives it back.
pub async fn object<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    deadline: Duration,
    condition: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    let what = format!("{name}: {what}");
    until(&what, deadline, async || {
        Ok(match api.get_opt(name).await? {
            Some(found) if condition(&found) => Seen::Done(found),
            Some(found) => Seen::NotYet(format!("{found:?}")),
            None => Seen::NotYet("no such object".to_owned()),
        })
    })
    .await
}

/// Waits until an object is gone.
pub async fn gone<K>(api: &Api<K>, name: &str, deadline: Duration) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let what = format!("{name} to be gone");
    until(&what, deadline, async || {
        Ok(match api.get_opt(name).await? {
            Some(found) => Seen::NotYet(format!("{found:?}")),
            None => Seen::Done(()),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_was_seen_last() {
        let error = until("a pony", Duration::from_millis(10), async || {
            Ok::<Seen<()>, anyhow::Error>(Seen::NotYet("a donkey".to_owned()))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0 s for a pony; last seen: a donkey"
        );
    }

    #[tokio::test]
    async fn an_error_is_not_the_end() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            match looks {
                1 => anyhow::bail!("not reachable"),
                2 => Ok(Seen::NotYet("nearly".to_owned())),
                _ => Ok(Seen::Done(looks)),
            }
        })
        .await;
        assert_eq!(found.unwrap(), 3);
    }
}
