//! `/api/v1/admin/audit`: the ledger. Reading it is recorded too.

use crate::extract::{Context, Query, cursor_of};
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use systemprompt_audit::verify::{Scope, VerifyError, verify};
use systemprompt_audit::{After, EntryKind, Filter, LedgerRow};
use systemprompt_config::diagnostic::nearest;
use systemprompt_models::clock::iso8601;
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;

const FILTERS: &[&str] = &[
    "kind",
    "actor",
    "subject",
    "outcome",
    "policy",
    "trace_id",
    "session_id",
    "context_id",
    "client_id",
    "stream",
    "since",
    "until",
    "limit",
    "cursor",
    "order",
];

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/admin/audit", list).query(FILTERS).doc("audit", "Ledger entries, newest first"),
        Route::get("/api/v1/admin/audit/streams", streams).doc("audit", "Streams and their heads"),
        Route::post("/api/v1/admin/audit/verify", check)
            .query(&["stream", "from", "to"])
            .doc("audit", "Verifies the chain and the rows beside it"),
        Route::get("/api/v1/admin/audit/{id}", get).doc("audit", "One entry"),
    ]
}

/// An entry with its record as JSON, and its time in both forms.
pub(crate) fn item(row: &LedgerRow) -> Value {
    let record = row.record.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "stream": row.stream,
        "seq": row.seq,
        "id": row.id,
        "at": row.at,
        "at_iso": iso8601(row.at),
        "kind": row.kind,
        "outcome": row.outcome,
        "reason": row.reason,
        "policy": row.policy,
        "hash": row.hash,
        "record": record,
    })
}

async fn list(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
) -> crate::Result<Json<Value>> {
    query.only(FILTERS)?;
    let filter = filter(&query)?;
    let limit = query.limit(50, 500)?;
    let after = after(&query.cursor()?)?;
    context.record_audit_read(&caller, &filter).await?;
    let page = context.ledger.query(&filter, after.as_ref(), limit).await?;
    let next = page.next.map(|a| cursor_of(&format!("{}\n{}\n{}", a.at, a.stream, a.seq)));
    Ok(Json(json!({"items": page.rows.iter().map(item).collect::<Vec<_>>(), "next": next})))
}

fn filter(query: &Query) -> Result<Filter, Refusal> {
    let text = |name: &str| query.get(name).map(str::to_owned);
    let time = |name: &'static str| -> Result<Option<i64>, Refusal> {
        let parsed = query.get(name).map(|value| {
            value
                .parse()
                .map_err(|_| Refusal::new(Code::InvalidFilter, format!("{name}: epoch milliseconds")))
        });
        parsed.transpose()
    };
    let (subject_kind, subject_id) = match query.get("subject").map(|subject| subject.split_once(':')) {
        None => (None, None),
        Some(Some((kind, id))) => (Some(kind.to_owned()), Some(id.to_owned())),
        Some(None) => return Err(Refusal::new(Code::InvalidFilter, "subject: <kind>:<id>")),
    };
    let ascending = match query.get("order") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Refusal::new(Code::InvalidFilter, "order: allowed: asc, desc")),
    };
    if let Some(kind) = query.get("kind") {
        check_kind(kind)?;
    }
    Ok(Filter {
        kind: text("kind"),
        actor: text("actor"),
        subject_kind,
        subject_id,
        outcome: text("outcome"),
        policy: text("policy"),
        trace_id: text("trace_id"),
        session_id: text("session_id"),
        context_id: text("context_id"),
        client_id: text("client_id"),
        stream: text("stream"),
        since: time("since")?,
        until: time("until")?,
        ascending,
    })
}

/// A kind that is never written would find nothing and say nothing; so it is told, with what was probably meant.
fn check_kind(kind: &str) -> Result<(), Refusal> {
    let mut known = EntryKind::ALL.iter().map(|kind| kind.as_str());
    let is_known = match kind.strip_suffix('*') {
        Some(beginning) => known.any(|name| name.starts_with(beginning)),
        None => known.any(|name| name == kind),
    };
    if is_known {
        return Ok(());
    }
    let shown: String = kind.chars().take(64).collect();
    let meant = nearest(&shown, EntryKind::ALL.iter().map(|kind| kind.as_str()));
    let advice = meant.map_or_else(
        || "kinds are written like `governance.decision`, a group of them like `tool.*`".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    Err(Refusal::new(Code::InvalidFilter, format!("there is no kind `{shown}`; {advice}")))
}

fn after(cursor: &str) -> Result<Option<After>, Refusal> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let mut parts = cursor.split('\n');
    let (at, stream, seq) = (parts.next(), parts.next(), parts.next());
    let after = at.zip(stream).zip(seq).and_then(|((at, stream), seq)| {
        Some(After { at: at.parse().ok()?, stream: stream.to_owned(), seq: seq.parse().ok()? })
    });
    let foreign = || Refusal::new(Code::InvalidCursor, "the cursor is none of this list");
    after.ok_or_else(foreign).map(Some)
}

async fn get(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Json<Value>> {
    context.record_audit_read(&caller, &Filter::default()).await?;
    let row = context.ledger.reader().by_id(&id).await.map_err(crate::Error::internal)?;
    let row = row.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such entry"))?;
    Ok(Json(item(&row)))
}

async fn streams(State(context): State<AppContext>) -> crate::Result<Json<Value>> {
    let streams = context.ledger.reader().streams().await.map_err(crate::Error::internal)?;
    let items: Vec<Value> = streams
        .iter()
        .map(|s| {
            json!({
                "stream": s.stream,
                "origin": s.origin,
                "node_id": s.node_id,
                "epoch": s.epoch,
                "head_seq": s.head_seq,
                "head_hash": s.head_hash,
                "created_at": s.created_at,
                "closed_at": s.closed_at,
            })
        })
        .collect();
    Ok(Json(json!({"items": items, "next": null})))
}

async fn check(State(context): State<AppContext>, query: Query) -> crate::Result<Json<Value>> {
    query.only(&["stream", "from", "to"])?;
    let number = |name: &'static str| -> Result<Option<i64>, Refusal> {
        let parsed = query.get(name).map(|value| {
            value.parse().map_err(|_| Refusal::new(Code::InvalidFilter, format!("{name}: a number")))
        });
        parsed.transpose()
    };
    let scope =
        Scope { stream: query.get("stream").map(str::to_owned), from: number("from")?, to: number("to")? };
    let report = verify(&context.ledger.reader(), context.ledger.tables(), &scope).await;
    let report = report.map_err(|error| match error {
        VerifyError::NoSuchStream(_) => crate::Error(Refusal::new(Code::NotFound, error.to_string())),
        VerifyError::Read(error) => crate::Error::internal(error),
    })?;
    Ok(Json(json!({"intact": report.is_intact(), "report": report})))
}
