//! The examples of docs/policies.md, run as they stand there.

use crate::http::Client;
use crate::stores;
use serde_json::Value;
use systemprompt_models::{Clock as _, Secret, SystemClock};
use systemprompt_security::standard_webhooks::WebhookSecrets;

const PAGE: &str = include_str!("../../docs/policies.md");
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    PAGE.split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

#[tokio::test]
async fn the_examples_of_the_page_on_policies_come_out_as_written() {
    let rules =
        blocks("yaml").into_iter().find(|block| block.starts_with("# services/access-control/")).unwrap();
    let path = rules.lines().next().unwrap().trim_start_matches("# ");
    let server = stores::sqlite().file(path, rules).secret("authz_webhook_secret", SECRET).start().unwrap();

    let mut commands = 0;
    for block in blocks("console") {
        let mut lines = block.lines().peekable();
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.strip_prefix("$ systemprompt ").unwrap().split(' ').collect();
            let mut expected = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected.push(line);
            }
            let output = server.run(&words).unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let first: Vec<&str> = printed.lines().take(expected.len()).collect();
            assert_eq!(first, expected, "{line}\n{}", String::from_utf8_lossy(&output.stderr));
            commands += 1;
        }
    }
    assert!(commands >= 9, "{commands} commands");

    // The question and what this installation answers.
    let json = blocks("json");
    let (question, answer): (&str, Value) = (json[0], serde_json::from_str(json[2]).unwrap());
    let secrets = WebhookSecrets::parse(&Secret::new(SECRET.to_owned())).unwrap();
    let now = SystemClock.now() / 1000;
    let body: Value = serde_json::from_str(question).unwrap();
    let signature = secrets.sign("msg_page", now, body.to_string().as_bytes());
    let headers = [
        ("webhook-id", "msg_page"),
        ("webhook-timestamp", &*now.to_string()),
        ("webhook-signature", &signature),
    ];
    let told = Client::new(&server).post("/api/v1/govern/authz", &headers, &body).await;
    assert_eq!(told.status, 200, "{}", told.body);
    for (member, value) in answer.as_object().unwrap() {
        assert_eq!(told.json()[member], *value, "{member}: {}", told.body);
    }
}
