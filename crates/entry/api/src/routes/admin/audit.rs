//! `/api/v1/admin/audit`: the ledger. Reading it is recorded too.

pub(crate) mod access;
mod exports;
pub(crate) mod filter;
mod kept;

use crate::extract::{Context, Query, RawBody, cursor_of, parse_stored};
use crate::services::server::route::Route;
use access::{READERS, may_read};
use axum::Json;
use axum::extract::{Path, State};
use filter::{RESTRICTIONS, after, filter};
use http::HeaderName;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use systemprompt_audit::note::{self, NoteError, VerifierKey};
use systemprompt_audit::proof::{ConsistencyProof, InclusionProof, ProofError};
use systemprompt_audit::verify::{Scope, VerifyError, verify};
use systemprompt_audit::{CheckpointError, LedgerRow};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::clock::iso8601;
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;
use systemprompt_security::jwt::Surface;

/// Parameters of a page, beside those that restrict.
const PAGING: [&str; 3] = ["limit", "cursor", "order"];

pub fn routes() -> Vec<Route> {
    let reads = vec![
        Route::get("/api/v1/admin/audit", list).query(&RESTRICTIONS).query(&PAGING).doc("audit", "Ledger entries, newest first"),
        Route::get("/api/v1/admin/audit/streams", streams).doc("audit", "Streams and their heads"),
        Route::get("/api/v1/admin/audit/checkpoints", checkpoints)
            .query(&["stream", "limit", "cursor"])
            .doc("audit", "Signed checkpoints of a stream, newest first"),
        Route::get("/api/v1/admin/audit/streams/{stream}/consistency", consistency)
            .query(&["from", "to"])
            .doc("audit", "Proof that a stream's tree at one size begins with its tree at another"),
        Route::post("/api/v1/admin/audit/verify", check)
            .query(&["stream", "from", "to", "since"])
            .takes::<Trust>()
            .doc("audit", "Verifies chain, tree, checkpoints and the rows beside them"),
        Route::post("/api/v1/admin/audit/exports", exports::export)
            .takes::<exports::Export>()
            .doc("audit", "The ledger as a file: jsonl with proofs, OCSF, or CSV"),
        // Whoever reads bodies (`auditor-content`) need not read everything.
        Route::get("/api/v1/admin/audit/{id}", get).query(&["payload"]).doc(
            "audit",
            "One entry with its payloads and the decision beside it; with `payload`, the body of the one with this role",
        ),
        Route::get("/api/v1/admin/audit/{id}/proof", proof)
            .doc("audit", "Proof that an entry stands in the newest checkpoint of its stream"),
    ];
    let mut routes: Vec<Route> =
        reads.into_iter().map(|route| route.signed(Surface::Api, READERS, RateGroup::Admin)).collect();
    routes.extend(kept::routes());
    // Whoever keeps a note keeps the node honest.
    routes.push(
        Route::get("/api/v1/admin/audit/streams/{stream}/checkpoint", checkpoint)
            .public(RateGroup::Wellknown)
            .doc("audit", "The newest signed checkpoint of a stream, as a C2SP signed note"),
    );
    routes
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
    may_read(&caller)?;
    query.only(&[&RESTRICTIONS[..], &PAGING].concat())?;
    let filter = filter(&query)?;
    let limit = query.limit(50, 500)?;
    let after = after(&query.cursor()?, &filter)?;
    context.record_audit_read(&caller, &filter).await?;
    let page = context.ledger.query(&filter, after.as_ref(), limit).await?;
    let next = page.next.map(|after| cursor_of(&after.cursor(&filter)));
    Ok(Json(json!({"items": page.rows.iter().map(item).collect::<Vec<_>>(), "next": next})))
}

async fn get(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
    query: Query,
) -> crate::Result<Json<Value>> {
    query.only(&["payload"])?;
    if let Some(role) = query.get("payload") {
        return kept::body(&context, &caller, &id, role).await;
    }
    may_read(&caller)?;
    context.record_audit_access(&caller, "entry", &id).await?;
    let row = context.ledger.reader().by_id(&id).await.map_err(crate::Error::internal)?;
    let row = row.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such entry"))?;
    let decision = context.decision_of(&row).await.map_err(crate::Error::internal)?;
    let mut item = item(&row);
    if let Some(map) = item.as_object_mut() {
        map.insert("payloads".into(), kept::list(&context, &row).await?.into());
        map.insert("pruned_by".into(), row.pruned_by.into());
        if let Some(decision) = decision {
            map.insert("decision".into(), json!(decision));
        }
    }
    Ok(Json(item))
}

async fn checkpoints(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
) -> crate::Result<Json<Value>> {
    may_read(&caller)?;
    query.only(&["stream", "limit", "cursor"])?;
    let limit = query.limit(50, 500)?;
    let stream = query.get("stream").unwrap_or(context.ledger.stream());
    let before = match query.cursor()?.as_str() {
        "" => i64::MAX,
        cursor => cursor
            .parse()
            .map_err(|_| Refusal::new(Code::InvalidCursor, "the cursor is none of this list"))?,
    };
    let reader = context.ledger.reader();
    let rows = reader.checkpoints(stream, before, limit + 1).await.map_err(crate::Error::internal)?;
    let items = rows.iter().map(|row| {
        let witnessed: Value = serde_json::from_str(&row.witnessed).unwrap_or_default();
        json!({
            "stream": row.stream, "size": row.size, "at": row.at, "at_iso": iso8601(row.at), "root": row.root,
            "note": row.note, "key_id": row.key_id, "witnessed": witnessed,
        })
    });
    Ok(super::page(items.collect(), limit, |item: &Value| {
        item.get("size").map(Value::to_string).unwrap_or_default()
    }))
}

async fn streams(State(context): State<AppContext>, Context(caller): Context) -> crate::Result<Json<Value>> {
    may_read(&caller)?;
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

/// What a caller trusts besides the node's own key and copies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Trust {
    /// Verifier keys, `<name>+<8 hex digits>+<base64>`. For the streams that they name, no other key counts.
    #[schemars(length(max = 64))]
    keys: Vec<String>,
    /// Signed notes that were kept elsewhere.
    #[schemars(length(max = 1024))]
    checkpoints: Vec<String>,
}

impl Trust {
    async fn scope(&self, context: &AppContext) -> Result<Scope, Refusal> {
        let bad =
            |what: &str, error: NoteError| Refusal::new(Code::Unprocessable, format!("{what}: {error}"));
        if self.keys.len() > 64 || self.checkpoints.len() > 1024 {
            return Err(Refusal::new(Code::Unprocessable, "at most 64 keys and 1024 checkpoints"));
        }
        let keys = self.keys.iter().map(|key| key.parse()).collect::<Result<Vec<VerifierKey>, _>>();
        let mut keys = keys.map_err(|error| bad("keys", error))?;
        let own = context.ledger.vkey().filter(|own| !keys.iter().any(|key| key.name() == own.name()));
        keys.extend(own);
        let outside = context.ledger.outside_notes().await;
        let mut notes = outside.notes;
        for text in &self.checkpoints {
            notes.extend(note::split(text).map_err(|error| bad("checkpoints", error))?);
        }
        Ok(Scope { keys, notes, is_copy_altered: outside.is_copy_altered, ..Scope::default() })
    }
}

fn proof_refused(error: ProofError) -> crate::Error {
    match error {
        ProofError::NoSuchStream(_) | ProofError::NotYet => {
            crate::Error(Refusal::new(Code::NotFound, error.to_string()))
        }
        ProofError::BadSizes(_) => crate::Error(Refusal::new(Code::InvalidFilter, error.to_string())),
        ProofError::Damaged { .. } | ProofError::Mismatch(_) => {
            crate::Error(Refusal::new(Code::LedgerDamaged, error.to_string()))
        }
        ProofError::Read(error) => crate::Error::internal(error),
    }
}

async fn checkpoint(
    State(context): State<AppContext>,
    Path(stream): Path<String>,
) -> crate::Result<([(HeaderName, &'static str); 1], String)> {
    let row = context.ledger.reader().checkpoint(&stream).await.map_err(proof_refused)?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], row.note))
}

async fn consistency(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(stream): Path<String>,
    query: Query,
) -> crate::Result<Json<ConsistencyProof>> {
    may_read(&caller)?;
    query.only(&["from", "to"])?;
    let size = |name: &'static str| {
        let size = query.get(name).and_then(|value| value.parse().ok());
        size.ok_or_else(|| Refusal::new(Code::InvalidFilter, format!("{name}: a number of records")))
    };
    let (from, to) = (size("from")?, size("to")?);
    let proof = context.ledger.reader().prove_consistency(&stream, from, to).await;
    proof.map(Json).map_err(proof_refused)
}

async fn proof(
    State(context): State<AppContext>,
    Context(caller): Context,
    Path(id): Path<String>,
) -> crate::Result<Json<InclusionProof>> {
    may_read(&caller)?;
    context.record_audit_access(&caller, "proof", &id).await?;
    let reader = context.ledger.reader();
    let row = reader.by_id(&id).await.map_err(crate::Error::internal)?;
    let row = row.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such entry"))?;
    match reader.prove(&row).await {
        // A record of this node that is younger than the newest checkpoint gets one.
        Err(ProofError::NotYet) if row.stream == **context.ledger.stream() => {
            context.ledger.make_checkpoint().await.map_err(|error| match error {
                CheckpointError::Ledger(error) => crate::Error(error.into()),
                other => crate::Error::internal(other),
            })?;
            reader.prove(&row).await
        }
        proof => proof,
    }
    .map(Json)
    .map_err(proof_refused)
}

async fn check(
    State(context): State<AppContext>,
    Context(caller): Context,
    query: Query,
    body: RawBody,
) -> crate::Result<Json<Value>> {
    may_read(&caller)?;
    query.only(&["stream", "from", "to", "since"])?;
    let trust = if body.0.is_empty() { Trust::default() } else { parse_stored(&body.0)? };
    let number = |name: &'static str| -> Result<Option<i64>, Refusal> {
        let parsed = query.get(name).map(|value| {
            value.parse().map_err(|_| Refusal::new(Code::InvalidFilter, format!("{name}: a number")))
        });
        parsed.transpose()
    };
    let scope = Scope {
        stream: query.get("stream").map(str::to_owned),
        from: number("from")?,
        to: number("to")?,
        since: number("since")?,
        ..trust.scope(&context).await?
    };
    let which = scope.stream.as_deref().unwrap_or("all");
    context.record_audit_access(&caller, "verify", which).await?;
    let report = verify(&context.ledger.reader(), context.ledger.tables(), &scope).await;
    let report = report.map_err(|error| match error {
        VerifyError::NoSuchStream(_) => crate::Error(Refusal::new(Code::NotFound, error.to_string())),
        VerifyError::EmptyRange | VerifyError::BehindEnd { .. } => {
            crate::Error(Refusal::new(Code::Unprocessable, error.to_string()))
        }
        VerifyError::Read(error) => crate::Error::internal(error),
    })?;
    Ok(Json(json!({"intact": report.is_intact(), "report": report})))
}
