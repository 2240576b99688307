//! Headers of a POST: media types, protocol version, and the era that a request belongs to (MCP-19, MCP-22).

use crate::PROTOCOL_VERSIONS;
use crate::wire::raw::RawObject;
use crate::wire::reply::{INVALID_REQUEST, METHOD_NOT_FOUND, RpcError};
use http::{HeaderMap, StatusCode, header};
use serde_json::value::RawValue;

/// The member of `_meta` by which a request of the stateless era names its version.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The first version of that era.
const MODERN: &str = "2026-07-28";

/// What a POST must bring before anything of it is read.
///
/// # Errors
/// 415 or 406.
pub fn check_headers(headers: &HeaderMap) -> Result<(), RpcError> {
    let media = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let content = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(media);
    if content.as_deref() != Some("application/json") {
        let error = "Content-Type must be application/json";
        return Err(RpcError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, error)
            .named("unsupported_media_type"));
    }
    let accepted: Vec<String> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(media).collect::<Vec<_>>())
        .collect();
    let covers = |kind: &str, family: &str| accepted.iter().any(|a| a == kind || a == family || a == "*/*");
    if covers("application/json", "application/*") && covers("text/event-stream", "text/*") {
        return Ok(());
    }
    let error = "Accept must cover application/json and text/event-stream";
    Err(RpcError::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, error).named("not_acceptable"))
}

/// Refuses requests of the stateless era in a form that its clients take as "speak the older protocol": 400 with none of the
/// codes that era defines. Of the older protocol the version header must name one that is spoken here.
pub(super) fn check_era(
    headers: &HeaderMap,
    method: &str,
    params: Option<&RawValue>,
) -> Result<(), RpcError> {
    let version = headers.get("mcp-protocol-version").map(|v| v.to_str().unwrap_or_default());
    let meta = params.and_then(RawObject::read).and_then(|p| p.get("_meta")).and_then(RawObject::read);
    let is_modern = version.is_some_and(|v| is_date(v) && v >= MODERN)
        || meta.is_some_and(|meta| meta.get(META_VERSION).is_some());
    let [latest, ..] = PROTOCOL_VERSIONS;
    if is_modern || method == "server/discover" {
        let (code, what) = match method {
            "server/discover" => (METHOD_NOT_FOUND, "Method not found: server/discover"),
            _ => (INVALID_REQUEST, "this protocol version is not spoken here"),
        };
        let error = format!("{what}; start with initialize, protocol version {latest}");
        return Err(RpcError::new(StatusCode::BAD_REQUEST, code, error).named("start_with_initialize"));
    }
    match version {
        Some(version) if method != "initialize" && !PROTOCOL_VERSIONS.contains(&version) => {
            let error = format!("MCP-Protocol-Version must be one of {}", PROTOCOL_VERSIONS.join(", "));
            Err(RpcError::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, error).named("unsupported_version"))
        }
        _ => Ok(()),
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::raw::raw;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn media_types_are_demanded() {
        let json = ("content-type", "application/json; charset=utf-8");
        for (pairs, status) in [
            (&[json, ("accept", "application/json, text/event-stream")][..], None),
            (&[json, ("accept", "*/*")], None),
            (&[json, ("accept", "text/event-stream;q=0.9,application/*")], None),
            (&[json, ("accept", "application/json")], Some(406)),
            (&[json], Some(406)),
            (&[("content-type", "text/plain"), ("accept", "*/*")], Some(415)),
            (&[("accept", "*/*")], Some(415)),
        ] {
            let found = check_headers(&headers(pairs)).err().map(|e| e.status.as_u16());
            assert_eq!(found, status, "{pairs:?}");
        }
    }

    #[test]
    fn requests_of_the_stateless_era_are_told_to_initialize_with_no_code_of_that_era() {
        let meta = raw("{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}".into());
        let modern = headers(&[("mcp-protocol-version", "2026-07-28")]);
        for (headers, method, params, code) in [
            (&modern, "server/discover", Some(&*meta), -32601),
            (&modern, "tools/list", None, -32600),
            (&HeaderMap::new(), "tools/list", Some(&*meta), -32600),
            (&HeaderMap::new(), "server/discover", None, -32601),
        ] {
            let error = check_era(headers, method, params).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, code), "{method}");
        }
    }

    #[test]
    fn the_version_header_names_a_version_that_is_spoken() {
        let check = |version: &str, method: &str| {
            check_era(&headers(&[("mcp-protocol-version", version)]), method, None).is_ok()
        };
        assert!(check("2025-11-25", "tools/list") && check("2025-03-26", "tools/list"));
        assert!(!check("2024-11-05", "tools/list") && !check("latest", "tools/list"));
        assert!(check("2024-11-05", "initialize"), "initialize negotiates");
        assert!(check_era(&HeaderMap::new(), "tools/list", None).is_ok());
    }
}
