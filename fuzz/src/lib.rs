//! What the targets share.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers from lines of `name: value`, as the HTTP parser would hand them on: what is no header is left out. Values keep every
/// byte that a header may have, so that text outside ASCII is tried too.
pub fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(128) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}
