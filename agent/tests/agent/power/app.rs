//! A unit that reads one of the files, and the kernel's table of nftables: both outlive an agent that is
//! killed, and start with what they find when the power comes back. What they are kept in is on no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edict_agent::units::{Active, Ended, Error, Load, Mark, Programs, Shown, UNKNOWN, Units};
use edict_core::catalogue::Program;
use edict_core::config::firewall::{GONE, PATH, TRIAL, UNIT_PATH, WANTED_PATH};
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
/// And the script of Edict's table.
const TABLE: &str = "table.nft";

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
            app.start_firewall();
        }
        app
    }

    /// The script of Edict's table.
    pub fn loaded(base: &Path) -> Option<String> {
        fs::read_to_string(base.join(TABLE)).ok()
    }

    /// The kernel has a table with this script, or none.
    pub fn has(base: &Path, table: Option<&str>) {
        let path = base.join(TABLE);
        match table {
            Some(script) => fs::write(path, script).unwrap(),
            None => _ = fs::remove_file(path),
        }
    }

    /// The host starts once more, and gives the script that it loads.
    pub fn reboot(base: &Path) -> Option<String> {
        for name in [RUNS, TABLE] {
            let _ = fs::remove_file(base.join(name));
        }
        Self::boot(base, &Recorder::quiet());
        Self::loaded(base)
    }

    /// What systemd does with the unit of the firewall when the host starts.
    fn start_firewall(&self) {
        let read = |path: &str| fs::read_to_string(self.base.join(&path[1..])).unwrap_or_default();
        let is_wanted = read(WANTED_PATH).contains("Wants=")
            && read(UNIT_PATH).contains("ExecStart=")
            && !self.base.join("state").join(TRIAL).exists();
        let script = read(PATH);
        // nft loads all of a script or nothing.
        let is_whole = script.contains('{') && script.trim_end().ends_with("\n}");
        if is_wanted && is_whole {
            Self::has(&self.base, Some(&script));
        }
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
        Ok(Self::loaded(&self.base))
    }

    fn load(&self, script: &str) -> Result<(), Error> {
        let table = (![GONE, UNKNOWN].contains(&script)).then_some(script);
        Self::has(&self.base, table);
        self.tell(Said::Loaded(table.map(ToOwned::to_owned)));
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
