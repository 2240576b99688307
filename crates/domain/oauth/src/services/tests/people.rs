//! What becomes of people: changed, merged, deleted, made twice; their keys and what vouches for them.

use super::plane::{Plane, START, at_once, context, planes, planes_with, word};
use crate::error::{ErrorCode, IdentityError};
use crate::models::oauth::api::Page;
use crate::repository::recovery_codes;
use crate::services::password;
use crate::users::{NewUser, UserChange, UserKind, UserStatus};
use crate::{ApiKeys, NewApiKey, User, UserFilter};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use systemprompt_models::ids::EntryId;
use systemprompt_models::{Permission, Principal, RequestContext, Secret};
use systemprompt_security::auth::ApiKeyProvider as _;
use systemprompt_security::session::{Cutoff, CutoffKind, Sessions};

const OF: &str = "grant_type=client_credentials&scope=";

async fn user(plane: &Plane, name: &str, roles: &[&str]) -> User {
    let new = NewUser {
        username: name.to_owned(),
        email: Some(format!("{name}@example.org")),
        display_name: Some(name.to_uppercase()),
        roles: roles.iter().map(ToString::to_string).collect(),
        ..NewUser::default()
    };
    plane.state.users.create(&context(), new).await.unwrap()
}

fn by(user: &User, permissions: &[Permission]) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = user.id.clone();
    principal.permissions = permissions.to_vec();
    RequestContext { principal: Arc::new(principal), ..context() }
}

fn keys(plane: &Plane) -> ApiKeys {
    let state = &plane.state;
    ApiKeys::new(
        state.db.clone(),
        state.users.clone(),
        state.ledger.clone(),
        Arc::clone(&state.clock),
        state.at_rest.clone(),
    )
}

fn key_of(owner: &User) -> NewApiKey {
    serde_json::from_value(serde_json::json!({"user": owner.id, "name": "ci"})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_another_role_ends_the_tokens_that_tell_the_old_one_and_the_grant_goes_on() {
    for plane in planes().await {
        let users = &plane.state.users;
        let roles = |roles: &[&str]| UserChange {
            roles: Some(roles.iter().map(ToString::to_string).collect()),
            ..UserChange::default()
        };
        let bob = plane.bob.as_str();
        users.change(&context(), bob, None, roles(&["user", "dev"])).await.unwrap();
        plane.clock.advance(2_000);
        let (tokens, _) = plane.signed_in("user mcp", "").await;
        assert_eq!(plane.claims(&tokens.access_token).roles, ["dev", "user"]);
        assert!(plane.is_live(&tokens.access_token).await);

        users.change(&context(), bob, None, roles(&["user"])).await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await, "it tells of a role that is gone");
        let session = plane.state.sessions.find(&plane.session).await.unwrap().unwrap();
        assert_eq!(session.revoked_reason.as_deref(), Some("user_changed"));
        plane.clock.advance(2_000);
        let again = plane.refresh(tokens.refresh_token.unwrap().expose(), "").await.unwrap();
        assert_eq!(plane.claims(&again.access_token).roles, ["user"]);
        assert!(plane.is_live(&again.access_token).await);

        let department = UserChange { department: Some("sales".into()), ..UserChange::default() };
        users.change(&context(), bob, None, department).await.unwrap();
        assert!(!plane.is_live(&again.access_token).await);
        plane.clock.advance(2_000);
        let third = plane.refresh(again.refresh_token.unwrap().expose(), "").await.unwrap();
        assert_eq!(plane.claims(&third.access_token).department.as_deref(), Some("sales"));

        let name = UserChange { display_name: Some("Bob".into()), ..UserChange::default() };
        users.change(&context(), bob, None, name).await.unwrap();
        assert!(plane.is_live(&third.access_token).await, "a name vouches for nothing");
        let suspended = UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() };
        users.change(&context(), bob, None, suspended).await.unwrap();
        assert!(!plane.is_live(&third.access_token).await);
        let refused = plane.refresh(third.refresh_token.unwrap().expose(), "").await;
        assert_eq!(word(&refused), "invalid_grant");
        let ended = plane.count("SELECT COUNT(*) FROM oauth_grants WHERE revoked_at IS NULL").await;
        assert_eq!(ended, 0, "grants ended with the change");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_51_a_role_that_ends_takes_the_tokens_of_owned_clients() {
    for plane in planes().await {
        plane
            .change("UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'bob')")
            .await;
        let token = plane.token(Some("acme-ci"), &format!("{OF}user")).await.unwrap().access_token;
        assert!(plane.is_live(&token).await);
        let none = UserChange { roles: Some(Vec::new()), ..UserChange::default() };
        plane.state.users.change(&context(), plane.bob.as_str(), None, none).await.unwrap();
        assert!(!plane.is_live(&token).await);
        assert_eq!(word(&plane.token(Some("acme-ci"), &format!("{OF}user")).await), "invalid_scope");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_96_deletion_leaves_the_id_and_no_name_or_credential() {
    for plane in planes().await {
        let users = &plane.state.users;
        let ada = user(&plane, "ada", &["user"]).await;
        let key = keys(&plane).create(&by(&ada, &[Permission::User]), key_of(&ada)).await.unwrap().1;
        assert!(keys(&plane).verify(key.expose()).await.unwrap().is_some());
        // As clients of bridges were called once.
        plane
            .change(
                "UPDATE oauth_clients SET name = 'Bridge of ada', kind = 'bridge',
                     owner_user_id = (SELECT id FROM users WHERE username = 'ada'),
                     user_id = (SELECT id FROM users WHERE username = 'bob') WHERE client_id = 'acme-ci'",
            )
            .await;
        plane.change("UPDATE users SET display_name = 'Bridge of ada' WHERE username = 'bob'").await;
        let gone = UserChange { status: Some(UserStatus::Deleted), ..UserChange::default() };
        users.change(&context(), "ada", None, gone.clone()).await.unwrap();

        let left = users.get(ada.id.as_str()).await.unwrap();
        assert_eq!((left.status, &left.email, &left.display_name), (UserStatus::Deleted, &None, &None));
        assert!(left.roles.is_empty() && !left.username.contains("ada"), "{}", left.username);
        assert!(users.find("ada").await.unwrap().is_none());
        assert!(keys(&plane).verify(key.expose()).await.unwrap().is_none());
        for table in [
            "SELECT COUNT(*) FROM oauth_clients WHERE name LIKE '%ada%'",
            "SELECT COUNT(*) FROM users WHERE display_name LIKE '%ada%'",
            "SELECT COUNT(*) FROM user_api_keys",
            "SELECT COUNT(*) FROM users WHERE username_key LIKE '%ada%' OR email_key LIKE '%ada%'",
        ] {
            assert_eq!(plane.count(table).await, 0, "{table}");
        }
        let again = users.change(&context(), ada.id.as_str(), None, gone).await;
        assert!(matches!(again, Err(IdentityError::Deleted)));
        // The name is free again.
        assert_ne!(user(&plane, "ada", &["user"]).await.id, ada.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_97_a_merged_user_hands_over_clients_and_identities_and_nothing_else() {
    for plane in planes().await {
        let users = &plane.state.users;
        let (old, new) = (user(&plane, "old", &["user", "dev"]).await, user(&plane, "new", &["user"]).await);
        plane
            .change("UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'old') WHERE client_id = 'acme-ci'")
            .await;
        plane
            .change("INSERT INTO federated_identities (issuer, subject, user_id, created_at) SELECT 'https://idp.example', 's', id, 1 FROM users WHERE username = 'old'")
            .await;
        let key = keys(&plane).create(&by(&old, &[Permission::User]), key_of(&old)).await.unwrap().1;
        let token = plane.token(Some("acme-ci"), &format!("{OF}user")).await.unwrap().access_token;

        let strange = users.merge(&context(), "old", None, "user-of-acme-ci").await;
        assert!(strange.is_err());
        for wrong in ["old", old.id.as_str()] {
            let refused = users.merge(&context(), "old", None, wrong).await;
            assert!(matches!(refused, Err(IdentityError::Invalid(_))), "{wrong}");
        }
        let refused = users.merge(&context(), "old", Some(7), "new").await;
        assert!(matches!(refused, Err(IdentityError::Changed)));
        let stays = users.merge(&context(), "old", Some(1), "new").await.unwrap();
        assert_eq!((stays.id.as_str(), stays.roles.join(" ")), (new.id.as_str(), "user".to_owned()));
        assert_eq!(users.get(old.id.as_str()).await.unwrap().status, UserStatus::Deleted);
        assert!(keys(&plane).verify(key.expose()).await.unwrap().is_none());
        assert!(!plane.is_live(&token).await, "it served somebody else");
        let owned =
            "SELECT COUNT(*) FROM oauth_clients c JOIN federated_identities f ON f.user_id = c.owner_user_id
                     JOIN users u ON u.id = f.user_id WHERE u.username = 'new'";
        assert_eq!(plane.count(owned).await, 1);
        let told = plane.records("admin.user.merged").await;
        assert_eq!((told.len(), &told[0]["detail"]["into"]), (1, &new.id.as_str().into()));
        let refused = users.merge(&context(), old.id.as_str(), None, "new").await;
        assert!(matches!(refused, Err(IdentityError::Deleted)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_96_a_mail_that_two_take_at_once_is_taken_for_one_of_them() {
    for plane in planes().await.map(Arc::new) {
        for name in ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"] {
            user(&plane, name, &["user"]).await;
        }
        let next = Arc::new(AtomicUsize::new(0));
        let done = at_once(8, || {
            let (plane, n) = (Arc::clone(&plane), next.fetch_add(1, Ordering::Relaxed));
            async move {
                let change = UserChange { email: Some("same@example.org".into()), ..UserChange::default() };
                plane.state.users.change(&context(), &format!("u{n}"), None, change).await
            }
        });
        let done = done.await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
        for refused in done.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, IdentityError::Taken("email")), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_97_of_the_last_two_administrators_one_stays_who_are_demoted_at_once() {
    for plane in planes().await.map(Arc::new) {
        for name in ["u0", "u1"] {
            user(&plane, name, &["admin"]).await;
        }
        let next = Arc::new(AtomicUsize::new(0));
        let done = at_once(2, || {
            let (plane, n) = (Arc::clone(&plane), next.fetch_add(1, Ordering::Relaxed));
            async move {
                let change = UserChange { roles: Some(vec!["user".into()]), ..UserChange::default() };
                plane.state.users.change(&context(), &format!("u{n}"), None, change).await
            }
        });
        assert_eq!(done.await.iter().filter(|done| done.is_ok()).count(), 1);
        assert_eq!(plane.count("SELECT COUNT(*) FROM user_roles WHERE role = 'admin'").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_97_the_last_administrator_is_not_merged_away() {
    for plane in planes().await {
        user(&plane, "root", &["admin"]).await;
        let refused = plane.state.users.merge(&context(), "root", None, "bob").await;
        assert!(matches!(refused, Err(IdentityError::LastAdministrator(_))), "{refused:?}");
        assert_eq!(plane.state.users.get("root").await.unwrap().status, UserStatus::Active);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_97_a_key_makes_one_user_however_often_it_comes() {
    for plane in planes().await {
        let users = &plane.state.users;
        let new = |name: &str| NewUser { username: name.to_owned(), ..NewUser::default() };
        let first = users.create_once(&context(), new("eve"), "k-1").await.unwrap();
        assert_eq!(users.create_once(&context(), new("eve"), "k-1").await.unwrap().id, first.id);
        let other = users.create_once(&context(), new("mallory"), "k-1").await;
        assert!(matches!(other, Err(IdentityError::OtherRequest)));
        let taken = users.create_once(&context(), new("eve"), "k-2").await;
        assert!(matches!(taken, Err(IdentityError::Taken("username"))), "{taken:?}");
        let state = plane.state.clone();
        let made = super::plane::at_once(8, move || {
            let users = state.users.clone();
            async move {
                users
                    .create_once(&context(), NewUser { username: "zoe".into(), ..NewUser::default() }, "k-3")
                    .await
            }
        })
        .await;
        let ids: std::collections::BTreeSet<String> =
            made.into_iter().map(|made| made.unwrap().id.to_string()).collect();
        assert_eq!(ids.len(), 1);
        plane.clock.advance(86_400_001);
        let late = users.create_once(&context(), new("kim"), "k-1").await.unwrap();
        assert_ne!(late.id, first.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_97_lists_are_filtered_by_status_role_and_department() {
    for plane in planes().await {
        let users = &plane.state.users;
        user(&plane, "ada", &["admin", "user"]).await;
        let cat = user(&plane, "cat", &["user"]).await;
        let change = |status| UserChange { status: Some(status), ..UserChange::default() };
        users.change(&context(), "cat", None, change(UserStatus::Temporary)).await.unwrap();
        let names = async |filter: UserFilter<'static>| {
            let found = users.page(Page::first(10), &filter).await.unwrap();
            found.into_iter().map(|user| user.username).collect::<Vec<_>>().join(" ")
        };
        let all = UserFilter::default();
        assert_eq!(names(all).await, "bob ada cat");
        assert_eq!(names(UserFilter { role: Some("admin"), ..all }).await, "ada");
        assert_eq!(names(UserFilter { department: Some("engineering"), ..all }).await, "bob");
        assert_eq!(names(UserFilter { status: Some(UserStatus::Temporary), ..all }).await, "cat");
        let both = UserFilter { role: Some("user"), query: Some("C"), ..all };
        assert_eq!(names(both).await, "cat");
        users.change(&context(), cat.id.as_str(), None, change(UserStatus::Deleted)).await.unwrap();
        assert_eq!(names(all).await, "bob ada");
        let gone = names(UserFilter { status: Some(UserStatus::Deleted), ..all }).await;
        assert_eq!(gone, format!("deleted:{}", cat.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_98_keys_of_services_are_bound_and_hold_what_their_roles_permit_now() {
    for plane in planes().await {
        let new = NewUser {
            username: "nightly".into(),
            roles: vec!["service".into(), "user".into()],
            kind: UserKind::Service,
            ..NewUser::default()
        };
        let nightly = plane.state.users.create(&context(), new).await.unwrap();
        let keys = keys(&plane);
        let mut asked = key_of(&nightly);
        asked.audiences = vec!["api".into()];
        asked.allowed_cidrs = vec!["10.1.2.3/8".into(), "192.0.2.9".into()];
        asked.never_expires = true;
        let own = by(&nightly, &[Permission::Service, Permission::User, Permission::Mcp, Permission::A2a]);
        let refused = keys.create(&own, asked.clone()).await;
        assert!(matches!(refused, Err(IdentityError::Invalid(faults)) if faults[0].0 == "never_expires"));
        let ada = user(&plane, "ada", &["admin"]).await;
        let admin = by(&ada, &[Permission::Admin]);
        for (audiences, cidrs, field) in [
            (vec!["mcp"], vec![], "audiences"),
            (vec![], vec!["10.0.0.0/33"], "allowed_cidrs"),
            (vec![], vec!["10.0.0.0/8"; 21], "allowed_cidrs"),
        ] {
            let mut asked = key_of(&nightly);
            asked.audiences = audiences.into_iter().map(str::to_owned).collect();
            asked.allowed_cidrs = cidrs.into_iter().map(str::to_owned).collect();
            let refused = keys.create(&admin, asked).await;
            assert!(
                matches!(&refused, Err(IdentityError::Invalid(faults)) if faults[0].0 == field),
                "{field}"
            );
        }
        let (key, value) = keys.create(&admin, asked).await.unwrap();
        assert_eq!((key.expires_at, key.audiences.join(" ")), (None, "api".to_owned()));
        let nets: Vec<String> = key.allowed_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.9/32"]);
        let listed = keys.page(Page::first(10), Some(nightly.id.as_str())).await.unwrap();
        assert_eq!(listed[0], key);
        let found = keys.verify(value.expose()).await.unwrap().unwrap();
        let scopes: Vec<&str> = found.principal.permissions.iter().map(|p| p.as_str()).collect();
        assert_eq!(scopes, ["user", "service", "a2a", "mcp"]);
        assert_eq!((found.audiences.len(), found.networks.len()), (1, 2));

        let less = UserChange { roles: Some(vec!["service".into()]), ..UserChange::default() };
        plane.state.users.change(&context(), "nightly", None, less).await.unwrap();
        let found = keys.verify(value.expose()).await.unwrap().unwrap();
        assert_eq!(found.principal.permissions, [Permission::Service]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_says_once_what_roles_permit() {
    let table = |settings: &mut crate::Settings| {
        settings.identity.role_permissions.insert("ops".into(), vec![Permission::User, Permission::Mcp]);
    };
    for plane in planes_with(table).await {
        let ops = user(&plane, "ops", &["ops"]).await;
        let users = &plane.state.users;
        assert_eq!(users.own_permissions(&ops), [Permission::User, Permission::Mcp]);
        assert_eq!(plane.state.settings().permissions_of_user(&ops), users.permissions(&ops));
        let (key, _) =
            keys(&plane).create(&by(&ops, &[Permission::User, Permission::Mcp]), key_of(&ops)).await.unwrap();
        assert_eq!(key.scopes, [Permission::User, Permission::Mcp]);
        let mut settings = (*plane.state.settings()).clone();
        settings.identity.role_permissions.remove("ops");
        plane.state.configure(settings);
        assert!(users.permissions(&ops).is_empty(), "a reload counts for every credential");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_93_an_imported_bcrypt_hash_signs_in_once_and_is_replaced() {
    const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    for plane in planes_with(|settings| settings.identity.password.enabled = true).await {
        let new = NewUser {
            username: "ada".into(),
            roles: vec!["user".into()],
            password_hash: Some(Secret::from(HASH)),
            ..NewUser::default()
        };
        let wrong =
            NewUser { password_hash: Some(Secret::from("md5:1")), username: "x".into(), ..new.clone() };
        let refused = plane.state.users.create(&context(), wrong).await;
        assert!(matches!(refused, Err(IdentityError::Invalid(faults)) if faults[0].0 == "password_hash"));
        plane.state.users.create(&context(), new).await.unwrap();
        let sign_in = async |text: &str| {
            password::sign_in(&plane.state, &context(), None, "ADA", &Secret::from(text)).await.map(drop)
        };
        assert_eq!(sign_in("U*V").await.unwrap_err().code(), ErrorCode::InvalidCredential);
        assert_eq!(plane.count("SELECT COUNT(*) FROM user_passwords WHERE hash LIKE '$2a$%'").await, 1);
        sign_in("U*U").await.unwrap();
        assert_eq!(plane.count("SELECT COUNT(*) FROM user_passwords WHERE hash LIKE '$argon2id$%'").await, 1);
        sign_in("U*U").await.unwrap();
        assert_eq!(sign_in("U*V").await.unwrap_err().code(), ErrorCode::InvalidCredential);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_93_a_new_password_needs_the_old_one_is_not_common_and_ends_other_sessions() {
    for plane in planes_with(|settings| settings.identity.password.enabled = true).await {
        let bob = plane.state.users.get("bob").await.unwrap();
        let mut principal = Principal::anonymous();
        principal.user_id = bob.id.clone();
        principal.session_id = plane.session.clone();
        let me = RequestContext { principal: Arc::new(principal), ..context() };
        let set = async |old: Option<&str>, new: &str| {
            let old = old.map(Secret::from);
            password::change(&plane.state, &me, old.as_ref(), &Secret::from(new)).await
        };
        for weak in ["too short", "leavemealone", "Password1234", "bob@example.org", "abababababab"] {
            assert_eq!(word(&set(None, weak).await), "invalid_request", "{weak}");
        }
        set(None, "purple-otter-sings").await.unwrap();
        assert_eq!(word(&set(None, "green-otter-sings").await), "invalid_request");
        assert_eq!(word(&set(Some("wrong"), "green-otter-sings").await), "invalid_credential");

        let (tokens, _) = plane.signed_in("user", "").await;
        let sign_in = async |text: &str| {
            password::sign_in(&plane.state, &context(), None, "bob@example.org", &Secret::from(text)).await
        };
        let other = sign_in("purple-otter-sings").await.unwrap().session_id;
        set(Some("purple-otter-sings"), "green-otter-sings").await.unwrap();
        assert!(!plane.is_live(&tokens.access_token).await && sign_in("purple-otter-sings").await.is_err());
        let live =
            async |id| plane.state.sessions.find(id).await.unwrap().unwrap().is_live(plane.state.now());
        assert!(live(&plane.session).await && !live(&other).await);
        let signed = sign_in("green-otter-sings").await.unwrap();
        let row = plane.state.sessions.find(&signed.session_id).await.unwrap().unwrap();
        assert_eq!((row.acr.as_deref(), row.amr.as_deref()), (Some("pwd"), Some("pwd")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_99_a_bridges_token_is_bound_as_its_key_and_ends_with_it() {
    for plane in planes().await {
        let bob = plane.state.users.get("bob").await.unwrap();
        let keys = keys(&plane);
        let ada = user(&plane, "ada", &["admin"]).await;
        let bridge = async |audiences: &[&str], networks: &[&str]| {
            let mut asked = key_of(&bob);
            asked.audiences = audiences.iter().map(ToString::to_string).collect();
            asked.allowed_cidrs = networks.iter().map(ToString::to_string).collect();
            let (key, value) = keys.create(&by(&ada, &[Permission::Admin]), asked).await.unwrap();
            let found = keys.verify(value.expose()).await.unwrap().unwrap();
            let shown = RequestContext { principal: found.principal, ..context() };
            (key, crate::services::bridge::by_key(&plane.state, &shown).await)
        };
        let refused = bridge(&[], &["10.0.0.0/8"]).await.1;
        assert_eq!(refused.err().map(|error| error.code()), Some(ErrorCode::InvalidGrant));
        for (audiences, want) in [(&[][..], "bridge api"), (&["bridge"], "bridge"), (&["api"], "bridge api")]
        {
            let (key, token) = bridge(audiences, &[]).await;
            let token = token.unwrap().token;
            let aud: Vec<String> =
                plane.claims(&token).aud.iter().map(|one| one.as_str().to_owned()).collect();
            assert_eq!(aud.join(" "), want, "{audiences:?}");
            assert!(plane.is_live(&token).await);
            plane.state.sessions.revoke(&key.id.as_str().into(), "test").await.unwrap();
            assert!(!plane.is_live(&token).await, "its key has ended");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_shut_out_has_no_way_back_and_a_clients_user_is_changed_with_its_client() {
    for plane in planes().await {
        let bob = plane.state.users.get("bob").await.unwrap();
        let keys = keys(&plane);
        let (_, value) = keys.create(&by(&bob, &[Permission::User]), key_of(&bob)).await.unwrap();
        let token = plane.signed_in("openid user", "").await.0.access_token;
        let now = plane.state.now();
        let cutoff = Cutoff {
            kind: CutoffKind::User,
            id: bob.id.to_string(),
            not_before: now,
            reason: "test".into(),
            expires_at: Sessions::longest_end(now),
        };
        plane.state.users.shut_out(&cutoff, &EntryId::generate()).await.unwrap();
        assert!(!plane.is_live(&token).await);
        assert!(keys.verify(value.expose()).await.unwrap().is_none());
        plane.change("UPDATE users SET kind = 'client' WHERE username = 'bob'").await;
        let change = UserChange { status: Some(UserStatus::Suspended), ..UserChange::default() };
        let refused = plane.state.users.change(&context(), "bob", None, change).await;
        assert!(matches!(refused, Err(IdentityError::Invalid(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_92_of_sets_of_recovery_codes_made_at_once_one_counts() {
    for plane in planes().await {
        let db = plane.state.db.clone();
        let (user, counter) = (plane.bob.to_string(), Arc::new(AtomicUsize::new(0)));
        let made = at_once(8, || {
            let (db, user, counter) = (db.clone(), user.clone(), Arc::clone(&counter));
            async move {
                let set = counter.fetch_add(1, Ordering::SeqCst);
                let digests: Vec<String> = (0..10).map(|n| format!("{set}-{n}")).collect();
                recovery_codes::replace(&db, &user, &digests, START).await.unwrap();
            }
        });
        made.await;
        assert_eq!(recovery_codes::left(&db, &user).await.unwrap(), 10);
    }
}
