use super::*;
use crate::governance::{CallFacts, Chain, LinkResult, Origin, Segment};
use crate::governance::{GovernanceExtension, Parts, Pipeline, RateLimiter, SecretScanner};
use systemprompt_audit::testing::ledger;
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, sql};
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{CallId, TraceId};
use systemprompt_models::{ManualClock, Principal, RequestContext};

const NOW: Millis = 1_800_000_000_000;
const KEY: &str = "AKIAC6O6OYA7VNGCNGSU";

async fn engines() -> [TestDb; 2] {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(GovernanceExtension.migrations());
    databases(&migrations).await
}

/// A node: its rows and the pipeline that asks them.
async fn node(
    db: &TestDb,
    ledger: &systemprompt_audit::Ledger,
    clock: &ManualClock,
) -> (AllowStore, Pipeline) {
    let scanner = SecretScanner::builtin_with_key(&[7; 32]).unwrap();
    let parts = Parts::new(Arc::new(scanner), Arc::new(RateLimiter::new()), Arc::new(clock.clone()));
    let list = parts.allowed.clone();
    let store =
        AllowStore::open((**db).clone(), ledger.clone(), Arc::new(clock.clone()), list).await.unwrap();
    (store, Pipeline::from_config(&GovernanceConfig::default(), &parts).unwrap())
}

fn by() -> RequestContext {
    RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate())
}

fn new() -> NewAllowance {
    NewAllowance {
        rule_id: "aws-access-key-id".to_owned(),
        hmac: None,
        tool: None,
        pointer: None,
        reason: "an example of the documentation".to_owned(),
        owner: "platform team".to_owned(),
        expires_in_s: None,
    }
}

fn known(id: &str) -> bool {
    id == "aws-access-key-id"
}

async fn call(pipeline: &Pipeline, tool: &str, body: &str) -> Chain {
    let principal = Principal::anonymous();
    let segments = [Segment { pointer: "/tool_input".into(), json: body.as_bytes() }];
    let (call_id, trace_id, names) = (CallId::generate(), TraceId::generate(), pipeline.names([]));
    let facts = CallFacts {
        call_id: &call_id,
        counted: true,
        origin: Origin::Hook,
        principal: &principal,
        permissions: &[],
        tool: Some(tool),
        server: None,
        plugin: None,
        agent: None,
        agent_scope: None,
        context_id: None,
        task_id: None,
        trace_id: &trace_id,
        act_chain: &[],
        segments: &segments,
        refused_before: &[],
        names: &names,
    };
    pipeline.evaluate(&facts).await
}

fn body(key: &str) -> String {
    serde_json::json!({"text": format!("use {key}")}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lets_its_value_pass_here_at_once_and_elsewhere_after_the_next_question() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let ledger = ledger(&db, &[]).await;
        let (one, pipeline) = node(&db, &ledger, &clock).await;
        let (two, other) = node(&db, &ledger, &clock).await;
        let refused = call(&pipeline, "Write", &body(KEY)).await;
        assert_eq!(refused.policy(), "secret_scan");
        let hmac = refused.findings[0].hmac.to_string();
        let entry = one.add(&by(), NewAllowance { hmac: Some(hmac), ..new() }, &known).await.unwrap();

        let allowed = call(&pipeline, "Write", &body(KEY)).await;
        assert!(allowed.is_allowed(), "{allowed:?}");
        let link = allowed.links.iter().find(|l| &*l.policy_id == "secret_scan").unwrap();
        assert_eq!((link.result, &*link.allowed_by), (LinkResult::Pass, &[Arc::clone(&entry.id)][..]));
        assert_eq!(allowed.findings[0].allowed_by.as_ref(), Some(&entry.id));
        assert!(allowed.evaluated_rules().contains(&format!("\"allowed_by\":[\"{}\"]", entry.id)));
        // Another key of the same rule is none of it.
        assert!(!call(&pipeline, "Write", &body("AKIAU4STUZUR7HXHAV3O")).await.is_allowed());

        assert!(!call(&other, "Write", &body(KEY)).await.is_allowed());
        two.refresh().await.unwrap();
        assert!(call(&other, "Write", &body(KEY)).await.is_allowed());

        two.remove(&by(), &entry.id).await.unwrap();
        assert!(!call(&other, "Write", &body(KEY)).await.is_allowed());
        one.refresh().await.unwrap();
        assert!(!call(&pipeline, "Write", &body(KEY)).await.is_allowed());
        assert!(matches!(two.remove(&by(), &entry.id).await, Err(AllowError::NotFound(_))));

        let rows: Vec<(String, String)> = on!(&*db, pool => sqlx::query_as(sql!(
            "SELECT kind, record FROM ledger_entries WHERE kind LIKE 'admin.allowlist.%' ORDER BY seq"
        )).fetch_all(pool).await)
        .unwrap();
        let kinds: Vec<&str> = rows.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["admin.allowlist.added", "admin.allowlist.removed"]);
        assert!(rows.iter().all(|(_, record)| record.contains(&*entry.id) && !record.contains(KEY)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_narrowed_by_tool_place_and_time() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let ledger = ledger(&db, &[]).await;
        let (store, pipeline) = node(&db, &ledger, &clock).await;
        for (entry, tool, allowed) in [
            (NewAllowance { tool: Some("mcp__docs__*".into()), ..new() }, "mcp__docs__write", true),
            (NewAllowance { tool: Some("mcp__docs__*".into()), ..new() }, "Write", false),
            (NewAllowance { pointer: Some("/tool_input/*".into()), ..new() }, "Write", true),
            (NewAllowance { pointer: Some("/tool_input/other".into()), ..new() }, "Write", false),
            (NewAllowance { expires_in_s: Some(60), ..new() }, "Write", true),
        ] {
            let made = store.add(&by(), entry.clone(), &known).await.unwrap();
            assert_eq!(call(&pipeline, tool, &body(KEY)).await.is_allowed(), allowed, "{entry:?}");
            if made.expires_at.is_none() {
                store.remove(&by(), &made.id).await.unwrap();
            }
        }
        clock.advance(59_000);
        store.refresh().await.unwrap();
        assert!(call(&pipeline, "Write", &body(KEY)).await.is_allowed());
        clock.advance(1_000);
        assert!(!call(&pipeline, "Write", &body(KEY)).await.is_allowed());
        assert!(store.page("", 10).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_confirmed_for_a_minute_lets_nothing_pass() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let ledger = ledger(&db, &[]).await;
        let (store, pipeline) = node(&db, &ledger, &clock).await;
        store.add(&by(), NewAllowance { tool: Some("Write".into()), ..new() }, &known).await.unwrap();
        clock.advance(MAX_AGE);
        assert!(call(&pipeline, "Write", &body(KEY)).await.is_allowed());
        clock.advance(1);
        assert!(!call(&pipeline, "Write", &body(KEY)).await.is_allowed());
        store.refresh().await.unwrap();
        assert!(call(&pipeline, "Write", &body(KEY)).await.is_allowed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_too_little_or_nonsense_is_refused_with_the_field() {
    let [db, _] = engines().await;
    let ledger = ledger(&db, &[]).await;
    let (store, _) = node(&db, &ledger, &ManualClock::at(NOW)).await;
    for (entry, field) in [
        (new(), "rule_id"),
        (NewAllowance { tool: Some("*".into()), ..new() }, "rule_id"),
        (NewAllowance { tool: Some("**".into()), pointer: Some("/*".into()), ..new() }, "rule_id"),
        (NewAllowance { rule_id: "aws".into(), tool: Some("x".into()), ..new() }, "rule_id"),
        (NewAllowance { hmac: Some(KEY.into()), ..new() }, "hmac"),
        (NewAllowance { tool: Some(String::new()), ..new() }, "tool"),
        (NewAllowance { pointer: Some("x".into()), ..new() }, "pointer"),
        (NewAllowance { reason: "  ".into(), tool: Some("x".into()), ..new() }, "reason"),
        (NewAllowance { owner: "o".repeat(201), tool: Some("x".into()), ..new() }, "owner"),
        (NewAllowance { expires_in_s: Some(0), ..new() }, "expires_in_s"),
    ] {
        match store.add(&by(), entry.clone(), &known).await {
            Err(AllowError::Invalid { field: told, .. }) => assert_eq!(told, field, "{entry:?}"),
            other => panic!("{entry:?}: {other:?}"),
        }
    }
}
