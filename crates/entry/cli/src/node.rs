//! A node in the foreground: bind, boot, serve until told to end, drain.

use crate::credentials::Credentials;
use crate::exit::{CliError, Exit};
use crate::operator;
use std::time::Duration;
use systemprompt_api::Server;
use systemprompt_api::services::server::api_server::{router, stop};
use systemprompt_config::profile::gateway::ProviderKind;
use systemprompt_config::profile::runtime::RuntimeConfig;
use systemprompt_config::{LoadOptions, Profile, ProfileLocation};
use systemprompt_runtime::{AppContext, BootError, BootOptions, boot, telemetry};

/// Life of the operator's token; a longer run issues a new one with the next start.
const OPERATOR_TOKEN_LIFE: Duration = Duration::from_hours(24);

/// A bound, booted and opened node.
pub struct Node {
    pub context: AppContext,
    pub server: Server,
    pub url: String,
}

/// What to start.
pub struct Start {
    pub location: ProfileLocation,
    /// Settings from the command line, as (dotted key, value).
    pub flags: Vec<(String, String)>,
    pub verbose: u8,
}

/// Binds first, so that probes are answered while the node boots; then boots and opens.
///
/// # Errors
/// The step that failed, with its cause and what mends it.
pub async fn start(start: Start) -> Result<Node, CliError> {
    let mut load = LoadOptions::new(start.location.clone());
    load.flags.clone_from(&start.flags);
    let (profile, _) = systemprompt_config::load::load_profile(&load).map_err(invalid)?;
    init_logs(&profile.runtime, start.verbose)?;
    let data_dir = start.location.resolve(&profile).data_dir().to_path_buf();
    let server = bind(&profile, &data_dir).await?;
    let mut options = BootOptions::new(start.location);
    options.flags = start.flags;
    let context = AppContext::boot(options).await.map_err(boot_error)?;
    let router = router(&context)
        .map_err(|error| CliError::new(Exit::Failure, "the routes cannot be built").why(error))?;
    server.state().open(router);
    let url = format!("http://localhost:{}", server.local_addr().port());
    Ok(Node { context, server, url })
}

fn init_logs(config: &RuntimeConfig, verbose: u8) -> Result<(), CliError> {
    let parts =
        boot::pipeline_parts(std::sync::Arc::new(systemprompt_models::SystemClock)).map_err(boot_error)?;
    telemetry::init(config, verbose, parts.scanner);
    Ok(())
}

async fn bind(profile: &Profile, data_dir: &std::path::Path) -> Result<Server, CliError> {
    let config = &profile.server;
    Server::bind(config, config.port, data_dir).await.map_err(|error| {
        let internal = config.internal_listener.as_ref();
        let internal = internal.map_or_else(String::new, |address| format!(" or {address}"));
        CliError::new(Exit::Failure, format!("{}:{}{internal} cannot be bound", config.host, config.port))
            .why(error)
            .fix("choose another port with --port, or end the program that has it")
    })
}

impl Node {
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.context.config().paths.data_dir().to_path_buf()
    }

    /// Whether the profile has the offline demo model.
    pub fn has_demo_model(&self) -> bool {
        let config = self.context.config();
        config.profile.gateway.providers.iter().any(|provider| provider.kind == ProviderKind::Demo)
    }

    /// Lets the command line of this machine act as an administrator.
    ///
    /// # Errors
    /// When the user, the token or the file cannot be made.
    pub async fn install_operator(&self) -> Result<(), CliError> {
        if !self.can_record() {
            // The node still serves health and reads to whoever holds a token whose session this database has.
            let condition = self.context.ledger.condition();
            anstream::eprintln!(
                "warning: {}: guarded calls are refused, and no credential was issued to this command line; `systemprompt audit verify --offline` \
                 says where",
                condition.code()
            );
            return self.tell_address();
        }
        let token = operator::token(&self.context, OPERATOR_TOKEN_LIFE).await?;
        let location = &self.context.config().paths.location;
        let written = Credentials::new(location, self.url.clone(), token).write(location);
        written
            .map_err(|error| CliError::new(Exit::Failure, "the operator's file cannot be written").why(error))
    }

    /// Keeps the credential of an earlier start, and says where this one answers.
    fn tell_address(&self) -> Result<(), CliError> {
        let location = &self.context.config().paths.location;
        let Some(stored) = Credentials::read(location) else { return Ok(()) };
        let written = Credentials::new(location, self.url.clone(), stored.token).write(location);
        written
            .map_err(|error| CliError::new(Exit::Failure, "the operator's file cannot be written").why(error))
    }

    /// Whether the ledger takes records; a damaged one is only read.
    pub fn can_record(&self) -> bool {
        self.context.ledger.condition().is_ready()
    }

    /// Says ready, calls `announce`, serves until SIGTERM or SIGINT, and drains. A second signal cuts the drain short.
    pub async fn serve(self, announce: impl FnOnce(&Self)) {
        // Whoever reads that the node is ready may tell it to end at once.
        let told_to_end = systemprompt_runtime::shutdown_signal();
        self.context.set_ready();
        announce(&self);
        told_to_end.await;
        tokio::select! {
            () = stop(&self.context, self.server) => {}
            () = systemprompt_runtime::shutdown_signal() => {
                tracing::warn!("second signal: ending at once");
                self.context.close().await;
            }
        }
    }
}

/// An invalid profile: every finding, one a line.
pub fn invalid(findings: Vec<systemprompt_config::Diagnostic>) -> CliError {
    let text = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       ");
    CliError::new(Exit::Invalid, "the configuration is not valid")
        .why(text)
        .fix("`systemprompt validate` shows the places")
}

/// A boot that failed: the step, its cause.
pub fn boot_error(error: BootError) -> CliError {
    match error {
        BootError::Config(findings) => invalid(findings),
        error if error.is_conflict() => {
            CliError::new(Exit::Conflict, format!("the node did not start: {error}"))
                .why("a second process would take the ledger away from the first")
                .fix("use the one that runs, or stop it first")
        }
        error => {
            let exit = if error.is_invalid_profile() { Exit::Invalid } else { Exit::Failure };
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            let text = cause.to_string();
            let what = CliError::new(exit, format!("the node did not start: {error}"));
            if error.to_string().contains(&text) { what } else { what.why(text) }
        }
    }
}
