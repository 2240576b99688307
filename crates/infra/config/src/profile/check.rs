//! What the schema cannot say about a profile: values that contradict each other or name what does not exist.

mod identity;

use super::Profile;
use super::audit::kept::{RECORD_FAMILIES, SIX_MONTHS_DAYS};
use super::audit::{SinkConfig, SinkKind, WitnessKind};
use super::gateway::{ProviderAuth, ProviderConfig, ProviderKind, RouteConfig};
use super::governance::{AuthzHookConfig, AuthzHookMode, History, UNRESTRICTED_ACKNOWLEDGEMENT};
use crate::diagnostic::Diagnostic;
use crate::document::{Document, Step, steps};
use crate::schema::HttpUrl;
use std::collections::HashMap;
use std::net::IpAddr;

/// Response headers that `server.security_headers` may replace.
pub const SECURITY_HEADERS: [&str; 8] = [
    "cache-control",
    "content-security-policy",
    "cross-origin-opener-policy",
    "permissions-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
];

/// Headers of upstream calls that the gateway sets itself.
const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "proxy-authorization",
    "transfer-encoding",
    "x-api-key",
];

pub(crate) fn check(profile: &Profile, document: &Document) -> Vec<Diagnostic> {
    let mut check = Check { document, findings: Vec::new() };
    check.server(profile);
    check.security(profile);
    check.governance(profile);
    check.gateway(profile);
    check.audit(profile);
    check.retention(profile);
    check.findings
}

struct Check<'a> {
    document: &'a Document,
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn add(&mut self, path: &[Step], finding: Diagnostic) {
        self.findings.push(self.document.locate(finding, path));
    }

    fn audit(&mut self, profile: &Profile) {
        let audit = &profile.audit;
        if audit.signing_command() == Some(None) {
            let finding = Diagnostic::error("invalid_value", "the command is empty or has an open quote")
                .with_remedy("write exec:COMMAND, or name a file; it is made when it is missing");
            self.add(&steps!["audit", "signing_key_path"], finding);
        }
        self.sinks(&audit.sinks);
        for (index, witness) in audit.witness.iter().enumerate() {
            let (needs, kind) = match witness.kind {
                WitnessKind::File => ("path", "file"),
                WitnessKind::Http => ("url", "http"),
            };
            for (key, is_set) in [("path", witness.path.is_some()), ("url", witness.url.is_some())] {
                let finding = if key == needs && !is_set {
                    let what = format!("a witness of type {kind} needs `{key}`");
                    Diagnostic::error("missing_key", what)
                } else if key != needs && is_set {
                    let what = format!("a witness of type {kind} has no `{key}`");
                    Diagnostic::error("not_for_type", what)
                } else {
                    continue;
                };
                let place = if is_set { key } else { "type" };
                self.add(&steps!["audit", "witness", index, place], finding);
            }
            if let Some(url) = witness.url.as_deref().and_then(HttpUrl::parse)
                && !url.secure
                && !url.is_loopback()
            {
                let finding = Diagnostic::error("insecure_url", "http is allowed to loopback only")
                    .with_remedy("use https");
                self.add(&steps!["audit", "witness", index, "url"], finding);
            }
        }
    }

    fn retention(&mut self, profile: &Profile) {
        let retention = &profile.audit.retention;
        for (kind, days) in &retention.kinds {
            let path = steps!["audit", "retention", "kinds", kind.as_str()];
            if kind.starts_with("system") {
                let finding = Diagnostic::error("invalid_value", "records of the system are kept for ever")
                    .with_remedy("remove the line: checkpoints and retention are proven with them");
                self.findings.push(self.document.locate_key(finding, &path));
            } else if !RECORD_FAMILIES.contains(&kind.as_str()) {
                let finding = Diagnostic::error("unknown_key", format!("there is no family `{kind}`"))
                    .suggesting(kind, RECORD_FAMILIES)
                    .with_allowed(RECORD_FAMILIES);
                self.findings.push(self.document.locate_key(finding, &path));
            } else if !(1..=36_500).contains(days) {
                self.add(&path, Diagnostic::error("invalid_value", "1 to 36500 days"));
            }
        }
        if retention.below_six_months.is_some() {
            return;
        }
        let kinds = retention.kinds.iter();
        let kinds =
            kinds.map(|(kind, days)| (steps!["audit", "retention", "kinds", kind.as_str()].to_vec(), *days));
        let default = (steps!["audit", "retention", "default_days"].to_vec(), retention.default_days);
        for (path, _) in kinds.chain([default]).filter(|(_, days)| *days < SIX_MONTHS_DAYS) {
            let what = format!("records are to be kept for at least {SIX_MONTHS_DAYS} days");
            let finding = Diagnostic::error("acknowledgement_required", what)
                .with_remedy("raise it, or set `audit.retention.below_six_months: acknowledged`");
            self.add(&path, finding);
        }
    }

    fn sinks(&mut self, sinks: &[SinkConfig]) {
        for (index, sink) in sinks.iter().enumerate() {
            if sinks.iter().take(index).any(|other| other.name == sink.name) {
                let finding =
                    Diagnostic::error("duplicate_name", format!("two sinks are called `{}`", sink.name));
                self.add(&steps!["audit", "sinks", index, "name"], finding);
            }
            let (needs, kind) = match sink.kind {
                SinkKind::File => ("path", "file"),
                SinkKind::Http => ("url", "http"),
                SinkKind::Syslog => ("url", "syslog"),
            };
            for (key, is_set) in
                [("path", sink.path.is_some()), ("url", sink.url.is_some()), ("tls", sink.tls.is_some())]
            {
                let may = key == needs || key == "tls" && sink.kind == SinkKind::Syslog;
                let finding = if key == needs && !is_set {
                    Diagnostic::error("missing_key", format!("a sink of type {kind} needs `{key}`"))
                } else if !may && is_set {
                    Diagnostic::error("not_for_type", format!("a sink of type {kind} has no `{key}`"))
                } else {
                    continue;
                };
                let place = if is_set { key } else { "type" };
                self.add(&steps!["audit", "sinks", index, place], finding);
            }
            let Some(url) = sink.url.as_deref() else { continue };
            let wrong = match sink.kind {
                SinkKind::File => None,
                SinkKind::Syslog => {
                    let has_port = url.strip_prefix("tls://").and_then(|rest| rest.rsplit_once(':'));
                    let is_target = has_port.is_some_and(|(host, port)| {
                        !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
                    });
                    (!is_target).then(|| {
                        Diagnostic::error("invalid_value", "a syslog server is written tls://host:port")
                            .with_remedy("the usual port is 6514")
                    })
                }
                SinkKind::Http => match HttpUrl::parse(url) {
                    None => Some(Diagnostic::error("invalid_value", "this is no http or https URL")),
                    Some(url) if !url.secure && !url.is_loopback() => Some(
                        Diagnostic::error("insecure_url", "http is allowed to loopback only")
                            .with_remedy("use https"),
                    ),
                    Some(_) => None,
                },
            };
            if let Some(finding) = wrong {
                self.add(&steps!["audit", "sinks", index, "url"], finding);
            }
        }
    }

    fn server(&mut self, profile: &Profile) {
        let server = &profile.server;
        for (key, url) in
            [("api_external_url", &server.api_external_url), ("api_internal_url", &server.api_internal_url)]
        {
            let has_path =
                url.as_deref().and_then(HttpUrl::parse).is_some_and(|u| !matches!(u.path.as_str(), "" | "/"));
            if has_path {
                let finding = Diagnostic::error("invalid_value", "the address must not have a path")
                    .with_remedy("routes stand at the root of the host: https://example.com");
                self.add(&steps!["server", key], finding);
            }
        }
        self.external_url(profile);
        for (index, origin) in server.cors_allowed_origins.iter().enumerate() {
            let exact = HttpUrl::parse(origin)
                .filter(|url| url.path == "/" && !origin.ends_with('/') && (url.secure || url.is_loopback()));
            if exact.is_none() {
                let finding =
                    Diagnostic::error("invalid_value", format!("`{origin}` is not an exact origin"))
                        .with_remedy(
                            "write https://host[:port], or http on loopback; `*` and `null` are not allowed",
                        );
                self.add(&steps!["server", "cors_allowed_origins", index], finding);
            }
        }
        for (index, range) in server.trusted_proxies.iter().enumerate() {
            if range.0.prefix_len() == 0 {
                let finding = Diagnostic::error("invalid_value", format!("{range} would trust every peer"))
                    .with_remedy("name the addresses of the proxies");
                self.add(&steps!["server", "trusted_proxies", index], finding);
            }
        }
        for (name, value) in &server.security_headers {
            let path = steps!["server", "security_headers", name.as_str()];
            if !SECURITY_HEADERS.contains(&name.as_str()) {
                let finding = Diagnostic::error(
                    "unknown_key",
                    format!("`{name}` is not a header that can be replaced"),
                )
                .suggesting(name, SECURITY_HEADERS)
                .with_allowed(SECURITY_HEADERS);
                self.findings.push(self.document.locate_key(finding, &path));
            } else if http::HeaderValue::from_str(value).is_err() {
                self.add(&path, Diagnostic::error("invalid_value", "not a valid header value"));
            } else if weakens_framing(name, value) {
                let finding = Diagnostic::error(
                    "invalid_value",
                    "pages of other origins could frame the sign-in pages with this",
                )
                .with_remedy("keep `frame-ancestors 'none'` or `'self'` in the policy, DENY or SAMEORIGIN in the other");
                self.add(&path, finding);
            }
        }
    }

    /// The address that clients and browsers are told: passwords, codes and cookies travel to it.
    fn external_url(&mut self, profile: &Profile) {
        let external = profile.api_external_url();
        let Some(url) = HttpUrl::parse(&external) else { return };
        let path = steps!["server", "api_external_url"];
        if !url.secure && !url.is_loopback() {
            let finding = Diagnostic::error(
                "insecure_url",
                "http is for loopback alone: sign-ins and tokens would cross the network in clear",
            )
            .with_remedy("write the https address of the proxy in front");
            self.add(&path, finding);
        } else if url.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            let finding = Diagnostic::warning(
                "no_passkeys",
                format!("no passkey can be made at {}: an IP address is no relying party", url.host),
            )
            .with_remedy("name a host: https://id.example.com, or http://localhost on this computer");
            self.add(&path, finding);
        }
    }

    fn security(&mut self, profile: &Profile) {
        let security = &profile.security;
        if security.jwt_refresh_token_expiration < security.jwt_access_token_expiration {
            let finding = Diagnostic::error(
                "invalid_value",
                "a refresh token must not end before the access token (security.jwt_access_token_expiration)",
            );
            self.add(&steps!["security", "jwt_refresh_token_expiration"], finding);
        }
        for (index, uri) in security.allowed_resource_audiences.iter().enumerate() {
            let absolute = uri.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !rest.is_empty()
                    && !uri.contains(['#', ' '])
            });
            if !absolute {
                let finding = Diagnostic::error(
                    "invalid_value",
                    format!("`{uri}` is not an absolute URI without fragment"),
                );
                self.add(&steps!["security", "allowed_resource_audiences", index], finding);
            }
        }
        self.identity(profile);
        for (index, issuer) in security.trusted_issuers.iter().enumerate() {
            let is_twice =
                security.trusted_issuers.iter().take(index).any(|other| other.issuer == issuer.issuer);
            if is_twice {
                let finding = Diagnostic::error("duplicate", "this issuer is named twice");
                self.add(&steps!["security", "trusted_issuers", index, "issuer"], finding);
            }
            let safe = HttpUrl::parse(&issuer.jwks_uri).is_some_and(|u| u.secure || u.is_loopback());
            if !safe {
                let finding =
                    Diagnostic::error("invalid_value", "keys are fetched over https, or http on loopback");
                self.add(&steps!["security", "trusted_issuers", index, "jwks_uri"], finding);
            }
        }
        for (index, path) in security.scanner.allow_paths.iter().enumerate() {
            if !path.starts_with('/') {
                let finding =
                    Diagnostic::error("invalid_value", format!("the path prefix `{path}` must begin with /"));
                self.add(&steps!["security", "scanner", "allow_paths", index], finding);
            }
        }
    }

    fn pipeline(&mut self, profile: &Profile) {
        let pipeline = &profile.governance.pipeline;
        if !pipeline.enabled {
            let finding =
                Diagnostic::warning("governance_disabled", "the governance pipeline is switched off");
            self.add(&steps!["governance", "pipeline", "enabled"], finding);
        }
        let path = steps!["governance", "pipeline", "acknowledge_history_audit"];
        match (pipeline.history, pipeline.acknowledge_history_audit) {
            (History::Audit, false) => {
                let finding = Diagnostic::error(
                    "acknowledgement_required",
                    "`history: audit` lets a refused secret through at the second try",
                )
                .with_remedy(
                    "write `acknowledge_history_audit: true` if that is meant, or `history: redact`",
                );
                self.add(&path, finding);
            }
            (History::Block | History::Redact, true) => {
                let finding = Diagnostic::warning(
                    "unused_key",
                    "the acknowledgement means nothing without `history: audit`",
                );
                self.add(&path, finding);
            }
            _ => {}
        }
    }

    fn governance(&mut self, profile: &Profile) {
        self.pipeline(profile);
        let Some(hook) = &profile.governance.authz.hook else {
            let finding = Diagnostic::warning(
                "authz_default_deny",
                "without governance.authz.hook every call is denied",
            )
            .with_remedy("write `hook: { mode: rules }`");
            self.add(&steps!["governance", "authz"], finding);
            return;
        };
        self.webhook(hook);
        let path = steps!["governance", "authz", "hook", "acknowledgement"];
        match (hook.mode, hook.acknowledgement.as_deref()) {
            (AuthzHookMode::Unrestricted, Some(UNRESTRICTED_ACKNOWLEDGEMENT)) => {
                let finding = Diagnostic::warning(
                    "authz_unrestricted",
                    "authorization is switched off: every call is allowed",
                );
                self.add(&steps!["governance", "authz", "hook", "mode"], finding);
            }
            (AuthzHookMode::Unrestricted, _) => {
                let finding = Diagnostic::error(
                    "acknowledgement_required",
                    "the mode `unrestricted` needs its acknowledgement, to the letter",
                )
                .with_allowed([UNRESTRICTED_ACKNOWLEDGEMENT]);
                self.add(&path, finding);
            }
            (_, Some(_)) => {
                let finding =
                    Diagnostic::warning("unused_key", "an acknowledgement means nothing in this mode");
                self.add(&path, finding);
            }
            (_, None) => {}
        }
    }

    fn webhook(&mut self, hook: &AuthzHookConfig) {
        let place = |key: &'static str| steps!["governance", "authz", "hook", key].to_vec();
        let is_webhook = hook.mode == AuthzHookMode::Webhook;
        match hook.url.as_deref() {
            None if is_webhook => {
                let finding =
                    Diagnostic::error("missing_key", "the mode `webhook` needs the `url` of the service");
                self.add(&place("mode"), finding);
            }
            Some(_) if !is_webhook => {
                self.add(
                    &place("url"),
                    Diagnostic::warning("unused_key", "a url means nothing in this mode"),
                );
            }
            Some(url) => match HttpUrl::parse(url) {
                Some(parsed) if parsed.secure || parsed.is_loopback() => {}
                Some(_) => {
                    let finding = Diagnostic::error("insecure_url", "http is allowed to loopback only");
                    self.add(&place("url"), finding.with_remedy("use https"));
                }
                None => {
                    let finding = Diagnostic::error("invalid_value", "not an http or https address");
                    self.add(&place("url"), finding);
                }
            },
            None => {}
        }
    }

    fn gateway(&mut self, profile: &Profile) {
        let gateway = &profile.gateway;
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, provider) in gateway.providers.iter().enumerate() {
            if let Some(first) = names.insert(&provider.name, index) {
                self.duplicate("provider", &provider.name, "providers", first, index);
            }
            self.provider(provider, index);
        }
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, route) in gateway.routes.iter().enumerate() {
            if let Some(first) = names.insert(&route.name, index) {
                self.duplicate("route", &route.name, "routes", first, index);
            }
            self.route(profile, route, index);
        }
        let known = || gateway.routes.iter().map(|r| r.name.as_str());
        match &gateway.default_route {
            Some(name) if gateway.route(name).is_none() => {
                let finding = Diagnostic::error("unknown_route", format!("there is no route `{name}`"))
                    .suggesting(name, known())
                    .with_allowed(known());
                self.add(&steps!["gateway", "default_route"], finding);
            }
            None if gateway.allow_unlisted_models => {
                let finding = Diagnostic::error("missing_key", "unlisted models need a `default_route`");
                self.add(&steps!["gateway", "allow_unlisted_models"], finding);
            }
            _ => {}
        }
    }

    fn duplicate(&mut self, what: &str, name: &str, list: &str, first: usize, second: usize) {
        let before = self.document.spot(&steps!["gateway", list, first, "name"]);
        let finding = Diagnostic::error(
            "duplicate_name",
            format!("a {what} named `{name}` stands already at {before}"),
        );
        self.add(&steps!["gateway", list, second, "name"], finding);
    }

    fn provider(&mut self, provider: &ProviderConfig, index: usize) {
        let base = |key: &str| steps!["gateway", "providers", index, key];
        if provider.kind == ProviderKind::Demo {
            let set = [
                ("base_url", provider.base_url.is_some()),
                ("api_key_secret", provider.api_key_secret.is_some()),
                ("auth", provider.auth.is_some_and(|a| a != ProviderAuth::None)),
            ];
            for (key, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
                let finding =
                    Diagnostic::error("not_for_type", format!("a provider of type demo has no `{key}`"))
                        .with_remedy("it runs in this process, without network and key");
                self.add(&base(key), finding);
            }
        }
        if let Some(url) = provider.base_url.as_deref().and_then(HttpUrl::parse)
            && !url.secure
            && !url.is_loopback()
            && !provider.allow_insecure
        {
            let finding = Diagnostic::error("insecure_url", "http is allowed to loopback only")
                .with_remedy("use https, or set `allow_insecure: true` on this provider");
            self.add(&base("base_url"), finding);
        }
        if provider.auth == Some(ProviderAuth::None) && provider.api_key_secret.is_some() {
            let finding = Diagnostic::error(
                "contradiction",
                "with `auth: none` no key is sent, yet `api_key_secret` names one",
            );
            self.add(&base("api_key_secret"), finding);
        }
        if provider.auth() != ProviderAuth::None && provider.api_key_secret().is_none() {
            let finding = Diagnostic::error("missing_key", "this `auth` needs an `api_key_secret`");
            self.add(&base("auth"), finding);
        }
        for (name, value) in &provider.headers {
            let path = steps!["gateway", "providers", index, "headers", name.as_str()];
            if OWN_HEADERS.contains(&name.as_str()) {
                let finding =
                    Diagnostic::error("reserved_header", format!("`{name}` is set by the gateway itself"))
                        .with_remedy("a key belongs into `api_key_secret`");
                self.findings.push(self.document.locate_key(finding, &path));
            } else if http::HeaderValue::from_str(value).is_err() {
                self.add(&path, Diagnostic::error("invalid_value", "not a valid header value"));
            }
        }
    }

    fn route(&mut self, profile: &Profile, route: &RouteConfig, index: usize) {
        let gateway = &profile.gateway;
        for (at, target) in route.targets.iter().enumerate() {
            if gateway.provider(&target.provider).is_none() {
                let known = || gateway.providers.iter().map(|p| p.name.as_str());
                let finding = Diagnostic::error(
                    "unknown_provider",
                    format!("there is no provider `{}`", target.provider),
                )
                .suggesting(&target.provider, known())
                .with_allowed(known());
                self.add(&steps!["gateway", "routes", index, "targets", at, "provider"], finding);
            }
        }
        let shadow = gateway.routes.iter().take(index).position(|earlier| covers(earlier, route));
        if let Some(earlier) = shadow {
            let spot = self.document.spot(&steps!["gateway", "routes", earlier, "model"]);
            let finding = Diagnostic::warning(
                "shadowed_route",
                format!("no model reaches this route: the pattern at {spot} takes them all"),
            );
            self.add(&steps!["gateway", "routes", index, "model"], finding);
        }
    }
}

/// Whether a replaced header lets other origins frame our pages (SEC-17).
fn weakens_framing(name: &str, value: &str) -> bool {
    match name {
        "content-security-policy" => !value.split(';').any(|directive| {
            let mut words = directive.split_ascii_whitespace();
            let is_framing = words.next().is_some_and(|name| name.eq_ignore_ascii_case("frame-ancestors"));
            let sources: Vec<&str> = words.collect();
            is_framing && matches!(sources.as_slice(), ["'none'" | "'self'"])
        }),
        "x-frame-options" => !["DENY", "SAMEORIGIN"].iter().any(|kept| value.eq_ignore_ascii_case(kept)),
        _ => false,
    }
}

/// Whether every model that fits `later` fits `earlier` already.
fn covers(earlier: &RouteConfig, later: &RouteConfig) -> bool {
    match (later.model.strip_prefix('*'), later.model.strip_suffix('*')) {
        (Some(""), _) => earlier.model == "*",
        (Some(suffix), _) => {
            earlier.model == "*" || earlier.model.strip_prefix('*').is_some_and(|s| suffix.ends_with(s))
        }
        (None, Some(prefix)) => {
            earlier.model == "*" || earlier.model.strip_suffix('*').is_some_and(|p| prefix.starts_with(p))
        }
        (None, None) => earlier.fits(&later.model),
    }
}
