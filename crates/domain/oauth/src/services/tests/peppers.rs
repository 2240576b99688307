//! Another pepper in the place of the present one (ID-103): what was given counts on, and its row moves to the new one.

use super::plane::{Plane, context, planes};
use crate::api_keys::{ApiKeys, Leaked, NewApiKey};
use crate::at_rest::AtRest;
use std::sync::Arc;
use systemprompt_models::Secret;
use systemprompt_security::auth::api_key::ApiKeyProvider as _;

fn keys(plane: &Plane, pepper: &str, previous: Option<&str>) -> ApiKeys {
    let (pepper, previous) = (Secret::from(pepper), previous.map(Secret::from));
    let state = &plane.state;
    ApiKeys::new(
        (*plane.db).clone(),
        state.users.clone(),
        state.ledger.clone(),
        Arc::clone(&state.clock),
        AtRest::new(&pepper, previous.as_ref()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn id_103_an_api_key_outlives_a_change_of_the_pepper_and_moves_to_the_new_one() {
    let (old, new) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    for plane in planes().await {
        let before = keys(&plane, old, None);
        let make = async || {
            let new: NewApiKey =
                serde_json::from_value(serde_json::json!({"user": "bob", "name": "ci", "scope": "user"}))
                    .unwrap();
            before.create(&context(), new).await.unwrap().1
        };
        let (used, leaked, idle) = (make().await, make().await, make().await);
        assert_eq!(plane.count("SELECT COUNT(DISTINCT pepper_id) FROM user_api_keys").await, 1);
        let both = keys(&plane, new, Some(old));
        assert!(both.verify(used.expose()).await.unwrap().is_some());
        let found = both.report(&context(), &leaked).await.unwrap();
        assert!(matches!(found, Leaked::Revoked(_)), "{found:?}");
        assert_eq!(plane.count("SELECT COUNT(DISTINCT pepper_id) FROM user_api_keys").await, 2);
        let after = keys(&plane, new, None);
        assert!(after.verify(used.expose()).await.unwrap().is_some(), "moved at its first use");
        assert!(after.verify(leaked.expose()).await.unwrap().is_none());
        assert!(after.verify(idle.expose()).await.unwrap().is_none(), "never seen under both");
    }
}
