//! `HEAD /` and `HEAD /api/hello`: coding agents ask whether the base URL answers. No database, no record.

use http::StatusCode;

pub async fn hello() -> StatusCode {
    StatusCode::OK
}
