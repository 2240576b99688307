//! Recovery codes: ten for a user, each of which counts once and leads to a new passkey (ID-92).

use crate::at_rest::Label;
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::repository::notices::{self, NoticeKind};
use crate::repository::recovery_codes;
use crate::services::attempts::{self, Subject};
use crate::services::session::{lookup, record_failure};
use crate::services::setup::{self, NewSetup, Purpose, RECOVERY_TTL_SECONDS};
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_models::{RequestContext, Secret};
use systemprompt_security::opaque;

/// Codes of a set.
const CODES: usize = 10;
/// Random bytes of a code.
const BYTES: usize = 10;
/// Crockford's base 32: no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Makes the caller a new set; the one before ends.
///
/// # Errors
/// A sign-in that is too old, or what could not be written.
pub async fn make(state: &OAuthState, context: &RequestContext) -> OauthResult<Vec<Secret<String>>> {
    lookup::need_recent(state, &context.principal).await?;
    let codes = (0..CODES).map(|_| code()).collect::<OauthResult<Vec<_>>>()?;
    let digest = |code: &Secret<String>| {
        state.at_rest.digest(Label::RecoveryCode, &normal(code).unwrap_or_default()).hex
    };
    let digests: Vec<String> = codes.iter().map(digest).collect();
    let user = context.principal.user_id.as_str();
    let draft = Draft::new(EntryKind::OauthRecoveryCreated, context, "ok").with_subject("user", user);
    let mut unit = Unit::new();
    unit.record(draft.with("codes", CODES as i64));
    let kind = NoticeKind::RecoveryCodesMade;
    unit.require(notices::tell(context, &context.principal.user_id, kind, None, state.now()));
    state.ledger.append(unit).await?;
    recovery_codes::replace(&state.db, user, &digests, state.now()).await?;
    Ok(codes)
}

/// Takes a code for a link under which its user sets up a passkey within ten minutes.
///
/// # Errors
/// `invalid_credential`, whatever is wrong with it; too many failures; what could not be written.
pub async fn redeem(
    state: &OAuthState,
    context: &RequestContext,
    code: &Secret<String>,
) -> OauthResult<Secret<String>> {
    let from = [Subject::Prefix(context)];
    attempts::take(state, &from).await?;
    if let Some(link) = try_redeem(state, context, code).await? {
        attempts::give_back(state, &from).await?;
        return Ok(link);
    }
    record_failure(state, context, "recovery", "unknown_credential").await?;
    Err(OauthError::new(ErrorCode::InvalidCredential, "the credential was not accepted"))
}

async fn try_redeem(
    state: &OAuthState,
    context: &RequestContext,
    code: &Secret<String>,
) -> OauthResult<Option<Secret<String>>> {
    let Some(code) = normal(code) else { return Ok(None) };
    let digests = state.at_rest.candidates(Label::RecoveryCode, &code);
    let digests = (digests.0.as_str(), digests.1.as_str());
    let Some(user_id) = recovery_codes::owner(&state.db, digests).await? else { return Ok(None) };
    let user = state.users.find(&user_id).await?;
    let may = |user: &User| user.kind == UserKind::Person && user.status == UserStatus::Active;
    let Some(user) = user.filter(may) else { return Ok(None) };
    let mut unit = Unit::new();
    unit.record(
        Draft::new(EntryKind::OauthRecoveryUsed, context, "ok").with_subject("user", user.id.as_str()),
    );
    unit.require(recovery_codes::used(digests, state.now()));
    unit.require(notices::tell(context, &user.id, NoticeKind::RecoveryUsed, None, state.now()));
    match state.ledger.append(unit).await {
        Ok(_) => {}
        Err(LedgerError::Guard(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let new = NewSetup {
        purpose: Purpose::Recovery,
        user: Some(&user),
        email: None,
        roles: Vec::new(),
        life: RECOVERY_TTL_SECONDS,
    };
    let token = setup::issue(state, Some(context), new).await?;
    Ok(Some(setup::link(state, &token)))
}

/// 80 random bits as four groups of four.
fn code() -> OauthResult<Secret<String>> {
    let mut random = [0; BYTES];
    opaque::fill(&mut random)?;
    let value = random.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
    let digit = |place: usize| ALPHABET.get((value >> (5 * (15 - place)) & 31) as usize).copied();
    let text: String = (0..16)
        .flat_map(|place| {
            let dash = (place > 0 && place % 4 == 0).then_some('-');
            dash.into_iter().chain(digit(place).map(char::from))
        })
        .collect();
    Ok(Secret::new(text))
}

/// The code as it was made, however it was typed.
fn normal(typed: &Secret<String>) -> Option<String> {
    let mut text = String::with_capacity(16);
    for c in typed.expose().chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let c = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        };
        if text.len() >= 16 || !c.is_ascii() || !ALPHABET.contains(&(c as u8)) {
            return None;
        }
        text.push(c);
    }
    (text.len() == 16).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_was_typed() {
        let made = code().unwrap();
        assert_eq!(made.expose().len(), 19);
        let typed = Secret::new(made.expose().to_lowercase().replace('-', " ").replace('0', "o"));
        assert_eq!(normal(&typed), normal(&made));
        for wrong in ["", "ABCD", "UUUU-UUUU-UUUU-UUUU", "0000-0000-0000-0000-0"] {
            assert_eq!(normal(&Secret::from(wrong)), None);
        }
    }
}
