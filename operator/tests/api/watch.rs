//! A watch: what happens to a resource, a line of JSON each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::server::{Broken, Shared};
use super::store::{Scope, kind};

/// How often a watch says how far it is, to whoever asked for that.
const BOOKMARK: Duration = Duration::from_secs(5);

pub struct Watch {
    pub shared: Arc<Shared>,
    pub scope: Scope,
    pub number: u64,
    /// What happened up to here is known.
    pub version: u64,
    pub bookmarks: bool,
    pub ends: Instant,
    /// The next event is cut in the middle.
    pub cut: bool,
    pub over: bool,
}

enum Step {
    Say(Value),
    End,
    Wait,
}

impl Watch {
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, Broken>> {
        stream::unfold(self, async |mut watch| {
            let line = watch.next().await?;
            Some((line, watch))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        if self.over {
            return self.cut.then_some(Err(Broken));
        }
        let mut changes = self.shared.changes();
        let mut bookmark = Instant::now() + BOOKMARK;
        loop {
            changes.borrow_and_update();
            match self.step() {
                Step::Say(line) => return Some(Ok(self.line(&line))),
                Step::End => return None,
                Step::Wait => {}
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                () = sleep_until(bookmark.min(self.ends)) => {
                    if self.is_silent() {
                        // It does not even end in time.
                        self.ends = Instant::now() + Duration::from_hours(1);
                    } else if Instant::now() >= self.ends {
                        self.over = true;
                        if !self.bookmarks {
                            return None;
                        }
                    }
                    if self.bookmarks && !self.is_silent() {
                        let bookmark = self.bookmark();
                        return Some(Ok(self.line(&bookmark)));
                    }
                    bookmark = Instant::now() + BOOKMARK;
                }
            }
        }
    }

    fn is_silent(&self) -> bool {
        let state = self.shared.state();
        state.script.is_silent(&self.scope.resource, self.number)
    }

    fn step(&mut self) -> Step {
        let state = self.shared.state();
        if state.script.is_closed(&self.scope.resource, self.number) {
            return Step::End;
        }
        if state.script.is_silent(&self.scope.resource, self.number) {
            return Step::Wait;
        }
        match state.store.after(&self.scope, self.version) {
            Ok(None) => Step::Wait,
            Ok(Some(happened)) => {
                self.version = happened.version;
                self.over = self.cut;
                Step::Say(json!({"type": happened.what, "object": happened.object}))
            }
            Err(()) => {
                self.over = true;
                Step::Say(expired())
            }
        }
    }

    /// What is said at the end of a pause: everything up to here was said.
    fn bookmark(&mut self) -> Value {
        let store = &self.shared.state().store;
        if let Ok(None) = store.after(&self.scope, self.version) {
            self.version = self.version.max(store.version());
        }
        let (version, kind) = kind(&self.scope.resource);
        json!({"type": "BOOKMARK", "object": {
            "apiVersion": version, "kind": kind,
            "metadata": {"resourceVersion": self.version.to_string()},
        }})
    }

    fn line(&self, said: &Value) -> Bytes {
        let mut line = said.to_string();
        if self.over && self.cut {
            line.truncate(line.len() / 2);
        } else {
            line.push('\n');
        }
        line.into()
    }
}

/// What is said where a version is too old.
fn expired() -> Value {
    json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    }})
}
