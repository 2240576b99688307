//! `admin api-keys`. The value of a new key alone goes to standard output, once.

use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::CliError;
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// API keys, by id; never their values
    List {
        /// Id of the owner
        #[arg(long, value_name = "USER_ID")]
        user: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Makes an API key and prints it; it is shown only here
    Create {
        /// Id or name of the owner
        user: String,
        /// What it is for
        #[arg(long)]
        name: String,
        /// Space-separated permissions [default: all that the owner has]
        #[arg(long)]
        scope: Option<String>,
        /// Surface that it counts on: api, a2a, bridge; several may be named [default: all that take keys]
        #[arg(long = "audience", value_name = "NAME")]
        audiences: Vec<String>,
        /// Network that it may come from, as 10.0.0.0/8; several may be named [default: any]
        #[arg(long = "cidr", value_name = "CIDR")]
        cidrs: Vec<String>,
        /// Days until it ends, at most 365 [default: 90]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<i64>,
        /// It ends only when it is revoked
        #[arg(long, conflicts_with = "expires_in_days")]
        never_expires: bool,
    },
    /// Ends an API key
    Revoke {
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/api-keys";
const COLUMNS: &[Column] = &[
    column("id", "/id"),
    column("owner", "/user_id"),
    column("name", "/name"),
    column("key", "/prefix"),
    column("scopes", "/scopes"),
    time("expires", "/expires_at"),
    time("last used", "/last_used_at"),
    time("revoked", "/revoked_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { user, paging } => {
            let ask = || Ask::get(PATH).query("user_id", user.as_ref());
            let page = paging.read(client, "the API keys cannot be listed", 200, ask).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Create { user, name, scope, audiences, cidrs, expires_in_days, never_expires } => {
            let body = json!({
                "user": user, "name": name, "scope": scope, "audiences": audiences, "allowed_cidrs": cidrs,
                "expires_in_days": expires_in_days, "never_expires": never_expires,
            });
            let made = client.json("the API key was not made", Ask::post(PATH, &body)).await?;
            let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
            out.document(&made, text("key"))?;
            if out.is_text() { note(&format!("{} is shown only here", text("id"))) } else { Ok(()) }
        }
        Command::Revoke { id, confirm } => {
            confirm.ask(&format!("end the API key {id}"), &id)?;
            let ask = Ask::delete(&format!("{PATH}/{}", encoded(&id)));
            client.success(&format!("the API key `{id}` was not ended"), ask).await?;
            note(&format!("ended the API key {id}"))
        }
    }
}
