//! The audit of decisions: where a decision came from, and the sinks that make it durable.

pub mod db_sink;
pub mod repository;

use super::types::{AuthzDecision, AuthzRequest};
use std::future::Future;
use std::pin::Pin;
use systemprompt_audit::LedgerError;
use systemprompt_models::RequestContext;
use systemprompt_models::ids::DecisionId;

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthzSource {
    Rules,
    Governance,
    Webhook,
    WebhookFault,
    WebhookServer,
    Cedar,
    DenyAllDefault,
    AllowAllUnrestricted,
}

impl AuthzSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Governance => "governance",
            Self::Webhook => "webhook",
            Self::WebhookFault => "webhook_fault",
            Self::WebhookServer => "webhook_server",
            Self::Cedar => "cedar",
            Self::DenyAllDefault => "deny_all_default",
            Self::AllowAllUnrestricted => "allow_all_unrestricted",
        }
    }
}

/// A record that is being made durable.
pub type RecordFuture<'a> = Pin<Box<dyn Future<Output = Result<DecisionId, LedgerError>> + Send + 'a>>;

/// Records a decision that stands alone (a call's decision goes into the unit of its call instead).
pub trait AuthzAuditSink: Send + Sync {
    /// Returns once the record is durable; before that the decision takes no effect.
    fn record<'a>(
        &'a self,
        context: &'a RequestContext,
        request: AuthzRequest<'a>,
        decision: &'a AuthzDecision,
    ) -> RecordFuture<'a>;
}

/// Records nothing. Only a test environment may install it.
#[derive(Clone, Copy, Debug)]
pub struct NullAuditSink(());

impl NullAuditSink {
    /// The sink, if `environment` (`runtime.environment` of the profile) is `test`.
    pub fn for_environment(environment: &str) -> Option<Self> {
        (environment == "test").then_some(Self(()))
    }
}

impl AuthzAuditSink for NullAuditSink {
    fn record<'a>(
        &'a self,
        _: &'a RequestContext,
        _: AuthzRequest<'a>,
        _: &'a AuthzDecision,
    ) -> RecordFuture<'a> {
        Box::pin(async { Ok(DecisionId::generate()) })
    }
}
