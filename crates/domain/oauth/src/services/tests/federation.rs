//! Subjects of other issuers that are new here (ID-60).

use super::exchange::{IDP, chain_of_clients, claims, exchange, serve, signed};
use super::plane::{Plane, at_once, context, planes_with, word};
use crate::users::NewUser;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::sync::Arc;
use systemprompt_models::ids::UserId;
use systemprompt_security::keys::{PrivateKey, SigningAlgorithm};

async fn provisioning(keys: &str) -> [Plane; 2] {
    let trusted =
        json!([{"issuer": IDP, "jwks_uri": keys, "audience": "here", "subject_mapping": "provision"}]);
    planes_with(|settings| settings.trusted_issuers = serde_json::from_value(trusted.clone()).unwrap()).await
}

/// Whom a token of this subject stands for here.
async fn subject(plane: &Plane, token: &str) -> UserId {
    let tokens = exchange(plane, "hop-1", token, "jwt", "").await.unwrap();
    plane.claims(&tokens.access_token).sub
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_a_new_subject_never_gets_an_account_that_somebody_else_made() {
    let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let keys = serve(json!({"keys": [key.public().to_jwk()]})).await;
    for plane in provisioning(&keys.address).await {
        chain_of_clients(&plane).await;
        let user = async |name: String, email: &str| {
            let new = NewUser {
                username: name,
                email: Some(email.to_owned()),
                roles: vec!["user".into(), "admin".into()],
                ..NewUser::default()
            };
            plane.state.users.create(&context(), new).await.unwrap().id
        };
        // Whoever knows issuer and subject can tell every name that follows from them.
        let known = digest(&SHA256, format!("{IDP} s-1").as_bytes());
        let squatter =
            user(format!("fed-{}", hex::encode(&known.as_ref()[..16])), "mallory@example.org").await;
        let of = |more: &Value| signed(&key, key.kid(), &claims(more));
        let first = subject(&plane, &of(&json!({}))).await;
        assert_ne!(first, squatter);
        assert_eq!(subject(&plane, &of(&json!({}))).await, first, "linked from now on");
        let made = plane.state.users.get(first.as_str()).await.unwrap();
        assert_eq!((made.roles, made.email), (vec!["user".to_owned()], None));
        // A mail that somebody else has is theirs: the subject gets an account without it.
        let mail = json!({"sub": "s-2", "email": "mallory@example.org", "email_verified": true});
        let second = subject(&plane, &of(&mail)).await;
        assert!(second != squatter && second != first);
        assert_eq!(plane.state.users.get(second.as_str()).await.unwrap().email, None);
        let mail = json!({"sub": "s-3", "email": "Eve@example.org", "email_verified": true});
        let third = subject(&plane, &of(&mail)).await;
        let third = plane.state.users.get(third.as_str()).await.unwrap();
        assert_eq!((third.email.as_deref(), third.email_vouched), (Some("Eve@example.org"), false));
        let told = plane.records("admin.user.linked").await;
        assert_eq!(told.len(), 3);
        assert_eq!(told[0]["subject_entity"]["id"], first.as_str());
        // Two setups (bob, mallory) and three subjects, each on record.
        assert_eq!(plane.records("admin.user.created").await.len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_60_a_new_subject_that_comes_many_times_at_once_gets_one_account() {
    let key = PrivateKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let keys = serve(json!({"keys": [key.public().to_jwk()]})).await;
    for plane in provisioning(&keys.address).await {
        chain_of_clients(&plane).await;
        let (plane, token) = (Arc::new(plane), signed(&key, key.kid(), &claims(&json!({}))));
        let answers = at_once(8, || {
            let (plane, token) = (Arc::clone(&plane), token.clone());
            async move { word(&exchange(&plane, "hop-1", &token, "jwt", "").await) }
        });
        assert_eq!(answers.await, ["ok"; 8]);
        assert_eq!(plane.count("SELECT COUNT(*) FROM users WHERE username LIKE 'fed-%'").await, 1);
        assert_eq!(plane.count("SELECT COUNT(*) FROM federated_identities").await, 1);
        assert_eq!(plane.records("admin.user.created").await.len(), 2, "bob and the subject");
    }
}
