//! Extractors: the context that the edge made, bodies within their limit, JSON with an error that says where, cursors.

use crate::error::Error;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::time::Duration;
use systemprompt_models::{Code, Refusal, RequestContext};

/// Longest silence of a client that sends a body.
const BODY_IDLE: Duration = Duration::from_secs(30);

/// Who calls, from where, under which trace id.
#[derive(Clone, Debug)]
pub struct Context(pub RequestContext);

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let context = parts.extensions.get::<RequestContext>().cloned();
        // Only the edge makes contexts; a route that it did not pass is refused.
        context.map(Self).ok_or_else(|| Error(Refusal::internal()))
    }
}

/// The address at the other end of the connection; absent in tests that call the router.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<SocketAddr>);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(parts.extensions.get::<SocketAddr>().copied()))
    }
}

/// The body, read once, as it came.
#[derive(Clone, Debug)]
pub struct RawBody(pub Bytes);

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        read(request.into_body()).await.map(Self).map_err(Error)
    }
}

/// The whole body, in one piece.
pub(crate) async fn read(mut body: Body) -> Result<Bytes, Refusal> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await;
        let frame = frame.map_err(|_| Refusal::new(Code::Timeout, "no body bytes for 30 seconds"))?;
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(unreadable(&error)),
        };
        match &first {
            // Most bodies come in one piece, which then needs no copy.
            None => first = Some(data),
            Some(start) => {
                if rest.is_empty() {
                    rest.extend_from_slice(start);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

fn unreadable(error: &axum::Error) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return too_large();
        }
        cause = inner.source();
    }
    Refusal::new(Code::BadRequest, "the body ended before it was complete")
}

/// A body over its limit.
pub(crate) fn too_large() -> Refusal {
    Refusal::new(Code::BodyTooLarge, "the body is larger than this route takes")
}

/// A JSON body. A fault names line, column and what was expected. Its texts hold no NUL, which PostgreSQL does not store.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let body = read(request.into_body()).await?;
        // Every body of these routes is an object; a list would be read by position.
        if body.trim_ascii_start().first() == Some(&b'[') {
            let refusal = Refusal::new(Code::Unprocessable, "the body does not fit");
            return Err(Error(refusal.with_validation("body", "a JSON object is wanted")));
        }
        parse_stored(&body).map(Self).map_err(Error)
    }
}

/// Parses a JSON body.
///
/// # Errors
/// 400 for what is no JSON, 422 for JSON of another shape.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() {
            Refusal::new(Code::Unprocessable, "the body does not fit")
                .with_validation(place, describe(&error))
        } else {
            Refusal::new(Code::BadRequest, format!("the body is no JSON ({place})"))
        }
    })
}

/// Parses a JSON body whose texts may be stored or compared with what is.
///
/// # Errors
/// As [`parse`], and 400 `invalid_request` for a text or a name with a NUL character, which PostgreSQL does not take.
pub fn parse_stored<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let parsed = parse(body)?;
    refuse_nul(body)?;
    Ok(parsed)
}

/// Refuses a text or a name with a NUL character in a JSON body.
fn refuse_nul(body: &[u8]) -> Result<(), Refusal> {
    // JSON has no other way to write it; without it there is nothing to read twice.
    const ESCAPED: &[u8] = b"\\u0000";
    if !body.windows(ESCAPED.len()).any(|part| part == ESCAPED) {
        return Ok(());
    }
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| Refusal::new(Code::BadRequest, "the body is no JSON"))?;
    match place_of_nul(&value) {
        Some(place) => {
            let field = if place.is_empty() { "body".to_owned() } else { place };
            Err(Refusal::new(Code::InvalidRequest, format!("`{field}` holds a NUL character"))
                .with_validation(field, "holds a NUL character"))
        }
        None => Ok(()),
    }
}

/// The members that lead to the first text or name with a NUL character, with dots between.
fn place_of_nul(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    let below = |name: String, value: &Value| {
        let place = place_of_nul(value)?;
        Some(if place.is_empty() || place.starts_with('[') {
            name + &place
        } else {
            format!("{name}.{place}")
        })
    };
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| below(format!("[{index}]"), item))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let shown = shown(name);
            if name.contains('\0') { Some(shown) } else { below(shown, member) }
        }),
        _ => None,
    }
}

/// The beginning of a name of the caller's making, without control characters.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

/// The sentence of a data error without its position; serde names fields and allowed values, never the value of a string.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let sentence = text.split(" at line ").next().unwrap_or_default();
    match sentence.strip_prefix("invalid type: string ") {
        Some(rest) => format!("invalid type: a string{}", rest.rsplit_once('"').map_or("", |(_, tail)| tail)),
        None => sentence.to_owned(),
    }
}

/// The parameter that may stand several times; its values are then read with commas between.
const REPEATABLE: &str = "kind";

/// Query parameters, each but `kind` at most once.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = Self::read(parts.uri.query().unwrap_or_default())?;
        match query.0.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            Some((name, _)) => {
                let reason = format!("the parameter `{}` holds a NUL character", shown(name));
                Err(Error(Refusal::new(Code::InvalidFilter, reason)))
            }
            None => Ok(query),
        }
    }
}

/// Query parameters of a hook. Its calls are refused on record, whatever they name; so its parameters may hold any character.
#[derive(Clone, Debug, Default)]
pub struct HookQuery(pub Query);

impl<S: Sync> FromRequestParts<S> for HookQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Query::read(parts.uri.query().unwrap_or_default()).map(Self).map_err(Error)
    }
}

impl Query {
    fn read(query: &str) -> Result<Self, Refusal> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned)
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
                return Err(Refusal::new(Code::BadRequest, "the query is no UTF-8"));
            };
            if let Some((_, known)) = pairs.iter_mut().find(|(known, _)| *known == name && name == REPEATABLE)
            {
                known.push(',');
                known.push_str(&value);
                continue;
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                let reason = format!("the query names `{name}` twice");
                return Err(Refusal::new(Code::InvalidFilter, reason));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Refuses a parameter that the route does not know.
    ///
    /// # Errors
    /// 400 `invalid_filter` naming it.
    pub fn only(&self, names: &[&str]) -> Result<(), Refusal> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => {
                let reason = format!("unknown parameter `{name}`; allowed: {}", names.join(", "));
                Err(Refusal::new(Code::InvalidFilter, reason))
            }
            None => Ok(()),
        }
    }

    /// `limit`, between 1 and `max`.
    ///
    /// # Errors
    /// 400 `invalid_filter`.
    pub fn limit(&self, default: i64, max: i64) -> Result<i64, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|n| (1..=max).contains(n));
        limit.ok_or_else(|| Refusal::new(Code::InvalidFilter, format!("limit: a number from 1 to {max}")))
    }

    /// What `cursor` names, or an empty text.
    ///
    /// # Errors
    /// 400 `invalid_cursor`.
    pub fn cursor(&self) -> Result<String, Refusal> {
        let Some(cursor) = self.get("cursor") else { return Ok(String::new()) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| Refusal::new(Code::InvalidCursor, "the cursor is none of ours"))
    }
}

/// The opaque form of where a list goes on.
pub fn cursor_of(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// The version that an `If-Match` header names.
///
/// # Errors
/// 428 when the header is missing, 412 when it is none of ours.
pub fn if_match(headers: &http::HeaderMap) -> Result<i64, Refusal> {
    let missing =
        || Refusal::new(Code::PreconditionRequired, "send If-Match with the ETag that you have read");
    let value = headers.get(http::header::IF_MATCH).ok_or_else(missing)?;
    let version = value.to_str().ok().and_then(|tag| tag.trim_matches('"').strip_prefix('v')?.parse().ok());
    version.ok_or_else(|| Refusal::new(Code::PreconditionFailed, "If-Match is no ETag of this resource"))
}

/// The version that an `If-Match` header names, if there is one: without, the caller means to make something new.
///
/// # Errors
/// 412 when it is none of ours.
pub fn seen_version(headers: &http::HeaderMap) -> Result<Option<i64>, Refusal> {
    if headers.contains_key(http::header::IF_MATCH) { if_match(headers).map(Some) } else { Ok(None) }
}

/// The `Idempotency-Key` of a request that may come twice.
///
/// # Errors
/// 400 when it is not 1 to 128 visible ASCII characters.
pub fn idempotency_key(headers: &http::HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    let wrong = || Refusal::new(Code::BadRequest, "Idempotency-Key: 1 to 128 visible ASCII characters");
    key.map(Some).ok_or_else(wrong)
}

/// The strong ETag of a version.
pub fn etag(version: i64) -> String {
    format!("\"v{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn query(uri: &str) -> Result<Query, Error> {
        let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
        Query::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_parameter_with_a_nul_is_refused_by_name_except_of_hooks() {
        for uri in ["/x?actor=%00", "/x?limit=1&actor=a%00b"] {
            let refusal = query(uri).await.unwrap_err().0;
            assert_eq!(refusal.code, Code::InvalidFilter, "{uri}");
            assert!(refusal.reason.contains("`actor`"), "{}", refusal.reason);
        }
        assert_eq!(query("/x?a%00b=1").await.unwrap_err().0.code, Code::InvalidFilter);
        assert_eq!(query("/x?actor=%2500").await.unwrap().get("actor"), Some("%00"));
        let (mut parts, ()) = Request::builder().uri("/x?plugin_id=a%00").body(()).unwrap().into_parts();
        let HookQuery(query) = HookQuery::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(query.get("plugin_id"), Some("a\0"));
    }

    #[tokio::test]
    async fn a_body_with_a_nul_is_refused_and_says_where() {
        for (body, place) in [
            (r#"{"reason":"a\u0000b"}"#, "`reason`"),
            (r#"{"cases":[{"x":1},{"principal":{"user":"\u0000"}}]}"#, "`cases[1].principal.user`"),
            (r#"{"a\u0000":1}"#, "`a\\0`"),
            (r#""\u0000""#, "`body`"),
        ] {
            let request = Request::new(Body::from(body));
            let refused = Json::<serde_json::Value>::from_request(request, &()).await.unwrap_err().0;
            assert_eq!(refused.code, Code::InvalidRequest, "{body}");
            assert!(refused.reason.contains(place), "{}", refused.reason);
        }
        let written = Request::new(Body::from(r#"{"reason":"\\u0000"}"#));
        assert!(
            Json::<serde_json::Value>::from_request(written, &()).await.is_ok(),
            "six characters, no NUL"
        );
        assert!(parse::<serde_json::Value>(br#"{"prompt":"\u0000"}"#).is_ok(), "hooks take any content");
    }
}
