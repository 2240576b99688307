//! What a retention record covers, as the job plans it, as the record tells it, and how far earlier runs came.

use super::RetentionRules;
use crate::chain::leaf_hash;
use crate::repository::retention::{Member, RecordRow, RetentionState};
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use systemprompt_models::Millis;

/// SHA-256 over `<seq>\n<kind>\n<at>\n<hash>\n` of each entry, in order of `seq`.
#[derive(Clone)]
pub(crate) struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl Digest {
    pub(crate) fn add(&mut self, seq: i64, kind: &str, at: Millis, hash: &str) {
        self.0.update(format!("{seq}\n{kind}\n{at}\n{hash}\n").as_bytes());
    }

    pub(crate) fn finish(&self) -> String {
        hex::encode(self.0.clone().finish())
    }
}

/// Entries of one stream that are to become stubs together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Id of the record that covers them, once there is one.
    pub by: String,
    pub stream: String,
    pub from: i64,
    pub to: i64,
    pub cutoffs: BTreeMap<String, Millis>,
    pub count: u64,
    #[serde(skip)]
    pub digest: Digest,
}

impl Plan {
    pub(super) fn new(stream: &str) -> Self {
        Self {
            by: String::new(),
            stream: stream.to_owned(),
            from: 0,
            to: 0,
            cutoffs: BTreeMap::new(),
            count: 0,
            digest: Digest::default(),
        }
    }

    pub(super) fn pending(state: &RetentionState) -> Option<Self> {
        state.pending.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }

    pub(super) fn add(&mut self, member: &Member, cutoff: Millis) {
        if self.count == 0 {
            self.from = member.seq;
        }
        self.to = member.seq;
        self.count += 1;
        self.cutoffs.insert(member.kind.clone(), cutoff);
        self.digest.add(member.seq, &member.kind, member.at, &member.hash);
    }

    pub(crate) fn covers(&self, kind: &str, at: Millis) -> bool {
        self.cutoffs.get(kind).is_some_and(|cutoff| at < *cutoff)
    }
}

/// How far the runs have come, by days of retention. Other rules begin anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    rules: String,
    done: BTreeMap<u32, Millis>,
}

impl Progress {
    pub(super) fn read(text: Option<&str>, rules: &RetentionRules) -> Self {
        let fingerprint = serde_json::to_string(&(rules.default_days, &rules.kinds)).unwrap_or_default();
        let known = text.and_then(|text| serde_json::from_str::<Self>(text).ok());
        let known = known.filter(|known| known.rules == fingerprint);
        known.unwrap_or(Self { rules: fingerprint, done: BTreeMap::new() })
    }

    pub(super) fn done(&self, days: u32) -> Millis {
        self.done.get(&days).copied().unwrap_or_default()
    }

    pub(super) fn set_done(&mut self, days: u32, cutoff: Millis) {
        self.done.insert(days, cutoff);
    }
}

/// What a retention record says, as verification reads it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub stream: String,
    pub from: i64,
    pub to: i64,
    /// By kind, or by class of payloads.
    pub cutoffs: BTreeMap<String, Millis>,
    pub count: u64,
    pub sha256: String,
    pub is_of_payloads: bool,
}

impl Told {
    /// None of a record that was altered, or that claims a cutoff after its own time.
    pub(crate) fn read(row: &RecordRow) -> Option<Self> {
        let text = row.record.as_deref().filter(|text| leaf_hash(text) == row.hash)?;
        Self::of(&serde_json::from_str(text).ok()?, row.at)
    }

    /// Of a record that was checked already.
    pub(crate) fn of(record: &Value, at: Millis) -> Option<Self> {
        let detail = record.get("detail")?;
        let text = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| detail.get(name).and_then(Value::as_i64).unwrap_or_default();
        let cutoffs = detail.get("cutoffs")?.as_object()?;
        let cutoffs = cutoffs.iter().filter_map(|(kind, at)| Some((kind.clone(), at.as_i64()?)));
        Some(Self {
            stream: text("stream"),
            from: number("from"),
            to: number("to"),
            cutoffs: cutoffs.filter(|(_, cutoff)| *cutoff <= at).collect(),
            count: number("count").max(0) as u64,
            sha256: text("sha256"),
            is_of_payloads: text("scope") == "payloads",
        })
    }

    pub(crate) fn covers(&self, stream: &str, seq: i64, kind: &str, at: Millis) -> bool {
        !self.is_of_payloads
            && self.stream == stream
            && (self.from..=self.to).contains(&seq)
            && self.cutoffs.get(kind).is_some_and(|cutoff| at < *cutoff)
    }
}
