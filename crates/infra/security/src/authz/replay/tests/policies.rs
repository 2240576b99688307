//! Drafts that change governance policies.

use super::*;
use crate::governance::replay::Taken;
use systemprompt_audit::payload::{Mode, PayloadRules};
use systemprompt_database::on_tx;

const PATHS: [&str; 3] = ["/etc/passwd", "/srv/notes", "/home/ann"];

fn arguments(path: &str) -> String {
    json!({"path": path}).to_string()
}

/// Decisions in SQL, counted by what a draft turns on.
async fn counted(db: &TestDb, tool: &str, path: Option<&str>, policy: &str, decision: &str) -> u64 {
    let digest = path.map(|path| hex::encode(digest(&SHA256, arguments(path).as_bytes())));
    let (count,): (i64,) = on!(&**db, pool => sqlx::query_as(sql!(
        "SELECT COUNT(*) FROM governance_decisions
         WHERE tool_name = $1 AND (CAST($2 AS TEXT) IS NULL OR args_sha256 = $2) AND policy LIKE $3 AND decision = $4"
    )).bind(tool).bind(digest.as_deref()).bind(policy).bind(decision).fetch_one(pool).await)
    .unwrap();
    count as u64
}

fn guest() -> RequestContext {
    context("guest_1", &["guest"], None)
}

#[tokio::test(flavor = "multi_thread")]
async fn case_30_flips_of_a_draft_policy_on_retained_arguments_equal_a_count_in_sql() {
    for db in engines().await {
        let node = Node::start(db).await;
        let people = [guest(), context("staff_1", &["staff"], Some("research"))];
        let tools = ["crm_lookup", "read_file", "delete_customer", "whoami", "crm_export"];
        for first in (0..CALLS).step_by(TOGETHER) {
            let mut unit = Unit::new();
            for n in first..first + TOGETHER {
                let server = if n % 11 == 0 { "private" } else { "demo" };
                let arguments = arguments(PATHS[n % PATHS.len()]);
                let person = &people[n % people.len()];
                node.call_with(&mut unit, person, server, tools[n % tools.len()], Some(&arguments)).await;
            }
            node.ledger.append(unit).await.unwrap();
        }
        let unchanged = node.replay(&PolicyDraft::default()).await;
        assert_eq!((unchanged.decisions, unchanged.flips(), unchanged.unreplayable), (CALLS as u64, 0, 0));

        // One tool, by its name.
        let tokens =
            json!({"id": "tool_blocklist", "params": {"tokens": ["delete", "drop", "destroy", "export"]}});
        let report = node.replay(&draft(json!({"policies": [tokens]}))).await;
        let denied = counted(&node.db, "crm_export", None, "%", "allow").await;
        assert!(denied > 1500, "{denied}");
        assert_eq!(
            (report.newly_denied.count, report.newly_allowed.count, report.unreplayable),
            (denied, 0, 0)
        );
        assert_eq!(report.unchanged, CALLS as u64 - denied);
        let group = &report.newly_denied.groups[0];
        assert_eq!(
            (
                group.entity.as_str(),
                group.matched_by.as_str(),
                group.rule_id.as_deref(),
                group.before.as_str()
            ),
            ("mcp_server:demo", "tool_blocklist", Some("tool_blocked"), "default_included")
        );
        assert_eq!(group.examples.len(), 3);

        // One tool, by what its arguments were.
        let rule = json!({"id": "etc", "tool": "read_file", "pointer": "/path", "regex": "^/etc/"});
        let rules = json!({"id": "argument_rules", "params": {"rules": [rule]}});
        let report = node.replay(&draft(json!({"policies": [rules]}))).await;
        let denied = counted(&node.db, "read_file", Some("/etc/passwd"), "%", "allow").await;
        assert!(denied > 500, "{denied}");
        assert_eq!(
            (report.newly_denied.count, report.newly_allowed.count, report.unreplayable),
            (denied, 0, 0)
        );
        let group = &report.newly_denied.groups[0];
        assert_eq!(
            (group.matched_by.as_str(), group.rule_id.as_deref()),
            ("argument_rules", Some("argument-etc"))
        );

        // A policy that is switched off: those behind it, which had not been asked, look at the retained arguments.
        let off = json!({"id": "tool_blocklist", "enabled": false});
        let allowed = counted(&node.db, "delete_customer", None, "tool_blocklist", "deny").await;
        let report = node.replay(&draft(json!({"policies": [off]}))).await;
        assert!(allowed > 1500, "{allowed}");
        assert_eq!(
            (report.newly_denied.count, report.newly_allowed.count, report.unreplayable),
            (0, allowed, 0)
        );
        assert_eq!(report.newly_allowed.groups[0].before, "tool_blocklist");
        assert_eq!(report.notes.arguments_alone, allowed);
        let stranger = json!({"entity_type": "mcp_server", "entity_id": "private", "access": "allow", "roles": ["guest"]});
        let opened = node.replay(&draft(json!({"rules": [stranger], "policies": [rules]}))).await;
        let behind =
            |group: &FlipGroup| group.matched_by == "argument_rules" && group.entity.ends_with("private");
        assert!(!opened.newly_denied.groups.iter().any(behind), "they were refused before: {opened:?}");
        assert!(opened.newly_allowed.count > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_limit_said_stands_and_the_report_says_so() {
    for db in engines().await {
        let limit = json!({"id": "rate_limit", "params": {"limit": 3, "window_s": 3600}});
        let node = Node::with(db, json!([limit])).await;
        let mut unit = Unit::new();
        for tool in ["whoami", "whoami", "whoami", "crm_lookup", "delete_customer"] {
            node.call_with(&mut unit, &guest(), "demo", tool, Some("{}")).await;
        }
        node.ledger.append(unit).await.unwrap();
        let refused = counted(&node.db, "crm_lookup", None, "rate_limit", "deny").await;
        assert_eq!(refused, 1);
        let no_limit = json!({"id": "rate_limit", "params": {"limit": 1000}});
        let off = json!({"id": "tool_blocklist", "enabled": false});
        let report = node.replay(&draft(json!({"policies": [no_limit, off]}))).await;
        // The fourth stays refused by the limit, the fifth never came to it.
        assert_eq!((report.unchanged, report.newly_allowed.count, report.newly_denied.count), (4, 1, 0));
        let taken = Taken { recorded: 4, refused: 1, not_asked: 1 };
        assert_eq!(report.notes.taken_over.get("rate_limit"), Some(&taken));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_tried_with_another_action_although_their_arguments_are_redacted() {
    for db in engines().await {
        let node = Node::with(db, json!([])).await;
        let mut unit = Unit::new();
        let random = json!({"note": "password = \"k3Vq9ZtR7wXp2LmB8sYd4NcF6hJg1TqA\""}).to_string();
        let secret = json!({"key": "AKIAC6O6OYA7VNGCNGSU"}).to_string();
        for arguments in [&random, &secret, "{}"] {
            node.call_with(&mut unit, &guest(), "demo", "whoami", Some(arguments)).await;
        }
        node.ledger.append(unit).await.unwrap();
        let stands = node.replay(&PolicyDraft::default()).await;
        assert_eq!((stands.decisions, stands.flips(), stands.unreplayable), (3, 0, 0), "{stands:?}");
        let scan = |actions: serde_json::Value| json!({"policies": [{"id": "secret_scan", "params": {"actions": actions}}]});
        let strict = node.replay(&draft(scan(json!({"generic": "block"})))).await;
        assert_eq!((strict.newly_denied.count, strict.newly_allowed.count), (1, 0), "{strict:?}");
        let group = &strict.newly_denied.groups[0];
        assert_eq!(
            (group.matched_by.as_str(), group.rule_id.as_deref()),
            ("secret_scan", Some("generic-high-entropy"))
        );
        // The call that was refused would have gone on to policies that had not been asked, and its arguments are redacted.
        let lax = node.replay(&draft(scan(json!({"specific": "flag"})))).await;
        assert_eq!((lax.flips(), lax.unreplayable), (0, 1), "{lax:?}");
        assert_eq!(lax.unreplayable_why.get("arguments_redacted"), Some(&1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_cut_is_unreplayable_where_the_decision_turns_on_it() {
    for db in engines().await {
        let node = Node::start(db).await;
        let long = json!({"path": "/etc/passwd", "text": "lorem ipsum ".repeat(30_000)}).to_string();
        for (tool, arguments) in
            [("read_file", &*arguments("/etc/passwd")), ("read_file", &long), ("whoami", "{}")]
        {
            let mut unit = Unit::new();
            node.call_with(&mut unit, &guest(), "demo", tool, Some(arguments)).await;
            node.ledger.append(unit).await.unwrap();
        }
        let rule = json!({"tool": "read_file", "pointer": "/path", "regex": "^/etc/"});
        let rules = draft(json!({"policies": [{"id": "argument_rules", "params": {"rules": [rule]}}]}));
        let report = node.replay(&rules).await;
        assert_eq!((report.newly_denied.count, report.unchanged), (1, 1), "{report:?}");
        assert_eq!(report.unreplayable_why.get("arguments_cut"), Some(&1));

        let mut tx = node.db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(sql!("DELETE FROM ledger_payloads")).execute(&mut *conn).await.map(drop))
            .unwrap();
        tx.commit().await.unwrap();
        let report = node.replay(&rules).await;
        assert_eq!((report.unchanged, report.flips(), report.unreplayable), (1, 0, 2));
        assert_eq!(report.unreplayable_why.get("arguments_gone"), Some(&1));
        // Whoever is denied by name is denied without them.
        let by_name = json!({"id": "tool_blocklist", "params": {"tokens": ["read"]}});
        let by_name = json!({"policies": [by_name, {"id": "argument_rules", "params": {"rules": [rule]}}]});
        let report = node.replay(&draft(by_name)).await;
        assert_eq!((report.newly_denied.count, report.unreplayable), (2, 0));

        let rules_kept = PayloadRules { tool: Mode::HashOnly, ..PayloadRules::default() };
        node.ledger.keep_payloads(PayloadPolicy { rules: rules_kept, ..PayloadPolicy::default() });
        let mut unit = Unit::new();
        node.call_with(&mut unit, &guest(), "demo", "read_file", Some("{}")).await;
        node.ledger.append(unit).await.unwrap();
        let report = node.replay(&rules).await;
        assert_eq!(report.unreplayable_why.get("arguments_not_kept"), Some(&1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_agents_count_as_they_were() {
    let [db, _postgres] = engines().await;
    let node = Node::start(db).await;
    let mut unit = Unit::new();
    let mut root = guest();
    Arc::make_mut(&mut root.principal).permissions = vec![Permission::User, Permission::Admin];
    for context in [&guest(), &root] {
        node.call_with(&mut unit, context, "demo", "crm_lookup", Some("{}")).await;
    }
    node.ledger.append(unit).await.unwrap();
    let admins = json!({"policies": [{"id": "scope_check", "params": {"tools": {"crm_lookup": "admin"}}}]});
    let report = node.replay(&draft(admins)).await;
    assert_eq!((report.newly_denied.count, report.unchanged, report.unreplayable), (1, 1, 0), "{report:?}");
    assert_eq!(report.newly_denied.groups[0].rule_id.as_deref(), Some("scope_violation"));
}

#[tokio::test]
async fn a_draft_names_policies_that_there_are_each_once() {
    let scanner = Arc::new(SecretScanner::builtin().unwrap());
    let parts = Parts::new(scanner, Arc::new(RateLimiter::new()), Arc::new(SystemClock));
    let of = |policies: serde_json::Value| {
        let draft = draft(json!({"policies": policies}));
        TriedPolicies::of(&GovernanceConfig::default(), &draft.policies, &parts).map(drop)
    };
    assert!(of(json!([{"id": "pii", "params": {"action": "block"}}])).is_ok());
    for (policies, says) in [
        (json!([{"id": "pi"}]), "there is no policy `pi`"),
        (json!([{"id": "pii"}, {"id": "pii"}]), "listed twice"),
        (json!([{"id": "pii", "params": {"act": 1}}]), "policy `pii`"),
    ] {
        let told = of(policies).unwrap_err().to_string();
        assert!(told.contains(says), "{told}");
    }
}
