//! `admin clients`: OAuth clients. The secret of a new client alone goes to standard output, once.

use super::entities::as_seen;
use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::{Map, Value, json};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Clients, by id; never their secrets
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Makes a client and prints its secret; it is shown only here
    Create {
        /// What people are shown
        name: String,
        /// An id of your choice [default: one is made up]
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// One client
    #[command(visible_alias = "show")]
    Get { id: String },
    /// Changes a client; what is not named stays
    Update {
        id: String,
        #[arg(long)]
        name: Option<String>,
        /// active, disabled or expired; whatever a client holds that is not active ends at once
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Makes another secret and prints it; the present one counts for a while
    RotateSecret {
        id: String,
        /// Seconds for which the present secret still counts [default: a day]
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<i64>,
    },
    /// Deletes a client: its tokens and grants end at once
    Delete {
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Debug, clap::Args)]
pub struct Fields {
    /// Where answers may be sent; several make all of them
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// A grant type; several make all of them [default: authorization_code]
    #[arg(long = "grant", value_name = "TYPE")]
    grants: Vec<String>,
    /// Space-separated permissions and scopes
    #[arg(long)]
    scope: Option<String>,
    /// none, client_secret_basic, client_secret_post or private_key_jwt
    #[arg(long, value_name = "METHOD")]
    auth_method: Option<String>,
    /// Where its public keys are
    #[arg(long, value_name = "URI")]
    jwks_uri: Option<String>,
    /// Id or name of the user whom the client serves; it may then do no more than they
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// The one plugin that its hook tokens may name
    #[arg(long, value_name = "ID")]
    plugin: Option<String>,
    /// An audience that its tokens may have; several make all of them [default: any but internal]
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
}

impl Fields {
    fn body(self) -> Map<String, Value> {
        let texts = [
            ("scope", self.scope),
            ("token_endpoint_auth_method", self.auth_method),
            ("jwks_uri", self.jwks_uri),
            ("owner_user_id", self.owner),
            ("plugin_id", self.plugin),
        ];
        let lists = [
            ("redirect_uris", self.redirect_uris),
            ("grant_types", self.grants),
            ("allowed_audiences", self.audiences),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        let lists = lists.into_iter().filter(|(_, values)| !values.is_empty());
        texts.chain(lists.map(|(name, values)| (name.to_owned(), values.into()))).collect()
    }
}

const PATH: &str = "/api/v1/admin/clients";
const COLUMNS: &[Column] = &[
    column("id", "/client_id"),
    column("name", "/client_name"),
    column("kind", "/kind"),
    column("status", "/status"),
    column("authentication", "/token_endpoint_auth_method"),
    column("scope", "/scope"),
    time("last used", "/last_used_at"),
];
const SHEET: &[Column] = &[
    column("id", "/client_id"),
    column("name", "/client_name"),
    column("kind", "/kind"),
    column("status", "/status"),
    column("authentication", "/token_endpoint_auth_method"),
    column("grants", "/grant_types"),
    column("scope", "/scope"),
    column("redirect URIs", "/redirect_uris"),
    column("audiences", "/allowed_audiences"),
    column("owner", "/owner_user_id"),
    column("plugin", "/plugin_id"),
    time("created", "/created_at"),
    time("changed", "/updated_at"),
    time("last used", "/last_used_at"),
];

fn path(id: &str) -> String {
    format!("{PATH}/{}", encoded(id))
}

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { paging } => {
            let page = paging.read(client, "the clients cannot be listed", 200, || Ask::get(PATH)).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Create { name, id, fields } => {
            let mut body = fields.body();
            body.insert("client_name".into(), name.into());
            body.extend(id.map(|id| ("client_id".to_owned(), id.into())));
            let made = client.json("the client was not made", Ask::post(PATH, &body.into())).await;
            secret(out, &made.map_err(kind_of_client)?)
        }
        Command::Get { id } => {
            let what = format!("there is no client `{id}`");
            out.item(&client.json(&what, Ask::get(&path(&id))).await?, SHEET)
        }
        Command::Update { id, name, status, fields } => {
            let mut changes = fields.body();
            changes.extend(name.map(|name| ("client_name".to_owned(), name.into())));
            changes.extend(status.map(|status| ("status".to_owned(), status.into())));
            if changes.is_empty() {
                return Err(CliError::new(Exit::Usage, "nothing is to change")
                    .fix("name a field, such as --scope or --status"));
            }
            let what = format!("the client `{id}` was not changed");
            let found = client.send(Ask::get(&path(&id))).await?;
            if !found.is_success() {
                return Err(found.refusal(&what));
            }
            let etag = found.header("etag").unwrap_or_default().to_owned();
            let mut body = found.json();
            if let Some(members) = body.as_object_mut() {
                members.extend(changes);
            }
            out.item(&client.json(&what, Ask::put(&path(&id), &body).header("if-match", etag)).await?, SHEET)
        }
        Command::RotateSecret { id, overlap } => {
            let body = json!({"overlap_seconds": overlap});
            let what = format!("the client `{id}` got no other secret");
            secret(out, &client.json(&what, Ask::post(&format!("{}/secret", path(&id)), &body)).await?)
        }
        Command::Delete { id, confirm } => {
            confirm.ask(&format!("delete the client {id}"), &id)?;
            let what = format!("the client `{id}` was not deleted");
            let ask = as_seen(client, &what, Ask::delete(&path(&id))).await?;
            client.success(&what, ask).await?;
            note(&format!("deleted the client {id}"))
        }
    }
}

/// A client without a redirect URI is mostly a service that was not said to be one.
fn kind_of_client(error: CliError) -> CliError {
    let is_about_redirects =
        error.why.as_deref().is_some_and(|why| why.contains("redirect_uris: at least one"));
    if is_about_redirects {
        error.fix(
            "for a service: --grant client_credentials; for a program that people sign in to: --redirect-uri URI",
        )
    } else {
        error
    }
}

/// The secret alone on standard output; of a client that has none, its id.
fn secret(out: Output, made: &Value) -> Result<(), CliError> {
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    let secret = text("client_secret");
    out.document(made, if secret.is_empty() { text("client_id") } else { secret })?;
    if out.is_text() && !secret.is_empty() {
        note(&format!("the secret of {} is shown only here", text("client_id")))
    } else {
        Ok(())
    }
}
