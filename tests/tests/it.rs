//! All integration tests in one binary: it links once.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod client_documents;
mod client_limits;
mod client_tokens;
mod commands;
mod crash;
mod demo;
mod discovery;
mod edge;
mod evidence;
mod exports;
mod folder;
mod framing;
mod full_disk;
mod govern;
mod hooks;
mod http;
mod invariants;
mod judged;
mod kept;
mod ledger;
mod lost_commits;
mod minted;
mod nodes;
mod oauth_clients;
mod oauth_requests;
mod oauth_tokens;
mod passkey_nodes;
mod people;
mod policies;
mod reload;
mod replay;
mod rfc9700;
mod rules;
mod scan;
mod schemas;
mod sinks;
mod sources;
mod statements;
mod stores;
mod surface;
mod token_nodes;
mod tokens;
mod upstream;
