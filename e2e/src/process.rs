//! One program run to its end: with a deadline, and an error that says which
//! program said what.

mod lines;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use lines::{Lines, Source};

/// Enough for any single request to docker or the API server, also on a machine
/// that is building something beside it.
const DEFAULT_DEADLINE: Duration = Duration::from_mins(1);

/// So much of a program's stderr goes into an error.
const ERROR_LINES: usize = 20;

/// A program to run, as a builder.
#[derive(Clone, Debug)]
pub struct Process {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
    stdin: Vec<u8>,
    deadline: Duration,
    first_line: Option<Duration>,
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Process {
    /// Takes the program's name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            folder: None,
            stdin: Vec::new(),
            deadline: DEFAULT_DEADLINE,
            first_line: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let value = Some(value.as_ref().to_owned());
        self.envs.push((name.as_ref().to_owned(), value));
        self
    }

    /// Takes an environment variable away.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Feeds these bytes to its standard input; nothing otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Ends it after this long, instead of after one minute.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Gives up when it has not said a line after this long; however much time it has in all.
    #[must_use]
    pub fn first_line_within(mut self, deadline: Duration) -> Self {
        self.first_line = Some(deadline);
        self
    }

    /// Runs it and takes any exit code.
    pub async fn output(self) -> Result<Output> {
        self.follow(|_, _| ()).await
    }

    /// Runs it, asks for success and gives its standard output.
    pub async fn bytes(self) -> Result<Vec<u8>> {
        let name = self.describe();
        Ok(succeeded(&name, self.output().await?)?.stdout)
    }

    /// Runs it, asks for success and gives its standard output as text, trimmed.
    pub async fn text(self) -> Result<String> {
        let stdout = self.bytes().await?;
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }

    /// As [`Self::text`], calling `each` with every line that it says on stderr.
    pub async fn text_with_progress(self, mut each: impl FnMut(&str)) -> Result<String> {
        let name = self.describe();
        let followed = self.follow(|source, line| {
            if source == Source::Stderr {
                each(line);
            }
        });
        let output = succeeded(&name, followed.await?)?;
        Ok(output.text().trim().to_owned())
    }

    /// Runs it, asks for success and calls `each` with every line as it comes.
    pub async fn follow_lines(self, mut each: impl FnMut(&str)) -> Result<()> {
        let name = self.describe();
        succeeded(&name, self.follow(|_, line| each(line)).await?)?;
        Ok(())
    }

    async fn follow(self, mut each: impl FnMut(Source, &str)) -> Result<Output> {
        let name = self.describe();
        let mut child = self.spawn()?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        let stderr = child.stderr.take().context("stderr is a pipe")?;
        let first_line = self.first_line;
        let run = async {
            let feed = async {
                // A program that ends before it has read all of it says so itself.
                let _ = stdin.write_all(&self.stdin).await;
                drop(stdin);
            };
            let collect = async {
                let mut lines = Lines::new(stdout, stderr);
                let mut heard = false;
                loop {
                    let next = match first_line.filter(|_| !heard) {
                        Some(limit) => timeout(limit, lines.next())
                            .await
                            .map_err(|_| anyhow!("{name} said nothing for {limit:?}"))?,
                        None => lines.next().await,
                    };
                    match next? {
                        Some((source, line)) => each(source, &line),
                        None => break,
                    }
                    heard = true;
                }
                anyhow::Ok((lines.stdout, lines.stderr))
            };
            let ((), collected) = futures::join!(feed, collect);
            let (stdout, stderr) = collected?;
            let status = child
                .wait()
                .await
                .with_context(|| format!("cannot wait for {name}"))?;
            Ok(Output {
                code: status.code(),
                stdout,
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            })
        };
        match timeout(self.deadline, run).await {
            Ok(done) => done,
            Err(_) => bail!("{name} did not end within {:?}", self.deadline),
        }
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.spawn().with_context(|| {
            let program = self.program.to_string_lossy();
            format!("cannot run {program}: is it installed and on PATH?")
        })
    }

    /// The command line, cut short: arguments may be whole scripts.
    fn describe(&self) -> String {
        const LONGEST: usize = 160;
        let mut text = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        if let Some((cut, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(cut);
            text.push('…');
        }
        text
    }
}

/// Gives the output back when the program succeeded, else an error with the end of
/// what it said.
fn succeeded(name: &str, output: Output) -> Result<Output> {
    if output.success() {
        return Ok(output);
    }
    let said = if output.stderr.trim().is_empty() {
        output.text()
    } else {
        output.stderr
    };
    let lines: Vec<&str> = said.trim().lines().collect();
    let end = lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n");
    match output.code {
        Some(code) => bail!("{name} ended with {code}: {end}"),
        None => bail!("{name} was killed: {end}"),
    }
}
