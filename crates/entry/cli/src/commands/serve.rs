//! `serve`: an existing profile; fails with the reason where `up` would create something.

use crate::exit::{CliError, Exit};
use crate::globals::{Globals, no_profile};
use crate::node::{self, Node, Start};
use crate::running;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port instead of the profile's
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
}

pub async fn run(globals: &Globals, args: Args) -> Result<Exit, CliError> {
    let location = globals.location()?;
    if !location.profile_file().is_file() {
        return Err(no_profile(&location));
    }
    running::refuse(globals, &location, "use it, or stop it first").await?;
    let flags = args.port.map(|port| ("server.port".to_owned(), port.to_string())).into_iter().collect();
    let node = node::start(Start { location, flags, verbose: globals.verbose }).await?;
    node.install_operator().await?;
    let ready = |node: &Node| {
        anstream::eprintln!("systemprompt serves {} (data folder {})", node.url, node.data_dir().display());
    };
    node.serve(ready).await;
    Ok(Exit::Ok)
}
