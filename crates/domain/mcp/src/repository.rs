//! What this plane stores: executions and leases, written as companion rows of the ledger, and the reads of them.

mod rows;
pub mod secret_leases;
pub mod tool_usage;

pub use secret_leases::LeaseRepository;
pub use tool_usage::ToolUsageRepository;
