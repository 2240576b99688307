//! Who registers: the first administrator by the link of the start, whoever has a link, and nobody else.

use super::*;
use crate::models::oauth::api::Page;

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
        let token = token_of(&link);
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
        let token = token_of(&link);
        assert_eq!(
            code(visit.at(&fixture).register_start(asked("eve", Some(&token))).await),
            ErrorCode::InvalidRequest
        );
        let (_, done) = register(&fixture, "bob", &token).await;
        let bob = fixture.state.users.get(&done.unwrap().user_id).await.unwrap();
        assert_eq!((bob.roles.as_slice(), bob.email_verified), (["user".to_owned()].as_slice(), true));
        let link = setup::invitation(&fixture.state, &context, None, Vec::new()).await.unwrap().url;
        let token = token_of(&link);
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
        let token = token_of(&link);
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
