//! The end of a call: every opened call gets exactly one closing record, however it ends. The answer does not wait for it.

use crate::pricing::Catalog;
use crate::protocol::Operation;
use crate::repository::Closed;
use crate::settle::{Facts, Outcome, Settlement, settle};
use crate::stream_tap::Observed;
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Payload, Unit};
use systemprompt_leak::Hit;
use systemprompt_models::ids::AiRequestId;
use systemprompt_models::{Clock, Millis, RequestContext, Tasks};
use tokio::sync::Semaphore;

/// Pauses between tries to write a closing record.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After this long a missing closing record makes the node not ready (AUD-17).
const OVERDUE_AFTER: Duration = Duration::from_secs(30);
/// Calls of which it is not known whether they were recorded, and that are closed in case they were. What is beyond the bound
/// is closed at the next start.
const MAX_DOUBTFUL: usize = 256;
/// Tool call ids that a closing record names, and the longest of them.
/// Leaks of one answer that get a record each; the closing record counts all.
const MAX_LEAKS_TOLD: usize = 10;
const MAX_TOOL_IDS: usize = 32;
const MAX_TOOL_ID_BYTES: usize = 96;

/// `HMAC-SHA-256(salt, digest)`: ties a ledger record to a body without telling its hash. The salt stands in the row, which
/// can be erased.
pub(crate) fn commitment(salt: &str, digest: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes()), digest))
}

/// Writes closing records.
pub(crate) struct Closer {
    pub ledger: Ledger,
    pub catalog: Arc<Catalog>,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    waiting: AtomicUsize,
    overdue: AtomicUsize,
    doubtful: Arc<Semaphore>,
}

impl Closer {
    pub fn new(ledger: Ledger, catalog: Arc<Catalog>, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self {
            ledger,
            catalog,
            clock,
            tasks,
            waiting: AtomicUsize::new(0),
            overdue: AtomicUsize::new(0),
            doubtful: Arc::new(Semaphore::new(MAX_DOUBTFUL)),
        }
    }

    /// Closing records that are being written.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Closing records that could not be written for 30 seconds.
    pub fn overdue(&self) -> usize {
        self.overdue.load(Ordering::Relaxed)
    }
}

/// What is known of a call from its beginning.
pub(crate) struct CallFacts {
    pub id: AiRequestId,
    pub context: RequestContext,
    pub route: Arc<str>,
    pub operation: Operation,
    pub model_requested: Box<str>,
    pub model_upstream: Arc<str>,
    pub salt: String,
    pub body_bytes: usize,
    pub opened_at: Millis,
    #[expect(dead_code, reason = "held until the call is closed: dropping it frees the node's slot")]
    pub slot: Slot,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub outcome: Outcome,
    pub error_type: Option<Box<str>>,
    pub observed: Observed,
    pub response_sha256: Option<[u8; 32]>,
    pub response_bytes: u64,
    pub injected_pings: u32,
    /// Whether the provider may have worked on it.
    pub charged: bool,
    /// Values in use that the answer held; it was withheld from there on.
    pub leaks: Vec<Hit>,
    /// The answer as it came, for the closing record.
    pub response: Option<Payload>,
}

impl Ending {
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            error_type: None,
            observed: Observed::default(),
            response_sha256: None,
            response_bytes: 0,
            injected_pings: 0,
            charged: false,
            leaks: Vec::new(),
            response: None,
        }
    }

    pub fn with_error(mut self, kind: &str) -> Self {
        self.error_type = Some(kind.into());
        self
    }
}

/// Counts the calls under way.
#[derive(Debug, Default)]
pub(crate) struct Slots(Arc<AtomicUsize>);

/// One call under way.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// A slot, unless `max` are taken.
    pub fn take(&self, max: usize) -> Option<Slot> {
        let slot = Slot(Arc::clone(&self.0));
        (self.0.fetch_add(1, Ordering::AcqRel) < max).then_some(slot)
    }

    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    recorded: bool,
    sent_at: Option<Millis>,
    first_byte_at: Option<Millis>,
    status: Option<u16>,
}

/// A call between its opening and its closing record. Dropped without [`OpenCall::end`] it counts as aborted by the client:
/// that is what happens when the connection goes away and the future that served it is dropped.
pub(crate) struct OpenCall {
    closer: Arc<Closer>,
    facts: Option<Box<CallFacts>>,
    progress: Progress,
    provider_request_id: Option<Box<str>>,
}

impl std::fmt::Debug for OpenCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenCall")
            .field("id", &self.facts.as_ref().map(|facts| &facts.id))
            .finish_non_exhaustive()
    }
}

impl OpenCall {
    pub fn new(closer: Arc<Closer>, facts: CallFacts) -> Self {
        Self {
            closer,
            facts: Some(Box::new(facts)),
            progress: Progress::default(),
            provider_request_id: None,
        }
    }

    /// The opening record is durable and the request is about to leave.
    pub fn sending(&mut self) {
        self.progress.recorded = true;
        self.progress.sent_at = Some(self.closer.clock.now());
    }

    pub fn answered(&mut self, status: u16, provider_request_id: Option<&str>) {
        self.progress.status = Some(status);
        self.provider_request_id = provider_request_id.filter(|id| id.len() <= 256).map(Box::from);
    }

    pub fn first_byte(&mut self) {
        if self.progress.first_byte_at.is_none() {
            self.progress.first_byte_at = Some(self.closer.clock.now());
        }
    }

    pub fn sent(&self) -> bool {
        self.progress.sent_at.is_some()
    }

    /// It is not known whether the opening record was written. The call was not sent.
    pub fn in_doubt(mut self, error: &LedgerError) {
        if !matches!(error, LedgerError::Unavailable(_)) {
            self.facts = None;
            return;
        }
        self.close(Ending::new(Outcome::Expired).with_error("ledger_unavailable"));
    }

    pub fn end(mut self, ending: Ending) {
        self.close(ending);
    }

    fn close(&mut self, ending: Ending) {
        let Some(facts) = self.facts.take() else { return };
        // Without a runtime the process is ending; the next start closes what is open.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let closer = Arc::clone(&self.closer);
        let doubtful = if self.progress.recorded {
            None
        } else {
            let Ok(permit) = Arc::clone(&closer.doubtful).try_acquire_owned() else { return };
            Some(permit)
        };
        let closing = Closing {
            closed_at: closer.clock.now(),
            facts,
            progress: self.progress,
            provider_request_id: self.provider_request_id.take(),
            ending,
        };
        let tasks = closer.tasks.clone();
        closer.waiting.fetch_add(1, Ordering::Relaxed);
        tasks.spawn("gateway-close", async move {
            closing.write(&closer).await;
            closer.waiting.fetch_sub(1, Ordering::Relaxed);
            drop(doubtful);
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.facts.is_some() {
            let charged = self.sent();
            self.close(Ending { charged, ..Ending::new(Outcome::ClientAborted) });
        }
    }
}

struct Closing {
    facts: Box<CallFacts>,
    progress: Progress,
    provider_request_id: Option<Box<str>>,
    ending: Ending,
    closed_at: Millis,
}

impl Closing {
    async fn write(&self, closer: &Closer) {
        let shutdown = closer.tasks.shutdown_token();
        let started = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut overdue = false;
        loop {
            let Err(error) = closer.ledger.append_deferred(self.unit(&closer.catalog)).await else { break };
            let late = started.elapsed() >= OVERDUE_AFTER;
            match error {
                LedgerError::Busy
                | LedgerError::Contended
                | LedgerError::Unavailable(_)
                | LedgerError::DiskLow
                | LedgerError::Damaged(_)
                | LedgerError::Fenced => {}
                // The opening was not written after all.
                _ if !self.progress.recorded => break,
                error => {
                    tracing::error!(request_id = %self.facts.id, %error, "the end of a model request could not be recorded");
                    break;
                }
            }
            if late && !self.progress.recorded {
                break;
            }
            if late && !overdue {
                overdue = true;
                closer.overdue.fetch_add(1, Ordering::Relaxed);
                tracing::error!(request_id = %self.facts.id, "the end of a model request is not recorded yet; the ledger does not take it");
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
        if overdue {
            closer.overdue.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn unit(&self, catalog: &Catalog) -> Unit {
        let Self { facts, ending, progress, .. } = self;
        let bill = settle(
            &Facts {
                operation: facts.operation,
                outcome: ending.outcome,
                observed: &ending.observed,
                charged: ending.charged,
                body_bytes: facts.body_bytes,
                model_upstream: &facts.model_upstream,
                model_requested: &facts.model_requested,
                now: facts.opened_at,
            },
            catalog,
        );
        let mut unit = Unit::new();
        let ledger_closed = unit.record(self.draft(&bill));
        for leak in ending.leaks.iter().take(MAX_LEAKS_TOLD) {
            unit.record(self.leak_draft(leak));
        }
        let observed = &ending.observed;
        let span = |from: Option<Millis>, to: Option<Millis>| Some((to? - from?).max(0));
        unit.close(Closed {
            id: facts.id.as_str().to_owned(),
            ledger_closed: Some(ledger_closed),
            model_response: observed.model.as_deref().map(String::from),
            status: progress.status,
            outcome: ending.outcome.as_str(),
            error_type: self.error_type().map(String::from),
            response_sha256: ending.response_sha256.map(hex::encode),
            response_bytes: Some(i64::try_from(ending.response_bytes).unwrap_or(i64::MAX)),
            usage: Some(bill.usage),
            cost_micro: Some(bill.cost_micro),
            price_id: bill.price_id,
            price_source: bill.price_source.map(crate::pricing::PriceSource::as_str),
            usage_source: Some(bill.source.as_str()),
            stop_reason: observed.stop_reason.as_deref().map(String::from),
            provider_request_id: self.provider_request_id.as_deref().map(String::from),
            tool_calls: Some(observed.tool_call_count),
            injected_pings: Some(ending.injected_pings),
            ttft_ms: span(progress.sent_at, progress.first_byte_at),
            upstream_ms: span(progress.sent_at, Some(self.closed_at)),
            total_ms: span(Some(facts.opened_at), Some(self.closed_at)),
            sent_at: progress.sent_at,
            closed_at: self.closed_at,
        });
        unit
    }

    fn error_type(&self) -> Option<&str> {
        self.ending.error_type.as_deref().or(self.ending.observed.error_type.as_deref())
    }

    /// The record of a value in use in the answer (SCR-64).
    fn leak_draft(&self, leak: &Hit) -> Draft {
        Draft::new(EntryKind::SecretLeak, &self.facts.context, "blocked")
            .with_subject("gateway_route", &*self.facts.route)
            .with("request_id", self.facts.id.as_str())
            .with("name", &*leak.name)
            .with("form", leak.form.as_str())
            .with("where", "model_answer")
            .with("offset", leak.offset)
            .with("direction", "out")
    }

    fn draft(&self, bill: &Settlement) -> Draft {
        let Self { facts, ending, progress, .. } = self;
        let observed = &ending.observed;
        let usage = bill.usage;
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).min((1 << 53) - 1);
        let tools: Vec<&str> = observed.tool_calls.iter().map(|call| &*call.id).collect();
        let tools: Vec<&str> =
            tools.into_iter().filter(|id| id.len() <= MAX_TOOL_ID_BYTES).take(MAX_TOOL_IDS).collect();
        let draft = Draft::new(EntryKind::InferenceClosed, &facts.context, ending.outcome.entry())
            .with_subject("gateway_route", &*facts.route)
            .with("request_id", facts.id.as_str())
            .with("result", ending.outcome.as_str())
            .with("status", progress.status.map_or(Value::Null, Value::from))
            .with(
                "usage",
                json!({
                    "input": count(usage.input),
                    "output": count(usage.output),
                    "cache_read": count(usage.cache_read),
                    "cache_write_5m": count(usage.cache_write_5m),
                    "cache_write_1h": count(usage.cache_write_1h),
                }),
            )
            .with("usage_source", bill.source.as_str())
            .with("cost_microdollars", bill.cost_micro.min((1 << 53) - 1))
            .with_payload(ending.response.clone())
            .with("response_bytes", count(ending.response_bytes))
            .with("elapsed_ms", (self.closed_at - facts.opened_at).max(0))
            .with("stop_reason", observed.stop_reason.as_deref().map_or(Value::Null, Value::from))
            .with("error_type", self.error_type().map_or(Value::Null, Value::from))
            .with("secrets", if observed.secrets.is_empty() { Value::Null } else { json!(observed.secrets) })
            .with("leaks", if ending.leaks.is_empty() { Value::Null } else { ending.leaks.len().into() })
            .with(
                "response",
                ending.response_sha256.map_or(Value::Null, |hash| commitment(&facts.salt, &hash).into()),
            );
        if tools.is_empty() { draft } else { draft.with("tool_calls", tools) }
    }
}
