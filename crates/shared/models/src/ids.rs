//! Typed identifiers. Each is text with a fixed prefix and a UUIDv7 inside, so that keys of stored rows are ordered by
//! time (the ledger's tables carry no other keys on SQLite). Ids that name things outside are plain validated text.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A fresh time-ordered UUID (version 7). The only place where one is drawn.
pub fn uuid_v7() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "this is the id generator")]
    Uuid::now_v7()
}

/// 122 random bits as a UUID (version 4), for values that must not tell when they were made.
pub fn uuid_v4() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "this is the id generator")]
    Uuid::new_v4()
}

/// The UUID of these 128 bits.
pub fn uuid_from_bits(bits: u128) -> Uuid {
    Uuid::from_u128(bits)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// What every generated id of this type begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Takes text as it is; for ids that were read back or that somebody else gave.
            pub fn new(text: impl Into<Box<str>>) -> Self {
                Self(text.into())
            }

            /// A fresh id: the prefix and 32 hex digits of a UUIDv7.
            pub fn generate() -> Self {
                Self::from_uuid(uuid_v7())
            }

            /// The id of this type that shares `uuid` with ids of other types.
            pub fn from_uuid(uuid: Uuid) -> Self {
                let mut text = String::with_capacity($prefix.len() + 32);
                text.push_str($prefix);
                text.push_str(uuid.simple().encode_lower(&mut Uuid::encode_buffer()));
                Self(text.into_boxed_str())
            }

            /// The UUID inside, if this id was generated.
            pub fn uuid(&self) -> Option<Uuid> {
                self.0.strip_prefix($prefix).and_then(|hex| Uuid::try_parse(hex).ok())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// A person, or the synthetic user of a client.
    UserId = "usr_";
    /// A signed-in session; a key of rate limits and conversations.
    SessionId = "sess_";
    /// An OAuth client.
    ClientId = "cli_";
    /// An API key (not its secret).
    ApiKeyId = "key_";
    /// A ban of an address or a network.
    AllowanceId = "alw_";
    BanId = "ban_";
    /// One request through the edge; correlates, identifies nothing.
    TraceId = "trc_";
    /// A conversation.
    ContextId = "ctx_";
    /// An A2A task.
    TaskId = "tsk_";
    /// One governed call, charged once whichever doors it passes.
    CallId = "call_";
    /// A ledger entry.
    EntryId = "led_";
    /// A row of `governance_decisions`; shares its UUID with the ledger entry that opened it.
    DecisionId = "dec_";
    /// A row of `ai_requests`.
    AiRequestId = "air_";
    /// A row of `mcp_tool_executions`.
    McpExecutionId = "mcx_";
    /// A child process of an MCP server.
    ChildId = "chd_";
    /// A secret lease.
    LeaseId = "lea_";
    /// An access rule.
    RuleId = "rul_";
    /// One act of authorising a client: the parent of its codes and tokens.
    GrantId = "grt_";
    /// A step of a passkey ceremony.
    ChallengeId = "chl_";
    /// The unique id of a token (`jti`).
    Jti = "jti_";
    /// A conversation as a model client names it, bound to its principal.
    GatewayConversationId = "gcv_";
    /// An event that a coding agent's hook told.
    HookEventId = "hke_";
    /// A plugin of a coding agent.
    PluginId = "plg_";
}

impl EntryId {
    /// The decision row that this entry opened.
    pub fn decision(&self) -> DecisionId {
        DecisionId::new(format!("{}{}", DecisionId::PREFIX, self.as_str().trim_start_matches(Self::PREFIX)))
    }
}

impl DecisionId {
    /// The ledger entry that opened this decision row.
    pub fn entry(&self) -> EntryId {
        EntryId::new(format!("{}{}", EntryId::PREFIX, self.as_str().trim_start_matches(Self::PREFIX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_ordered_and_keep_their_uuid() {
        let ids: Vec<EntryId> = (0..1000).map(|_| EntryId::generate()).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(ids[0].decision().entry(), ids[0]);
        assert_eq!(EntryId::from_uuid(ids[0].uuid().unwrap()), ids[0]);
    }
}
