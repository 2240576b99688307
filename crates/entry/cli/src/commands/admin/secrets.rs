//! `admin secrets`: the secrets file. Names are shown, values never; a value comes from standard input or a file, never as an
//! argument. A running server notices the change by itself.

use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::output::{Column, Output, column, note};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use systemprompt_config::bootstrap::SecretsBootstrap;
use systemprompt_config::profile::secrets::SecretsSource;
use systemprompt_config::secrets::file::{remove_secret, set_secret};
use systemprompt_config::secrets::{MAX_VALUE_BYTES, names};
use systemprompt_config::{DataPaths, ProcessEnvironment, Profile, Secrets, SecretsError};
use systemprompt_leak::Scanner;
use systemprompt_models::Secret;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Names, kinds and origins; never values
    List,
    /// Sets a provider's key, a custom secret or database_url; the value comes from standard input
    Set {
        name: String,
        /// Reads the value from this file
        #[arg(long, value_name = "FILE")]
        value_file: Option<PathBuf>,
    },
    /// Removes a provider's key or a custom secret
    Delete {
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[column("name", "/name"), column("kind", "/kind"), column("origin", "/origin")];

pub fn run(globals: &Globals, out: Output, command: Command) -> Result<Exit, CliError> {
    let (location, profile) = globals.load_profile()?;
    let paths = location.resolve(&profile);
    match command {
        Command::List => out.list(&list(&profile, &paths)?, COLUMNS)?,
        Command::Set { name, value_file } => {
            writable(&profile)?;
            let value = value(value_file.as_deref())?;
            guardable(&name, &value)?;
            set_secret(&paths.secrets_file, profile.secrets.file_mode, &name, &value)
                .map_err(|error| refused(&format!("the secret `{name}` was not set"), &error))?;
            note(&format!("set the secret {name} in {}", paths.secrets_file.display()))?;
        }
        Command::Delete { name, confirm } => {
            writable(&profile)?;
            confirm.ask(&format!("delete the secret {name}"), &name)?;
            let removed = remove_secret(&paths.secrets_file, profile.secrets.file_mode, &name)
                .map_err(|error| refused(&format!("the secret `{name}` was not deleted"), &error))?;
            if !removed {
                let known = read(&profile, &paths)?;
                let error = CliError::new(Exit::NotFound, format!("there is no secret `{name}`"));
                let names = known.custom_names().into_iter().chain(known.provider_names());
                return Err(match crate::nearest::suggestion(&name, names) {
                    Some(fix) => error.fix(fix),
                    None => error,
                });
            }
            note(&format!("deleted the secret {name}"))?;
        }
    }
    Ok(Exit::Ok)
}

/// As the start reads them; what is wrong with one of them is said on standard error.
fn read(profile: &Profile, paths: &DataPaths) -> Result<Arc<Secrets>, CliError> {
    let loaded = SecretsBootstrap::load(profile, paths, &ProcessEnvironment, true);
    let loaded = loaded.map_err(crate::node::invalid)?;
    loaded.warnings().iter().try_for_each(|warning| note(&warning.to_string()))?;
    Ok(loaded.get())
}

fn list(profile: &Profile, paths: &DataPaths) -> Result<Value, CliError> {
    let secrets = read(profile, paths)?;
    let stored = match profile.secrets.source {
        SecretsSource::File => "file",
        SecretsSource::Env => "environment",
    };
    let mut names: Vec<(&str, &str)> = secrets.values_in_use().map(|(name, _)| (kind(name), name)).collect();
    names.sort_unstable();
    let item = |(kind, name): (&str, &str)| json!({"name": name, "kind": kind, "origin": secrets.source(name).unwrap_or(stored)});
    Ok(json!({"items": names.into_iter().map(item).collect::<Vec<_>>(), "next": null}))
}

fn kind(name: &str) -> &'static str {
    if names::is_platform(name) {
        "platform"
    } else if names::is_provider(name) {
        "provider"
    } else {
        "custom"
    }
}

fn writable(profile: &Profile) -> Result<(), CliError> {
    match profile.secrets.source {
        SecretsSource::File => Ok(()),
        SecretsSource::Env => {
            Err(CliError::new(Exit::Conflict, "the profile takes its secrets from the environment")
                .why("`secrets.source` is env")
                .fix("set SYSTEMPROMPT_SECRET_<NAME> where the server is started"))
        }
    }
}

/// The value, without the line end that an editor or `echo` puts behind it.
fn value(file: Option<&Path>) -> Result<Secret<String>, CliError> {
    let mut bytes = Vec::new();
    let limit = MAX_VALUE_BYTES as u64 + 3;
    match file {
        Some(path) => {
            let opened = std::fs::File::open(path);
            let failed =
                |error| CliError::new(Exit::Failure, format!("{} cannot be read", path.display())).why(error);
            opened.and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
        }
        None if std::io::stdin().is_terminal() => {
            return Err(CliError::new(Exit::Usage, "there is no value")
                .why("a value that is typed stays on the screen")
                .fix("send it through standard input, or name a file with --value-file"));
        }
        None => {
            std::io::stdin().take(limit).read_to_end(&mut bytes)?;
        }
    }
    let text =
        String::from_utf8(bytes).map_err(|_| CliError::new(Exit::Invalid, "the value is not UTF-8"))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Secret::new(text.to_owned()))
}

/// A value that the leak scanner could not tell from ordinary text is no secret that this program can keep (SCR-61).
fn guardable(name: &str, value: &Secret<String>) -> Result<(), CliError> {
    Scanner::new().hold(name, value).map(drop).map_err(|error| {
        CliError::new(Exit::Invalid, format!("the secret `{name}` was not set"))
            .why(error)
            .fix("choose a longer value with more different characters")
    })
}

fn refused(what: &str, error: &SecretsError) -> CliError {
    let exit = match error {
        SecretsError::NotFound { .. } => Exit::NotFound,
        SecretsError::Io { .. } => Exit::Failure,
        _ => Exit::Invalid,
    };
    let refused = CliError::new(exit, what).why(error);
    match error.remedy() {
        Some(fix) => refused.fix(fix),
        None => refused,
    }
}
