use super::*;
use crate::services::stdio::{Answer, CallOptions, Connection, StdioError};
use crate::wire::raw::{RawObject, to_raw};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use systemprompt_leak::Scanner;
use systemprompt_models::Tasks;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "crm-token/+with?specials";

/// The demo server on in-memory streams, with its CRM.
async fn connected() -> Connection {
    let tasks = Tasks::default();
    let crm = Crm::start(TOKEN).await.unwrap();
    let client = CrmClient::new(crm.address(), TOKEN.into()).unwrap();
    let variables = BTreeMap::from([
        ("SYSTEMPROMPT_SERVER".to_owned(), "demo".to_owned()),
        ("SYSTEMPROMPT_CUSTOM_SECRETS".to_owned(), "DEMO_CRM_TOKEN".to_owned()),
    ]);
    let server = server(client, Arc::new(variables)).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tasks.spawn("crm", async move { drop(crm.serve().await) });
    tasks.spawn("demo", async move {
        let (input, output) = tokio::io::split(theirs);
        server.serve(input, output).await.unwrap();
    });
    Connection::open("demo", tokio::io::split(ours), 1 << 20, Scanner::new(), &tasks)
}

fn options() -> CallOptions {
    CallOptions::within(Duration::from_secs(10))
}

async fn call(connection: &Connection, tool: &str, arguments: Value) -> Value {
    let params = to_raw(&json!({"name": tool, "arguments": arguments}));
    match connection.call("tools/call", RawObject::read(&params), options()).await.unwrap() {
        Answer::Result(result) => serde_json::from_str(result.get()).unwrap(),
        Answer::Error(error) => json!({"error": serde_json::from_str::<Value>(error.get()).unwrap()}),
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn customers_are_looked_up_and_deleted_with_the_secret() {
    let demo = connected().await;
    let found = call(&demo, "crm_lookup", json!({"customer_id": "c-1001"})).await;
    assert_eq!(found["structuredContent"]["name"], "Nordlicht Optik");
    assert_eq!(found["isError"], false);
    assert_eq!(
        text(&call(&demo, "delete_customer", json!({"customer_id": "c-1001"})).await),
        "customer c-1001 is deleted"
    );
    let gone = call(&demo, "crm_lookup", json!({"customer_id": "c-1001"})).await;
    assert_eq!((gone["isError"].clone(), text(&gone)), (json!(true), "the CRM has no customer of this id"));
    let odd = call(&demo, "crm_lookup", json!({"customer_id": "../../c-1002?x#y"})).await;
    assert_eq!(odd["isError"], true);
}

#[tokio::test]
async fn the_register_answers_nobody_without_the_secret() {
    let crm = Crm::start(TOKEN).await.unwrap();
    let wrong = CrmClient::new(crm.address(), "another-token".into()).unwrap();
    tokio::select! {
        found = wrong.customer(http::Method::GET, "c-1001") => {
            assert_eq!(found.unwrap_err().to_string(), "the CRM answered with status 401");
        }
        _ = crm.serve() => unreachable!("the register serves for ever"),
    }
}

#[tokio::test]
async fn the_secret_is_given_away_in_every_encoding_that_is_asked_for() {
    let demo = connected().await;
    let scanner = Scanner::new();
    let _hold = scanner.hold(SECRET, &TOKEN.into()).unwrap();
    for encoding in ["plain", "base64", "base64url", "hex", "url", "json"] {
        let mut leaked = call(&demo, "leak_secret", json!({"encoding": encoding})).await;
        assert_eq!(scanner.redact_json(&mut leaked).len(), 1, "{encoding}: {leaked}");
        assert!(text(&leaked).contains("[redacted:demo_crm_token]"), "{leaked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_report_tells_progress_and_can_be_cancelled() {
    let demo = connected().await;
    let params = to_raw(&json!({"name": "slow_report", "arguments": {"seconds": 3}}));
    let (progress, mut told) = mpsc::channel(16);
    let with_progress = CallOptions { progress: Some(progress), ..options() };
    let Ok(Answer::Result(done)) = demo.call("tools/call", RawObject::read(&params), with_progress).await
    else {
        panic!("a report")
    };
    assert!(done.get().contains("report of 3 parts"));
    let steps: Vec<Value> = std::iter::from_fn(|| told.try_recv().ok()).collect();
    assert_eq!(steps.iter().map(|s| s["progress"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);

    let cancel = CancellationToken::new();
    let params = to_raw(&json!({"name": "slow_report", "arguments": {"seconds": 60}}));
    let cancellable = CallOptions { cancel: cancel.clone(), ..CallOptions::within(Duration::from_secs(100)) };
    let report = demo.call("tools/call", RawObject::read(&params), cancellable);
    let (outcome, ()) = tokio::join!(report, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap_err(), StdioError::Cancelled);
    assert_eq!(call(&demo, "whoami", json!({})).await["structuredContent"]["server"], "demo");
}

#[tokio::test]
async fn the_environment_and_the_names_of_secrets_are_told() {
    let demo = connected().await;
    let environment = call(&demo, "echo_environment", json!({})).await;
    assert_eq!(environment["structuredContent"]["SYSTEMPROMPT_SERVER"], "demo");
    let own = call(&demo, "whoami", json!({})).await;
    assert_eq!(own["structuredContent"], json!({"server": "demo", "secrets": ["DEMO_CRM_TOKEN"]}));
}

#[tokio::test]
async fn bad_calls_get_clear_answers() {
    let demo = connected().await;
    assert_eq!(call(&demo, "no_such_tool", json!({})).await["error"]["code"], -32602);
    for (tool, arguments) in [
        ("crm_lookup", json!({})),
        ("crm_lookup", json!({"customer_id": 7})),
        ("leak_secret", json!({"encoding": "rot13"})),
        ("slow_report", json!({"seconds": 100_000})),
        ("whoami", json!({"x": 1})),
    ] {
        let answer = call(&demo, tool, arguments.clone()).await;
        assert_eq!(answer["isError"], true, "{tool} {arguments}: {answer}");
    }
    let unknown = demo.call("resources/list", None, options()).await.unwrap();
    assert!(matches!(unknown, Answer::Error(e) if e.get().contains("-32601")));
}

#[tokio::test]
async fn the_handshake_and_the_list_are_as_the_protocol_says() {
    let demo = connected().await;
    let params = to_raw(
        &json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
    );
    let Answer::Result(hello) = demo.call("initialize", RawObject::read(&params), options()).await.unwrap()
    else {
        panic!("a handshake")
    };
    let hello: Value = serde_json::from_str(hello.get()).unwrap();
    assert_eq!(
        (hello["protocolVersion"].as_str(), hello["serverInfo"]["name"].as_str()),
        (Some("2025-06-18"), Some("demo"))
    );
    let Answer::Result(list) = demo.call("tools/list", None, options()).await.unwrap() else {
        panic!("a list")
    };
    let list: Value = serde_json::from_str(list.get()).unwrap();
    let names: Vec<&str> =
        list["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["crm_lookup", "echo_environment", "leak_secret", "slow_report", "delete_customer", "whoami"]
    );
    assert_eq!(list["tools"][4]["annotations"]["destructiveHint"], true);
}
