//! `admin setup-link`: one-time links under which people set up passkeys. The link alone goes to standard output; how long it counts
//! is said beside it.

use crate::client::{Ask, Client, encoded};
use crate::exit::CliError;
use crate::output::{Column, Output, column, note};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose passkey it sets up (id or name); without, it makes a user
    #[arg(long)]
    user: Option<String>,
    /// credential_link adds a passkey; recovery also ends every other session and grant
    #[arg(long, requires = "user", value_parser = ["credential_link", "recovery"])]
    purpose: Option<String>,
    /// The mail that the new user must have
    #[arg(long, conflicts_with = "user")]
    email: Option<String>,
    /// A role of the new user; several make all of them
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "user")]
    roles: Vec<String>,
}

const SHEET: &[Column] = &[column("set-up link", "/setup_url")];

pub async fn run(client: &Client, out: Output, args: Args) -> Result<(), CliError> {
    let (path, body) = match &args.user {
        Some(user) => {
            (format!("/api/v1/admin/users/{}/setup-link", encoded(user)), json!({"purpose": args.purpose}))
        }
        None => ("/api/v1/admin/setup-link".to_owned(), json!({"email": args.email, "roles": args.roles})),
    };
    let made = client.json("no set-up link was made", Ask::post(&path, &body)).await?;
    out.item(&made, SHEET)?;
    match made.get("expires_in").and_then(Value::as_i64) {
        Some(seconds) if out.is_text() => note(&format!("It counts once, within {}.", life(seconds))),
        _ => Ok(()),
    }
}

/// Whole hours where there are some.
fn life(seconds: i64) -> String {
    let (count, unit) = if seconds < 3600 { (seconds / 60, "minute") } else { (seconds / 3600, "hour") };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
