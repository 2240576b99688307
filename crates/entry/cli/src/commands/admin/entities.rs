//! `admin entities`: what rules may speak of. What is not registered is denied; routes, MCP servers and what the access-control
//! files name are registered by themselves. Tools need no registration.

use super::rules::pair;
use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Registered entities, by kind and id
    List {
        /// Kind of entity, such as gateway_route or mcp_server
        #[arg(long = "type", value_name = "KIND")]
        kind: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Registers an entity, or changes it. A tool needs no registration: a rule that names it counts by itself
    Put {
        /// KIND:ID; any kind but mcp_tool
        entity: String,
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// Everyone whom no rule names may use it
        #[arg(long)]
        default_included: bool,
    },
    /// Forgets an entity that the configuration does not declare; it is denied as unknown from then on
    Delete {
        /// KIND:ID
        entity: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/entities";
const COLUMNS: &[Column] = &[
    column("kind", "/type"),
    column("id", "/id"),
    column("name", "/display_name"),
    column("default included", "/default_included"),
    column("source", "/source"),
    time("changed", "/updated_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { kind, paging } => {
            let ask = || Ask::get(PATH).query("type", kind.as_ref());
            let page = paging.read(client, "the entities cannot be listed", 200, ask).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Put { entity, display_name, default_included } => {
            let body = json!({"display_name": display_name, "default_included": default_included});
            let what = format!("the entity `{entity}` was not registered");
            let path = path(&entity)?;
            let ask = as_seen(client, &what, Ask::put(&path, &body)).await?;
            out.item(&client.json(&what, ask).await?, COLUMNS)
        }
        Command::Delete { entity, confirm } => {
            let path = path(&entity)?;
            confirm.ask(&format!("forget the entity {entity}"), &entity)?;
            let what = format!("the entity `{entity}` was not deleted");
            let ask = as_seen(client, &what, Ask::delete(&path)).await?;
            client.success(&what, ask).await?;
            note(&format!("deleted the entity {entity}"))
        }
    }
}

/// The request, on the version that is there just now; as it is where nothing is there.
pub(super) async fn as_seen<'a>(client: &Client, what: &str, ask: Ask<'a>) -> Result<Ask<'a>, CliError> {
    let found = client.send(Ask::get(ask.path())).await?;
    match found.header("etag") {
        Some(etag) if found.is_success() => {
            let etag = etag.to_owned();
            Ok(ask.header("if-match", etag))
        }
        _ if found.status == 404 && *ask.method() != http::Method::DELETE => Ok(ask),
        _ => Err(found.refusal(what)),
    }
}

fn path(entity: &str) -> Result<String, CliError> {
    let (kind, id) = pair("ENTITY", entity, "<kind>:<id>")?;
    if kind == "mcp_tool" {
        let refused = CliError::new(Exit::Usage, format!("`{entity}` is not to be registered"));
        return Err(refused
            .why("a tool needs no registration: a rule that names it counts by itself")
            .fix(format!("systemprompt admin rules create {entity} role:ROLE deny")));
    }
    Ok(format!("{PATH}/{}/{}", encoded(kind), encoded(id)))
}
