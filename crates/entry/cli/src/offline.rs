//! `--offline`: the routes of the server in this process, on the database, for when no server runs. A second process would
//! take the ledger's stream away from a running one, so a server that answers is a conflict.

use crate::client::{Answer, Ask, Client, server_url};
use crate::credentials::Credentials;
use crate::exit::{CliError, Exit};
use crate::globals::{Globals, no_profile};
use crate::node::boot_error;
use crate::operator;
use axum::Router;
use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use std::time::Duration;
use systemprompt_api::services::server::api_server::router;
use systemprompt_config::ProfileLocation;
use systemprompt_config::profile::runtime::{LogLevel, RuntimeConfig};
use systemprompt_runtime::{AppContext, BootOptions, boot, telemetry};
use tower::ServiceExt;

/// How long a server may take to show that it is there.
const PROBE: Duration = Duration::from_secs(2);

/// Life of the token that one command acts with.
const LIFE: Duration = Duration::from_mins(15);

/// A booted node without a listener.
pub struct Offline {
    context: AppContext,
    router: Router,
    token: String,
}

impl Offline {
    /// Boots the profile's node.
    ///
    /// # Errors
    /// No profile (5), a server that answers (6), or a boot that fails.
    pub async fn open(globals: &Globals) -> Result<Self, CliError> {
        let location = globals.location()?;
        if !location.profile_file().is_file() {
            return Err(no_profile(&location));
        }
        if let Some(url) = running(globals, &location).await {
            return Err(CliError::new(Exit::Conflict, "the server of this profile is running")
                .why(format!("it answers at {url}; a second process would take its ledger away"))
                .fix("leave --offline out, or stop the server"));
        }
        anstream::eprintln!("no server: working on the database directly");
        let parts = boot::pipeline_parts(std::sync::Arc::new(systemprompt_models::SystemClock));
        let quiet = RuntimeConfig { log_level: LogLevel::Error, ..RuntimeConfig::default() };
        telemetry::init(&quiet, globals.verbose, parts.map_err(boot_error)?.scanner);
        let mut options = BootOptions::new(location);
        options.watch = false;
        let context = AppContext::boot(options).await.map_err(boot_error)?;
        let failed = |error| CliError::new(Exit::Failure, "the routes cannot be built").why(error);
        let made = match router(&context) {
            Ok(router) => operator::token(&context, LIFE).await.map(|token| (router, token)),
            Err(error) => Err(failed(error)),
        };
        match made {
            Ok((router, token)) => {
                context.set_ready();
                Ok(Self { context, router, token })
            }
            Err(error) => {
                context.close().await;
                Err(error)
            }
        }
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Answers as the server would.
    ///
    /// # Errors
    /// A request that is none.
    pub async fn answer(&self, ask: &Ask<'_>, token: Option<&str>) -> Result<Answer, CliError> {
        let mut request = Request::builder().method(ask.method()).uri(ask.path());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in ask.headers() {
            request = request.header(*name, value);
        }
        if ask.body().is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Body::from(ask.body().unwrap_or_default().to_vec());
        let request = request.body(body).map_err(|e| CliError::new(Exit::Usage, "no such request").why(e))?;
        let response = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = response.into_parts();
        let body = body.collect().await;
        let body = body.map_err(|e| CliError::new(Exit::Failure, "the answer broke off").why(e))?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes().to_vec() })
    }

    pub async fn close(self) {
        self.context.close().await;
    }
}

/// The address at which a server of this profile answers, if one does.
pub async fn running(globals: &Globals, location: &ProfileLocation) -> Option<String> {
    let stored = Credentials::read(location).map(|stored| stored.url);
    let configured = globals.load_profile().ok().map(|(_, profile)| server_url(&profile));
    let mut urls: Vec<String> = [stored, configured].into_iter().flatten().collect();
    urls.dedup();
    for url in urls {
        let Ok(client) = Client::at(&url, None) else { continue };
        let answer = client.send(Ask::get("/health/live").timeout(PROBE)).await;
        // Ours is told by what it says from whatever else may have the port.
        if answer.is_ok_and(|answer| answer.json().get("status").is_some_and(|status| status == "ok")) {
            return Some(url);
        }
    }
    None
}
