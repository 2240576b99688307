//! Services that classify requests.

pub mod scanner;

pub use scanner::ScannerDetector;
