//! What a node is made of and how it lives: the application context, the order of the boot, reload, recovery, drain, telemetry.

pub mod boot;
pub mod checkpoints;
pub mod context;
mod declared;
pub mod demo;
pub mod egress;
pub mod explain;
pub mod identity;
pub mod lifecycle;
pub mod payloads;
mod probe;
pub mod reload;
pub mod replay;
pub mod retention;
pub mod revocation;
pub mod rooms;
pub mod sinks;
pub mod streams;
pub mod telemetry;

pub use boot::{BootError, BootOptions};
pub use context::{AppContext, Phase};
pub use lifecycle::shutdown_signal;
pub use reload::{ReloadCounts, ReloadError, ReloadResult, Reloaded};
pub use rooms::extensions;

/// The profile, as the seed documents call it.
pub use systemprompt_config::Profile as Config;
