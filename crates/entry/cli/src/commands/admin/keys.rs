//! `admin keys`: the ring of keys that sign tokens.

use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use serde_json::json;
use std::io::Read as _;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The key ring: ids, algorithms, states
    List,
    /// Makes a signing key that is published and not used yet
    Generate {
        /// RS256, ES256 or EdDSA
        #[arg(long, default_value = "RS256", value_name = "ALG")]
        algorithm: String,
        /// A key for assertions between this deployment and its tool servers, never published (EdDSA)
        #[arg(long)]
        internal: bool,
    },
    /// Lets the next key sign, ten minutes after it was made at the earliest, and retires the one that did
    Rotate {
        /// RS256, ES256 or EdDSA [default: `security.signing_algorithm`]
        #[arg(long, value_name = "ALG")]
        algorithm: Option<String>,
        /// The key for assertions
        #[arg(long)]
        internal: bool,
        /// The key that signs the ledger's checkpoints: a new one takes its place at once, and the old one vouches for it
        #[arg(long, conflicts_with_all = ["algorithm", "internal"])]
        ledger: bool,
    },
    /// Takes a key out of use; what it signed goes on counting
    Retire {
        // Base64url, so it may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Ends the live API keys among values that were found where they must not be: one a line on stdin, at most 100
    Report,
    /// Rejects a key at once, with every token that it signed
    Revoke {
        #[arg(allow_hyphen_values = true)]
        kid: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/keys";
const COLUMNS: &[Column] = &[
    column("kid", "/kid"),
    column("alg", "/alg"),
    column("use", "/use"),
    column("state", "/state"),
    time("created", "/created_at"),
    time("activated", "/activated_at"),
    time("retired", "/retired_at"),
    time("verifies until", "/verify_until"),
];

/// Largest report that is read.
const MAX_REPORT: u64 = 16 * 1024;
const REPORTED: &[Column] = &[
    column("candidate", "/candidate"),
    column("outcome", "/outcome"),
    column("key", "/id"),
    column("user", "/user_id"),
    column("name", "/name"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List => out.list(&client.json("the keys cannot be listed", Ask::get(PATH)).await?, COLUMNS),
        Command::Report => {
            let text = std::io::read_to_string(std::io::stdin().take(MAX_REPORT))
                .map_err(|error| CliError::new(Exit::Usage, "stdin cannot be read").why(error))?;
            let candidates: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let ask = Ask::post(&format!("{PATH}/report"), &json!({"candidates": candidates}));
            out.list(&client.json("the values were not reported", ask).await?, REPORTED)
        }
        Command::Generate { algorithm, internal } => {
            let algorithm = if internal { "EdDSA" } else { &algorithm };
            let ask = Ask::post(PATH, &json!({"algorithm": algorithm, "use": use_of(internal)}));
            out.item(&client.json("the key was not made", ask).await?, COLUMNS)?;
            note("it signs after `systemprompt admin keys rotate`, in ten minutes at the earliest")
        }
        Command::Rotate { algorithm, internal, ledger: false } => {
            let body = json!({"algorithm": algorithm, "use": use_of(internal)});
            let ask = Ask::post(&format!("{PATH}/rotate"), &body);
            let done = client.json("the keys were not rotated", ask).await?;
            if out.is_text() {
                let keys = [done.get("active"), done.get("retired")].into_iter().flatten();
                let items: Vec<_> = keys.filter(|key| !key.is_null()).collect();
                out.list(&json!({"items": items}), COLUMNS)
            } else {
                out.item(&done, COLUMNS)
            }
        }
        Command::Retire { kid } => {
            let ask = Ask::post(&format!("{PATH}/{}/retire", encoded(&kid)), &json!({}));
            out.item(&client.json(&format!("the key `{kid}` was not retired"), ask).await?, COLUMNS)
        }
        Command::Revoke { kid, confirm } => {
            confirm.ask(&format!("reject the key {kid} and every token that it signed"), &kid)?;
            let ask = Ask::post(&format!("{PATH}/{}/revoke", encoded(&kid)), &json!({}));
            out.item(&client.json(&format!("the key `{kid}` was not revoked"), ask).await?, COLUMNS)
        }
        Command::Rotate { ledger: true, .. } => {
            let ask = Ask::post("/api/v1/admin/keys/ledger/rotate", &json!({}));
            let done = client.json("the ledger's key was not replaced", ask).await?;
            let vkey = done.get("vkey").and_then(|key| key.as_str()).unwrap_or_default();
            let text = format!(
                "checkpoints are signed by {vkey}\nwrite it down for whoever verifies; the old key leads to it"
            );
            out.document(&done, &text)
        }
    }
}

fn use_of(internal: bool) -> &'static str {
    if internal { "internal" } else { "sig" }
}
