//! The harness of the integration tests, the acceptance runs and the benchmarks: the real `systemprompt` binary on a
//! temporary data folder, started, stopped and killed by its process id.

pub mod server;

pub use server::{Options, Server};
