//! What the agent costs, each time beside what can't be had for less, or beside what does the same.
//!
//! ```text
//! file      applying, beside the bare work on the disk
//! rest      the agent of the image with nothing to do, beside a server that has nothing to do
//! ansible   twenty files, beside Ansible's copy module
//! ```
//!
//! `cargo bench --package edict-agent`. `TMPDIR` says on which disk. Exits with 1 if something misses its
//! bound.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that can't do its work has nothing to say"
)]

mod ansible;
mod file;
mod rest;

use std::io::{self, Write as _};
use std::process::ExitCode;

/// One line of the table.
struct Line {
    what: &'static str,
    /// What it is for the agent and for the other side, and how many times that is.
    both: [String; 2],
    times: f64,
    bound: Bound,
}

/// What is wanted.
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: it is said for comparison.
    None,
}

impl Line {
    fn of<T: std::fmt::Debug>(
        what: &'static str,
        both: [T; 2],
        size: impl Fn(&T) -> f64,
        bound: Bound,
    ) -> Self {
        let [ours, theirs] = [&both[0], &both[1]].map(size);
        let times = match bound {
            Bound::AtMost(_) | Bound::None => ours / theirs,
            Bound::AtLeast(_) => theirs / ours,
        };
        let both = both.map(|one| format!("{one:.1?}"));
        Self {
            what,
            both,
            times,
            bound,
        }
    }

    /// Says it; whether it is within its bound.
    fn say(&self) -> io::Result<bool> {
        let Self {
            what,
            both: [ours, theirs],
            times,
            bound,
        } = self;
        let (is, bound) = match bound {
            Bound::AtMost(most) => (times <= most, format!(", at most {most}x")),
            Bound::AtLeast(least) => (times >= least, format!(", at least {least}x")),
            Bound::None => (true, String::new()),
        };
        let verdict = match (&*bound, is) {
            ("", _) => "",
            (_, true) => " ok",
            (_, false) => " MISSED",
        };
        writeln!(
            io::stdout(),
            "{what:<54} {ours:>10} {theirs:>10} {times:>7.2}x{bound}{verdict}"
        )?;
        Ok(is)
    }
}

fn main() -> io::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let seconds = std::time::Duration::as_secs_f64;
    let mut all = true;
    all &= Line::of(
        "one file of 1 KiB, beside write, sync, rename, sync",
        file::one(folder),
        seconds,
        Bound::AtMost(2.5),
    )
    .say()?;
    all &= Line::of(
        "50 files that are there, beside reading, hashing",
        file::idle(folder),
        seconds,
        Bound::AtMost(10.0),
    )
    .say()?;
    let rest::Rest {
        kib,
        alike,
        wakes,
        image,
    } = rest::measure(folder)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "memory in KiB is no such number"
    )]
    let size = |kib: &u64| *kib as f64;
    all &= Line::of(
        "at rest, KiB resident, beside an empty TLS server",
        kib,
        size,
        Bound::AtMost(1.5),
    )
    .say()?;
    all &= Line::of(
        "the same, beside one that is built as the agent is",
        [kib[0], alike],
        size,
        Bound::None,
    )
    .say()?;
    all &= rest::say_wakes(wakes)?;
    all &= rest::say_image(image)?;
    match ansible::measure(folder) {
        Ok(both) => {
            all &= Line::of(
                "20 files, beside Ansible's copy on localhost",
                both,
                seconds,
                Bound::AtLeast(50.0),
            )
            .say()?;
        }
        Err(error) => {
            writeln!(io::stdout(), "20 files, beside Ansible: left out, {error}")?;
        }
    }
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
