//! Why something came out as it did: every record of the call that an id belongs to, with the state of its proof.

use crate::context::AppContext;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use systemprompt_audit::export::ExportRequest;
use systemprompt_audit::lookup::LookupError;
use systemprompt_audit::{Condition, Draft, EntryKind, Filter, LedgerError, LedgerRow, Unit, leaf_hash};
use systemprompt_models::ids::{AiRequestId, DecisionId, EntryId, Jti, UserId};
use systemprompt_models::{Millis, RequestContext};
use systemprompt_oauth::services::explain::{ExplainError, TokenExplained};
use systemprompt_security::authz::audit::repository::GovernanceDecision;

/// Most records of one call that are shown.
const MAX_ENTRIES: i64 = 200;
/// Repeats of the same query within this time count as one reading.
const READ_WINDOW_MS: Millis = 60_000;
const MAX_REMEMBERED_READS: usize = 1024;

/// What is recorded under an id.
#[derive(Debug)]
pub struct Explained {
    pub trace_id: Option<String>,
    /// One for each who acted, in order of their first entry. A client chooses its trace id, so several may share one.
    pub actors: Vec<ActorCall>,
    /// Oldest first.
    pub entries: Vec<LedgerRow>,
    /// Whether there are more entries than are shown.
    pub more: bool,
    /// Whether every record still has the hash that the chain holds.
    pub intact: bool,
    /// What a token rests on, if the id is one's.
    pub token: Option<Value>,
}

impl Explained {
    fn nothing() -> Self {
        let (actors, entries) = (Vec::new(), Vec::new());
        Self { trace_id: None, actors, entries, more: false, intact: true, token: None }
    }
}

/// What one actor did under an id.
#[derive(Debug)]
pub struct ActorCall {
    pub kind: Option<String>,
    pub id: Option<String>,
    /// The user's name, if it is a user's.
    pub name: Option<String>,
    pub decision: Option<GovernanceDecision>,
    /// Ids of this actor's entries.
    pub entries: Vec<String>,
}

/// Who read what, so that a reader who pages makes one record and not hundreds.
#[derive(Debug, Default)]
pub struct AuditReads(Mutex<HashMap<[u8; 32], Millis>>);

impl AuditReads {
    /// Whether this reading is a new one.
    fn is_new(&self, key: [u8; 32], now: Millis) -> bool {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() >= MAX_REMEMBERED_READS {
            reads.retain(|_, at| now - *at < READ_WINDOW_MS);
        }
        if reads.len() >= MAX_REMEMBERED_READS {
            reads.clear();
        }
        let fresh = reads.get(&key).is_none_or(|at| now - at >= READ_WINDOW_MS);
        if fresh {
            reads.insert(key, now);
        }
        fresh
    }
}

impl AppContext {
    /// Everything recorded under an id: a decision, a ledger entry, a model request, or a trace. With `actor`, only what that
    /// user did.
    ///
    /// # Errors
    /// When the ledger or a table cannot be read.
    pub async fn explain(&self, id: &str, actor: Option<&str>) -> Result<Explained, ExplainError> {
        let explained = match self.token(id, actor).await {
            Some(Ok(None)) => return Ok(Explained::nothing()),
            Some(found) => found?,
            None => None,
        };
        let (first, token) = match explained {
            Some(explained) => (Some(explained.issued), Some(explained.document)),
            None => (self.first_entry(id).await?, None),
        };
        let trace_id = match &first {
            Some(entry) => entry.trace_id.clone(),
            None => Some(id.to_owned()),
        };
        let actor_of_first = first.as_ref().and_then(|entry| entry.actor_id.clone());
        let wanted = actor.map(str::to_owned).or(actor_of_first);
        let (mut entries, more) = match &trace_id {
            Some(trace_id) => {
                let filter = Filter {
                    trace_id: Some(trace_id.clone()),
                    actor: wanted,
                    ascending: true,
                    ..Filter::default()
                };
                let page = self.ledger.query(&filter, None, MAX_ENTRIES).await?;
                (page.rows, page.next.is_some())
            }
            None => (first.into_iter().collect(), false),
        };
        if let Some(actor) = actor {
            entries.retain(|entry| entry.actor_id.as_deref() == Some(actor));
        }
        let asked = id.starts_with(DecisionId::PREFIX).then_some(id);
        let actors = self.by_actor(&entries, asked).await?;
        let intact =
            entries.iter().all(|e| e.record.as_deref().map_or(e.is_stub(), |text| leaf_hash(text) == e.hash));
        Ok(Explained { trace_id, actors, entries, more, intact, token })
    }

    /// The token of this id, if it is the id of a token; with `actor`, only that user's own.
    async fn token(
        &self,
        id: &str,
        actor: Option<&str>,
    ) -> Option<Result<Option<TokenExplained>, ExplainError>> {
        if !id.starts_with(Jti::PREFIX) {
            return None;
        }
        let found = systemprompt_oauth::services::explain::explain(&self.oauth, id).await;
        let is_own = |token: &TokenExplained| {
            actor.is_none_or(|actor| token.issued.actor_id.as_deref() == Some(actor))
        };
        Some(found.map(|token| token.filter(is_own)))
    }

    /// The entries of each actor, with the decision that was asked for, else its last one.
    async fn by_actor(
        &self,
        entries: &[LedgerRow],
        asked: Option<&str>,
    ) -> Result<Vec<ActorCall>, LookupError> {
        let mut actors: Vec<(ActorCall, Option<DecisionId>)> = Vec::new();
        // A call that the rules deny has no governance decision; its row bears the id of the authorisation.
        let kinds = [EntryKind::GovernanceDecision.as_str(), EntryKind::AuthzDecision.as_str()];
        for entry in entries {
            let is_same = |call: &ActorCall| (&call.kind, &call.id) == (&entry.actor_kind, &entry.actor_id);
            let at = actors.iter().position(|(call, _)| is_same(call)).unwrap_or_else(|| {
                let call = ActorCall {
                    kind: entry.actor_kind.clone(),
                    id: entry.actor_id.clone(),
                    name: None,
                    decision: None,
                    entries: Vec::new(),
                };
                actors.push((call, asked.map(DecisionId::new)));
                actors.len() - 1
            });
            let Some((call, decided)) = actors.get_mut(at) else { continue };
            call.entries.push(entry.id.clone());
            if asked.is_none() && kinds.contains(&entry.kind.as_str()) {
                *decided = Some(EntryId::new(entry.id.as_str()).decision());
            }
        }
        let mut calls = Vec::with_capacity(actors.len());
        for (mut call, decided) in actors {
            if let Some(id) = decided {
                call.decision = self.decisions.by_id(id.as_str()).await.map_err(LookupError::Read)?;
            }
            if let Some(id) = call.id.as_deref().filter(|id| id.starts_with(UserId::PREFIX)) {
                // A name that cannot be read is left out; the id is what counts.
                let user = self.people.user(&UserId::new(id)).await.ok().flatten();
                call.name = user.map(|user| user.username);
            }
            calls.push(call);
        }
        Ok(calls)
    }

    /// The entry that an id stands for; `None` for a trace id.
    async fn first_entry(&self, id: &str) -> Result<Option<LedgerRow>, systemprompt_audit::ReadError> {
        let reader = self.ledger.reader();
        if id.starts_with(EntryId::PREFIX) {
            return reader.by_id(id).await;
        }
        if id.starts_with(DecisionId::PREFIX) {
            return reader.by_id(DecisionId::new(id).entry().as_str()).await;
        }
        if id.starts_with(AiRequestId::PREFIX)
            && let Some(request) = self.gateway.requests().by_id(id).await?
        {
            return reader.by_id(&request.ledger_opened).await;
        }
        Ok(None)
    }

    /// The decision row of an entry, if it is a decision.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn decision_of(
        &self,
        entry: &LedgerRow,
    ) -> Result<Option<GovernanceDecision>, systemprompt_audit::ReadError> {
        let kinds = [EntryKind::GovernanceDecision.as_str(), EntryKind::AuthzDecision.as_str()];
        if !kinds.contains(&entry.kind.as_str()) {
            return Ok(None);
        }
        self.decisions.by_id(EntryId::new(entry.id.as_str()).decision().as_str()).await
    }

    /// Records that somebody read one thing of the ledger, such as an entry or a proof; repeats within a minute are one reading.
    ///
    /// # Errors
    /// When it could not be recorded; nothing is shown then.
    pub async fn record_audit_access(
        &self,
        by: &RequestContext,
        what: &'static str,
        id: &str,
    ) -> Result<(), LedgerError> {
        let key = read_key(&format!("{}\n{what}\n{id}", by.principal.user_id));
        if !self.audit_reads.is_new(key, self.clock.now()) {
            return Ok(());
        }
        let draft = Draft::new(EntryKind::AdminAuditRead, by, "ok").with("what", what);
        let draft = if is_id(id) || self.is_stream(id).await {
            draft.with("id", id)
        } else {
            draft.with("id_sha256", hex::encode(read_key(id)))
        };
        self.append_read(draft).await
    }

    /// Whether this names a stream, or all of them. What a reader wrote goes into no record by itself: it may be a name or an
    /// address, and a record cannot be erased.
    async fn is_stream(&self, name: &str) -> bool {
        let streams = self.ledger.reader().streams().await;
        name == "all" || streams.is_ok_and(|streams| streams.iter().any(|stream| stream.stream == name))
    }

    /// Records an export before it begins.
    ///
    /// # Errors
    /// When it could not be recorded; nothing is exported then.
    pub async fn record_audit_export(
        &self,
        by: &RequestContext,
        request: &ExportRequest,
    ) -> Result<(), LedgerError> {
        let filter = hex::encode(read_key(&format!("{:?}", request.filter)));
        let stream = match request.filter.stream.clone() {
            Some(name) => self.is_stream(&name).await.then_some(name),
            None => None,
        };
        let draft = Draft::new(EntryKind::AdminAuditExport, by, "ok")
            .with("format", request.format.as_str())
            .with("stream", stream)
            .with("from", request.from)
            .with("to", request.to)
            .with("filter_sha256", filter);
        self.append_read(draft).await
    }

    /// A damaged ledger takes no record and is what must be looked at; that it was goes to the log.
    async fn append_read(&self, draft: Draft) -> Result<(), LedgerError> {
        let condition = self.ledger.condition();
        if matches!(&*condition, Condition::Damaged(_) | Condition::RolledBack(_)) {
            let (actor, what) = (&draft.actor_id, draft.kind.as_str());
            tracing::warn!(%actor, what, condition = condition.code(), "a damaged ledger was read; nothing records it");
            return Ok(());
        }
        let mut unit = Unit::new();
        unit.record(draft);
        self.ledger.append(unit).await?;
        Ok(())
    }

    /// Records that somebody read the ledger; repeats of the same query within a minute are one reading (AUD-60).
    ///
    /// # Errors
    /// When it could not be recorded; nothing is shown then.
    pub async fn record_audit_read(&self, by: &RequestContext, filter: &Filter) -> Result<(), LedgerError> {
        let key = read_key(&format!("{}\n{filter:?}", by.principal.user_id));
        if !self.audit_reads.is_new(key, self.clock.now()) {
            return Ok(());
        }
        let digest = hex::encode(key);
        let draft = Draft::new(EntryKind::AdminAuditRead, by, "ok")
            .with("filter_sha256", digest)
            .with("kind", filter.kind.clone().filter(|kind| is_kinds(kind)));
        self.append_read(draft).await
    }
}

/// Whether this has the form of an id that the ledger's pages go by.
fn is_id(text: &str) -> bool {
    let prefixes = [EntryId::PREFIX, DecisionId::PREFIX, AiRequestId::PREFIX];
    let is_hex =
        |rest: &str| rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    prefixes.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(is_hex))
}

/// Whether this names kinds and families of entries alone.
fn is_kinds(text: &str) -> bool {
    let is_kind = |word: &str| match word.strip_suffix('*') {
        Some(family) => EntryKind::ALL.iter().any(|kind| kind.as_str().starts_with(family)),
        None => EntryKind::ALL.iter().any(|kind| kind.as_str() == word),
    };
    text.len() <= 256 && text.split(',').all(is_kind)
}

fn read_key(text: &str) -> [u8; 32] {
    let mut key = [0_u8; 32];
    key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_and_kinds_that_the_ledger_has_are_repeated_in_a_record() {
        assert!(is_id(EntryId::generate().as_str()) && is_id(DecisionId::generate().as_str()));
        for text in ["someone@example.com", "led_", "led_bob", "led_0000000000000000000000000000000g", "all"]
        {
            assert!(!is_id(text), "{text}");
        }
        assert!(is_kinds("admin.audit.read") && is_kinds("tool.*,secret.leak") && is_kinds("*"));
        assert!(!is_kinds("someone@example.com") && !is_kinds("tool.*,someone"));
    }
}
