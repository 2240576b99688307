use super::*;
use proptest::prelude::*;
use systemprompt_models::ids::{RuleId, UserId};

fn entity(id: &str, default_included: bool) -> Entity {
    Entity {
        kind: EntityKind::McpServer,
        id: id.into(),
        display_name: None,
        default_included,
        source: "seed".into(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn rule(id: &str, entity_id: &str, rule_type: RuleType, value: &str, access: Access) -> AccessRule {
    AccessRule {
        id: RuleId::new(id),
        entity_type: EntityKind::McpServer,
        entity_id: entity_id.into(),
        is_pattern: entity_id.contains('*'),
        rule_type,
        rule_value: value.into(),
        access,
        justification: None,
        source: "seed".into(),
        created_by: "test".into(),
        created_at: 0,
        updated_at: 0,
        version: 1,
    }
}

fn principal(user: &str, roles: &[&str], department: Option<&str>) -> Principal {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(user);
    principal.roles = roles.iter().map(ToString::to_string).collect();
    principal.department = department.map(str::to_owned);
    principal
}

fn decide(entities: &[Entity], rules: &[AccessRule], who: &Principal, id: &str) -> AuthzDecision {
    let set = RuleSet::build(7, entities, rules);
    resolve(&set, &set.compile(who), &EntityRef::new(EntityKind::McpServer, id))
}

/// The consequences of SEC-62, each with the rule that decided.
#[test]
fn case_17_bands_decide_in_order_and_deny_wins_inside_a_band() {
    use Access::{Allow, Deny};
    use RuleType::{Department, Role, User};
    let table: &[(&str, Vec<AccessRule>, Matched, Option<&str>)] = &[
        (
            "a user allow beats a role deny",
            vec![rule("r1", "e", User, "ann", Allow), rule("r2", "e", Role, "dev", Deny)],
            Matched::UserAllow,
            Some("r1"),
        ),
        (
            "a user deny beats a role allow",
            vec![rule("r1", "e", User, "ann", Deny), rule("r2", "e", Role, "dev", Allow)],
            Matched::UserDeny,
            Some("r1"),
        ),
        (
            "a role allow beats a department deny",
            vec![rule("r1", "e", Department, "eng", Deny), rule("r2", "e", Role, "dev", Allow)],
            Matched::RoleAllow,
            Some("r2"),
        ),
        (
            "one denied role beats any number of allowed ones",
            vec![
                rule("r1", "e", Role, "dev", Allow),
                rule("r2", "e", Role, "ops", Allow),
                rule("r3", "e", Role, "temp", Deny),
            ],
            Matched::RoleDeny,
            Some("r3"),
        ),
        (
            "a department allow",
            vec![rule("r1", "e", Department, "eng", Allow)],
            Matched::DepartmentAllow,
            Some("r1"),
        ),
        (
            "a department deny",
            vec![rule("r1", "e", Department, "eng", Deny)],
            Matched::DepartmentDeny,
            Some("r1"),
        ),
        (
            "rules of others do not count",
            vec![rule("r1", "e", User, "bob", Allow)],
            Matched::NotAssigned,
            None,
        ),
        (
            "an empty department matches nothing",
            vec![rule("r1", "e", Department, "", Allow)],
            Matched::NotAssigned,
            None,
        ),
    ];
    let ann = principal("ann", &["dev", "ops", "temp"], Some("eng"));
    for (name, rules, matched, by) in table {
        let decision = decide(&[entity("e", false)], rules, &ann, "e");
        assert_eq!(decision.matched, *matched, "{name}");
        assert_eq!(decision.rule.as_ref().map(|r| r.id.as_str()), *by, "{name}");
        assert_eq!(decision.epoch, 7);
    }
    let admin = principal("root", &["admin"], None);
    assert_eq!(
        decide(&[entity("e", false)], &[], &admin, "e").matched,
        Matched::NotAssigned,
        "admin has no bypass"
    );
    let nameless = principal("x", &[], Some(""));
    let empty = [rule("r1", "e", RuleType::Department, "", Access::Allow)];
    assert_eq!(decide(&[entity("e", false)], &empty, &nameless, "e").matched, Matched::NotAssigned);
}

#[test]
fn case_16_the_rule_that_is_named_does_not_depend_on_the_order_of_rows() {
    for access in [Access::Allow, Access::Deny] {
        let mut rows: Vec<AccessRule> = ["dev", "ops", "temp"]
            .iter()
            .zip(["r3", "r1", "r2"])
            .map(|(role, id)| rule(id, "e", RuleType::Role, role, access))
            .collect();
        let ann = principal("ann", &["dev", "ops", "temp"], None);
        for _ in 0..rows.len() {
            rows.rotate_left(1);
            for rows in [rows.clone(), rows.iter().rev().cloned().collect()] {
                let decision = decide(&[entity("e", false)], &rows, &ann, "e");
                assert_eq!(decision.rule.as_ref().map(|by| by.id.as_str()), Some("r1"), "{rows:?}");
            }
        }
    }
}

#[test]
fn an_unregistered_entity_is_denied_even_with_rules() {
    let rules = [rule("r1", "ghost", RuleType::User, "ann", Access::Allow)];
    let decision = decide(&[entity("e", true)], &rules, &principal("ann", &[], None), "ghost");
    assert_eq!(decision.matched, Matched::UnknownEntity);
    assert_eq!(
        decide(&[entity("e", true)], &rules, &principal("ann", &[], None), "e").matched,
        Matched::DefaultIncluded
    );
}

#[test]
fn patterns_match_any_text_for_a_star() {
    for (pattern, id, want) in [
        ("*", "", true),
        ("*", "abc", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c", "abd", false),
        ("a*b*c", "axbyc", true),
        ("a*b*c", "axyc", false),
        ("ab*ba", "aba", false),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("*/delete*", "demo/delete_all", true),
    ] {
        assert_eq!(pattern_matches(pattern, id), want, "{pattern} {id}");
    }
}

/// The bands of SEC-62 in twenty lines, as the oracle.
fn model(entities: &[Entity], rules: &[AccessRule], who: &Principal, id: &str) -> Matched {
    let Some(entity) = entities.iter().find(|e| e.id == id) else { return Matched::UnknownEntity };
    let of = |rule_type: RuleType| {
        let hits = rules.iter().filter(move |r| {
            r.rule_type == rule_type
                && (if r.is_pattern { pattern_matches(&r.entity_id, id) } else { r.entity_id == id })
                && match rule_type {
                    RuleType::User => r.rule_value == who.user_id.as_str(),
                    RuleType::Role => who.roles.contains(&r.rule_value),
                    RuleType::Department => {
                        who.department.as_ref().is_some_and(|d| !d.is_empty() && *d == r.rule_value)
                    }
                }
        });
        hits.map(|r| r.access).reduce(|a, b| if a == Access::Deny { a } else { b })
    };
    match (of(RuleType::User), of(RuleType::Role), of(RuleType::Department)) {
        (Some(Access::Deny), _, _) => Matched::UserDeny,
        (Some(Access::Allow), _, _) => Matched::UserAllow,
        (_, Some(Access::Deny), _) => Matched::RoleDeny,
        (_, Some(Access::Allow), _) => Matched::RoleAllow,
        (_, _, Some(Access::Deny)) => Matched::DepartmentDeny,
        (_, _, Some(Access::Allow)) => Matched::DepartmentAllow,
        _ if entity.default_included => Matched::DefaultIncluded,
        _ => Matched::NotAssigned,
    }
}

fn any_rule() -> impl Strategy<Value = AccessRule> {
    let ids = prop::sample::select(vec!["a", "ab", "abc", "b", "a*", "*", "ghost", "*c"]);
    let types = prop::sample::select(vec![RuleType::User, RuleType::Role, RuleType::Department]);
    let values = prop::sample::select(vec!["x", "y", "z"]);
    (0_u32..1000, ids, types, values, any::<bool>()).prop_map(|(n, id, rule_type, value, deny)| {
        rule(&format!("rul_{n}"), id, rule_type, value, if deny { Access::Deny } else { Access::Allow })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn case_16_agrees_with_the_band_model_and_order_never_matters(
        rules in prop::collection::vec(any_rule(), 0..40),
        included in prop::collection::vec(any::<bool>(), 4),
        roles in prop::collection::vec(prop::sample::select(vec!["x", "y", "z", "w"]), 0..4),
        department in prop::option::of(prop::sample::select(vec!["x", "y", ""])),
        user in prop::sample::select(vec!["x", "y", "n"]),
        seed in any::<u64>(),
    ) {
        let entities: Vec<Entity> = ["a", "ab", "abc", "b"].iter().zip(&included).map(|(id, d)| entity(id, *d)).collect();
        let who = principal(user, &roles, department);
        let mut shuffled = rules.clone();
        shuffled.sort_by_key(|r| (seed ^ u64::from(r.id.as_str().len() as u32)).wrapping_mul(r.rule_value.len() as u64 + 7) % 13);
        shuffled.reverse();
        let doubled: Vec<_> = rules.iter().chain(&shuffled).cloned().collect();
        for id in ["a", "ab", "abc", "b", "ghost"] {
            let want = model(&entities, &rules, &who, id);
            let one = decide(&entities, &rules, &who, id);
            prop_assert_eq!(one.matched, want);
            prop_assert_eq!(decide(&entities, &shuffled, &who, id).matched, want);
            prop_assert_eq!(decide(&entities, &doubled, &who, id).matched, want);
        }
    }
}

/// A deny on a tool must count whether or not the tool was ever registered: its server decides which tools there are.
#[test]
fn rules_that_name_or_cover_a_tool_count_without_its_registration() {
    use Access::{Allow, Deny};
    let tool = |id: &str, pattern: &str, role: &str, access: Access| AccessRule {
        entity_type: EntityKind::McpTool,
        ..rule(id, pattern, RuleType::Role, role, access)
    };
    let rules = [
        tool("r1", "demo/delete*", "dev", Deny),
        tool("r2", "demo/delete_customer", "dev", Allow),
        tool("r3", "demo/report", "ops", Allow),
    ];
    let set = RuleSet::build(1, &[], &rules);
    let dev = set.compile(&principal("ann", &["dev"], None));
    for (id, matched, known) in [
        ("demo/delete_order", Matched::RoleDeny, true),
        ("demo/delete_customer", Matched::RoleDeny, true),
        ("demo/report", Matched::NotAssigned, true),
        ("demo/lookup", Matched::UnknownEntity, false),
    ] {
        let entity = EntityRef::new(EntityKind::McpTool, id);
        assert_eq!((resolve(&set, &dev, &entity).matched, set.knows(&entity)), (matched, known), "{id}");
    }
}

/// The bands again, over rules found by their entity: the oracle for sets that are too large for the twenty lines above.
fn indexed_model(
    index: &HashMap<&str, Vec<&AccessRule>>,
    included: &HashMap<&str, bool>,
    who: &Principal,
    id: &str,
) -> Matched {
    let Some(included) = included.get(id) else { return Matched::UnknownEntity };
    let rows = index.get(id).map(Vec::as_slice).unwrap_or_default();
    let is_of = |row: &AccessRule| match row.rule_type {
        RuleType::User => row.rule_value == who.user_id.as_str(),
        RuleType::Role => who.roles.contains(&row.rule_value),
        RuleType::Department => who.department.as_ref() == Some(&row.rule_value),
    };
    let bands = [
        (RuleType::User, Access::Deny, Matched::UserDeny),
        (RuleType::User, Access::Allow, Matched::UserAllow),
        (RuleType::Role, Access::Deny, Matched::RoleDeny),
        (RuleType::Role, Access::Allow, Matched::RoleAllow),
        (RuleType::Department, Access::Deny, Matched::DepartmentDeny),
        (RuleType::Department, Access::Allow, Matched::DepartmentAllow),
    ];
    let hit = bands.iter().find(|(rule_type, access, _)| {
        rows.iter().any(|row| row.rule_type == *rule_type && row.access == *access && is_of(row))
    });
    hit.map_or(if *included { Matched::DefaultIncluded } else { Matched::NotAssigned }, |(_, _, band)| *band)
}

#[test]
fn case_16_4096_questions_of_large_sets_agree_with_the_bands() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for size in [1_000, 10_000, 100_000] {
        let ids: Vec<String> = (0..size / 8).map(|n| format!("server-{n:05}")).collect();
        let entities: Vec<Entity> = ids.iter().enumerate().map(|(n, id)| entity(id, n % 9 == 0)).collect();
        let rules: Vec<AccessRule> = (0..size)
            .map(|n| {
                // Every 50th speaks of an entity that nobody registered.
                let id = if n % 50 == 0 { "ghost" } else { &*ids[below(ids.len())] };
                let (rule_type, value) = match below(3) {
                    0 => (RuleType::User, format!("user-{}", below(40))),
                    1 => (RuleType::Role, format!("role-{}", below(12))),
                    _ => (RuleType::Department, format!("department-{}", below(6))),
                };
                let access = if below(3) == 0 { Access::Deny } else { Access::Allow };
                rule(&format!("r{n:06}"), id, rule_type, &value, access)
            })
            .collect();
        let set = RuleSet::build(1, &entities, &rules);
        let included: HashMap<&str, bool> = entities.iter().map(|e| (&*e.id, e.default_included)).collect();
        let mut index: HashMap<&str, Vec<&AccessRule>> = HashMap::new();
        for row in &rules {
            index.entry(&row.entity_id).or_default().push(row);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4096 {
            let roles: Vec<String> = (0..below(4)).map(|_| format!("role-{}", below(14))).collect();
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            let department = format!("department-{}", below(8));
            let who = principal(&format!("user-{}", below(50)), &roles, Some(&department));
            let id = if below(100) == 0 { "ghost" } else { &*ids[below(ids.len())] };
            let want = indexed_model(&index, &included, &who, id);
            let got = resolve(&set, &set.compile(&who), &EntityRef::new(EntityKind::McpServer, id));
            assert_eq!(got.matched, want, "{size} rules, {id}");
            seen.insert(want.as_str());
        }
        assert_eq!(seen.len(), 9, "each band decides some of them: {seen:?}");
    }
}

/// Tools that only patterns speak of are decided without expanding them; the outcome is that of the bands.
#[test]
fn patterns_over_tools_follow_the_bands_and_the_smaller_id_is_named() {
    use Access::{Allow, Deny};
    let tool = |id: &str, pattern: &str, rule_type: RuleType, value: &str, access: Access| AccessRule {
        entity_type: EntityKind::McpTool,
        ..rule(id, pattern, rule_type, value, access)
    };
    let mut rules = vec![
        tool("r4", "demo/*", RuleType::Role, "dev", Allow),
        tool("r3", "demo/de*", RuleType::Role, "ops", Deny),
        tool("r2", "*/delete*", RuleType::Role, "ops", Deny),
        tool("r5", "demo/delete*", RuleType::User, "ann", Allow),
    ];
    for _ in 0..2 {
        let set = RuleSet::build(1, &[], &rules);
        let ask = |user: &str, id: &str| {
            let who = set.compile(&principal(user, &["dev", "ops"], None));
            let decision = resolve(&set, &who, &EntityRef::new(EntityKind::McpTool, id));
            (decision.matched, decision.rule.as_ref().map(|rule| rule.id.to_string()).unwrap_or_default())
        };
        assert_eq!(ask("ann", "demo/delete_all"), (Matched::UserAllow, "r5".to_owned()));
        assert_eq!(ask("bob", "demo/delete_all"), (Matched::RoleDeny, "r2".to_owned()));
        assert_eq!(ask("bob", "demo/read"), (Matched::RoleAllow, "r4".to_owned()));
        assert_eq!(ask("bob", "crm/read"), (Matched::UnknownEntity, String::new()));
        rules.reverse();
    }
}
