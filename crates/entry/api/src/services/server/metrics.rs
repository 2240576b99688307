//! Prometheus metrics of the surface (PL-83). Labels come from closed sets: the route's pattern, never the path.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use systemprompt_audit::LedgerMetrics;
use systemprompt_audit::sink::SinkLag;
use systemprompt_models::Millis;
use systemprompt_oauth::constants::OAUTH_BASE;
use systemprompt_oauth::services::meter::Counts;
use systemprompt_runtime::ReloadCounts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Text,
    method: Text,
    status_class: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: Text,
    group: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    grant: Text,
    outcome: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OauthRefusalLabels {
    endpoint: Text,
    error: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Text(&'static str);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// Names of sinks come from the profile, sixteen at most.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

/// Counters and histograms of the surface.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    refusals: Family<RefusalLabels, Counter>,
    ignored_headers: Counter,
    revocation_age: Gauge<f64, AtomicU64>,
    reloads: Family<ReloadLabels, Counter>,
    ledger_records: Gauge,
    ledger_refused: Gauge,
    ledger_batches: Gauge,
    ledger_queue_depth: Gauge,
    ledger_unwitnessed: Gauge,
    sink_lag: Family<SinkLabels, Gauge>,
    sink_lag_records: Family<SinkLabels, Gauge>,
    bans: Gauge,
    ban_list_age: Gauge<f64, AtomicU64>,
    authz_epoch: Gauge,
    rules_age: Gauge<f64, AtomicU64>,
    hook_faults: Counter,
    oauth_tokens: Family<TokenLabels, Counter>,
    oauth_refused: Family<OauthRefusalLabels, Counter>,
    oauth_cleaned: Family<TableLabels, Counter>,
    oauth_cimd_fetches: Family<OutcomeLabels, Counter>,
    oauth_duration: Family<EndpointLabels, Histogram>,
    oauth_sessions: Gauge,
    oauth_clients: Gauge,
    oauth_clients_max: Gauge,
    oauth_argon2_queue: Gauge,
}

/// What the rooms count themselves; read when the metrics are asked for.
#[derive(Clone, Debug)]
pub struct Gauges {
    pub ledger: LedgerMetrics,
    pub reloads: ReloadCounts,
    pub bans: usize,
    pub ban_list_age_ms: Millis,
    pub revocation_age_ms: Millis,
    pub authz_epoch: i64,
    pub rules_age_ms: Millis,
    pub hook_faults: u64,
    pub sinks: Vec<SinkLag>,
    /// Of the authorization server.
    pub oauth: Counts,
}

/// Bucket bounds in seconds: tool and model calls live between a millisecond and a minute.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

fn buckets() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("systemprompt");
        let requests = Family::<RequestLabels, Counter>::default();
        let duration = Histogram::new(BUCKETS);
        let refusals = Family::<RefusalLabels, Counter>::default();
        let reloads = Family::<ReloadLabels, Counter>::default();
        let [ledger_records, ledger_refused, ledger_batches, ledger_queue_depth, ledger_unwitnessed]: [Gauge;
            5] = std::array::from_fn(|_| Gauge::default());
        registry.register("http_requests", "Answered requests", requests.clone());
        registry.register("http_request_duration_seconds", "Time until the answer's head", duration.clone());
        registry.register(
            "edge_refusals",
            "Requests refused, by reason and group of routes",
            refusals.clone(),
        );
        let ignored_headers = Counter::default();
        registry.register(
            "context_headers_ignored",
            "Correlation headers that were there and could not be read",
            ignored_headers.clone(),
        );
        let revocation_age = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "revocation_age_seconds",
            "Time since this node's copy of revocations was confirmed",
            revocation_age.clone(),
        );
        registry.register("config_reload", "Readings of the configuration, by outcome", reloads.clone());
        registry.register("ledger_appends", "Records appended since start", ledger_records.clone());
        registry.register("ledger_refused", "Units refused since start", ledger_refused.clone());
        registry.register("ledger_batches", "Batches committed since start", ledger_batches.clone());
        registry.register("ledger_queue_depth", "Records that wait", ledger_queue_depth.clone());
        let sink_lag = Family::<SinkLabels, Gauge>::default();
        let sink_lag_records = Family::<SinkLabels, Gauge>::default();
        registry.register(
            "ledger_sink_lag_seconds",
            "Age of the oldest record that a sink has not taken",
            sink_lag.clone(),
        );
        registry.register(
            "ledger_sink_lag_records",
            "Records that a sink has not taken",
            sink_lag_records.clone(),
        );
        let bans = Gauge::default();
        let ban_list_age = Gauge::<f64, AtomicU64>::default();
        registry.register("bans", "Networks that are banned", bans.clone());
        registry.register(
            "ban_list_age_seconds",
            "Time since the list of bans was confirmed",
            ban_list_age.clone(),
        );
        let oauth_tokens = Family::<TokenLabels, Counter>::default();
        let oauth_refused = Family::<OauthRefusalLabels, Counter>::default();
        let oauth_cleaned = Family::<TableLabels, Counter>::default();
        registry.register("oauth_tokens", "Answers of the token endpoint, by grant", oauth_tokens.clone());
        registry.register("oauth_refused", "Refusals of identity endpoints", oauth_refused.clone());
        registry.register(
            "oauth_cleaned_rows",
            "Ended identity rows that were deleted",
            oauth_cleaned.clone(),
        );
        let oauth_cimd_fetches = Family::<OutcomeLabels, Counter>::default();
        let oauth_duration = Family::<EndpointLabels, Histogram>::new_with_constructor(buckets);
        let [oauth_sessions, oauth_clients, oauth_clients_max, oauth_argon2_queue]: [Gauge; 4] =
            std::array::from_fn(|_| Gauge::default());
        registry.register(
            "oauth_cimd_fetch",
            "Fetches of clients' metadata documents, by what came of them",
            oauth_cimd_fetches.clone(),
        );
        registry.register(
            "oauth_request_duration_seconds",
            "Time until the answer's head, by identity endpoint",
            oauth_duration.clone(),
        );
        registry.register(
            "oauth_sessions_active",
            "Sessions that count, as of the last minute",
            oauth_sessions.clone(),
        );
        registry.register(
            "oauth_clients_registered",
            "Clients that registered themselves, as of the last minute",
            oauth_clients.clone(),
        );
        registry.register(
            "oauth_clients_registered_max",
            "Most clients that may register themselves",
            oauth_clients_max.clone(),
        );
        registry.register(
            "oauth_argon2_queue",
            "Passwords that are checked or wait for it",
            oauth_argon2_queue.clone(),
        );
        let (authz_epoch, hook_faults) = (Gauge::default(), Counter::default());
        let rules_age = Gauge::<f64, AtomicU64>::default();
        registry.register("authz_epoch", "Version of the rules in force", authz_epoch.clone());
        registry.register(
            "authz_rules_age_seconds",
            "Time since the rules were confirmed",
            rules_age.clone(),
        );
        registry.register(
            "authz_hook_faults",
            "Questions to the decision service that got no decision",
            hook_faults.clone(),
        );
        registry.register(
            "ledger_unwitnessed_seconds",
            "Age of the oldest checkpoint that some witness does not have; 0 without a witness",
            ledger_unwitnessed.clone(),
        );
        Self {
            registry,
            requests,
            duration,
            refusals,
            ignored_headers,
            revocation_age,
            reloads,
            ledger_records,
            ledger_refused,
            ledger_batches,
            ledger_queue_depth,
            ledger_unwitnessed,
            sink_lag,
            sink_lag_records,
            bans,
            ban_list_age,
            authz_epoch,
            rules_age,
            hook_faults,
            oauth_tokens,
            oauth_refused,
            oauth_cleaned,
            oauth_cimd_fetches,
            oauth_duration,
            oauth_sessions,
            oauth_clients,
            oauth_clients_max,
            oauth_argon2_queue,
        }
    }
}

impl Metrics {
    /// Counts an answered request. `route` is the pattern of its route.
    pub fn answered(&self, route: &'static str, method: &http::Method, status: u16, took: Duration) {
        let method = match method.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            "HEAD" => "HEAD",
            _ => "other",
        };
        let status_class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let labels =
            RequestLabels { route: Text(route), method: Text(method), status_class: Text(status_class) };
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
        if let Some(endpoint) = route.strip_prefix(OAUTH_BASE).and_then(|path| path.strip_prefix('/')) {
            let labels = EndpointLabels { endpoint: Text(endpoint) };
            self.oauth_duration.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    /// Counts a refusal in a group of routes; both come from closed sets.
    pub fn refused(&self, reason: &'static str, group: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { reason: Text(reason), group: Text(group) }).inc();
    }

    /// Counts correlation headers that could not be read.
    pub fn ignored_headers(&self, count: u32) {
        if count > 0 {
            self.ignored_headers.inc_by(count.into());
        }
    }

    fn set_oauth(&self, counts: &Counts) {
        for ((grant, outcome), count) in &counts.tokens {
            let labels = TokenLabels { grant: Text(grant), outcome: Text(outcome) };
            self.oauth_tokens.get_or_create(&labels).inner().store(*count, Ordering::Relaxed);
        }
        for ((endpoint, error), count) in &counts.refused {
            let labels = OauthRefusalLabels { endpoint: Text(endpoint), error: Text(error) };
            self.oauth_refused.get_or_create(&labels).inner().store(*count, Ordering::Relaxed);
        }
        for (outcome, count) in &counts.cimd_fetches {
            let labels = OutcomeLabels { outcome: Text(outcome) };
            self.oauth_cimd_fetches.get_or_create(&labels).inner().store(*count, Ordering::Relaxed);
        }
        self.oauth_sessions.set(counts.sessions_active);
        self.oauth_clients.set(counts.clients_registered);
        self.oauth_clients_max.set(counts.clients_registered_max);
        self.oauth_argon2_queue.set(counts.argon2_queue);
        for (table, count) in &counts.cleaned {
            self.oauth_cleaned
                .get_or_create(&TableLabels { table: Text(table) })
                .inner()
                .store(*count, Ordering::Relaxed);
        }
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: the encoder writes into a string.
    pub fn encode(&self, gauges: &Gauges) -> Result<String, fmt::Error> {
        let Gauges {
            ledger,
            reloads,
            bans,
            ban_list_age_ms,
            revocation_age_ms,
            authz_epoch,
            rules_age_ms,
            hook_faults,
            sinks,
            oauth,
        } = gauges;
        self.set_oauth(oauth);
        self.revocation_age.set((*revocation_age_ms).max(0) as f64 / 1000.0);
        self.authz_epoch.set(*authz_epoch);
        self.rules_age.set((*rules_age_ms).max(0) as f64 / 1000.0);
        self.hook_faults.inner().store(*hook_faults, Ordering::Relaxed);
        for lag in sinks {
            let labels = SinkLabels { sink: lag.name.clone() };
            self.sink_lag.get_or_create(&labels).set(lag.seconds as i64);
            self.sink_lag_records.get_or_create(&labels).set(lag.records as i64);
        }
        self.bans.set(i64::try_from(*bans).unwrap_or(i64::MAX));
        self.ban_list_age.set((*ban_list_age_ms).max(0) as f64 / 1000.0);
        let ended =
            [("applied", reloads.applied), ("unchanged", reloads.unchanged), ("refused", reloads.refused)];
        for (result, count) in ended {
            let labels = ReloadLabels { result: Text(result) };
            self.reloads.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
        }
        self.ledger_records.set(ledger.records as i64);
        self.ledger_refused.set(ledger.refused as i64);
        self.ledger_batches.set(ledger.batches as i64);
        self.ledger_queue_depth.set(ledger.queue_depth as i64);
        self.ledger_unwitnessed.set(ledger.unwitnessed_seconds.unwrap_or_default() as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
