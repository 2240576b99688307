//! Case A13: whatever is wrong with a passkey has its status, and an entry in the ledger that says what it was.

use super::authenticator::{PRESENT, SoftAuthenticator, VERIFIED};
use super::{Fixture, StartAuthentication, Visit, administrator, caller_of, code, finish, fixtures, sign_in};
use crate::error::{ErrorCode, OauthError, OauthResult};
use crate::services::webauthn::service::credentials;
use serde_json::Value;
use systemprompt_database::on;

/// Status and word of a refusal.
fn told<T>(answer: OauthResult<T>) -> (u16, ErrorCode) {
    let error: OauthError = answer.err().expect("a refusal");
    (error.status(), error.code())
}

/// The newest record of a kind.
async fn newest(fixture: &Fixture, kind: &str) -> Value {
    let (text,): (String,) = on!(&*fixture.db, pool => sqlx::query_as(
        "SELECT CAST(record AS TEXT) FROM ledger_entries WHERE kind = $1 ORDER BY seq DESC LIMIT 1"
    ).bind(kind).fetch_one(pool).await)
    .unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn count(fixture: &Fixture, kind: &str) -> i64 {
    let (count,): (i64,) = on!(&*fixture.db, pool => sqlx::query_as(
        "SELECT COUNT(*) FROM ledger_entries WHERE kind = $1"
    ).bind(kind).fetch_one(pool).await)
    .unwrap();
    count
}

/// That one more sign-in failed, where and why.
async fn failed(fixture: &Fixture, before: i64, endpoint: &str, error: &str, reason: &str) {
    assert_eq!(count(fixture, "oauth.signin_failed").await, before + 1, "{reason}");
    let record = newest(fixture, "oauth.signin_failed").await;
    let detail = &record["detail"];
    let found = (&record["outcome"], &record["reason"], &detail["endpoint"], &detail["error"]);
    let want = ["refused", reason, endpoint, error].map(Value::from);
    assert_eq!(found, (&want[0], &want[1], &want[2], &want[3]));
}

#[tokio::test]
async fn a13_no_user_verification() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        device.flags = PRESENT;
        let answer = sign_in(&fixture, &mut device, None).await;
        assert_eq!(told(answer), (401, ErrorCode::InvalidCredential));
        failed(&fixture, 0, "webauthn/auth", "invalid_credential", "not_verified").await;
        device.flags = PRESENT | VERIFIED;
        sign_in(&fixture, &mut device, None).await.unwrap();
    }
}

#[tokio::test]
async fn a13_a_second_finish() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let visit = Visit::new("one");
        let begun = visit.at(&fixture).auth_start(StartAuthentication::default()).await.unwrap();
        let credential = device.get(&begun.options);
        visit.at(&fixture).auth_finish(finish(&begun, credential.clone())).await.unwrap();
        let again = visit.at(&fixture).auth_finish(finish(&begun, credential)).await;
        assert_eq!(told(again), (400, ErrorCode::InvalidRequest));
        failed(&fixture, 0, "webauthn/auth", "invalid_request", "ceremony_not_open").await;
    }
}

#[tokio::test]
async fn a13_another_browsers_challenge() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let visit = Visit::new("one");
        let begun = visit.at(&fixture).auth_start(StartAuthentication::default()).await.unwrap();
        let credential = device.get(&begun.options);
        let other = Visit::new("two");
        let foreign = other.at(&fixture).auth_finish(finish(&begun, credential.clone())).await;
        assert_eq!(told(foreign), (400, ErrorCode::InvalidRequest));
        failed(&fixture, 0, "webauthn/auth", "invalid_request", "ceremony_not_open").await;
        // Nor does another kind of ceremony end with it.
        let link = visit.at(&fixture).link_finish(finish(&begun, credential.clone()), None).await;
        assert_eq!(told(link), (400, ErrorCode::InvalidRequest));
        failed(&fixture, 1, "webauthn/link", "invalid_request", "ceremony_not_open").await;
        let new = visit.at(&fixture).register_finish(finish(&begun, credential.clone()), None).await;
        assert_eq!(told(new), (400, ErrorCode::InvalidRequest));
        failed(&fixture, 2, "webauthn/register", "invalid_request", "ceremony_not_open").await;
        visit.at(&fixture).auth_finish(finish(&begun, credential)).await.unwrap();
    }
}

#[tokio::test]
async fn a13_the_last_passkey_removed() {
    for fixture in fixtures().await {
        let (mut device, user) = administrator(&fixture).await;
        let done = sign_in(&fixture, &mut device, None).await.unwrap();
        let me = caller_of(&fixture, &done).await;
        let answer = credentials::remove(&fixture.state, &me, &device.id()).await;
        assert_eq!(told(answer), (409, ErrorCode::Conflict));
        let record = newest(&fixture, "oauth.webauthn.removed").await;
        assert_eq!(
            (&record["outcome"], &record["reason"]),
            (&"refused".into(), &"last_way_to_sign_in".into())
        );
        assert_eq!(record["subject_entity"]["id"], user.id.as_str());
        assert_eq!(count(&fixture, "oauth.webauthn.removed").await, 1);
        assert_eq!(credentials::list(&fixture.state, &user.id).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a13_a_counter_put_back() {
    for fixture in fixtures().await {
        let (mut device, user) = administrator(&fixture).await;
        sign_in(&fixture, &mut device, None).await.unwrap();
        let stored = device.counter;
        device.counter -= 1;
        let answer = sign_in(&fixture, &mut device, None).await;
        assert_eq!(told(answer), (401, ErrorCode::InvalidCredential));
        failed(&fixture, 0, "webauthn/auth", "invalid_credential", "counter").await;
        let record = newest(&fixture, "oauth.webauthn.counter").await;
        assert_eq!(
            (&record["outcome"], &record["subject_entity"]["id"]),
            (&"denied".into(), &user.id.as_str().into())
        );
        let detail = &record["detail"];
        assert_eq!((&detail["stored"], &detail["shown"]), (&stored.into(), &stored.into()));
        assert_eq!(credentials::list(&fixture.state, &user.id).await.unwrap()[0].status, "suspect");
        device.counter = 100;
        assert_eq!(code(sign_in(&fixture, &mut device, None).await), ErrorCode::InvalidCredential);
        failed(&fixture, 1, "webauthn/auth", "invalid_credential", "suspect_credential").await;
    }
}

/// A passkey of somebody else's, one that nobody registered, and one on another page than ours are refused alike.
#[tokio::test]
async fn a13_a_passkey_that_is_not_known_here() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let mut stranger = SoftAuthenticator::new(super::URL);
        stranger.handle.clone_from(&device.handle);
        assert_eq!(told(sign_in(&fixture, &mut stranger, None).await), (401, ErrorCode::InvalidCredential));
        failed(&fixture, 0, "webauthn/auth", "invalid_credential", "unknown_credential").await;
        device.handle = vec![7; 64];
        assert_eq!(told(sign_in(&fixture, &mut device, None).await), (401, ErrorCode::InvalidCredential));
        failed(&fixture, 1, "webauthn/auth", "invalid_credential", "other_user").await;
    }
}

#[tokio::test]
async fn a13_an_answer_to_another_origin_or_challenge_and_one_that_is_too_late() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        device.origin = "http://localhost:8081".into();
        assert_eq!(told(sign_in(&fixture, &mut device, None).await), (401, ErrorCode::InvalidCredential));
        device.origin = super::URL.into();
        let visit = Visit::new("one");
        let old = visit.at(&fixture).auth_start(StartAuthentication::default()).await.unwrap();
        let new = visit.at(&fixture).auth_start(StartAuthentication::default()).await.unwrap();
        let credential = device.get(&old.options);
        let answer = visit.at(&fixture).auth_finish(finish(&new, credential.clone())).await;
        assert_eq!(told(answer), (401, ErrorCode::InvalidCredential));
        fixture.clock.advance(301 * 1000);
        let answer = visit.at(&fixture).auth_finish(finish(&old, credential)).await;
        assert_eq!(told(answer), (400, ErrorCode::InvalidRequest));
        failed(&fixture, 2, "webauthn/auth", "invalid_request", "ceremony_not_open").await;
    }
}
