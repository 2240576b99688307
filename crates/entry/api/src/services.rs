//! What stands between a connection and a handler.

pub mod middleware;
pub mod server;
