//! The HTTP surface: one table of routes, the edge stack before it, and handlers that extract, call one domain function and
//! render. Nothing here decides and nothing here holds SQL.

pub mod error;
pub mod extract;
pub mod routes;
pub mod services;

pub use error::{Error, Result};
pub use services::server::{ApiServer, BootState, Server, ServerError, run_server};
