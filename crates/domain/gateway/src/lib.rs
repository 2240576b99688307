//! The model gateway: one governed path for every model request. Native Anthropic in and out, byte for byte, and a demo model
//! that needs neither key nor network.
//!
//! [`ClaudeGatewayService::handle`] is the path: index the body in one pass, find conversation and route, ask the decision
//! plane, make the record durable, send with the permit, watch a copy of the answer, close the record.

mod closing;
pub mod conversation;
pub mod demo;
pub mod edit;
pub mod parse;
pub mod pricing;
pub mod protocol;
pub mod providers;
pub mod registry;
pub mod relay;
pub mod repository;
pub mod settle;
pub mod stream_tap;

pub use protocol::{GatewayCall, GatewayReply, Operation, ReplyBody};

use systemprompt_database::Migration;

/// Tables of the gateway.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 4001,
    name: "ai_requests",
    sqlite: include_str!("../migrations/sqlite/4001_ai_requests.sql"),
    postgres: include_str!("../migrations/postgres/4001_ai_requests.sql"),
}];
