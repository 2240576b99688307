//! The model gateway: one governed path for every model request. Native Anthropic in and out, byte for byte, and a demo model
//! that needs neither key nor network.
//!
//! [`ClaudeGatewayService::handle`] is the path: index the body in one pass, find conversation and route, ask the decision
//! plane, make the record durable, send with the permit, watch a copy of the answer, close the record.

mod closing;
pub mod conversation;
pub mod demo;
pub mod edit;
pub mod extension;
pub mod parse;
pub mod pricing;
pub mod protocol;
pub mod providers;
pub mod registry;
pub mod relay;
pub mod repository;
pub mod segments;
pub mod service;
pub mod settle;
pub mod stream_tap;

pub use extension::GatewayExtension;
pub use protocol::{GatewayCall, GatewayReply, Operation, ReplyBody};
pub use service::{ClaudeGatewayService, GatewayParts};
