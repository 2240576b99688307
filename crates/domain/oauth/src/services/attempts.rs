//! Failed sign-ins, counted for all nodes (ID-95): each further failure of an account from one network waits longer, and a
//! network that fails everywhere waits as well. A key is a digest, so that the rows name nobody.

use crate::at_rest::Label;
use crate::error::{OauthError, OauthResult};
use crate::repository::attempts;
use crate::services::refusals::ip_prefix;
use crate::state::OAuthState;
use systemprompt_models::ids::SessionId;
use systemprompt_models::{Millis, RequestContext};

/// What failures are counted of.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// An account, by the name that was given, from one network.
    Account(&'a str, &'a RequestContext),
    /// A network.
    Prefix(&'a RequestContext),
    /// A session that guesses codes of devices, and the network it does so from.
    DeviceSession(&'a SessionId),
    DevicePrefix(&'a RequestContext),
}

/// What follows failures.
#[derive(Clone, Copy)]
struct Limit {
    /// From this one on in a window there is a wait.
    most: i64,
    window: Millis,
    /// Whether the wait grows from a second on; otherwise it lasts as long as the window.
    slows: bool,
}

impl Subject<'_> {
    fn limit(self) -> Limit {
        let limit = |most, window, slows| Limit { most, window, slows };
        match self {
            Self::Account(..) => limit(5, 900_000, true),
            Self::Prefix(_) => limit(30, 900_000, false),
            Self::DeviceSession(_) => limit(5, 3_600_000, false),
            Self::DevicePrefix(_) => limit(20, 3_600_000, false),
        }
    }

    fn key(self, state: &OAuthState) -> String {
        let prefix = |context: &RequestContext| ip_prefix(context).unwrap_or_default();
        let name = match self {
            Self::Account(name, context) => format!("account {} {}", prefix(context), name.to_lowercase()),
            Self::Prefix(context) => format!("prefix {}", prefix(context)),
            Self::DeviceSession(session) => format!("device {session}"),
            Self::DevicePrefix(context) => format!("device-prefix {}", prefix(context)),
        };
        state.at_rest.digest(Label::AuthAttempt, &name).hex
    }
}

/// Refuses whoever must wait.
///
/// # Errors
/// `Throttled`, or rows that cannot be read.
pub async fn admit(state: &OAuthState, subjects: &[Subject<'_>]) -> OauthResult<()> {
    let now = state.now();
    for subject in subjects {
        let window = subject.limit().window;
        let until = attempts::blocked_until(&state.db, &subject.key(state), now - 2 * window).await?;
        if until > now {
            let seconds = (until - now + 999) / 1000;
            return Err(OauthError::Throttled { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) });
        }
    }
    Ok(())
}

/// Counts a failure.
///
/// # Errors
/// Rows that cannot be written.
pub async fn failed(state: &OAuthState, subjects: &[Subject<'_>]) -> OauthResult<()> {
    let now = state.now();
    for subject in subjects {
        let limit = subject.limit();
        let start = now - now.rem_euclid(limit.window);
        let last = (!limit.slows).then_some(start + limit.window);
        attempts::count(&state.db, &subject.key(state), start, limit.most, last, now).await?;
    }
    Ok(())
}

/// Forgets the failures of an account, which has just succeeded.
///
/// # Errors
/// Rows that cannot be written.
pub async fn succeeded(state: &OAuthState, subject: Subject<'_>) -> OauthResult<()> {
    Ok(attempts::clear(&state.db, &subject.key(state)).await?)
}
