//! The client of the API server: it waits for no answer without end, and does not press a server
//! that can't follow.
//!
//! Left to itself, kube's client waits for ever on a connection of which the other half is gone, a
//! watch that is answered 410 is begun anew from the same version for ever, and one that ends as
//! soon as it has begun is begun anew without a pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, Response, StatusCode, Uri};
use kube::client::{Body, retry::RetryPolicy};
use kube::{Client, Config};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tower::BoxError;
use tower::retry::Retry;

/// How long a list of everything may take: what Kubernetes promises for its slowest answer
/// (Kubernetes, SIG Scalability, API call latency SLO).
const LIST: Duration = Duration::from_secs(30);
/// How long any other answer may take. A master that freezes, or loses its power, ends no connection;
/// what is given up goes out again on a new one, and so to another master: while the Lease still
/// holds, if it is the one that renews it.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may take, TLS included: the API server is one hop away.
const CONNECT: Duration = Duration::from_secs(5);
/// The wait before a request that was answered 429, 503 or 504 is sent again, where the answer names
/// none; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest such wait that the answer does not name.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a request is sent again. Whoever asks has more patience, and newer things to say.
const RETRIES: u32 = 3;
/// The least time from one beginning of a watch to the next.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("the API server does not answer within {} s", .0.as_secs())]
struct Silent(Duration);

/// A client of the API server that `config` names.
pub fn client(mut config: Config) -> anyhow::Result<Client> {
    // The time that an answer names is waited for in between, not within the time for one answer.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).context("the API server can't be asked")?;
    let pace = Pace::default();
    let once = tower::service_fn(move |request| {
        let (client, pace) = (client.clone(), pace.clone());
        async move { ask(&client, &pace, request).await }
    });
    let policy = RetryPolicy::new(RETRY_MIN, RETRY_MAX, RETRIES, true)
        .expect("the shortest wait is shorter than the longest");
    Ok(Client::new(Retry::new(policy, once), namespace))
}

async fn ask(
    client: &Client,
    pace: &Pace,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let watches = is_watch(request.uri());
    let within = if watches || is_list(&request) {
        LIST
    } else {
        ANSWER
    };
    if watches {
        sleep_until(pace.begin(request.uri().path(), Instant::now())).await;
    }
    let answer = async {
        let answer = client.send(request).await?;
        match answer.status() {
            // How long it says nothing is the watcher's affair.
            StatusCode::OK if watches => Ok(answer),
            StatusCode::GONE if watches => Ok(Response::new(expired())),
            _ => {
                let (head, body) = answer.into_parts();
                let body = Body::from(body.collect_bytes().await?);
                Ok(Response::from_parts(head, body))
            }
        }
    };
    timeout(within, answer).await.map_err(|_| Silent(within))?
}

fn is_watch(uri: &Uri) -> bool {
    parameters(uri).any(|parameter| parameter == "watch=true")
}

/// Whether this is one of the watcher's lists, which come in pages.
fn is_list(request: &Request<Body>) -> bool {
    request.method() == Method::GET
        && parameters(request.uri()).any(|parameter| parameter.starts_with("limit="))
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

/// What the watcher takes for a version that is too old: an event of the watch.
fn expired() -> Body {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the watch was answered 410", "reason": "Expired", "code": 410,
    });
    let event = json!({"type": "ERROR", "object": status});
    Body::from(format!("{event}\n").into_bytes())
}

/// When the watch of each path may begin again.
#[derive(Clone, Default)]
struct Pace(Arc<Mutex<HashMap<String, Instant>>>);

impl Pace {
    /// When the watch of `path` begins that was to begin now.
    fn begin(&self, path: &str, now: Instant) -> Instant {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.entry(path.to_owned()).or_insert(now);
        let begins = now.max(*next);
        *next = begins + WATCH_PAUSE;
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_from_a_list() {
        for (uri, watches) in [
            ("/api/v1/nodes?&watch=true&timeoutSeconds=30", true),
            ("/api/v1/nodes?watch=true", true),
            ("/api/v1/nodes?limit=500", false),
            ("/api/v1/nodes/watch=true", false),
            ("/api/v1/nodes", false),
        ] {
            assert_eq!(is_watch(&uri.parse().unwrap()), watches, "{uri}");
        }
    }

    #[test]
    fn watches_of_one_path_begin_with_pauses() {
        let pace = Pace::default();
        let now = Instant::now();
        for (path, at, begins) in [
            ("/a", 0, 0),
            ("/b", 0, 0),
            ("/a", 0, 1),
            ("/a", 1, 2),
            ("/b", 9, 9),
            ("/b", 9, 10),
        ] {
            let after = |seconds| now + Duration::from_secs(seconds);
            assert_eq!(pace.begin(path, after(at)), after(begins), "{path} at {at}");
        }
    }
}
