use super::*;
use crate::authz::types::Access;
use crate::authz::{AuthzExtension, RuleStore, resolve};
use serde_json::json;
use std::sync::Arc;
use systemprompt_database::testing::databases;
use systemprompt_events::Bridge;
use systemprompt_extension::Extension;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Principal, RequestContext, SystemClock};

fn config(rules: serde_json::Value) -> AccessControlConfig {
    let config = json!({
        "departments": [{"name": "sales"}],
        "entities": [{"type": "skill", "id": "report", "default_included": true}],
        "rules": rules,
    });
    serde_json::from_value(config).unwrap()
}

fn declared(rules: serde_json::Value) -> Declared {
    let mut declared = Declared::of(&config(rules));
    declared.entity(EntityKind::McpServer, "crm", Some("Customers"));
    declared.entity(EntityKind::Skill, "report", Some("a name"));
    declared
}

fn caller() -> RequestContext {
    RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate())
}

fn may(store: &RuleStore, role: &str, kind: EntityKind, id: &str) -> &'static str {
    let mut principal = Principal::anonymous();
    principal.roles = vec![role.to_owned()];
    let rules = store.rules();
    resolve(&rules, &rules.compile(&principal), &EntityRef::new(kind, id)).policy()
}

async fn stores() -> Vec<(systemprompt_database::testing::TestDb, RuleStore)> {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(AuthzExtension.migrations());
    let mut stores = Vec::new();
    for db in databases(&migrations).await {
        let ledger = systemprompt_audit::testing::ledger(&db, &[]).await;
        let store = RuleStore::load((*db).clone(), ledger, Arc::new(SystemClock), Bridge::default());
        let store = store.await.unwrap();
        stores.push((db, store));
    }
    stores
}

#[tokio::test]
async fn rows_follow_the_configuration_and_those_of_others_stay() {
    const SERVER: EntityKind = EntityKind::McpServer;
    for (_db, store) in stores().await {
        let by = caller();
        store.put_entity(&by, SERVER, "own", None, false, "api").await.unwrap();
        assert_eq!(may(&store, "user", SERVER, "crm"), "unknown_entity");

        let rules = json!([
            {"entity_type": "mcp_server", "entity_id": "crm", "roles": ["user", "guest"], "departments": ["sales"]},
            {"entity_type": "mcp_tool", "entity_match": "crm/drop*", "access": "deny", "roles": ["guest"]},
        ]);
        let changes = store.compare(declared(rules.clone())).await.unwrap();
        assert_eq!(changes.entities, Counts { inserted: 2, ..Counts::default() });
        assert_eq!(changes.rules, Counts { inserted: 4, ..Counts::default() });
        assert_eq!(may(&store, "user", SERVER, "crm"), "unknown_entity", "comparing changes nothing");
        store.follow(changes).await.unwrap();
        assert_eq!(may(&store, "user", SERVER, "crm"), "role_allow");
        assert_eq!(may(&store, "guest", EntityKind::McpTool, "crm/drop_all"), "role_deny");
        assert_eq!(may(&store, "user", EntityKind::Skill, "report"), "default_included");
        let named = store.entity(SERVER, "crm").await.unwrap().unwrap();
        assert_eq!((named.display_name.as_deref(), &*named.source), (Some("Customers"), DECLARED));

        let epoch = store.rules().epoch();
        let again = store.compare(declared(rules)).await.unwrap();
        assert!(again.is_empty());
        store.follow(again).await.unwrap();
        assert_eq!(store.rules().epoch(), epoch, "what agrees already is not written again");

        let rules = json!([
            {"entity_type": "mcp_server", "entity_id": "crm", "access": "deny", "roles": ["user"]},
        ]);
        let changes = store.compare(Declared::of(&config(rules))).await.unwrap();
        assert_eq!(changes.entities, Counts { deleted: 1, updated: 1, ..Counts::default() });
        assert_eq!(changes.rules, Counts { updated: 1, deleted: 3, ..Counts::default() });
        store.follow(changes).await.unwrap();
        assert!(store.entity(SERVER, "crm").await.unwrap().is_none(), "it is declared no more");
        assert!(store.entity(SERVER, "own").await.unwrap().is_some(), "an administrator's own entity stays");
    }
}

#[tokio::test]
async fn what_an_administrator_made_is_not_replaced_and_what_is_declared_is_changed_there() {
    const SERVER: EntityKind = EntityKind::McpServer;
    for (_db, store) in stores().await {
        let by = caller();
        store.put_entity(&by, SERVER, "crm", Some("ours"), true, "api").await.unwrap();
        let own = UpsertRuleParams {
            entity_type: SERVER,
            entity_id: "crm".to_owned(),
            is_pattern: false,
            rule_type: RuleType::Role,
            rule_value: "user".to_owned(),
            access: Access::Deny,
            justification: None,
            source: "api",
            created_by: "ada".to_owned(),
        };
        store.create_rule(&by, &own).await.unwrap();
        let rules = json!([{"entity_type": "mcp_server", "entity_id": "crm", "roles": ["user", "guest"]}]);
        let changes = store.compare(declared(rules)).await.unwrap();
        assert_eq!((changes.entities.skipped, changes.rules.skipped), (1, 1));
        store.follow(changes).await.unwrap();
        assert_eq!(may(&store, "user", SERVER, "crm"), "role_deny");
        assert_eq!(store.entity(SERVER, "crm").await.unwrap().unwrap().source, "api");

        let rows = store.rows().await.unwrap();
        let guest = rows.iter().find(|rule| rule.rule_value == "guest").unwrap();
        let id = guest.id.as_str();
        let changed = store.change_rule(&by, id, guest.version, Access::Deny, None).await;
        assert!(matches!(changed, Err(AuthzError::Declared { what: "rule", .. })), "{changed:?}");
        let deleted = store.delete_rule(&by, id, None).await;
        assert!(matches!(deleted, Err(AuthzError::Declared { .. })), "{deleted:?}");
        let forgotten = store.delete_entity(&by, SERVER, "crm", None).await;
        assert!(matches!(forgotten, Err(AuthzError::Declared { what: "entity", .. })), "{forgotten:?}");
    }
}

#[test]
fn a_rule_out_of_bounds_is_refused_and_nothing_is_planned() {
    let rules = json!([{"entity_type": "mcp_server", "entity_id": "a".repeat(300), "roles": ["user"]}]);
    let refused = declared(rules).changes((&[], &[], &[]), IngestOptions::default());
    assert!(matches!(refused, Err(AuthzError::Invalid { field: "entity_id", .. })), "{refused:?}");
}
