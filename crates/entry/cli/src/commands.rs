//! One file per command.

pub mod about;
pub mod admin;
pub mod audit;
pub mod can;
pub mod config;
pub mod db;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod hook;
pub mod mcp_server;
pub mod policy;
pub mod serve;
pub mod up;
pub mod validate;
pub mod wait;
