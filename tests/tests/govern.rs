//! Who decides: the modes of the hook, a decision service that is asked, and this installation as the one that is asked.

use crate::http::{Answer, Client};
use crate::stores;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt_models::{Clock as _, Secret, SystemClock};
use systemprompt_security::standard_webhooks::WebhookSecrets;
use systemprompt_tests::{Options, Server};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PATH: &str = "/api/v1/govern/authz";
const MODE: &str = "SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__MODE";
const ACKNOWLEDGEMENT: &str = "SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__ACKNOWLEDGEMENT";

struct Node {
    client: Client,
    ada: String,
    server: Server,
}

impl Node {
    fn start(options: Options) -> Self {
        let server = options.start().unwrap();
        Self { client: Client::new(&server), ada: format!("Bearer {}", server.admin_token()), server }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.send(method, path, &[("authorization", &self.ada)], body).await.unwrap()
    }

    /// Registers a plugin and allows its use to a role.
    async fn allow(&self, plugin: &str, role: &str) {
        let put =
            self.ask(Method::PUT, &format!("/api/v1/admin/entities/plugin/{plugin}"), Some(&json!({}))).await;
        assert_eq!(put.status, 201, "{}", put.body);
        let rule = json!({"entity_type": "plugin", "entity_id": plugin, "rule_type": "role", "rule_value": role,
            "access": "allow"});
        assert_eq!(self.ask(Method::POST, "/api/v1/admin/rules", Some(&rule)).await.status, 201);
    }

    async fn hook(&self, plugin: &str) -> (bool, String) {
        let event = json!({"hook_event_name": "PreToolUse", "tool_name": "Read", "tool_input": {}});
        let path = format!("/api/v1/hooks/govern?plugin_id={plugin}");
        let answer = self.ask(Method::POST, &path, Some(&event)).await.json();
        let output = &answer["hookSpecificOutput"];
        let reason = output["permissionDecisionReason"].as_str().unwrap_or_default();
        (output["permissionDecision"] == "allow", reason.to_owned())
    }

    async fn latest(&self) -> Value {
        self.ask(Method::GET, "/api/v1/admin/decisions?limit=1", None).await.json()["items"][0].clone()
    }

    /// Asks for a decision with a signature of `secret` over `body`, made `age` seconds ago.
    async fn signed(&self, secret: &str, id: &str, age: i64, body: &Value) -> Answer {
        let secrets = WebhookSecrets::parse(&Secret::new(secret.to_owned())).unwrap();
        let now = SystemClock.now() / 1000;
        let time = (now - age).to_string();
        let signature = secrets.sign(id, now - age, body.to_string().as_bytes());
        let headers = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        self.client.post(PATH, &headers, body).await
    }
}

fn question() -> Value {
    json!({"version": 1, "request_id": "q-1", "entity_type": "plugin", "entity_id": "shared", "user_id": "usr_far",
        "roles": ["dev"], "trace_id": "trace-of-another-house"})
}

#[tokio::test]
async fn case_8_a_signed_question_is_answered_once_and_a_wrong_one_is_not() {
    for options in stores::engines().await {
        let node = Node::start(options.secret("authz_webhook_secret", SECRET));
        node.allow("shared", "dev").await;
        let answer = node.signed(SECRET, "msg_1", 0, &question()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        assert_eq!(
            (&body["decision"], &body["matched_by"], &body["request_id"]),
            (&json!("allow"), &json!("role_allow"), &json!("q-1"))
        );
        assert!(body["rule_id"].is_string() && body["epoch"].as_i64().unwrap() > 0, "{body}");
        let row = node.latest().await;
        assert_eq!(
            (&row["source"], &row["user_id"], &row["entity_id"], &row["trace_id"]),
            (&json!("webhook_server"), &json!("usr_far"), &json!("shared"), &json!("trace-of-another-house")),
            "{row}"
        );
        assert_eq!(row["id"].as_str(), Some(answer.header("x-decision-id")));

        let other = json!({"version": 1, "entity": {"kind": "plugin", "id": "shared"}, "user_id": "usr_far", "roles": ["x"]});
        let denied = node.signed(SECRET, "msg_2", 0, &other).await;
        assert_eq!((denied.status, &denied.json()["decision"]), (200, &json!("deny")), "{}", denied.body);
        let foreign = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for (why, refused) in [
            ("was taken before", node.signed(SECRET, "msg_1", 0, &question()).await),
            ("seconds old", node.signed(SECRET, "msg_4", 301, &question()).await),
            ("or from the future", node.signed(SECRET, "msg_5", -310, &question()).await),
            ("no signature fits", node.signed(foreign, "msg_6", 0, &question()).await),
            ("sign the request", node.client.post(PATH, &[], &question()).await),
            ("the credential does not count here", node.ask(Method::POST, PATH, Some(&question())).await),
        ] {
            assert_eq!(refused.status, 401, "{why}: {}", refused.body);
            assert!(refused.body.contains(why), "{why}: {}", refused.body);
        }
        let without = |member: &str, value: Value| {
            let mut body = question();
            body[member] = value;
            body
        };
        for (number, (field, body)) in [
            ("user_id", without("user_id", Value::Null)),
            ("entity_type", without("entity_type", json!("model"))),
            ("entity_id", without("entity_id", json!("a*"))),
            ("entity", without("entity", json!({"kind": "plugin", "id": "x"}))),
            ("roles", without("roles", json!("dev"))),
            ("act_chain", without("act_chain", json!([1]))),
            ("act_chain", without("act_chain", json!(["a", "b", "c", "d", "e", "f"]))),
            ("version", without("version", json!(2))),
            ("body", json!([1])),
        ]
        .into_iter()
        .enumerate()
        {
            let refused = node.signed(SECRET, &format!("msg_bad_{number}"), 0, &body).await;
            assert_eq!(
                (refused.status, &refused.json()["code"]),
                (400, &json!("invalid_request")),
                "{field}"
            );
            assert!(refused.body.contains(&format!("`{field}`")), "{field}: {}", refused.body);
        }
    }
}

#[tokio::test]
async fn one_installation_decides_for_another() {
    let pdp = Node::start(stores::sqlite().secret("authz_webhook_secret", SECRET));
    pdp.allow("shared", "user").await;
    let asks = stores::sqlite()
        .secret("authz_webhook_secret", SECRET)
        .env(MODE, "webhook")
        .env("SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__URL", &format!("{}{PATH}", pdp.server.url()))
        .env("SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__TIMEOUT_MS", "5000");
    let mut node = Node::start(asks);
    let (allowed, reason) = node.hook("shared").await;
    assert!(allowed, "{reason}: {}", node.server.log());
    let (allowed, reason) = node.hook("unknown").await;
    assert!(
        !allowed && reason.contains("authz_webhook_deny") && reason.contains("unknown_entity"),
        "{reason}"
    );
    let row = pdp.latest().await;
    assert_eq!((&row["source"], &row["decision"]), (&json!("webhook_server"), &json!("deny")), "{row}");
    assert_eq!(node.latest().await["source"], "webhook");

    // Models are listed as far as the service allows their routes.
    let models = node.ask(Method::GET, "/v1/models", None).await.json();
    assert!(
        !models["data"].as_array().unwrap().is_empty(),
        "ada may use the demo's route there too: {models}"
    );

    drop(pdp);
    let (allowed, reason) = node.hook("shared").await;
    assert!(
        !allowed && reason.contains("authz_hook_fault") && reason.contains("hook_unavailable"),
        "{reason}"
    );
    let row = node.latest().await;
    assert_eq!((&row["source"], &row["policy"]), (&json!("webhook_fault"), &json!("authz_hook_fault")));
    let metrics = node.client.get("/metrics", &[]).await.body;
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("systemprompt_authz_hook_faults_total ") && !line.ends_with(" 0")),
        "{metrics}"
    );
    node.server.terminate().unwrap();
}

#[tokio::test]
async fn case_19_each_mode_does_what_it_says_and_a_wrong_acknowledgement_does_not_start() {
    let right = "I understand this disables all authorization";
    let modes = [
        ("rules", "", "role_allow", true),
        ("disabled", "", "authz_disabled", false),
        ("unrestricted", right, "authz_unrestricted", true),
    ];
    for (mode, acknowledgement, policy, allowed) in modes {
        let options = stores::sqlite().env(MODE, mode);
        let options =
            if acknowledgement.is_empty() { options } else { options.env(ACKNOWLEDGEMENT, acknowledgement) };
        let node = Node::start(options);
        node.allow("shared", "user").await;
        let (told, reason) = node.hook("shared").await;
        assert_eq!(told, allowed, "{policy}: {reason}");
        assert_eq!(node.latest().await["policy"], policy);
        if policy == "authz_unrestricted" {
            assert!(node.server.log().contains("authz_unrestricted"), "an error line at the start");
            let health = node.ask(Method::GET, "/api/v1/health/detail", None).await;
            assert!(health.body.contains("authz_unrestricted"), "{}", health.body);
            assert!(node.hook("never-registered").await.0);
        }
    }
    let absent = stores::sqlite()
        .file("profiles/default/profile.yaml", "governance:\n  authz: {actor_check: deny_only}\n");
    let node = Node::start(absent);
    node.allow("shared", "user").await;
    let (told, reason) = node.hook("shared").await;
    assert!(!told && reason.contains("authz_default_deny"), "{reason}");

    let nearly = right.replace("all", "al1");
    for (settings, named) in [
        (vec![(MODE, "unrestricted"), (ACKNOWLEDGEMENT, nearly.as_str())], "acknowledgement"),
        (vec![(MODE, "unrestricted")], "acknowledgement"),
        (vec![(MODE, "webhook")], "url"),
        (
            vec![(MODE, "webhook"), ("SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__URL", "http://pdp.example/x")],
            "loopback only",
        ),
        (
            vec![(MODE, "webhook"), ("SYSTEMPROMPT__GOVERNANCE__AUTHZ__HOOK__URL", "https://pdp.example/x")],
            "authz_webhook_secret",
        ),
    ] {
        let options =
            settings.iter().fold(stores::sqlite(), |options, (name, value)| options.env(name, value));
        let failed = options.start().unwrap_err().to_string();
        assert!(failed.contains(named), "{named}: {failed}");
    }
}

#[tokio::test]
async fn id_58_what_is_denied_to_an_owner_is_denied_to_the_client_that_another_house_asks_about() {
    for options in stores::engines().await {
        let node = Node::start(options.secret("authz_webhook_secret", SECRET));
        node.allow("shared", "dev").await;
        let rule = json!({"entity_type": "plugin", "entity_id": "shared", "rule_type": "user",
            "rule_value": "usr_eve", "access": "deny"});
        assert_eq!(node.ask(Method::POST, "/api/v1/admin/rules", Some(&rule)).await.status, 201);
        for (n, (owner, decision, by)) in [
            (json!("usr_ann"), "allow", "role_allow"),
            (Value::Null, "allow", "role_allow"),
            (json!("usr_eve"), "deny", "owner_deny"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut body = question();
            body["owner_id"] = owner.clone();
            let told = node.signed(SECRET, &format!("msg_{n}"), 0, &body).await.json();
            assert_eq!((&told["decision"], &told["matched_by"]), (&json!(decision), &json!(by)), "{owner}");
        }
        assert_eq!(node.latest().await["policy"], "owner_deny");
        let mut body = question();
        body["owner_id"] = json!(7);
        let refused = node.signed(SECRET, "msg_9", 0, &body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains("owner_id"), "{}", refused.body);
    }
}
