//! Integration tests; see tests/it.rs.
