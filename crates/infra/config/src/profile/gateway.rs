//! `gateway`: model providers and the routes to them.

use super::values::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// When false, inference answers 404.
    pub enabled: bool,
    pub providers: Vec<ProviderConfig>,
    /// The first route whose pattern fits the model is taken.
    pub routes: Vec<RouteConfig>,
    /// Route of a model that no pattern fits.
    #[schemars(length(min = 1, max = 128))]
    pub default_route: Option<String>,
    /// Whether a model that no route lists may pass to the default route.
    pub allow_unlisted_models: bool,
    pub timeouts: GatewayTimeouts,
    /// Largest model request.
    pub body_limit: ByteSize,
    /// Model streams that the node carries at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_streams: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ProviderKind,
    /// Origin and optional prefix; the wire path is appended. `anthropic` has a default.
    #[serde(default)]
    #[schemars(extend("format" = "http-url"))]
    pub base_url: Option<String>,
    /// Name of the secret that pays for the calls.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64))]
    pub api_key_secret: Option<String>,
    /// How the key is sent; by type if absent (`x-api-key` for anthropic, `none` for demo).
    #[serde(default)]
    pub auth: Option<ProviderAuth>,
    /// Fixed headers of every upstream call. A credential belongs into `api_key_secret`.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z][a-z0-9-]*$" }))]
    pub headers: BTreeMap<String, String>,
    /// Overrides `gateway.timeouts` for this provider.
    #[serde(default)]
    pub timeouts: TimeoutOverrides,
    /// Allows `http` to other hosts than loopback.
    #[serde(default)]
    pub allow_insecure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// The Anthropic Messages API.
    Anthropic,
    /// The offline demo model, in process.
    Demo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderAuth {
    XApiKey,
    Bearer,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Id of the `gateway_route` entity that rules name.
    #[schemars(length(min = 1, max = 128), pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub name: String,
    /// `name`, `foo*`, `*foo` or `*`.
    #[schemars(length(min = 1, max = 256), pattern(r"^(\*|\*?[^*\s]+|[^*\s]+\*)$"))]
    pub model: String,
    /// Where requests go. One: there is no falling back to another one yet.
    #[schemars(length(min = 1, max = 1))]
    pub targets: Vec<RouteTarget>,
    /// Overrides the provider's timeouts for this route.
    #[serde(default)]
    pub timeouts: TimeoutOverrides,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTarget {
    #[schemars(length(min = 1, max = 64))]
    pub provider: String,
    /// Model asked of the upstream; the client's if absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub upstream_model: Option<String>,
}

/// Milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayTimeouts {
    #[schemars(range(min = 1, max = 3_600_000))]
    pub connect_ms: u32,
    /// First byte of an answer that is not streamed.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub first_byte_ms: u32,
    /// First byte of a stream.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub stream_first_byte_ms: u32,
    /// Silence within a stream.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub stream_idle_ms: u32,
    /// A client that does not read.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub client_write_ms: u32,
    #[schemars(range(min = 1, max = 86_400_000))]
    pub total_ms: u32,
}

/// Milliseconds; what is absent is inherited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutOverrides {
    #[schemars(range(min = 1, max = 3_600_000))]
    pub connect_ms: Option<u32>,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub first_byte_ms: Option<u32>,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub stream_first_byte_ms: Option<u32>,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub stream_idle_ms: Option<u32>,
    #[schemars(range(min = 1, max = 3_600_000))]
    pub client_write_ms: Option<u32>,
    #[schemars(range(min = 1, max = 86_400_000))]
    pub total_ms: Option<u32>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            providers: Vec::new(),
            routes: Vec::new(),
            default_route: None,
            allow_unlisted_models: false,
            timeouts: GatewayTimeouts::default(),
            body_limit: ByteSize::mib(32),
            max_streams: 1024,
        }
    }
}

impl Default for GatewayTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            first_byte_ms: 600_000,
            stream_first_byte_ms: 300_000,
            stream_idle_ms: 120_000,
            client_write_ms: 120_000,
            total_ms: 3_600_000,
        }
    }
}

impl GatewayTimeouts {
    /// These timeouts with what `over` sets in their place.
    pub fn with(&self, over: &TimeoutOverrides) -> Self {
        Self {
            connect_ms: over.connect_ms.unwrap_or(self.connect_ms),
            first_byte_ms: over.first_byte_ms.unwrap_or(self.first_byte_ms),
            stream_first_byte_ms: over.stream_first_byte_ms.unwrap_or(self.stream_first_byte_ms),
            stream_idle_ms: over.stream_idle_ms.unwrap_or(self.stream_idle_ms),
            client_write_ms: over.client_write_ms.unwrap_or(self.client_write_ms),
            total_ms: over.total_ms.unwrap_or(self.total_ms),
        }
    }
}

impl ProviderConfig {
    /// The configured address without a closing slash, or the type's own; the demo provider has none.
    pub fn base_url(&self) -> Option<&str> {
        match (&self.base_url, self.kind) {
            (Some(url), _) => Some(url.trim_end_matches('/')),
            (None, ProviderKind::Anthropic) => Some("https://api.anthropic.com"),
            (None, ProviderKind::Demo) => None,
        }
    }

    pub fn auth(&self) -> ProviderAuth {
        self.auth.unwrap_or(match self.kind {
            ProviderKind::Anthropic => ProviderAuth::XApiKey,
            ProviderKind::Demo => ProviderAuth::None,
        })
    }

    /// Name of the secret: `api_key_secret`, else `anthropic` for that type when it needs a key.
    pub fn api_key_secret(&self) -> Option<&str> {
        match (&self.api_key_secret, self.kind, self.auth()) {
            (_, _, ProviderAuth::None) | (None, ProviderKind::Demo, _) => None,
            (Some(name), _, _) => Some(name),
            (None, ProviderKind::Anthropic, _) => Some("anthropic"),
        }
    }
}

impl RouteConfig {
    /// Whether the pattern fits a model name.
    pub fn fits(&self, model: &str) -> bool {
        match (self.model.strip_prefix('*'), self.model.strip_suffix('*')) {
            (Some(""), _) => true,
            (Some(suffix), _) => model.ends_with(suffix),
            (None, Some(prefix)) => model.starts_with(prefix),
            (None, None) => model == self.model,
        }
    }

    /// Whether the pattern is a name without `*`.
    pub fn is_exact(&self) -> bool {
        !self.model.contains('*')
    }
}

impl GatewayConfig {
    pub fn provider(&self, name: &str) -> Option<&ProviderConfig> {
        self.providers.iter().find(|p| p.name == name)
    }

    pub fn route(&self, name: &str) -> Option<&RouteConfig> {
        self.routes.iter().find(|r| r.name == name)
    }

    /// The route of a model: the first whose pattern fits, else the default route if unlisted models may pass.
    pub fn route_for(&self, model: &str) -> Option<&RouteConfig> {
        self.routes.iter().find(|r| r.fits(model)).or_else(|| {
            self.default_route
                .as_deref()
                .filter(|_| self.allow_unlisted_models)
                .and_then(|name| self.route(name))
        })
    }
}
