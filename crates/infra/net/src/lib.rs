//! Outgoing connections. Whatever fetches a URL, whether an operator configured it or an outsider gave it, goes through
//! [`egress::client`], which decides by its class what addresses, schemes and answers are acceptable (SEC-102, SEC-103).

pub mod address;
pub mod egress;
pub mod stream;
pub mod testing;
pub mod tls;

pub use egress::{Class, Egress, EgressError, Fetched, HostRules, Media, Policy, Wanted};
