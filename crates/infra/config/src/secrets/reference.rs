//! References in secret values (SCR-8): `env:NAME`, `file:PATH`, `exec:CMD`, and `literal:` for a value that only looks like one.
//! They count in the operator's own file or environment; [`is_reference`] lets an API refuse them.

use super::file::read_checked;
use super::{ReferenceProblem, Secrets, SecretsError, check_value, is_platform};
use crate::env::Environment;
use crate::profile::secrets::SecretsFileMode;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use systemprompt_models::Secret;

const COMMAND_TIME: Duration = Duration::from_secs(10);
const COMMAND_OUTPUT: u64 = 64 << 10;

/// Schemes of other tools that people bring along.
const FOREIGN_SCHEMES: [&str; 17] = [
    "aws",
    "azure",
    "bw",
    "cmd",
    "command",
    "doppler",
    "environment",
    "gcp",
    "keychain",
    "keyring",
    "op",
    "pass",
    "ref",
    "secret",
    "sops",
    "ssm",
    "vault",
];

/// Whether a value would be looked up rather than taken as it is.
pub fn is_reference(value: &str) -> bool {
    ["env:", "file:", "exec:"].iter().any(|scheme| value.starts_with(scheme))
}

/// Looks references up.
pub struct Resolver<'a> {
    pub env: &'a dyn Environment,
    /// Folder that relative `file:` paths count from.
    pub folder: &'a Path,
    pub file_mode: SecretsFileMode,
    /// Whether `exec:` commands are run.
    pub run_commands: bool,
}

impl Resolver<'_> {
    /// Replaces every reference by its value. What does not resolve is taken out and noted; for a platform secret it is an error.
    pub fn resolve(&self, secrets: &mut Secrets) -> Result<(), SecretsError> {
        let looked_up: Vec<_> = secrets
            .values_in_use()
            .map(|(name, value)| (name.to_owned(), self.value(name, value.expose())))
            .collect();
        for (name, result) in looked_up {
            if let Some(source) = secrets.raw(&name).and_then(source_of) {
                secrets.note_source(&name, source);
            }
            match result {
                Ok(None) => {}
                Ok(Some(value)) => secrets.replace(&name, value),
                Err(SecretsError::Reference { problem: ReferenceProblem::CommandNotRun, .. })
                    if is_platform(&name) => {}
                Err(error) if is_platform(&name) => return Err(error),
                Err(error) => secrets.disable(&name, error),
            }
        }
        Ok(())
    }

    /// `None` when the text is the value itself.
    fn value(&self, key: &str, text: &str) -> Result<Option<Secret<String>>, SecretsError> {
        let failed = |problem| SecretsError::Reference { key: key.to_owned(), problem };
        let value = match text.split_once(':') {
            Some(("literal", rest)) => Secret::from(rest),
            Some(("env", name)) => self
                .env
                .get(name)
                .map(Secret::new)
                .ok_or_else(|| failed(ReferenceProblem::Variable(name.chars().take(64).collect())))?,
            Some(("file", path)) => self.file(path).map_err(failed)?,
            Some(("exec", _)) if !self.run_commands => return Err(failed(ReferenceProblem::CommandNotRun)),
            Some(("exec", line)) => self.command(line).map_err(failed)?,
            Some((scheme, rest))
                if FOREIGN_SCHEMES.contains(&scheme) && !rest.contains(char::is_whitespace) =>
            {
                return Err(SecretsError::UnknownScheme { key: key.to_owned() });
            }
            _ => return Ok(None),
        };
        if value.expose().is_empty() {
            return Err(SecretsError::Empty { key: key.to_owned() });
        }
        check_value(key, value.expose())?;
        Ok(Some(value))
    }

    fn file(&self, path: &str) -> Result<Secret<String>, ReferenceProblem> {
        let path: PathBuf = match path.strip_prefix('@') {
            Some(name) => {
                let folder = self.env.get("CREDENTIALS_DIRECTORY").ok_or(ReferenceProblem::Credential)?;
                if name.is_empty() || name.contains('/') || name == ".." {
                    return Err(ReferenceProblem::Credential);
                }
                Path::new(&folder).join(name)
            }
            None => self.folder.join(path),
        };
        let text = read_checked(&path, self.file_mode).map_err(|e| ReferenceProblem::File(Box::new(e)))?;
        Ok(without_line_end(text))
    }

    fn command(&self, line: &str) -> Result<Secret<String>, ReferenceProblem> {
        let words = split_words(line).ok_or(ReferenceProblem::CommandSyntax)?;
        let (program, arguments) = words.split_first().ok_or(ReferenceProblem::CommandSyntax)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir(self.folder).process_group(0);
        for name in ["PATH", "HOME", "LANG"] {
            if let Some(value) = self.env.get(name) {
                command.env(name, value);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| ReferenceProblem::CommandStart)?;
        let output = child.stdout.take();
        // The output is read beside the wait, so that a command that writes much does not block.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(output) = output {
                let read = output.take(COMMAND_OUTPUT + 1).read_to_end(&mut bytes);
                // The receiver has gone only after the time was up.
                let _gone = sender.send(read.map(|_| bytes));
            }
        });
        let deadline = Instant::now() + COMMAND_TIME;
        let bytes = receiver.recv_timeout(COMMAND_TIME);
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => break,
                Ok(Some(_)) | Err(_) => return Err(ReferenceProblem::CommandFailed),
                Ok(None) if Instant::now() >= deadline => {
                    // The whole group, for a command may have started others.
                    if let Ok(pid) = i32::try_from(child.id()) {
                        let _already_gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                    let _reaped = child.wait();
                    return Err(ReferenceProblem::CommandTimeout);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let bytes = bytes
            .map_err(|_| ReferenceProblem::CommandTimeout)?
            .map_err(|_| ReferenceProblem::CommandFailed)?;
        if bytes.len() as u64 > COMMAND_OUTPUT {
            return Err(ReferenceProblem::CommandFailed);
        }
        let text = String::from_utf8(bytes).map_err(|_| ReferenceProblem::NotText)?;
        Ok(without_line_end(Secret::new(text)))
    }
}

/// What may be shown of a reference. A command line may itself hold what is not to be shown.
fn source_of(text: &str) -> Option<String> {
    match text.split_once(':')? {
        ("env" | "file", _) => Some(text.to_owned()),
        ("exec", _) => Some("exec".to_owned()),
        _ => None,
    }
}

/// The value without one closing line end.
fn without_line_end(text: Secret<String>) -> Secret<String> {
    let value = text.expose();
    match value.strip_suffix("\r\n").or_else(|| value.strip_suffix('\n')) {
        Some(shorter) => Secret::from(shorter),
        None => text,
    }
}

/// Splits a command line at blanks; single and double quotes keep blanks, a backslash keeps the next character. No shell is used.
pub(crate) fn split_words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests;
