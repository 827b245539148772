//! What goes wrong, and what was asked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What is asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    List,
    Watch,
    Get,
    Create,
    Replace,
    Patch,
    /// A patch of the status.
    Status,
    Delete,
}

/// What an answer is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error with this status, and after how many seconds to come again.
    Status(u16, Option<u64>),
    /// It is done, and the connection ends before the answer.
    Lost,
    /// The connection ends in the middle of the answer; of a watch, in the middle of the next event.
    Cut,
    /// The right one, after this time.
    Slow(Duration),
    /// None, ever, and nothing is done.
    Silent,
    /// None, ever; it is done all the same.
    Mute,
    /// A list with nothing in it, whatever there is.
    Empty,
    /// A watch that ends as soon as it has begun.
    Ended,
}

/// Which requests get which fault, and how many of them.
struct Rule {
    verb: Verb,
    resource: String,
    fault: Fault,
    times: usize,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub verb: Verb,
    pub resource: String,
    pub name: String,
    /// What became of it.
    pub answer: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            name,
            answer,
            ..
        } = self;
        write!(f, "{verb:?} {resource} {name}: {answer}")
    }
}

/// Which of the watches of one resource are treated badly: those that began before the number.
#[derive(Clone, Copy, Default)]
struct Bounds {
    silent: u64,
    closed: u64,
}

#[derive(Default)]
pub struct Script {
    rules: Vec<Rule>,
    watches: BTreeMap<String, Bounds>,
    begun: u64,
}

impl Script {
    /// The next `times` requests of this kind get `fault`.
    pub fn fault(&mut self, times: usize, verb: Verb, resource: &str, fault: Fault) {
        self.rules.push(Rule {
            verb,
            resource: resource.to_owned(),
            fault,
            times,
        });
    }

    /// No request of this kind gets a fault any more.
    pub fn mend(&mut self, verb: Verb, resource: &str) {
        self.rules
            .retain(|rule| rule.verb != verb || rule.resource != resource);
    }

    /// What the request that has come gets.
    pub fn next(&mut self, verb: Verb, resource: &str) -> Option<Fault> {
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.verb == verb && rule.resource == resource && rule.times > 0)?;
        rule.times -= 1;
        Some(rule.fault)
    }

    /// The watches of `resource` that there are say nothing any more, and do not end.
    pub fn silence(&mut self, resource: &str) {
        self.bounds(resource).silent = self.begun;
    }

    /// No watch of `resource` says anything before this is taken back by [`Script::speak`].
    pub fn hold(&mut self, resource: &str) {
        self.bounds(resource).silent = u64::MAX;
    }

    pub fn speak(&mut self, resource: &str) {
        self.bounds(resource).silent = 0;
    }

    /// The watches of `resource` that there are end.
    pub fn close(&mut self, resource: &str) {
        self.bounds(resource).closed = self.begun;
    }

    /// A watch begins; answers with its number.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun - 1
    }

    pub fn is_silent(&self, resource: &str, watch: u64) -> bool {
        let bounds = self.watches.get(resource);
        bounds.is_some_and(|bounds| watch < bounds.silent)
    }

    pub fn is_closed(&self, resource: &str, watch: u64) -> bool {
        let bounds = self.watches.get(resource);
        bounds.is_some_and(|bounds| watch < bounds.closed)
    }

    fn bounds(&mut self, resource: &str) -> &mut Bounds {
        self.watches.entry(resource.to_owned()).or_default()
    }
}
