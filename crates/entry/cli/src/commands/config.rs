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
            let loaded = database::load(globals)?;
            let items = settings(&loaded);
            if out.is_text() {
                let short: Vec<Value> = items.iter().map(|item| shortened(item, &loaded)).collect();
                out.list(&json!({"items": short, "next": null}), COLUMNS)?;
            } else {
                out.list(&json!({"items": items, "next": null}), COLUMNS)?;
            }
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

/// Longest value that a table shows, in characters: with key and origin a line fits into a common terminal.
const MAX_SHOWN: usize = 19;

/// The same line for people: places in the data folder without the folder's path, of a list of things their names.
fn shortened(item: &Value, loaded: &Loaded) -> Value {
    let folder = format!("{}/", loaded.paths.data_dir().display());
    let origin = item.get("origin").map(cell).unwrap_or_default();
    let value = match item.get("value") {
        Some(Value::Array(items)) if items.iter().all(|item| item.get("name").is_some()) => {
            items.iter().filter_map(|item| item.get("name")).map(cell).collect::<Vec<_>>().join(", ")
        }
        value => value.map(cell).unwrap_or_default(),
    };
    let value = match value.char_indices().nth(MAX_SHOWN) {
        Some(_) => format!("{}…", value.chars().take(MAX_SHOWN - 1).collect::<String>()),
        None => value,
    };
    json!({
        "key": item.get("key"),
        "value": value,
        "origin": origin.strip_prefix(&folder).unwrap_or(&origin),
    })
}

/// The names of the secrets, each with the same mask.
fn masked(loaded: &Loaded) -> Map<String, Value> {
    let mut names: Vec<&str> = loaded.secrets.values_in_use().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.into_iter().map(|name| (name.to_owned(), Value::from("•••"))).collect()
}
