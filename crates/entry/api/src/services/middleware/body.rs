//! The bodies of requests at the edge (SEC-16): their limit, what is left of a refused one, and the name of a hook event that
//! passes by.

use crate::extract;
use axum::body::Body;
use axum::extract::Request;
use http::header;
use http_body_util::{BodyExt, Limited};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use systemprompt_models::hook::EventName;
use systemprompt_models::{Code, Refusal};

/// Most bytes of a refused body that are read, and for how long, before the answer is given.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// Reads a body to its end, or to a bound, and keeps nothing of it.
pub async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARD_BYTES);
    let to_end = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD_FOR, to_end).await;
}

/// Checks what the head says of the body, and counts it while it is read.
pub fn limit(request: &mut Request, most: usize) -> Result<(), Refusal> {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) {
        return Err(extract::too_large());
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(Code::UnsupportedMediaType, "bodies are taken without Content-Encoding"));
    }
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = Body::new(Limited::new(body, most));
    Ok(())
}

/// Where the name of a body's hook event stands once the body has come by: a refusal has the form of its event, whoever refuses
/// and whether the body is taken or discarded.
pub fn overhear(request: &mut Request) -> Arc<OnceLock<String>> {
    let event = Arc::new(OnceLock::new());
    let (heard, mut name) = (Arc::clone(&event), EventName::default());
    let body = std::mem::take(request.body_mut()).map_frame(move |frame| {
        if let (None, Some(data)) = (heard.get(), frame.data_ref()) {
            name.read(data);
            if let Some(found) = name.found() {
                let _ = heard.set(found.to_owned());
            }
        }
        frame
    });
    *request.body_mut() = Body::new(body);
    event
}
