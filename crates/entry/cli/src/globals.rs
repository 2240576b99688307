//! What holds for every command: the data folder, the profile, the form of the output, the server.

use crate::exit::{CliError, Exit};
use clap::ValueEnum;
use std::path::PathBuf;
use systemprompt_config::profile::runtime::OutputFormat as Configured;
use systemprompt_config::{LoadOptions, ProcessEnvironment, Profile, ProfileLocation};

/// Form of what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One document.
    Json,
    /// A document a line.
    Ndjson,
    Yaml,
}

/// Options that stand before or after the command.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Folder that holds profile, database and keys [default: ./.systemprompt, else the user's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "SYSTEMPROMPT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of the profile [default: default]
    #[arg(long, global = true, value_name = "NAME", env = "SYSTEMPROMPT_PROFILE")]
    pub profile: Option<String>,
    /// Form of the output [default: the profile's, else text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "SYSTEMPROMPT_OUTPUT")]
    pub output: Option<OutputFormat>,
    /// No colours, whatever the terminal can
    #[arg(long, global = true)]
    pub no_color: bool,
    /// More log lines on standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Address of the server [default: the profile's]
    #[arg(long, global = true, value_name = "URL", env = "SYSTEMPROMPT_URL")]
    pub url: Option<String>,
}

impl Globals {
    /// The profile's place.
    ///
    /// # Errors
    /// No home and no folder named, or a profile name that is none.
    pub fn location(&self) -> Result<ProfileLocation, CliError> {
        let here = std::env::current_dir()?;
        ProfileLocation::discover(
            self.data_dir.as_deref(),
            self.profile.as_deref(),
            &here,
            &ProcessEnvironment,
        )
        .map_err(|error| CliError::new(Exit::Usage, "the data folder cannot be told").why(error))
    }

    /// The form to print in: flag or environment, else the profile's, else text.
    pub fn format(&self) -> OutputFormat {
        let configured = || Some(self.load_profile().ok()?.1.runtime.output_format);
        match (self.output, self.output.is_none().then(configured).flatten()) {
            (Some(format), _) => format,
            (None, Some(Configured::Json)) => OutputFormat::Json,
            (None, Some(Configured::Ndjson)) => OutputFormat::Ndjson,
            (None, Some(Configured::Yaml)) => OutputFormat::Yaml,
            (None, Some(Configured::Text) | None) => OutputFormat::Text,
        }
    }

    /// The profile alone, without secrets and services.
    ///
    /// # Errors
    /// A profile that is missing (5) or not valid (7).
    pub fn load_profile(&self) -> Result<(ProfileLocation, Profile), CliError> {
        let location = self.location()?;
        if !location.profile_file().is_file() {
            return Err(no_profile(&location));
        }
        match systemprompt_config::load::load_profile(&LoadOptions::new(location.clone())) {
            Ok((profile, _)) => Ok((location, profile)),
            Err(findings) => {
                let error = CliError::new(Exit::Invalid, "the profile is not valid");
                Err(match findings.first() {
                    Some(first) => error.why(first).fix("`systemprompt validate` shows every finding"),
                    None => error,
                })
            }
        }
    }
}

/// There is no profile yet.
pub fn no_profile(location: &ProfileLocation) -> CliError {
    CliError::new(Exit::NotFound, format!("there is no profile at {}", location.profile_file().display()))
        .fix("`systemprompt up` makes one")
}
