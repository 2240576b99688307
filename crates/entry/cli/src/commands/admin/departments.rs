//! `admin departments`: names that rules of departments use.

use super::entities::as_seen;
use crate::client::{Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::CliError;
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Departments, by name
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Makes a department, or changes it
    Put {
        name: String,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Whom to ask
        #[arg(long, value_name = "EMAIL")]
        manager_email: Option<String>,
    },
    /// Deletes a department that no rule names
    Delete {
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const PATH: &str = "/api/v1/admin/departments";
const COLUMNS: &[Column] = &[
    column("name", "/name"),
    column("description", "/description"),
    column("manager", "/manager_email"),
    column("source", "/source"),
    time("changed", "/updated_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { paging } => {
            let page =
                paging.read(client, "the departments cannot be listed", 200, || Ask::get(PATH)).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Put { name, description, manager_email } => {
            let body = json!({"description": description, "manager_email": manager_email});
            let (what, path) = (format!("the department `{name}` was not made"), path(&name));
            let ask = as_seen(client, &what, Ask::put(&path, &body)).await?;
            out.item(&client.json(&what, ask).await?, COLUMNS)
        }
        Command::Delete { name, confirm } => {
            confirm.ask(&format!("delete the department {name}"), &name)?;
            let (what, path) = (format!("the department `{name}` was not deleted"), path(&name));
            let ask = as_seen(client, &what, Ask::delete(&path)).await?;
            client.success(&what, ask).await?;
            note(&format!("deleted the department {name}"))
        }
    }
}

fn path(name: &str) -> String {
    format!("{PATH}/{}", encoded(name))
}
