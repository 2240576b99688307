//! `server`: where the node listens and what it takes from a connection.

use super::listen::InternalAddress;
use super::values::{ByteSize, Cidr};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address to bind.
    #[schemars(with = "String", extend("format" = "ip"))]
    pub host: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
    /// Address that clients use; `http://localhost:<port>` if absent.
    #[schemars(extend("format" = "http-url"))]
    pub api_external_url: Option<String>,
    /// Address that children and other nodes use.
    #[schemars(extend("format" = "http-url"))]
    pub api_internal_url: Option<String>,
    /// A second listener for tool servers that call back and for other nodes of this host, on which `x-mcp-proxy-auth` is read;
    /// none if absent. A socket is readable for this user alone.
    pub internal_listener: Option<InternalAddress>,
    /// Exact origins: https, or http on loopback.
    pub cors_allowed_origins: Vec<String>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    pub content_negotiation: ContentNegotiation,
    /// Response headers that replace the built-in ones, by lower-case name.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z][a-z0-9-]*$" }))]
    pub security_headers: BTreeMap<String, String>,
    /// Name of this node; made and kept on first start if absent.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub instance_id: Option<String>,
    /// Event streams that the process serves at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_streams: u32,
    /// Event streams of one user at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_streams_per_user: u32,
    /// Largest request body where no group has its own limit.
    pub body_limit: ByteSize,
    /// Seconds that requests in flight get when the node stops.
    #[schemars(range(max = 86_400))]
    pub drain_seconds: u32,
    /// Milliseconds that the node goes on accepting after it reports itself as draining.
    #[schemars(range(max = 600_000))]
    pub drain_delay_ms: u32,
    /// Milliseconds within which a request's head must have arrived.
    #[schemars(range(min = 100, max = 600_000))]
    pub header_timeout_ms: u32,
    /// Milliseconds after which an idle connection is closed.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub keepalive_ms: u32,
}

/// Markdown form of site content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContentNegotiation {
    pub enabled: bool,
    #[schemars(pattern(r"^\.[a-z0-9]{1,16}$"))]
    pub markdown_suffix: String,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            api_external_url: None,
            api_internal_url: None,
            internal_listener: None,
            cors_allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            content_negotiation: ContentNegotiation::default(),
            security_headers: BTreeMap::new(),
            instance_id: None,
            max_concurrent_streams: 1024,
            max_streams_per_user: 10,
            body_limit: ByteSize::mib(2),
            drain_seconds: 30,
            drain_delay_ms: 0,
            header_timeout_ms: 10_000,
            keepalive_ms: 75_000,
        }
    }
}

impl Default for ContentNegotiation {
    fn default() -> Self {
        Self { enabled: false, markdown_suffix: ".md".into() }
    }
}
