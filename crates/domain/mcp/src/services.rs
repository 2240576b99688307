//! Servers, their children, and the calls of their tools.

pub mod definitions;
pub mod limits;
pub mod loader;
pub mod registry;
pub mod schema;
pub mod spawner;
pub mod stderr;
pub mod stdio;
pub mod supervisor;
pub mod tool;
