//! `--offline`: the routes of the server in this process, on the database, for when no server runs. A second process would
//! take the ledger's stream away from a running one, so a server that answers is a conflict.

use crate::client::{Answer, Ask};
use crate::exit::{CliError, Exit};
use crate::globals::{Globals, no_profile};
use crate::node::boot_error;
use crate::operator;
use crate::running;
use axum::Router;
use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt;
use std::time::Duration;
use systemprompt_api::services::server::api_server::router;
use systemprompt_config::profile::runtime::{LogLevel, RuntimeConfig};
use systemprompt_runtime::{AppContext, BootOptions, boot, telemetry};
use tower::ServiceExt;

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
        running::refuse(globals, &location, "leave --offline out, or stop the server").await?;
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
