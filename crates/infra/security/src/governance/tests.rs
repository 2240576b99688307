//! The pipeline from outside: the recorded calls, the policies' tables, the rate, and what becomes of faults.

use super::LinkResult::{Fail, Pass, Skip};
use super::*;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use systemprompt_config::services::governance::{GovernanceConfig, PolicyConfig};
use systemprompt_models::ids::{CallId, SessionId, TraceId, UserId};
use systemprompt_models::{ManualClock, Permission, Principal};

static SCANNER: LazyLock<Arc<SecretScanner>> = LazyLock::new(|| Arc::new(SecretScanner::builtin().unwrap()));

const NOW: i64 = 1_795_000_000_000;

fn parts(clock: &ManualClock) -> Parts {
    let limits = Limits { policy: Duration::from_secs(20), chain: Duration::from_secs(20) };
    let parts = Parts::new(SCANNER.clone(), Arc::new(RateLimiter::new()), Arc::new(clock.clone()));
    Parts { limits, ..parts }
}

fn policy(id: &str, params: Value) -> PolicyConfig {
    PolicyConfig { id: id.to_owned(), enabled: true, after: None, params }
}

fn config(policies: Vec<PolicyConfig>) -> GovernanceConfig {
    GovernanceConfig { enabled: true, policies }
}

fn pipeline(policies: Vec<PolicyConfig>) -> Pipeline {
    Pipeline::from_config(&config(policies), &parts(&ManualClock::at(NOW))).unwrap()
}

fn user(name: &str, session: &str, permissions: &[Permission]) -> Principal {
    Principal {
        user_id: UserId::new(name),
        session_id: SessionId::new(session),
        permissions: permissions.to_vec(),
        ..Principal::anonymous()
    }
}

/// A call with what the tests vary.
struct Call<'a> {
    id: CallId,
    origin: Origin,
    counted: bool,
    principal: &'a Principal,
    tool: Option<&'a str>,
    server: Option<&'a str>,
    agent: Option<&'a str>,
    scope: Option<&'a str>,
    body: &'a str,
}

impl<'a> Call<'a> {
    fn tool(principal: &'a Principal, tool: &'a str) -> Self {
        Self {
            id: CallId::generate(),
            origin: Origin::Hook,
            counted: true,
            principal,
            tool: Some(tool),
            server: None,
            agent: None,
            scope: None,
            body: r#"{"path":"README.md"}"#,
        }
    }

    fn judge(&self, pipeline: &Pipeline) -> Chain {
        let segments = [Segment { pointer: "/tool_input".into(), json: self.body.as_bytes() }];
        let names = pipeline.names([("/call_id", Some(self.id.as_str())), ("/agent_id", self.agent)]);
        let trace_id = TraceId::new("trc_1");
        let facts = CallFacts {
            names: &names,
            call_id: &self.id,
            origin: self.origin,
            counted: self.counted,
            principal: self.principal,
            permissions: &self.principal.permissions,
            tool: self.tool,
            server: self.server,
            plugin: None,
            agent: self.agent,
            agent_scope: self.scope,
            context_id: None,
            task_id: None,
            trace_id: &trace_id,
            act_chain: &[],
            segments: &segments,
            refused_before: &[],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(pipeline.evaluate(&facts))
    }
}

/// What becomes of a charge where the counters are in memory.
fn charged(limiter: &RateLimiter, rate: &rate_limit::Rate, call: &PastCall<'_>) -> rate_limit::Charge {
    futures_util::FutureExt::now_or_never(limiter.charge(rate, call)).unwrap()
}

fn results(chain: &Chain) -> Vec<(&str, LinkResult)> {
    chain.links.iter().map(|l| (&*l.policy_id, l.result)).collect()
}

#[test]
fn case_24_the_recorded_set_of_six_calls_is_decided_as_stated() {
    use Permission::{Admin, User};
    let pipeline = pipeline(vec![]);
    let calls = [
        ("Read", r#"{"file_path":"/srv/app/README.md"}"#, "governance", "governance"),
        ("Write", r#"{"content":"AWS_ACCESS_KEY_ID=AKIAC6O6OYA7VNGCNGSU"}"#, "secret_scan", "secret_scan"),
        (
            "Bash",
            r#"{"command":"git push https://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@github.com/a/b"}"#,
            "secret_scan",
            "secret_scan",
        ),
        ("mcp__crm__delete_customer", r#"{"id":7}"#, "tool_blocklist", "tool_blocklist"),
        ("mcp__systemprompt__rules", r#"{"op":"list"}"#, "scope_check", "governance"),
        ("Grep", r#"{"pattern":"fn main"}"#, "governance", "governance"),
    ];
    for (name, permissions, column) in [("ada", &[User][..], 0), ("root", &[Admin, User][..], 1)] {
        let principal = user(name, "ses_1", permissions);
        for (tool, body, as_user, as_admin) in calls {
            let chain = Call { body, ..Call::tool(&principal, tool) }.judge(&pipeline);
            let want = [as_user, as_admin][column];
            assert_eq!(chain.policy(), want, "{name} {tool}: {chain:?}");
            assert_eq!(chain.is_allowed(), want == "governance", "{name} {tool}");
        }
    }
}

#[test]
fn the_first_denial_decides_and_later_policies_are_skipped() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let call = Call { body: r#"{"key":"AKIAC6O6OYA7VNGCNGSU"}"#, ..Call::tool(&principal, "drop_table") };
    let chain = call.judge(&pipeline(vec![]));
    let want = [
        ("scope_check", Pass),
        ("secret_scan", Fail),
        ("tool_blocklist", Skip),
        ("rate_limit", Skip),
        ("pii", Skip),
        ("prompt_injection", Skip),
    ];
    assert_eq!(results(&chain), want);
    let denial = chain.denial().unwrap();
    assert_eq!((&*denial.policy, &*denial.reason), ("secret_scan", "secret_detected"));
    assert_eq!(&*chain.findings[0].pointer, "/tool_input/key");
    let refusal = chain.refusal().unwrap();
    assert_eq!((refusal.status(), refusal.rule_id.as_deref()), (403, Some("aws-access-key-id")));
    let rules: Value = serde_json::from_str(&chain.evaluated_rules()).unwrap();
    assert_eq!((&rules[1]["policy_id"], &rules[1]["result"]), (&json!("secret_scan"), &json!("fail")));
    let findings: Value = serde_json::from_str(&chain.findings_json()).unwrap();
    assert_eq!(findings[0]["rule_id"], "aws-access-key-id");
    assert!(!chain.findings_json().contains("AKIA") && !chain.evaluated_rules().contains("AKIA"));
}

#[test]
fn model_requests_skip_the_tool_layers() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let call = Call { tool: None, origin: Origin::Gateway, ..Call::tool(&principal, "") };
    let chain = call.judge(&pipeline(vec![]));
    let want = [
        ("scope_check", Skip),
        ("secret_scan", Pass),
        ("tool_blocklist", Skip),
        ("rate_limit", Pass),
        ("pii", Pass),
        ("prompt_injection", Pass),
    ];
    assert_eq!(results(&chain), want);
}

#[test]
fn policies_are_off_only_when_the_configuration_says_so() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let call = Call::tool(&principal, "delete_all");
    let off = PolicyConfig { enabled: false, ..policy("tool_blocklist", json!({})) };
    let chain = call.judge(&pipeline(vec![off]));
    assert!(chain.is_allowed());
    assert_eq!(results(&chain)[2], ("tool_blocklist", LinkResult::Disabled));
    let listed = pipeline(vec![policy("rate_limit", json!({"limit": 5}))]);
    assert_eq!(call.judge(&listed).policy(), "tool_blocklist");
    let none = GovernanceConfig { enabled: false, policies: vec![] };
    let chain = call.judge(&Pipeline::from_config(&none, &parts(&ManualClock::at(NOW))).unwrap());
    assert!(chain.is_allowed() && chain.policy() == "governance_disabled");
    assert!(results(&chain).iter().all(|(_, r)| *r == LinkResult::Disabled) && chain.links.len() == 6);
}

#[test]
fn wrong_configuration_is_refused_with_a_suggestion() {
    let follows =
        |id: &str, after: &str| PolicyConfig { after: Some(after.to_owned()), ..policy(id, json!({})) };
    for (policies, want) in [
        (vec![policy("secret_scam", json!({}))], "did you mean `secret_scan`?"),
        (vec![policy("rate_limit", json!({})), policy("rate_limit", json!({}))], "listed twice"),
        (vec![policy("rate_limit", json!({"limits": 3}))], "did you mean `limit`?; allowed: limit, window_s"),
        (vec![policy("rate_limit", json!({"limit": 0}))], "at least 1"),
        (vec![policy("rate_limit", json!({"limit": "many"}))], "invalid type"),
        (
            vec![policy("scope_check", json!({"tools": {"Bash": "owner"}}))],
            "tools.Bash: unknown permission `owner`",
        ),
        (
            vec![policy("scope_check", json!({"agents": {"a": "user boss"}}))],
            "agents.a: unknown permission `boss`",
        ),
        (vec![policy("tool_blocklist", json!({"tokens": ["rm_rf"]}))], "is not one word"),
        (
            vec![policy("secret_scan", json!({"rules": {"github-tokn": "flag"}}))],
            "did you mean `github-token`?",
        ),
        (vec![policy("secret_scan", json!({"actions": {"specific": "allow"}}))], "unknown variant"),
        (vec![follows("secret_scan", "rate_limit")], "place of a built-in policy is fixed"),
    ] {
        let Err(error) = Pipeline::from_config(&config(policies), &parts(&ManualClock::at(NOW))) else {
            panic!("accepted, but wanted: {want}")
        };
        assert!(error.to_string().contains(want), "{error} / {want}");
    }
}

#[test]
fn the_services_check_reports_the_same_faults() {
    use systemprompt_config::services::Checks;
    let checks = GovernanceChecks(parts(&ManualClock::at(NOW)));
    assert_eq!(checks.policy_ids(), systemprompt_config::services::governance::BUILT_IN_POLICIES);
    let problems = checks.policy_params(&policy("rate_limit", json!({"limits": 3})));
    assert_eq!((problems[0].keys.join("."), problems[0].unknown_key), ("limits".to_owned(), true));
    let problems = checks.policy_params(&policy("scope_check", json!({"tools": {"Bash": "owner"}})));
    assert_eq!((problems[0].keys.join("."), problems[0].unknown_key), ("tools.Bash".to_owned(), false));
    assert!(checks.policy_params(&policy("rate_limit", json!({"limit": 3}))).is_empty());
    assert!(checks.looks_like_a_secret("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"));
    assert!(!checks.looks_like_a_secret("github"));
}

#[test]
fn scope_check_narrows_and_never_widens() {
    use Permission::{Admin, Mcp, User};
    let pipeline = pipeline(vec![policy(
        "scope_check",
        json!({
            "agents": {"clerk": ["user", "admin"], "reader": []},
            "tools": {"mcp__crm__*": "mcp", "hr/salaries": "admin", "Bash": "user"},
        }),
    )]);
    // permissions, tool, server, agent, scope, allowed
    for (permissions, tool, server, agent, scope, want) in [
        (&[User][..], "Read", None, None, None, true),
        (&[User], "Bash", None, None, None, true),
        (&[Mcp], "Bash", None, None, None, false),
        (&[User], "mcp__systemprompt__users", None, None, None, false),
        (&[Admin], "mcp__systemprompt__users", None, None, None, true),
        (&[User], "users", Some("systemprompt"), None, None, false),
        (&[Admin], "users", Some("systemprompt"), None, None, true),
        (&[Mcp], "get", Some("crm"), None, None, true),
        (&[User], "get", Some("crm"), None, None, false),
        (&[User], "mcp__hr__salaries", None, None, None, false),
        (&[Admin], "salaries", Some("hr"), None, None, true),
        // An agent can only take away.
        (&[Admin, User], "mcp__systemprompt__users", None, Some("clerk"), None, true),
        (&[User], "mcp__systemprompt__users", None, Some("clerk"), None, false),
        (&[Admin, User], "mcp__systemprompt__users", None, Some("stranger"), None, false),
        (&[Admin, User], "Bash", None, Some("stranger"), None, true),
        (&[Admin, User], "Bash", None, Some("reader"), None, false),
        // So can a scope.
        (&[Admin, User], "mcp__systemprompt__users", None, None, Some("user"), false),
        (&[User], "mcp__systemprompt__users", None, None, Some("admin user"), false),
        (&[Admin], "mcp__systemprompt__users", None, None, Some("root"), false),
    ] {
        let principal = user("ada", "ses_1", permissions);
        let chain = Call { server, agent, scope, ..Call::tool(&principal, tool) }.judge(&pipeline);
        let case = (permissions, tool, server, agent, scope);
        assert_eq!(chain.is_allowed(), want, "{case:?}");
        if !want {
            let denial = chain.denial().unwrap();
            assert_eq!((&*denial.policy, &*denial.reason), ("scope_check", "scope_violation"), "{case:?}");
        }
    }
}

#[test]
fn destructive_names_are_blocked_for_everyone_and_look_alikes_are_not() {
    let admin = user("root", "ses_1", &[Permission::Admin]);
    let open = pipeline(vec![]);
    for (tool, server, want) in [
        ("deleteFile", None, false),
        ("DROP_table", None, false),
        ("drop-index", None, false),
        ("table.destroy", None, false),
        ("mcp__crm__delete_customer", None, false),
        ("delete_customer", Some("crm"), false),
        ("HTTPDelete", None, false),
        ("dropdown", None, true),
        ("undelete", None, true),
        ("mcp__dropbox__list", None, true),
        ("mcp__drop__list", None, true),
        ("deleted_items", None, true),
        ("Read", None, true),
    ] {
        let chain = Call { server, ..Call::tool(&admin, tool) }.judge(&open);
        assert_eq!(chain.is_allowed(), want, "{tool}");
        assert!(want || &*chain.denial().unwrap().reason == "tool_blocked", "{tool}");
    }
    let eased = pipeline(vec![policy(
        "tool_blocklist",
        json!({"tokens": ["purge", "delete"], "allow_tools": ["crm/delete_draft"], "exempt_permissions": ["service"]}),
    )]);
    let service = user("bot", "ses_1", &[Permission::Service]);
    for (principal, tool, want) in [
        (&admin, "mcp__crm__delete_draft", true),
        (&admin, "mcp__hr__delete_draft", false),
        (&admin, "purge_cache", false),
        (&admin, "drop_table", true),
        (&service, "purge_cache", true),
    ] {
        assert_eq!(Call::tool(principal, tool).judge(&eased).is_allowed(), want, "{tool}");
    }
}

#[test]
fn actions_of_secret_rules_are_configured_by_class_and_by_rule() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let pipeline = pipeline(vec![policy(
        "secret_scan",
        json!({"actions": {"generic": "block"}, "rules": {"github-token": "redact", "npm-token": "flag"}}),
    )]);
    for (text, want) in [
        ("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", LinkResult::Flag),
        ("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", LinkResult::Flag),
        ("AKIAC6O6OYA7VNGCNGSU", LinkResult::Fail),
        ("9uI2nicgdMBN7DB9NtLE7rTAADf85E4OO8vyfLmF", LinkResult::Fail),
        ("words", LinkResult::Pass),
    ] {
        let chain = Call { body: &format!("\"{text}\""), ..Call::tool(&principal, "Read") }.judge(&pipeline);
        assert_eq!(chain.links[1].result, want, "{text}");
        assert_eq!(matches!(chain.verdict, Verdict::Redact(_)), text.starts_with("ghp_"), "{text}");
        assert_eq!(chain.is_allowed(), text.starts_with("npm_") || text == "words", "{text}");
    }
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let chain = Call { body: &deep, ..Call::tool(&principal, "Read") }.judge(&pipeline);
    assert_eq!(&*chain.denial().unwrap().reason, "arguments_too_complex");
}

#[test]
fn three_hundred_and_one_calls_at_once_admit_exactly_three_hundred() {
    let clock = ManualClock::at(NOW);
    let pipeline = Pipeline::from_config(&config(vec![]), &parts(&clock)).unwrap();
    let principal = user("ada", "ses_1", &[Permission::User]);
    let admitted =
        || (0..301).filter(|_| Call::tool(&principal, "Read").judge(&pipeline).is_allowed()).count();
    assert_eq!(admitted(), 300);
    let chain = Call::tool(&principal, "Read").judge(&pipeline);
    assert_eq!((&*chain.denial().unwrap().reason, chain.retry_after), ("rate_limit_exceeded", Some(1)));
    let refusal = chain.refusal().unwrap();
    assert_eq!((refusal.status(), refusal.retry_after), (429, Some(1)));
    clock.advance(1000);
    assert_eq!(admitted(), 5);
    clock.advance(60_000);
    assert_eq!(admitted(), 300);
}

#[test]
fn new_sessions_gain_a_user_five_times_as_much_and_no_more() {
    let pipeline = pipeline(vec![]);
    let admitted = |name: &str| {
        let sessions = (0..10).map(|n| user(name, &format!("ses_{n}"), &[Permission::User]));
        sessions
            .map(|p| (0..301).filter(|_| Call::tool(&p, "Read").judge(&pipeline).is_allowed()).count())
            .sum::<usize>()
    };
    assert_eq!((admitted("ada"), admitted("bob")), (1500, 1500));
}

#[test]
fn a_call_is_charged_once_at_all_doors_but_again_at_the_same_door() {
    let clock = ManualClock::at(NOW);
    let limit = policy("rate_limit", json!({"limit": 2}));
    let pipeline = Pipeline::from_config(&config(vec![limit]), &parts(&clock)).unwrap();
    let principal = user("ada", "ses_1", &[Permission::User]);
    let at = |id: &str, origin| {
        Call { id: CallId::new(id), origin, ..Call::tool(&principal, "Read") }.judge(&pipeline)
    };
    assert_eq!(at("a", Origin::Hook).links[3].detail, None);
    assert_eq!(at("a", Origin::Mcp).links[3].detail.as_deref(), Some("charged at another door"));
    assert!(at("b", Origin::Mcp).is_allowed());
    assert!(at("b", Origin::Hook).is_allowed());
    assert!(!at("c", Origin::Hook).is_allowed());
    // Saying an old id again is no way around the limit.
    assert!(!at("a", Origin::Mcp).is_allowed());
    // Nor is another user's.
    let other = user("bob", "ses_2", &[Permission::User]);
    let chain =
        Call { id: CallId::new("c"), origin: Origin::Mcp, ..Call::tool(&other, "Read") }.judge(&pipeline);
    assert_eq!((chain.is_allowed(), &chain.links[3].detail), (true, &None));
}

#[test]
fn a_start_takes_over_what_was_charged_before() {
    let rate = rate_limit::rate(&Value::Null).unwrap();
    let limiter = RateLimiter::new();
    let past = |n: i64| PastCall {
        user_id: "ada",
        session_id: "ses_1",
        call_id: "",
        origin: Origin::Mcp,
        at: NOW - n,
    };
    let ids: Vec<String> = (0..300).map(|n| format!("call_{n}")).collect();
    limiter.seed(&rate, ids.iter().map(|id| PastCall { call_id: id, ..past(10_000) }));
    let admitted = |from: usize| {
        let ids: Vec<String> = (from..from + 100).map(|n| format!("new_{n}")).collect();
        let charge = |id: &String| charged(&limiter, &rate, &PastCall { call_id: id, ..past(0) });
        ids.iter().filter(|id| charge(id) == rate_limit::Charge::Admitted).count()
    };
    assert_eq!(admitted(0), 50);
    let seen = PastCall { call_id: "call_7", origin: Origin::Hook, ..past(0) };
    assert_eq!(charged(&limiter, &rate, &seen), rate_limit::Charge::Known);
    let long_ago = RateLimiter::new();
    long_ago.seed(&rate, ids.iter().map(|id| PastCall { call_id: id, ..past(60_000) }));
    let fresh = PastCall { call_id: "x", ..past(0) };
    assert_eq!(charged(&long_ago, &rate, &fresh), rate_limit::Charge::Admitted);
}

#[test]
fn a_report_on_a_call_is_judged_and_costs_nothing() {
    let pipeline = pipeline(vec![policy("rate_limit", json!({"limit": 1}))]);
    let principal = user("ada", "ses_1", &[Permission::User]);
    let report = |body| Call { counted: false, body, ..Call::tool(&principal, "Read") }.judge(&pipeline);
    for _ in 0..3 {
        assert_eq!(results(&report("{}"))[3], ("rate_limit", Skip));
    }
    assert_eq!(report(r#"{"key":"AKIAC6O6OYA7VNGCNGSU"}"#).policy(), "secret_scan");
    assert!(Call::tool(&principal, "Read").judge(&pipeline).is_allowed());
    assert_eq!(Call::tool(&principal, "Read").judge(&pipeline).policy(), "rate_limit");
}

#[test]
fn many_threads_together_are_admitted_no_more_than_one() {
    let pipeline = pipeline(vec![]);
    let admitted: usize = std::thread::scope(|scope| {
        let principal = user("ada", "ses_1", &[Permission::User]);
        let run = || {
            let principal = principal.clone();
            let pipeline = &pipeline;
            move || (0..100).filter(|_| Call::tool(&principal, "Read").judge(pipeline).is_allowed()).count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 300);
}

struct Answer(fn() -> Outcome);

impl GovernancePolicy for Answer {
    fn evaluate(&self, _: &CallFacts<'_>) -> Outcome {
        (self.0)()
    }
}

fn extension(id: &str, after: Option<&str>, answer: fn() -> Outcome) -> ExtensionPolicy {
    ExtensionPolicy {
        id: id.into(),
        after: after.map(Into::into),
        build: Arc::new(move |_| Ok(Box::new(Answer(answer)))),
    }
}

fn with_extensions(extensions: Vec<ExtensionPolicy>) -> Parts {
    Parts { extensions, ..parts(&ManualClock::at(NOW)) }
}

#[test]
fn a_policy_that_panics_or_is_late_denies() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let slow = || {
        std::thread::sleep(Duration::from_millis(60));
        Outcome::PASS
    };
    for (answer, detail) in [
        ((|| panic!("broken")) as fn() -> Outcome, "the policy panicked"),
        (slow, "the policy took longer than 50 ms"),
        (|| Outcome::Fault { detail: "no answer".into() }, "no answer"),
    ] {
        let limits = Limits { policy: Duration::from_millis(50), chain: Duration::from_secs(20) };
        let parts = Parts { limits, ..with_extensions(vec![extension("ours", Some("scope_check"), answer)]) };
        let pipeline = Pipeline::from_config(&config(vec![]), &parts).unwrap();
        let chain = Call::tool(&principal, "Read").judge(&pipeline);
        let link = &chain.links[1];
        assert_eq!(
            (&*link.policy_id, link.result, link.detail.as_deref()),
            ("ours", LinkResult::Fault, Some(detail))
        );
        let denial = chain.denial().unwrap();
        assert_eq!((&*denial.policy, &*denial.reason), ("ours", "policy_fault"));
        assert_eq!(chain.links[2].result, LinkResult::Skip);
    }
    let limits = Limits { policy: Duration::from_secs(20), chain: Duration::from_millis(50) };
    let parts = Parts { limits, ..with_extensions(vec![extension("ours", Some("scope_check"), slow)]) };
    let chain =
        Call::tool(&principal, "Read").judge(&Pipeline::from_config(&config(vec![]), &parts).unwrap());
    assert_eq!(chain.links[1].detail.as_deref(), Some("the chain took longer than 50 ms"));
    assert!(!chain.is_allowed());
}

#[test]
fn extensions_stand_where_they_say_and_never_before_scope_check() {
    let pass = || Outcome::PASS;
    let places = |extensions, policies| {
        Pipeline::from_config(&config(policies), &with_extensions(extensions))
            .map(|p| p.policies().map(|(id, _)| id.to_owned()).collect::<Vec<_>>())
            .map_err(|e| e.to_string())
    };
    let order = places(
        vec![
            extension("c", Some("b"), pass),
            extension("b", Some("scope_check"), pass),
            extension("a", None, pass),
        ],
        vec![],
    );
    assert_eq!(
        order.unwrap(),
        [
            "scope_check",
            "b",
            "c",
            "secret_scan",
            "tool_blocklist",
            "rate_limit",
            "pii",
            "prompt_injection",
            "a"
        ]
    );
    let moved = PolicyConfig { after: Some("secret_scan".into()), enabled: false, ..policy("a", json!({})) };
    let order = places(vec![extension("a", None, pass)], vec![moved]);
    assert_eq!(
        order.unwrap(),
        ["scope_check", "secret_scan", "a", "tool_blocklist", "rate_limit", "pii", "prompt_injection"]
    );
    for (extensions, want) in [
        (vec![extension("a", Some("b"), pass), extension("b", Some("a"), pass)], "follows `b`"),
        (vec![extension("a", Some("secret_scn"), pass)], "did you mean `secret_scan`?"),
        (vec![extension("a", None, pass), extension("a", None, pass)], "registered under the id `a`"),
        (vec![extension("rate_limit", None, pass)], "registered under the id `rate_limit`"),
    ] {
        let error = places(extensions, vec![]).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

const IN_USE: &str = "crm-token-in-use-4711";

/// A pipeline that knows one value in use.
fn guarding(config: &GovernanceConfig) -> (Pipeline, systemprompt_leak::Hold) {
    let parts = parts(&ManualClock::at(NOW));
    let hold = parts.in_use.hold("crm_token", &systemprompt_models::Secret::from(IN_USE)).unwrap();
    (Pipeline::from_config(config, &parts).unwrap(), hold)
}

#[test]
fn a_value_in_use_refuses_a_call_before_any_policy_and_even_without_policies() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let hex = hex::encode(IN_USE);
    for enabled in [true, false] {
        let (pipeline, _hold) = guarding(&GovernanceConfig { enabled, policies: vec![] });
        for body in [
            json!({"note": format!("use {IN_USE}")}),
            json!({"deep": [{"note": hex}]}),
            json!({IN_USE: 1}),
            json!({"note": IN_USE.replace('-', "%2d")}),
        ] {
            let body = body.to_string();
            let chain = Call { body: &body, ..Call::tool(&principal, "Bash") }.judge(&pipeline);
            let denial = chain.denial().unwrap_or_else(|| panic!("{body}"));
            assert_eq!((&*denial.policy, &*denial.reason), ("secret_leak", "secret_in_use"));
            assert!(denial.message.contains("`crm_token`") && !denial.message.contains(IN_USE));
            assert_eq!((chain.leaks.count, &*chain.leaks.told[0].pointer), (1, "/tool_input"));
            assert_eq!(results(&chain)[0], ("secret_leak", Fail));
            assert!(
                results(&chain)[1..].iter().all(|(_, result)| matches!(result, Skip | LinkResult::Disabled))
            );
        }
        let body = json!({"note": IN_USE.replace("in-use", "is-not")}).to_string();
        let chain = Call { body: &body, ..Call::tool(&principal, "Bash") }.judge(&pipeline);
        assert!(chain.is_allowed() && chain.links.len() == 6);
    }
}

#[test]
fn many_leaks_of_a_call_are_told_ten_times_and_counted() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let (pipeline, _hold) = guarding(&config(vec![]));
    let body = json!(vec![IN_USE; 30]).to_string();
    let chain = Call { body: &body, ..Call::tool(&principal, "Bash") }.judge(&pipeline);
    assert_eq!((chain.leaks.told.len(), chain.leaks.count), (10, 30));
}

#[test]
fn a_secret_in_the_ids_of_a_call_refuses_it_and_is_concealed() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let (pipeline, _hold) = guarding(&config(vec![]));
    let key = "AKIAC6O6OYA7VNGCNGSU";
    for (id, agent) in [(key, None), ("toolu_1", Some(key))] {
        let call = Call { id: CallId::new(id), agent, ..Call::tool(&principal, "Bash") };
        let chain = call.judge(&pipeline);
        assert_eq!(chain.policy(), "secret_scan");
        let pointer = if agent.is_some() { "/agent_id" } else { "/call_id" };
        assert_eq!((&*chain.findings[0].pointer, chain.findings[0].offset), (pointer, 0));
        assert!(!pipeline.conceal(key).contains(key));
    }
    let call = Call { agent: Some(IN_USE), ..Call::tool(&principal, "Bash") };
    let chain = call.judge(&pipeline);
    assert_eq!((chain.policy(), &*chain.leaks.told[0].pointer), ("secret_leak", "/agent_id"));
    assert_eq!(pipeline.conceal(&format!("a {IN_USE}")), "a [redacted:crm_token]");
    // Ids look random; that alone is no finding.
    for id in [
        "toolu_01A09q90qw90lq917835lq9",
        "018f3c2e-7d4b-7c1a-9a55-2f6f0e1b8c77",
        "Zm9vYmFyYmF6cXV4eHl6enk0NzExc2VjcmV0",
    ] {
        let call = Call { id: CallId::new(id), ..Call::tool(&principal, "Bash") };
        let chain = call.judge(&pipeline);
        assert!(chain.is_allowed() && chain.findings.is_empty(), "{id}");
        assert_eq!(pipeline.conceal(id), id);
    }
}

/// `count` keys that differ, in one list.
fn many_keys(count: u64) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let key = |n: u64| {
        let mut mixed = u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let tail: String = (0..16)
            .map(|_| {
                mixed = mixed.rotate_right(5);
                char::from(digits[usize::try_from(mixed % 32).unwrap()])
            })
            .collect();
        format!("AKIA{tail}")
    };
    json!({"keys": (0..count).map(key).collect::<Vec<_>>()}).to_string()
}

#[test]
fn content_with_more_secrets_than_are_told_is_not_redacted_but_refused() {
    let principal = user("ada", "ses_1", &[Permission::User]);
    let redact = json!({"actions": {"specific": "redact"}});
    let pipeline = pipeline(vec![policy("secret_scan", redact)]);
    for (count, redacted) in [(40, 1), (400, 0)] {
        let body = many_keys(count);
        let chain = Call { body: &body, ..Call::tool(&principal, "Write") }.judge(&pipeline);
        assert!(matches!(chain.verdict, Verdict::Redact(_)), "{count}: {:?}", chain.verdict);
        assert_eq!(chain.redactions.len(), redacted, "{count}, of which {} are told", chain.findings.len());
        assert!(chain.redactions.iter().all(|r| !String::from_utf8_lossy(&r.json).contains("AKIA")));
    }
}
