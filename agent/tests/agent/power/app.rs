//! A unit that reads one of the files: it outlives an agent that is killed, and starts with what it
//! finds when the power comes back. What it is kept in is on no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edict_agent::units::{Active, Ended, Error, Load, Mark, Programs, Shown, Units};
use edict_core::catalogue::Program;
use edict_core::resource::Action;
use serde::{Deserialize, Serialize};

use super::model::{Op, Said};
use super::record::Recorder;
use crate::services::{BROKEN, absent};

/// Its name.
pub const UNIT: &str = "app.service";
/// What it reads.
pub const READS: &str = "etc/motd";
/// Where it is while the power is on.
const RUNS: &str = "app.json";

/// Tells one run from another, whatever host it is on.
static RUN: AtomicU64 = AtomicU64::new(1);

/// The unit of the host in this folder.
pub struct App {
    base: PathBuf,
    recorder: Arc<Recorder>,
    /// This run of the host.
    boot: String,
    /// The units of programs that were started in it.
    programs: Mutex<BTreeSet<String>>,
}

/// How it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    number: u64,
    with: Option<Vec<u8>>,
}

impl Run {
    /// Whether it runs at all.
    pub fn is_well(&self) -> bool {
        let text = self.with.as_deref().map(String::from_utf8_lossy);
        !text.is_some_and(|text| text.contains(BROKEN))
    }
}

impl App {
    /// It runs already, or starts with the host.
    pub fn boot(base: &Path, recorder: &Arc<Recorder>) -> Self {
        let app = Self {
            base: base.to_owned(),
            recorder: Arc::clone(recorder),
            boot: RUN.fetch_add(1, Ordering::SeqCst).to_string(),
            programs: Mutex::default(),
        };
        if !base.join(RUNS).exists() {
            app.start();
        }
        app
    }

    /// How it runs in the folder.
    pub fn run(base: &Path) -> Run {
        serde_json::from_slice(&fs::read(base.join(RUNS)).unwrap()).unwrap()
    }

    /// It goes on in another folder.
    pub fn go_on(base: &Path, run: &Run) {
        fs::write(base.join(RUNS), serde_json::to_vec(run).unwrap()).unwrap();
    }

    /// Whether it runs, and with what its file says.
    pub fn is_current(base: &Path) -> bool {
        let run = Self::run(base);
        run.is_well() && run.with == fs::read(base.join(READS)).ok()
    }

    fn start(&self) -> Run {
        let run = Run {
            number: RUN.fetch_add(1, Ordering::SeqCst),
            with: fs::read(self.base.join(READS)).ok(),
        };
        Self::go_on(&self.base, &run);
        self.tell(Said::Runs(run.clone()));
        run
    }

    fn tell(&self, said: Said) {
        self.recorder.with(|record| record.ops.push(Op::Said(said)));
    }
}

impl Units for App {
    fn show(&self, unit: &str) -> Result<Shown, Error> {
        if unit != UNIT {
            return Ok(absent());
        }
        let run = Self::run(&self.base);
        Ok(Shown {
            load: Load::Loaded,
            active: if run.is_well() {
                Active::Active
            } else {
                Active::Failed
            },
            oneshot: false,
            mark: Mark {
                invocation: run.number.to_string(),
                changed: run.number,
            },
        })
    }

    fn daemon_reload(&self) -> Result<(), Error> {
        Ok(())
    }

    fn tell(&self, unit: &str, action: Action) -> Result<(), Error> {
        assert_eq!((unit, action), (UNIT, Action::Restart));
        if self.start().is_well() {
            return Ok(());
        }
        Err(Error::Job {
            doing: format!("{action} {unit}"),
            result: "failed".to_owned(),
        })
    }

    fn table(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn load(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn chains(&self) -> Result<String, Error> {
        Ok(String::new())
    }

    fn rules(&self, _family: &str, _table: &str) -> Result<String, Error> {
        Ok(String::new())
    }

    fn lacks(&self, _modules: &[&str]) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    fn settling(&self) -> Duration {
        Duration::ZERO
    }

    fn settings(&self, _: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        Ok(BTreeMap::new())
    }

    fn set(&self, _: &str, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn journal(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// Programs that are over at once.
impl Programs for App {
    fn boot(&self) -> String {
        self.boot.clone()
    }

    fn launch(&self, unit: &str, _: &Program) -> Result<(), Error> {
        self.programs.lock().unwrap().insert(unit.to_owned());
        self.tell(Said::Started(unit.to_owned()));
        Ok(())
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn ended(&self, unit: &str) -> Result<Option<Option<Ended>>, Error> {
        let is_there = self.programs.lock().unwrap().contains(unit);
        Ok(is_there.then(|| {
            Some(Ended {
                result: "success".to_owned(),
                exit_code: Some(0),
                signal: None,
                milliseconds: 1,
                invocation: unit.to_owned(),
            })
        }))
    }

    fn said(&self, _: &Ended) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn discard(&self, unit: &str) {
        self.programs.lock().unwrap().remove(unit);
        self.tell(Said::Over(unit.to_owned()));
    }
}
