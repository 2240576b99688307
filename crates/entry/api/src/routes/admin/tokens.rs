//! `/api/v1/admin/tokens`: session tokens for the command line of a user, and the end of tokens before their time;
//! `/api/v1/admin/sessions`: the sessions that tokens hang on.

use crate::extract::{Context, Json as Body, Query};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use systemprompt_models::{Code, Refusal, Secret, parse_permissions};
use systemprompt_oauth::{IdentityError, OauthError};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::revocation::{Revocation, RevokeError};
use systemprompt_security::session::CutoffKind;

/// Longest life, in seconds.
const MAX_TTL: u64 = 24 * 3600;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/admin/tokens", issue)
            .takes::<NewToken>()
            .doc("admin", "Issues a session token; the value is in this answer and nowhere else"),
        Route::post("/api/v1/admin/tokens/revoke", revoke)
            .takes::<Revoke>()
            .doc("admin", "Ends one token, or all tokens of a user, of a client, or of everybody, that were issued up to now"),
        Route::get("/api/v1/admin/tokens/cutoffs", cutoffs)
            .doc("admin", "Whose tokens were ended up to which second, as long as it matters"),
        Route::get("/api/v1/admin/sessions", sessions)
            .query(&["user"])
            .doc("admin", "The newest sessions of a user, at most 200"),
        Route::delete("/api/v1/admin/sessions/{id}", end_session)
            .doc("admin", "Ends a session with every token of it"),
    ]
}

/// Exactly one of `token`, `jti`, `user`, `client` and `all`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// The token itself.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    token: Option<Secret<String>>,
    /// The id of a token.
    #[serde(default)]
    jti: Option<String>,
    /// Id or name of a user.
    #[serde(default)]
    user: Option<String>,
    /// Id of a client.
    #[serde(default)]
    client: Option<String>,
    /// `true`: everybody's tokens, yours too.
    #[serde(default)]
    all: bool,
    /// What it is for, at most 200 characters; kept with the row.
    #[serde(default)]
    reason: String,
}

/// Longest id and longest reason that are taken, in bytes and in characters.
const MAX_ID: usize = 256;
const MAX_REASON: usize = 200;

fn invalid(field: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unprocessable, "a field is not valid").with_validation(field, message)
}

async fn revoke(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(asked): Body<Revoke>,
) -> crate::Result<Json<Revocation>> {
    if asked.reason.chars().count() > MAX_REASON {
        return Err(invalid("reason", format!("at most {MAX_REASON} characters")).into());
    }
    for (field, id) in [("jti", &asked.jti), ("client", &asked.client)] {
        let fits = |id: &String| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if id.as_ref().is_some_and(|id| !fits(id)) {
            return Err(invalid(field, format!("1 to {MAX_ID} visible ASCII characters")).into());
        }
    }
    let reason = if asked.reason.is_empty() { "revoked" } else { &asked.reason };
    let done = match (&asked.token, &asked.jti, &asked.user, &asked.client, asked.all) {
        (Some(token), None, None, None, false) => context.revoke_token(&caller, token.expose()).await,
        (None, Some(jti), None, None, false) => context.revoke_jti(&caller, &jti.as_str().into()).await,
        (None, None, Some(user), None, false) => {
            let user = context.users.get(user).await?;
            context.revoke_all(&caller, CutoffKind::User, user.id.as_str(), reason).await
        }
        (None, None, None, Some(client), false) => {
            context.revoke_all(&caller, CutoffKind::Client, client, reason).await
        }
        (None, None, None, None, true) => context.revoke_all(&caller, CutoffKind::All, "", reason).await,
        _ => return Err(invalid("token", "give exactly one of token, jti, user, client, all").into()),
    };
    Ok(Json(done.map_err(refused)?))
}

async fn cutoffs(State(context): State<AppContext>) -> crate::Result<Json<Value>> {
    let cutoffs = context.sessions.cutoffs().await.map_err(crate::Error::internal)?;
    Ok(Json(json!({"items": cutoffs, "next": null})))
}

async fn sessions(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["user"])?;
    let user = query.get("user").ok_or_else(|| Refusal::new(Code::InvalidFilter, "name a `user`"))?;
    let user = context.users.get(user).await?;
    let sessions = context.sessions_of(user.id.as_str()).await.map_err(crate::Error::internal)?;
    Ok(Json(json!({"items": sessions, "next": null})))
}

async fn end_session(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<StatusCode> {
    let known = id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic());
    if known && context.revoke_session(&caller, &id.as_str().into()).await.map_err(refused)? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Refusal::new(Code::NotFound, "there is no live session of this id").into())
}

pub(super) fn refused(error: RevokeError) -> crate::Error {
    match error {
        RevokeError::NotOurs(error) => invalid("token", error.to_string()).into(),
        RevokeError::Ledger(error) | RevokeError::Oauth(OauthError::Ledger(error)) => error.into(),
        RevokeError::User(error @ (IdentityError::Database(_) | IdentityError::Session(_))) => {
            unwritten(error)
        }
        RevokeError::User(error) => error.into(),
        RevokeError::Session(error) => unwritten(error),
        RevokeError::Oauth(error @ (OauthError::Database(_) | OauthError::Session(_))) => unwritten(error),
        RevokeError::Oauth(error) => crate::Error::internal(error),
    }
}

/// A store that does not take the end of what was to end: nothing has ended, and the call may come again (ID-6).
fn unwritten(error: impl std::error::Error + 'static) -> crate::Error {
    tracing::error!(%error, source = ?error.source(), "a revocation was not written");
    let reason = "the revocation cannot be written now; try again shortly";
    Refusal::new(Code::RevocationUnavailable, reason).with_retry_after(1).into()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// User id or name.
    user: String,
    /// Space-separated permissions; all that the user has if absent.
    #[serde(default)]
    scope: Option<String>,
    /// Seconds, 60 to 86400; 3600 if absent.
    #[serde(default)]
    ttl_s: Option<u64>,
}

async fn issue(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(new): Body<NewToken>,
) -> crate::Result<Response> {
    let ttl = new.ttl_s.unwrap_or(3600);
    if !(60..=MAX_TTL).contains(&ttl) {
        return Err(invalid("ttl_s", format!("60 to {MAX_TTL}")).into());
    }
    let user = context.users.get(&new.user).await?;
    // A session token has no hook scope (SEC-60).
    let mut owned = context.users.permissions(&user);
    owned.retain(|permission| !permission.is_hook_scope());
    let permissions = match &new.scope {
        None => context.users.own_permissions(&user),
        Some(scope) => parse_permissions(scope).map_err(|e| invalid("scope", e.to_string()))?,
    };
    if permissions.is_empty() || !permissions.iter().all(|p| owned.contains(p)) {
        return Err(invalid("scope", "a subset of what the user has, and not nothing").into());
    }
    let token = context.issue_token(&caller, &user, &permissions, Duration::from_secs(ttl)).await;
    let token = token.map_err(crate::Error::internal)?;
    let body = json!({"token": token.expose().as_str(), "token_type": "Bearer", "expires_in": ttl});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use systemprompt_security::session::SessionError;

    #[test]
    fn id_6_an_end_that_the_store_does_not_take_is_503_with_a_time_to_come_again() {
        for error in [
            RevokeError::Session(SessionError::ClockBehind),
            RevokeError::User(IdentityError::Session(SessionError::ClockBehind)),
            RevokeError::Oauth(OauthError::Session(SessionError::ClockBehind)),
        ] {
            let told = format!("{error:?}");
            let refusal = refused(error).0;
            assert_eq!((refusal.status(), refusal.retry_after), (503, Some(1)), "{told}");
        }
    }
}
