//! `admin rules`: who may use what. A change counts from the next call on.

use super::users;
use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Rules, by id
    List {
        /// Kind of entity, such as gateway_route or mcp_server
        #[arg(long = "type", value_name = "KIND")]
        kind: Option<String>,
        /// Id of the entity
        #[arg(long, value_name = "ID")]
        entity: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Makes a rule: `rules create mcp_server:demo role:user allow`
    #[command(visible_alias = "add")]
    Create {
        /// KIND:ID; the id may hold `*`
        entity: String,
        /// user:NAME, role:NAME or department:NAME
        subject: String,
        /// allow or deny
        access: String,
        /// Why, for whoever reads it later
        #[arg(long, value_name = "TEXT")]
        justification: Option<String>,
    },
    /// Changes a rule
    Update {
        id: String,
        /// allow or deny
        access: String,
        #[arg(long, value_name = "TEXT")]
        justification: Option<String>,
    },
    /// Deletes a rule
    Delete {
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/rules";
const COLUMNS: &[Column] = &[
    column("id", "/id"),
    column("kind", "/entity_type"),
    column("entity", "/entity_id"),
    column("subject", "/rule_type"),
    column("value", "/rule_value"),
    column("access", "/access"),
    column("source", "/source"),
];
const SHEET: &[Column] = &[
    column("id", "/id"),
    column("kind", "/entity_type"),
    column("entity", "/entity_id"),
    column("subject", "/rule_type"),
    column("value", "/rule_value"),
    column("access", "/access"),
    column("justification", "/justification"),
    column("source", "/source"),
    time("changed", "/updated_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { kind, entity, paging } => {
            let ask =
                || Ask::get(PATH).query("entity_type", kind.as_ref()).query("entity_id", entity.as_ref());
            let page = paging.read(client, "the rules cannot be listed", 200, ask).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Create { entity, subject, access, justification } => {
            let (kind, id) = pair("ENTITY", &entity, "<kind>:<id>")?;
            let (rule_type, name) = pair("SUBJECT", &subject, "user:NAME, role:NAME or department:NAME")?;
            // Rules name users by id, people by name.
            let value = match rule_type {
                "user" => users::id_of(client, name).await?,
                _ => name.to_owned(),
            };
            let body = json!({
                "entity_type": kind, "entity_id": id, "rule_type": rule_type, "rule_value": value,
                "access": access, "justification": justification,
            });
            let made = client.json("the rule was not made", Ask::post(PATH, &body)).await?;
            out.item(&made, SHEET)?;
            let warnings = made.get("warnings").and_then(Value::as_array).map(Vec::as_slice);
            warnings
                .unwrap_or_default()
                .iter()
                .filter_map(Value::as_str)
                .try_for_each(|text| note(&format!("warning: {text}")))
        }
        Command::Update { id, access, justification } => {
            let made = |path: &str, rule: &Value| {
                let kept = rule.get("justification").cloned().unwrap_or_default();
                let why = justification.map_or(kept, Value::from);
                Ask::patch(path, &json!({"access": access, "justification": why}))
            };
            out.item(&change(client, &id, "changed", made).await?, SHEET)
        }
        Command::Delete { id, confirm } => {
            confirm.ask(&format!("delete the rule {id}"), &id)?;
            change(client, &id, "deleted", |path, _| Ask::delete(path)).await?;
            note(&format!("deleted the rule {id}"))
        }
    }
}

/// The halves of `kind:name`.
pub fn pair<'a>(argument: &str, text: &'a str, form: &str) -> Result<(&'a str, &'a str), CliError> {
    let wrong = || CliError::new(Exit::Usage, format!("{argument} `{text}` is not of the form {form}"));
    text.split_once(':').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()).ok_or_else(wrong)
}

/// Sends a change of what was read just now.
async fn change(
    client: &Client,
    id: &str,
    done: &str,
    ask: impl FnOnce(&str, &Value) -> Ask<'static>,
) -> Result<Value, CliError> {
    let what = format!("the rule `{id}` was not {done}");
    let path = format!("{PATH}/{}", encoded(id));
    let found = client.success(&what, Ask::get(&path)).await?;
    let etag = found.header("etag").unwrap_or_default().to_owned();
    client.json(&what, ask(&path, &found.json()).header("if-match", etag)).await
}
