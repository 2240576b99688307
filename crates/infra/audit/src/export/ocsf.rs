//! A record as an event of the Open Cybersecurity Schema Framework 1.6.0: API Activity (6003), Authentication (3002), Authorize
//! Session (3003), Detection Finding (2004). What the schema has no place for stands in `unmapped`.

use crate::repository::entries::LedgerRow;
use serde_json::{Map, Value, json};

/// The version of the schema.
pub const VERSION: &str = "1.6.0";

/// The activity that is none of the schema's; the kind names it.
const OTHER: u32 = 99;

/// The classes that records become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    ApiActivity,
    Authentication,
    AuthorizeSession,
    DetectionFinding,
}

impl Class {
    fn of(row: &LedgerRow) -> Self {
        let is_denied = row.outcome.as_deref() == Some("deny");
        match row.kind.as_str() {
            "governance.decision" if is_denied => Self::DetectionFinding,
            "secret.leak" => Self::DetectionFinding,
            "mcp.pin" if matches!(row.outcome.as_deref(), Some("refused" | "drift" | "deny")) => {
                Self::DetectionFinding
            }
            "oauth.session.created" | "oauth.session.revoked" | "oauth.signin" | "oauth.denied" => {
                Self::Authentication
            }
            "admin.token.issued" => Self::AuthorizeSession,
            // Keys that sign tokens are the server's own and belong to no user.
            kind if kind.starts_with("oauth.") && !kind.starts_with("oauth.key.") => Self::AuthorizeSession,
            _ => Self::ApiActivity,
        }
    }

    fn uid(self) -> u32 {
        match self {
            Self::ApiActivity => 6003,
            Self::Authentication => 3002,
            Self::AuthorizeSession => 3003,
            Self::DetectionFinding => 2004,
        }
    }

    /// The activity of a kind.
    fn activity(self, kind: &str) -> u32 {
        let verb = kind.rsplit('.').next().unwrap_or_default();
        match self {
            Self::DetectionFinding => 1,
            Self::Authentication => 1 + u32::from(verb == "revoked"),
            Self::AuthorizeSession if matches!(verb, "created" | "issued") => 1,
            Self::AuthorizeSession => OTHER,
            Self::ApiActivity => match verb {
                "created" | "issued" | "added" | "generated" => 1,
                "read" | "export" | "reveal" => 2,
                "changed" | "write" | "rotated" | "rotate" => 3,
                "deleted" | "removed" | "expired" | "erase" => 4,
                _ => OTHER,
            },
        }
    }

    /// Informational, or how grave a finding is.
    fn severity(self, kind: &str) -> u32 {
        match self {
            Self::DetectionFinding if kind == "governance.decision" => 3,
            Self::DetectionFinding => 4,
            _ => 1,
        }
    }
}

/// The event of a record; `None` for one whose text was pruned.
pub fn event(row: &LedgerRow) -> Option<Value> {
    let mut record: Value = serde_json::from_str(row.record.as_deref()?).ok()?;
    let class = Class::of(row);
    let activity = class.activity(&row.kind);
    let mut event = json!({
        "class_uid": class.uid(),
        "category_uid": class.uid() / 1000,
        "activity_id": activity,
        "type_uid": class.uid() * 100 + activity,
        "time": row.at,
        "severity_id": class.severity(&row.kind),
        "metadata": metadata(row),
        "message": message(row),
        "unmapped": unmapped(row, &mut record),
    });
    let map = event.as_object_mut()?;
    let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
    if activity == OTHER {
        put("activity_name", row.kind.clone().into());
    }
    if let Some(reason) = &row.reason {
        put("status_detail", reason.clone().into());
    }
    match class {
        Class::DetectionFinding => {
            put("status_id", 1.into());
            put("finding_info", finding(row));
            if let Some(resource) = resource(row) {
                put("resources", json!([resource]));
            }
        }
        Class::ApiActivity => {
            put("status_id", status(row).into());
            put("actor", actor(row));
            put("api", json!({"operation": row.kind, "service": {"name": "systemprompt"}}));
            // The ledger holds no address; who called is the actor.
            put("src_endpoint", json!({"svc_name": "systemprompt"}));
            if let Some(resource) = resource(row) {
                put("resources", json!([resource]));
            }
        }
        Class::Authentication => {
            put("status_id", status(row).into());
            put("user", user(row));
            put("service", json!({"name": "systemprompt"}));
            put("actor", actor(row));
        }
        Class::AuthorizeSession => {
            put("status_id", status(row).into());
            put("user", user(row));
            put("privileges", json!([row.kind]));
            put("actor", actor(row));
        }
    }
    Some(event)
}

fn metadata(row: &LedgerRow) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "uid": row.id,
        "event_code": row.kind,
        "sequence": row.seq,
        "log_name": row.stream,
        "product": {"name": "systemprompt", "vendor_name": "systemprompt", "version": env!("CARGO_PKG_VERSION")},
    });
    if let (Some(map), Some(trace)) = (metadata.as_object_mut(), &row.trace_id) {
        map.insert("correlation_uid".to_owned(), trace.clone().into());
    }
    metadata
}

fn message(row: &LedgerRow) -> String {
    match (&row.outcome, &row.policy) {
        (Some(outcome), Some(policy)) => format!("{}: {outcome} by {policy}", row.kind),
        (Some(outcome), None) => format!("{}: {outcome}", row.kind),
        (None, _) => row.kind.clone(),
    }
}

/// Success, failure, or what cannot be told.
fn status(row: &LedgerRow) -> u32 {
    match row.outcome.as_deref() {
        Some("deny" | "denied" | "error" | "timeout" | "blocked" | "failed" | "refused" | "interrupted") => 2,
        Some(_) => 1,
        None => 0,
    }
}

fn actor(row: &LedgerRow) -> Value {
    let mut actor = Map::new();
    match (row.actor_kind.as_deref(), &row.actor_id) {
        (Some("system"), _) | (_, None) => {
            actor.insert("app_name".to_owned(), "systemprompt".into());
        }
        (_, Some(id)) => {
            actor.insert("user".to_owned(), json!({"uid": id}));
        }
    }
    if let Some(session) = &row.session_id {
        actor.insert("session".to_owned(), json!({"uid": session}));
    }
    if let Some(client) = &row.client_id {
        actor.insert("app_uid".to_owned(), client.clone().into());
    }
    Value::Object(actor)
}

/// Whom a sign-in or a token is for: the subject if it is a user, else who acted.
fn user(row: &LedgerRow) -> Value {
    let subject = row.subject_id.as_ref().filter(|_| row.subject_kind.as_deref() == Some("user"));
    let uid = subject.or(row.actor_id.as_ref()).map_or("unknown", String::as_str);
    json!({"uid": uid})
}

fn resource(row: &LedgerRow) -> Option<Value> {
    let (kind, id) = (row.subject_kind.as_ref()?, row.subject_id.as_ref()?);
    Some(json!({"uid": id, "type": kind}))
}

fn finding(row: &LedgerRow) -> Value {
    let title = match row.kind.as_str() {
        "secret.leak" => "A value in use was found where it must not be".to_owned(),
        "mcp.pin" => "A tool server no longer is what was approved".to_owned(),
        _ => format!("A call was denied by {}", row.policy.as_deref().unwrap_or("a policy")),
    };
    let types = row.policy.clone().unwrap_or_else(|| row.kind.clone());
    json!({"uid": row.id, "title": title, "types": [types], "created_time": row.at})
}

fn unmapped(row: &LedgerRow, record: &mut Value) -> Value {
    let mut rest = Map::new();
    for name in [
        "act_chain",
        "actor",
        "client_id",
        "context_id",
        "detail",
        "outcome",
        "payloads",
        "policy",
        "task_id",
    ] {
        if let Some(value) = record.get_mut(name).map(Value::take) {
            rest.insert(name.to_owned(), value);
        }
    }
    rest.insert("hash".to_owned(), row.hash.clone().into());
    rest.insert("prev_hash".to_owned(), row.prev_hash.clone().into());
    Value::Object(rest)
}
