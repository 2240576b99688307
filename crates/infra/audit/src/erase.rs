//! Erasure (AUD-34): bodies and salts of a person's payloads go, records and chain stay. What a commitment was made over can then
//! neither be read nor be guessed. The record of the erasure comes first and names the list by its digest.

use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::payload::{Class, ClassCounts, Payload, PayloadRow, Role};
use crate::record::{Draft, EntryKind};
use crate::repository::payloads::{self, Behind};
use crate::repository::streams::Stream;
use crate::unit::Unit;
use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Millis, RequestContext};

/// Longest reason, in characters.
pub const MAX_REASON: usize = 1000;
/// Payloads that one record of an erasure covers; more are erased under further records.
const COVERED: usize = 50_000;
/// Streams whose heads the record of an erasure names; with more of them its time alone says what it covers.
const MAX_HEADS: usize = 64;
/// The actor of inference hooks, with a digest of the name that the hook gave behind a colon.
const HOOK: &str = "inference_hook";
const PAGE: i64 = 1000;
/// Rest between two write transactions, so that callers come first.
const REST: Duration = Duration::from_millis(5);

/// Whose payloads are to be erased, and why.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// A user id, as records name their actor.
    pub subject_user: String,
    /// All classes if empty.
    pub classes: BTreeSet<Class>,
    pub reason: String,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Ids of the `admin.audit.erase` records.
    pub entries: Vec<String>,
    pub counts: ClassCounts,
}

/// Why an erasure was refused, or ended early. What was erased is on record.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("{field}: {message}")]
    Invalid { field: &'static str, message: String },
    #[error("the ledger did not take the record of the erasure; what it was to cover is still there")]
    Ledger(#[from] LedgerError),
    #[error("the payloads could not be erased; asking again erases the rest")]
    Store(#[from] sqlx::Error),
}

/// The list of an erasure: one digest a payload, in an order that does not depend on where they lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErasedList(Vec<[u8; 32]>);

impl ErasedList {
    pub(crate) fn add(&mut self, row: &PayloadRow) {
        let line = format!("{}\n{}\n{}\n{}\n", row.stream, row.seq, row.role, row.commitment);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, line.as_bytes()).as_ref());
        self.0.push(hash);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.sort_unstable();
        let mut context = Context::new(&SHA256);
        for hash in &self.0 {
            context.update(hash);
        }
        hex::encode(context.finish())
    }
}

/// Whether this has the form of the ids that actors have. The record of an erasure names it for ever, so nothing else may stand
/// there, least of all a name or an address.
pub fn is_principal(id: &str) -> bool {
    let is_opaque = |rest: &str| {
        (1..=64).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    match id.strip_prefix(HOOK) {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(is_opaque),
        None => id.strip_prefix(UserId::PREFIX).is_some_and(is_opaque),
    }
}

/// Payloads that one record covers.
#[derive(Default)]
struct Round {
    list: ErasedList,
    counts: ClassCounts,
    rows: Vec<PayloadRow>,
}

impl Erasure {
    /// Whether it can be asked for.
    ///
    /// # Errors
    /// A field out of bounds.
    pub fn check(&self) -> Result<(), EraseError> {
        let invalid = |field, message: &str| Err(EraseError::Invalid { field, message: message.to_owned() });
        if !is_principal(&self.subject_user) {
            return invalid("subject_user", "the id of a user, `usr_…`, as records name their actor");
        }
        if self.reason.trim().is_empty() || self.reason.chars().count() > MAX_REASON {
            return invalid("reason", &format!("1 to {MAX_REASON} characters"));
        }
        Ok(())
    }

    fn covers(&self, class: Class) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }
}

impl Ledger {
    /// Whether anything was ever kept of a person that retention has not taken, erased or not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn keeps_of(&self, subject_user: &str) -> sqlx::Result<bool> {
        payloads::is_there_any(self.db(), subject_user).await
    }

    /// Erases what is there of a person at this moment.
    ///
    /// # Errors
    /// A field out of bounds, or a store that fails.
    pub async fn erase(&self, by: &RequestContext, erasure: &Erasure) -> Result<Erased, EraseError> {
        erasure.check()?;
        let _one = self.clearing().lock().await;
        // What comes behind these heads is not meant: the record must name what it covers.
        let streams = self.reader().streams().await?;
        let mut erased = Erased::default();
        loop {
            let round = self.round(&streams, erasure).await?;
            let is_last = round.list.len() < COVERED;
            if !round.rows.is_empty() || erased.entries.is_empty() {
                let at = self.now();
                let entry = self.tell(by, erasure, (&round, &streams), at).await?;
                for part in payloads::portions(&round.rows) {
                    payloads::erase(self.db(), part, &entry, at).await?;
                    tokio::time::sleep(REST).await;
                }
                erased.entries.push(entry);
                for (class, count) in round.counts {
                    *erased.counts.entry(class).or_default() += count;
                }
            }
            if is_last {
                return Ok(erased);
            }
        }
    }

    async fn round(&self, streams: &[Stream], erasure: &Erasure) -> sqlx::Result<Round> {
        let mut round = Round::default();
        for class in Class::ALL.into_iter().filter(|class| erasure.covers(*class)) {
            for stream in streams {
                let mut behind = Behind::default();
                loop {
                    let page = payloads::page(self.db(), class, &stream.stream, &behind, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    behind = Behind::of(last);
                    for row in page {
                        let is_meant = row.seq <= stream.head_seq
                            && row.erased_at.is_none()
                            && row.subject_user.as_deref() == Some(&erasure.subject_user);
                        if is_meant {
                            round.list.add(&row);
                            *round.counts.entry(class).or_default() += 1;
                            round.rows.push(row);
                        }
                        if round.list.len() >= COVERED {
                            return Ok(round);
                        }
                    }
                    if behind.seq > stream.head_seq {
                        break;
                    }
                }
            }
        }
        Ok(round)
    }

    async fn tell(
        &self,
        by: &RequestContext,
        erasure: &Erasure,
        (round, streams): (&Round, &[Stream]),
        at: Millis,
    ) -> Result<String, LedgerError> {
        let classes = Class::ALL.into_iter().filter(|class| erasure.covers(*class));
        let draft = Draft::new(EntryKind::AdminAuditErase, by, "ok")
            .with_subject("user", erasure.subject_user.as_str())
            .with("subject_user", erasure.subject_user.as_str())
            .with("classes", classes.map(Class::as_str).collect::<Vec<_>>())
            .with("counts", serde_json::to_value(&round.counts).unwrap_or_default())
            .with("count", round.list.len())
            .with("sha256", round.list.clone().finish())
            .with("erased_at", at)
            .with("heads", heads(streams))
            .with_payload(Payload::text(Role::Reason, erasure.reason.trim()));
        let mut unit = Unit::new();
        let entry = unit.record(draft).to_string();
        self.append(unit).await?;
        Ok(entry)
    }
}

/// Up to where the erasure reaches: everything of the person, in its classes, that stands there, and nothing behind it.
fn heads(streams: &[Stream]) -> Option<Value> {
    let heads = streams.iter().map(|stream| (stream.stream.clone(), stream.head_seq.into()));
    (streams.len() <= MAX_HEADS).then(|| Value::Object(heads.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_actors_are_names_of_persons_to_erase() {
        let digest = format!("inference_hook:{}", "0f".repeat(16));
        for id in ["usr_01a20238b65871c292e0dd6897e19bfe", "usr_a", "inference_hook", &digest] {
            assert!(is_principal(id), "{id}");
        }
        for text in
            ["", "usr_", "bob", "bob alice@example.com", "usr_a@example.com", "usr_a b", "inference_hookx"]
        {
            assert!(!is_principal(text), "{text}");
        }
        assert!(!is_principal(&format!("usr_{}", "a".repeat(65))));
    }
}
