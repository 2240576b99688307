//! All integration tests in one binary: it links once.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod demo;
mod http;
mod invariants;
mod schemas;
mod sources;
mod statements;
mod stores;
mod surface;
mod upstream;
