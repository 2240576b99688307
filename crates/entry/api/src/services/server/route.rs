//! How a route is written: method, path, handler, who may call it, which limits hold, in which protocol it refuses, and a line
//! for the OpenAPI document. The router, the edge and the document are all made from the same list.

use super::protocol::Protocol;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use serde_json::Value;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Permission;
use systemprompt_models::envelope::Envelope;
use systemprompt_runtime::AppContext;
use systemprompt_security::auth::AuthMode;
use systemprompt_security::jwt::Surface;

/// Who may call a route.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Anyone; no credential is read.
    Public,
    /// A probe: as public, and neither limited nor counted as traffic.
    Probe,
    /// Who shows a credential that counts on `surface`, with one of `any_of`; with `in_person` only the token of a session, and
    /// neither that of a client nor an API key.
    Signed { surface: Surface, mode: AuthMode, any_of: &'static [Permission], in_person: bool },
}

/// What the edge needs to know of a route.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    pub group: Option<RateGroup>,
    /// How many calls of its group one counts as: more where it leaves a row behind.
    pub cost: u32,
    pub envelope: Envelope,
    /// Largest body in bytes; `None` is `server.body_limit`.
    pub body_limit: Option<usize>,
    pub summary: &'static str,
    pub tag: &'static str,
    /// JSON Schema of the request body and of the answer.
    pub request: Option<fn() -> Value>,
    pub response: Option<fn() -> Value>,
    /// Names of the query parameters.
    pub query: Vec<&'static str>,
    /// Of endpoints whose messages a standard names.
    pub protocol: Option<&'static Protocol>,
}

/// A route: its spec and its handler.
pub struct Route {
    pub spec: RouteSpec,
    pub handler: MethodRouter<AppContext>,
}

/// Largest bodies of the groups that have their own (SEC-16).
pub const GATEWAY_BODY: usize = 32 * 1024 * 1024;
pub const MCP_BODY: usize = 4 * 1024 * 1024;
pub const HOOK_BODY: usize = 4 * 1024 * 1024;
pub const INFERENCE_HOOK_BODY: usize = 10 * 1024 * 1024;

impl Route {
    fn new<H, T>(method: Method, filter: MethodFilter, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, AppContext>,
        T: 'static,
    {
        Self {
            spec: RouteSpec {
                method,
                path,
                // A route that says nothing else is for administrators.
                access: Access::Signed {
                    surface: Surface::Api,
                    mode: AuthMode::Required,
                    any_of: &[Permission::Admin],
                    in_person: false,
                },
                group: Some(RateGroup::Admin),
                cost: 1,
                envelope: Envelope::Problem,
                body_limit: None,
                summary: "",
                tag: "admin",
                request: None,
                response: None,
                query: Vec::new(),
                protocol: None,
            },
            handler: on(filter, handler),
        }
    }

    pub fn get<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::GET, MethodFilter::GET, path, handler)
    }

    pub fn head<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::HEAD, MethodFilter::HEAD, path, handler)
    }

    pub fn post<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::POST, MethodFilter::POST, path, handler)
    }

    pub fn put<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PUT, MethodFilter::PUT, path, handler)
    }

    pub fn patch<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PATCH, MethodFilter::PATCH, path, handler)
    }

    pub fn delete<H: Handler<T, AppContext>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    pub fn public(mut self, group: RateGroup) -> Self {
        self.spec.access = Access::Public;
        self.spec.group = Some(group);
        self
    }

    pub fn probe(mut self) -> Self {
        self.spec.access = Access::Probe;
        self.spec.group = None;
        self
    }

    pub fn signed(mut self, surface: Surface, any_of: &'static [Permission], group: RateGroup) -> Self {
        self.spec.access = Access::Signed { surface, mode: AuthMode::Required, any_of, in_person: false };
        self.spec.group = Some(group);
        self
    }

    /// For a person about their own account. What they lent a client, or keep as an API key, does not reach it: it could make
    /// itself more than it was lent.
    pub fn in_person(mut self) -> Self {
        self.spec.access = Access::Signed {
            surface: Surface::Api,
            mode: AuthMode::Required,
            any_of: &[Permission::User, Permission::Admin],
            in_person: true,
        };
        self.spec.group = Some(RateGroup::OauthAuth);
        self
    }

    /// For whoever shows a credential of `surface`, and for whom the handler knows by something else, as by a signature. Only
    /// the limit for credentials that must be checked anew holds.
    pub fn signed_or_public(mut self, surface: Surface) -> Self {
        self.spec.access =
            Access::Signed { surface, mode: AuthMode::Optional, any_of: &[], in_person: false };
        self.spec.group = None;
        self
    }

    pub fn envelope(mut self, envelope: Envelope) -> Self {
        self.spec.envelope = envelope;
        self
    }

    pub fn cost(mut self, calls: u32) -> Self {
        self.spec.cost = calls;
        self
    }

    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.spec.body_limit = Some(bytes);
        self
    }

    pub fn doc(mut self, tag: &'static str, summary: &'static str) -> Self {
        self.spec.tag = tag;
        self.spec.summary = summary;
        self
    }

    pub fn query(mut self, names: &'static [&'static str]) -> Self {
        self.spec.query.extend(names);
        self
    }

    /// What goes in, what comes out and who proves themselves how, as the standard of the endpoint has it.
    pub fn protocol(mut self, protocol: &'static Protocol) -> Self {
        self.spec.protocol = Some(protocol);
        self
    }

    pub fn takes<T: schemars::JsonSchema>(mut self) -> Self {
        self.spec.request = Some(schema::<T>);
        self
    }

    pub fn returns<T: schemars::JsonSchema>(mut self) -> Self {
        self.spec.response = Some(schema::<T>);
        self
    }
}

fn schema<T: schemars::JsonSchema>() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
