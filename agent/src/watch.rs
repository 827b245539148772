//! Watches the folders of what is in force, so that a change by somebody else is seen at once.
//!
//! The kernel says when something happens in a folder (inotify(7)); what it is, only a look at the host
//! tells, which finds the agent's own writes to be no drift. What nobody tells (settings of the kernel,
//! events that were lost) the slow look finds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edict_core::guard::path::ROOT;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::apply::Agent;

/// How often everything is looked at although nothing was said.
pub const SLOW: Duration = Duration::from_mins(5);
/// The least time between two looks: who changes something all the time has no more of them.
const PAUSE: Duration = Duration::from_secs(1);

/// Wakes the watcher: what is in force has changed, and with it what is to be watched.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// One that nobody listens to yet.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Has the watcher look again.
    pub fn wake(&self) {
        // It fails only where nobody has listened for 2^64 times.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn listen(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }
}

/// Looks for drift whenever something happens in a folder of what is in force, whenever `waker` says so,
/// and every [`SLOW`]. `etc` is the host's `/etc`. Never ends.
fn run(agent: &Agent, etc: &Path, waker: &Waker) -> io::Result<()> {
    loop {
        let looked = Instant::now();
        // Watched first and looked at then: nothing is missed in between.
        let watches = watch(etc, &agent.watched())?;
        let next = agent.look_for_drift(Instant::now());
        let again = next.map(|next| next.saturating_duration_since(Instant::now()));
        let wait = again.map_or(SLOW, |again| again.min(SLOW).max(PAUSE));
        // The look's own writes are events too: they are forgotten with these watches where they came
        // before the last change by somebody else, and cost one more look where they did not.
        wait_for(&watches, waker, wait)?;
        std::thread::sleep(PAUSE.saturating_sub(looked.elapsed()));
    }
}

/// What is watched.
struct Watches {
    kernel: OwnedFd,
    /// What each watch is of.
    of: HashMap<i32, Vec<PathBuf>>,
    /// Where something has to happen so that it matters: the paths, and the folders above them.
    matters: HashSet<PathBuf>,
}

/// Watches these paths and the folders above them. What is not there is waited for in the folders that
/// are.
fn watch(etc: &Path, paths: &BTreeSet<String>) -> io::Result<Watches> {
    let mut watches = Watches {
        kernel: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
        of: HashMap::new(),
        matters: HashSet::new(),
    };
    let happens = WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVE_SELF;
    let mut wanted = BTreeSet::new();
    for path in paths {
        let Some(inner) = path.strip_prefix(ROOT) else {
            continue;
        };
        let whole = etc.join(inner.trim_start_matches('/'));
        let above = whole.ancestors().take_while(|path| *path != etc);
        watches.matters.extend(above.map(Path::to_owned));
        let folders = whole.ancestors().skip(1);
        let folders = folders.take_while(|folder| folder.starts_with(etc));
        wanted.extend(folders.filter(|folder| folder.is_dir()).map(Path::to_owned));
        // A file that something is mounted over has events of its own.
        wanted.insert(whole);
    }
    for path in wanted {
        match inotify::add_watch(&watches.kernel, &path, happens) {
            Ok(watch) => watches.of.entry(watch).or_default().push(path),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::NOSPC) => {
                tracing::warn!(path = %path.display(), "the kernel watches no more than that (fs.inotify.max_user_watches): the slow look finds the rest");
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(watches)
}

impl Watches {
    /// Hears what has happened; whether it matters.
    fn hear(&self) -> io::Result<bool> {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.kernel, &mut room);
        let mut matters = false;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(matters),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            let mut places = self.of.get(&event.wd()).into_iter().flatten();
            matters |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                || places.any(|place| match name {
                    Some(name) => self.matters.contains(&place.join(name)),
                    None => self.matters.contains(place),
                });
        }
    }
}

/// Waits until something happens that matters, and until it is over.
fn wait_for(watches: &Watches, waker: &Waker, longest: Duration) -> io::Result<()> {
    let deadline = Instant::now() + longest;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut both = [
            PollFd::new(&watches.kernel, PollFlags::IN),
            PollFd::new(&*waker.0, PollFlags::IN),
        ];
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut both, Some(&timeout)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let woken = both[1].revents().contains(PollFlags::IN);
        if watches.hear()? || woken {
            break;
        }
    }
    waker.listen();
    Ok(())
}

/// Has a thread of its own look for drift, now and whenever there may be some.
pub fn start(agent: Arc<Agent>, etc: PathBuf) -> io::Result<()> {
    let waker = Waker::new()?;
    agent.wakes(waker.clone());
    let watcher = std::thread::Builder::new().name("drift".to_owned());
    watcher.spawn(move || {
        while let Err(error) = run(&agent, &etc, &waker) {
            tracing::error!(%error, "changes by others can't be watched; they are looked for");
            agent.look_for_drift(Instant::now());
            std::thread::sleep(SLOW);
        }
    })?;
    Ok(())
}
