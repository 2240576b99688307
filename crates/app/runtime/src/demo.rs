//! What `up --demo` adds: a demo tool server with a secret, two people, and rules that give them something to do and something
//! that they may not.

use crate::context::AppContext;
use crate::identity::TokenError;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use systemprompt_config::profile::secrets::SecretsFileMode;
use systemprompt_config::secrets::file::set_secret;
use systemprompt_config::{DataPaths, SecretsError};
use systemprompt_models::Secret;
use systemprompt_oauth::services::clients::{ClientError, managed};
use systemprompt_oauth::{IdentityError, NewUser, User};
use systemprompt_security::authz::{Access, AuthzError, DECLARED, EntityKind, RuleType, UpsertRuleParams};

/// The secret that the demo tool server declares.
pub const DEMO_SECRET: &str = "demo_crm_token";
/// Most rules of one thing that are looked at; with more of them it is the operator's, not the demo's.
const MAX_RULES: i64 = 1000;
/// Life of the demo's tokens.
pub const TOKEN_LIFE: Duration = Duration::from_hours(24);

const SERVERS: &str = "\
# Written by `systemprompt up --demo`.
mcp_servers:
  demo:
    type: internal
    binary: demo
    description: Tools to try the governance with. The secret reaches the child process and nothing else.
    secrets: [demo_crm_token]
    oauth:
      scopes: [user]
  systemprompt-admin:
    type: internal
    binary: systemprompt-admin
    description: Administration of this installation; administrators alone may use it.
    oauth:
      scopes: [admin]
";

/// Why the demo could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the demo's server file cannot be written: {0}")]
    File(#[from] std::io::Error),
    #[error("the demo's secret cannot be written: {0}")]
    Secret(#[from] SecretsError),
    #[error("the system gave no random bytes")]
    Random,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Rules(#[from] AuthzError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The client of the demo, which proves itself by a secret.
pub const DEMO_CLIENT: &str = "demo-client";

/// Tokens of the demo's people, for 24 hours, and the secret of its client.
pub struct DemoTokens {
    pub admin: Secret<String>,
    pub user: Secret<String>,
    pub client_secret: Secret<String>,
}

/// Writes the server file and the secret, before the boot. What exists stays.
///
/// # Errors
/// Files that cannot be written.
pub fn prepare(paths: &DataPaths, mode: SecretsFileMode, has_secret: bool) -> Result<(), DemoError> {
    let file = paths.services.join("mcp/demo.yaml");
    if !file.exists() {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file, SERVERS)?;
    }
    if !has_secret {
        let value = random_token()?;
        set_secret(Path::new(&paths.secrets_file), mode, DEMO_SECRET, &value)?;
    }
    Ok(())
}

/// 128 random bits as `crm_` and 32 hex digits.
fn random_token() -> Result<Secret<String>, DemoError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DemoError::Random)?;
    Ok(Secret::new(format!("crm_{}", hex::encode(bytes))))
}

/// Makes the people and the rules where they are missing, and a token for each person.
///
/// # Errors
/// Whatever could not be recorded or written.
pub async fn seed(context: &AppContext) -> Result<DemoTokens, DemoError> {
    let ada = person(context, "ada", &["admin", "user"], "platform").await?;
    let bob = person(context, "bob", &["user"], "engineering").await?;
    for (kind, id, name, role) in [
        (EntityKind::GatewayRoute, "demo", "Demo model", "user"),
        (EntityKind::McpServer, "demo", "Demo tools", "user"),
        (EntityKind::Plugin, "demo", "Demo plugin", "user"),
        (EntityKind::McpServer, "systemprompt-admin", "Administration tools", "admin"),
    ] {
        entity(context, kind, id, name, role).await?;
    }
    Ok(DemoTokens {
        admin: token(context, &ada).await?,
        user: token(context, &bob).await?,
        client_secret: client(context).await?,
    })
}

/// The secret of the demo's client. It cannot be shown twice, so a later start makes another one.
async fn client(context: &AppContext) -> Result<Secret<String>, DemoError> {
    let by = context.system_context();
    let members = json!({
        "client_id": DEMO_CLIENT,
        "client_name": "Demo client",
        "grant_types": ["client_credentials"],
        "scope": "service user mcp hook:govern hook:track",
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let members = members.as_object().cloned().unwrap_or_default();
    match managed::provide(&context.oauth, &by, &members).await {
        Ok(made) => made.secret.ok_or(DemoError::Random),
        Err(ClientError::Taken) => Ok(managed::renew_secret(&context.oauth, &by, DEMO_CLIENT).await?),
        Err(error) => Err(error.into()),
    }
}

async fn person(
    context: &AppContext,
    name: &str,
    roles: &[&str],
    department: &str,
) -> Result<User, DemoError> {
    if let Some(user) = context.users.find(name).await? {
        return Ok(user);
    }
    let new = NewUser {
        username: name.to_owned(),
        email: Some(format!("{name}@example.com")),
        display_name: None,
        roles: roles.iter().map(ToString::to_string).collect(),
        department: Some(department.to_owned()),
        ..NewUser::default()
    };
    Ok(context.users.create(&context.system_context(), new).await?)
}

async fn entity(
    context: &AppContext,
    kind: EntityKind,
    id: &str,
    name: &str,
    role: &str,
) -> Result<(), DemoError> {
    let by = context.system_context();
    // What the configuration declares is registered at the start; the demo adds who may use it, once. Afterwards the operator
    // may have changed it, and a restart does not change it back.
    let known = context.rules.entity(kind, id).await?;
    let rules = context.rules.page("", Some(kind), Some(id), MAX_RULES).await?;
    let is_settled = known.as_ref().is_some_and(|known| known.source != DECLARED)
        || rules.iter().any(|rule| rule.source != DECLARED);
    if is_settled {
        return Ok(());
    }
    let default_included = known.is_some_and(|known| known.default_included);
    context.rules.put_entity(&by, kind, id, Some(name), default_included, "seed").await?;
    // Rules of the configuration are about others; where one is about the same people, it says what they may.
    if rules.iter().any(|rule| rule.rule_type == RuleType::Role && rule.rule_value == role) {
        return Ok(());
    }
    let rule = UpsertRuleParams {
        entity_type: kind,
        entity_id: id.to_owned(),
        is_pattern: false,
        rule_type: RuleType::Role,
        rule_value: role.to_owned(),
        access: Access::Allow,
        justification: Some("seeded by `up --demo`".to_owned()),
        source: "seed",
        created_by: "system".to_owned(),
    };
    context.rules.put_rule(&by, &rule).await?;
    Ok(())
}

async fn token(context: &AppContext, user: &User) -> Result<Secret<String>, DemoError> {
    let by = context.system_context();
    Ok(context.issue_token(&by, user, &context.users.own_permissions(user), TOKEN_LIFE).await?)
}
