//! `/api/v1/admin/rules/{can,simulate,replay}`: what rules decide, or would decide as a draft has them. None of it puts anything
//! in force.

use super::rules::{kind_of, speaks_of_nothing};
use crate::extract::{Context, Json as Body};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use systemprompt_audit::MAX_SAFE_INTEGER;
use systemprompt_config::services::access_control::{AccessEffect, Subject};
use systemprompt_config::services::draft::{CasePrincipal, PolicyCase, PolicyDraft};
use systemprompt_models::span::Moment;
use systemprompt_models::{Code, Millis, Permission, Principal, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_runtime::replay::ReplayError;
use systemprompt_security::authz::draft::Tried;
use systemprompt_security::authz::explain::{Explanation, explain};
use systemprompt_security::authz::{EntityKind, EntityRef};

/// Most cases of one request.
const MAX_CASES: usize = 10_000;
/// Most users of a draft that are looked up, and most warnings of one answer.
const MAX_LOOK_UPS: usize = 256;
const MAX_WARNINGS: usize = 64;
/// Time that is replayed when none is named.
const DEFAULT_SINCE_MS: Millis = 24 * 60 * 60 * 1000;
/// Drafts and cases are larger than other bodies.
const BODY: usize = 8 * 1024 * 1024;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/admin/rules/can", can)
            .takes::<Question>()
            .doc("admin", "What the rules decide for a principal, and why"),
        Route::post("/api/v1/admin/rules/simulate", simulate)
            .takes::<Simulation>()
            .body_limit(BODY)
            .doc("admin", "Whether cases come out as expected, by the rules in force or by a draft of them"),
        Route::post("/api/v1/admin/rules/replay", replay)
            .takes::<Replay>()
            .body_limit(BODY)
            .doc("admin", "What a draft of rules and policies would have changed about recorded decisions"),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// `user:NAME`, `role:NAME` or `department:NAME`.
    principal: String,
    /// `<kind>:<id>`.
    entity: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Simulation {
    /// Laid over the rules in force; those alone if absent.
    #[serde(default)]
    draft: Option<PolicyDraft>,
    cases: Vec<PolicyCase>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replay {
    draft: PolicyDraft,
    /// Epoch milliseconds, or a text as `2026-11-22`, `2026-11-22T04:06:17Z`, `15m` (ago); 24 hours ago if absent.
    #[serde(default)]
    #[schemars(with = "Option<WrittenMoment>")]
    since: Option<Moment>,
    /// Written as `since`; now if absent.
    #[serde(default)]
    #[schemars(with = "Option<WrittenMoment>")]
    until: Option<Moment>,
}

/// How a moment is written.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is there for its schema")]
enum WrittenMoment {
    Milliseconds(Millis),
    Text(String),
}

fn wrong(field: impl Into<String>, allowed: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unprocessable, "a field is not valid").with_validation(field.into(), allowed.into())
}

fn entity_of(text: &str) -> Result<EntityRef, Refusal> {
    let (kind, id) = text.split_once(':').ok_or_else(|| wrong("entity", "allowed: <kind>:<id>"))?;
    Ok(EntityRef::new(kind_of(kind)?, id))
}

/// A decision with what it was taken on: a tool call is decided on the server first, and on the tool if a rule names it; both
/// must allow (SEC-63).
struct Told {
    explanation: Explanation,
    decided_on: EntityRef,
    known: bool,
}

fn told(tried: &Tried, principal: &Principal, entity: &EntityRef) -> Told {
    let ask = |entity: &EntityRef| explain(&tried.rules, &tried.rows, principal, entity);
    let server = server_of(entity);
    let decided_on = match server {
        Some(server) if ask(&server).decision != "allow" || !tried.rules.knows(entity) => server,
        _ => entity.clone(),
    };
    Told { explanation: ask(&decided_on), known: tried.rules.knows(&decided_on), decided_on }
}

/// The server of a tool, which is written `server/tool`.
fn server_of(entity: &EntityRef) -> Option<EntityRef> {
    let (server, _) = entity.id.split_once('/').filter(|_| entity.kind == EntityKind::McpTool)?;
    Some(EntityRef::new(EntityKind::McpServer, server))
}

/// Asks the rules without recording a decision: nothing takes effect.
async fn can(
    State(context): State<AppContext>,
    Body(question): Body<Question>,
) -> crate::Result<Json<Value>> {
    let form = "allowed: user:NAME, role:NAME, department:NAME";
    let (kind, name) = question.principal.split_once(':').ok_or_else(|| wrong("principal", form))?;
    let principal = match kind {
        "user" => CasePrincipal { user: Some(name.to_owned()), ..CasePrincipal::default() },
        "role" => CasePrincipal { roles: Some(vec![name.to_owned()]), ..CasePrincipal::default() },
        "department" => CasePrincipal { department: Some(name.to_owned()), ..CasePrincipal::default() },
        _ => return Err(wrong("principal", form).into()),
    };
    let principal = principal_of(&context, &principal).await?;
    let entity = entity_of(&question.entity)?;
    let told = told(&context.rules.tried(None).await?, &principal, &entity);
    let mut body = json!(told.explanation);
    if let Some(map) = body.as_object_mut() {
        map.insert("known".into(), told.known.into());
        map.insert("decided_on".into(), told.decided_on.to_string().into());
        map.insert("entity".into(), entity.to_string().into());
    }
    Ok(Json(body))
}

async fn principal_of(context: &AppContext, asked: &CasePrincipal) -> crate::Result<Principal> {
    let mut principal = Principal::anonymous();
    if let Some(name) = &asked.user {
        let user = context.users.get(name).await?;
        principal.permissions = context.users.permissions(&user);
        principal.user_id = user.id;
        principal.roles = user.roles;
        principal.department = user.department;
    }
    if let Some(roles) = &asked.roles {
        principal.roles.clone_from(roles);
    }
    if asked.department.is_some() {
        principal.department.clone_from(&asked.department);
    }
    if principal.permissions.is_empty() {
        principal.permissions = vec![Permission::User];
    }
    Ok(principal)
}

/// What is wrong with a draft is told before anything is tried with it.
fn check(context: &AppContext, draft: Option<&PolicyDraft>) -> crate::Result<()> {
    let Some(draft) = draft else { return Ok(()) };
    if let Some((index, fault)) = draft.fault() {
        return Err(wrong(format!("draft.rules[{index}]"), fault).into());
    }
    if draft.policies.len() > PolicyDraft::MAX_POLICIES {
        return Err(wrong("draft.policies", format!("at most {}", PolicyDraft::MAX_POLICIES)).into());
    }
    context.tried_policies(draft).map_err(ReplayError::Policies)?;
    Ok(())
}

async fn simulate(
    State(context): State<AppContext>,
    Body(simulation): Body<Simulation>,
) -> crate::Result<Json<Value>> {
    check(&context, simulation.draft.as_ref())?;
    if simulation.cases.is_empty() || simulation.cases.len() > MAX_CASES {
        return Err(wrong("cases", format!("1 to {MAX_CASES}")).into());
    }
    let tried = context.rules.tried(simulation.draft.as_ref()).await?;
    let (mut cases, mut failed) = (Vec::with_capacity(simulation.cases.len()), 0);
    for case in &simulation.cases {
        let (passed, result) = judge(&context, &tried, case).await?;
        failed += usize::from(!passed);
        cases.push(result);
    }
    let mut warnings = warnings(&context, simulation.draft.as_ref(), &tried, &cases).await?;
    if simulation.draft.is_some_and(|draft| !draft.policies.is_empty()) {
        warnings.push(
            "cases ask the rules alone: the policies of the draft are tried by `policy replay`".to_owned(),
        );
    }
    let passed = cases.len() - failed;
    Ok(Json(json!({"passed": passed, "failed": failed, "cases": cases, "warnings": warnings})))
}

/// What to say of cases and of a draft that speak of nothing that is there, at most [`MAX_WARNINGS`] times.
async fn warnings(
    context: &AppContext,
    draft: Option<&PolicyDraft>,
    tried: &Tried,
    cases: &[Value],
) -> crate::Result<Vec<String>> {
    let rules = draft.map(|draft| draft.rules.as_slice()).unwrap_or_default();
    let mut told = BTreeSet::new();
    for rule in rules {
        let entity = rule
            .entity()
            .and_then(|(id, is_pattern)| speaks_of_nothing(&tried.rules, rule.entity_type, id, is_pattern));
        told.extend(entity);
    }
    for case in cases.iter().filter(|case| case.get("known") == Some(&json!(false))) {
        let entity = case.get("decided_on").and_then(Value::as_str).unwrap_or_default();
        told.insert(format!("{entity} is not registered: it stays denied as unknown, whatever rules say"));
    }
    let users: BTreeSet<&str> = rules.iter().flat_map(|rule| &rule.users).map(Subject::as_str).collect();
    for name in users.into_iter().take(MAX_LOOK_UPS) {
        match context.users.get(name).await {
            Ok(user) if user.id.as_str() == name => {}
            Ok(user) => {
                told.insert(format!("`{name}` names a user, but rules name users by id: {}", user.id));
            }
            Err(error) => {
                let error = crate::Error::from(error);
                if error.0.code != Code::NotFound {
                    return Err(error);
                }
                told.insert(format!("there is no user `{name}`: the rule decides nothing until there is"));
            }
        }
    }
    Ok(told.into_iter().take(MAX_WARNINGS).collect())
}

async fn judge(context: &AppContext, tried: &Tried, case: &PolicyCase) -> crate::Result<(bool, Value)> {
    let expect = match case.expect {
        AccessEffect::Allow => "allow",
        AccessEffect::Deny => "deny",
    };
    let entity = entity_of(&case.entity)?;
    let principal = match principal_of(context, &case.principal).await {
        Ok(principal) => principal,
        // A user who is not there fails the case, and the others are still told.
        Err(error) if error.0.code == Code::NotFound => {
            return Ok((
                false,
                json!({"name": case.name, "passed": false, "expect": expect, "why": "there is no such user"}),
            ));
        }
        Err(error) => return Err(error),
    };
    let Told { explanation, decided_on, known } = told(tried, &principal, &entity);
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    let mut why = Vec::new();
    if explanation.decision != expect {
        why.push(format!("it is {}, not {expect}", explanation.decision));
    }
    if !is(&case.reason, Some(explanation.matched_by)) && !is(&case.reason, Some(explanation.reason)) {
        why.push(format!("{} decides", explanation.matched_by));
    }
    if !is(&case.rule, explanation.rule_id.as_deref()) {
        why.push(format!("the rule is {}", explanation.rule_id.as_deref().unwrap_or("none")));
    }
    let passed = why.is_empty();
    let result = json!({
        "name": case.name,
        "passed": passed,
        "expect": expect,
        "decision": explanation.decision,
        "matched_by": explanation.matched_by,
        "rule_id": explanation.rule_id,
        "entity": entity.to_string(),
        "decided_on": decided_on.to_string(),
        "known": known,
        "why": (!passed).then(|| why.join("; ")),
    });
    Ok((passed, result))
}

/// The replay is recorded with its range, and a record holds no larger numbers.
fn within_time(name: &str, at: Option<Millis>) -> Result<(), Refusal> {
    if at.is_none_or(|at| (0..=MAX_SAFE_INTEGER).contains(&at)) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidFilter, format!("{name}: epoch milliseconds, at most {MAX_SAFE_INTEGER}")))
}

async fn replay(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(replay): Body<Replay>,
) -> crate::Result<Json<Value>> {
    check(&context, Some(&replay.draft))?;
    let now = context.clock.now();
    let [since, until] = [replay.since, replay.until].map(|moment| moment.map(|moment| moment.at(now)));
    within_time("since", since)?;
    within_time("until", until)?;
    let until = until.unwrap_or_else(|| now.saturating_add(1));
    let since = since.unwrap_or_else(|| now.saturating_sub(DEFAULT_SINCE_MS));
    if since >= until {
        return Err(wrong("since", "a time before `until`").into());
    }
    let report = context.replay(&caller, &replay.draft, since, until).await?;
    let tried = context.rules.tried(Some(&replay.draft)).await?;
    let mut body = json!(report);
    if let Some(map) = body.as_object_mut() {
        let mut told = warnings(&context, Some(&replay.draft), &tried, &[]).await?;
        if !replay.draft.policies.is_empty()
            && !context.tried_policies(&replay.draft).is_ok_and(|tried| tried.is_enabled())
        {
            told.push(
                "the governance pipeline is switched off: the policies of the draft refuse nothing"
                    .to_owned(),
            );
        }
        map.insert("warnings".into(), told.into());
    }
    Ok(Json(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_record_can_hold_is_refused() {
        for at in [None, Some(0), Some(MAX_SAFE_INTEGER)] {
            assert!(within_time("until", at).is_ok(), "{at:?}");
        }
        for at in [i64::MIN, -1, MAX_SAFE_INTEGER + 1, i64::MAX] {
            assert_eq!(within_time("until", Some(at)).unwrap_err().code, Code::InvalidFilter, "{at}");
        }
    }
}
