//! `POST /api/v1/core/oauth/introspect` (RFC 7662): for clients that prove themselves, and for administrators.

use super::token::request;
use crate::routes::oauth::answer::json_answer;
use crate::routes::oauth::form::{FORM_BODY, Form};
use crate::routes::oauth::visitor::of_bearer;
use crate::services::server::route::Route;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::Permission;
use systemprompt_models::envelope::Envelope;
use systemprompt_oauth::OauthResult;
use systemprompt_oauth::services::introspection::{Asker, introspect, refuse, unproven};
use systemprompt_runtime::AppContext;

pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/core/oauth/introspect", answer)
            .public(RateGroup::OauthToken)
            .envelope(Envelope::OAuth)
            .body_limit(FORM_BODY)
            .doc("identity", "Whether a token counts, and what it says"),
    ]
}

async fn answer(State(context): State<AppContext>, form: Form) -> Response {
    let seen = match asker(&context, &form).await {
        Ok(asker) => introspect(&context.oauth, asker).await,
        Err(error) => Err(error),
    };
    match seen {
        Ok(seen) => json_answer(StatusCode::OK, &seen),
        Err(error) => form.fault(error),
    }
}

/// Whoever shows a bearer token must be an administrator; everybody else is a client.
async fn asker<'a>(context: &AppContext, form: &'a Form) -> OauthResult<Asker<'a>> {
    let scheme = form.authorization().and_then(|header| header.split_once(' ')).map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer")) {
        return Ok(Asker::Client(request(form)));
    }
    let error = match of_bearer(context, &form.headers, form.context.client_ip).await {
        Ok(principal) if principal.has(Permission::Admin) => return Ok(Asker::Administrator(request(form))),
        Err(error) if error.is_ours() => error,
        _ => unproven(),
    };
    Err(refuse(&context.oauth, &form.context, error).await)
}
