//! Live events: the hub that wakes subscribers inside a node, the bridge that tells the other nodes what changed, and
//! server-sent events that replay from a table.
//!
//! The hub carries no payload. A subscriber that is woken reads what is new from the table that holds it, so nothing is
//! missed, nothing comes twice, and a slow subscriber costs no memory.

mod bridge;
mod hub;
pub mod sse;

pub use bridge::{Bridge, Channel, Notice, Subscription};
pub use hub::{Hub, Listener, Topic};
