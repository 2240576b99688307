use super::*;
use crate::governance::GovernanceExtension;
use serde_json::json;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, sql};
use systemprompt_extension::Extension;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{ManualClock, Principal, Secret};

const NOW: Millis = 1_795_000_000_000;

fn caller(user: &str) -> RequestContext {
    let principal = Principal { user_id: user.into(), ..Principal::anonymous() };
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

async fn rows(db: &TestDb) -> Vec<(String, String, Option<String>, String)> {
    on!(&**db, pool => sqlx::query_as(sql!(
        "SELECT session_id, event, tool_use_id, payload FROM hook_events ORDER BY created_at, id"
    )).fetch_all(pool).await.unwrap())
}

#[tokio::test]
async fn an_event_is_stored_once_without_secrets_and_for_thirty_days() {
    let scanner = Arc::new(SecretScanner::builtin().unwrap());
    for db in databases(&GovernanceExtension.migrations()).await {
        let (in_use, clock) = (Scanner::new(), ManualClock::at(NOW));
        let _held = in_use.hold("crm", &Secret::from("s3cret-value-of-the-crm-0451")).unwrap();
        let events = HookEvents::new((*db).clone(), scanner.clone(), in_use, Arc::new(clock.clone()));
        let key = ["AKIA", "QYLPMN5HHHFPZAM2"].concat();
        let event = json!({
            "hook_event_name": "PostToolUse", "session_id": "s-1", "tool_use_id": "toolu_1", "tool_name": "Bash",
            "tool_input": {"command": format!("export K={key}"), "null": "\u{0}"},
            "tool_response": {"s3cret-value-of-the-crm-0451": "s3cret-value-of-the-crm-0451"},
        });
        let record = async |user: &str, event: &Value| {
            events.record(&caller(user), Some("demo"), event.to_string().as_bytes()).await
        };
        for _ in 0..2 {
            record("ada", &event).await.unwrap();
        }
        let stored = rows(&db).await;
        assert_eq!(stored.len(), 1);
        let (session, name, tool_use, payload) = &stored[0];
        assert_eq!((&**session, &**name, tool_use.as_deref()), ("s-1", "PostToolUse", Some("toolu_1")));
        assert!(!payload.contains(&key) && !payload.contains("s3cret-value"), "{payload}");
        assert!(payload.contains("[secret:aws-access-key-id:") && payload.contains("export K="), "{payload}");
        // Another event of that tool use, another user, and two prompts of one session are events of their own.
        let prompt =
            |text: &str| json!({"hook_event_name": "UserPromptSubmit", "session_id": "s-1", "prompt": text});
        let before = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_use_id": "toolu_1"});
        for (user, event) in [
            ("ada", before),
            ("bob", event),
            ("ada", prompt("a")),
            ("ada", prompt("b")),
            ("ada", prompt("a")),
        ] {
            record(user, &event).await.unwrap();
        }
        assert_eq!(rows(&db).await.len(), 5);
        let deep = "[".repeat(100);
        for (body, nameless) in [("[1]", false), ("{", false), ("{}", true), (&deep, false)] {
            let refused = events.record(&caller("ada"), None, body.as_bytes()).await.unwrap_err();
            assert_eq!(matches!(refused, HookEventError::Nameless), nameless, "{body}: {refused}");
        }
        assert_eq!(events.sweep(NOW + KEPT_MS).await.unwrap(), 0);
        assert_eq!(events.sweep(NOW + KEPT_MS + 1).await.unwrap(), 5);
    }
}
