//! The governance scan on a whole server: hooks, the allow list over HTTP (security.md, SEC-88, SEC-93).

use crate::http::{Answer, Client};
use crate::stores;
use serde_json::{Value, json};

const GOVERN: &str = "/api/v1/hooks/govern";
const ALLOW_LIST: &str = "/api/v1/admin/allowlist";

/// A made-up key, put together so that no scanner of repositories takes it for a leak.
fn key() -> String {
    format!("{}{}", "AKIA", "ZQ3DWHJR5TKLX2VM")
}

fn event(members: &Value) -> Value {
    let mut event = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": "Read",
        "tool_input": {"file_path": "README.md"}});
    if let (Some(event), Some(members)) = (event.as_object_mut(), members.as_object()) {
        event.extend(members.clone());
    }
    event
}

async fn govern(client: &Client, token: &str, event: &Value) -> (String, Answer) {
    let bearer = format!("Bearer {token}");
    let answer = client.post(GOVERN, &[("authorization", bearer.as_str())], event).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    (answer.header("x-systemprompt-decision").to_owned(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_any_member_of_a_hooks_body_is_refused() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let token = server.user_token();
        for members in [
            json!({"cwd": format!("/srv/{}", key())}),
            json!({"transcript_path": key()}),
            json!({"unheard_of": {"deep": [key()]}}),
            json!({ key(): 1 }),
            json!({"permission_mode": key()}),
        ] {
            let (decision, answer) = govern(&client, token, &event(&members)).await;
            assert_eq!(decision, "deny", "{members}");
            assert!(answer.body.contains("secret") && !answer.body.contains(&key()), "{}", answer.body);
        }
        let clean =
            json!({"cwd": "/srv/app", "unheard_of": {"deep": [1]}, "transcript_path": "/tmp/t.jsonl"});
        assert_eq!(govern(&client, token, &event(&clean)).await.0, "allow");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_allow_list_lets_one_value_pass_until_it_is_removed() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let (user, admin) = (server.user_token(), format!("Bearer {}", server.admin_token()));
        let admin = [("authorization", admin.as_str())];
        let with_key = event(&json!({"tool_input": {"text": key()}}));
        assert_eq!(govern(&client, user, &with_key).await.0, "deny");

        let entry =
            json!({"rule_id": "aws-access-key-id", "tool": "Read", "reason": "an example", "owner": "team"});
        let user_bearer = format!("Bearer {user}");
        let refused = client.post(ALLOW_LIST, &[("authorization", user_bearer.as_str())], &entry).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
        let unfit = client
            .post(ALLOW_LIST, &admin, &json!({"rule_id": "aws-access-key-id", "reason": "r", "owner": "o"}))
            .await;
        assert_eq!(unfit.status, 422, "{}", unfit.body);

        let made = client.post(ALLOW_LIST, &admin, &entry).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(govern(&client, user, &with_key).await.0, "allow");
        let listed = client.get(ALLOW_LIST, &admin).await;
        assert_eq!(listed.json()["items"][0]["id"], id.as_str(), "{}", listed.body);

        let path = format!("{ALLOW_LIST}/{id}");
        let removed = client.send(reqwest::Method::DELETE, &path, &admin, None).await.unwrap();
        assert_eq!(removed.status, 204, "{}", removed.body);
        assert_eq!(govern(&client, user, &with_key).await.0, "deny");
        let again = client.send(reqwest::Method::DELETE, &path, &admin, None).await.unwrap();
        assert_eq!(again.status, 404, "{}", again.body);
    }
}
