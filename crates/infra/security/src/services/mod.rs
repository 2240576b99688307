//! Services that classify requests.

pub mod client_ip;
pub mod refusals;
pub mod scanner;

pub use refusals::RefusalCounts;
pub use scanner::ScannerDetector;
