//! Says what the harness is doing: a spinner with the time on a terminal, plain
//! lines elsewhere.
//!
//! Written to stderr itself and not with `eprintln!`, which the test runner would
//! hold back until a test fails.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One thing that takes a while. Dropped without [`Step::done`] it has failed.
#[derive(Debug)]
pub struct Step {
    what: String,
    began: Instant,
    bar: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Begins it.
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| spinner(&what));
        Self {
            what,
            began: Instant::now(),
            bar,
            finished: false,
        }
    }

    /// Says how it goes.
    pub fn note(&self, note: &str) {
        let note = note.trim();
        match &self.bar {
            Some(bar) => bar.set_message(note.to_owned()),
            None if note.is_empty() => {}
            None => self.line(note),
        }
    }

    /// Ends it well; `result` says with what.
    pub fn done(mut self, result: &str) {
        self.end(result);
    }

    fn end(&mut self, result: &str) {
        self.finished = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.line(result);
    }

    fn line(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        let what = &self.what;
        // Nowhere is left to say that stderr is gone.
        let _ = writeln!(stderr(), "{seconds:7.1} s  {what}: {text}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("failed");
        }
    }
}

fn spinner(what: &str) -> ProgressBar {
    const REDRAW: Duration = Duration::from_millis(120);
    let style = ProgressStyle::with_template("{elapsed:>7}  {spinner} {prefix}: {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(REDRAW);
    bar
}
