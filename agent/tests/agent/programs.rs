//! Programs for tests: each says what it was given, and ends as its path says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edict_agent::units::{self, Ended, Error};
use edict_core::catalogue::Program;

/// The host's programs.
#[derive(Clone, Default)]
pub struct Programs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    boot: u32,
    /// Units that are there, and how they ended.
    there: BTreeMap<String, Option<Ended>>,
    /// What was started, as its argv.
    started: Vec<String>,
    /// What they have said, by the name of their run.
    said: BTreeMap<String, Vec<u8>>,
    /// The agent dies when it starts something: before, or after it is started.
    dies: Option<bool>,
    /// So often nobody answers.
    silent: usize,
}

impl Programs {
    /// What was started since this was asked last.
    pub fn started(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().started)
    }

    /// The units that are there.
    pub fn there(&self) -> Vec<String> {
        self.inner().there.keys().cloned().collect()
    }

    /// The next agent that starts something dies over it.
    pub fn dies(&self, after: bool) {
        self.inner().dies = Some(after);
    }

    /// The next questions are not answered.
    pub fn silent(&self, times: usize) {
        self.inner().silent = times;
    }

    /// The host starts anew.
    pub fn reboot(&self) {
        let mut inner = self.inner();
        inner.boot += 1;
        inner.there.clear();
    }

    /// Somebody else stops everything.
    pub fn clear(&self) {
        self.inner().there.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // An agent that dies in a test dies with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a program of that path ends.
fn end(path: &str, run: &str) -> Ended {
    let (result, exit_code) = match path {
        "/bin/fails" => ("exit-code", Some(3)),
        "/bin/slow" => ("timeout", None),
        "/bin/large" => ("oom-kill", None),
        "/bin/absent" => ("exit-code", Some(203)),
        "/bin/killed" | "/bin/crashed" => ("signal", None),
        "/bin/lost" => ("resources", None),
        _ => ("success", Some(0)),
    };
    let signal = match path {
        "/bin/killed" => Some(9),
        "/bin/crashed" => Some(11),
        _ => None,
    };
    Ended {
        result: result.to_owned(),
        exit_code,
        signal,
        milliseconds: 7,
        invocation: run.to_owned(),
    }
}

impl units::Programs for Programs {
    fn boot(&self) -> String {
        self.inner().boot.to_string()
    }

    fn launch(&self, unit: &str, program: &Program) -> Result<(), Error> {
        let mut inner = self.inner();
        let dies = inner.dies.take();
        assert_ne!(dies, Some(false), "the agent dies");
        let refused = |said: &str| Error::Refused {
            doing: format!("start {}", program.name),
            said: said.to_owned(),
        };
        if inner.there.contains_key(unit) {
            return Err(refused("there is such a unit"));
        }
        let path = &*program.argv[0];
        if path == "/bin/refused" {
            return Err(refused("no"));
        }
        inner.started.push(program.argv.join(" "));
        let run = format!("{unit}/{}", inner.started.len());
        let ended = end(path, &run);
        inner.there.insert(unit.to_owned(), Some(ended));
        let said = format!("{} https://user:word@host\n", program.argv.join(" "));
        inner.said.insert(run, said.into_bytes());
        assert_eq!(dies, None, "the agent dies");
        Ok(())
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn ended(&self, unit: &str) -> Result<Option<Option<Ended>>, Error> {
        let mut inner = self.inner();
        if inner.silent > 0 {
            inner.silent -= 1;
            return Err(Error::Unreachable("no answer".to_owned()));
        }
        Ok(inner.there.get(unit).cloned())
    }

    fn said(&self, ended: &Ended) -> Result<Vec<u8>, Error> {
        Ok(self.inner().said[&ended.invocation].clone())
    }

    fn discard(&self, unit: &str) {
        self.inner().there.remove(unit);
    }
}
