//! `config show|schema`.

use crate::database;
use crate::exit::{CliError, Exit};
use crate::globals::{Globals, OutputFormat};
use crate::output::{Column, Output, cell, column, rows};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use systemprompt_config::{Loaded, profile_schema};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every setting in force; secrets by name alone
    Show {
        /// Also where each comes from: flag, environment, file and line, or default
        #[arg(long)]
        origin: bool,
    },
    /// The JSON Schema of a profile
    Schema,
}

const COLUMNS: &[Column] =
    &[column("setting", "/key"), column("value", "/value"), column("origin", "/origin")];

pub fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let out = Output::new(globals);
    match args.command {
        Command::Schema => {
            let schema = profile_schema();
            let form = globals.output.filter(|format| *format != OutputFormat::Text);
            let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
            if form.is_some() { out.document(&schema, &text)? } else { crate::output::line(&text)? }
        }
        Command::Show { origin: true } => {
            out.list(&json!({"items": settings(&database::load(globals)?), "next": null}), COLUMNS)?;
        }
        Command::Show { origin: false } => {
            let loaded = database::load(globals)?;
            let text = rows(settings(&loaded).iter().map(|item| {
                let part = |name: &str| item.get(name).map(cell).unwrap_or_default();
                vec![part("key"), part("value")]
            }));
            let mut profile = serde_json::to_value(&*loaded.profile).unwrap_or_default();
            if let Some(profile) = profile.as_object_mut() {
                profile.insert("secret_values".to_owned(), masked(&loaded).into());
            }
            out.document(&profile, &text)?;
        }
    }
    Ok(Exit::Ok)
}

/// Every setting with its origin, then the secrets that have a value.
fn settings(loaded: &Loaded) -> Vec<Value> {
    let settings = loaded.settings();
    let settings = settings
        .iter()
        .map(|line| json!({"key": line.key, "value": line.value, "origin": line.origin.to_string()}));
    let secrets = masked(loaded).into_iter().map(|(name, value)| {
        json!({"key": format!("secret {name}"), "value": value, "origin": loaded.secrets.source(&name).unwrap_or("secrets")})
    });
    settings.chain(secrets).collect()
}

/// The names of the secrets, each with the same mask.
fn masked(loaded: &Loaded) -> Map<String, Value> {
    let mut names: Vec<&str> = loaded.secrets.values_in_use().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.into_iter().map(|name| (name.to_owned(), Value::from("•••"))).collect()
}
