//! Another `oauth_at_rest_pepper` in the place of the present one (ID-103), as an operator does it: by the secrets file and a restart.

use crate::http::{Client, FORM, OAUTH};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use systemprompt_tests::{Options, Server};

/// What somebody was given before the change.
struct Given {
    client: String,
    basic: String,
    management: String,
    key: String,
}

async fn given(server: &Server) -> Given {
    let http = Client::new(server);
    let admin = format!("Bearer {}", server.admin_token());
    let about = json!({"client_name": "app", "redirect_uris": ["https://app.example/cb"]});
    let made = http.post(&format!("{OAUTH}/register"), &[], &about).await.json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let new = json!({"user": "ada", "name": "ci"});
    let key = http.post("/api/v1/admin/api-keys", &[("authorization", &admin)], &new).await.json();
    let pair = format!("{}:{}", text("client_id"), text("client_secret"));
    Given {
        client: text("client_id"),
        basic: format!("Basic {}", STANDARD.encode(pair)),
        management: format!("Bearer {}", text("registration_access_token")),
        key: format!("Bearer {}", key["key"].as_str().unwrap()),
    }
}

/// How each of it is answered.
async fn answers(server: &Server, given: &Given) -> [u16; 3] {
    let http = Client::new(server);
    let headers = [FORM, ("authorization", given.basic.as_str())];
    let secret = http.raw(&format!("{OAUTH}/introspect"), &headers, "token=x".into()).await.unwrap();
    let managed = format!("{OAUTH}/register/{}", given.client);
    let managed = http.get(&managed, &[("authorization", &given.management)]).await;
    let key = http.get("/api/v1/admin/users", &[("authorization", &given.key)]).await;
    [secret.status, managed.status, key.status]
}

fn set(folder: &Path, change: impl FnOnce(&mut Value)) {
    let file = folder.join("profiles/default/secrets.json");
    let mut secrets: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut secrets);
    std::fs::write(&file, secrets.to_string()).unwrap();
}

async fn replaced(options: Options) {
    let mut server = options.without_limits().start().unwrap();
    let given = given(&server).await;
    assert_eq!(answers(&server, &given).await, [200; 3]);
    server.kill().unwrap();
    set(server.data_dir(), |secrets| {
        let old = secrets["oauth_at_rest_pepper"].take();
        secrets["oauth_at_rest_pepper"] = "another-pepper-of-enough-characters".into();
        secrets["oauth_at_rest_pepper_previous"] = old;
    });
    let mut server = server.restart().unwrap();
    assert_eq!(answers(&server, &given).await, [200; 3], "under the pepper before");
    server.kill().unwrap();
    set(server.data_dir(), |secrets| {
        secrets.as_object_mut().unwrap().remove("oauth_at_rest_pepper_previous");
    });
    let server = server.restart().unwrap();
    assert_eq!(answers(&server, &given).await, [200; 3], "what was used has moved");
}

#[tokio::test]
async fn id_103_what_was_given_outlives_a_change_of_the_pepper() {
    replaced(stores::sqlite()).await;
    replaced(stores::postgres().await).await;
}
