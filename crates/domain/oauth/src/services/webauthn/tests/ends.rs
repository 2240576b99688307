//! What ends with the last passkey and with a recovery does so in the transaction of the change (ID-51): where the end cannot be
//! written, nothing has changed.

use super::authenticator::SoftAuthenticator;
use super::{Visit, administrator, caller_of, code, finish, fixtures, prefer, sign_in, token_of};
use crate::error::ErrorCode;
use crate::repository::testing::{Fixture, URL, caller};
use crate::services::password;
use crate::services::session::lookup;
use crate::services::setup::{self, Purpose};
use crate::services::webauthn::service::credentials;
use crate::services::webauthn::service::link::LinkStarted;
use systemprompt_database::{on, on_tx};
use systemprompt_models::Secret;
use systemprompt_models::ids::UserId;

/// Where the end of a grant is written last.
const BREAK: &str = "ALTER TABLE oauth_refresh_tokens RENAME TO elsewhere";
const MEND: &str = "ALTER TABLE elsewhere RENAME TO oauth_refresh_tokens";

async fn change(fixture: &Fixture, statement: &'static str) {
    let mut tx = fixture.db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(statement).execute(&mut *conn).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn id_51_the_last_passkey_goes_with_every_session_or_stays() {
    for fixture in fixtures().await {
        prefer(&fixture);
        let (mut device, _) = administrator(&fixture).await;
        let done = sign_in(&fixture, &mut device, None).await.unwrap();
        let me = caller_of(&fixture, &done).await;
        let words = Secret::from("purple-otter-sings");
        password::change(&fixture.state, &me, None, &words).await.unwrap();
        let ended = async || {
            let row = fixture.state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
            row.revoked_reason
        };
        change(&fixture, BREAK).await;
        let refused = credentials::remove(&fixture.state, &me, &device.id()).await;
        assert_eq!(code(refused), ErrorCode::TemporarilyUnavailable);
        change(&fixture, MEND).await;
        assert_eq!(credentials::list(&fixture.state, &me.principal.user_id).await.unwrap().len(), 1);
        assert_eq!(ended().await, None);

        assert!(credentials::remove(&fixture.state, &me, &device.id()).await.unwrap());
        assert_eq!(ended().await.as_deref(), Some("last_passkey_removed"));
    }
}

#[tokio::test]
async fn id_51_a_passkey_that_counts_no_more_is_none_to_go_on_by() {
    for fixture in fixtures().await {
        prefer(&fixture);
        let (mut device, _) = administrator(&fixture).await;
        let me = caller_of(&fixture, &sign_in(&fixture, &mut device, None).await.unwrap()).await;
        password::change(&fixture.state, &me, None, &Secret::from("purple-otter-sings")).await.unwrap();
        let visit = Visit { flow: Secret::from("fl_more"), context: me.clone() };
        let browser = super::Browser { visitor: Some(&me.principal), context: &me, flow: &visit.flow };
        let service = super::WebAuthnService { state: &fixture.state, browser };
        let LinkStarted::Passkey(begun) = service.link_start(None).await.unwrap() else {
            panic!("no options")
        };
        let mut copied = SoftAuthenticator::new(URL);
        let credential = copied.create(&begun.options);
        service.link_finish(finish(&begun, credential), None).await.unwrap();
        change(&fixture, "UPDATE webauthn_credentials SET status = 'suspect' WHERE last_used_at IS NULL")
            .await;
        assert!(credentials::remove(&fixture.state, &me, &device.id()).await.unwrap());
        let row = fixture.state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
        assert_eq!(row.revoked_reason.as_deref(), Some("last_passkey_removed"));
    }
}

#[tokio::test]
async fn id_51_an_account_is_taken_back_with_the_end_of_all_it_had_or_not_at_all() {
    for fixture in fixtures().await {
        let (mut device, user) = administrator(&fixture).await;
        let me = caller_of(&fixture, &sign_in(&fixture, &mut device, None).await.unwrap()).await;
        let link = setup::for_user(&fixture.state, &caller(), &user, Purpose::Recovery).await.unwrap().url;
        let token = token_of(&link);
        let visit = Visit::new("back");
        let come_back = async || {
            let started = visit.at(&fixture).link_start(Some(&token)).await?;
            let LinkStarted::Passkey(begun) = started else { panic!("no options") };
            let credential = SoftAuthenticator::new(URL).create(&begun.options);
            visit.at(&fixture).link_finish(finish(&begun, credential), Some(&token)).await
        };
        change(&fixture, BREAK).await;
        assert_eq!(code(come_back().await), ErrorCode::TemporarilyUnavailable);
        change(&fixture, MEND).await;
        assert_eq!(credentials::list(&fixture.state, &user.id).await.unwrap().len(), 1);
        assert!(lookup::own(&fixture.state, &me.principal).await.unwrap().iter().any(|own| own.current));

        // The token was not used up: the person tries again.
        let done = come_back().await.unwrap();
        assert_eq!(credentials::list(&fixture.state, &user.id).await.unwrap().len(), 2);
        let now = caller_of(&fixture, &done).await;
        let live = lookup::own(&fixture.state, &now.principal).await.unwrap();
        assert!(live.len() == 1 && live[0].current);
        assert_eq!(code(come_back().await), ErrorCode::InvalidGrant);
    }
}

/// Copies of the one passkey that there is, under other ids, each used a millisecond after the one before, and before that one.
async fn copies(fixture: &Fixture, count: i64) {
    let mut tx = fixture.db.write_tx().await.unwrap();
    for n in 0..count {
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO webauthn_credentials (credential_id, user_id, passkey, counter, backup_eligible, backup_state, aaguid,
                 transports, name, status, created_at, last_used_at)
             SELECT $1, user_id, passkey, counter, backup_eligible, backup_state, aaguid, transports, $1, 'active', created_at,
                 created_at - 1000 + CAST($2 AS BIGINT)
             FROM webauthn_credentials WHERE name NOT LIKE 'copy%'"
        ).bind(format!("copy{n:04}")).bind(n).execute(&mut *conn).await.map(drop))
        .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn ids(fixture: &Fixture, user: &UserId) -> Vec<String> {
    credentials::list(&fixture.state, user).await.unwrap().into_iter().map(|passkey| passkey.id).collect()
}

#[tokio::test]
async fn id_92_whoever_comes_back_with_as_many_passkeys_as_there_may_be_gets_in() {
    for fixture in fixtures().await {
        let (_, user) = administrator(&fixture).await;
        copies(&fixture, 19).await;
        for (suspect, gone) in [(true, "copy0007"), (false, "copy0000")] {
            if suspect {
                change(
                    &fixture,
                    "UPDATE webauthn_credentials SET status = 'suspect' WHERE name = 'copy0007'",
                )
                .await;
            }
            let link =
                setup::for_user(&fixture.state, &caller(), &user, Purpose::Recovery).await.unwrap().url;
            let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
            let visit = Visit::new("back");
            let started = visit.at(&fixture).link_start(Some(&token)).await.unwrap();
            let LinkStarted::Passkey(begun) = started else { panic!("no options") };
            let mut device = SoftAuthenticator::new(URL);
            let credential = device.create(&begun.options);
            visit.at(&fixture).link_finish(finish(&begun, credential), Some(&token)).await.unwrap();
            let left = ids(&fixture, &user.id).await;
            assert!(left.len() == 20 && left.contains(&device.id()) && !left.iter().any(|id| id == gone));
        }
        let (removed,): (i64,) = on!(&*fixture.db, pool => sqlx::query_as(
            "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'oauth.webauthn.removed' AND reason = 'made_room'"
        ).fetch_one(pool).await)
        .unwrap();
        assert_eq!(removed, 2);
        // Nobody else has room made for them.
        let link =
            setup::for_user(&fixture.state, &caller(), &user, Purpose::CredentialLink).await.unwrap().url;
        let token = Secret::from(link.expose().split_once("#token=").unwrap().1);
        let refused = Visit::new("more").at(&fixture).link_start(Some(&token)).await;
        assert_eq!(code(refused), ErrorCode::Conflict);
    }
}

#[tokio::test]
async fn id_89_a_second_click_finds_no_passkey_and_records_no_refusal() {
    for fixture in fixtures().await {
        let (mut device, user) = administrator(&fixture).await;
        let me = caller_of(&fixture, &sign_in(&fixture, &mut device, None).await.unwrap()).await;
        copies(&fixture, 1).await;
        let id = device.id();
        let remove = || credentials::remove(&fixture.state, &me, &id);
        let clicks = tokio::join!(remove(), remove(), remove());
        let clicks: [_; 3] = clicks.into();
        let found: Vec<bool> = clicks.into_iter().map(|click| click.unwrap()).collect();
        assert_eq!(found.iter().filter(|found| **found).count(), 1, "{found:?}");
        assert_eq!(ids(&fixture, &user.id).await, ["copy0000"]);
        let (refused,): (i64,) = on!(&*fixture.db, pool => sqlx::query_as(
            "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'oauth.webauthn.removed' AND outcome = 'refused'"
        ).fetch_one(pool).await)
        .unwrap();
        assert_eq!(refused, 0);
    }
}
