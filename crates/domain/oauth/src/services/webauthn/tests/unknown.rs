//! What the beginning of a sign-in tells somebody who only has a mail.

use super::{Fixture, StartAuthentication, Visit, administrator, code, fixtures};
use crate::error::ErrorCode;
use crate::state::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use systemprompt_database::{on, on_tx};

/// Lengths of the ids that a mail is answered with.
async fn shown(fixture: &Fixture, mail: &str) -> Vec<String> {
    let start = StartAuthentication { email: Some(mail.to_owned()), ..StartAuthentication::default() };
    let begun = Visit::new("unknown").at(fixture).auth_start(start).await.unwrap();
    let list = begun.options["publicKey"]["allowCredentials"].as_array().unwrap().clone();
    list.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn id_86_made_up_passkeys_are_as_many_and_as_long_as_peoples_own() {
    let fixture = fixtures().await.into_iter().next().unwrap();
    let (mut lengths, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for n in 0..200 {
        let mail = format!("nobody-{n}@example.org");
        let ids = shown(&fixture, &mail).await;
        *counts.entry(ids.len()).or_insert(0) += 1;
        for id in &ids {
            *lengths.entry(URL_SAFE_NO_PAD.decode(id).unwrap().len()).or_insert(0) += 1;
        }
        if n < 3 {
            assert_eq!(shown(&fixture, &mail.to_uppercase()).await, ids, "always the same");
        }
    }
    assert_eq!(lengths.keys().copied().collect::<Vec<_>>(), [16, 20, 32, 48, 64]);
    assert!(lengths.values().all(|count| *count > 10), "{lengths:?}");
    assert!(
        counts[&1] > 60 && counts[&2] > 20 && counts.keys().all(|count| (1..=8).contains(count)),
        "{counts:?}"
    );
}

#[tokio::test]
async fn id_86_of_many_passkeys_those_are_named_that_were_used_last() {
    for fixture in fixtures().await {
        let (device, user) = administrator(&fixture).await;
        let mut tx = fixture.db.write_tx().await.unwrap();
        for n in 0..12 {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO webauthn_credentials (credential_id, user_id, passkey, counter, backup_eligible, backup_state, transports,
                     name, status, created_at, last_used_at)
                 SELECT $1, user_id, passkey, 0, 0, 0, '', 'more', 'active', created_at, created_at + $2
                 FROM webauthn_credentials WHERE user_id = $3 AND name = 'Passkey'"
            )
                .bind(format!("more-{n:02}")).bind(1000 * (n + 1)).bind(user.id.as_str())
                .execute(&mut *conn).await.map(drop))
            .unwrap();
        }
        tx.commit().await.unwrap();
        let ids = shown(&fixture, "ada@example.com").await;
        let want: Vec<String> = (4..12).rev().map(|n| format!("more-{n:02}")).collect();
        assert_eq!(ids, want);
        assert!(!ids.contains(&device.id()));
    }
}

#[tokio::test]
async fn id_9_where_no_passkey_can_be_made_the_answer_says_why() {
    let fixture = fixtures().await.into_iter().next().unwrap();
    for address in ["http://127.0.0.1:8080", "https://[2001:db8::1]"] {
        let settings = fixture.state.settings();
        fixture.state.configure(Settings { external_url: address.into(), ..(*settings).clone() });
        let begun = Visit::new("ip").at(&fixture).auth_start(StartAuthentication::default()).await;
        let error = begun.err().unwrap();
        assert!(error.to_string().contains("server.api_external_url"), "{error}");
        assert_eq!(code::<()>(Err(error)), ErrorCode::InvalidRequest, "{address}");
    }
}

#[tokio::test]
async fn a_stranger_keeps_no_text_of_their_own_in_a_ceremony() {
    for fixture in fixtures().await {
        let start =
            StartAuthentication { request: Some("x".repeat(60_000)), ..StartAuthentication::default() };
        Visit::new("unknown").at(&fixture).auth_start(start).await.unwrap();
        let (longest,): (i64,) = on!(&*fixture.db, pool => sqlx::query_as(
            "SELECT CAST(MAX(LENGTH(state)) AS BIGINT) FROM webauthn_challenges"
        ).fetch_one(pool).await)
        .unwrap();
        assert!(longest < 4096, "{longest}");
    }
}
