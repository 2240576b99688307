//! What a person sees of a device that asks, and what they decide (ID-65).

use super::attempts::{self, Subject};
use super::authorize::standing::SignedIn;
use super::consent;
use super::device::{self, DeviceDecision};
use super::pages::{self, DeviceConfirmPage};
use super::templating::{Frame, initial, moment, place};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::http::Parameters;
use crate::services::scopes::Scopes;
use crate::state::OAuthState;
use systemprompt_models::{RequestContext, Secret};

/// Letters of a user code, and how many it has.
const ALPHABET: &str = "BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;
/// Most characters of a client's name that are shown.
const MAX_NAME: usize = 80;

/// A user code however it was typed, as `XXXX-XXXX`.
pub fn normal(typed: &str) -> Option<String> {
    let code: String =
        typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
    if code.chars().count() != LENGTH || !code.chars().all(|c| ALPHABET.contains(c)) {
        return None;
    }
    let (head, tail) = code.split_at_checked(4)?;
    Some(format!("{head}-{tail}"))
}

/// The page on which `person` decides about the device with this code; `None` if there is none. Guesses are counted.
///
/// # Errors
/// Too many guesses, or rows that cannot be read.
pub async fn confirm(
    state: &OAuthState,
    context: &RequestContext,
    (person, flow): (&SignedIn, &Secret<String>),
    frame: Frame,
    typed: &str,
) -> OauthResult<Option<DeviceConfirmPage>> {
    let guesses = [Subject::DeviceSession(&person.session.id), Subject::DevicePrefix(context)];
    attempts::take(state, &guesses).await?;
    let found = match normal(typed) {
        Some(code) => device::find_by_user_code(state, &code).await?.map(|request| (code, request)),
        None => None,
    };
    let Some((user_code, request)) = found else {
        return Ok(None);
    };
    attempts::give_back(state, &guesses).await?;
    let client = state.client(request.client_id.as_str()).await?;
    let client = client.filter(crate::models::clients::OAuthClient::is_active);
    let Some(client) = client else { return Ok(None) };
    let name: String = client.name.chars().take(MAX_NAME).collect();
    let shown = person.user.display_name.clone().unwrap_or_else(|| person.user.username.clone());
    Ok(Some(DeviceConfirmPage {
        csrf: pages::csrf(state, &purpose(person, &user_code), flow),
        initial: initial(&name),
        client_name: name,
        unverified: client.is_unverified(),
        person_initial: initial(&shown),
        person_name: shown,
        scopes: request
            .scopes
            .text()
            .split_ascii_whitespace()
            .map(|scope| consent::line(frame.t, scope))
            .collect(),
        resources: request.resources,
        place: request.ip_prefix.as_deref().map(place),
        asked_at: moment(request.created_at),
        user_code,
        frame,
    }))
}

/// What binds the form to the session and the code.
fn purpose(person: &SignedIn, user_code: &str) -> String {
    format!("device {} {user_code}", person.session.id)
}

/// Carries out what the person decided. False if the request is not open any more.
///
/// # Errors
/// A form that is not that of this session and code, or what could not be written.
pub async fn decide(
    state: &OAuthState,
    context: &RequestContext,
    (person, flow): (&SignedIn, &Secret<String>),
    form: &Parameters,
    allow: bool,
) -> OauthResult<bool> {
    let code = normal(form.need("user_code")?)
        .ok_or_else(|| OauthError::new(ErrorCode::InvalidRequest, "user_code is not in form"))?;
    pages::check_csrf(state, &purpose(person, &code), flow, form.get("csrf"))?;
    let kept = form.names().filter_map(|name| name.strip_prefix("scope_"));
    let kept = Scopes::of(&kept.chain(["openid"]).collect::<Vec<_>>().join(" "));
    let decision = DeviceDecision {
        user_code: &code,
        user_id: &person.user.id,
        session_id: &person.session.id,
        scopes: Some(kept),
    };
    if allow {
        device::approve(state, context, decision).await
    } else {
        device::deny(state, context, decision).await
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn a_user_code_is_read_however_it_was_typed() {
        for (typed, want) in [
            ("bcdf-ghjk", Some("BCDF-GHJK")),
            (" BCDF GHJK ", Some("BCDF-GHJK")),
            ("BCDFGHJ", None),
            ("BCDFGHJKL", None),
            ("ACDFGHJK", None),
        ] {
            assert_eq!(normal(typed).as_deref(), want);
        }
    }
}
