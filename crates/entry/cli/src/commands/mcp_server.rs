//! `__mcp-server NAME` (hidden): the internal MCP servers, run as children of the node.

use crate::exit::{CliError, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// `demo` or `systemprompt-admin`
    pub name: String,
}

pub async fn run(args: Args) -> Result<Exit, CliError> {
    match args.name.as_str() {
        "demo" => systemprompt_mcp::demo_server::run_demo_server().await?,
        "systemprompt-admin" => systemprompt_mcp::admin_server::run_admin_server().await?,
        other => return Err(CliError::new(Exit::Usage, format!("there is no internal server `{other}`"))),
    }
    Ok(Exit::Ok)
}
