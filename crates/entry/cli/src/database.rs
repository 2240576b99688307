//! The profile's database for commands that work on it without a node: migrations, verification, checks.

use crate::exit::{CliError, Exit};
use crate::globals::{Globals, no_profile};
use crate::node::{boot_error, invalid};
use std::path::PathBuf;
use std::sync::Arc;
use systemprompt_config::{Diagnostic, Loaded, ProfileLocation, validate};
use systemprompt_database::{Claim, Db};
use systemprompt_models::SystemClock;
use systemprompt_runtime::{BootOptions, boot};

/// Connections that such a command may use.
const CONNECTIONS: u32 = 4;

/// The whole configuration, as a start reads it.
///
/// # Errors
/// No profile (5), or one that is not valid (7).
pub fn load(globals: &Globals) -> Result<Loaded, CliError> {
    let location = globals.location()?;
    if !location.profile_file().is_file() {
        return Err(no_profile(&location));
    }
    check(location)?.map_err(invalid)
}

/// Profile, services and secrets at a place, or every finding.
///
/// # Errors
/// When the built-in rules cannot be compiled.
pub fn check(location: ProfileLocation) -> Result<Result<Loaded, Vec<Diagnostic>>, CliError> {
    let parts = boot::pipeline_parts(Arc::new(SystemClock)).map_err(boot_error)?;
    Ok(validate(&boot::load_options(&BootOptions::new(location), &parts)))
}

/// The file of a SQLite database.
pub fn file(loaded: &Loaded) -> Option<PathBuf> {
    let url = loaded.database_url();
    let path = url.expose().strip_prefix("sqlite:")?;
    Some(PathBuf::from(path.split('?').next().unwrap_or(path)))
}

/// Keeps every other process of a SQLite database away.
///
/// # Errors
/// When one has it (6).
pub fn claim(loaded: &Loaded) -> Result<Option<Claim>, CliError> {
    Claim::take(loaded.database_url().expose())
        .map_err(|error| CliError::new(Exit::Conflict, "the database is in use").why(error))
}

/// Opens a database that exists; none is made.
///
/// # Errors
/// No database (5), or one that cannot be opened.
pub async fn open(loaded: &Loaded) -> Result<Db, CliError> {
    if let Some(file) = file(loaded).filter(|file| !file.is_file()) {
        return Err(CliError::new(Exit::NotFound, format!("there is no database at {}", file.display()))
            .fix("`systemprompt up` makes one"));
    }
    Db::connect(loaded.database_url().expose(), CONNECTIONS).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        CliError::new(Exit::Failure, error.to_string())
            .why(cause.unwrap_or_else(|| "its address is wrong".to_owned()))
            .fix("check the secret database_url and whether the database runs")
    })
}
