//! A gateway on each engine, and an upstream that keeps what it saw.

use crate::protocol::{GatewayCall, Operation};
use crate::repository::{AiRequest, Opened};
use crate::service::{ClaudeGatewayService, GatewayParts};
use crate::{GatewayExtension, repository::AI_REQUESTS};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Ledger, Unit};
use systemprompt_config::profile::governance::History;
use systemprompt_config::secrets::Secrets;
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, sql};
use systemprompt_extension::Extension as _;
use systemprompt_leak::Scanner;
use systemprompt_models::auth::CredentialKind;
use systemprompt_models::ids::{AiRequestId, DecisionId, UserId};
use systemprompt_models::{Principal, RequestContext, SystemClock, Tasks, UserType};
use systemprompt_security::authz::audit::repository::GOVERNANCE_DECISIONS;
use systemprompt_security::authz::{AllowAllHook, AuthzDecisionHook, AuthzExtension};
use systemprompt_security::governance::{GovernanceExtension, Parts, Pipeline, RateLimiter, SecretScanner};
use systemprompt_security::plane::DecisionPlane;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(super) const JSON_ANSWER: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"id\":\"msg\"}\n";

pub(super) struct Fixture {
    pub service: ClaudeGatewayService,
    pub ledger: Ledger,
    /// The values in use.
    pub in_use: Scanner,
    db: TestDb,
}

/// Routes: `claude-demo*` to the demo provider, `fast` and whatever is left to `upstream` where one is given.
pub(super) fn config(upstream: Option<&str>) -> Value {
    let mut config = json!({
        "providers": [{"name": "demo", "type": "demo"}],
        "routes": [{"name": "demo", "model": "claude-demo*", "targets": [{"provider": "demo"}]}],
    });
    if let (Some(url), Some(providers)) = (upstream, config["providers"].as_array_mut()) {
        providers.push(json!({
            "name": "up", "type": "anthropic", "base_url": format!("{url}/v1"), "headers": {"x-fixed": "always"},
            "timeouts": {"first_byte_ms": 1500},
        }));
        config["routes"].as_array_mut().unwrap().extend([
            json!({"name": "alias", "model": "fast", "targets": [{"provider": "up", "upstream_model": "claude-haiku-4-5"}]}),
            json!({"name": "up", "model": "*", "targets": [{"provider": "up"}]}),
        ]);
    }
    config
}

pub(super) async fn gateways(config: &Value) -> Vec<Fixture> {
    gateways_with(config, Arc::new(AllowAllHook)).await
}

pub(super) async fn gateways_with(config: &Value, hook: Arc<dyn AuthzDecisionHook>) -> Vec<Fixture> {
    let secrets = Secrets::parse(r#"{"anthropic": "upstream-key"}"#).unwrap();
    build(config, &hook, &secrets, History::Block).await
}

pub(super) async fn gateways_without_secrets(config: &Value) -> Vec<Fixture> {
    let hook: Arc<dyn AuthzDecisionHook> = Arc::new(AllowAllHook);
    build(config, &hook, &Secrets::default(), History::Block).await
}

/// Gateways that treat what was refused before so.
pub(super) async fn gateways_with_history(config: &Value, history: History) -> Vec<Fixture> {
    let hook: Arc<dyn AuthzDecisionHook> = Arc::new(AllowAllHook);
    let secrets = Secrets::parse(r#"{"anthropic": "upstream-key"}"#).unwrap();
    build(config, &hook, &secrets, history).await
}

async fn build(
    config: &Value,
    hook: &Arc<dyn AuthzDecisionHook>,
    secrets: &Secrets,
    history: History,
) -> Vec<Fixture> {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(GovernanceExtension.migrations());
    migrations.extend(AuthzExtension.migrations());
    migrations.extend(GatewayExtension.migrations());
    let mut fixtures = Vec::new();
    for db in databases(&migrations).await {
        let ledger = systemprompt_audit::testing::ledger(&db, &[&AI_REQUESTS, &GOVERNANCE_DECISIONS]).await;
        let scanner = Arc::new(SecretScanner::builtin().unwrap());
        let parts = Parts::new(scanner, Arc::new(RateLimiter::new()), Arc::new(SystemClock));
        let parts = Parts { history, ..parts };
        let in_use = parts.in_use.clone();
        let pipeline = Pipeline::from_config(&GovernanceConfig::default(), &parts).unwrap();
        let plane = DecisionPlane::new(Arc::clone(hook), pipeline, ledger.clone(), Arc::new(SystemClock));
        plane.remember_refusals_in((*db).clone());
        let parts = GatewayParts {
            db: (*db).clone(),
            ledger: ledger.clone(),
            plane,
            clock: Arc::new(SystemClock),
            tasks: Tasks::default(),
            hosts: systemprompt_net::HostRules::default(),
        };
        let config = serde_json::from_value(config.clone()).unwrap();
        fixtures.push(Fixture {
            service: ClaudeGatewayService::new(parts, &config, secrets).unwrap(),
            ledger,
            in_use,
            db,
        });
    }
    fixtures
}

impl Fixture {
    /// Waits until no call is under way.
    pub async fn idle(&self) {
        for _ in 0..200 {
            if self.service.load().open == 0 && self.service.load().closing == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("calls are still open: {:?}", self.service.load());
    }

    pub async fn newest(&self) -> AiRequestId {
        let (id,): (String,) = on!(&*self.db, pool => sqlx::query_as(sql!("SELECT id FROM ai_requests ORDER BY id DESC LIMIT 1"))
            .fetch_one(pool).await).unwrap();
        id.into()
    }

    /// Records the opening of a call, as a process does that is killed right after it.
    pub async fn leave_open(&self) {
        let context = context();
        let (id, decision_id) = (AiRequestId::generate(), DecisionId::generate());
        let mut unit = Unit::new();
        let mut draft = Draft::new(EntryKind::InferenceOpened, &context, "opened");
        for (name, value) in [
            ("request_id", id.as_str()),
            ("route", "demo"),
            ("provider", "demo"),
            ("operation", "messages"),
            ("decision_id", decision_id.as_str()),
        ] {
            draft = draft.with(name, value);
        }
        let ledger_opened = unit.record(draft);
        unit.open(Opened {
            id,
            ledger_opened,
            ledger_stream: self.ledger.stream().to_string(),
            user_id: context.principal.user_id.to_string(),
            client_id: None,
            api_key_id: None,
            session_id: None,
            conversation_id: "c".into(),
            context_id: None,
            task_id: None,
            trace_id: context.trace_id.to_string(),
            act_chain: Vec::new(),
            operation: "messages",
            protocol: "anthropic",
            route: "demo".into(),
            provider: "demo".into(),
            model_requested: "m".into(),
            model_upstream: "m".into(),
            stream: false,
            max_tokens: None,
            decision_id,
            client_body_sha256: String::new(),
            forwarded_body_sha256: String::new(),
            body_salt: String::new(),
            body_bytes: 0,
            edits: "[]".into(),
            client_info: serde_json::Map::new(),
            opened_at: 1,
        });
        drop(self.ledger.commit(unit).await.unwrap());
    }
}

/// The row of a call, once it is closed.
pub(super) async fn closed(fixture: &Fixture, id: &AiRequestId) -> AiRequest {
    for _ in 0..300 {
        let row = fixture.service.requests().by_id(id.as_str()).await.unwrap();
        if let Some(row) = row.filter(|row| row.ledger_closed.is_some()) {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} was not closed");
}

pub(super) fn principal() -> Principal {
    Principal {
        user_id: UserId::new("usr_ada"),
        user_type: UserType::User,
        credential: CredentialKind::Token { jti: "jti_1".into() },
        ..Principal::anonymous()
    }
}

fn context() -> RequestContext {
    RequestContext::new(Arc::new(principal()), "trc_test".into())
}

pub(super) fn call(body: &str) -> GatewayCall {
    GatewayCall {
        context: context(),
        operation: Operation::Messages,
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// A request with a text that is already escaped.
pub(super) fn body(model: &str, text: &str) -> String {
    format!(r#"{{"model":"{model}","max_tokens":256,"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// A request to the demo model, with further members.
pub(super) fn user(text: &str, more: &str) -> String {
    body("claude-demo", text).replacen('{', &format!("{{{more}"), 1)
}

/// What an upstream sends: pauses and bytes.
type Answer = Vec<(Duration, Vec<u8>)>;

pub(super) fn streamed(text: &str) -> Answer {
    vec![(Duration::ZERO, text.as_bytes().to_vec())]
}

/// `text` in HTTP chunks of `size` bytes.
pub(super) fn chunked(text: &str, size: usize) -> String {
    let chunks = text
        .as_bytes()
        .chunks(size)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
    chunks.collect()
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// An upstream on loopback that reads raw requests and answers raw bytes.
pub(super) struct Upstream {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Upstream {
    pub async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let journal = Arc::clone(&seen);
        let answer = Arc::new(answer);
        #[expect(clippy::disallowed_methods, reason = "a test's own server")]
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (journal, answer) = (Arc::clone(&journal), Arc::clone(&answer));
                #[expect(clippy::disallowed_methods, reason = "a test's own server")]
                tokio::spawn(serve(socket, journal, move |seen| answer(seen)));
            }
        });
        Self { url, seen, serving }
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request a connection.
async fn serve(mut socket: TcpStream, journal: Arc<Mutex<Vec<Seen>>>, answer: impl Fn(&Seen) -> Answer) {
    let mut bytes = Vec::new();
    let seen = loop {
        let mut part = [0; 4096];
        match socket.read(&mut part).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => return,
        }
        if let Some(seen) = request(&bytes) {
            break seen;
        }
    };
    let parts = answer(&seen);
    journal.lock().unwrap().push(seen);
    for (pause, bytes) in parts {
        tokio::time::sleep(pause).await;
        let _ = socket.write_all(&bytes).await;
    }
    let _ = socket.shutdown().await;
}

/// The request, once it is there whole.
fn request(bytes: &[u8]) -> Option<Seen> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().unwrap();
    let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some(Seen { line, headers, body })
}
