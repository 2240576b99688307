//! Two real processes on one PostgreSQL: what one of them ends is over on the other within the bound that the documentation states,
//! with notifications and without.

use crate::http::Client;
use crate::stores;
use std::time::{Duration, Instant};
use systemprompt_tests::{Options, Server};

/// A second node of the deployment that `first` is of.
fn second(first: &Server, notifications: bool) -> Server {
    Options::demo()
        .unwrap()
        .postgres(&first.database_url())
        .secret("jwt_secret", &first.secret("jwt_secret").unwrap())
        .secret("oauth_at_rest_pepper", &first.secret("oauth_at_rest_pepper").unwrap())
        .env("SYSTEMPROMPT__SECURITY__JWT_ISSUER", first.url())
        .env("SYSTEMPROMPT__SERVER__INSTANCE_ID", if notifications { "second" } else { "third" })
        .env("SYSTEMPROMPT__DATABASE__NOTIFICATIONS", if notifications { "true" } else { "false" })
        .start()
        .unwrap()
}

async fn status_of(client: &Client, token: &str) -> u16 {
    client.get("/v1/models", &[("authorization", &format!("Bearer {token}"))]).await.status
}

/// How long after the answer of `end` a token of bob's still counts on the other node; what `end` is given is the token.
async fn outlives(first: &Server, there: &Client, end: impl Fn(&str)) -> Duration {
    let token = first.succeed(&["admin", "token", "issue", "bob"]).unwrap().trim().to_owned();
    assert_eq!(status_of(there, &token).await, 200, "it counts on both, and is remembered there");
    end(&token);
    let ended = Instant::now();
    while status_of(there, &token).await == 200 {
        assert!(ended.elapsed() < Duration::from_secs(10), "it never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ended.elapsed()
}

async fn worst(first: &Server, second: &Server) -> Duration {
    let there = Client::new(second);
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        let one = outlives(first, &there, |token| {
            let shown = first.run_with_input(&["admin", "token", "revoke"], token).unwrap();
            assert!(shown.contains("token"), "{shown}");
        });
        let all =
            |_: &str| drop(first.succeed(&["admin", "token", "revoke", "--user", "bob", "--yes"]).unwrap());
        worst = worst.max(one.await).max(outlives(first, &there, all).await);
    }
    worst
}

#[tokio::test]
async fn case_20_a_revoked_token_is_dead_on_the_other_node_within_a_second_or_two_without_notifications() {
    let first = stores::postgres().await.without_limits().start().unwrap();
    for (notifications, bound) in [(true, Duration::from_secs(1)), (false, Duration::from_secs(2))] {
        let second = second(&first, notifications);
        let worst = worst(&first, &second).await;
        println!("notifications {notifications}: at most {} ms", worst.as_millis());
        assert!(worst <= bound, "notifications {notifications}: {worst:?}");
    }
}

/// How long an API key of bob's still counts on the other node after `end`, which is given the key's id.
async fn key_outlives(first: &Server, there: &Client, end: impl Fn(&str)) -> Duration {
    let made =
        first.succeed(&["admin", "api-keys", "create", "bob", "--name", "x", "--output", "json"]).unwrap();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(status_of(there, key).await, 200, "it counts there, and is remembered");
    end(id);
    let ended = Instant::now();
    while status_of(there, key).await == 200 {
        assert!(ended.elapsed() < Duration::from_secs(10), "it never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ended.elapsed()
}

#[tokio::test]
async fn a_revoked_api_key_and_those_of_a_suspended_user_are_dead_on_the_other_node_as_fast_as_tokens() {
    let first = stores::postgres().await.without_limits().start().unwrap();
    for (notifications, bound) in [(true, Duration::from_secs(1)), (false, Duration::from_secs(2))] {
        let second = second(&first, notifications);
        let there = Client::new(&second);
        let run = |words: &[&str]| drop(first.succeed(words).unwrap());
        let mut worst = Duration::ZERO;
        for _ in 0..2 {
            let revoked =
                key_outlives(&first, &there, |id| run(&["admin", "api-keys", "revoke", id, "--yes"]));
            worst = worst.max(revoked.await);
            let suspend = |_: &str| run(&["admin", "users", "update", "bob", "--status", "suspended"]);
            worst = worst.max(key_outlives(&first, &there, suspend).await);
            run(&["admin", "users", "update", "bob", "--status", "active"]);
            let demote = |_: &str| run(&["admin", "users", "update", "bob", "--role", "guest"]);
            worst = worst.max(key_outlives(&first, &there, demote).await);
            run(&["admin", "users", "update", "bob", "--role", "user"]);
        }
        println!("notifications {notifications}: at most {} ms", worst.as_millis());
        assert!(worst <= bound, "notifications {notifications}: {worst:?}");
    }
}

#[tokio::test]
async fn a_revoked_key_and_a_new_one_are_known_to_the_other_node() {
    let first = stores::postgres().await.start().unwrap();
    let second = second(&first, true);
    let there = Client::new(&second);
    let kids = async || {
        let set = there.get("/.well-known/jwks.json", &[]).await.json();
        let keys = set["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = kids().await;
    first.succeed(&["admin", "keys", "generate"]).unwrap();
    first.succeed(&["admin", "keys", "revoke", &before[0], "--yes"]).unwrap();
    let changed = Instant::now();
    loop {
        let now = kids().await;
        if now.len() == 1 && now != before {
            break;
        }
        assert!(changed.elapsed() < Duration::from_secs(2), "{before:?} {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
