//! The lines of two streams, in the order in which they come.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Where a line came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// Two streams read together; what was read is kept whole beside the lines.
pub struct Lines<O, E> {
    out: BufReader<O>,
    err: BufReader<E>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    open: (bool, bool),
    /// Where the line that is being read begins.
    marks: (usize, usize),
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Lines<O, E> {
    pub fn new(out: O, err: E) -> Self {
        Self {
            out: BufReader::new(out),
            err: BufReader::new(err),
            stdout: Vec::new(),
            stderr: Vec::new(),
            open: (true, true),
            marks: (0, 0),
        }
    }

    /// The next line of either. `read_until` appends to buffers that outlive it,
    /// so dropping the slower of the two reads loses nothing.
    pub async fn next(&mut self) -> Result<Option<(Source, String)>> {
        loop {
            let (from, read, source) = tokio::select! {
                read = self.out.read_until(b'\n', &mut self.stdout), if self.open.0 => (self.marks.0, read, Source::Stdout),
                read = self.err.read_until(b'\n', &mut self.stderr), if self.open.1 => (self.marks.1, read, Source::Stderr),
                else => return Ok(None),
            };
            read.context("cannot read from a pipe")?;
            let (buffer, mark, open) = match source {
                Source::Stdout => (&self.stdout, &mut self.marks.0, &mut self.open.0),
                Source::Stderr => (&self.stderr, &mut self.marks.1, &mut self.open.1),
            };
            *mark = buffer.len();
            *open = buffer.last() == Some(&b'\n') && buffer.len() > from;
            if buffer.len() > from {
                let line = String::from_utf8_lossy(&buffer[from..]);
                return Ok(Some((source, line.trim_end().to_owned())));
            }
        }
    }
}
