//! Where requests go: one file a wire. A provider takes the permit of the ledger by value, so nothing is sent that is not
//! recorded.

pub mod anthropic;
pub mod demo;

use crate::protocol::Operation;
use anthropic::{AnthropicBody, AnthropicProvider};
use bytes::Bytes;
use demo::{DemoBody, DemoProvider};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use systemprompt_audit::Permit;
use systemprompt_config::profile::gateway::{ProviderConfig, ProviderKind};
use systemprompt_config::secrets::Secrets;
use systemprompt_net::{EgressError, HostRules};

/// A configured provider.
#[derive(Debug)]
pub struct Provider {
    pub name: Arc<str>,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    Anthropic(AnthropicProvider),
    Demo(DemoProvider),
}

/// A request to send.
#[derive(Debug)]
pub struct Outgoing {
    pub operation: Operation,
    /// Raw query, without the question mark.
    pub query: Option<String>,
    /// Already filtered: [`crate::protocol::forwarded_request_headers`].
    pub headers: HeaderMap,
    pub body: Bytes,
    pub body_sha256: [u8; 32],
    /// Time until the status line must have come.
    pub first_byte: Duration,
}

/// The beginning of an answer.
#[derive(Debug)]
pub struct Incoming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: UpstreamBody,
}

/// The rest of an answer, chunk by chunk.
#[derive(Debug)]
pub enum UpstreamBody {
    Anthropic(AnthropicBody),
    Demo(DemoBody),
}

impl UpstreamBody {
    /// The next chunk; `None` is the proper end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProviderError>>> {
        match self {
            Self::Anthropic(body) => body.poll_chunk(cx),
            Self::Demo(body) => body.poll_chunk(cx),
        }
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("the provider could not be reached")]
    Connect(#[source] EgressError),
    #[error("the provider did not answer in time")]
    Silent,
    #[error("the connection to the provider was lost")]
    Broken(#[source] Option<EgressError>),
    #[error("the provider answered with a redirect ({0}); redirects are not followed")]
    Redirect(u16),
    #[error("the provider rejected the configured credential ({0})")]
    CredentialRejected(u16),
    #[error("the answer of the provider is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request could not be built")]
    Request(#[source] EgressError),
}

impl ProviderError {
    /// Whether the provider may have charged for the request.
    pub fn may_be_charged(&self) -> bool {
        matches!(self, Self::Silent | Self::Broken(_) | Self::TooLarge(_))
    }

    /// What is recorded, and counted, as the type of the error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Silent => "timeout",
            Self::Broken(_) => "connection_lost",
            Self::Redirect(_) => "redirect",
            Self::CredentialRejected(_) => "credential_rejected",
            Self::TooLarge(_) => "too_large",
            Self::Request(_) => "request",
        }
    }
}

/// A provider that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ProviderConfigError {
    #[error("it needs a base_url")]
    NoBaseUrl,
    #[error("its base_url or its client is not acceptable: {0}")]
    Egress(#[from] EgressError),
    #[error("`{0}` cannot be a fixed header: it is reserved, or its name or value is malformed")]
    Header(Box<str>),
}

impl Provider {
    /// Builds the provider of `config`.
    ///
    /// # Errors
    /// A base URL or a header that is not acceptable. A missing secret is no error here: calls to it are refused.
    pub fn build(
        config: &ProviderConfig,
        secrets: &Secrets,
        hosts: &HostRules,
    ) -> Result<Self, ProviderConfigError> {
        let wire = match config.kind {
            ProviderKind::Anthropic => Wire::Anthropic(AnthropicProvider::build(config, secrets, hosts)?),
            ProviderKind::Demo => Wire::Demo(DemoProvider),
        };
        Ok(Self { name: config.name.as_str().into(), wire })
    }

    /// The type of this provider, as the catalog names it.
    pub fn kind(&self) -> &'static str {
        match self.wire {
            Wire::Anthropic(_) => "anthropic",
            Wire::Demo(_) => "demo",
        }
    }

    /// Name of the secret that this provider needs and does not have.
    pub fn missing_secret(&self) -> Option<&str> {
        match &self.wire {
            Wire::Anthropic(provider) => provider.missing_secret(),
            Wire::Demo(_) => None,
        }
    }

    /// Sends a recorded request and waits for the status line.
    ///
    /// # Errors
    /// When there is no answer that may be passed on.
    pub async fn send(&self, permit: Permit, outgoing: Outgoing) -> Result<Incoming, ProviderError> {
        let limit = outgoing.first_byte;
        let answer = async {
            match &self.wire {
                Wire::Anthropic(provider) => provider.send(permit, outgoing).await,
                Wire::Demo(provider) => Ok(provider.send(permit, outgoing).await),
            }
        };
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(ProviderError::Silent))
    }
}
