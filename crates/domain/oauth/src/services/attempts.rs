//! Failed sign-ins and client secrets, counted for all nodes (ID-95): each further failure of an account from one network waits
//! longer, and a network that fails everywhere waits as well. A key is a digest, so that the rows name nobody. A network that comes to
//! its bound again and again is proposed for a ban; banning is an administrator's.

use crate::at_rest::Label;
use crate::error::{OauthError, OauthResult};
use crate::repository::attempts::{self, Guess};
use crate::services::refusals::ip_prefix;
use crate::state::OAuthState;
use serde_json::json;
use systemprompt_audit::{Draft, EntryKind, Payload, Role};
use systemprompt_models::ids::SessionId;
use systemprompt_models::{Millis, RequestContext};

/// What failures are counted of.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// An account, by its id, or the name that was given if nobody has it, from one network.
    Account(&'a str, &'a RequestContext),
    /// An account, from wherever. It is slowed and never shut out, or strangers could do that to anybody.
    Everywhere(&'a str),
    /// A network.
    Prefix(&'a RequestContext),
    /// A session that guesses codes of devices, and the network it does so from.
    DeviceSession(&'a SessionId),
    DevicePrefix(&'a RequestContext),
    /// The secret of a client, by the id that was given, from one network.
    Client(&'a str, &'a RequestContext),
    /// Secrets of any clients from one network: bounds the rows that it can cause.
    ClientPrefix(&'a RequestContext),
}

/// Windows at their bound within a day that propose a ban.
const PROPOSING: i64 = 3;
const DAY: Millis = 86_400_000;

/// What follows failures.
#[derive(Clone, Copy)]
struct Limit {
    /// From this one on in a window there is a wait.
    most: i64,
    window: Millis,
    wait: Wait,
}

#[derive(Clone, Copy)]
enum Wait {
    /// A second, then twice as long each time, up to so many milliseconds.
    Grows(Millis),
    /// Until the window is over.
    Window,
}

impl<'a> Subject<'a> {
    fn limit(self) -> Limit {
        let limit = |most, window, wait| Limit { most, window, wait };
        match self {
            Self::Account(..) => limit(5, 900_000, Wait::Grows(900_000)),
            Self::Everywhere(_) => limit(20, 900_000, Wait::Grows(30_000)),
            Self::Prefix(_) => limit(30, 900_000, Wait::Window),
            Self::DeviceSession(_) => limit(5, 3_600_000, Wait::Window),
            Self::DevicePrefix(_) => limit(20, 3_600_000, Wait::Window),
            Self::Client(..) => limit(20, 600_000, Wait::Window),
            Self::ClientPrefix(_) => limit(300, 600_000, Wait::Window),
        }
    }

    /// A guess in the window that there is now.
    fn guess(self, state: &OAuthState, now: Millis) -> Guess {
        let Limit { most, window, wait } = self.limit();
        let start = now - now.rem_euclid(window);
        let (until, longest) = match wait {
            Wait::Window => (start + window, 0),
            Wait::Grows(longest) => (0, longest),
        };
        Guess { key: self.key(state), start, since: now - 2 * window, most, until, longest }
    }

    fn context(self) -> Option<&'a RequestContext> {
        match self {
            Self::Account(_, context)
            | Self::Prefix(context)
            | Self::DevicePrefix(context)
            | Self::Client(_, context)
            | Self::ClientPrefix(context) => Some(context),
            Self::Everywhere(_) | Self::DeviceSession(_) => None,
        }
    }

    /// What it is in a record.
    fn kind(self) -> &'static str {
        match self {
            Self::Account(..) | Self::Everywhere(_) => "account",
            Self::Prefix(_) => "prefix",
            Self::DeviceSession(_) | Self::DevicePrefix(_) => "device_code",
            Self::Client(..) | Self::ClientPrefix(_) => "client_secret",
        }
    }

    fn key(self, state: &OAuthState) -> String {
        let prefix = |context: &RequestContext| ip_prefix(context).unwrap_or_default();
        let name = match self {
            Self::Account(name, context) => format!("account {} {}", prefix(context), name.to_lowercase()),
            Self::Everywhere(name) => format!("everywhere {}", name.to_lowercase()),
            Self::Prefix(context) => format!("prefix {}", prefix(context)),
            Self::DeviceSession(session) => format!("device {session}"),
            Self::DevicePrefix(context) => format!("device-prefix {}", prefix(context)),
            Self::Client(id, context) => format!("client {} {id}", prefix(context)),
            Self::ClientPrefix(context) => format!("client-prefix {}", prefix(context)),
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
        let (key, since) = watched(state, *subject, now);
        admit_from(attempts::blocked_until(&state.db, &key, since).await?, now)?;
    }
    Ok(())
}

/// The key of a subject, and from which windows on its failures matter, for whoever reads its wait along with something else.
pub(crate) fn watched(state: &OAuthState, subject: Subject<'_>, now: Millis) -> (String, Millis) {
    (subject.key(state), now - 2 * subject.limit().window)
}

/// Refuses whoever must wait until then.
///
/// # Errors
/// `Throttled`.
pub(crate) fn admit_from(until: Millis, now: Millis) -> OauthResult<()> {
    if until <= now {
        return Ok(());
    }
    let seconds = until.saturating_sub(now).saturating_add(999) / 1000;
    Err(OauthError::Throttled { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) })
}

/// Counts a guess as a failure before it is looked at, so that many at once are no more than one after another. What succeeds is
/// given back.
///
/// # Errors
/// `Throttled`, and then nothing was counted; or rows that cannot be read or written.
pub async fn take(state: &OAuthState, subjects: &[Subject<'_>]) -> OauthResult<()> {
    let now = state.now();
    let guesses: Vec<Guess> = subjects.iter().map(|subject| subject.guess(state, now)).collect();
    let taken = match attempts::take(&state.db, &guesses, now).await? {
        Ok(taken) => taken,
        Err(until) => return admit_from(until, now),
    };
    for ((subject, guess), failures) in subjects.iter().zip(guesses).zip(taken) {
        // One caller alone sees the count come to the bound.
        if failures == guess.most
            && attempts::full_windows(&state.db, &guess.key, guess.most, now - DAY).await? == PROPOSING
        {
            propose(state, *subject).await?;
        }
    }
    Ok(())
}

/// Gives guesses back that were none.
///
/// # Errors
/// Rows that cannot be written.
pub async fn give_back(state: &OAuthState, subjects: &[Subject<'_>]) -> OauthResult<()> {
    forgive(state, None, subjects).await
}

/// Counts a failure of each, unless one waits already.
///
/// # Errors
/// Rows that cannot be written.
pub async fn failed(state: &OAuthState, subjects: &[Subject<'_>]) -> OauthResult<()> {
    match take(state, subjects).await {
        Err(OauthError::Throttled { .. }) => Ok(()),
        other => other,
    }
}

/// Tells whoever bans addresses of a network that fails day in, day out. Where it is, is a payload: an address is somebody's.
async fn propose(state: &OAuthState, subject: Subject<'_>) -> OauthResult<()> {
    let Some(network) = subject.context().and_then(ip_prefix) else { return Ok(()) };
    tracing::warn!(failures_of = subject.kind(), "a network keeps failing to sign in; a ban is proposed");
    let draft = Draft::system(EntryKind::AdminBanProposed, "proposed")
        .with_reason("failed_credentials")
        .with("failures_of", subject.kind())
        .with("windows", PROPOSING)
        .with_payload(Payload::of(Role::Addresses, &json!({"network": network})));
    Ok(state.record(draft).await?)
}

/// Forgets the failures of an account, which has just succeeded, and gives the guess back to the `others` that it was counted of.
///
/// # Errors
/// Rows that cannot be written.
pub async fn succeeded(state: &OAuthState, account: Subject<'_>, others: &[Subject<'_>]) -> OauthResult<()> {
    forgive(state, Some(&account.key(state)), others).await
}

async fn forgive(state: &OAuthState, forgotten: Option<&str>, back: &[Subject<'_>]) -> OauthResult<()> {
    let now = state.now();
    let back: Vec<Guess> = back.iter().map(|subject| subject.guess(state, now)).collect();
    Ok(attempts::forgive(&state.db, forgotten, &back).await?)
}
