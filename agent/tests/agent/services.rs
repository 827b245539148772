//! A systemd for tests: services that read files of the node when they start or reload, and do not
//! run where one of these says "broken".

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edict_agent::units::{self, Active, Ended, Error, Load, Manager, Mark, Shown, UNKNOWN, Units};
use edict_core::catalogue::Program;
use edict_core::config::firewall::GONE;
use edict_core::resource::Action;

use crate::programs::Programs;

/// What ends a service that reads it.
pub const BROKEN: &str = "broken";

const DAEMON_RELOAD: &str = "daemon-reload";

/// All services of a node.
#[derive(Clone, Default)]
pub struct Services(Arc<Mutex<Inner>>, pub Programs);

#[derive(Default)]
struct Inner {
    services: BTreeMap<String, Service>,
    /// Everything that was told, as `restart docker.service`.
    told: Vec<String>,
    clock: u64,
    /// The agent dies when this unit is told something: before, or after it was done; and how often it
    /// is told before.
    dies: Option<(String, bool, usize)>,
    /// Nobody answers.
    silent: bool,
    /// What stands in the journal, unless it is the usual.
    says: Option<String>,
    /// What the kernel runs with, by path.
    kernel: BTreeMap<String, String>,
    /// The script of Edict's table of nftables.
    table: Option<String>,
    /// The agent dies when it sets this, before or after.
    dies_setting: Option<(String, bool)>,
    /// How often the kernel's settings were asked for.
    asked: usize,
    /// Once unit files are read again, systemd does not know how to run this.
    breaks: Option<String>,
    broken: bool,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    reads: Vec<PathBuf>,
    active: Active,
    oneshot: bool,
    mark: Mark,
    /// What it runs with.
    pub with: Vec<Option<String>>,
}

impl Services {
    /// A service that runs with what these files say now.
    pub fn with(self, unit: &str, reads: &[PathBuf]) -> Self {
        let service = Service {
            reads: reads.to_vec(),
            active: Active::Inactive,
            oneshot: false,
            mark: Mark::default(),
            with: Vec::new(),
        };
        self.inner().services.insert(unit.to_owned(), service);
        self.inner().start(unit);
        self
    }

    pub fn manager(&self) -> Manager {
        Manager::Runs(Arc::new(self.clone()))
    }

    /// The kernel runs with this.
    pub fn kernel(self, path: &str, value: &str) -> Self {
        self.set_kernel(path, value);
        self
    }

    /// Somebody else sets it.
    pub fn set_kernel(&self, path: &str, value: &str) {
        let mut inner = self.inner();
        inner.kernel.insert(path.to_owned(), value.to_owned());
    }

    /// It is there no more.
    pub fn lose_kernel(&self, path: &str) {
        self.inner().kernel.remove(path);
    }

    /// The script that Edict's table was loaded from.
    pub fn loaded(&self) -> Option<String> {
        self.inner().table.clone()
    }

    /// Somebody else has nft load something.
    pub fn set_table(&self, script: Option<&str>) {
        self.inner().table = script.map(ToOwned::to_owned);
    }

    pub fn runs_with(&self, path: &str) -> String {
        self.inner().kernel[path].clone()
    }

    /// The next agent that sets this dies over it.
    pub fn dies_setting(&self, path: &str, after: bool) {
        self.inner().dies_setting = Some((path.to_owned(), after));
    }

    /// What was told since this was asked last.
    pub fn told_all(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().told)
    }

    /// What units were told: reading unit files once more disturbs nobody.
    pub fn told(&self) -> Vec<String> {
        let mut told = self.told_all();
        told.retain(|told| told != DAEMON_RELOAD);
        told
    }

    /// Somebody else restarts it.
    pub fn restart(&self, unit: &str) {
        self.inner().start(unit);
    }

    pub fn set(&self, unit: &str, active: Active, oneshot: bool) {
        let mut inner = self.inner();
        let service = inner.services.get_mut(unit).unwrap();
        service.active = active;
        service.oneshot = oneshot;
    }

    pub fn service(&self, unit: &str) -> Service {
        self.inner().services[unit].clone()
    }

    pub fn runs(&self, unit: &str) -> bool {
        self.service(unit).active == Active::Active
    }

    /// The next agent that tells this unit something dies over it, before or `after` it is done.
    pub fn dies(&self, unit: &str, after: bool) {
        self.dies_later(unit, after, 0);
    }

    /// The same, once it was told so often.
    pub fn dies_later(&self, unit: &str, after: bool, told: usize) {
        self.inner().dies = Some((unit.to_owned(), after, told));
    }

    /// What stands in the journal.
    pub fn says(&self, line: &str) {
        self.inner().says = Some(line.to_owned());
    }

    /// How often the kernel's settings were asked for.
    pub fn asked(&self) -> usize {
        self.inner().asked
    }

    /// What its unit files say next is nothing that systemd can run.
    pub fn breaks(&self, unit: &str) {
        self.inner().breaks = Some(unit.to_owned());
    }

    pub fn silent(&self, silent: bool) {
        self.inner().silent = silent;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // An agent that dies in a test dies with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn start(&mut self, unit: &str) -> bool {
        self.clock += 1;
        let service = self.services.get_mut(unit).unwrap();
        service.mark = Mark {
            invocation: format!("{:x}", self.clock),
            changed: self.clock,
        };
        service.read();
        let well = service.is_well();
        service.active = match (well, service.oneshot) {
            (true, false) => Active::Active,
            (true, true) => Active::Inactive,
            (false, _) => Active::Failed,
        };
        well
    }
}

impl Service {
    fn read(&mut self) {
        let read = |path: &PathBuf| fs::read_to_string(path).ok();
        self.with = self.reads.iter().map(read).collect();
    }

    fn is_well(&self) -> bool {
        let mut with = self.with.iter().flatten();
        !with.any(|text| text.contains(BROKEN))
    }

    /// Whether it runs with what its files say.
    pub fn is_current(&self) -> bool {
        let mut now = self.clone();
        now.read();
        now.with == self.with
    }
}

/// How a unit is that is not there.
pub fn absent() -> Shown {
    Shown {
        load: Load::Absent,
        active: Active::Inactive,
        oneshot: false,
        mark: Mark::default(),
    }
}

impl units::Programs for Services {
    fn boot(&self) -> String {
        self.1.boot()
    }

    fn launch(&self, unit: &str, program: &Program) -> Result<(), Error> {
        self.1.launch(unit, program)
    }

    fn patience(&self) -> Duration {
        self.1.patience()
    }

    fn ended(&self, unit: &str) -> Result<Option<Option<Ended>>, Error> {
        self.1.ended(unit)
    }

    fn said(&self, ended: &Ended) -> Result<Vec<u8>, Error> {
        self.1.said(ended)
    }

    fn discard(&self, unit: &str) {
        self.1.discard(unit);
    }
}

impl Units for Services {
    fn show(&self, unit: &str) -> Result<Shown, Error> {
        let inner = self.inner();
        if inner.silent {
            return Err(Error::Unreachable("no answer".to_owned()));
        }
        Ok(match inner.services.get(unit) {
            None => absent(),
            Some(service) => Shown {
                load: if inner.broken && inner.breaks.as_deref() == Some(unit) {
                    Load::Broken("bad-setting".to_owned())
                } else {
                    Load::Loaded
                },
                active: service.active,
                oneshot: service.oneshot,
                mark: service.mark.clone(),
            },
        })
    }

    fn daemon_reload(&self) -> Result<(), Error> {
        let mut inner = self.inner();
        inner.broken = !inner.broken;
        inner.told.push(DAEMON_RELOAD.to_owned());
        Ok(())
    }

    fn tell(&self, unit: &str, action: Action) -> Result<(), Error> {
        if action == Action::Reread {
            // That is systemd's own affair.
            return Ok(());
        }
        let doing = format!("{action} {unit}");
        let mut inner = self.inner();
        inner.told.push(doing.clone());
        let dies = inner.dies.take_if(|(dies, _, told)| {
            let now = dies == unit && *told == 0;
            *told -= usize::from(dies == unit && !now);
            now
        });
        let dies = dies.map(|(_, after, _)| after);
        assert_ne!(dies, Some(false), "the agent dies");
        let well = match action {
            Action::Restart => inner.start(unit),
            Action::Reread | Action::Reload => {
                inner.clock += 1;
                let changed = inner.clock;
                let service = inner.services.get_mut(unit).unwrap();
                service.mark.changed = changed;
                let runs = service.active == Active::Active;
                service.read();
                if !service.is_well() {
                    // It ends over what it has read, and nobody says so.
                    service.active = Active::Failed;
                }
                runs
            }
        };
        assert_eq!(dies, None, "the agent dies");
        if well {
            Ok(())
        } else {
            let result = "failed".to_owned();
            Err(Error::Job { doing, result })
        }
    }

    fn settling(&self) -> Duration {
        Duration::ZERO
    }

    fn settings(&self, paths: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let mut inner = self.inner();
        inner.asked += 1;
        if inner.silent {
            return Err(Error::Unreachable("no answer".to_owned()));
        }
        let asked = inner.kernel.iter();
        let asked = asked.filter(|(path, _)| paths.contains(&path.as_str()));
        Ok(asked
            .map(|(path, value)| (path.clone(), value.clone()))
            .collect())
    }

    fn table(&self) -> Result<Option<String>, Error> {
        let inner = self.inner();
        if inner.silent {
            return Err(Error::Unreachable("no answer".to_owned()));
        }
        Ok(inner.table.clone())
    }

    fn load(&self, script: &str) -> Result<(), Error> {
        let mut inner = self.inner();
        if inner.silent {
            return Err(Error::Unreachable("no answer".to_owned()));
        }
        let is_gone = script == GONE || script == UNKNOWN;
        let refused = script.contains("tcp dport { 666 }");
        if refused {
            let (doing, result) = ("nft".to_owned(), "failed".to_owned());
            return Err(Error::Job { doing, result });
        }
        inner.table = (!is_gone).then(|| script.to_owned());
        Ok(())
    }

    fn chains(&self) -> Result<String, Error> {
        Ok(r#"{"nftables": []}"#.to_owned())
    }

    fn rules(&self, _family: &str, _table: &str) -> Result<String, Error> {
        Ok(r#"{"nftables": []}"#.to_owned())
    }

    /// A kernel that has all but one.
    fn lacks(&self, modules: &[&str]) -> Result<Vec<String>, Error> {
        let lacking = modules.iter().filter(|module| **module == "no_such_module");
        Ok(lacking.map(|module| (*module).to_owned()).collect())
    }

    /// A kernel that takes numbers, no more than 100, and some not back.
    fn set(&self, path: &str, value: &str) -> Result<(), Error> {
        let mut inner = self.inner();
        inner.told.push(format!("set {path} {value}"));
        let dies = inner.dies_setting.take_if(|(dies, _)| dies == path);
        assert!(!matches!(dies, Some((_, false))), "the agent dies");
        if let Some(now) = inner.kernel.get_mut(path) {
            let Ok(number) = value.parse::<u32>() else {
                let (doing, result) = (format!("set {path}"), "failed".to_owned());
                return Err(Error::Job { doing, result });
            };
            let back = number < now.parse().unwrap();
            if back && path.ends_with("one_way") {
                let (doing, result) = (format!("set {path}"), "failed".to_owned());
                return Err(Error::Job { doing, result });
            }
            *now = number.min(100).to_string();
        }
        // One that changes others.
        if path.ends_with("ip_forward") {
            inner
                .kernel
                .entry("/proc/sys/net/ipv4/conf/all/x".to_owned())
                .and_modify(|x| "0".clone_into(x));
        }
        assert_eq!(dies, None, "the agent dies");
        Ok(())
    }

    fn journal(&self, unit: &str) -> Vec<String> {
        let says = self.inner().says.clone();
        vec![says.unwrap_or_else(|| format!("{unit}: parse error"))]
    }
}
