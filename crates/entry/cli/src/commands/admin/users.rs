//! `admin users`.

use crate::client::{Answer, Ask, Client, encoded};
use crate::confirm::Confirm;
use crate::exit::{CliError, Exit};
use crate::output::{Column, Output, column, note, time};
use crate::paging::Paging;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use systemprompt_models::Principal;
use systemprompt_models::ids::UserId;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Users, by id
    List {
        /// Beginning of a name, a mail or an id
        #[arg(short, long, value_name = "TEXT")]
        query: Option<String>,
        /// active, inactive, suspended, pending, temporary or deleted [default: all but deleted]
        #[arg(long)]
        status: Option<String>,
        /// Who holds this role
        #[arg(long)]
        role: Option<String>,
        #[arg(long)]
        department: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Makes a user
    Create {
        /// Name to sign in with
        username: String,
        /// person, or service for what acts by keys and tokens alone
        #[arg(long, value_parser = ["person", "service"], default_value = "person")]
        kind: String,
        /// File with the password as another system hashed it (bcrypt, or Argon2id in PHC form); `-` reads standard input
        #[arg(long, value_name = "FILE")]
        password_hash: Option<PathBuf>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Takes a user's right to act; sessions and grants end
    Suspend { user: String },
    /// Lets a user act again
    Activate { user: String },
    /// Merges a user into another: clients and identities elsewhere change hands, everything else of the first ends
    Merge {
        /// Id or name of the user who goes
        user: String,
        /// Id or name of the user who stays
        #[arg(long, value_name = "USER")]
        into: String,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// One user, by id or name
    #[command(visible_alias = "show")]
    Get { user: String },
    /// Changes a user; what is not named stays
    Update {
        /// Id or name
        user: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        roles: RoleChange,
        /// active, inactive, suspended, pending, temporary or deleted
        #[arg(long)]
        status: Option<String>,
    },
    /// Deletes a user: its tokens and keys end at once
    Delete {
        /// Id or name
        user: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Debug, clap::Args)]
pub struct Fields {
    #[arg(long)]
    email: Option<String>,
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// A role; several make all of them. Roles that permit something: admin, user, service; beside user also auditor (reads the
    /// ledger) and auditor-content (reads the bodies of payloads), which permit nothing alone
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    #[arg(long)]
    department: Option<String>,
}

impl Fields {
    fn body(self) -> Map<String, Value> {
        let mut body = Map::new();
        let texts =
            [("email", self.email), ("display_name", self.display_name), ("department", self.department)];
        body.extend(texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        if !self.roles.is_empty() {
            body.insert("roles".into(), self.roles.into());
        }
        body
    }
}

/// Roles by what changes, where `--role` names all that there will be.
#[derive(Debug, clap::Args)]
pub struct RoleChange {
    /// A role to hold beside the present ones
    #[arg(long = "add-role", value_name = "ROLE", conflicts_with = "roles")]
    added: Vec<String>,
    /// A role to hold no longer
    #[arg(long = "remove-role", value_name = "ROLE", conflicts_with = "roles")]
    removed: Vec<String>,
}

impl RoleChange {
    fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// What is left of `held`, and what comes to it.
    fn of(self, user: &str, held: &[String]) -> Result<Vec<String>, CliError> {
        if let Some(role) = self.removed.iter().find(|role| !held.contains(role)) {
            return Err(CliError::new(Exit::NotFound, format!("the user `{user}` has no role `{role}`"))
                .fix(format!("it has: {}", words(held))));
        }
        let mut roles: Vec<String> =
            held.iter().filter(|role| !self.removed.contains(role)).cloned().collect();
        for role in self.added {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Ok(roles)
    }
}

const PATH: &str = "/api/v1/admin/users";
const COLUMNS: &[Column] = &[
    column("id", "/id"),
    column("name", "/username"),
    column("status", "/status"),
    column("roles", "/roles"),
    column("department", "/department"),
    column("email", "/email"),
];
const SHEET: &[Column] = &[
    column("id", "/id"),
    column("name", "/username"),
    column("display name", "/display_name"),
    column("email", "/email"),
    column("kind", "/kind"),
    column("status", "/status"),
    column("roles", "/roles"),
    column("department", "/department"),
    time("created", "/created_at"),
    time("changed", "/updated_at"),
];

pub async fn run(client: &Client, out: Output, command: Command) -> Result<(), CliError> {
    match command {
        Command::List { query, status, role, department, paging } => {
            let ask = || {
                Ask::get(PATH)
                    .query("q", query.as_ref())
                    .query("status", status.as_ref())
                    .query("role", role.as_ref())
                    .query("department", department.as_ref())
            };
            let page = paging.read(client, "the users cannot be listed", 200, ask).await?;
            out.list(&page, COLUMNS)?;
            Paging::tell_rest(&page)
        }
        Command::Create { username, kind, password_hash, fields } => {
            let mut body = fields.body();
            body.insert("kind".into(), kind.into());
            if let Some(file) = password_hash {
                body.insert("password_hash".into(), read_hash(&file)?.into());
            }
            let what = format!("the user `{username}` was not made");
            body.insert("username".into(), username.into());
            out.item(&client.json(&what, Ask::post(PATH, &body.into())).await?, SHEET)
        }
        Command::Get { user } => out.item(&find(client, &user).await?.json(), SHEET),
        Command::Update { user, fields, roles, status } => {
            let mut body = fields.body();
            body.extend(status.map(|status| ("status".to_owned(), status.into())));
            update(client, out, &user, body, roles).await
        }
        Command::Suspend { user } => out.item(&act(client, &user, "suspend", "suspended").await?, SHEET),
        Command::Activate { user } => out.item(&act(client, &user, "activate", "activated").await?, SHEET),
        Command::Merge { user, into, confirm } => {
            confirm.ask(&format!("merge the user {user} into {into}"), &user)?;
            let body = json!({"into": into});
            let path = |path: &str| Ask::post(&format!("{path}/merge"), &body);
            out.item(&change(client, &user, "merged", path).await?, SHEET)
        }
        Command::Delete { user, confirm } => {
            confirm.ask(&format!("delete the user {user}"), &user)?;
            change(client, &user, "deleted", Ask::delete).await?;
            note(&format!("deleted the user {user}"))
        }
    }
}

/// Changes a user, and tells of roles what they were: `--role` names all, and what is not named goes.
async fn update(
    client: &Client,
    out: Output,
    user: &str,
    mut body: Map<String, Value>,
    roles: RoleChange,
) -> Result<(), CliError> {
    if body.is_empty() && roles.is_none() {
        return Err(CliError::new(Exit::Usage, "nothing is to change")
            .fix("name a field, such as --add-role or --status"));
    }
    let found = find(client, user).await?;
    let before = roles_of(&found.json());
    if !roles.is_none() {
        body.insert("roles".into(), roles.of(user, &before)?.into());
    }
    let is_about_roles = body.contains_key("roles");
    let changed =
        change_found(client, (user, &found), "changed", |path| Ask::patch(path, &body.into())).await?;
    out.item(&changed, SHEET)?;
    if is_about_roles {
        note(&format!("roles of {user}: {} before, {} now", words(&before), words(&roles_of(&changed))))?;
    }
    Ok(())
}

fn roles_of(user: &Value) -> Vec<String> {
    let roles = user.get("roles").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    roles.iter().filter_map(|role| role.as_str().map(str::to_owned)).collect()
}

fn words(roles: &[String]) -> String {
    if roles.is_empty() { "none".to_owned() } else { roles.join(" ") }
}

/// Does one of the things that need no more than a name.
async fn act(client: &Client, user: &str, verb: &str, done: &str) -> Result<Value, CliError> {
    let id = id_of(client, user).await?;
    let ask = Ask::post(&format!("{PATH}/{}/{verb}", encoded(&id)), &Value::Null);
    client.json(&format!("the user `{user}` was not {done}"), ask).await
}

/// A hash stands in a file: an argument shows in the list of processes.
fn read_hash(file: &Path) -> Result<String, CliError> {
    let read = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|error| {
        CliError::new(Exit::Failure, format!("{} cannot be read", file.display())).why(error)
    })?;
    Ok(text.trim().to_owned())
}

/// Sends a change of what was read just now.
async fn change(
    client: &Client,
    user: &str,
    done: &str,
    ask: impl FnOnce(&str) -> Ask<'static>,
) -> Result<Value, CliError> {
    let found = find(client, user).await?;
    change_found(client, (user, &found), done, ask).await
}

async fn change_found(
    client: &Client,
    (user, found): (&str, &Answer),
    done: &str,
    ask: impl FnOnce(&str) -> Ask<'static>,
) -> Result<Value, CliError> {
    let id = found.json().get("id").and_then(Value::as_str).unwrap_or(user).to_owned();
    let etag = found.header("etag").unwrap_or_default().to_owned();
    let ask = ask(&format!("{PATH}/{}", encoded(&id))).header("if-match", etag);
    client.json(&format!("the user `{user}` was not {done}"), ask).await
}

/// A user by id or name; a misspelt name gets suggestions.
async fn find(client: &Client, user: &str) -> Result<Answer, CliError> {
    let what = format!("there is no user `{user}`");
    let answer = client.send(Ask::get(&format!("{PATH}/{}", encoded(user)))).await?;
    if answer.is_success() {
        return Ok(answer);
    }
    let mut error = answer.refusal(&what);
    if error.exit == Exit::NotFound {
        error.why = None;
        let list = || "`systemprompt admin users list` shows who there is".to_owned();
        error.fix = suggestion(client, user).await.or_else(|| Some(list()));
    } else {
        error.what = format!("the user `{user}` cannot be read");
    }
    Err(error)
}

async fn suggestion(client: &Client, user: &str) -> Option<String> {
    let page = Paging::of(1000).read(client, "", 200, || Ask::get(PATH)).await.ok()?;
    let names = page.get("items")?.as_array()?.iter().filter_map(|item| item.get("username")?.as_str());
    crate::nearest::suggestion(user, names)
}

/// The id of who acted, by id or name; what is no user's stays as it is.
pub async fn actor_of(client: &Client, actor: &str) -> Result<String, CliError> {
    let own = ["system", Principal::anonymous().user_id.as_str()].contains(&actor);
    if own || actor.starts_with(UserId::PREFIX) { Ok(actor.to_owned()) } else { id_of(client, actor).await }
}

/// The id of a user, by id or name.
pub async fn id_of(client: &Client, user: &str) -> Result<String, CliError> {
    let found = find(client, user).await?.json();
    Ok(found.get("id").and_then(Value::as_str).unwrap_or(user).to_owned())
}
