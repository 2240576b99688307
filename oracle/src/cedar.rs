//! The bands in Cedar: an allow of any band permits; a deny forbids unless an earlier band allows.

use crate::world::{World, covers};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use systemprompt_security::authz::{Access, AccessRule, EntityRef, RuleType};

const POLICIES: &str = r#"
permit (principal, action == Action::"use", resource) when {
    resource.user_allow.contains(principal.name)
    || resource.role_allow.containsAny(principal.roles)
    || (principal has department && resource.department_allow.contains(principal.department))
    || resource.default_included
};

forbid (principal, action == Action::"use", resource) when {
    resource.user_deny.contains(principal.name)
    || (
        !resource.user_allow.contains(principal.name)
        && (
            resource.role_deny.containsAny(principal.roles)
            || (
                !resource.role_allow.containsAny(principal.roles)
                && principal has department
                && resource.department_deny.contains(principal.department)
            )
        )
    )
};
"#;

pub struct Cedar {
    policies: PolicySet,
    entities: Entities,
    authorizer: Authorizer,
    principals: Vec<EntityUid>,
    registered: HashSet<String>,
}

impl Cedar {
    /// The entities with their sets, and the principals.
    pub fn new(world: &World) -> Result<Self, String> {
        let policies = PolicySet::from_str(POLICIES).map_err(|error| error.to_string())?;
        let mut entities = Vec::new();
        let (patterns, rules): (Vec<&AccessRule>, Vec<_>) =
            world.rules.iter().partition(|rule| rule.is_pattern);
        let mut by_entity: HashMap<&str, Vec<&AccessRule>> = HashMap::new();
        for rule in rules {
            by_entity.entry(&rule.entity_id).or_default().push(rule);
        }
        for entity in &world.entities {
            let of_entity = by_entity.get(entity.id.as_str()).into_iter().flatten().copied();
            let covering = patterns.iter().copied().filter(|rule| covers(&rule.entity_id, &entity.id));
            let mut sets: HashMap<String, BTreeSet<&str>> = HashMap::new();
            for rule in of_entity.chain(covering) {
                sets.entry(set(rule.rule_type, rule.access)).or_default().insert(&rule.rule_value);
            }
            let mut attributes: HashMap<String, RestrictedExpression> = HashMap::new();
            for rule_type in [RuleType::User, RuleType::Role, RuleType::Department] {
                for access in [Access::Allow, Access::Deny] {
                    let name = set(rule_type, access);
                    let values = sets.remove(&name).unwrap_or_default();
                    attributes.insert(name, strings(values));
                }
            }
            let default_included = RestrictedExpression::new_bool(entity.default_included);
            attributes.insert("default_included".to_owned(), default_included);
            entities.push(made(uid("Server", &entity.id)?, attributes)?);
        }
        let mut principals = Vec::new();
        for (place, principal) in world.principals.iter().enumerate() {
            let name = RestrictedExpression::new_string(principal.user_id.to_string());
            let roles = strings(principal.roles.iter().map(String::as_str));
            let mut attributes = HashMap::from([("name".to_owned(), name), ("roles".to_owned(), roles)]);
            if let Some(department) = principal.department.clone().filter(|name| !name.is_empty()) {
                attributes.insert("department".to_owned(), RestrictedExpression::new_string(department));
            }
            let uid = uid("Principal", &place.to_string())?;
            entities.push(made(uid.clone(), attributes)?);
            principals.push(uid);
        }
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let registered = world.entities.iter().map(|entity| entity.id.clone()).collect();
        Ok(Self { policies, entities, authorizer: Authorizer::new(), principals, registered })
    }

    /// Whether the principal may use the entity. Of what is not registered Cedar finds no attribute, permits nothing and says so.
    pub fn decide(&self, principal: usize, entity: &EntityRef) -> Result<bool, String> {
        let resource = uid("Server", &entity.id)?;
        let principal = self.principals[principal].clone();
        let request = Request::new(principal, uid("Action", "use")?, resource, Context::empty(), None);
        let request = request.map_err(|error| error.to_string())?;
        let response = self.authorizer.is_authorized(&request, &self.policies, &self.entities);
        match response.diagnostics().errors().next() {
            Some(error) if self.registered.contains(&*entity.id) => Err(error.to_string()),
            _ => Ok(response.decision() == Decision::Allow),
        }
    }
}

fn set(rule_type: RuleType, access: Access) -> String {
    format!("{}_{}", rule_type.as_str(), access.as_str())
}

fn strings<'s>(values: impl IntoIterator<Item = &'s str>) -> RestrictedExpression {
    RestrictedExpression::new_set(
        values.into_iter().map(|value| RestrictedExpression::new_string(value.to_owned())),
    )
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn made(uid: EntityUid, attributes: HashMap<String, RestrictedExpression>) -> Result<Entity, String> {
    Entity::new(uid, attributes, HashSet::new()).map_err(|error| error.to_string())
}
