//! The trace id of a request (SEC-11). It correlates and nothing else: no look-up hangs on it.

use http::HeaderMap;
use systemprompt_models::ids::TraceId;

/// Header in which a trace id comes and goes.
pub const TRACE_HEADER: &str = "x-trace-id";

/// The client's id if it is well-formed, else that of a W3C `traceparent`, else a new one. Never an error.
pub fn assign(headers: &HeaderMap) -> TraceId {
    let given = headers.get(TRACE_HEADER).and_then(|v| v.to_str().ok()).filter(|id| is_trace_id(id));
    given.or_else(|| traceparent(headers)).map_or_else(TraceId::generate, TraceId::from)
}

fn is_trace_id(id: &str) -> bool {
    (16..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The trace id of `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context), unless it is all zeros.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hex = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (version.len() == 2 && version != "ff" && hex && id.bytes().any(|b| b != b'0')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_id_is_replaced_and_a_traceparent_used() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (given, traceparent, want) in [
            (Some("abcdefgh-ABCD_1234"), None, Some("abcdefgh-ABCD_1234")),
            (Some("short"), Some(parent), Some("4bf92f3577b34da6a3ce929d0e0e4736")),
            (Some("has spaces in the middle"), None, None),
            (None, Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None),
            (None, Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(TRACE_HEADER, given.parse().unwrap());
            }
            if let Some(parent) = traceparent {
                headers.insert("traceparent", parent.parse().unwrap());
            }
            let id = assign(&headers);
            match want {
                Some(want) => assert_eq!(id.as_str(), want),
                None => assert!(id.as_str().starts_with(TraceId::PREFIX), "{id}"),
            }
        }
    }
}
