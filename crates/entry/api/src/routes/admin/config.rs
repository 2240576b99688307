//! `POST /api/v1/admin/config/reload`: reads the configuration again, and answers when it is in force or refused.

use crate::extract::Context;
use crate::services::server::route::Route;
use axum::Json;
use axum::extract::State;
use serde_json::json;
use std::error::Error as _;
use systemprompt_config::Diagnostic;
use systemprompt_models::{Code, Refusal};
use systemprompt_runtime::{AppContext, ReloadError, Reloaded};

pub fn routes() -> Vec<Route> {
    vec![Route::post("/api/v1/admin/config/reload", reload).doc(
        "admin",
        "Reads the configuration again: 200 with what changed, 422 with the places of what is wrong",
    )]
}

async fn reload(
    State(context): State<AppContext>,
    Context(caller): Context,
) -> crate::Result<Json<Reloaded>> {
    Ok(Json(context.reload(&caller).await.map_err(refusal)?))
}

fn refusal(error: ReloadError) -> Refusal {
    match error {
        ReloadError::Invalid(findings) => invalid(&findings),
        ReloadError::Ledger(error) => error.into(),
        ReloadError::Rules(error) => error.into(),
        ReloadError::NotWatched => Refusal::new(Code::Conflict, error.to_string()),
        ReloadError::Busy => {
            tracing::warn!(%error, source = ?error.source(), "a reload was not carried out");
            Refusal::new(Code::Overloaded, error.to_string())
        }
    }
}

/// Every finding with file, line, column, what is allowed and what was probably meant; each error also as one sentence.
fn invalid(findings: &[Diagnostic]) -> Refusal {
    let reason = "the new configuration is not valid; the old one stays in force";
    let refusal = Refusal::new(Code::InvalidConfiguration, reason).with_findings(json!(findings));
    findings.iter().filter(|finding| finding.is_error()).fold(refusal, |refusal, finding| {
        let place = match (&finding.file, &finding.key) {
            (_, key) if !key.is_empty() => key.clone(),
            (Some(file), _) => file.display().to_string(),
            (None, _) => finding.code.to_owned(),
        };
        refusal.with_validation(place, finding.to_string())
    })
}
