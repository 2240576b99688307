mod policies;

use super::*;
use crate::authz::audit::repository::GOVERNANCE_DECISIONS;
use crate::authz::{Access, RuleType};
use crate::authz::{AuthzExtension, RuleHook, RuleStore, UpsertRuleParams};
use crate::governance::{Origin, Parts, Pipeline, RateLimiter, SecretScanner, Segment};
use crate::plane::{Call, DecisionPlane};
use serde_json::json;
use std::sync::Arc;
use systemprompt_audit::payload::{PayloadPolicy, Redact};
use systemprompt_audit::{Ledger, Unit};
use systemprompt_config::services::draft::{DraftBase, PolicyDraft};
use systemprompt_config::services::governance::GovernanceConfig;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, sql};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::{CallId, TraceId};
use systemprompt_models::{Permission, RequestContext, SystemClock};

const CALLS: usize = 10_000;
/// Calls that share a unit.
const TOGETHER: usize = 8;

struct Node {
    db: TestDb,
    rules: RuleStore,
    config: GovernanceConfig,
    parts: Parts,
    plane: DecisionPlane,
    ledger: Ledger,
}

async fn engines() -> [TestDb; 2] {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(AuthzExtension.migrations());
    databases(&migrations).await
}

impl Node {
    /// A server `demo` that everybody may use, and a server `private` that nobody may.
    async fn start(db: TestDb) -> Self {
        Self::with(db, json!([{"id": "rate_limit", "enabled": false}])).await
    }

    /// With policies of the operator's.
    async fn with(db: TestDb, policies: serde_json::Value) -> Self {
        let ledger = systemprompt_audit::testing::ledger(&db, &[&GOVERNANCE_DECISIONS]).await;
        let clock = Arc::new(SystemClock);
        let rules =
            RuleStore::load((*db).clone(), ledger.clone(), clock.clone(), Bridge::default()).await.unwrap();
        let by = context("root", &[], None);
        for (id, default_included) in [("demo", true), ("private", false)] {
            let _entity = rules
                .put_entity(&by, EntityKind::McpServer, id, None, default_included, "api")
                .await
                .unwrap();
        }
        let config: GovernanceConfig = serde_json::from_value(json!({"policies": policies})).unwrap();
        let parts = Parts::new(
            Arc::new(SecretScanner::builtin().unwrap()),
            Arc::new(RateLimiter::new()),
            clock.clone(),
        );
        let pipeline = Pipeline::from_config(&config, &parts).unwrap();
        let redactor: Arc<dyn Redact> = parts.scanner.clone();
        ledger.keep_payloads(PayloadPolicy { redactor: Some(redactor), ..PayloadPolicy::default() });
        let hook = Arc::new(RuleHook::new(rules.clone(), ActorCheck::DenyOnly));
        let plane = DecisionPlane::new(hook, pipeline, ledger.clone(), clock);
        Self { db, rules, config, parts, plane, ledger }
    }

    async fn call(&self, unit: &mut Unit, context: &RequestContext, server: &str, tool: &str) {
        self.call_with(unit, context, server, tool, None).await;
    }

    /// A call as the proxy makes it: the arguments, and the rest of its parameters.
    async fn call_with(
        &self,
        unit: &mut Unit,
        context: &RequestContext,
        server: &str,
        tool: &str,
        arguments: Option<&str>,
    ) {
        let others = json!({"name": tool}).to_string();
        let content: Vec<Segment<'_>> = arguments
            .map(|arguments| [("/params/arguments", arguments), ("/params", others.as_str())])
            .into_iter()
            .flatten()
            .map(|(pointer, text)| Segment { pointer: pointer.into(), json: text.as_bytes() })
            .collect();
        let judgement = self.plane.judge(Call {
            call_id: CallId::generate(),
            origin: Origin::Mcp,
            counted: true,
            context,
            entities: vec![EntityRef::new(EntityKind::McpServer, server)],
            tool: Some(tool),
            server: Some(server),
            plugin: None,
            agent: None,
            agent_scope: None,
            content: &content,
        });
        let _id = judgement.await.record(unit);
    }

    async fn replay(&self, draft: &PolicyDraft) -> ReplayReport {
        self.replay_between(draft, 0, Millis::MAX).await
    }

    async fn replay_between(&self, draft: &PolicyDraft, since: Millis, until: Millis) -> ReplayReport {
        self.replay_as(draft, since, until, ActorCheck::DenyOnly).await
    }

    async fn replay_as(
        &self,
        draft: &PolicyDraft,
        since: Millis,
        until: Millis,
        actors: ActorCheck,
    ) -> ReplayReport {
        let tried = self.rules.tried(Some(draft)).await.unwrap();
        let policies = TriedPolicies::of(&self.config, &draft.policies, &self.parts).unwrap();
        let scope = ReplayScope { since, until, actors };
        let (reader, decisions) =
            (self.ledger.reader(), GovernanceDecisionRepository::new((*self.db).clone()));
        let source = ReplaySource { reader: &reader, decisions: &decisions };
        replay(source, &tried, &policies, scope).await.unwrap()
    }
}

fn context(user: &str, roles: &[&str], department: Option<&str>) -> RequestContext {
    let principal = Principal {
        user_id: user.into(),
        permissions: vec![Permission::User],
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        department: department.map(str::to_owned),
        ..Principal::anonymous()
    };
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

fn draft(value: serde_json::Value) -> PolicyDraft {
    serde_json::from_value(value).unwrap()
}

async fn count(db: &TestDb, users: &str, tool: &str, entity: &str, decision: &str) -> u64 {
    let (count,): (i64,) = on!(&**db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM governance_decisions
         WHERE user_id LIKE $1 AND tool_name LIKE $2 AND entity_id = $3 AND decision = $4"
    )).bind(users).bind(tool).bind(entity).bind(decision).fetch_one(pool).await)
    .unwrap();
    count as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn case_30_flips_of_ten_thousand_recorded_calls_equal_a_count_in_sql() {
    for db in engines().await {
        let node = Node::start(db).await;
        let people: Vec<RequestContext> = (0..7)
            .map(|n| match n % 3 {
                0 => context(&format!("guest_{n}"), &["guest"], None),
                1 => context(&format!("staff_{n}"), &["staff", "guest"], Some("research")),
                _ => context(&format!("root_{n}"), &["root"], Some("it")),
            })
            .collect();
        let tools = ["crm_lookup", "slow_report", "delete_customer", "whoami", "crm_export"];
        for first in (0..CALLS).step_by(TOGETHER) {
            let mut unit = Unit::new();
            for n in first..first + TOGETHER {
                let server = if n % 11 == 0 { "private" } else { "demo" };
                node.call(&mut unit, &people[n % people.len()], server, tools[n % tools.len()]).await;
            }
            node.ledger.append(unit).await.unwrap();
        }

        let unchanged = node.replay(&PolicyDraft::default()).await;
        assert_eq!((unchanged.decisions, unchanged.flips(), unchanged.unreplayable), (CALLS as u64, 0, 0));

        let rules = json!([
            {"entity_type": "mcp_tool", "entity_id": "demo/crm_lookup", "access": "deny", "roles": ["guest"]},
            // A tool that a rule names is decided on by itself, so who may go on is said as well.
            {"entity_type": "mcp_tool", "entity_id": "demo/crm_lookup", "access": "allow", "roles": ["root"]},
            {"entity_type": "mcp_server", "entity_id": "private", "access": "allow", "departments": ["it"]},
        ]);
        let report = node.replay(&draft(json!({"rules": rules}))).await;
        let guests = count(&node.db, "guest%", "crm_lookup", "demo", "allow").await
            + count(&node.db, "staff%", "crm_lookup", "demo", "allow").await;
        // Behind the rules the policies are asked, who never were: this name they refuse.
        let opened = count(&node.db, "root%", "%", "private", "deny").await
            - count(&node.db, "root%", "delete_customer", "private", "deny").await;
        assert!(guests > 1000 && opened > 200, "{guests} {opened}");
        assert_eq!((report.newly_denied.count, report.newly_allowed.count), (guests, opened));
        assert_eq!(report.decisions, CALLS as u64);
        assert_eq!(report.unchanged, CALLS as u64 - guests - opened);
        let group = &report.newly_denied.groups[0];
        assert_eq!(
            (group.entity.as_str(), group.matched_by.as_str()),
            ("mcp_tool:demo/crm_lookup", "role_deny")
        );
        assert_eq!(group.rule_id.as_deref(), Some("draft[0]/role:guest"));
        assert!(group.examples.len() == 3 && group.examples.iter().all(|id| id.starts_with("led_")));
        assert_eq!(report.newly_denied.groups.iter().map(|group| group.count).sum::<u64>(), guests);
        // What a policy refuses stays refused, whatever the rules say.
        let denied = count(&node.db, "%", "delete_customer", "demo", "deny").await;
        assert!(denied > 1000);
        let everything = draft(json!({"base": "empty"}));
        let report = node.replay(&everything).await;
        assert_eq!(report.flips(), 0, "everybody may use `demo` by default: {report:?}");
        assert_eq!(node.rules.rules().len(), 0, "a draft changes nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_bounded_in_time_and_tells_what_it_cannot_decide() {
    for db in engines().await {
        let node = Node::start(db).await;
        let roles: Vec<String> = (0..40).map(|n| format!("role-{n}")).collect();
        let many = context("many", &roles.iter().map(String::as_str).collect::<Vec<_>>(), None);
        let mut unit = Unit::new();
        node.call(&mut unit, &many, "demo", "whoami").await;
        node.call(&mut unit, &context("ann", &["guest"], None), "demo", "whoami").await;
        node.ledger.append(unit).await.unwrap();
        let deny =
            json!({"entity_type": "mcp_server", "entity_id": "demo", "access": "deny", "users": ["ann"]});
        let deny = draft(json!({"rules": [deny]}));
        let report = node.replay(&deny).await;
        assert_eq!((report.decisions, report.newly_denied.count, report.unreplayable), (1, 1, 1));
        assert_eq!(report.unreplayable_examples.len(), 1);
        assert_eq!(report.unreplayable_why.get("roles_not_kept"), Some(&1));
        for (since, until) in [(Millis::MAX - 1, Millis::MAX), (0, 1)] {
            let report = node.replay_between(&deny, since, until).await;
            assert_eq!(report.decisions, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_replaces_rules_of_the_same_entity_and_subject() {
    let [db, _postgres] = engines().await;
    let node = Node::start(db).await;
    let by = context("root", &[], None);
    let params = UpsertRuleParams {
        entity_type: EntityKind::McpServer,
        entity_id: "demo".into(),
        is_pattern: false,
        rule_type: RuleType::Role,
        rule_value: "guest".into(),
        access: Access::Deny,
        justification: None,
        source: "api",
        created_by: "root".into(),
    };
    node.rules.create_rule(&by, &params).await.unwrap();
    let allow =
        json!({"entity_type": "mcp_server", "entity_id": "demo", "access": "allow", "roles": ["guest"]});
    let mut over = draft(json!({"rules": [allow]}));
    let tried = node.rules.tried(Some(&over)).await.unwrap();
    assert_eq!(tried.rows.len(), 1);
    assert_eq!(tried.rows[0].access, Access::Allow);
    over.base = DraftBase::Empty;
    over.rules.clear();
    assert_eq!(node.rules.tried(Some(&over)).await.unwrap().rows.len(), 0);
    assert_eq!(node.rules.tried(None).await.unwrap().rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_counts_the_actors_as_they_counted_and_as_the_draft_has_them() {
    for db in engines().await {
        let node = Node::start(db).await;
        let mut unit = Unit::new();
        for chain in [&["agent:planner", "mcp:crm"][..], &[]] {
            let mut acted = context("ann", &["guest"], None);
            let mut principal = (*acted.principal).clone();
            principal.act_chain = chain.iter().map(|actor| (*actor).to_owned()).collect();
            acted.principal = Arc::new(principal);
            node.call(&mut unit, &acted, "demo", "whoami").await;
            node.call(&mut unit, &acted, "private", "whoami").await;
        }
        node.ledger.append(unit).await.unwrap();

        // The kinds of both sorts of records say how long it took, who acted, and how they counted.
        let rows = node.ledger.reader().page(node.ledger.stream(), 0, 100).await.unwrap();
        let records: Vec<serde_json::Value> =
            rows.iter().filter_map(|row| serde_json::from_str(row.record.as_deref()?).ok()).collect();
        let of = |kind: &str| {
            records.iter().filter(|r| r["kind"] == kind).map(|r| &r["detail"]).collect::<Vec<_>>()
        };
        for kind in ["governance.decision", "authz.decision"] {
            let [acted, alone] = of(kind)[..] else { panic!("{kind}: {records:?}") };
            assert!(acted["elapsed_us"].is_u64() && alone["elapsed_us"].is_u64(), "{acted} {alone}");
            assert_eq!(acted["actors"], json!(["agent:planner", "mcp:crm"]));
            assert_eq!(acted["actor_check"], "deny_only");
            assert!(alone.get("actors").is_none() && alone.get("actor_check").is_none(), "{alone}");
        }

        // `full` would deny them all; the records say that it was not so.
        let report = node.replay_as(&draft(json!({})), 0, Millis::MAX, ActorCheck::Full).await;
        assert_eq!((report.decisions, report.flips(), report.unreplayable), (4, 0, 0), "{report:?}");
        let deny =
            json!({"entity_type": "mcp_server", "entity_id": "demo", "access": "deny", "users": ["mcp:crm"]});
        let report = node.replay(&draft(json!({"rules": [deny]}))).await;
        assert_eq!((report.newly_denied.count, report.newly_allowed.count), (1, 0), "{report:?}");
        assert_eq!(report.newly_denied.groups[0].matched_by, "actor_deny");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_names_the_actor_for_whom_a_call_was_denied() {
    for db in engines().await {
        let node = Node::start(db).await;
        let params = UpsertRuleParams {
            entity_type: EntityKind::McpServer,
            entity_id: "demo".into(),
            is_pattern: false,
            rule_type: RuleType::User,
            rule_value: "mcp:crm".into(),
            access: Access::Deny,
            justification: None,
            source: "api",
            created_by: "root".into(),
        };
        node.rules.create_rule(&context("root", &[], None), &params).await.unwrap();
        let mut acted = context("ann", &["guest"], None);
        let act_chain = vec!["agent:planner".to_owned(), "mcp:crm".to_owned()];
        acted.principal = Arc::new(Principal { act_chain, ..(*acted.principal).clone() });
        let mut unit = Unit::new();
        node.call(&mut unit, &acted, "demo", "whoami").await;
        node.ledger.append(unit).await.unwrap();
        let rows = node.ledger.reader().page(node.ledger.stream(), 0, 100).await.unwrap();
        let record: serde_json::Value =
            serde_json::from_str(rows.last().unwrap().record.as_deref().unwrap()).unwrap();
        let matched = &record["detail"]["matched"][0];
        assert_eq!(
            (&record["policy"], &matched["actor"]),
            (&json!("actor_deny"), &json!("mcp:crm")),
            "{record}"
        );
        assert!(matched["rule_id"].is_string(), "{record}");
    }
}
