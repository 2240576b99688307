//! Server-sent events (WHATWG HTML, section 9.2) that replay from a table by `Last-Event-ID`.

use crate::hub::Listener;
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

/// Silence after which a comment keeps the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the table is read even without a wake-up: another node may have written.
const POLL: Duration = Duration::from_secs(1);

/// One event. `data` holds no line break (JSON on one line).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub event: &'static str,
    pub data: String,
}

impl Event {
    /// The event on the wire.
    pub fn frame(&self) -> Bytes {
        let Self { id, event, data } = self;
        Bytes::from(format!("id: {id}\nevent: {event}\ndata: {data}\n\n"))
    }
}

/// A table of events in a fixed order.
pub trait Source: Send + 'static {
    type Error: std::fmt::Display + Send;

    /// The next events behind the one named `after`, oldest first and bounded in number; and the name of the last one that was
    /// looked at, wanted or not, so that the next read goes on behind it.
    fn next(&mut self, after: &str)
    -> impl Future<Output = Result<(Vec<Event>, String), Self::Error>> + Send;
}

struct State<S> {
    source: S,
    listener: Listener,
    cursor: String,
    ready: VecDeque<Bytes>,
    silent: Duration,
    woken: bool,
}

/// The frames behind `after`, endless: what the table holds, then what is added. A source that fails ends the stream with an
/// `error` event; the client resumes by its last id.
pub fn subscribe<S: Source>(
    source: S,
    listener: Listener,
    after: String,
) -> impl Stream<Item = Bytes> + Send {
    let state = State {
        source,
        listener,
        cursor: after,
        ready: VecDeque::new(),
        silent: Duration::ZERO,
        woken: true,
    };
    stream::unfold(Some(state), |state| async {
        let mut state = state?;
        loop {
            if let Some(frame) = state.ready.pop_front() {
                state.silent = Duration::ZERO;
                return Some((frame, Some(state)));
            }
            if state.silent >= KEEP_ALIVE {
                state.silent = Duration::ZERO;
                return Some((Bytes::from_static(b": keep-alive\n\n"), Some(state)));
            }
            if !state.woken {
                tokio::select! {
                    alive = state.listener.changed() => if !alive { return None },
                    () = tokio::time::sleep(POLL) => state.silent += POLL,
                }
            }
            match state.source.next(&state.cursor).await {
                Ok((events, cursor)) => {
                    // A page that moved the cursor may not be the last.
                    state.woken = cursor != state.cursor;
                    state.cursor = cursor;
                    state.ready.extend(events.iter().map(Event::frame));
                }
                Err(error) => {
                    tracing::warn!(%error, "an event stream ended");
                    let frame = Bytes::from_static(b"event: error\ndata: {\"code\":\"internal\"}\n\n");
                    return Some((frame, None));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hub, Topic};
    use futures_util::StreamExt;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Table(Arc<Mutex<Vec<u32>>>);

    impl Source for Table {
        type Error = std::convert::Infallible;

        async fn next(&mut self, after: &str) -> Result<(Vec<Event>, String), Self::Error> {
            let after: u32 = after.parse().unwrap();
            let rows = self.0.lock().unwrap().clone();
            let rows: Vec<u32> = rows.into_iter().filter(|n| *n > after).take(3).collect();
            let cursor = rows.last().copied().unwrap_or(after).to_string();
            let even = rows.iter().filter(|n| **n % 2 == 0);
            let events =
                even.map(|n| Event { id: n.to_string(), event: "entry", data: format!("{n}") }).collect();
            Ok((events, cursor))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replays_from_the_last_id_then_follows_without_gap_or_repeat() {
        let (table, hub) = (Table::default(), Hub::default());
        table.0.lock().unwrap().extend(1..=20);
        let mut frames = Box::pin(subscribe(table.clone(), hub.listen(Topic::Ledger), "4".into()));
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(frames.next().await.unwrap());
        }
        table.0.lock().unwrap().extend(21..=26);
        hub.notify(Topic::Ledger);
        for _ in 0..3 {
            seen.push(frames.next().await.unwrap());
        }
        let want: Vec<Bytes> = (6..=26)
            .step_by(2)
            .map(|n| Bytes::from(format!("id: {n}\nevent: entry\ndata: {n}\n\n")))
            .collect();
        assert_eq!(seen, want);
        assert_eq!(frames.next().await.unwrap(), Bytes::from_static(b": keep-alive\n\n"));
    }
}
