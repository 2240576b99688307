//! `admin keys`: the ring of keys that sign tokens.

use crate::client::{Ask, Client};
use crate::exit::CliError;
use crate::output::{Column, Output, column, time};
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The key ring: ids, algorithms, states
    List,
    /// Makes a signing key that is published and not used yet
    Generate {
        /// RS256, ES256 or EdDSA
        #[arg(long, default_value = "RS256", value_name = "ALG")]
        algorithm: String,
    },
    /// Puts a new key in the place of the one that signs the ledger's checkpoints; the old one vouches for it
    Rotate {
        /// The ledger's key
        #[arg(long, required = true)]
        ledger: bool,
    },
}

const PATH: &str = "/api/v1/admin/keys";
const COLUMNS: &[Column] = &[
    column("kid", "/kid"),
    column("alg", "/alg"),
    column("state", "/state"),
    time("created", "/created_at"),
    time("activated", "/activated_at"),
    time("retired", "/retired_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List => out.list(&client.json("the keys cannot be listed", Ask::get(PATH)).await?, COLUMNS),
        Command::Generate { algorithm } => {
            let ask = Ask::post(PATH, &json!({"algorithm": algorithm}));
            out.item(&client.json("the key was not made", ask).await?, COLUMNS)
        }
        Command::Rotate { ledger: _ } => {
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
