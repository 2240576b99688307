//! Starts `systemprompt up --json --port 0`, waits for its ready line, and ends it with the test.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take until its ready line; debug builds on a loaded machine are slow.
const START: Duration = Duration::from_mins(1);
/// How long it may take to drain after SIGTERM.
const DRAIN: Duration = Duration::from_secs(40);
/// Where `up` keeps the secrets.
const SECRETS_FILE: &str = "profiles/default/secrets.json";
/// The secret that names the database.
const DATABASE_URL: &str = "database_url";
/// How much of its log a failed start shows.
const LOG_TAIL: u64 = 8 * 1024;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    binary: PathBuf,
    command: Vec<String>,
    secrets: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
}

impl Options {
    /// `up --demo` with the binary that the test build made.
    ///
    /// # Errors
    /// When the binary is not there: `cargo xtask test` builds it, a plain test run does not.
    pub fn demo() -> Result<Self> {
        Ok(Self::demo_with(binary()?))
    }

    /// `up --demo` with a certain binary.
    pub fn demo_with(binary: PathBuf) -> Self {
        let command = ["up", "--demo", "--json", "--port", "0"].map(str::to_owned).to_vec();
        Self {
            binary,
            command,
            secrets: BTreeMap::new(),
            files: BTreeMap::new(),
            environment: Vec::new(),
            data_dir: None,
        }
    }

    /// Replaces `up --demo …`, to start without the demo's seed or with another command.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Stores in this PostgreSQL database; without it the server makes its SQLite file.
    pub fn postgres(self, url: &str) -> Self {
        self.secret(DATABASE_URL, url).env("SYSTEMPROMPT__DATABASE__TYPE", "postgres")
    }

    /// Puts a secret into the secrets file of a new data folder.
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Raises every limit of requests and calls out of reach, for tests and measurements that make many.
    pub fn without_limits(self) -> Self {
        let policies = "governance:\n  policies:\n    - id: rate_limit\n      params: { limit: 10000000 }\n";
        self.env("SYSTEMPROMPT__RATE_LIMITS__DISABLED", "true")
            .file("services/governance/config.yaml", policies)
    }

    /// Lays a file into a new data folder, as `services/governance/config.yaml`.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    /// Sets a variable, as `SYSTEMPROMPT__SECTION__KEY` for a setting of the profile.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses an existing data folder, to start again on what an earlier server left.
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.data_dir = Some(folder.to_path_buf());
        self
    }

    /// Runs another command of the binary on `folder` with the same settings, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, folder: &Path, words: &[&str]) -> Result<std::process::Output> {
        self.program(folder).args(words).output().context("the systemprompt binary could not be started")
    }

    fn program(&self, folder: &Path) -> Command {
        let mut program = Command::new(&self.binary);
        program.arg("--data-dir").arg(folder).stdin(Stdio::null());
        program.envs(self.environment.iter().map(|(name, value)| (name, value)));
        program
    }

    /// Makes the data folder with what the server is to find in it; what exists stays.
    fn lay(&self, folder: &Path) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let secrets = serde_json::to_string(&self.secrets)?;
        let secrets = (!self.secrets.is_empty()).then_some((SECRETS_FILE, secrets.as_str()));
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        for (path, text) in files.chain(secrets) {
            let file = folder.join(path);
            DirBuilder::new().recursive(true).mode(0o700).create(file.parent().unwrap_or(folder))?;
            if !file.exists() {
                let mut file = File::options().write(true).create_new(true).mode(0o600).open(file)?;
                file.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or says nothing within a minute; the error holds the end of its log.
    pub fn start(self) -> Result<Server> {
        let own = match self.data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("systemprompt-").tempdir()?),
        };
        let folder = self.data_dir.clone().or_else(|| Some(own.as_ref()?.path().join("data")));
        let folder = folder.unwrap_or_default();
        self.lay(&folder)?;
        let log_path = folder.join("server.log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let started = Instant::now();
        let mut child = self
            .program(&folder)
            .args(&self.command)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} could not be started", self.binary.display()))?;
        let lines = lines_of(&mut child)?;
        let mut server = Server {
            child,
            ready: Value::Null,
            lines,
            folder,
            log_path,
            options: self,
            ready_in: started.elapsed(),
            own,
        };
        server.ready = server.wait_until_ready()?;
        server.ready_in = started.elapsed();
        Ok(server)
    }
}

/// A running server. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    ready: Value,
    lines: Receiver<String>,
    folder: PathBuf,
    log_path: PathBuf,
    options: Options,
    ready_in: Duration,
    own: Option<TempDir>,
}

impl Server {
    /// The base URL, without a slash at its end.
    pub fn url(&self) -> &str {
        self.text("/api_url").trim_end_matches('/')
    }

    /// ada's token (roles admin and user).
    pub fn admin_token(&self) -> &str {
        self.text("/demo/admin_token")
    }

    /// bob's token (role user).
    pub fn user_token(&self) -> &str {
        self.text("/demo/user_token")
    }

    /// The whole ready line.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// From the start of the process to its ready line.
    pub fn ready_in(&self) -> Duration {
        self.ready_in
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data_dir(&self) -> &Path {
        &self.folder
    }

    /// Where it stores: the file that it made, or the PostgreSQL database that it was given.
    pub fn database_url(&self) -> String {
        let own = || format!("sqlite:{}", self.folder.join("systemprompt.db").display());
        self.options.secrets.get(DATABASE_URL).cloned().unwrap_or_else(own)
    }

    /// The value of a secret, from the secrets file.
    ///
    /// # Errors
    /// When the file cannot be read or has no such secret.
    pub fn secret(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.folder.join(SECRETS_FILE))?;
        let secrets: Value = serde_json::from_str(&text)?;
        let value = secrets.get(name).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("secrets.json has no {name}"))
    }

    /// What the server has written to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Runs a command of the binary on the same data folder, to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<std::process::Output> {
        self.options.run(&self.folder, words)
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error holds all that it said.
    pub fn succeed(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        let (printed, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "`systemprompt {}`: {}\n{printed}{said}",
            words.join(" "),
            output.status
        );
        Ok(printed.into_owned())
    }

    /// As [`Self::succeed`], with `input` on standard input.
    ///
    /// # Errors
    /// As [`Self::succeed`].
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Result<String> {
        let mut program = self.options.program(&self.folder);
        let mut child = program
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`systemprompt {}`: {}\n{said}", words.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `doctor`, which must find nothing but that the tests' own PostgreSQL runs without fsync; returns what it printed.
    ///
    /// # Errors
    /// When another check fails.
    pub fn healthy(&self) -> Result<String> {
        let output = self.run(&["doctor"])?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut failed = printed.lines().filter(|line| line.starts_with("FAIL")).peekable();
        let succeeded = output.status.success() || failed.peek().is_some();
        ensure!(succeeded && failed.all(|line| line.starts_with("FAIL  durability ")), "{printed}");
        Ok(printed)
    }

    /// SIGTERM, then waits for the drain.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let end = Instant::now() + DRAIN;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the server did not end within {DRAIN:?} after SIGTERM:\n{}", self.log_tail())
    }

    /// SIGKILL: the crash of the crash tests.
    ///
    /// # Errors
    /// When the process cannot be killed or waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends any signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("sending {signal}"))
    }

    /// Starts the same server again on the same data folder; call it after [`Server::kill`] or [`Server::terminate`].
    ///
    /// # Errors
    /// As [`Options::start`].
    pub fn restart(mut self) -> Result<Self> {
        let own = self.own.take();
        let options = self.options.clone().data_dir(&self.folder);
        drop(self);
        let mut server = options.start()?;
        server.own = own;
        Ok(server)
    }

    fn text(&self, pointer: &str) -> &str {
        self.ready.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) -> Result<Value> {
        match self.lines.recv_timeout(START) {
            Ok(line) => {
                let ready: Value = serde_json::from_str(&line)
                    .with_context(|| format!("the ready line is not JSON: {line}"))?;
                if ready.get("api_url").and_then(Value::as_str).is_none() {
                    bail!("the ready line has no api_url: {line}");
                }
                Ok(ready)
            }
            Err(RecvTimeoutError::Timeout) => bail!("no ready line within {START:?}:\n{}", self.log_tail()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("the server ended before it was ready ({status}):\n{}", self.log_tail())
            }
        }
    }

    fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut file = File::open(&self.log_path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        tail().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's standard output, line by line, read to its end so that the child never blocks on it.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let stdout = child.stdout.take().context("the server's standard output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
}

/// `target/debug/systemprompt`, found beside the running test (`target/debug/deps/it-…`).
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folders = test.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("systemprompt")).find(|file| file.is_file()).context(
        "no `systemprompt` beside the tests: run them with `cargo xtask test`, or `cargo build` first",
    )
}
