use super::*;
use crate::authz::{
    AuthzAuditSink, AuthzExtension, CallInfo, DbAuditSink, GovernanceDecisionRepository, RuleStore,
};
use std::future::Future;
use std::sync::Mutex;
use systemprompt_config::profile::governance::{ActorCheck, AuthzHookMode};
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension;
use systemprompt_models::ids::{TraceId, UserId};
use systemprompt_models::{Principal, RequestContext, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(Debug, Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the service got, and what it does.
#[derive(Clone)]
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// A service that answers every request by `answer`, which gets the request and the connection.
    async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(String, TcpStream) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/decide", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        #[expect(clippy::disallowed_methods, reason = "the test's own server")]
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let request = read(&mut stream).await;
                    seen.lock().unwrap().push(request.clone());
                    answer(request, stream).await;
                });
            }
        });
        Self { url, asked }
    }

    async fn saying(text: &str) -> Self {
        let text = text.to_owned();
        Self::start(move |_, mut stream| {
            let text = text.clone();
            async move {
                let _ = stream.write_all(text.as_bytes()).await;
            }
        })
        .await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => return text,
        }
    }
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn config(url: &str) -> AuthzHookConfig {
    AuthzHookConfig {
        mode: AuthzHookMode::Webhook,
        url: Some(url.to_owned()),
        timeout_ms: 500,
        require_rules: false,
        include_arguments: false,
        acknowledgement: None,
    }
}

fn words() -> Words {
    let scanner = Arc::new(crate::governance::SecretScanner::builtin().unwrap());
    Words::new(scanner, systemprompt_leak::Scanner::new())
}

fn hook(config: &AuthzHookConfig, rules: Option<RuleHook>, clock: Arc<dyn Clock>) -> WebhookHook {
    WebhookHook::new(
        config,
        rules,
        Some(&Secret::new(SECRET.to_owned())),
        HostRules::default(),
        clock,
        words(),
    )
    .unwrap()
}

fn entity() -> EntityRef {
    EntityRef::new(EntityKind::McpServer, "crm")
}

fn ann() -> RequestContext {
    let mut ann = Principal::anonymous();
    ann.user_id = UserId::new("ann");
    ann.roles = vec!["dev".into()];
    ann.department = Some("sales".into());
    ann.act_chain = vec!["agent:planner".into()];
    RequestContext::new(Arc::new(ann), TraceId::generate())
}

async fn ask(hook: &WebhookHook) -> AuthzDecision {
    let (context, entity) = (ann(), entity());
    hook.evaluate(AuthzRequest::new(&context.principal, &entity)).await
}

async fn fresh() -> TestDb {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(AuthzExtension.migrations());
    let [db, _] = databases(&migrations).await;
    db
}

#[tokio::test]
async fn the_question_is_signed_and_holds_no_arguments_unless_they_are_wanted() {
    let service = Service::saying(&http("200 OK", r#"{"decision":"allow"}"#)).await;
    let mut config = config(&service.url);
    for include in [false, true] {
        config.include_arguments = include;
        let (context, entity) = (ann(), entity());
        let call = CallInfo { kind: "mcp", tool: Some("lookup"), arguments: Some(br#"{"name":"needle"}"#) };
        let request = AuthzRequest {
            context: Some(&context),
            call: Some(call),
            ..AuthzRequest::new(&context.principal, &entity)
        };
        let decision = hook(&config, None, Arc::new(SystemClock)).evaluate(request).await;
        assert_eq!((decision.policy(), decision.is_allow()), ("authz_webhook_allow", true));
        assert_eq!(decision.source, AuthzSource::Webhook);
        let request = service.asked().pop().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let headers: http::HeaderMap = head
            .lines()
            .skip(1)
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| {
                (http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
            })
            .collect();
        let secrets = WebhookSecrets::parse(&Secret::new(SECRET.to_owned())).unwrap();
        secrets.verify(&headers, body.as_bytes(), SystemClock.now() / 1000).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["entity_type"], &body["entity_id"], &body["user_id"], &body["roles"], &body["department"]),
            (&json!("mcp_server"), &json!("crm"), &json!("ann"), &json!(["dev"]), &json!("sales"))
        );
        assert_eq!((&body["act_chain"], &body["version"]), (&json!(["agent:planner"]), &json!(1)));
        assert_eq!(body["owner_id"], Value::Null);
        assert_eq!(body["context"]["payload"]["tool"], "lookup");
        assert_eq!(body["context"]["payload"].get("arguments").is_some(), include);
    }
}

#[tokio::test]
async fn id_58_whoever_decides_sees_the_owner_of_a_client() {
    let service = Service::saying(&http("200 OK", r#"{"decision":"allow"}"#)).await;
    let mut client = Principal::anonymous();
    client.user_id = UserId::new("usr_of_client");
    client.client_id = Some("app_1".into());
    client.owner = Some(UserId::new("usr_eve"));
    let entity = entity();
    let decision = hook(&config(&service.url), None, Arc::new(SystemClock))
        .evaluate(AuthzRequest::new(&client, &entity))
        .await;
    assert!(decision.is_allow());
    let asked = service.asked().pop().unwrap();
    let body: Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["client_id"], &body["owner_id"]), (&json!("app_1"), &json!("usr_eve")));
}

/// Each fault denies with `authz_hook_fault`, and each decision is one record and one row.
#[tokio::test]
async fn case_18_whatever_is_no_decision_denies_and_is_recorded_once() {
    let slow = async |millis: u64| {
        Service::start(move |_, mut stream| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let _ = stream.write_all(http("200 OK", r#"{"decision":"allow"}"#).as_bytes()).await;
        })
        .await
    };
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/decide", listener.local_addr().unwrap())
    };
    let reset = Service::start(|_, stream| async move {
        #[expect(deprecated, reason = "a reset is what is wanted")]
        stream.set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
    })
    .await;
    let echo = Service::saying(&http("200 OK", r#"{"decision":"allow","request_id":"another"}"#)).await;
    let big = format!(r#"{{"decision":"allow","reason":"{}"}}"#, "x".repeat(17 * 1024));
    let saying = async |status: &str, body: &str| Service::saying(&http(status, body)).await.url;
    let cases = vec![
        ("refused connection", refused),
        ("reset connection", reset.url),
        ("an answer after 560 ms", slow(560).await.url),
        ("an answer after 2 s", slow(2000).await.url),
        ("204", saying("204 No Content", "").await),
        (
            "302",
            Service::saying(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            )
            .await
            .url,
        ),
        ("500", saying("500 Oops", r#"{"decision":"allow"}"#).await),
        ("HTML", saying("200 OK", "<html>allow</html>").await),
        ("17 KiB", saying("200 OK", &big).await),
        ("maybe", saying("200 OK", r#"{"decision":"maybe"}"#).await),
        ("no decision", saying("200 OK", "{}").await),
        ("two decisions", saying("200 OK", r#"{"decision":"deny","decision":"allow"}"#).await),
        ("an unknown member", saying("200 OK", r#"{"decision":"allow","ttl":5}"#).await),
        ("a list", saying("200 OK", r#"["allow"]"#).await),
        ("cut off", Service::saying("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"decision\"").await.url),
        ("a bad echo", echo.url),
    ];
    let db = fresh().await;
    let tables = AuthzExtension.tables();
    let ledger = systemprompt_audit::testing::ledger(&db, &tables).await;
    let sink = DbAuditSink::new(ledger, Arc::new(SystemClock));
    let (context, entity) = (ann(), entity());
    for (number, (name, url)) in cases.iter().enumerate() {
        let hook = hook(&config(url), None, Arc::new(SystemClock));
        let request = AuthzRequest::new(&context.principal, &entity);
        let decision = hook.evaluate(request).await;
        assert_eq!(
            (decision.policy(), &*decision.reason(), decision.is_allow()),
            ("authz_hook_fault", "hook_unavailable", false),
            "{name}"
        );
        assert_eq!((decision.source, hook.faults()), (AuthzSource::WebhookFault, 1), "{name}");
        sink.record(&context, request, &decision).await.unwrap();
        let rows = GovernanceDecisionRepository::new((*db).clone()).latest(None, None, 100).await.unwrap();
        assert_eq!(rows.len(), number + 1, "{name}");
        assert_eq!(
            (&*rows[0].policy, &*rows[0].source, &*rows[0].decision),
            ("authz_hook_fault", "webhook_fault", "deny")
        );
    }
    // Just inside its time it counts.
    let hook = hook(&config(&slow(300).await.url), None, Arc::new(SystemClock));
    assert!(ask(&hook).await.is_allow());
}

#[tokio::test]
async fn a_deny_tells_the_words_of_the_service_cleaned_and_shortened() {
    let answer = json!({"decision": "deny", "reason": format!("no\n{}", "x".repeat(500)), "policy": "pdp-7"});
    let service = Service::saying(&http("200 OK", &answer.to_string())).await;
    let decision = ask(&hook(&config(&service.url), None, Arc::new(SystemClock))).await;
    assert_eq!((decision.policy(), decision.is_allow()), ("authz_webhook_deny", false));
    let reason = decision.reason();
    assert!(
        reason.starts_with("the decision service denies it: nox") && reason.ends_with("x (pdp-7)"),
        "{reason}"
    );
    assert!(reason.len() < 260 && !reason.contains('\n'));
    let key = format!("{}{}", "ghp_", "q7Rk2mXw9TzB4nLc8VdY1sHf6JpGe3Ua5oKi");
    let answer = json!({"decision": "deny", "reason": format!("use {key}"), "policy": "\u{202e}<b>p"});
    let service = Service::saying(&http("200 OK", &answer.to_string())).await;
    let reason = ask(&hook(&config(&service.url), None, Arc::new(SystemClock))).await.reason().into_owned();
    assert!(reason.contains("use [REDACTED]") && reason.ends_with("(b p)"), "{reason}");
}

#[tokio::test]
async fn after_five_faults_in_a_row_nobody_is_asked_for_a_second() {
    let service = Service::start(|request: String, mut stream| async move {
        let answer = if request.contains("\"ann\"") { "{}" } else { r#"{"decision":"allow"}"# };
        let _ = stream.write_all(http("200 OK", answer).as_bytes()).await;
    })
    .await;
    let clock = Arc::new(Hand(AtomicI64::new(SystemClock.now())));
    let hook = hook(&config(&service.url), None, clock.clone());
    for _ in 0..5 {
        assert_eq!(ask(&hook).await.policy(), "authz_hook_fault");
    }
    assert_eq!(service.asked().len(), 5);
    assert_eq!(ask(&hook).await.policy(), "authz_hook_fault");
    assert_eq!((service.asked().len(), hook.faults()), (5, 6), "denied without asking");
    clock.0.fetch_add(1000, Ordering::Relaxed);
    assert_eq!(ask(&hook).await.policy(), "authz_hook_fault");
    assert_eq!(service.asked().len(), 6, "one more fault opens it again at once");
    ask(&hook).await;
    assert_eq!(service.asked().len(), 6);
    clock.0.fetch_add(1000, Ordering::Relaxed);
    let (mut bob, entity) = (Principal::anonymous(), entity());
    bob.user_id = UserId::new("bob");
    assert!(hook.evaluate(AuthzRequest::new(&bob, &entity)).await.is_allow());
    ask(&hook).await;
    assert_eq!(service.asked().len(), 8, "an answer closes it");
}

#[tokio::test]
async fn more_questions_than_fit_are_denied_and_not_queued() {
    let service = Service::start(|_, mut stream| async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let _ = stream.write_all(http("200 OK", r#"{"decision":"allow"}"#).as_bytes()).await;
    })
    .await;
    let slow = AuthzHookConfig { timeout_ms: 5000, ..config(&service.url) };
    let hook = hook(&slow, None, Arc::new(SystemClock));
    let (context, entity) = (ann(), entity());
    let asks = (0..MAX_IN_FLIGHT + 20).map(|_| hook.evaluate(AuthzRequest::new(&context.principal, &entity)));
    let decisions = futures_util::future::join_all(asks).await;
    let faults = decisions.iter().filter(|d| d.matched == Matched::HookFault).count();
    assert_eq!((faults, decisions.len() - faults), (20, MAX_IN_FLIGHT));
}

#[tokio::test]
async fn own_rules_that_must_allow_first_deny_without_asking() {
    let service = Service::saying(&http("200 OK", r#"{"decision":"allow"}"#)).await;
    let db = fresh().await;
    let ledger = systemprompt_audit::testing::ledger(&db, &AuthzExtension.tables()).await;
    let store =
        RuleStore::load((*db).clone(), ledger, Arc::new(SystemClock), Bridge::default()).await.unwrap();
    let config = AuthzHookConfig { require_rules: true, ..config(&service.url) };
    let hook = hook(&config, Some(RuleHook::new(store.clone(), ActorCheck::DenyOnly)), Arc::new(SystemClock));
    let denied = ask(&hook).await;
    assert_eq!((denied.policy(), denied.source), ("unknown_entity", AuthzSource::Rules));
    assert!(service.asked().is_empty());
    store.put_entity(&ann(), EntityKind::McpServer, "crm", None, true, "api").await.unwrap();
    let allowed = ask(&hook).await;
    assert_eq!((allowed.policy(), allowed.epoch), ("authz_webhook_allow", store.rules().epoch()));
    let (context, tool) = (ann(), EntityRef::new(EntityKind::McpTool, "crm/lookup"));
    let tool = hook.evaluate(AuthzRequest::new(&context.principal, &tool)).await;
    assert_eq!(tool.policy(), "authz_webhook_allow", "no rule need name a tool");
}

#[test]
fn a_service_without_address_or_secret_stops_the_start() {
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let secret = |text: &str| Secret::new(text.to_owned());
    let good = config("https://pdp.example/decide");
    let none = WebhookHook::new(
        &AuthzHookConfig { url: None, ..good.clone() },
        None,
        None,
        HostRules::default(),
        clock(),
        words(),
    );
    assert!(matches!(none, Err(AuthzBootstrapError::NoUrl)));
    let none = WebhookHook::new(&good, None, None, HostRules::default(), clock(), words());
    assert!(matches!(none, Err(AuthzBootstrapError::NoWebhookSecret)));
    let short = WebhookHook::new(
        &good,
        None,
        Some(&secret("whsec_c2hvcnQ=")),
        HostRules::default(),
        clock(),
        words(),
    );
    assert!(matches!(short, Err(AuthzBootstrapError::WebhookSecret(_))));
    let plain = WebhookHook::new(
        &config("http://pdp.example/decide"),
        None,
        Some(&secret(SECRET)),
        HostRules::default(),
        clock(),
        words(),
    );
    assert!(matches!(plain, Err(AuthzBootstrapError::Webhook(_))));
    assert!(
        WebhookHook::new(&good, None, Some(&secret(SECRET)), HostRules::default(), clock(), words()).is_ok()
    );
}
