//! `policy replay` of drafts that change governance policies (AUD-64), by the command and over HTTP.

use crate::http::Client;
use crate::stores;
use serde_json::{Value, json};
use systemprompt_database::{on, sql};
use systemprompt_tests::Server;

const CALLS: usize = 120;

async fn call(server: &Server, tool: &str, input: &Value) -> u16 {
    let event = json!({
        "hook_event_name": "PreToolUse", "session_id": "s", "tool_name": tool, "tool_input": input,
    });
    let user = format!("Bearer {}", server.user_token());
    let (client, path) = (Client::new(server), "/api/v1/hooks/govern?plugin_id=demo");
    client.post(path, &[("authorization", &user)], &event).await.status
}

fn replayed(server: &Server, draft: &str, words: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draft.yaml");
    std::fs::write(&file, draft).unwrap();
    let mut all = vec!["policy", "replay", "--draft", file.to_str().unwrap()];
    all.extend(words);
    let output = server.run(&all).unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn case_30_a_draft_of_policies_flips_what_a_count_in_sql_says_on_both_engines() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        for n in 0..CALLS {
            let tool = ["Read", "Bash", "Grep"][n % 3];
            let path = if n % 4 == 0 { "/etc/shadow" } else { "/srv/notes" };
            assert_eq!(call(&server, tool, &json!({"path": path})).await, 200);
        }
        let db = systemprompt_database::Db::connect(&server.database_url(), 1).await.unwrap();
        let (reads,): (i64,) = on!(&db, pool => sqlx::query_as(sql!(
            "SELECT COUNT(*) FROM governance_decisions WHERE tool_name = 'Read' AND decision = 'allow'"
        )).fetch_one(pool).await)
        .unwrap();
        db.close().await;
        assert_eq!(reads, 40);

        let by_name = "policies:\n  - { id: tool_blocklist, params: { tokens: [read] } }\n";
        let (code, told) = replayed(&server, by_name, &["--fail-on-flip"]);
        assert_eq!(code, Some(7), "{told}");
        for line in [
            "120 decisions, 80 unchanged",
            "allow -> deny: 40",
            "-> tool_blocklist tool_blocked",
            "unreplayable: 0",
        ] {
            assert!(told.contains(line), "{line}: {told}");
        }
        assert!(
            told.contains(
                "rate_limit was not decided again: its outcome stands for 80 decisions, 0 of them refused"
            ),
            "{told}"
        );

        let by_arguments = "policies:\n  - id: argument_rules\n    params:\n      rules:\n        - { id: etc, tool: '*', pointer: /path, regex: '^/etc/' }\n";
        let (code, told) = replayed(&server, by_arguments, &["--since", "1h"]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("allow -> deny: 30") && told.contains("argument_rules argument-etc"), "{told}");

        // Whatever moment the command takes is taken over HTTP, too.
        let client = Client::new(&server);
        let admin = format!("Bearer {}", server.admin_token());
        let draft = json!({"policies": [{"id": "tool_blocklist", "params": {"tokens": ["read"]}}]});
        for (since, flips) in [
            (json!("1h"), 40),
            (json!("2020-01-01"), 40),
            (json!("2020-01-01T00:00:00Z"), 40),
            (json!(1), 40),
            (json!("1577836800000"), 40),
            (Value::Null, 40),
            (json!("0s"), 0),
        ] {
            let body = json!({"draft": draft, "since": since});
            let answer = client.post("/api/v1/admin/rules/replay", &[("authorization", &admin)], &body).await;
            assert_eq!(answer.status, 200, "{since}: {}", answer.body);
            assert_eq!(answer.json()["newly_denied"]["count"], flips, "{since}: {}", answer.body);
        }
        for (field, value, says) in [
            ("since", json!("soon"), "`soon` is no moment"),
            ("until", json!(1.5), "expected a moment"),
            ("since", json!("9999999d"), "at most"),
        ] {
            let mut body = json!({"draft": draft});
            body[field] = value;
            let answer = client.post("/api/v1/admin/rules/replay", &[("authorization", &admin)], &body).await;
            assert!(
                (400..500).contains(&answer.status) && answer.body.contains(says),
                "{says}: {}",
                answer.body
            );
        }

        // What a draft names that is not there is told before anything is tried.
        let (code, told) = replayed(&server, "policies:\n  - { id: tool_blocklst }\n", &[]);
        assert!(code == Some(7) && told.contains("did you mean `tool_blocklist`"), "{code:?} {told}");
        let (code, told) = replayed(&server, "policies:\n  - { id: pii, params: { act: block } }\n", &[]);
        assert!(code == Some(7) && told.contains("policy `pii`"), "{code:?} {told}");
    }
}
