//! Live events inside a node: the hub that wakes subscribers, and server-sent events that replay from a table.
//!
//! The hub carries no payload. A subscriber that is woken reads what is new from the table that holds it, so nothing is
//! missed, nothing comes twice, and a slow subscriber costs no memory.

mod hub;
pub mod sse;

pub use hub::{Hub, Listener, Topic};
