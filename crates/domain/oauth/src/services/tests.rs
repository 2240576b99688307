//! The token endpoint and its neighbours, on both engines, with a clock that the tests move.

mod client;
mod clients;
mod code;
mod device;
mod exchange;
mod people;
mod plane;
mod refresh;
mod tokens;
