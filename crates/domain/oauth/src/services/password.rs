//! Passwords, where they are switched on (ID-93): Argon2id, a bounded number at a time, and the same work for whom there is not.

use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::analytics::Method;
use crate::repository::notices::{self, NoticeKind};
use crate::repository::passwords;
use crate::services::attempts::{self, Subject};
use crate::services::session::{SessionCreationService, SignInFacts, SignedIn, lookup, record_failure};
use crate::services::webauthn::service::authentication::HalfSignIn;
use crate::services::webauthn::token::{Browser, Kind, look, take};
use crate::state::OAuthState;
use crate::users::{User, UserKind, UserStatus};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use systemprompt_audit::{Draft, EntryKind, LedgerError, Unit};
use systemprompt_database::retry_contended;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Principal, RequestContext, Secret};
use systemprompt_security::opaque;
use systemprompt_security::session::UserEnd;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

mod argon2id;
mod common;
mod imported;

const MAX_LENGTH: usize = 256;
/// Calls that may wait for their turn.
const QUEUE: usize = 64;

static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2))
});
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// What the password of nobody is compared with.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| argon2id::hash("nobody has this password", &[7; 16]).unwrap_or_default());

/// Calls that wait for their turn.
pub(crate) fn waiting() -> usize {
    WAITING.load(Ordering::Relaxed)
}

/// Signs a person in by name or mail and password.
///
/// # Errors
/// `invalid_credential`, whatever is wrong; too many failures or calls; what could not be written.
pub async fn sign_in(
    state: &OAuthState,
    context: &RequestContext,
    before: Option<&Principal>,
    name: &str,
    password: &Secret<String>,
) -> OauthResult<SignedIn> {
    let user = match state.users.find(name).await? {
        Some(user) => Some(user),
        None => state.users.by_email(name).await?,
    };
    let (user, unit) = prove(state, context, name, user, password).await?;
    let facts = SignInFacts {
        user: &user,
        method: Method::Password,
        credential: None,
        context,
        is_new: false,
        before,
    };
    SessionCreationService(state).sign_in(facts, unit).await.map_err(changed_meanwhile)
}

/// Ends a sign-in by a passkey that did not verify its user: the password says that it is they. Returns with the session what it
/// was for.
///
/// # Errors
/// A step that is not open in this browser, and as [`sign_in`]; after a wrong password the step stays open.
pub async fn second(
    state: &OAuthState,
    browser: Browser<'_>,
    step: &str,
    password: &Secret<String>,
) -> OauthResult<(SignedIn, Option<String>)> {
    let (half, user_id): (HalfSignIn, _) = look(state, browser, Kind::Password, step).await?;
    let user = state.users.find(user_id.as_deref().unwrap_or_default()).await?;
    let name = user.as_ref().map_or("", |user| user.username.as_str()).to_owned();
    let (user, unit) = prove(state, browser.context, &name, user, password).await?;
    take::<HalfSignIn>(state, browser, Kind::Password, step).await?;
    let facts = SignInFacts {
        user: &user,
        method: Method::PresenceAndPassword { synced: half.synced },
        credential: Some(&half.credential),
        context: browser.context,
        is_new: false,
        before: browser.visitor,
    };
    let signed_in = SessionCreationService(state).sign_in(facts, unit).await.map_err(changed_meanwhile)?;
    Ok((signed_in, half.request))
}

/// What a step was begun for, while it is open in this browser.
///
/// # Errors
/// When it cannot be read.
pub async fn begun_for(state: &OAuthState, browser: Browser<'_>, step: &str) -> OauthResult<Option<String>> {
    match look::<HalfSignIn>(state, browser, Kind::Password, step).await {
        Ok((half, _)) => Ok(half.request),
        Err(error) if error.is_ours() => Err(error),
        Err(_) => Ok(None),
    }
}

/// What somebody is told whose password ended between its proof and the session.
fn changed_meanwhile(error: OauthError) -> OauthError {
    match error {
        OauthError::Ledger(LedgerError::Guard(passwords::UNCHANGED)) => not_accepted(),
        other => other,
    }
}

fn not_accepted() -> OauthError {
    OauthError::new(ErrorCode::InvalidCredential, "the credential was not accepted")
}

/// The person whose password this is, and the unit of their session, which holds while it still is.
async fn prove(
    state: &OAuthState,
    context: &RequestContext,
    name: &str,
    user: Option<User>,
    password: &Secret<String>,
) -> OauthResult<(User, Unit)> {
    // Whatever somebody is called by, their guesses are counted together.
    let counted = user.as_ref().map(|user| user.id.clone());
    let counted = counted.as_ref().map_or(name, |id| id.as_str());
    let account = Subject::Account(counted, context);
    let (everywhere, network) = ([Subject::Everywhere(counted)], [Subject::Prefix(context)]);
    // Behind one address many people may be signing in: of a network what has failed counts, not what is still looked at. That is
    // bounded by the queue.
    attempts::admit(state, &network).await?;
    attempts::take(state, &[account, everywhere[0]]).await?;
    let user = user.filter(|user| user.kind == UserKind::Person && user.status == UserStatus::Active);
    let stored = match &user {
        Some(user) => passwords::hash(&state.db, user.id.as_str()).await?,
        None => None,
    };
    let hash = stored.clone().unwrap_or_else(|| NOBODY.clone());
    let is_right = guessed(state, &[account, everywhere[0]], password, hash).await?;
    match (user, stored) {
        (Some(user), Some(stored)) if is_right => {
            attempts::succeeded(state, account, &everywhere).await?;
            let stored = renew(state, &user, password, stored).await?;
            let mut unit = Unit::new();
            unit.require(passwords::unchanged(user.id.as_str(), &stored));
            Ok((user, unit))
        }
        _ => {
            attempts::failed(state, &network).await?;
            record_failure(state, context, "login", "not_verified").await?;
            Err(not_accepted())
        }
    }
}

/// Whether a user has a password.
///
/// # Errors
/// When it cannot be read.
pub async fn is_set(state: &OAuthState, user: &UserId) -> OauthResult<bool> {
    Ok(passwords::hash(&state.db, user.as_str()).await?.is_some())
}

/// Whether a password is right that was counted as a guess of `counted`. Where nobody has looked at it, it was none.
async fn guessed(
    state: &OAuthState,
    counted: &[Subject<'_>],
    password: &Secret<String>,
    hash: String,
) -> OauthResult<bool> {
    match verified(password, hash).await {
        Err(error) => {
            attempts::give_back(state, counted).await?;
            Err(error)
        }
        looked_at => looked_at,
    }
}

/// Sets the caller's password: the first after a recent sign-in, a further one with the old. Every grant and every other session
/// ends in the transaction of the change (ID-51).
///
/// # Errors
/// A new one that is too weak, an old one that is wrong, or what could not be written.
pub async fn change(
    state: &OAuthState,
    context: &RequestContext,
    old: Option<&Secret<String>>,
    new: &Secret<String>,
) -> OauthResult<()> {
    let user = state.users.get(context.principal.user_id.as_str()).await?;
    check(state, &user, new)?;
    let stored = passwords::hash(&state.db, user.id.as_str()).await?;
    match (&stored, old) {
        (None, _) => lookup::need_recent(state, &context.principal).await?,
        (Some(stored), Some(old)) => {
            let account = Subject::Account(user.id.as_str(), context);
            attempts::take(state, &[account]).await?;
            if !guessed(state, &[account], old, stored.clone()).await? {
                return Err(OauthError::new(ErrorCode::InvalidCredential, "the old password is not right"));
            }
            attempts::succeeded(state, account, &[]).await?;
        }
        (Some(_), None) => return Err(OauthError::invalid_request("old is missing")),
    }
    let hash = fresh(new).await?;
    let draft = Draft::new(EntryKind::AdminUserChanged, context, "ok")
        .with_subject("user", user.id.as_str())
        .with("changed", "password")
        .with("ends", "grants and other sessions")
        .with("sessions", state.sessions.count_of(&user.id, Some(&context.principal.session_id)).await?);
    state.record(draft).await?;
    retry_contended(|| put(state, context, &user.id, (stored.as_deref(), &hash))).await
}

/// Puts a hash in the place of another, with the end of every grant and other session.
async fn put(
    state: &OAuthState,
    context: &RequestContext,
    user: &UserId,
    (stored, hash): (Option<&str>, &str),
) -> OauthResult<()> {
    let now = state.now();
    let mut tx = state.db.write_tx().await?;
    if !passwords::store(&mut tx, user.as_str(), stored, hash, now).await? {
        return Err(OauthError::new(ErrorCode::Conflict, "the password was changed meanwhile"));
    }
    notices::tell(context, user, NoticeKind::PasswordChanged, None, now).holds_in(&mut tx).await?;
    let others = UserEnd::Others(&context.principal.session_id);
    state.users.end_with(tx, user, Some(others), "password_changed").await?;
    Ok(())
}

/// What a new password must be.
fn check(state: &OAuthState, user: &User, new: &Secret<String>) -> OauthResult<()> {
    let weak = |reason: String| Err(OauthError::invalid_request(reason));
    let text: String = new.expose().nfc().collect();
    let least = state.settings().identity.password.min_length as usize;
    let length = text.chars().count();
    if !(least..=MAX_LENGTH).contains(&length) {
        return weak(format!("new has {least} to {MAX_LENGTH} characters"));
    }
    let lower = text.to_lowercase();
    let names = [Some(user.username.as_str()), user.email.as_deref()];
    if common::is_easy(&lower) || names.into_iter().flatten().any(|name| lower == name.to_lowercase()) {
        return weak("new is too easy to guess".to_owned());
    }
    Ok(())
}

/// The text of a hash that another system made, if it can be verified here at a bearable cost.
pub(crate) fn importable(hash: &Secret<String>) -> Option<String> {
    let text = hash.expose().as_str();
    let is_fine =
        if imported::is_bcrypt(text) { imported::is_bearable(text) } else { argon2id::is_bearable(text) };
    is_fine.then(|| text.to_owned())
}

/// Replaces a hash of lower cost. Returns the one that is stored.
async fn renew(
    state: &OAuthState,
    user: &User,
    password: &Secret<String>,
    stored: String,
) -> OauthResult<String> {
    if argon2id::is_present(&stored) {
        return Ok(stored);
    }
    let hash = fresh(password).await?;
    let mut tx = state.db.write_tx().await?;
    let is_stored = passwords::store(&mut tx, user.id.as_str(), Some(&stored), &hash, state.now()).await?;
    tx.commit().await?;
    // Another sign-in may have replaced it, by a hash with another salt.
    if is_stored {
        return Ok(hash);
    }
    let other = passwords::hash(&state.db, user.id.as_str()).await?.ok_or_else(not_accepted)?;
    if verified(password, other.clone()).await? { Ok(other) } else { Err(not_accepted()) }
}

async fn fresh(password: &Secret<String>) -> OauthResult<String> {
    let mut salt = [0; 16];
    opaque::fill(&mut salt)?;
    let password = normal(password);
    in_turn(move || argon2id::hash(password.expose(), &salt)).await?.ok_or_else(broken)
}

async fn verified(password: &Secret<String>, hash: String) -> OauthResult<bool> {
    if password.expose().chars().count() > MAX_LENGTH {
        return Ok(false);
    }
    if imported::is_bcrypt(&hash) {
        // Byte for byte what the other system was given.
        let password = password.clone();
        return in_turn(move || imported::verify(password.expose(), &hash)).await;
    }
    let password = normal(password);
    in_turn(move || argon2id::verify(password.expose(), &hash)).await
}

/// Runs costly work beside the runtime; whoever finds the queue full is sent away.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> OauthResult<T> {
    let place = Place::take().ok_or(OauthError::Throttled { retry_after: 1 })?;
    let turn = TURNS.acquire().await.map_err(|_| broken())?;
    drop(place);
    // A caller who goes away does not end the work, nor give its turn to somebody else before it is done.
    let worked = tokio::task::spawn_blocking(move || {
        let done = work();
        if waiting() == 0 {
            argon2id::forget_memory();
        }
        drop(turn);
        done
    });
    worked.await.map_err(|_| broken())
}

/// A place in the queue.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let took =
            WAITING.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < QUEUE).then_some(n + 1));
        // Not `then_some`, which would make a place for whoever gets none, and its drop would let one more in.
        took.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::AcqRel);
    }
}

fn normal(password: &Secret<String>) -> Secret<String> {
    Secret::new(password.expose().nfc().collect())
}

fn broken() -> OauthError {
    OauthError::Impossible("a password hash that cannot be made".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{caller, fixtures};
    use crate::services::tests::plane::at_once;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_password_is_verified_in_any_normal_form_and_no_other_is() {
        let hash = fresh(&Secret::from("ein l\u{e4}ngeres Wort")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verified(&Secret::from("ein la\u{308}ngeres Wort"), hash.clone()).await.unwrap());
        assert!(!verified(&Secret::from("ein anderes Wort"), hash).await.unwrap());
        assert!(!verified(&Secret::from("nobody"), NOBODY.clone()).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn id_95_of_a_network_what_has_failed_counts_and_not_what_is_looked_at() {
        for fixture in fixtures().await {
            let here = RequestContext { client_ip: Some([203, 0, 113, 9].into()), ..caller() };
            let context = here.clone();
            let (state, next) = (fixture.state.clone(), Arc::new(AtomicUsize::new(0)));
            let sign_in = move || {
                let (state, context, next) = (state.clone(), context.clone(), Arc::clone(&next));
                async move {
                    let name = format!("person-{}", next.fetch_add(1, Ordering::Relaxed));
                    let word = Secret::from("purple-otter-sings");
                    super::sign_in(&state, &context, None, &name, &word).await.map(drop)
                }
            };
            let busy = u32::try_from(TURNS.available_permits()).unwrap();
            let turns = TURNS.acquire_many(busy).await.unwrap();
            let wait = std::time::Duration::from_secs(5);
            let answers = at_once(40, || tokio::time::timeout(wait, sign_in())).await;
            assert!(answers.iter().all(Result::is_err), "all forty wait for their turn");
            drop(turns);
            for _ in 0..30 {
                attempts::failed(&fixture.state, &[Subject::Prefix(&here)]).await.unwrap();
            }
            let refused = sign_in().await;
            assert!(matches!(refused, Err(OauthError::Throttled { retry_after }) if retry_after > 1));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn id_93_whom_the_queue_sends_away_has_not_guessed() {
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let me = RequestContext { principal: Arc::new(fixture.signed_in(&user).await), ..caller() };
            let old = Secret::from("yellow-otter-sings");
            change(&fixture.state, &me, None, &old).await.unwrap();
            let full: Vec<Place> = (0..QUEUE).map(|_| Place::take().unwrap()).collect();
            let word = Secret::from("purple-otter-sings");
            for _ in 0..8 {
                let sent_away = super::sign_in(&fixture.state, &caller(), None, "ada", &word).await;
                let error = sent_away.err();
                assert!(matches!(error, Some(OauthError::Throttled { retry_after: 1 })), "{error:?}");
                let unchanged = change(&fixture.state, &me, Some(&old), &word).await;
                assert!(matches!(unchanged, Err(OauthError::Throttled { retry_after: 1 })), "{unchanged:?}");
            }
            drop(full);
            change(&fixture.state, &me, Some(&old), &word).await.unwrap();
            let here = caller();
            let account = Subject::Account("ada", &here);
            attempts::admit(&fixture.state, &[account, Subject::Everywhere("ada")]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn id_51_whoever_proved_the_old_password_gets_no_session_behind_its_change() {
        for fixture in fixtures().await {
            let user = fixture.user("bob", &["user"]).await;
            let me = RequestContext { principal: Arc::new(fixture.signed_in(&user).await), ..caller() };
            let (state, old) = (&fixture.state, Secret::from("purple-otter-sings"));
            change(state, &me, None, &old).await.unwrap();
            let (proven, unit) = prove(state, &caller(), "bob", Some(user), &old).await.unwrap();
            change(state, &me, Some(&old), &Secret::from("green-otter-sings")).await.unwrap();
            let context = caller();
            let facts = SignInFacts {
                user: &proven,
                method: Method::Password,
                credential: None,
                context: &context,
                is_new: false,
                before: None,
            };
            let late = SessionCreationService(state).sign_in(facts, unit).await.map_err(changed_meanwhile);
            assert_eq!(late.err().map(|error| error.code()), Some(ErrorCode::InvalidCredential));
        }
    }
}
