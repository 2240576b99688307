//! Whom the local command line acts as: an administrator of the deployment, with a token of its own.

use crate::exit::{CliError, Exit};
use std::time::Duration;
use systemprompt_oauth::models::oauth::api::Page;
use systemprompt_oauth::{IdentityError, NewUser, User, UserFilter};
use systemprompt_runtime::AppContext;

/// A token of the administrator, for `life`.
///
/// # Errors
/// When the user or the token cannot be made or recorded.
pub async fn token(context: &AppContext, life: Duration) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        let error = CliError::new(Exit::Failure, "the local operator's credential cannot be made").why(error);
        match context.ledger.condition().code() {
            code @ ("ledger_rollback" | "ledger_damaged") => error.refused_by_ledger(code),
            _ => error,
        }
    };
    let admin = administrator(context).await.map_err(|e| failed(&e))?;
    let by = context.system_context();
    let token = context.issue_token(&by, &admin, &context.users.own_permissions(&admin), life).await;
    token.map(|token| token.expose().clone()).map_err(|e| failed(&e))
}

/// The first administrator. A deployment without one gets `system_admin` of the profile.
async fn administrator(context: &AppContext) -> Result<User, IdentityError> {
    let mut after = String::new();
    loop {
        let page = context
            .users
            .page(
                Page { after: &after, limit: 200 },
                &UserFilter { role: Some("admin"), ..UserFilter::default() },
            )
            .await?;
        let Some(last) = page.last() else { break };
        after = last.id.to_string();
        if let Some(admin) = page.into_iter().find(User::is_administrator) {
            return Ok(admin);
        }
    }
    let name = context.config().profile.system_admin.clone().unwrap_or_else(|| "admin".to_owned());
    let new =
        NewUser { username: name, roles: vec!["admin".to_owned(), "user".to_owned()], ..NewUser::default() };
    context.users.create(&context.system_context(), new).await
}
