//! The ledger as an event stream: every stream's entries in `seq` order. An event's id is `<stream>:<seq>`; who comes back with one
//! goes on behind it, and in the streams of other nodes behind its time.

use systemprompt_audit::{Filter, LedgerReader, LedgerRow, ReadError};
use systemprompt_events::sse::{Event, Source};
use systemprompt_models::{Code, Refusal};

/// Entries of a stream that one read looks at.
const PAGE: i64 = 500;
/// Streams that are followed; the newest if there are more.
const MAX_STREAMS: usize = 256;

/// Makes the data of an event, or leaves the entry out.
type Show = Box<dyn Fn(&LedgerRow) -> Option<String> + Send + Sync>;

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    After { stream: String, seq: i64 },
}

impl Begin {
    /// From `Last-Event-ID`; without one a stream begins now.
    pub(crate) fn read(id: Option<&str>) -> Result<Self, Refusal> {
        let Some(id) = id else { return Ok(Self::Now) };
        let parsed = id.rsplit_once(':').and_then(|(stream, seq)| {
            let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
            (!stream.is_empty()).then(|| Self::After { stream: stream.to_owned(), seq })
        });
        parsed.ok_or_else(|| Refusal::new(Code::InvalidCursor, "Last-Event-ID is `<stream>:<seq>`"))
    }
}

/// Follows all streams.
pub(crate) struct LedgerSource {
    reader: LedgerReader,
    event: &'static str,
    show: Show,
    /// Name and last `seq` that was looked at.
    cursors: Vec<(String, i64)>,
}

impl LedgerSource {
    pub(crate) async fn open(
        reader: LedgerReader,
        begin: &Begin,
        event: &'static str,
        show: impl Fn(&LedgerRow) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self, ReadError> {
        let streams = reader.streams().await?;
        let since = match begin {
            Begin::Now => None,
            // What was pruned has no entry any more; then the other streams begin at their oldest.
            Begin::After { stream, seq } => {
                let at = reader.page(stream, seq - 1, 1).await?.first().map_or(0, |row| row.at);
                Some((stream, *seq, at))
            }
        };
        let mut cursors = Vec::with_capacity(streams.len());
        for stream in streams.iter().rev().take(MAX_STREAMS) {
            let seq = match since {
                None => stream.head_seq,
                Some((name, seq, _)) if *name == stream.stream => seq,
                Some((_, _, at)) => last_until(&reader, &stream.stream, at, stream.head_seq).await?,
            };
            cursors.push((stream.stream.clone(), seq));
        }
        Ok(Self { reader, event, show: Box::new(show), cursors })
    }

    /// Streams that began since the last look are read from their first entry.
    async fn notice_new(&mut self) -> Result<(), ReadError> {
        for stream in self.reader.streams().await? {
            let is_known = self.cursors.iter().any(|(name, _)| *name == stream.stream);
            if !is_known && self.cursors.len() < MAX_STREAMS {
                self.cursors.push((stream.stream, 0));
            }
        }
        Ok(())
    }
}

/// The last `seq` of a stream that is not younger than `at`.
async fn last_until(reader: &LedgerReader, stream: &str, at: i64, head: i64) -> Result<i64, ReadError> {
    let filter = Filter {
        stream: Some(stream.to_owned()),
        since: Some(at.saturating_add(1)),
        ascending: true,
        ..Filter::default()
    };
    Ok(reader.filtered(&filter, None, 1).await?.first().map_or(head, |row| row.seq - 1))
}

impl Source for LedgerSource {
    type Error = ReadError;

    async fn next(&mut self, _: &str) -> Result<(Vec<Event>, String), Self::Error> {
        let mut events = Vec::new();
        for (stream, seq) in &mut self.cursors {
            let rows = self.reader.page(stream, *seq, PAGE).await?;
            *seq = rows.last().map_or(*seq, |row| row.seq);
            events.extend(rows.iter().filter_map(|row| {
                let id = format!("{}:{}", row.stream, row.seq);
                Some(Event { id, event: self.event, data: (self.show)(row)? })
            }));
        }
        if events.is_empty() {
            self.notice_new().await?;
        }
        // Where all of them stand: it changes as long as something was read.
        let place = self.cursors.iter().map(|(stream, seq)| format!("{stream}:{seq}")).collect::<Vec<_>>();
        Ok((events, place.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_a_place_in_a_stream_or_is_refused() {
        let place = Begin::read(Some("node-1a:b:7")).unwrap();
        assert_eq!(place, Begin::After { stream: "node-1a:b".into(), seq: 7 });
        assert_eq!(Begin::read(None).unwrap(), Begin::Now);
        for bad in ["", "7", ":7", "node:", "node:-1", "node:x"] {
            assert!(Begin::read(Some(bad)).is_err(), "{bad}");
        }
    }
}
