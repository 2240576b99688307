//! The demo provider: the engine of [`crate::demo`] in process, with the pauses that its answers ask for.

use super::{Incoming, Outgoing, ProviderError, UpstreamBody};
use crate::demo::{Answer, Step, answer};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use systemprompt_audit::Permit;
use tokio::time::Sleep;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Needs no network and no key.
#[derive(Clone, Copy, Debug)]
pub struct DemoProvider;

impl DemoProvider {
    pub(super) async fn send(&self, permit: Permit, outgoing: Outgoing) -> Incoming {
        drop(permit);
        let answer = answer(outgoing.operation, &outgoing.body, outgoing.body_sha256);
        if !answer.latency.is_zero() {
            tokio::time::sleep(answer.latency).await;
        }
        Incoming {
            status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: headers(&answer),
            body: UpstreamBody::Demo(DemoBody::new(answer.steps, answer.broken)),
        }
    }
}

fn headers(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Ok(id) = HeaderValue::from_str(&answer.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if answer.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

/// The steps that are still to come.
#[derive(Debug)]
pub struct DemoBody {
    steps: std::vec::IntoIter<Step>,
    waiting: Option<(Pin<Box<Sleep>>, Bytes)>,
    broken: bool,
}

impl DemoBody {
    pub(crate) fn new(steps: Vec<Step>, broken: bool) -> Self {
        Self { steps: steps.into_iter(), waiting: None, broken }
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProviderError>>> {
        if self.waiting.is_none() {
            match self.steps.next() {
                None if std::mem::take(&mut self.broken) => {
                    return Poll::Ready(Some(Err(ProviderError::Broken(None))));
                }
                None => return Poll::Ready(None),
                Some(step) if step.pause.is_zero() => return Poll::Ready(Some(Ok(step.bytes))),
                Some(step) => self.waiting = Some((Box::pin(tokio::time::sleep(step.pause)), step.bytes)),
            }
        }
        if let Some((sleep, _)) = &mut self.waiting {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(self.waiting.take().map(|(_, bytes)| Ok(bytes)))
    }
}
