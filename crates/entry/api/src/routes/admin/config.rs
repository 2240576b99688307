//! `POST /api/v1/admin/config/reload`.

use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/admin/config/reload", reload)
            .doc("admin", "Reads the configuration again; the outcome shows in health detail and log"),
    ]
}

async fn reload(State(context): State<AppContext>) -> crate::Result<(StatusCode, Json<Value>)> {
    if !context.reload() {
        return Err(Refusal::new(Code::Conflict, "this node does not watch its configuration").into());
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"hash": context.config().hash}))))
}
