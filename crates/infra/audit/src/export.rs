//! Exports of the ledger (AUD-62), made page by page: `jsonl` with everything that a verification elsewhere needs, `ocsf` for a
//! SIEM, `csv` for a table.

pub mod csv;
pub mod jsonl;
pub mod ocsf;

use crate::lookup::{Lookup, LookupError};
use crate::proof::ProofError;
use crate::query::{self, MAX_PAGE};
use crate::repository::checkpoints;
use crate::repository::entries::{After, Filter, LedgerReader};
use crate::repository::streams::Stream;
use jsonl::Part;
use std::collections::VecDeque;
use std::str::FromStr;
use systemprompt_models::Millis;

/// Form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Records byte for byte, with proofs and signed checkpoints.
    Jsonl,
    /// Open Cybersecurity Schema Framework 1.6.0, an event a line.
    Ocsf,
    /// The columns of the view `v_ledger`.
    Csv,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Jsonl, Self::Ocsf, Self::Csv];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Ocsf => "ocsf",
            Self::Csv => "csv",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.as_str() == word).ok_or("allowed: jsonl, ocsf, csv")
    }
}

/// What is exported.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    pub format: Format,
    /// First and last `seq`, inclusive; only with a stream.
    pub from: Option<i64>,
    pub to: Option<i64>,
    /// Its `stream`, `since` and `until` choose a range, anything else picks single records.
    pub filter: Filter,
}

impl ExportRequest {
    /// All of every stream.
    pub fn all(format: Format) -> Self {
        Self { format, from: None, to: None, filter: Filter { ascending: true, ..Filter::default() } }
    }

    /// Whether single records are picked, so that what was left out cannot be seen.
    pub(crate) fn is_filtered(&self) -> bool {
        let range = Filter {
            stream: self.filter.stream.clone(),
            since: self.filter.since,
            until: self.filter.until,
            ascending: self.filter.ascending,
            ..Filter::default()
        };
        self.filter != range
    }
}

/// Why there is no export, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportFault {
    #[error("there is no stream `{0}`")]
    NoSuchStream(String),
    #[error("from and to are places in one stream: name it")]
    StreamNeeded,
    #[error("the range ends before it begins")]
    EmptyRange,
    #[error("the range begins with record {from}; the last that can be exported is {end}")]
    BehindEnd { from: i64, end: i64 },
    #[error(
        "the stream has no checkpoint yet, so single records cannot be proven; one is made every few seconds"
    )]
    NoCheckpoint,
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the ledger cannot be read")]
    Read(#[from] sqlx::Error),
}

/// An export under way.
#[derive(Debug)]
pub struct Exporter {
    source: Source,
    state: State,
}

/// Where entries are read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) reader: LedgerReader,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) request: ExportRequest,
}

#[derive(Debug)]
enum State {
    /// Streams to come, and the one that is being written.
    Proven { ahead: VecDeque<Stream>, part: Option<Box<Part>> },
    /// Rows in order of time.
    Rows { after: Option<After>, begun: bool, done: bool },
}

impl Exporter {
    /// Begins an export.
    ///
    /// # Errors
    /// A range or stream that does not exist, or a ledger that cannot be read.
    pub async fn open(
        reader: LedgerReader,
        lookup: Option<Lookup>,
        mut request: ExportRequest,
    ) -> Result<Self, ExportFault> {
        request.filter.ascending = true;
        if (request.from.is_some() || request.to.is_some()) && request.filter.stream.is_none() {
            return Err(ExportFault::StreamNeeded);
        }
        if request.to.is_some_and(|to| request.from.unwrap_or(1).max(1) > to) {
            return Err(ExportFault::EmptyRange);
        }
        let wanted = request.filter.stream.clone();
        let mut streams: VecDeque<Stream> = reader.streams().await?.into();
        streams.retain(|stream| wanted.as_ref().is_none_or(|name| *name == stream.stream));
        if let (Some(name), true) = (wanted, streams.is_empty()) {
            return Err(ExportFault::NoSuchStream(name));
        }
        if let (Some(from), Some(stream)) = (request.from, streams.front()) {
            let mut end = stream.head_seq;
            // Without an end of its own, what is to be verified ends where the signatures do.
            if request.format == Format::Jsonl
                && request.to.is_none()
                && let Some(newest) = checkpoints::newest(reader.db(), &stream.stream).await?
            {
                end = end.min(newest.size);
            }
            if from > end {
                return Err(ExportFault::BehindEnd { from, end });
            }
        }
        let state = match request.format {
            Format::Jsonl => State::Proven { ahead: streams, part: None },
            Format::Ocsf | Format::Csv => State::Rows { after: None, begun: false, done: false },
        };
        Ok(Self { source: Source { reader, lookup, request }, state })
    }

    /// The next piece, some hundred lines at most; `None` at the end.
    ///
    /// # Errors
    /// When the ledger cannot be read. What was written so far is then no whole export.
    pub async fn next(&mut self) -> Result<Option<String>, ExportFault> {
        match &mut self.state {
            State::Proven { ahead, part } => loop {
                if let Some(writing) = part {
                    if let Some(text) = writing.next(&self.source).await? {
                        return Ok(Some(text));
                    }
                    *part = None;
                }
                let Some(stream) = ahead.pop_front() else { return Ok(None) };
                *part = Part::begin(&self.source, stream).await?.map(Box::new);
            },
            State::Rows { after, begun, done } => {
                if *done {
                    return Ok(None);
                }
                let is_first = !std::mem::replace(begun, true);
                let (text, next) = self.source.rows(after.as_ref(), is_first).await?;
                *done = next.is_none();
                *after = next;
                Ok(Some(text))
            }
        }
    }
}

impl Source {
    async fn rows(
        &self,
        after: Option<&After>,
        is_first: bool,
    ) -> Result<(String, Option<After>), ExportFault> {
        let ExportRequest { format, from, to, filter } = &self.request;
        let page = query::page(&self.reader, self.lookup.as_ref(), filter, after, MAX_PAGE).await?;
        let mut text = String::new();
        if is_first && *format == Format::Csv {
            csv::header(&mut text);
        }
        let in_range = |seq: i64| from.is_none_or(|from| seq >= from) && to.is_none_or(|to| seq <= to);
        for row in page.rows.iter().filter(|row| in_range(row.seq)) {
            match format {
                Format::Csv => csv::line(&mut text, row),
                Format::Ocsf | Format::Jsonl => {
                    if let Some(event) = ocsf::event(row) {
                        text.push_str(&event.to_string());
                        text.push('\n');
                    }
                }
            }
        }
        Ok((text, page.next))
    }

    /// First `seq` of a stream that is not older than `since`.
    pub(crate) async fn first_since(&self, stream: &str, since: Millis) -> sqlx::Result<Option<i64>> {
        let filter = Filter {
            stream: Some(stream.to_owned()),
            since: Some(since),
            ascending: true,
            ..Filter::default()
        };
        Ok(self.reader.filtered(&filter, None, 1).await?.first().map(|row| row.seq))
    }
}

#[cfg(test)]
mod tests;
