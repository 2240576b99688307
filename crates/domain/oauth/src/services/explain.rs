//! What a token rests on (ID-137): what was asked for, what was cut and by what, the grant, the consent and the sign-in before it,
//! each with its ledger entry. The records are found by the time that ids tell, so that no column is kept for it.

use crate::repository::oauth::grants::Grant;
use crate::services::grants::session_of;
use crate::state::OAuthState;
use serde_json::{Map, Value, json};
use systemprompt_audit::lookup::LookupError;
use systemprompt_audit::{Filter, LedgerRow};
use systemprompt_models::Millis;
use systemprompt_models::clock::iso8601;
use systemprompt_models::ids::{Jti, SessionId};
use systemprompt_models::session::SessionSource;
use systemprompt_security::session::{SessionError, SessionRow};

/// Kinds of entries that name the `jti` of a new token.
const ISSUED: &str = "oauth.token,oauth.exchange,oauth.bridge.exchanged";
/// How long before and behind the time of an id its record may have been written: nearly always it is at hand; what waited for a
/// slow disk, or was written by a node whose clock is another, lies further away.
const NEAR: (Millis, Millis) = (50, 2000);
const FAR: (Millis, Millis) = (BEFORE, 10_000);
const BEFORE: Millis = 1000;
/// Most records that are looked through about one time, and how many at once.
const MAX_ROWS: usize = 20_000;
const PAGE: usize = 500;

/// Why a token cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Ledger(#[from] LookupError),
    #[error("identity rows cannot be read")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It may be there all the same.
    #[error(
        "more than {MAX_ROWS} records of these kinds were written about that time, and none of those looked through is it"
    )]
    Crowded,
}

/// The record of a token, and what it rests on.
#[derive(Debug)]
pub struct TokenExplained {
    pub issued: LedgerRow,
    pub document: Value,
}

/// Explains the token of this `jti`; `None` for one that is not on record.
///
/// # Errors
/// When ledger or rows cannot be read.
pub async fn explain(state: &OAuthState, jti: &str) -> Result<Option<TokenExplained>, ExplainError> {
    let Some(at) = time_of(jti) else { return Ok(None) };
    let found = find(state, ISSUED, at, |detail| text(detail, "jti") == Some(jti)).await?;
    let Some((issued, detail)) = found else { return Ok(None) };
    let session = match issued.session_id.as_deref() {
        Some(id) => state.sessions.find(&SessionId::new(id)).await?,
        None => None,
    };
    let named = session.as_ref().and_then(|session| session.grant_id.as_ref().map(ToString::to_string));
    let grant = match text(&detail, "grant").map(str::to_owned).or(named) {
        Some(id) => state.oauth.find_grant(&id).await?,
        None => None,
    };
    let mut document = token(state, jti, &issued, &detail, session.as_ref()).await?;
    let parent = session.as_ref().and_then(|session| session.parent_session_id.as_ref());
    let browser = grant.as_ref().and_then(|grant| grant.session_id.as_deref()).map(SessionId::new);
    let parts = [
        (
            "grant",
            match &grant {
                Some(grant) => of_grant(state, grant).await?,
                None => Value::Null,
            },
        ),
        (
            "consent",
            match &grant {
                Some(grant) => consent(state, grant).await?,
                None => Value::Null,
            },
        ),
        (
            "parent_session",
            match parent.or(browser.as_ref()) {
                Some(id) => parent_session(state, id).await?,
                None => Value::Null,
            },
        ),
    ];
    document.extend(parts.into_iter().filter(|(_, part)| !part.is_null()).map(|(k, v)| (k.to_owned(), v)));
    Ok(Some(TokenExplained { issued, document: Value::Object(document) }))
}

async fn token(
    state: &OAuthState,
    jti: &str,
    issued: &LedgerRow,
    detail: &Map<String, Value>,
    session: Option<&SessionRow>,
) -> Result<Map<String, Value>, ExplainError> {
    let now = state.now();
    let end = detail.get("exp").and_then(Value::as_i64).unwrap_or_default().saturating_mul(1000);
    let is_revoked = state.sessions.is_token_revoked(&Jti::new(jti)).await?;
    let counts = match session {
        _ if is_revoked => "revoked",
        _ if end <= now => "expired",
        Some(session) if session.is_live(now) => "live",
        Some(_) => "session ended",
        None => "session gone",
    };
    let mut token = Map::new();
    for (name, value) in [
        ("jti", json!(jti)),
        ("entry", json!(issued.id)),
        ("issued_at", iso8601(issued.at).into()),
        ("ends_at", iso8601(end).into()),
        ("state", counts.into()),
        ("client_id", json!(issued.client_id)),
        ("session_id", json!(issued.session_id)),
        ("session_ended", json!(session.and_then(|session| session.revoked_reason.clone()))),
        ("actor_chain", chain(issued)),
    ] {
        token.insert(name.to_owned(), value);
    }
    let told = [
        "grant_type",
        "sub",
        "aud",
        "scopes_asked",
        "scopes_before",
        "scopes",
        "cut",
        "owner_id",
        "plugin_id",
        "issuer",
    ];
    token.extend(told.into_iter().filter_map(|name| Some((name.to_owned(), detail.get(name)?.clone()))));
    token.retain(|_, value| !value.is_null());
    Ok(token)
}

fn chain(row: &LedgerRow) -> Value {
    row.act_chain.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

async fn of_grant(state: &OAuthState, grant: &Grant) -> Result<Value, ExplainError> {
    let is_its = |detail: &Map<String, Value>| {
        [text(detail, "grant"), text(detail, "grant_id")].contains(&Some(&grant.grant_id))
    };
    let kinds = "oauth.authorized,oauth.device.approved";
    let found = find(state, kinds, grant.created_at, is_its).await?;
    let (entry, detail) = found.map_or_else(Default::default, |(row, detail)| (Some(row.id), detail));
    Ok(json!({
        "grant_id": grant.grant_id,
        "kind": grant.kind,
        "entry": entry,
        "given_at": iso8601(grant.created_at),
        "scopes_asked": detail.get("scopes_asked"),
        "cut": detail.get("cut"),
        "scopes": grant.scopes,
        "resources": grant.resources,
        "session_id": session_of(&grant.grant_id),
        "ends_at": iso8601(grant.family_expires_at),
        "ended_at": grant.revoked_at.map(iso8601),
    }))
}

/// The consent that counts for the grant's client, or the one that was given with the grant.
async fn consent(state: &OAuthState, grant: &Grant) -> Result<Value, ExplainError> {
    let consents = state.oauth.consents_of(&grant.user_id, &grant.client_id).await?;
    // The last that was given before the grant; a later one has taken the place of the one that it rested on.
    let before = |at: &Millis| *at <= grant.created_at + BEFORE;
    let Some(given) = consents.into_iter().find(|given| before(&given.granted_at)) else {
        return Ok(Value::Null);
    };
    let is_its = |detail: &Map<String, Value>| text(detail, "user_id") == Some(&grant.user_id);
    let found = find(state, "oauth.consent.given", given.granted_at, is_its).await?;
    Ok(json!({
        "redirect_uri": given.redirect_uri,
        "scopes": given.scopes,
        "given_at": iso8601(given.granted_at),
        "taken_back_at": given.revoked_at.map(iso8601),
        "entry": found.map(|(row, _)| row.id),
    }))
}

async fn parent_session(state: &OAuthState, id: &SessionId) -> Result<Value, ExplainError> {
    let Some(session) = state.sessions.find(id).await? else { return Ok(json!({"session_id": id})) };
    let is_its = |detail: &Map<String, Value>| text(detail, "session_id") == Some(id.as_str());
    let found = find(state, "oauth.signin", session.created_at, is_its).await?;
    Ok(json!({
        "session_id": id,
        "source": session.source.map(SessionSource::as_str),
        "began_at": iso8601(session.created_at),
        "acr": session.acr,
        "amr": session.amr,
        "ended_at": session.revoked_at.map(iso8601),
        "ended_by": session.revoked_reason,
        "entry": found.map(|(row, _)| row.id),
    }))
}

/// Epoch milliseconds at which the id of a token was made.
fn time_of(jti: &str) -> Option<Millis> {
    let (seconds, nanoseconds) = Jti::new(jti).uuid()?.get_timestamp()?.to_unix();
    Millis::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(Millis::from(nanoseconds / 1_000_000))
}

fn text<'a>(detail: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    detail.get(name).and_then(Value::as_str)
}

type Found = (LedgerRow, Map<String, Value>);

/// The first record of these kinds about `at` that is wanted, with its detail.
async fn find(
    state: &OAuthState,
    kinds: &str,
    at: Millis,
    is_wanted: impl Fn(&Map<String, Value>) -> bool,
) -> Result<Option<Found>, ExplainError> {
    match find_within(state, kinds, (at, NEAR), MAX_ROWS, &is_wanted).await {
        Ok(None) | Err(ExplainError::Crowded) => {
            find_within(state, kinds, (at, FAR), MAX_ROWS, &is_wanted).await
        }
        found => found,
    }
}

async fn find_within(
    state: &OAuthState,
    kinds: &str,
    (at, (before, behind)): (Millis, (Millis, Millis)),
    most: usize,
    is_wanted: impl Fn(&Map<String, Value>) -> bool,
) -> Result<Option<Found>, ExplainError> {
    let filter = Filter {
        kind: Some(kinds.to_owned()),
        since: Some(at.saturating_sub(before)),
        until: Some(at.saturating_add(behind)),
        ascending: true,
        ..Filter::default()
    };
    let mut after = None;
    for _ in 0..most.div_ceil(PAGE) {
        let page = state.ledger.query(&filter, after.as_ref(), PAGE.min(most) as i64).await?;
        for row in page.rows {
            let record = row.record.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let detail = record.as_ref().and_then(|record| record.get("detail")).and_then(Value::as_object);
            if let Some(detail) = detail.filter(|detail| is_wanted(detail)) {
                let detail = detail.clone();
                return Ok(Some((row, detail)));
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(None),
        }
    }
    Err(ExplainError::Crowded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{caller, fixtures};
    use systemprompt_audit::{Draft, EntryKind};
    use systemprompt_models::Clock as _;

    #[tokio::test]
    async fn id_137_a_record_is_sought_near_its_time_first_and_too_many_others_are_no_proof_that_there_is_none()
     {
        for f in fixtures().await {
            for n in 0..5 {
                let draft = Draft::new(EntryKind::OauthToken, &caller(), "ok").with("jti", format!("j{n}"));
                f.state.record(draft).await.unwrap();
            }
            let filter = Filter { kind: Some(ISSUED.to_owned()), ascending: true, ..Filter::default() };
            let rows = f.state.ledger.query(&filter, None, 10).await.unwrap().rows;
            let at = rows.first().unwrap().at;
            let seek = async |jti: &'static str, (at, window), most| {
                let wanted = |detail: &Map<String, Value>| text(detail, "jti") == Some(jti);
                find_within(&f.state, ISSUED, (at, window), most, wanted).await
            };
            let found = seek("j4", (at, FAR), 5).await.unwrap().unwrap();
            assert_eq!(text(&found.1, "jti"), Some("j4"));
            assert!(matches!(seek("j4", (at, FAR), 2).await, Err(ExplainError::Crowded)));
            assert!(seek("other", (at, FAR), 500).await.unwrap().is_none());
            // A time of which it is not near, but not far.
            let later = rows.last().unwrap().at + NEAR.0 + 1;
            assert!(seek("j4", (later, NEAR), 500).await.unwrap().is_none());
            let wanted = |detail: &Map<String, Value>| text(detail, "jti") == Some("j4");
            assert!(super::find(&f.state, ISSUED, later, wanted).await.unwrap().is_some());
        }
    }

    #[test]
    fn the_id_of_a_token_tells_when_it_was_made() {
        let (before, id) = (systemprompt_models::clock::SystemClock.now(), Jti::generate());
        let at = time_of(id.as_str()).unwrap();
        assert!((before..before + 5000).contains(&at), "{before} {at}");
        for other in
            ["", "jti_x", "led_0198c0de00007000800000000000abcd", "jti_00000000000040008000000000000000"]
        {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
