//! `up`: makes what is missing (profile, keys, secrets, database), then serves in the foreground. With `--demo` there is
//! something to try at once.

use crate::exit::{CliError, Exit};
use crate::globals::Globals;
use crate::node::{self, Node, Start};
use crate::running;
use serde_json::json;
use std::net::{Ipv4Addr, TcpListener};
use systemprompt_config::profile::database::DatabaseKind;
use systemprompt_config::secrets::file::{generate_missing, set_secret};
use systemprompt_config::{
    DataPaths, LoadOptions, NewProfile, Profile, ProfileLocation, Secrets, init_profile,
};
use systemprompt_models::Secret;
use systemprompt_oauth::services::setup;
use systemprompt_runtime::demo::{self, DemoTokens};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Adds a demo model, a demo tool server with a secret, users and rules
    #[arg(long)]
    pub demo: bool,
    /// Port to listen on; 0 picks a free one
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Prints one line of JSON on standard output when ready
    #[arg(long)]
    pub json: bool,
    /// PostgreSQL address for a new profile, read from this file [default: SQLite in the data folder]
    #[arg(long, value_name = "FILE")]
    pub database_url_file: Option<std::path::PathBuf>,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let location = globals.location()?;
    let port = match args.port {
        Some(0) => Some(free_port()?),
        port => port,
    };
    let made = !location.profile_file().is_file();
    running::refuse(globals, &location, "use it, or stop it first").await?;
    if made {
        make_profile(&location, &args, port)?;
    }
    let (profile, secrets) = complete(&location, &args)?;
    let mut flags = Vec::new();
    if let Some(port) = port.filter(|port| *port != profile.server.port) {
        // The issuer stays what tokens were signed under; only the port changes.
        flags.push(("security.jwt_issuer".to_owned(), profile.jwt_issuer()));
        flags.push(("server.port".to_owned(), port.to_string()));
    }
    if args.demo {
        let paths = location.resolve(&profile);
        let has_secret = secrets.get(demo::DEMO_SECRET).is_some();
        demo::prepare(&paths, profile.secrets.file_mode, has_secret)
            .map_err(|error| CliError::new(Exit::Failure, "the demo cannot be prepared").why(error))?;
    }
    let node = node::start(Start { location, flags, verbose: globals.verbose }).await?;
    let tokens = if args.demo && node.can_record() { Some(seed(&node).await?) } else { None };
    node.install_operator().await?;
    let setup = if node.can_record() { first_administrator(&node).await? } else { None };
    let told = Told { tokens: tokens.as_ref(), setup: setup.as_ref(), made };
    node.serve(|node| announce(node, &told, args.json)).await;
    Ok(Exit::Ok)
}

/// A port that is free at this moment. It goes into a new profile, so that tokens and addresses outlive a restart.
fn free_port() -> Result<u16, CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn make_profile(location: &ProfileLocation, args: &Args, port: Option<u16>) -> Result<(), CliError> {
    let database =
        if args.database_url_file.is_some() { DatabaseKind::Postgres } else { DatabaseKind::Sqlite };
    init_profile(location, &NewProfile { database, port, demo: args.demo })
        .map_err(|error| CliError::new(Exit::Failure, "the profile cannot be made").why(error))?;
    anstream::eprintln!("made the profile {}", location.profile_file().display());
    Ok(())
}

/// Makes missing platform secrets and reads what there is.
fn complete(location: &ProfileLocation, args: &Args) -> Result<(Profile, Secrets), CliError> {
    let (profile, _) = systemprompt_config::load::load_profile(&LoadOptions::new(location.clone()))
        .map_err(node::invalid)?;
    let paths = location.resolve(&profile);
    let failed = |error: systemprompt_config::SecretsError| {
        let fix = error.remedy();
        let refused = CliError::new(Exit::Failure, "the secrets file cannot be completed").why(&error);
        match fix {
            Some(fix) => refused.fix(fix),
            None => refused,
        }
    };
    let url = match &args.database_url_file {
        Some(file) => Secret::new(std::fs::read_to_string(file)?.trim().to_owned()),
        None => default_url(&paths),
    };
    let made =
        generate_missing(&paths.secrets_file, profile.secrets.file_mode, url.expose()).map_err(failed)?;
    if !made.is_empty() {
        anstream::eprintln!("made the secrets {} in {}", made.join(", "), paths.secrets_file.display());
    }
    if args.database_url_file.is_some() && !made.contains(&"database_url") {
        set_secret(&paths.secrets_file, profile.secrets.file_mode, "database_url", &url).map_err(failed)?;
    }
    let text = std::fs::read_to_string(&paths.secrets_file)?;
    let secrets = Secrets::parse(&text).map_err(failed)?;
    Ok((profile, secrets))
}

/// The data folder's own file, counted from the folder, so that a copy of it works on its own database.
fn default_url(paths: &DataPaths) -> Secret<String> {
    let file = paths.database_file.strip_prefix(paths.data_dir()).unwrap_or(&paths.database_file);
    Secret::new(format!("sqlite:{}", file.display()))
}

async fn seed(node: &Node) -> Result<DemoTokens, CliError> {
    demo::seed(&node.context)
        .await
        .map_err(|error| CliError::new(Exit::Failure, "the demo cannot be seeded").why(error))
}

/// The link under which the first administrator is made, while there is none who can sign in.
async fn first_administrator(node: &Node) -> Result<Option<Secret<String>>, CliError> {
    setup::first_administrator(&node.context.oauth)
        .await
        .map_err(|error| CliError::new(Exit::Failure, "the set-up link cannot be made").why(error))
}

/// What is told of a node beside where it is.
struct Told<'a> {
    tokens: Option<&'a DemoTokens>,
    /// Link of the first administrator.
    setup: Option<&'a Secret<String>>,
    /// Whether the profile is new.
    made: bool,
}

/// Says where the node is and what to try. The console is null: its room is empty.
fn announce(node: &Node, told: &Told<'_>, as_json: bool) {
    let Told { tokens, setup, made } = *told;
    if as_json {
        let demo = tokens.map(|tokens| {
            json!({
                "admin_token": tokens.admin.expose().as_str(),
                "user_token": tokens.user.expose().as_str(),
                "client_id": demo::DEMO_CLIENT,
                "client_secret": tokens.client_secret.expose().as_str(),
            })
        });
        let line = json!({
            "api_url": node.url,
            "console_url": null,
            "setup_url": setup.map(|link| link.expose().as_str()),
            "data_dir": node.data_dir(),
            "demo": demo,
        });
        anstream::println!("{line}");
        return;
    }
    anstream::println!("systemprompt is ready");
    anstream::println!("  API          {}", node.url);
    anstream::println!("  OpenAPI      {}/api/v1/openapi.json", node.url);
    anstream::println!("  data folder  {}{}", node.data_dir().display(), if made { " (new)" } else { "" });
    if let Some(link) = setup {
        anstream::println!("  set-up link  {}", link.expose());
        anstream::println!("               (once, within a day: makes the first administrator)");
    }
    let Some(tokens) = tokens else {
        anstream::println!("  next         systemprompt admin users create NAME --role user");
        return;
    };
    if !node.has_demo_model() {
        // The profile was made without --demo, and is not rewritten.
        anstream::println!(
            "\nThe demo's people, tools and rules are here, and these tokens work for 24 hours. The profile has no provider of\n\
             type `demo`, so that no demo model answers: add one to the profile, or use a new folder."
        );
        anstream::println!("\nexport URL={}", node.url);
        anstream::println!("export ADA={}", tokens.admin.expose());
        anstream::println!("export BOB={}", tokens.user.expose());
        return;
    }
    anstream::println!(
        "\nThis is the demo: its model answers without a provider, and these tokens work for 24 hours."
    );
    anstream::println!("Paste into another terminal (ada is an administrator, bob a user):\n");
    anstream::println!("export URL={}", node.url);
    anstream::println!("export ADA={}", tokens.admin.expose());
    anstream::println!("export BOB={}", tokens.user.expose());
    anstream::println!("export CLIENT_ID={}", demo::DEMO_CLIENT);
    anstream::println!("export CLIENT_SECRET={}", tokens.client_secret.expose());
    anstream::println!(
        "\nThen `systemprompt demo` shows every step of the main job, or try the three calls of the README."
    );
}
