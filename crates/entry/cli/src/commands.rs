//! One file per command.

pub mod mcp_server;
pub mod serve;
pub mod up;
