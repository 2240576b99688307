//! Stubs of an export, and the retention records in the file that explain them (AUD-33, AUD-51). A retention record stands behind
//! what it covers, and may stand in another node's stream: so lists are digested as they pass by and compared at the end. What is
//! kept grows with the number of retention records, not of stubs.

use super::{Finding, Report};
use crate::export::jsonl::StubLine;
use crate::retention::{Digest, Told};
use std::collections::{BTreeMap, HashMap};
use systemprompt_models::Millis;

/// Lists, and kinds in them, that are followed in one file: a run a day for decades. A file with more explains the rest to nobody.
const MAX_KEPT: usize = 100_000;

/// The entries of a stream that name one retention record.
#[derive(Default)]
struct List {
    first: u64,
    last: u64,
    stubs: u64,
    /// Stubs, and records that were listed and still stood there.
    count: u64,
    /// The newest of each kind.
    newest: BTreeMap<String, Millis>,
    digest: Digest,
}

#[derive(Default)]
pub(super) struct Stubs {
    told: HashMap<String, Told>,
    /// By stream and id of the retention record.
    lists: BTreeMap<(String, String), List>,
    kept: usize,
}

impl Stubs {
    /// A retention record of the file.
    pub(super) fn told(&mut self, id: &str, told: Told) {
        if self.told.len() < MAX_KEPT {
            self.told.insert(id.to_owned(), told);
        }
    }

    /// A stub; the finding is for one that no retention record can explain.
    pub(super) fn stub(&mut self, stream: &str, stub: StubLine) -> Option<Finding> {
        let StubLine { seq, kind, at, hash, by } = stub;
        let unexplained = |expected: &str, found: String| {
            Some(Finding {
                check: "stub_unexplained",
                stream: stream.to_owned(),
                seq: seq as i64,
                expected: expected.to_owned(),
                found,
            })
        };
        if kind.starts_with("system.") {
            return unexplained("a record: this kind is kept for ever", format!("a stub of {kind}"));
        }
        let Some(by) = by else {
            return unexplained("a record, or the retention record that covers its end", "neither".into());
        };
        let Some(list) = self.add(stream, by, (seq, &kind, at, &hash)) else {
            return unexplained("a retention record", "more of them than any ledger has".into());
        };
        list.stubs += 1;
        None
    }

    /// A record that a retention record lists and that had not been pruned when the export was made.
    pub(super) fn still_there(&mut self, stream: &str, by: String, entry: (u64, &str, Millis, &str)) {
        self.add(stream, by, entry);
    }

    fn add(
        &mut self,
        stream: &str,
        by: String,
        (seq, kind, at, hash): (u64, &str, Millis, &str),
    ) -> Option<&mut List> {
        let key = (stream.to_owned(), by);
        let is_new = self.lists.get(&key).is_none_or(|list| !list.newest.contains_key(kind));
        if is_new {
            if self.kept >= MAX_KEPT {
                return None;
            }
            self.kept += 1;
        }
        let list = self.lists.entry(key).or_default();
        if list.count == 0 {
            (list.first, list.last) = (seq, seq);
        }
        (list.first, list.last) = (list.first.min(seq), list.last.max(seq));
        let newest = list.newest.entry(kind.to_owned()).or_insert(at);
        *newest = (*newest).max(at);
        list.count += 1;
        list.digest.add(seq as i64, kind, at, hash);
        Some(list)
    }

    /// When all of the file was read.
    pub(super) fn end(self, report: &mut Report) {
        for ((stream, by), list) in self.lists {
            if list.stubs == 0 {
                continue;
            }
            match list.doubt(&stream, &by, self.told.get(&by)) {
                None => report.pruned += list.stubs,
                Some((expected, found)) => report.add(Finding {
                    check: "stub_unexplained",
                    stream,
                    seq: list.first as i64,
                    expected,
                    found,
                }),
            }
        }
    }
}

impl List {
    /// Expected and found, unless the retention record covers each entry and lists just these.
    fn doubt(&self, stream: &str, by: &str, told: Option<&Told>) -> Option<(String, String)> {
        let found = format!("{} stubs from seq {} to {}", self.stubs, self.first, self.last);
        let Some(told) = told else {
            let expected = format!("the retention record {by}, which is not in what was verified");
            return Some((expected, format!("{found}, not explained by this file")));
        };
        let covers =
            |seq: u64| self.newest.iter().all(|(kind, at)| told.covers(stream, seq as i64, kind, *at));
        if !covers(self.first) || !covers(self.last) {
            let expected =
                format!("seq {} to {} of {}, before the cutoffs of {by}", told.from, told.to, told.stream);
            return Some((expected, found));
        }
        let digest = self.digest.finish();
        if told.count == self.count && told.sha256 == digest {
            return None;
        }
        let expected = format!(
            "{} entries from seq {} to {} with digest {}, as {by} says",
            told.count, told.from, told.to, told.sha256
        );
        Some((expected, format!("{found}, {} entries with digest {digest}", self.count)))
    }
}
