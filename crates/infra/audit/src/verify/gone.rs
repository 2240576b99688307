//! What is gone, and whether a record explains it (AUD-33, AUD-34, AUD-52): stubs of retention, payloads whose time was over,
//! erasures. What no record explains is reported as tampering.

use super::{Finding, Report};
use crate::chain::leaf_hash;
use crate::erase::ErasedList;
use crate::payload::{Class, MEDIA_TYPES, Named, Owners, PayloadRow, SALT_BYTES, read};
use crate::record::EntryKind;
use crate::repository::entries::{LedgerReader, LedgerRow};
use crate::repository::payloads::{self, StoredRow};
use crate::repository::retention;
use crate::retention::{Digest, Told};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use systemprompt_models::Millis;

const PAGE: i64 = 1000;

/// A record with the payloads that it names.
pub(super) struct Holder {
    pub seq: i64,
    pub at: Millis,
    pub named: Vec<Named>,
    pub owners: Owners,
}

/// What an `admin.audit.erase` record says.
#[derive(Clone, Debug)]
struct ErasureTold {
    stream: String,
    seq: i64,
    at: Millis,
    subject_user: String,
    classes: BTreeSet<String>,
    count: usize,
    counts: BTreeMap<String, u64>,
    sha256: String,
    /// Absent in records of older versions.
    erased_at: Option<Millis>,
    /// The last `seq` that it reached, by stream; absent in records of older versions, and of very many streams.
    heads: Option<BTreeMap<String, i64>>,
}

/// What was met of an erasure.
#[derive(Default)]
struct Met {
    list: ErasedList,
    counts: BTreeMap<String, u64>,
}

/// Explains what is gone. Records that explain are read when the first is needed.
pub(super) struct Gone<'a> {
    reader: &'a LedgerReader,
    told: Option<HashMap<String, Told>>,
    /// Stubs of the stream under way, by the record that covers them.
    stubs: BTreeMap<String, (u64, Digest)>,
    erasures: HashMap<String, Option<ErasureTold>>,
    erased: BTreeMap<String, Met>,
}

impl<'a> Gone<'a> {
    pub(super) fn new(reader: &'a LedgerReader) -> Self {
        Self { reader, told: None, stubs: BTreeMap::new(), erasures: HashMap::new(), erased: BTreeMap::new() }
    }

    async fn told(&mut self, anew: bool) -> sqlx::Result<&HashMap<String, Told>> {
        if anew || self.told.is_none() {
            let rows = retention::records(self.reader.db()).await?;
            let told = rows.iter().filter_map(|row| Some((row.id.clone(), Told::read(row)?)));
            self.told = Some(told.collect());
        }
        Ok(self.told.get_or_insert_default())
    }

    /// A stub: a retention record covers it, and nothing but its place, kind, time and hashes is left.
    pub(super) async fn stub(&mut self, row: &LedgerRow) -> sqlx::Result<Option<Finding>> {
        let unexplained = |expected: &str, found: String| {
            Ok(Some(Finding {
                check: "stub_unexplained",
                stream: row.stream.clone(),
                seq: row.seq,
                expected: expected.to_owned(),
                found,
            }))
        };
        let Some(by) = &row.pruned_by else {
            return unexplained("a record, or the retention record that covers its end", "neither".into());
        };
        let mut told = self.told(false).await?.get(by).cloned();
        if told.is_none() {
            // A server that goes on pruning.
            told = self.told(true).await?.get(by).cloned();
        }
        let Some(told) = told else {
            return unexplained("an intact retention record", format!("none is {by}"));
        };
        if !told.covers(&row.stream, row.seq, &row.kind, row.at) {
            let cutoff = told.cutoffs.get(&row.kind).copied().unwrap_or_default();
            let found = format!("seq {} of {} at {}", row.seq, row.kind, row.at);
            let expected = format!(
                "seq {} to {} of {}, {} before {cutoff}, as {by} says",
                told.from, told.to, told.stream, row.kind
            );
            return unexplained(&expected, found);
        }
        let (count, digest) = self.stubs.entry(by.clone()).or_default();
        *count += 1;
        digest.add(row.seq, &row.kind, row.at, &row.hash);
        Ok(None)
    }

    /// At the end of a stream that was read from its first record: the stubs are those of the lists.
    pub(super) async fn end_stream(&mut self, is_whole: bool, report: &mut Report) -> sqlx::Result<()> {
        for (by, (count, digest)) in std::mem::take(&mut self.stubs) {
            report.pruned += count;
            let Some(told) = self.told(false).await?.get(&by).cloned() else { continue };
            if !is_whole || (told.count == count && told.sha256 == digest.finish()) {
                continue;
            }
            // A run that was cut off: what it has not come to yet belongs to the list, too.
            let (count, digest) = self.relisted(&by, &told).await?;
            if told.count != count || told.sha256 != digest.finish() {
                report.add(Finding {
                    check: "stub_unexplained",
                    stream: told.stream.clone(),
                    seq: told.from,
                    expected: format!("{} entries with digest {}, as {by} says", told.count, told.sha256),
                    found: format!("{count} entries with digest {}", digest.finish()),
                });
            }
        }
        Ok(())
    }

    async fn relisted(&self, by: &str, told: &Told) -> sqlx::Result<(u64, Digest)> {
        let (mut after, mut count, mut digest) = (told.from - 1, 0, Digest::default());
        loop {
            let page = retention::members(self.reader.db(), &told.stream, after, PAGE).await?;
            let Some(last) = page.last().map(|member| member.seq) else { break };
            for member in page.iter().filter(|member| member.seq <= told.to) {
                let is_due =
                    member.is_stub == 0 && told.covers(&told.stream, member.seq, &member.kind, member.at);
                if is_due || member.pruned_by.as_deref() == Some(by) {
                    count += 1;
                    digest.add(member.seq, &member.kind, member.at, &member.hash);
                }
            }
            after = last;
            if last >= told.to {
                break;
            }
        }
        Ok((count, digest))
    }

    /// The payloads of a part of a stream.
    pub(super) async fn payloads(
        &mut self,
        stream: &str,
        (after, to): (i64, i64),
        holders: &[Holder],
        report: &mut Report,
    ) -> sqlx::Result<()> {
        let mut rows: HashMap<(i64, String, Class), StoredRow> = HashMap::new();
        for class in Class::ALL {
            for row in payloads::stored(self.reader.db(), class, stream, after, to).await? {
                rows.insert((row.row.seq, row.row.role.clone(), class), row);
            }
        }
        for holder in holders {
            for named in &holder.named {
                // The role fixes the class; the same role under another class is one row too many.
                let row = if let Some(class) = named.class() {
                    rows.remove(&(holder.seq, named.role.clone(), class))
                } else {
                    rows.retain(|(seq, role, _), _| (*seq, role) != (holder.seq, &named.role));
                    None
                };
                let wrong = self.payload(stream, holder, named, row, report).await?;
                if let Some((check, expected, found)) = wrong {
                    report.add(Finding {
                        check,
                        stream: stream.to_owned(),
                        seq: holder.seq,
                        expected,
                        found,
                    });
                }
            }
        }
        let mut unnamed: Vec<(i64, String, Class)> = rows.into_keys().collect();
        unnamed.sort_unstable();
        for (seq, role, _) in unnamed {
            report.add(Finding {
                check: "payload_altered",
                stream: stream.to_owned(),
                seq,
                expected: "payloads that the record names".into(),
                found: format!("`{role}`, which it does not name"),
            });
        }
        Ok(())
    }

    /// When whole streams were read: rows that lie where no record can name them.
    pub(super) async fn strays(&self, report: &mut Report) -> sqlx::Result<()> {
        for stray in payloads::strays(self.reader.db(), PAGE).await? {
            report.add(Finding {
                check: "payload_altered",
                stream: stray.stream,
                seq: stray.seq,
                expected: "payloads that a record names".into(),
                found: format!("`{}` of class `{}`, which none names", stray.role, stray.class),
            });
        }
        Ok(())
    }

    async fn payload(
        &mut self,
        stream: &str,
        holder: &Holder,
        named: &Named,
        row: Option<StoredRow>,
        report: &mut Report,
    ) -> sqlx::Result<Option<Wrong>> {
        let Some(class) = named.class() else { return Ok(None) };
        let expected = format!("the payload `{}` with commitment {}", named.role, named.commitment);
        let altered = |found: &str| Ok(Some(("payload_altered", expected.clone(), found.to_owned())));
        let missing = |found: &str| Ok(Some(("payload_missing", expected.clone(), found.to_owned())));
        let is_kept = named.kept.as_deref() != Some("none");
        let Some(StoredRow { row, salt, body }) = row else {
            if !is_kept {
                return Ok(None);
            }
            if self.is_expired(class, holder.at).await? {
                report.expired += 1;
                return Ok(None);
            }
            return missing("no row, and no retention record that covers it");
        };
        let agrees = is_kept
            && row.class == class.as_str()
            && row.stream == stream
            && row.at == holder.at
            && MEDIA_TYPES.contains(&row.media_type.as_str())
            && row.commitment == named.commitment
            && row.size == named.size;
        if !agrees {
            return altered("a row that says something else");
        }
        if !holder.owners.agree(&named.role, row.subject_user.as_deref()) {
            return altered("a row that belongs to somebody else");
        }
        if row.erased_at.is_some() || row.erased_by.is_some() {
            if salt.is_some() || body.is_some() || row.body_ref.is_some() {
                return altered("a row that is called erased and is not");
            }
            if self.is_erased(&row).await? {
                report.erased += 1;
                let told = row.erased_by.as_ref().and_then(|by| self.erasures.get(by)?.as_ref());
                let is_then = told.and_then(|told| told.erased_at).is_none_or(|at| row.erased_at == Some(at));
                if row.erased_at.is_none() || !is_then {
                    return altered("a row that was erased at another time than its record says");
                }
                return Ok(None);
            }
            return missing("an erased row, and no record of that erasure");
        }
        let body = match &row.body_ref {
            Some(id) => payloads::large_body(self.reader.db(), id).await?,
            None => body,
        };
        if named.kept.is_some() {
            return match (salt, body) {
                (Some(salt), None) if salt.len() == SALT_BYTES => {
                    report.payloads += 1;
                    Ok(None)
                }
                (None, _) => missing("no salt, and no record of an erasure"),
                _ => altered("another salt, or a body"),
            };
        }
        if salt.is_none() || body.is_none() {
            return missing("no body, and no record of an erasure");
        }
        match read::check(named, row.encoding.as_deref(), salt.as_deref(), body.as_deref()) {
            Some(_) => {
                report.payloads += 1;
                Ok(None)
            }
            None => altered("a body with another commitment"),
        }
    }

    /// Whether a retention record says that payloads of this class and time are gone.
    async fn is_expired(&mut self, class: Class, at: Millis) -> sqlx::Result<bool> {
        let is_covered = |told: &HashMap<String, Told>| {
            let of_payloads = told.values().filter(|told| told.is_of_payloads);
            of_payloads.filter_map(|told| told.cutoffs.get(class.as_str())).any(|cutoff| at < *cutoff)
        };
        if is_covered(self.told(false).await?) {
            return Ok(true);
        }
        Ok(is_covered(self.told(true).await?))
    }

    /// Whether the record that the row names erased this payload.
    async fn is_erased(&mut self, row: &PayloadRow) -> sqlx::Result<bool> {
        let Some(by) = &row.erased_by else { return Ok(false) };
        if !self.erasures.contains_key(by) {
            let told = self.reader.by_id(by).await?.as_ref().and_then(ErasureTold::read);
            self.erasures.insert(by.clone(), told);
        }
        let told = self.erasures.get(by).and_then(Option::as_ref);
        let is_covered = told.is_some_and(|told| {
            row.subject_user.as_deref() == Some(&told.subject_user)
                && told.classes.contains(&row.class)
                && row.at <= told.at
                && told.reaches(&row.stream, row.seq)
        });
        if is_covered {
            let met = self.erased.entry(by.clone()).or_default();
            met.list.add(row);
            *met.counts.entry(row.class.clone()).or_default() += 1;
        }
        Ok(is_covered)
    }

    /// When all streams were read: what was erased is what the erasures had listed.
    pub(super) fn end(self, report: &mut Report) {
        for (by, Met { list, counts }) in self.erased {
            let Some(Some(told)) = self.erasures.get(&by) else { continue };
            // Fewer: retention has taken some of the rows since, and the list cannot be made anew without them. Each that is
            // missing was explained by itself, and each that is there is of this person, of a class that the erasure covers and
            // stood there when it began, so that it was to be erased; no class may have more of them than it told.
            let is_more =
                |(class, count): (&String, &u64)| told.counts.get(class).is_none_or(|told| count > told);
            let (count, digest) = (list.len(), list.finish());
            if counts.iter().any(is_more) || (count == told.count && digest != told.sha256) {
                report.add(Finding {
                    check: "payload_missing",
                    stream: told.stream.clone(),
                    seq: told.seq,
                    expected: format!("{} erased payloads with digest {}", told.count, told.sha256),
                    found: format!("{count} with digest {digest}"),
                });
            }
        }
    }
}

/// Check, expected, found.
type Wrong = (&'static str, String, String);

impl ErasureTold {
    /// Whether the entry stood there when the erasure began.
    fn reaches(&self, stream: &str, seq: i64) -> bool {
        let heads = self.heads.as_ref();
        heads.is_none_or(|heads| heads.get(stream).is_some_and(|head| seq <= *head))
    }

    fn read(row: &LedgerRow) -> Option<Self> {
        if row.kind != EntryKind::AdminAuditErase.as_str() {
            return None;
        }
        let text = row.record.as_deref().filter(|text| leaf_hash(text) == row.hash)?;
        let record: Value = serde_json::from_str(text).ok()?;
        let detail = record.get("detail")?;
        let classes = detail.get("classes")?.as_array()?;
        Some(Self {
            stream: row.stream.clone(),
            seq: row.seq,
            at: record.get("at")?.as_i64()?,
            subject_user: detail.get("subject_user")?.as_str()?.to_owned(),
            classes: classes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            count: detail.get("count")?.as_u64()? as usize,
            counts: serde_json::from_value(detail.get("counts")?.clone()).ok()?,
            sha256: detail.get("sha256")?.as_str()?.to_owned(),
            erased_at: detail.get("erased_at").and_then(Value::as_i64),
            heads: detail.get("heads").and_then(|heads| serde_json::from_value(heads.clone()).ok()),
        })
    }
}
