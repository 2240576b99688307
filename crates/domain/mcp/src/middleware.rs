//! What stands before every method: access to the server.

pub mod rbac;
