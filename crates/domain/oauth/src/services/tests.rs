//! The token endpoint and its neighbours, on both engines, with a clock that the tests move.

mod bounds;
mod client;
mod client_secrets;
mod clients;
mod code;
mod contention;
mod counted;
mod device;
mod ends;
mod exchange;
mod federation;
mod fetched_keys;
mod logout;
mod people;
mod peppers;
pub(super) mod plane;
mod proofs;
mod refresh;
mod registration;
mod rotation;
mod shares;
mod standing;
mod tokens;
