//! Ceremonies with a soft authenticator, on both engines.

pub(crate) mod authenticator;
mod ends;
mod refused;
mod unknown;

use super::service::authentication::StartAuthentication;
use super::service::link::LinkStarted;
use super::service::registration::StartRegistration;
use super::service::{Done, Finish, WebAuthnService, credentials};
use super::token::{Browser, Started};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::models::oauth::api::Page;
use crate::repository::testing::{Fixture, URL, caller, fixtures};
use crate::services::session::{SessionCreationService, lookup};
use crate::services::setup::{self, Purpose};
use crate::services::templating::texts::ENGLISH;
use crate::services::{attempts, notices, password, recovery};
use crate::users::{User, UserChange, UserStatus};
use authenticator::{PRESENT, SoftAuthenticator, VERIFIED};
use std::sync::Arc;
use systemprompt_config::profile::identity::Wanted;
use systemprompt_database::on_tx;
use systemprompt_models::session::SessionSource;
use systemprompt_models::{Permission, Principal, RequestContext, Secret};

/// A browser with its flow cookie.
struct Visit {
    flow: Secret<String>,
    context: RequestContext,
}

impl Visit {
    fn new(name: &str) -> Self {
        let mut context = caller();
        context.client_ip = Some([203, 0, 113, 7].into());
        Self { flow: Secret::new(format!("fl_{name}")), context }
    }

    fn at<'a>(&'a self, fixture: &'a Fixture) -> WebAuthnService<'a> {
        let browser = Browser { context: &self.context, visitor: None, flow: &self.flow };
        WebAuthnService { state: &fixture.state, browser }
    }
}

fn finish(begun: &Started, credential: serde_json::Value) -> Finish {
    Finish { challenge_id: begun.challenge_id.clone(), credential, name: None }
}

fn code<T>(answer: OauthResult<T>) -> ErrorCode {
    answer.err().map(|error| error.code()).expect("a refusal")
}

async fn first_token(fixture: &Fixture) -> Secret<String> {
    let link = setup::first_administrator(&fixture.state).await.unwrap().expect("nobody can sign in");
    Secret::from(link.expose().split_once("#token=").unwrap().1)
}

fn asked(name: &str, token: Option<&Secret<String>>) -> StartRegistration {
    StartRegistration {
        username: name.into(),
        email: format!("{name}@example.com"),
        full_name: None,
        token: token.map(|token| Secret::from(token.expose().as_str())),
        request: None,
    }
}

async fn register(
    fixture: &Fixture,
    name: &str,
    token: &Secret<String>,
) -> (SoftAuthenticator, OauthResult<Done>) {
    let mut device = SoftAuthenticator::new(URL);
    let visit = Visit::new(name);
    let begun = visit.at(fixture).register_start(asked(name, Some(token))).await;
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => return (device, Err(error)),
    };
    let credential = device.create(&begun.options);
    let done = visit.at(fixture).register_finish(finish(&begun, credential), Some(token)).await;
    (device, done)
}

/// An administrator who has registered with a passkey.
async fn administrator(fixture: &Fixture) -> (SoftAuthenticator, User) {
    let token = first_token(fixture).await;
    let (device, done) = register(fixture, "ada", &token).await;
    let user = fixture.state.users.get(&done.unwrap().user_id).await.unwrap();
    (device, user)
}

async fn sign_in(
    fixture: &Fixture,
    device: &mut SoftAuthenticator,
    email: Option<&str>,
) -> OauthResult<Done> {
    let visit = Visit::new("sign-in");
    let start = StartAuthentication { email: email.map(str::to_owned), ..StartAuthentication::default() };
    let begun = visit.at(fixture).auth_start(start).await?;
    let credential = device.get(&begun.options);
    visit.at(fixture).auth_finish(finish(&begun, credential)).await
}

async fn caller_of(fixture: &Fixture, done: &Done) -> RequestContext {
    let verified = fixture.state.verifier.verify_own(done.token.as_ref().unwrap().expose()).unwrap();
    let mut context = caller();
    context.principal = Arc::new(Principal::from_claims(&verified.claims));
    context
}

#[tokio::test]
async fn a15_register_sign_in_by_mail_add_a_second_delete_the_first() {
    for fixture in fixtures().await {
        let (mut first, user) = administrator(&fixture).await;
        assert_eq!(user.roles, ["admin", "user"]);
        let done = sign_in(&fixture, &mut first, Some("ADA@example.com")).await.unwrap();
        assert_eq!(done.redirect, "/login?done");
        let me = caller_of(&fixture, &done).await;
        assert!(me.principal.permissions.contains(&Permission::Admin));
        let row = fixture.state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
        assert_eq!(row.source, Some(SessionSource::Web));
        assert_eq!((row.acr.as_deref(), row.amr.as_deref()), (Some("phrh"), Some("hwk user")));

        let visit = Visit { flow: Secret::from("fl_link"), context: me.clone() };
        let browser = Browser { visitor: Some(&me.principal), context: &me, flow: &visit.flow };
        let service = WebAuthnService { state: &fixture.state, browser };
        let LinkStarted::Passkey(begun) = service.link_start(None).await.unwrap() else {
            panic!("no options")
        };
        let known = &begun.options["publicKey"]["excludeCredentials"];
        assert_eq!(known.as_array().unwrap().len(), 1);
        let mut second = SoftAuthenticator::new(URL);
        let credential = second.create(&begun.options);
        assert_eq!(second.handle, first.handle);
        service.link_finish(finish(&begun, credential), None).await.unwrap();

        assert!(credentials::remove(&fixture.state, &me, &first.id()).await.unwrap());
        assert_eq!(code(credentials::remove(&fixture.state, &me, &second.id()).await), ErrorCode::Conflict);
        assert!(!credentials::remove(&fixture.state, &me, "somebody-elses").await.unwrap());
        assert_eq!(code(sign_in(&fixture, &mut first, None).await), ErrorCode::InvalidCredential);
        sign_in(&fixture, &mut second, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_counter_that_stays_at_zero_says_nothing() {
    for fixture in fixtures().await {
        let token = first_token(&fixture).await;
        let mut device = SoftAuthenticator::new(URL);
        device.counter = 0;
        let visit = Visit::new("zero");
        let begun = visit.at(&fixture).register_start(asked("zoe", Some(&token))).await.unwrap();
        let credential = device.create(&begun.options);
        visit.at(&fixture).register_finish(finish(&begun, credential), Some(&token)).await.unwrap();
        for _ in 0..2 {
            sign_in(&fixture, &mut device, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a25_a_mail_that_nobody_has_gets_the_same_shape() {
    for fixture in fixtures().await {
        let (device, _) = administrator(&fixture).await;
        let visit = Visit::new("shape");
        let mut shapes = Vec::new();
        for mail in ["ada@example.com", "nobody@example.com", "nobody@example.com", "other@example.com"] {
            let start = StartAuthentication { email: Some(mail.into()), ..StartAuthentication::default() };
            let begun = visit.at(&fixture).auth_start(start).await.unwrap();
            shapes.push(begun.options["publicKey"].clone());
        }
        let members =
            |shape: &serde_json::Value| shape.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for shape in &shapes {
            assert_eq!(members(shape), members(&shapes[0]));
            let ids = shape["allowCredentials"].as_array().unwrap();
            assert!((1..=8).contains(&ids.len()));
            for id in ids {
                assert_eq!(members(id), ["id", "type"]);
                // Lengths of ids in use, in base64url.
                assert!([22, 27, 43, 64, 86].contains(&id["id"].as_str().unwrap().len()));
            }
        }
        assert_eq!(shapes[1]["allowCredentials"], shapes[2]["allowCredentials"]);
        assert_ne!(shapes[1]["allowCredentials"], shapes[3]["allowCredentials"]);
        // Hers were read in their place.
        assert_eq!(shapes[0]["allowCredentials"][0]["id"], device.id());
        assert!(shapes[1..].iter().all(|shape| !shape.to_string().contains(&device.id())));
        // And in her own, once she may not sign in.
        let mut tx = fixture.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query("UPDATE users SET status = 'suspended'").execute(&mut *conn).await.map(drop))
            .unwrap();
        tx.commit().await.unwrap();
        let start =
            StartAuthentication { email: Some("ada@example.com".into()), ..StartAuthentication::default() };
        let begun = visit.at(&fixture).auth_start(start).await.unwrap();
        assert!(!begun.options.to_string().contains(&device.id()), "{}", begun.options);
    }
}

#[tokio::test]
async fn id_91_two_uses_at_once_make_one_administrator() {
    for fixture in fixtures().await {
        let token = first_token(&fixture).await;
        let (one, two) = tokio::join!(register(&fixture, "one", &token), register(&fixture, "two", &token));
        let made = [one.1.is_ok(), two.1.is_ok()];
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
        let users = fixture.state.users.page(Page::first(10), &crate::UserFilter::default()).await.unwrap();
        assert_eq!(users.len(), 1);
        assert!(setup::first_administrator(&fixture.state).await.unwrap().is_none());
        let (_, late) = register(&fixture, "three", &token).await;
        assert_eq!(code(late), ErrorCode::InvalidGrant);
    }
}

#[tokio::test]
async fn id_91_a_new_link_ends_the_one_before() {
    for fixture in fixtures().await {
        let (old, new) = (first_token(&fixture).await, first_token(&fixture).await);
        assert_eq!(code(register(&fixture, "old", &old).await.1), ErrorCode::InvalidGrant);
        register(&fixture, "new", &new).await.1.unwrap();
    }
}

#[tokio::test]
async fn id_90_a_token_counts_once_for_its_purpose_and_for_a_day() {
    for fixture in fixtures().await {
        let (_, user) = administrator(&fixture).await;
        let context = caller();
        let link =
            setup::for_user(&fixture.state, &context, &user, Purpose::CredentialLink).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let visit = Visit::new("token");
        assert_eq!(
            code(visit.at(&fixture).register_start(asked("eve", Some(&token))).await),
            ErrorCode::InvalidGrant
        );
        let LinkStarted::Passkey(begun) = visit.at(&fixture).link_start(Some(&token)).await.unwrap() else {
            panic!("no options")
        };
        let mut device = SoftAuthenticator::new(URL);
        let credential = device.create(&begun.options);
        let done = visit.at(&fixture).link_finish(finish(&begun, credential), Some(&token)).await.unwrap();
        assert_eq!(done.user_id, user.id.as_str());
        assert!(done.token.is_some());
        assert_eq!(code(visit.at(&fixture).link_start(Some(&token)).await), ErrorCode::InvalidGrant);
        let link = setup::invitation(&fixture.state, &context, Some("bob@example.com".into()), Vec::new())
            .await
            .unwrap()
            .url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        assert_eq!(
            code(visit.at(&fixture).register_start(asked("eve", Some(&token))).await),
            ErrorCode::InvalidRequest
        );
        let (_, done) = register(&fixture, "bob", &token).await;
        let bob = fixture.state.users.get(&done.unwrap().user_id).await.unwrap();
        assert_eq!((bob.roles.as_slice(), bob.email_verified), (["user".to_owned()].as_slice(), true));
        let link = setup::invitation(&fixture.state, &context, None, Vec::new()).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        fixture.clock.advance(86_401 * 1000);
        assert_eq!(
            code(visit.at(&fixture).register_start(asked("eve", Some(&token))).await),
            ErrorCode::ExpiredToken
        );
    }
}

#[tokio::test]
async fn id_84_a_taken_name_is_told_at_the_end_and_nobody_registers_uninvited() {
    for fixture in fixtures().await {
        administrator(&fixture).await;
        let visit = Visit::new("late");
        assert_eq!(
            code(visit.at(&fixture).register_start(asked("eve", None)).await),
            ErrorCode::AccessDenied
        );
        let link = setup::invitation(&fixture.state, &caller(), None, Vec::new()).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let (_, taken) = register(&fixture, "ADA", &token).await;
        assert_eq!(code(taken), ErrorCode::Conflict);
        // Nothing was written, the token neither.
        register(&fixture, "eve", &token).await.1.unwrap();
    }
}

#[tokio::test]
async fn id_84_a_key_without_user_verification_is_not_registered() {
    for fixture in fixtures().await {
        let token = first_token(&fixture).await;
        let mut device = SoftAuthenticator::new(URL);
        device.flags = PRESENT;
        let visit = Visit::new("uv");
        let begun = visit.at(&fixture).register_start(asked("ada", Some(&token))).await.unwrap();
        let key = &begun.options["publicKey"];
        assert_eq!(key["authenticatorSelection"]["residentKey"], "preferred");
        assert_eq!(key["authenticatorSelection"]["userVerification"], "required");
        assert_eq!(key["attestation"], "none");
        let algorithms: Vec<_> =
            key["pubKeyCredParams"].as_array().unwrap().iter().map(|p| p["alg"].as_i64().unwrap()).collect();
        assert_eq!(algorithms, [-7, -8, -257]);
        let credential = device.create(&begun.options);
        assert_eq!(device.handle.len(), 64);
        let done = visit.at(&fixture).register_finish(finish(&begun, credential), Some(&token)).await;
        assert_eq!(code(done), ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn id_92_a_recovery_code_counts_once_and_puts_everybody_else_out() {
    for fixture in fixtures().await {
        let (mut device, user) = administrator(&fixture).await;
        let done = sign_in(&fixture, &mut device, None).await.unwrap();
        let me = caller_of(&fixture, &done).await;
        let codes = recovery::make(&fixture.state, &me).await.unwrap();
        assert_eq!(codes.len(), 10);
        let visit = Visit::new("lost");
        let link = recovery::redeem(&fixture.state, &visit.context, &codes[3]).await.unwrap();
        assert_eq!(
            code(recovery::redeem(&fixture.state, &visit.context, &codes[3]).await),
            ErrorCode::InvalidCredential
        );
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let LinkStarted::Passkey(begun) = visit.at(&fixture).link_start(Some(&token)).await.unwrap() else {
            panic!("no options")
        };
        let credential = SoftAuthenticator::new(URL).create(&begun.options);
        let done = visit.at(&fixture).link_finish(finish(&begun, credential), Some(&token)).await.unwrap();
        let now = caller_of(&fixture, &done).await;
        let live = lookup::own(&fixture.state, &now.principal).await.unwrap();
        assert_eq!(live.len(), 1);
        assert!(live[0].current && live[0].session.user_id.as_ref() == Some(&user.id));
    }
}

#[tokio::test]
async fn id_81_people_see_and_end_their_own_sessions_only() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let link = setup::invitation(&fixture.state, &caller(), None, Vec::new()).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let (mut other, bobs) = register(&fixture, "bob", &token).await;
        let bob = caller_of(&fixture, &bobs.unwrap()).await;
        sign_in(&fixture, &mut other, None).await.unwrap();
        let me = caller_of(&fixture, &sign_in(&fixture, &mut device, None).await.unwrap()).await;
        let foreign = bob.principal.session_id.as_str();
        assert!(!lookup::end_own(&fixture.state, &me, foreign).await.unwrap());
        assert_eq!(lookup::own(&fixture.state, &bob.principal).await.unwrap().len(), 2);
        assert_eq!(lookup::end_all_own(&fixture.state, &bob, true).await.unwrap(), 1);
        let left = lookup::own(&fixture.state, &bob.principal).await.unwrap();
        assert!(left.len() == 1 && left[0].current);
        assert!(lookup::end_own(&fixture.state, &bob, foreign).await.unwrap());
        assert!(!lookup::end_own(&fixture.state, &bob, foreign).await.unwrap());
    }
}

#[tokio::test]
async fn id_79_a_session_is_renewed_when_over_half_its_token_is_gone() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let done = sign_in(&fixture, &mut device, None).await.unwrap();
        let claims = fixture.state.verifier.verify_own(done.token.unwrap().expose()).unwrap().claims;
        let found = lookup::look_up(&fixture.state, &caller(), Some(&claims)).await.unwrap();
        assert!(found.token.is_none());
        assert_eq!(found.user_id.as_deref(), Some(done.user_id.as_str()));
        fixture.clock.advance(1900 * 1000);
        let found = lookup::look_up(&fixture.state, &caller(), Some(&claims)).await.unwrap();
        assert_eq!((found.session_id.clone(), found.expires_in), (claims.session_id.clone(), 3600));
        assert!(found.token.is_some());
        let stranger = lookup::look_up(&fixture.state, &caller(), None).await.unwrap();
        assert!(stranger.user_id.is_none() && stranger.session_id != found.session_id);
        assert_eq!(stranger.expires_in, 86_400);
    }
}

#[tokio::test]
async fn id_51_whoever_may_not_act_cannot_sign_in() {
    for fixture in fixtures().await {
        let (_, ada) = administrator(&fixture).await;
        let link = setup::invitation(&fixture.state, &caller(), None, Vec::new()).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let (mut device, done) = register(&fixture, "bob", &token).await;
        let bob = done.unwrap().user_id;
        let change = UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() };
        fixture.state.users.change(&caller(), &bob, None, change).await.unwrap();
        assert_eq!(code(sign_in(&fixture, &mut device, None).await), ErrorCode::InvalidCredential);
        let bob = fixture.state.users.get(&bob).await.unwrap();
        let refused = setup::for_user(&fixture.state, &caller(), &bob, Purpose::Recovery).await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest);
        assert_ne!(ada.id, bob.id);
    }
}

#[tokio::test]
async fn id_95_failures_of_one_account_wait_longer_each_time_and_success_forgets_them() {
    for fixture in fixtures().await {
        let context = Visit::new("brute").context;
        let account = attempts::Subject::Account("Ada", &context);
        let mut waits = Vec::new();
        for _ in 0..7 {
            attempts::failed(&fixture.state, &[account]).await.unwrap();
            waits.push(match attempts::admit(&fixture.state, &[account]).await {
                Err(OauthError::Throttled { retry_after }) => {
                    fixture.clock.advance(i64::from(retry_after) * 1000);
                    retry_after
                }
                other => {
                    other.unwrap();
                    0
                }
            });
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4]);
        attempts::succeeded(&fixture.state, account, &[]).await.unwrap();
        // As many as may fail are let in, however many come at once.
        let subjects = [account];
        let take = || attempts::take(&fixture.state, &subjects);
        let taken = tokio::join!(take(), take(), take(), take(), take(), take(), take(), take());
        let taken: [_; 8] = taken.into();
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 5);
        fixture.clock.advance(1000);
        attempts::take(&fixture.state, &[account]).await.unwrap();
        let elsewhere = caller();
        attempts::admit(&fixture.state, &[attempts::Subject::Account("ada", &elsewhere)]).await.unwrap();
        attempts::succeeded(&fixture.state, attempts::Subject::Account("ada", &context), &[]).await.unwrap();
        attempts::admit(&fixture.state, &[account]).await.unwrap();
    }
}

#[tokio::test]
async fn id_81_a_sign_in_ends_the_session_of_somebody_unknown_and_names_it() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let state = &fixture.state;
        let (id, token, _) = SessionCreationService(state).anonymous(&caller()).await.unwrap();
        let unknown = Principal::from_claims(&state.verifier.verify_own(token.expose()).unwrap().claims);
        let (context, flow) = (caller(), Secret::from("fl_unknown"));
        let browser = Browser { context: &context, visitor: Some(&unknown), flow: &flow };
        let service = WebAuthnService { state, browser };
        let begun = service.auth_start(StartAuthentication::default()).await.unwrap();
        let credential = device.get(&begun.options);
        let done = service.auth_finish(finish(&begun, credential)).await.unwrap();
        let me = caller_of(&fixture, &done).await;
        let row = state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
        assert!(row.is_live(state.clock.now()) && row.parent_session_id.as_ref() == Some(&id));
        assert!(state.sessions.find(&id).await.unwrap().unwrap().revoked_at.is_some());
    }
}

/// Passkeys may lack user verification; passwords are on.
fn prefer(fixture: &Fixture) {
    let mut settings = (*fixture.state.settings()).clone();
    settings.identity.password.enabled = true;
    settings.identity.webauthn.user_verification = Wanted::Preferred;
    fixture.state.configure(settings);
}

#[tokio::test]
async fn a16_without_user_verification_a_passkey_is_refused_or_is_half_of_a_sign_in() {
    for fixture in fixtures().await {
        let visit = Visit::new("eve");
        let token = first_token(&fixture).await;
        let begin = async || visit.at(&fixture).register_start(asked("eve", Some(&token))).await.unwrap();
        let mut device = SoftAuthenticator::new(URL);
        device.flags = PRESENT;
        let begun = begin().await;
        assert_eq!(begun.options["publicKey"]["authenticatorSelection"]["userVerification"], "required");
        let credential = device.create(&begun.options);
        let refused = visit.at(&fixture).register_finish(finish(&begun, credential), Some(&token)).await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest);

        prefer(&fixture);
        let wanted = |begun: &Started| {
            begun.options["publicKey"]["authenticatorSelection"]["userVerification"].clone()
        };
        assert_eq!(wanted(&begin().await), "required", "nobody could let the first administrator in again");
        let link = setup::invitation(&fixture.state, &caller(), None, Vec::new()).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let asked = StartRegistration { request: Some("device".into()), ..asked("eve", Some(&token)) };
        let begun = visit.at(&fixture).register_start(asked).await.unwrap();
        assert_eq!(wanted(&begun), "preferred");
        let credential = device.create(&begun.options);
        let done =
            visit.at(&fixture).register_finish(finish(&begun, credential), Some(&token)).await.unwrap();
        assert_eq!(done.redirect, "/login/password?request=device", "the other half comes first");
        let me = caller_of(&fixture, &done).await;
        let another = async || {
            let browser = Browser { visitor: Some(&me.principal), context: &me, flow: &visit.flow };
            let begun = WebAuthnService { state: &fixture.state, browser }.link_start(None).await.unwrap();
            let LinkStarted::Passkey(begun) = begun else { panic!("no options") };
            wanted(&begun)
        };
        assert_eq!(another().await, "required", "half of a sign-in is no way in for who has no other half");
        let made = fixture.state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
        assert_eq!((made.acr.as_deref(), made.amr.as_deref()), (Some("0"), Some("hwk")));
        let words = Secret::from("purple-otter-sings");
        password::change(&fixture.state, &me, None, &words).await.unwrap();
        assert_eq!(another().await, "preferred");

        let asked = StartAuthentication { request: Some("device".into()), ..StartAuthentication::default() };
        let begun = visit.at(&fixture).auth_start(asked).await.unwrap();
        let half = visit.at(&fixture).auth_finish(finish(&begun, device.get(&begun.options))).await.unwrap();
        assert!(half.token.is_none(), "nobody is signed in by half");
        let step = half.redirect.strip_prefix("/login?step=").unwrap();
        let other = Visit::new("other");
        let begun_for = async |visit: &Visit| {
            let browser = Browser { context: &visit.context, visitor: None, flow: &visit.flow };
            password::begun_for(&fixture.state, browser, step).await.unwrap()
        };
        let second = async |visit: &Visit, words: &str| {
            let browser = Browser { context: &visit.context, visitor: None, flow: &visit.flow };
            password::second(&fixture.state, browser, step, &Secret::from(words)).await
        };
        assert_eq!(begun_for(&visit).await.as_deref(), Some("device"), "what the page of the step leads to");
        assert_eq!(begun_for(&other).await, None);
        assert_eq!(code(second(&other, "purple-otter-sings").await), ErrorCode::InvalidRequest);
        assert_eq!(code(second(&visit, "wrong").await), ErrorCode::InvalidCredential);
        let (signed_in, _) = second(&visit, "purple-otter-sings").await.unwrap();
        let row = fixture.state.sessions.find(&signed_in.session_id).await.unwrap().unwrap();
        assert_eq!((row.acr.as_deref(), row.amr.as_deref()), (Some("pwd"), Some("hwk pwd")));
        assert_eq!(code(second(&visit, "purple-otter-sings").await), ErrorCode::InvalidRequest, "once");

        // One that verifies its user needs no password, and may not go back to none.
        device.flags = PRESENT | VERIFIED;
        let whole = sign_in(&fixture, &mut device, None).await.unwrap();
        let row = caller_of(&fixture, &whole).await;
        let row = fixture.state.sessions.find(&row.principal.session_id).await.unwrap().unwrap();
        assert_eq!(row.amr.as_deref(), Some("hwk user"));
    }
}

#[tokio::test]
async fn id_87_other_sessions_are_told_what_happened_to_the_account() {
    for fixture in fixtures().await {
        let (mut first, user) = administrator(&fixture).await;
        let (here, there) = (
            sign_in(&fixture, &mut first, None).await.unwrap(),
            sign_in(&fixture, &mut first, None).await.unwrap(),
        );
        let (here, there) = (caller_of(&fixture, &here).await, caller_of(&fixture, &there).await);
        let kinds = async |who: &RequestContext| {
            let found = notices::list(&fixture.state, &who.principal).await.unwrap();
            found.into_iter().map(|notice| notice.kind).collect::<Vec<_>>()
        };
        recovery::make(&fixture.state, &here).await.unwrap();
        let visit = Visit { flow: Secret::from("fl_link"), context: here.clone() };
        let browser = Browser { visitor: Some(&here.principal), context: &here, flow: &visit.flow };
        let service = WebAuthnService { state: &fixture.state, browser };
        let LinkStarted::Passkey(begun) = service.link_start(None).await.unwrap() else {
            panic!("no options")
        };
        let credential = SoftAuthenticator::new(URL).create(&begun.options);
        service.link_finish(finish(&begun, credential), None).await.unwrap();
        assert!(kinds(&here).await.is_empty(), "who did it knows");
        assert_eq!(kinds(&there).await, ["passkey_added", "recovery_codes_made"]);

        // A copy of the first passkey: its counter stands still.
        first.counter = 1;
        assert_eq!(code(sign_in(&fixture, &mut first, None).await), ErrorCode::InvalidCredential);
        assert_eq!(kinds(&here).await, ["passkey_suspect"]);
        let told = notices::list(&fixture.state, &there.principal).await.unwrap();
        assert_eq!((told.len(), told[0].about.as_deref()), (3, Some("Passkey")));
        let lines = notices::lines(&fixture.state, &there.principal, &ENGLISH).await.unwrap();
        assert_eq!(lines[0].words, ENGLISH.notice_passkey_suspect);
        let stranger = fixture.user("bob", &["user"]).await;
        let stranger = fixture.signed_in(&stranger).await;
        assert!(!notices::dismiss(&fixture.state, &stranger, &told[0].id).await.unwrap());
        assert!(notices::dismiss(&fixture.state, &here.principal, &told[0].id).await.unwrap());
        assert_eq!(kinds(&there).await.len(), 2);
        assert_eq!(user.id, there.principal.user_id);
    }
}
