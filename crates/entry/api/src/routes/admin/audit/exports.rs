//! `POST /api/v1/admin/audit/exports`: the ledger as a file, made while it is sent.

use super::access::may_read;
use super::filter::{kinds, subject};
use crate::extract::{Context, Json as Body};
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;
use systemprompt_audit::export::{ExportFault, ExportRequest, Exporter, Format};
use systemprompt_audit::{Filter, MAX_SAFE_INTEGER};
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;

/// Exports that may be under way on a node.
const MAX_EXPORTS: u32 = 4;

/// What is exported. Without a restriction it is every record of every stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// `jsonl` (records byte for byte, with proofs), `ocsf` (1.6.0) or `csv`.
    format: String,
    stream: Option<String>,
    /// First and last `seq`; only with a stream.
    from: Option<i64>,
    to: Option<i64>,
    /// Epoch milliseconds, inclusive.
    since: Option<i64>,
    /// Epoch milliseconds, exclusive.
    until: Option<i64>,
    /// Kinds or families of kinds, as `tool.*`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    kinds: Vec<String>,
    actor: Option<String>,
    /// `<kind>:<id>`.
    subject: Option<String>,
    outcome: Option<String>,
    policy: Option<String>,
    trace_id: Option<String>,
    session_id: Option<String>,
    context_id: Option<String>,
    client_id: Option<String>,
}

impl Export {
    fn request(self) -> Result<ExportRequest, Refusal> {
        let wrong = |allowed: &'static str| {
            Refusal::new(Code::Unprocessable, "a field is not valid").with_validation("format", allowed)
        };
        for (name, seq) in [("from", self.from), ("to", self.to)] {
            if seq.is_some_and(|seq| !(0..=MAX_SAFE_INTEGER).contains(&seq)) {
                return Err(Refusal::new(
                    Code::InvalidFilter,
                    format!("{name}: a sequence number, at most {MAX_SAFE_INTEGER}"),
                ));
            }
        }
        let format: Format = self.format.parse().map_err(wrong)?;
        let (subject_kind, subject_id) = subject(self.subject.as_deref())?;
        let kind = (!self.kinds.is_empty()).then(|| kinds(&self.kinds.join(","))).transpose()?;
        let filter = Filter {
            kind,
            actor: self.actor,
            subject_kind,
            subject_id,
            outcome: self.outcome,
            policy: self.policy,
            trace_id: self.trace_id,
            session_id: self.session_id,
            context_id: self.context_id,
            client_id: self.client_id,
            stream: self.stream,
            since: self.since,
            until: self.until,
            ascending: true,
        };
        Ok(ExportRequest { format, from: self.from, to: self.to, filter })
    }
}

fn refused(error: ExportFault) -> crate::Error {
    let code = match error {
        ExportFault::NoSuchStream(_) => Code::NotFound,
        ExportFault::StreamNeeded | ExportFault::EmptyRange | ExportFault::BehindEnd { .. } => {
            Code::Unprocessable
        }
        other => return crate::Error::internal(other),
    };
    Refusal::new(code, error.to_string()).into()
}

pub(super) async fn export(
    State(context): State<AppContext>,
    Context(caller): Context,
    Body(export): Body<Export>,
) -> crate::Result<Response> {
    may_read(&caller)?;
    let slot = context.exports.take(caller.principal.user_id.as_str(), MAX_EXPORTS, MAX_EXPORTS).ok_or_else(
        || Refusal::new(Code::RateLimited, "as many exports as allowed are under way").with_retry_after(5),
    )?;
    let request = export.request()?;
    let format = request.format;
    // A checkpoint first, so that what is exported is signed to its end.
    if format == Format::Jsonl && context.ledger.condition().is_ready() {
        context.ledger.make_checkpoint().await.map_err(crate::Error::internal)?;
    }
    let exporter = Exporter::open(context.ledger.reader(), context.ledger.lookup().cloned(), request.clone());
    let exporter = exporter.await.map_err(refused)?;
    context.record_audit_export(&caller, &request).await?;
    let pieces = stream::try_unfold((exporter, slot), |(mut exporter, slot)| async move {
        match exporter.next().await {
            Ok(piece) => Ok(piece.map(|text| (text, (exporter, slot)))),
            Err(error) => {
                // The connection breaks off, so that nobody takes the part for the whole.
                tracing::warn!(%error, "an export ended early");
                Err(error)
            }
        }
    });
    let mut response = Response::new(Bytes::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_no_record_can_have_is_refused_before_it_is_recorded() {
        let request = |from: i64| {
            let body = serde_json::json!({"format": "jsonl", "stream": "s", "from": from});
            serde_json::from_value::<Export>(body).unwrap().request()
        };
        assert_eq!(request(MAX_SAFE_INTEGER).unwrap().from, Some(MAX_SAFE_INTEGER));
        for from in [MAX_SAFE_INTEGER + 1, i64::MAX, -1, i64::MIN] {
            assert_eq!(request(from).unwrap_err().code, Code::InvalidFilter, "{from}");
        }
    }
}
