//! `validate [PATH]`: the engine of start and reload, on files that need not be in use. All findings at once, each with its
//! place; 7 if one is an error.

use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::{Globals, no_profile};
use crate::output::Output;
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use systemprompt_config::{Diagnostic, ProfileLocation};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A data folder, or any file in one [default: the profile's]
    path: Option<PathBuf>,
}

pub fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let location = match &args.path {
        Some(path) => location_of(globals, path)?,
        None => globals.location()?,
    };
    let file = location.profile_file();
    if !file.is_file() {
        return Err(no_profile(&location));
    }
    let (hash, findings) = match database::check(location)? {
        Ok(loaded) => (Some(loaded.hash), loaded.warnings),
        Err(findings) => (None, findings),
    };
    let (valid, out) = (hash.is_some(), Output::new(globals));
    let value = json!({"valid": valid, "profile": file, "hash": hash, "findings": findings});
    let verdict = format!("{} is {}valid", file.display(), if valid { "" } else { "not " });
    let mut text: Vec<String> = findings.iter().map(shown).collect();
    text.push(verdict);
    out.document(&value, &text.join("\n"))?;
    Ok(if valid { Exit::Ok } else { Exit::Invalid })
}

/// With the lines of the file on a terminal, in one line elsewhere.
fn shown(finding: &Diagnostic) -> String {
    let severity = serde_json::to_value(finding.severity).unwrap_or(Value::Null);
    let line = format!("{}: {finding}", severity.as_str().unwrap_or_default());
    if !std::io::stdout().is_terminal() {
        return line;
    }
    let mut report = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode());
    handler.render_report(&mut report, finding).map_or(line, |()| report)
}

/// The installation that a path belongs to: the nearest folder upwards that holds `profiles`.
fn location_of(globals: &Globals, path: &Path) -> Result<ProfileLocation, CliError> {
    let missing =
        |error| CliError::new(Exit::NotFound, format!("{} is not there", path.display())).why(error);
    let path = path.canonicalize().map_err(missing)?;
    let named = path.file_name().is_some_and(|name| name == "profile.yaml");
    let folder = path.ancestors().find(|folder| folder.join("profiles").is_dir());
    let inner = path.join(systemprompt_config::data_dir::FOLDER_NAME);
    let folder = folder.map(Path::to_owned).or_else(|| inner.join("profiles").is_dir().then_some(inner));
    let folder = folder.ok_or_else(|| {
        CliError::new(Exit::NotFound, format!("{} belongs to no installation", path.display()))
            .why("no folder above it holds `profiles`")
            .fix("name a data folder")
    })?;
    let of_file = path.parent().and_then(Path::file_name).filter(|_| named).and_then(|name| name.to_str());
    let mut globals = globals.clone();
    globals.data_dir = Some(folder);
    globals.profile = of_file.map(str::to_owned).or(globals.profile);
    globals.location()
}
