//! `rate_limits`: requests a second per route group, and how tiers multiply them (SEC-30, SEC-31).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use systemprompt_models::RateLimitTier;

macro_rules! rate_groups {
    ($($group:ident, $text:literal, $key:ident = $default:literal;)*) => {
        /// A route group that is limited on its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RateGroup { $($group,)* }

        impl RateGroup {
            pub const ALL: &[Self] = &[$(Self::$group,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$group => $text,)* }
            }
        }

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct RateLimits {
            $(
                #[schemars(range(min = 1, max = 1_000_000))]
                pub $key: u32,
            )*
            /// Requests that may come at once, as a multiple of the limit.
            #[schemars(range(min = 1, max = 1000))]
            pub burst_multiplier: u32,
            pub tier_multipliers: TierMultipliers,
            /// Switches every HTTP limit off. Shown as a warning wherever health is shown.
            pub disabled: bool,
        }

        impl Default for RateLimits {
            fn default() -> Self {
                Self {
                    $($key: $default,)*
                    burst_multiplier: 3,
                    tier_multipliers: TierMultipliers::default(),
                    disabled: false,
                }
            }
        }

        impl RateLimits {
            /// Requests a second of a group, before the tier.
            pub fn per_second(&self, group: RateGroup) -> u32 {
                match group { $(RateGroup::$group => self.$key,)* }
            }
        }
    };
}

rate_groups! {
    OauthPublic, "oauth_public", oauth_public_per_second = 10;
    OauthAuth, "oauth_auth", oauth_auth_per_second = 10;
    OauthToken, "oauth_token", oauth_token_per_second = 100;
    Contexts, "contexts", contexts_per_second = 100;
    Tasks, "tasks", tasks_per_second = 50;
    Artifacts, "artifacts", artifacts_per_second = 50;
    AgentRegistry, "agent_registry", agent_registry_per_second = 50;
    Agents, "agents", agents_per_second = 20;
    McpRegistry, "mcp_registry", mcp_registry_per_second = 50;
    Mcp, "mcp", mcp_per_second = 200;
    Stream, "stream", stream_per_second = 100;
    Content, "content", content_per_second = 50;
    Analytics, "analytics", analytics_per_second = 50;
    Engagement, "engagement", engagement_per_second = 50;
    Admin, "admin", admin_per_second = 10;
    Gateway, "gateway", gateway_per_second = 200;
    Hooks, "hooks", hooks_per_second = 100;
    Bridge, "bridge", bridge_per_second = 20;
    Otel, "otel", otel_per_second = 50;
    Sync, "sync", sync_per_second = 5;
    Marketplace, "marketplace", marketplace_per_second = 50;
    Wellknown, "wellknown", wellknown_per_second = 50;
    Webhook, "webhook", webhook_per_second = 50;
    Unverified, "unverified", unverified_per_second = 100;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TierMultipliers {
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub admin: f64,
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub user: f64,
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub a2a: f64,
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub mcp: f64,
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub service: f64,
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub anon: f64,
}

impl Default for TierMultipliers {
    fn default() -> Self {
        Self { admin: 10.0, user: 1.0, a2a: 5.0, mcp: 5.0, service: 5.0, anon: 0.5 }
    }
}

impl TierMultipliers {
    pub fn of(&self, tier: RateLimitTier) -> f64 {
        match tier {
            RateLimitTier::Admin => self.admin,
            RateLimitTier::User => self.user,
            RateLimitTier::Service => self.service,
            RateLimitTier::A2a => self.a2a,
            RateLimitTier::Mcp => self.mcp,
            RateLimitTier::Anon => self.anon,
        }
    }
}

impl RateLimits {
    /// Requests a second of a group for a tier, at least 1.
    pub fn limit(&self, group: RateGroup, tier: RateLimitTier) -> u32 {
        let limit = f64::from(self.per_second(group)) * self.tier_multipliers.of(tier);
        (limit.min(f64::from(u32::MAX)) as u32).max(1)
    }

    /// Requests of a group that a tier may make at once.
    pub fn burst(&self, group: RateGroup, tier: RateLimitTier) -> u32 {
        self.limit(group, tier).saturating_mul(self.burst_multiplier)
    }
}
