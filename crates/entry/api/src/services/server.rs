//! The server: the edge stack, the table of routes, and the connections.

pub mod api_server;
pub mod builder;
mod client_quota;
pub mod framing;
pub mod internal;
pub mod metrics;
pub mod openapi;
pub mod protocol;
pub mod refusal;
pub mod route;
pub mod runner;
mod settings;
pub mod table;

pub use api_server::{ApiServer, ServerError, run_server};
pub use runner::{BootState, Server};
