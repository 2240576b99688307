use super::*;
use crate::authz::repository::UpsertRuleParams;
use crate::authz::types::{Access, AccessRule, Department, EntityRef, RuleType};
use crate::authz::{AccessControlIngestionService, AuthzExtension, IngestReport, resolve};
use serde_json::json;
use std::sync::atomic::AtomicI64 as Time;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, on_tx};
use systemprompt_extension::Extension;
use systemprompt_models::ids::{TraceId, UserId};
use systemprompt_models::{Principal, SystemClock};

#[derive(Debug, Default)]
struct Hand(Time);

impl Clock for Hand {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

fn caller(user: &str) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(user);
    RequestContext::new(Arc::new(principal), TraceId::generate())
}

fn rule(entity: &str, role: &str, access: Access) -> UpsertRuleParams {
    UpsertRuleParams {
        entity_type: EntityKind::McpServer,
        entity_id: entity.to_owned(),
        is_pattern: entity.contains('*'),
        rule_type: RuleType::Role,
        rule_value: role.to_owned(),
        access,
        justification: None,
        source: "api",
        created_by: "ada".to_owned(),
    }
}

async fn fresh() -> [TestDb; 2] {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(AuthzExtension.migrations());
    databases(&migrations).await
}

async fn ledger(db: &TestDb) -> Ledger {
    systemprompt_audit::testing::ledger(db, &[]).await
}

async fn store(db: &TestDb, ledger: &Ledger, limits: RuleLimits) -> RuleStore {
    let bridge = Bridge::new(db);
    RuleStore::load_with((**db).clone(), ledger.clone(), Arc::new(SystemClock), bridge, limits).await.unwrap()
}

fn may(store: &RuleStore, role: &str, id: &str) -> &'static str {
    let mut principal = Principal::anonymous();
    principal.roles = vec![role.to_owned()];
    let rules = store.rules();
    resolve(&rules, &rules.compile(&principal), &EntityRef::new(EntityKind::McpServer, id)).policy()
}

#[tokio::test]
async fn a_repeated_request_makes_one_rule_and_a_key_stands_for_one_request() {
    for db in fresh().await {
        let store = store(&db, &ledger(&db).await, RuleLimits::default()).await;
        let (ada, eve) = (caller("ada"), caller("eve"));
        let first = store.create_rule_once(&ada, &rule("a", "dev", Access::Allow), "key-1").await.unwrap();
        let again = store.create_rule_once(&ada, &rule("a", "dev", Access::Allow), "key-1").await.unwrap();
        assert_eq!(first.id, again.id);
        let other = store.create_rule_once(&ada, &rule("b", "dev", Access::Allow), "key-1").await;
        assert!(matches!(other, Err(AuthzError::OtherRequest)), "{other:?}");
        let hers = store.create_rule_once(&eve, &rule("b", "dev", Access::Allow), "key-1").await.unwrap();
        assert_ne!(hers.id, first.id, "a key is its owner's");
        let twin = store.create_rule_once(&ada, &rule("a", "dev", Access::Deny), "key-2").await;
        assert!(matches!(twin, Err(AuthzError::RuleExists(id)) if id == first.id.as_str()));
        assert_eq!(store.rows().await.unwrap().len(), 2);
        store.delete_rule(&ada, first.id.as_str(), None).await.unwrap();
        let gone = store.create_rule_once(&ada, &rule("a", "dev", Access::Allow), "key-1").await;
        assert!(
            matches!(gone, Err(AuthzError::KeyUsed(id)) if id == first.id.as_str()),
            "not made anew, not missing"
        );
        for (entity, role) in [(" a", "dev"), ("a ", "dev"), ("a", "dev\u{a0}"), ("a\t", "dev")] {
            let stray = store.create_rule(&ada, &rule(entity, role, Access::Deny)).await;
            assert!(matches!(stray, Err(AuthzError::Invalid { .. })), "{entity:?} {role:?}");
        }
        let stray = store.put_entity(&ada, EntityKind::McpServer, " a", None, false, "api").await;
        assert!(matches!(stray, Err(AuthzError::Invalid { field: "id", .. })));
    }
}

#[tokio::test]
async fn over_the_limit_a_rule_is_refused_and_the_old_set_stays() {
    for db in fresh().await {
        let limits = RuleLimits { max_rules: 3, max_expanded: 5, ..RuleLimits::default() };
        let store = store(&db, &ledger(&db).await, limits).await;
        let ada = caller("ada");
        for id in ["a", "b", "c"] {
            store.put_entity(&ada, EntityKind::McpServer, id, None, false, "api").await.unwrap();
        }
        store.create_rule(&ada, &rule("*", "dev", Access::Allow)).await.unwrap();
        assert_eq!((store.rules().expanded(), may(&store, "dev", "c")), (3, "role_allow"));
        let wide = store.create_rule(&ada, &rule("*", "ops", Access::Allow)).await;
        assert!(matches!(wide, Err(AuthzError::TooManyRules(_))), "its expansion does not fit: {wide:?}");
        store.create_rule(&ada, &rule("a", "x", Access::Allow)).await.unwrap();
        store.create_rule(&ada, &rule("ghost", "y", Access::Allow)).await.unwrap();
        let epoch = store.rules().epoch();
        let more = store.create_rule(&ada, &rule("b", "x", Access::Allow)).await;
        assert!(matches!(more, Err(AuthzError::TooManyRules(3))), "{more:?}");
        let config: systemprompt_config::AccessControlConfig = serde_json::from_value(json!({
            "rules": [{"entity_type": "mcp_server", "entity_id": "b", "roles": ["y"]}]
        }))
        .unwrap();
        let declared = store.compare(Declared::of(&config)).await;
        assert!(matches!(declared, Err(AuthzError::TooManyRules(3))), "{declared:?}");
        assert_eq!((store.rules().epoch(), may(&store, "dev", "c")), (epoch, "role_allow"));
    }
}

#[tokio::test]
async fn a_new_entity_is_covered_by_a_pattern_when_it_registers() {
    for db in fresh().await {
        let store = store(&db, &ledger(&db).await, RuleLimits::default()).await;
        let ada = caller("ada");
        store.create_rule(&ada, &rule("crm-*", "dev", Access::Allow)).await.unwrap();
        assert_eq!(may(&store, "dev", "crm-eu"), "unknown_entity");
        let made = store
            .put_entity_version(&ada, (EntityKind::McpServer, "crm-eu"), (Some("CRM"), false), None)
            .await
            .unwrap();
        assert_eq!(may(&store, "dev", "crm-eu"), "role_allow");
        let blind =
            store.put_entity_version(&ada, (EntityKind::McpServer, "crm-eu"), (None, true), None).await;
        assert!(matches!(blind, Err(AuthzError::VersionRequired { .. })), "{blind:?}");
        let put = async |version| {
            store
                .put_entity_version(&ada, (EntityKind::McpServer, "crm-eu"), (None, true), Some(version))
                .await
        };
        assert_eq!(put(made.version).await.unwrap().version, made.version + 1);
        assert!(matches!(put(made.version).await, Err(AuthzError::Changed { .. })));
        let gone = store.delete_entity(&ada, EntityKind::McpServer, "crm-eu", Some(made.version)).await;
        assert!(matches!(gone, Err(AuthzError::Changed { .. })));
        let names =
            |page: Vec<crate::authz::types::Entity>| page.into_iter().map(|e| e.id).collect::<Vec<_>>();
        store.put_entity(&ada, EntityKind::Skill, "a", None, false, "api").await.unwrap();
        let first = store.entities_page(("", ""), None, 1).await.unwrap();
        let last = (first[0].kind.as_str(), first[0].id.clone());
        assert_eq!(names(store.entities_page((last.0, &last.1), None, 9).await.unwrap()), ["a"]);
        assert_eq!(names(store.entities_page(("", ""), Some(EntityKind::Skill), 9).await.unwrap()), ["a"]);
    }
}

#[tokio::test]
async fn another_node_follows_by_the_epoch_and_finds_the_same_set() {
    for db in fresh().await {
        let ledger = ledger(&db).await;
        let here = store(&db, &ledger, RuleLimits::default()).await;
        let there = store(&db, &ledger, RuleLimits::default()).await;
        let ada = caller("ada");
        here.put_entity(&ada, EntityKind::McpServer, "crm", None, false, "api").await.unwrap();
        let made = here.create_rule(&ada, &rule("crm", "dev", Access::Allow)).await.unwrap();
        assert_eq!(may(&there, "dev", "crm"), "unknown_entity");
        assert!(there.at_least(here.rules().epoch()).await, "whoever asks for the version gets it");
        assert_eq!(may(&there, "dev", "crm"), "role_allow");
        assert_eq!(there.rules().set_hash(), here.rules().set_hash());
        let (epoch, told): (i64, Option<String>) =
            on!(&*db, pool => sqlx::query_as("SELECT epoch, set_hash FROM authz_epoch").fetch_one(pool).await)
                .unwrap();
        assert_eq!((epoch, told.as_deref()), (here.rules().epoch(), Some(&**here.rules().set_hash())));
        let start = std::time::Instant::now();
        assert!(!there.at_least(epoch + 1).await, "nobody has that one");
        assert!(start.elapsed() >= VERSION_WAIT);
        // Two that change what both have seen: one wins.
        here.change_rule(&ada, made.id.as_str(), made.version, Access::Deny, None).await.unwrap();
        let late = there.change_rule(&ada, made.id.as_str(), made.version, Access::Allow, None).await;
        assert!(matches!(late, Err(AuthzError::Changed { .. })), "{late:?}");
    }
}

#[tokio::test]
async fn a_set_that_cannot_be_confirmed_is_stale_and_confirmed_again_it_is_not() {
    let [db, _] = fresh().await;
    let clock = Arc::new(Hand::default());
    let limits = RuleLimits { max_staleness: 10_000, ..RuleLimits::default() };
    let ledger = ledger(&db).await;
    let bridge = Bridge::default();
    let store = RuleStore::load_with((*db).clone(), ledger, clock.clone(), bridge, limits).await.unwrap();
    clock.0.store(10_000, Ordering::Relaxed);
    assert!(!store.is_stale());
    clock.0.store(10_001, Ordering::Relaxed);
    assert!(store.is_stale());
    store.refresh().await.unwrap();
    assert!(!store.is_stale());
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query("ALTER TABLE authz_epoch RENAME TO gone").execute(&mut *conn).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
    clock.0.store(30_000, Ordering::Relaxed);
    assert!(store.refresh().await.is_err());
    assert!(store.is_stale());
}

#[tokio::test]
async fn departments_are_kept_by_their_maker_and_stay_while_a_rule_names_them() {
    for db in fresh().await {
        let ledger = ledger(&db).await;
        let store = store(&db, &ledger, RuleLimits::default()).await;
        let ada = caller("ada");
        let sales = store.put_department(&ada, "sales", (Some("sells"), None), None).await.unwrap();
        let blind = store.put_department(&ada, "sales", (None, None), None).await;
        assert!(matches!(blind, Err(AuthzError::VersionRequired { .. })));
        let sales = store
            .put_department(&ada, "sales", (Some("sells"), Some("s@x.example")), Some(sales.version))
            .await;
        let sales: Department = sales.unwrap();
        assert_eq!((sales.version, sales.manager_email.as_deref()), (2, Some("s@x.example")));
        let by_department =
            UpsertRuleParams { rule_type: RuleType::Department, ..rule("crm", "sales", Access::Allow) };
        let rule: AccessRule = store.create_rule(&ada, &by_department).await.unwrap();
        let used = store.delete_department(&ada, "sales", 2).await;
        assert!(matches!(used, Err(AuthzError::InUse { rules: 1, .. })), "{used:?}");
        store.delete_rule(&ada, rule.id.as_str(), Some(rule.version)).await.unwrap();

        let service = AccessControlIngestionService::new(store.clone(), ledger);
        let config = |description: &str| -> systemprompt_config::AccessControlConfig {
            serde_json::from_value(json!({
                "departments": [{"name": "sales"}, {"name": "legal", "description": description}],
                "entities": [{"type": "skill", "id": "report", "description": "A report"}],
                "rules": [{"entity_type": "skill", "entity_id": "report", "departments": ["legal"]}],
            }))
            .unwrap()
        };
        let report = service.ingest(&config("law"), IngestOptions::default()).await.unwrap();
        assert_eq!(report, IngestReport { inserted: 3, updated: 0, skipped: 1, deleted: 0 });
        let keep = IngestOptions { override_existing: false, delete_orphans: false };
        let report = service.ingest(&config("changed"), keep).await.unwrap();
        assert_eq!(report, IngestReport { skipped: 2, ..IngestReport::default() });
        assert_eq!(store.department("legal").await.unwrap().description.as_deref(), Some("law"));
        let report =
            service.ingest(&systemprompt_config::AccessControlConfig::default(), keep).await.unwrap();
        assert_eq!(report, IngestReport::default(), "orphans stay when told so");
        let report = service.ingest(&config("changed"), IngestOptions::default()).await.unwrap();
        assert_eq!(report, IngestReport { updated: 1, skipped: 1, ..IngestReport::default() });
        let declared = store.put_department(&ada, "legal", (None, None), Some(2)).await;
        assert!(matches!(declared, Err(AuthzError::Declared { .. })), "{declared:?}");
        let nothing = systemprompt_config::AccessControlConfig::default();
        let gone = service.ingest(&nothing, IngestOptions::default());
        assert_eq!(gone.await.unwrap(), IngestReport { deleted: 3, ..IngestReport::default() });
        let names: Vec<String> =
            store.departments("", 10).await.unwrap().into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["sales"], "what an administrator made stays");
        store.delete_department(&ada, "sales", 2).await.unwrap();
    }
}
