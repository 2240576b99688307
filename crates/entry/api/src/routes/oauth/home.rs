//! `GET /`: what a browser sees that was given the address of the API; and the documents of this very version.

use super::json::session_of;
use super::login::canonical;
use super::page::{error_page, frame, page};
use super::session::renewed;
use crate::extract::Context;
use crate::services::server::route::Route;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use systemprompt_config::profile::rate_limits::RateGroup;
use systemprompt_models::{Code, Refusal};
use systemprompt_oauth::OauthResult;
use systemprompt_oauth::services::authorize::standing::SignedIn;
use systemprompt_oauth::services::pages::{HomePage, Person};
use systemprompt_oauth::services::templating::{Frame, Page};
use systemprompt_runtime::AppContext;

/// The documents, by name.
const DOCUMENTS: [(&str, &str); 5] = [
    ("README.md", include_str!("../../../../../../README.md")),
    ("audit.md", include_str!("../../../../../../docs/audit.md")),
    ("identity.md", include_str!("../../../../../../docs/identity.md")),
    ("policies.md", include_str!("../../../../../../docs/policies.md")),
    ("security.md", include_str!("../../../../../../docs/security.md")),
];

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/", home)
            .public(RateGroup::OauthPublic)
            .doc("identity", "The page that leads to signing in and to the documents"),
        Route::get("/api/v1/docs/{name}", document)
            .public(RateGroup::Content)
            .doc("identity", "A document of this version, as text"),
    ]
}

async fn home(
    State(context): State<AppContext>,
    Context(caller): Context,
    (uri, headers): (Uri, HeaderMap),
) -> Response {
    if let Some(elsewhere) = canonical(&context, &headers, &uri) {
        return elsewhere;
    }
    let shown = frame(&context, &headers, None);
    match rendered(&context, &headers, shown.clone()).await {
        Ok(rendered) => renewed(&context, &caller, &headers, page(StatusCode::OK, &rendered)).await,
        Err(error) => error_page(shown, &caller, &error),
    }
}

async fn rendered(context: &AppContext, headers: &HeaderMap, frame: Frame) -> OauthResult<Page> {
    let visitor = session_of(context, headers).await;
    let signed_in = SignedIn::find(&context.oauth, visitor.as_deref()).await?;
    let person = signed_in.map(|signed_in| Person::from(&signed_in.user));
    Page::render(&HomePage { frame, person })
}

async fn document(Path(name): Path<String>) -> crate::Result<Response> {
    let found = DOCUMENTS.into_iter().find(|(known, _)| *known == name);
    let (_, text) = found.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such document"))?;
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, text).into_response())
}
