//! The native Anthropic wire: path, query, selected headers and the body's bytes as they came; only the credential is ours.

use super::{Incoming, Outgoing, ProviderConfigError, ProviderError, UpstreamBody};
use crate::protocol::Operation;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body as _;
use ipnet::IpNet;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use systemprompt_audit::Permit;
use systemprompt_config::profile::gateway::{ProviderAuth, ProviderConfig};
use systemprompt_config::secrets::Secrets;
use systemprompt_models::Secret;
use systemprompt_net::egress::client_under;
use systemprompt_net::{Class, Egress, EgressError, HostRules, Policy};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Names that a fixed header may not have: the credential, and what the HTTP client itself sets.
const RESERVED: [&str; 9] = [
    "authorization",
    "x-api-key",
    "cookie",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
    "proxy-authorization",
];

/// A provider that speaks the Messages API.
pub struct AnthropicProvider {
    egress: Egress,
    messages_url: String,
    count_tokens_url: String,
    headers: HeaderMap,
    auth: ProviderAuth,
    /// Name of the secret, and its value if there is one.
    credential: Option<(Box<str>, Option<Secret<String>>)>,
}

impl std::fmt::Debug for AnthropicProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnthropicProvider").field("messages_url", &self.messages_url).finish_non_exhaustive()
    }
}

impl AnthropicProvider {
    pub(super) fn build(
        config: &ProviderConfig,
        secrets: &Secrets,
        hosts: &HostRules,
    ) -> Result<Self, ProviderConfigError> {
        let base = config.base_url().ok_or(ProviderConfigError::NoBaseUrl)?;
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let url = |operation: Operation| format!("{base}{}", operation.path());
        let policy = Policy {
            allow_insecure: config.allow_insecure,
            allow_private: literal_address(base).into_iter().collect(),
        };
        let egress = client_under(Class::Operator, policy, hosts.clone())?;
        egress.check(&url(Operation::Messages))?;
        let credential = config.api_key_secret().map(|name| (Box::from(name), secrets.get(name).cloned()));
        Ok(Self {
            egress,
            messages_url: url(Operation::Messages),
            count_tokens_url: url(Operation::CountTokens),
            headers: fixed_headers(config)?,
            auth: config.auth(),
            credential,
        })
    }

    pub(super) fn missing_secret(&self) -> Option<&str> {
        match &self.credential {
            Some((name, None)) => Some(name),
            _ => None,
        }
    }

    pub(super) async fn send(&self, permit: Permit, outgoing: Outgoing) -> Result<Incoming, ProviderError> {
        let Outgoing { operation, query, mut headers, body, .. } = outgoing;
        let base = match operation {
            Operation::Messages => &self.messages_url,
            Operation::CountTokens => &self.count_tokens_url,
        };
        let url = query.map(|query| format!("{base}?{query}"));
        let request = self.egress.request(Method::POST, url.as_ref().unwrap_or(base));
        let request = request.map_err(ProviderError::Request)?;
        self.complete(&mut headers);
        // From here on the request is on its way: the permit is spent.
        drop(permit);
        let response = self.egress.send(request.headers(headers).body(body)).await.map_err(sent_error)?;
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) && self.credential.is_some() {
            return Err(ProviderError::CredentialRejected(status.as_u16()));
        }
        let headers = response.headers().clone();
        let body = UpstreamBody::Anthropic(AnthropicBody(reqwest::Body::from(response)));
        Ok(Incoming { status, headers, body })
    }

    /// Adds the fixed headers and the credential. An answer is wanted as it is, so that its bytes can be passed on and read.
    fn complete(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        let Some((_, Some(key))) = &self.credential else { return };
        let (name, value) = match self.auth {
            ProviderAuth::XApiKey => (X_API_KEY, HeaderValue::from_str(key.expose())),
            ProviderAuth::Bearer => {
                (AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", key.expose())))
            }
            ProviderAuth::None => return,
        };
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
}

/// A private address that the operator wrote into the base URL may be reached; a name that leads to one may not.
fn literal_address(base: &str) -> Option<IpNet> {
    let host = base.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    host.parse::<IpAddr>().ok().map(IpNet::from)
}

fn fixed_headers(config: &ProviderConfig) -> Result<HeaderMap, ProviderConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let bad = || ProviderConfigError::Header(name.as_str().into());
        if RESERVED.contains(&name.as_str()) {
            return Err(bad());
        }
        let parsed = name.parse::<HeaderName>().map_err(|_| bad())?;
        headers.insert(parsed, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(headers)
}

fn sent_error(error: EgressError) -> ProviderError {
    match error {
        EgressError::Redirect(status) => ProviderError::Redirect(status),
        EgressError::Timeout => ProviderError::Silent,
        error if error.is_before_send() => ProviderError::Connect(error),
        error => ProviderError::Broken(Some(error)),
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct AnthropicBody(reqwest::Body);

impl AnthropicBody {
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProviderError>>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(ProviderError::Broken(Some(error.into())))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) if chunk.is_empty() => {}
                    Ok(chunk) => return Poll::Ready(Some(Ok(chunk))),
                    // Trailers say nothing here.
                    Err(_) => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_the_base_url_may_be_reached() {
        let of = |url| literal_address(url).map(|net| net.to_string());
        assert_eq!(of("http://10.1.2.3:8080/x").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(of("https://[fd00::1]:1").as_deref(), Some("fd00::1/128"));
        assert_eq!(of("https://api.anthropic.com"), None);
    }
}
