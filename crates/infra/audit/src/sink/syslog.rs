//! Syslog (RFC 5424) over TLS, each message with its length before it (RFC 5425 section 4.3). The protocol has no
//! acknowledgement; a batch counts as taken when it was written and the other side has not closed the connection.

use super::SinkError;
use crate::repository::entries::LedgerRow;
use std::time::Duration;
use systemprompt_models::clock::iso8601;
use systemprompt_net::stream::{TlsConnection, TlsTarget};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Facility 13, "log audit".
const FACILITY: u32 = 13;
/// Longest HOSTNAME and MSGID.
const MAX_HOST: usize = 255;
const MAX_MSGID: usize = 32;
/// How long the other side is listened to after a batch: one that refuses closes the connection.
const LISTEN: Duration = Duration::from_millis(100);

/// An open connection.
pub(super) struct Connection(TlsConnection);

impl Connection {
    pub(super) async fn open(target: &TlsTarget) -> Result<Self, SinkError> {
        Ok(Self(target.connect().await?))
    }

    pub(super) async fn send(
        &mut self,
        rows: &[&LedgerRow],
        host: &str,
        line: impl Fn(&LedgerRow) -> String,
    ) -> Result<(), SinkError> {
        let mut text = String::new();
        for row in rows {
            text.push_str(&framed(&message(row, host, &line(row))));
        }
        self.0.write_all(text.as_bytes()).await?;
        self.0.flush().await?;
        let mut answer = [0_u8; 256];
        match tokio::time::timeout(LISTEN, self.0.read(&mut answer)).await {
            // Silence is consent; what a server says is not looked at.
            Err(_) | Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) => Err(SinkError::Closed),
            Ok(Err(error)) => Err(error.into()),
        }
    }
}

/// A message with its length in bytes before it.
fn framed(message: &str) -> String {
    format!("{} {message}", message.len())
}

fn message(row: &LedgerRow, host: &str, line: &str) -> String {
    let severity = match row.outcome.as_deref() {
        Some("deny" | "denied" | "error" | "failed" | "refused" | "blocked") => 4,
        _ => 6,
    };
    let (priority, time) = (FACILITY * 8 + severity, iso8601(row.at));
    let (host, kind) = (printable(host, MAX_HOST), printable(&row.kind, MAX_MSGID));
    // The byte order mark says that the message is UTF-8 (section 6.4).
    format!("<{priority}>1 {time} {host} systemprompt - {kind} - \u{feff}{line}")
}

/// Printable ASCII without blanks, or the nil value.
fn printable(text: &str, max: usize) -> String {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(max).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_form_of_rfc_5424_and_its_length_in_bytes() {
        let row = LedgerRow {
            stream: "n-1".into(),
            seq: 7,
            id: "led_1".into(),
            at: 1_795_315_038_000,
            kind: "governance.decision".into(),
            actor_kind: None,
            actor_id: None,
            act_chain: None,
            session_id: None,
            context_id: None,
            task_id: None,
            trace_id: None,
            client_id: None,
            subject_kind: None,
            subject_id: None,
            outcome: Some("deny".into()),
            reason: None,
            policy: None,
            record: None,
            pruned_by: None,
            prev_hash: String::new(),
            hash: String::new(),
        };
        let text = message(&row, "node one", "{\"é\":1}");
        assert_eq!(
            text,
            "<108>1 2026-11-22T02:37:18.000Z nodeone systemprompt - governance.decision - \u{feff}{\"é\":1}"
        );
        assert_eq!(framed("é"), "2 é");
        assert_eq!(printable("", 9), "-");
    }
}
