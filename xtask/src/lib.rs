//! What `cargo xtask` and the benchmarks share: running programs, installing what they need, a throw-away PostgreSQL.

#![expect(clippy::print_stderr, reason = "a command line tool reports what it runs")]

pub mod clients;
pub mod packages;
pub mod postgres;
pub mod process;
