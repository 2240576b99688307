//! The whole plane against a child that is a shell script, on both engines.

use super::*;
use crate::wire::reply::McpBody;
use crate::{McpExtension, TABLES};
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Duration;
use systemprompt_audit::testing as ledgers;
use systemprompt_audit::verify::{Scope, verify};
use systemprompt_config::profile::governance::ActorCheck;
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension;
use systemprompt_models::ids::{SessionId, TraceId, UserId};
use systemprompt_models::{CredentialKind, Permission, Principal, SystemClock, UserType};
use systemprompt_security::authz::{
    Access, AuthzExtension, EntityKind, GovernanceDecision, GovernanceDecisionRepository, RuleHook,
    RuleStore, RuleType, UpsertRuleParams,
};
use systemprompt_security::governance::{Parts, Pipeline, RateLimiter, SecretScanner};

const SECRET: &str = "crm-token/+with?specials";

/// A server in a few lines of shell: it answers what the tests ask, and counts its calls in a file.
const FIXTURE: &str = r#"
say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
text() { say "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }
tool() { printf '{"name":"%s","inputSchema":{"type":"object"%s}}' "$1" "$2"; }
echo "starting with $crm_token" >&2
echo "this is no message"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/^{"jsonrpc":"2.0","id":\([0-9]*\),.*/\1/p')
  case "$line" in *'"tools/call"'*) echo x >> "$COUNTER";; esac
  case "$line" in
    *'"method":"initialize"'*)
      say '"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"fixture","version":"1"},"instructions":"be kind"}';;
    *'"method":"tools/list"'*)
      say "\"result\":{\"tools\":[$(tool zeta),$(tool names ',"additionalProperties":false'),$(tool leak),$(tool crash),$(tool hang),$(tool slow),$(tool fail),$(tool error),$(tool hidden),$(tool delete_all),$(tool split),$(tool partial),$(tool twice),$(tool echo ',"properties":{"short":{"type":"string","maxLength":30}}')]}";;
    *'"name":"names"'*) text "$(env | sed 's/=.*//' | sort | tr '\n' ' ')";;
    *'"name":"leak"'*) text "it is $crm_token and $(printf '%s' "$crm_token" | base64 | tr -d '\n')";;
    *'"name":"split"'*)
      say "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"one ${crm_token%?????????}\"},{\"type\":\"text\",\"text\":\"${crm_token#???????????????} two\"}]}";;
    *'"name":"partial"'*)
      text "$(printf '%s' "$crm_token" | sed 's/-/%2d/') $(printf '%s' "$crm_token" | sed 's/w/\\\\u0077/') $(printf '%s' "$crm_token" | sed 's/o/o\xe2\x80\x8b/') $(printf '%s' "$crm_token" | sed 's/t/\\\\nt/g')";;
    *'"name":"echo"'*) printf '%s\n' "$line" >> "$COUNTER.lines"; text heard;;
    *'"name":"twice"'*) say "\"result\":{\"content\":[],\"note\":\"$crm_token\",\"note\":\"fine\"}";;
    *'"name":"crash"'*) exit 3;;
    *'"name":"fail"'*) say '"result":{"content":[{"type":"text","text":"no luck"}],"isError":true}';;
    *'"name":"error"'*) say "\"error\":{\"code\":-32055,\"message\":\"bad $crm_token\"}";;
    *'"name":"slow"'*)
      printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1,"message":"at %s"}}\n' "$id" "$crm_token"
      sleep 0.2; text done;;
    *'"name":"zeta"'*) say '"result":{ "content" : [ ], "n": 1.50 }';;
    *'"method":"notifications/cancelled"'*) echo cancelled >> "$COUNTER";;
  esac
done
"#;

/// A node with one server `fixture`, which role user may use.
struct World {
    mcp: McpService,
    db: TestDb,
    ledger: Ledger,
    store: RuleStore,
    tasks: Tasks,
    scanner: Scanner,
    folder: tempfile::TempDir,
    log: Mutex<i64>,
}

fn context(user: &str, roles: &[&str], permissions: &[Permission]) -> RequestContext {
    let principal = Principal {
        user_id: UserId::new(user),
        session_id: SessionId::new(format!("ses_{user}")),
        permissions: permissions.to_vec(),
        user_type: UserType::of(permissions),
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        credential: CredentialKind::Token { jti: "jti_test".into() },
        ..Principal::anonymous()
    };
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

fn bob() -> RequestContext {
    context("bob", &["user"], &[Permission::User, Permission::Mcp])
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("accept", "application/json, text/event-stream".parse().unwrap());
    headers
}

fn tables() -> Vec<&'static systemprompt_audit::Table> {
    let mut tables = TABLES.to_vec();
    tables.extend(AuthzExtension.tables());
    tables
}

async fn worlds() -> Vec<World> {
    let mut migrations = ledgers::migrations();
    migrations.extend(AuthzExtension.migrations());
    migrations.extend(McpExtension.migrations());
    let mut worlds = Vec::new();
    for db in databases(&migrations).await {
        worlds.push(World::new(db).await);
    }
    worlds
}

impl World {
    async fn new(db: TestDb) -> Self {
        let ledger = ledgers::ledger(&db, &tables()).await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store =
            RuleStore::load(db.clone(), ledger.clone(), Arc::clone(&clock), Bridge::default()).await.unwrap();
        let (scanner, tasks) = (Scanner::new(), Tasks::default());
        let parts = Parts::new(
            Arc::new(SecretScanner::builtin().unwrap()),
            Arc::new(RateLimiter::new()),
            Arc::clone(&clock),
        );
        let parts = Parts { in_use: scanner.clone(), ..parts };
        let pipeline = Pipeline::from_config(&GovernanceConfig::default(), &parts).unwrap();
        let hook = Arc::new(RuleHook::new(store.clone(), ActorCheck::DenyOnly));
        let plane = DecisionPlane::new(hook, pipeline, ledger.clone(), Arc::clone(&clock));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fixture.sh"), FIXTURE).unwrap();
        let options = McpOptions {
            node: "test".into(),
            executable: "/nonexistent".into(),
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            data_dir: folder.path().join("data"),
            services_dir: folder.path().to_owned(),
            external_url: "http://localhost:8080".into(),
            digest_key: hmac::Key::new(hmac::HMAC_SHA256, b"a test's key"),
        };
        let parts = McpParts {
            db: db.clone(),
            ledger: ledger.clone(),
            plane,
            scanner: scanner.clone(),
            clock,
            tasks: tasks.clone(),
        };
        let mcp = McpService::new(options, parts);
        let world = Self { mcp, db, ledger, store, tasks, scanner, folder, log: Mutex::new(0) };
        world.configure(&json!({}));
        world.rule(EntityKind::McpServer, "fixture", "user", Access::Allow).await;
        world
    }

    /// The fixture's definition with `changes`.
    fn configure(&self, changes: &Value) {
        let mut config = json!({
            "type": "stdio", "command": "sh", "args": [self.folder.path().join("fixture.sh")],
            "secrets": ["crm_token"], "env": {"COUNTER": self.folder.path().join("calls")},
            "tools": {"deny": ["hid*"]}, "timeouts": {"call_ms": 5000},
        });
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        let config = serde_json::from_value(config).unwrap();
        let secrets = Secrets::parse(&json!({"crm_token": SECRET}).to_string()).unwrap();
        self.mcp.configure(&BTreeMap::from([("fixture".to_owned(), config)]), &secrets);
    }

    async fn rule(&self, kind: EntityKind, id: &str, role: &str, access: Access) {
        let admin = context("ada", &["admin"], &[Permission::Admin]);
        self.store.put_entity(&admin, kind, id, None, false, "seed").await.unwrap();
        let params = UpsertRuleParams {
            entity_type: kind,
            entity_id: id.into(),
            is_pattern: false,
            rule_type: RuleType::Role,
            rule_value: role.into(),
            access,
            justification: None,
            source: "seed",
            created_by: "ada".into(),
        };
        self.store.put_rule(&admin, &params).await.unwrap();
    }

    /// Puts policies in force; the values in use stay looked for.
    fn govern(&self, config: Value) {
        let parts = Parts::new(
            Arc::new(SecretScanner::builtin().unwrap()),
            Arc::new(RateLimiter::new()),
            Arc::new(SystemClock),
        );
        let parts = Parts { in_use: self.scanner.clone(), ..parts };
        let config: GovernanceConfig = serde_json::from_value(config).unwrap();
        self.mcp.0.plane.swap_pipeline(Pipeline::from_config(&config, &parts).unwrap());
    }

    /// The requests that the tool `echo` was called with, as they came.
    fn heard(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("calls.lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The newest decision on a call.
    async fn decision(&self) -> GovernanceDecision {
        let decisions = GovernanceDecisionRepository::new(self.db.clone());
        decisions.latest(None, None, 1).await.unwrap().pop().unwrap()
    }

    async fn post(&self, context: &RequestContext, body: &Value) -> McpReply {
        self.mcp.handle(context, "fixture", &headers(), body.to_string().into()).await
    }

    async fn ask(&self, context: &RequestContext, method: &str, params: Value) -> (u16, Value) {
        let reply =
            self.post(context, &json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})).await;
        (reply.status.as_u16(), body_of(reply).await)
    }

    async fn call(&self, tool: &str) -> Value {
        let (status, answer) = self.ask(&bob(), "tools/call", json!({"name": tool, "arguments": {}})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// How often the child was asked to call a tool.
    fn calls(&self) -> usize {
        let text = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().filter(|line| *line == "x").count()
    }

    /// Kinds and outcomes of the ledger since the last question.
    async fn records(&self) -> Vec<String> {
        let rows = self.ledger.reader().page(self.ledger.stream(), self.seen(), 1000).await.unwrap();
        if let Some(last) = rows.last() {
            *self.log.lock().unwrap() = last.seq;
        }
        rows.iter().map(|row| format!("{} {}", row.kind, row.outcome.as_deref().unwrap_or(""))).collect()
    }

    fn seen(&self) -> i64 {
        *self.log.lock().unwrap()
    }

    async fn executions(&self) -> Vec<crate::repository::tool_usage::Outcome> {
        ToolUsageRepository::new(self.db.clone()).outcomes().await.unwrap()
    }

    /// Ends everything, and checks that the ledger and its rows agree and that no value is anywhere.
    async fn finish(self) {
        self.mcp.drain().await;
        let report = verify(&self.ledger.reader(), &tables(), &Scope::default()).await.unwrap();
        assert!(report.is_intact(), "{:?}", report.findings);
        let rows = self.ledger.reader().page(self.ledger.stream(), 0, 10_000).await.unwrap();
        assert!(rows.iter().all(|row| !row.record.as_deref().unwrap_or("").contains(SECRET)));
        let log =
            std::fs::read_to_string(self.folder.path().join("data/logs/mcp/fixture.log")).unwrap_or_default();
        assert!(!log.contains(SECRET));
        let folders = std::fs::read_dir(self.folder.path().join("data/run/mcp")).map_or(0, Iterator::count);
        assert_eq!(folders, 0, "private folders are removed");
        assert!(self.tasks.drain(Duration::from_secs(5)).await, "no task stays behind");
        assert!(self.scanner.is_empty());
    }
}

async fn body_of(reply: McpReply) -> Value {
    match reply.body {
        McpBody::Json(body) => serde_json::from_slice(&body).unwrap(),
        McpBody::Empty => Value::Null,
        McpBody::Sse(mut events) => {
            let mut text = String::new();
            while let Some(event) = events.recv().await {
                text.push_str(std::str::from_utf8(&event).unwrap());
            }
            let messages = text.lines().filter_map(|line| line.strip_prefix("data: "));
            messages.map(|m| serde_json::from_str::<Value>(m).unwrap()).collect()
        }
    }
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn a_call_is_recorded_before_and_after_and_its_answer_keeps_its_bytes() {
    for world in worlds().await {
        world.records().await;
        let reply = world
            .post(
                &bob(),
                &json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "zeta"}}),
            )
            .await;
        let McpBody::Json(body) = reply.body else { panic!("json") };
        assert_eq!(body, r#"{"jsonrpc":"2.0","id":"a","result":{ "content" : [ ], "n": 1.50 }}"#);
        let expected = [
            "authz.decision allow",
            "mcp.child ok",
            "secret.leased ok",
            "governance.decision allow",
            "tool.opened opened",
            "tool.closed ok",
        ];
        assert_eq!(world.records().await, expected);
        world.call("zeta").await;
        assert_eq!(world.records().await, expected[3..], "the child runs already");
        assert!(world.executions().await.iter().all(|e| e.1 == "success" && e.3.is_some()));
        world.finish().await;
    }
}

#[tokio::test]
async fn a_child_gets_its_environment_and_nothing_else() {
    for world in worlds().await {
        let answer = world.call("names").await;
        let shell = ["PWD", "SHLVL", "OLDPWD", "_"];
        let names: Vec<&str> = text(&answer).split_whitespace().filter(|n| !shell.contains(n)).collect();
        let expected = [
            "COUNTER",
            "CRM_TOKEN",
            "HOME",
            "LANG",
            "LC_ALL",
            "PATH",
            "SYSTEMPROMPT_CUSTOM_SECRETS",
            "SYSTEMPROMPT_SERVER",
            "TMPDIR",
            "TZ",
            "crm_token",
        ];
        assert_eq!(names, expected);
        world.finish().await;
    }
}

#[tokio::test]
async fn values_in_use_leave_in_no_answer_error_or_progress() {
    for world in worlds().await {
        let leaked = world.call("leak").await;
        assert_eq!(text(&leaked), "it is [redacted:crm_token] and [redacted:crm_token]");
        let records = world.records().await;
        assert_eq!(records.iter().filter(|r| *r == "secret.leak redacted").count(), 2, "{records:?}");
        assert_eq!(
            world.call("error").await["error"],
            json!({"code": -32055, "message": "bad [redacted:crm_token]"})
        );
        let params = json!({"name": "slow", "arguments": {}, "_meta": {"progressToken": "mine"}});
        let (_, events) = world.ask(&bob(), "tools/call", params).await;
        assert_eq!(
            events[0]["params"],
            json!({"progressToken": "mine", "progress": 1, "message": "at [redacted:crm_token]"})
        );
        assert_eq!(text(&events[1]), "done");
        world.finish().await;
    }
}

#[tokio::test]
async fn values_that_are_cut_broken_or_hidden_leave_in_no_answer() {
    for world in worlds().await {
        let split = world.call("split").await;
        let texts: Vec<&Value> =
            split["result"]["content"].as_array().unwrap().iter().map(|c| &c["text"]).collect();
        assert_eq!(texts, ["one [redacted:crm_token]", "[redacted:crm_token] two"]);
        let partial = world.call("partial").await;
        assert_eq!(text(&partial), ["[redacted:crm_token]"; 4].join(" "));
        let twice = world
            .post(
                &bob(),
                &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "twice"}}),
            )
            .await;
        let McpBody::Json(body) = twice.body else { panic!("json") };
        assert_eq!(body, r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"note":"fine"}}"#);
        let records = world.records().await;
        assert_eq!(records.iter().filter(|r| *r == "secret.leak redacted").count(), 6, "{records:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_value_in_use_is_sent_to_no_tool() {
    for world in worlds().await {
        world.call("zeta").await;
        for arguments in [
            json!({"note": format!("use {SECRET}")}),
            json!({"note": hex::encode(SECRET)}),
            json!({SECRET: true}),
            json!({"note": SECRET.replace('t', "%74")}),
        ] {
            world.records().await;
            let params = json!({"name": "zeta", "arguments": arguments});
            let (_, answer) = world.ask(&bob(), "tools/call", params).await;
            let decision = &answer["result"]["_meta"]["io.systemprompt/decision"];
            assert_eq!(decision["code"], "secret_in_arguments", "{answer}");
            assert_eq!(decision["policy"], "secret_leak");
            assert!(
                text(&answer).contains("`crm_token`") && !answer.to_string().contains(SECRET),
                "{answer}"
            );
            assert_eq!(world.records().await, ["governance.decision deny", "secret.leak blocked"]);
        }
        assert_eq!(world.calls(), 1, "only the first call reached the child");
        world.finish().await;
    }
}

#[tokio::test]
async fn refusals_for_a_fault_of_the_call_are_recorded_and_ids_hold_no_secret() {
    for world in worlds().await {
        world.call("zeta").await;
        world.records().await;
        let (_, answer) =
            world.ask(&bob(), "tools/call", json!({"name": "names", "arguments": {"surplus": 1}})).await;
        let decision = answer["result"]["_meta"]["io.systemprompt/decision"].clone();
        assert_eq!(
            (&decision["code"], &decision["id"].is_string()),
            (&json!("invalid_arguments"), &true),
            "{answer}"
        );
        assert_eq!(world.records().await, ["governance.decision deny"]);
        assert_eq!(world.call("hidden").await["error"]["code"], -32602);
        assert_eq!(world.records().await, ["governance.decision deny"]);
        let once = RequestContext { ai_tool_call_id: Some("toolu_1".into()), ..bob() };
        for (code, records) in [(None, 4), (Some("duplicate_call"), 1)] {
            let (_, answer) = world.ask(&once, "tools/call", json!({"name": "zeta"})).await;
            let decision = &answer["result"]["_meta"]["io.systemprompt/decision"];
            assert_eq!(decision["code"].as_str(), code, "{answer}");
            let seen = world.records().await;
            assert!(
                seen.len() <= records && (code.is_none() || seen == ["governance.decision deny"]),
                "{seen:?}"
            );
        }
        let key = format!("AKIA{}", "QYLPMN5HNM5HRPXW");
        let told =
            RequestContext { ai_tool_call_id: Some(key.clone()), task_id: Some(SECRET.into()), ..bob() };
        world.ask(&told, "tools/call", json!({"name": "zeta"})).await;
        let rows = world.ledger.reader().page(world.ledger.stream(), 0, 10_000).await.unwrap();
        assert!(rows.iter().all(|row| !row.record.as_deref().unwrap_or("").contains(&key)));
        world.finish().await;
    }
}

#[tokio::test]
async fn denials_are_recorded_and_reach_no_child() {
    for world in worlds().await {
        let stranger = context("eve", &["guest"], &[Permission::User, Permission::Mcp]);
        for method in ["initialize", "tools/list", "tools/call", "ping"] {
            world.records().await;
            let (status, answer) =
                world.ask(&stranger, method, json!({"name": "zeta", "protocolVersion": "2025-11-25"})).await;
            assert_eq!((status, answer["error"]["code"].as_i64()), (403, Some(4030)), "{method}: {answer}");
            assert!(answer["error"]["data"]["decision_id"].as_str().is_some_and(|id| id.starts_with("dec_")));
            assert_eq!(world.records().await, ["authz.decision deny"], "{method}");
        }
        let unscoped = context("bob", &["user"], &[Permission::User]);
        let reply = world.post(&unscoped, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await;
        assert_eq!(reply.status, 403);
        assert!(reply.headers["www-authenticate"].to_str().unwrap().contains("insufficient_scope"));
        assert_eq!(world.records().await, ["authz.decision deny"]);
        let nobody = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
        let reply = world.post(&nobody, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await;
        assert_eq!(reply.status, 401);
        assert!(reply.headers["www-authenticate"].to_str().unwrap().contains("/api/v1/mcp/fixture/mcp"));
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        let elsewhere = world.mcp.handle(&bob(), "absent", &headers(), ping.into()).await;
        assert_eq!(elsewhere.status, 404);
        assert_eq!(world.calls(), 0);
        assert!(world.mcp.registry().get("fixture").is_some());
        world.finish().await;
    }
}

#[tokio::test]
async fn a_refused_call_is_a_result_that_says_why() {
    for world in worlds().await {
        world.rule(EntityKind::McpTool, "fixture/zeta", "user", Access::Deny).await;
        let key = format!("AKIA{}", "QYLPMN5HNM5HRPXW");
        for (tool, arguments, code) in [
            ("zeta", json!({}), "denied_by_policy"),
            ("delete_all", json!({}), "governance_denied"),
            ("leak", json!({"note": format!("aws_access_key_id = {key}")}), "secret_in_arguments"),
            ("names", json!({"surplus": 1}), "invalid_arguments"),
        ] {
            let (status, answer) =
                world.ask(&bob(), "tools/call", json!({"name": tool, "arguments": arguments})).await;
            let decision = &answer["result"]["_meta"]["io.systemprompt/decision"];
            assert_eq!(
                (status, answer["result"]["isError"].as_bool(), decision["code"].as_str()),
                (200, Some(true), Some(code)),
                "{answer}"
            );
            assert!(!answer.to_string().contains(&key));
            assert!(decision["id"].is_string(), "{decision}");
        }
        assert_eq!(world.calls(), 0);
        assert!(world.executions().await.is_empty());
        for tool in ["hidden", "no_such_tool"] {
            assert_eq!(world.call(tool).await["error"]["code"], -32602, "{tool}");
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn a_list_holds_what_may_be_used_in_the_servers_order_and_is_one_record() {
    for world in worlds().await {
        world.rule(EntityKind::McpTool, "fixture/leak", "user", Access::Deny).await;
        world.ask(&bob(), "tools/list", json!({})).await;
        world.records().await;
        let (_, list) = world.ask(&bob(), "tools/list", json!({})).await;
        let names: Vec<&str> =
            list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "zeta",
                "names",
                "crash",
                "hang",
                "slow",
                "fail",
                "error",
                "delete_all",
                "split",
                "partial",
                "twice",
                "echo"
            ]
        );
        assert_eq!(world.records().await, ["authz.decision allow"]);
        let (_, bad) = world.ask(&bob(), "tools/list", json!({"cursor": "x"})).await;
        assert_eq!(bad["error"]["code"], -32602);
        let lists = world.mcp.loader().load_tools_for_servers(&bob(), &["fixture", "absent"]).await.unwrap();
        assert_eq!((lists.len(), lists[0].tools.len()), (1, 12));
        world.finish().await;
    }
}

#[tokio::test]
async fn outcomes_of_calls_are_told_apart() {
    for world in worlds().await {
        assert_eq!(text(&world.call("fail").await), "no luck");
        assert_eq!(world.call("error").await["error"]["code"], -32055);
        assert_eq!(world.call("crash").await["error"]["code"], 5020);
        world.configure(&json!({"timeouts": {"call_ms": 300}}));
        assert_eq!(world.call("hang").await["error"]["code"], 5040);
        let rows: Vec<_> =
            world.executions().await.into_iter().map(|(t, s, k, _)| (t, s, k.unwrap_or_default())).collect();
        let row = |t: &str, s: &str, k: &str| (t.to_owned(), s.to_owned(), k.to_owned());
        let expected = [
            row("fail", "failed", "tool"),
            row("error", "failed", "protocol"),
            row("crash", "failed", "upstream_crashed"),
            row("hang", "timeout", "timeout"),
        ];
        assert_eq!(rows, expected);
        let records = world.records().await;
        assert!(records.contains(&"mcp.child failed".to_owned()), "the crash: {records:?}");
        assert_eq!(
            records.iter().filter(|r| *r == "secret.leased ok").count(),
            2,
            "started again: {records:?}"
        );
        world.finish().await;
    }
}

#[tokio::test]
async fn a_client_cancels_its_own_call_and_the_child_is_told() {
    for world in worlds().await {
        world.call("zeta").await;
        let (ada, hang) = (context("ada", &["user"], &[Permission::Mcp]), json!({"name": "hang"}));
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
        let caller = bob();
        let (answer, ()) = tokio::join!(world.ask(&caller, "tools/call", hang), async {
            while world.calls() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(world.post(&ada, &cancel).await.status, 202);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(world.post(&bob(), &cancel).await.status, 202);
        });
        assert_eq!(answer.1["error"]["code"], 4990);
        assert_eq!(world.executions().await[1].1, "cancelled");
        assert_eq!(text(&world.call("fail").await), "no luck", "the child goes on");
        let told = std::fs::read_to_string(world.folder.path().join("calls")).unwrap();
        assert!(told.contains("cancelled"));
        world.finish().await;
    }
}

#[tokio::test]
async fn a_tool_use_runs_once() {
    for world in worlds().await {
        let twice = RequestContext { ai_tool_call_id: Some("toolu_1".into()), ..bob() };
        let other = RequestContext {
            ai_tool_call_id: Some("toolu_1".into()),
            ..context("ada", &["user"], &[Permission::Mcp])
        };
        let params = json!({"name": "fail"});
        assert_eq!(text(&world.ask(&twice, "tools/call", params.clone()).await.1), "no luck");
        let (_, again) = world.ask(&twice, "tools/call", params.clone()).await;
        assert_eq!(again["result"]["_meta"]["io.systemprompt/decision"]["code"], "duplicate_call");
        assert_eq!(text(&world.ask(&other, "tools/call", params).await.1), "no luck", "of another principal");
        assert_eq!((world.calls(), world.executions().await.len()), (2, 2));
        world.finish().await;
    }
}

#[tokio::test]
async fn the_handshake_negotiates_and_tells_what_the_server_is() {
    for world in worlds().await {
        for (wanted, got) in
            [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"), ("1999-01-01", "2025-11-25")]
        {
            let (status, hello) =
                world.ask(&bob(), "initialize", json!({"protocolVersion": wanted, "capabilities": {}})).await;
            assert_eq!(status, 200);
            assert_eq!(
                hello["result"],
                json!({
                    "protocolVersion": got, "capabilities": {"tools": {}}, "instructions": "be kind",
                    "serverInfo": {"name": "fixture", "version": "1"},
                })
            );
        }
        assert_eq!(world.ask(&bob(), "initialize", json!({})).await.1["error"]["code"], -32602);
        assert_eq!(world.ask(&bob(), "ping", json!({})).await.1["result"], json!({}));
        assert_eq!(world.ask(&bob(), "resources/list", json!({})).await.1["error"]["code"], -32601);
        let discover = world
            .ask(
                &bob(),
                "server/discover",
                json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
            )
            .await;
        assert_eq!(
            (discover.0, discover.1["error"]["code"].as_i64(), discover.1["id"].as_i64()),
            (400, Some(-32601), Some(7))
        );
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(world.post(&bob(), &note).await.status, 202);
        assert_eq!(world.post(&bob(), &json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await.status, 400);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_is_unreachable_and_its_leases_end() {
    for world in worlds().await {
        for changes in [
            json!({"command": "/nonexistent/program"}),
            json!({"args": ["-c", "exit 1"]}),
            json!({"args": ["-c", "sleep 30"], "timeouts": {"initialize_ms": 200}}),
            json!({"secrets": ["absent_secret"]}),
        ] {
            world.configure(&changes);
            let answer = world.call("zeta").await;
            assert_eq!(answer["error"]["code"], 5031, "{changes}: {answer}");
            assert!(!answer.to_string().contains("nonexistent") && !answer.to_string().contains("absent"));
        }
        let mut records = Vec::new();
        let count = |records: &[String], what: &str| records.iter().filter(|r| *r == what).count();
        while count(&records, "secret.ended ok") < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            records.extend(world.records().await);
        }
        assert_eq!(count(&records, "secret.leased ok"), 3, "{records:?}");
        assert!(world.executions().await.is_empty());
        world.finish().await;
    }
}

#[tokio::test]
async fn an_unwritable_ledger_keeps_the_call_from_the_child() {
    for world in worlds().await {
        world.call("zeta").await;
        world.ledger.stop().await;
        let reply = world
            .post(
                &bob(),
                &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "zeta"}}),
            )
            .await;
        assert_eq!((reply.status.as_u16(), reply.headers["retry-after"].to_str().unwrap()), (503, "1"));
        assert_eq!(body_of(reply).await["error"]["code"], 5030);
        assert_eq!(world.calls(), 1);
    }
}

#[tokio::test]
async fn what_an_unclean_end_left_open_is_closed_once() {
    for world in worlds().await {
        let mut unit = systemprompt_audit::Unit::new();
        let usage = ToolUsageRepository::new(world.db.clone());
        let new = crate::repository::tool_usage::NewExecution {
            tool: "zeta",
            server: "fixture",
            instance: &"chd_gone".into(),
            source: crate::repository::tool_usage::CallSource::Mcp,
            decision: "dec_x".into(),
            leases: &[],
            node: "test",
            input_digest: "00".into(),
            input_bytes: 2,
            started_at: 1,
        };
        usage.start_execution(&mut unit, &bob(), new);
        let lease = crate::repository::secret_leases::Lease {
            id: systemprompt_models::ids::LeaseId::generate(),
            secret: "crm_token".into(),
            server: "fixture".into(),
            child: "chd_gone".into(),
        };
        let draft = systemprompt_audit::Draft::new(systemprompt_audit::EntryKind::SecretLeased, &bob(), "ok");
        LeaseRepository::new(world.db.clone()).grant(&mut unit, draft, "test", &lease, 1);
        world.ledger.append(unit).await.unwrap();
        world.records().await;
        assert_eq!(world.mcp.recover().await.unwrap(), 2);
        assert_eq!(world.records().await, ["tool.closed interrupted", "secret.ended ok"]);
        assert_eq!(world.mcp.recover().await.unwrap(), 0);
        let row = &world.executions().await[0];
        assert_eq!((row.1.as_str(), row.2.as_deref()), ("failed", Some("gateway_restart")));
        world.finish().await;
    }
}

#[tokio::test]
async fn children_follow_the_configuration() {
    for world in worlds().await {
        world.call("zeta").await;
        world.configure(&json!({"lifecycle": {"start": "always"}, "description": "changed"}));
        world.mcp.sweep().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let records = world.records().await;
        assert_eq!(
            records.iter().filter(|r| *r == "mcp.child ok").count(),
            3,
            "start, exit, start: {records:?}"
        );
        let oversized =
            json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "y".repeat(2000)}});
        world.configure(&json!({"limits": {"request_bytes": 1024}}));
        assert_eq!(world.post(&bob(), &oversized).await.status, 413);
        world.finish().await;
    }
}

/// Redaction of what a specific rule knows.
fn with_action(action: &str) -> Value {
    json!({"policies": [{"id": "secret_scan", "params": {"actions": {"specific": action}}}]})
}

fn key() -> String {
    ["AKIA", "QYLPMN5HHHFPZAM2"].concat()
}

#[tokio::test]
async fn a_call_goes_on_with_marks_in_place_of_its_secrets_and_they_are_what_is_kept() {
    for world in worlds().await {
        world.govern(with_action("redact"));
        let arguments = format!(
            r#"{{ "note" : "use {0}, not {0}x","n": 1.50,"{0}":[true],"more":{{"b64":"{1}"}}}}"#,
            key(),
            base64(&format!("export AWS_KEY={}", key())),
        );
        let meta = format!(r#"{{"who": "{}"}}"#, key());
        let call = |id: u8| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{arguments},"_meta":{meta}}}}}"#
            )
        };
        for id in [1, 2] {
            let reply = world.mcp.handle(&bob(), "fixture", &headers(), call(id).into()).await;
            let answer = body_of(reply).await;
            assert_eq!(text(&answer), "heard", "{answer}");
        }
        let heard = world.heard();
        assert!(heard.iter().all(|line| !line.contains(&key()) && !line.contains(&arguments)), "{heard:?}");
        let marks = |line: &str| line.matches("[secret:aws-access-key-id:").count();
        assert_eq!(heard.iter().map(|line| marks(line)).collect::<Vec<_>>(), [5, 5], "{heard:?}");
        let mark = &heard[0][heard[0].find("[secret:").unwrap()..];
        let mark = &mark[..=mark.find(']').unwrap()];
        assert!(
            heard.iter().all(|line| line.matches(mark).count() == 5),
            "one mark for one secret: {heard:?}"
        );
        assert!(
            heard[0].contains(&format!(r#" "note" : "use {mark}, not {mark}x","n": 1.50,"#)),
            "{}",
            heard[0]
        );

        let decision = world.decision().await;
        assert_eq!((decision.decision.as_str(), decision.tool_name.as_deref()), ("allow", Some("echo")));
        assert!(!decision.findings.as_array().unwrap().is_empty());
        let request: Value = serde_json::from_str(&heard[1]).unwrap();
        let sent = serde_json_canonicalizer::to_vec(&request["params"]["arguments"]).unwrap();
        let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sent));
        assert_eq!(decision.args_sha256, Some(digest), "the record is about what was sent");
        let entry = world.ledger.reader().by_id(&decision.ledger_opened).await.unwrap().unwrap();
        let record: Value = serde_json::from_str(entry.record.as_deref().unwrap()).unwrap();
        assert_eq!(record["detail"]["redacted_segments"], 2);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_call_that_a_mark_would_break_is_refused_and_says_why() {
    for world in worlds().await {
        world.govern(with_action("redact"));
        let short = json!({"name": "echo", "arguments": {"short": key()}});
        let (_, answer) = world.ask(&bob(), "tools/call", short).await;
        let told = text(&answer);
        assert!(told.contains("secret_scan") && told.contains("do not fit the tool's inputSchema"), "{told}");
        // A secret in the id of a call cannot be taken out of it.
        let named = json!({"name": "echo", "arguments": {}, "_meta": {"claudecode/toolUseId": key()}});
        let (_, answer) = world.ask(&bob(), "tools/call", named).await;
        assert!(text(&answer).contains("cannot be replaced by a mark"), "{answer}");
        assert_eq!((world.calls(), world.decision().await.decision.as_str()), (0, "deny"));
        world.finish().await;
    }
}

#[tokio::test]
async fn a_flagged_secret_reaches_the_server_and_is_told() {
    for world in worlds().await {
        world.govern(with_action("flag"));
        let call = json!({"name": "echo", "arguments": {"note": key()}});
        let (_, answer) = world.ask(&bob(), "tools/call", call).await;
        assert_eq!(text(&answer), "heard");
        assert!(world.heard()[0].contains(&key()));
        let decision = world.decision().await;
        let links = decision.evaluated_rules.as_array().unwrap();
        let link = links.iter().find(|link| link["policy_id"] == "secret_scan").unwrap();
        assert_eq!((decision.decision.as_str(), &link["result"]), ("allow", &json!("flag")));
        assert_eq!(decision.findings[0]["rule_id"], "aws-access-key-id");
        world.finish().await;
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
