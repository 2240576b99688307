//! What a registration may ask for and whom it is in the way of.

use super::clients::person;
use super::plane::{Plane, context, planes, planes_with, word};
use crate::error::{IdentityError, OauthResult};
use crate::models::clients::api::Created;
use crate::services::clients::{ClientError, managed, registration};
use crate::services::discovery::server_metadata;
use crate::users::NewUser;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use systemprompt_models::ids::{Jti, UserId};
use systemprompt_models::{CredentialKind, Permission, Principal, RequestContext};

fn admin() -> RequestContext {
    let principal = Principal {
        user_id: UserId::generate(),
        permissions: vec![Permission::Admin],
        ..Principal::anonymous()
    };
    RequestContext { principal: Arc::new(principal), ..context() }
}

fn members(more: &Value) -> Map<String, Value> {
    let mut members = json!({
        "client_name": "App", "redirect_uris": ["https://app.example/a"], "token_endpoint_auth_method": "none",
        "scope": "openid user",
    });
    let members = members.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    members.clone()
}

async fn register(plane: &Plane, more: &Value) -> OauthResult<Created> {
    registration::register(&plane.state, &context(), &members(more)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn id_28_an_algorithm_without_a_key_is_refused_by_the_name_of_its_member() {
    const MEMBER: &str = "id_token_signed_response_alg";
    for plane in planes().await {
        let offered = server_metadata(&plane.state)["id_token_signing_alg_values_supported"].clone();
        assert_eq!(offered, json!(["RS256", "EdDSA"]), "the keys of this ring");
        let error = register(&plane, &json!({MEMBER: "ES256"})).await.err().unwrap();
        assert_eq!(error.code().as_str(), "invalid_client_metadata");
        assert!(error.to_string().contains(MEMBER) && error.to_string().contains("EdDSA"), "{error}");
        assert_eq!(word(&register(&plane, &json!({MEMBER: "EdDSA"})).await), "ok");

        let id = json!({"client_id": "acme", MEMBER: "ES256"});
        let refused = managed::create(&plane.state, &admin(), &members(&id)).await;
        assert!(matches!(refused, Err(ClientError::Metadata(fault)) if fault.member == MEMBER));
        let id = json!({"client_id": "acme"});
        managed::create(&plane.state, &admin(), &members(&id)).await.unwrap();
        let change = members(&json!({"client_id": "acme", MEMBER: "ES256"}));
        let refused = managed::replace(&plane.state, &admin(), "acme", 1, &change).await;
        assert!(matches!(refused, Err(ClientError::Metadata(fault)) if fault.member == MEMBER));
        assert_eq!(
            plane.count("SELECT COUNT(*) FROM oauth_clients WHERE client_id = 'acme' AND version = 1").await,
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_18_a_client_that_registers_is_owned_by_a_person_and_by_nothing_else() {
    for plane in planes().await {
        let register = async |by: &UserId| {
            let mut principal = (*person(by, &[Permission::User]).principal).clone();
            principal.credential = CredentialKind::Token { jti: Jti::generate() };
            let by = RequestContext { principal: Arc::new(principal), ..context() };
            registration::register(&plane.state, &by, &members(&json!({}))).await
        };
        let owned = register(&plane.bob).await.unwrap().client;
        assert_eq!(owned.owner_user_id.as_ref(), Some(&plane.bob));
        let of_client = "UPDATE users SET kind = 'client' WHERE username = 'bob'";
        for change in [of_client, "UPDATE users SET kind = 'service' WHERE username = 'bob'"] {
            plane.change(change).await;
            assert_eq!(word(&register(&plane.bob).await), "access_denied");
        }
        assert_eq!(word(&register(&"usr_nobody".into()).await), "access_denied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_21_the_oldest_client_that_nobody_used_makes_room_after_an_hour() {
    for plane in planes_with(|settings| settings.identity.registration_max_clients = 2).await {
        let first = register(&plane, &json!({})).await.unwrap().client.client_id;
        plane.clock.advance(1000);
        let second = register(&plane, &json!({})).await.unwrap().client.client_id;
        assert_eq!(word(&register(&plane, &json!({})).await), "temporarily_unavailable", "both are new");
        plane.clock.advance(3_600_000);
        register(&plane, &json!({})).await.unwrap();
        assert!(plane.state.client(first.as_str()).await.unwrap().is_none());
        assert!(plane.state.client(second.as_str()).await.unwrap().is_some());
        assert_eq!(plane.records("oauth.client.deleted").await[0]["reason"], "made_room");
        let users = "SELECT COUNT(*) FROM users WHERE username LIKE 'client:client%'";
        assert_eq!(plane.count(users).await, 2, "the user of what was never used went with it");

        plane.change("UPDATE oauth_clients SET last_used_at = 1790000000000 WHERE kind = 'registered'").await;
        plane.clock.advance(7_200_000);
        assert_eq!(word(&register(&plane, &json!({})).await), "temporarily_unavailable", "all are in use");
        managed::delete(&plane.state, &admin(), second.as_str(), None).await.unwrap();
        assert_eq!(plane.count(users).await, 2, "one that was used stays, since tokens named it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_56_the_mail_that_a_client_names_keeps_no_client_and_no_person_out() {
    for plane in planes().await {
        let person = |name: &str| NewUser {
            username: name.to_owned(),
            email: Some(format!("{name}@client.local")),
            ..NewUser::default()
        };
        plane.state.users.create(&context(), person("acme-before")).await.unwrap();
        for id in ["acme-before", "acme-after"] {
            let asked = members(&json!({"client_id": id}));
            managed::create(&plane.state, &admin(), &asked).await.unwrap();
        }
        plane.state.users.create(&context(), person("acme-after")).await.unwrap();
        for name in ["usr_1", "USR_x"] {
            let refused = plane.state.users.create(&context(), person(name)).await;
            assert!(matches!(refused, Err(IdentityError::Invalid(faults)) if faults[0].0 == "username"));
        }
    }
}
