//! `demo`, a server of this binary that shows what governance does (MCP-88): one tool works with a secret, two try to give it
//! away, one takes its time, one is destructive. The secret exists in this process and in the small CRM beside it, which
//! answers nobody who does not bring it.

mod crm;
mod tools;

use crate::child::{ServerInfo, ToolServer, on_standard_streams};
use crate::services::tool::McpToolHandler;
use crm::{Crm, CrmClient};
use std::io;
use std::sync::Arc;
use systemprompt_config::{Environment, ProcessEnvironment};
use tools::{CrmLookup, DeleteCustomer, EchoEnvironment, LeakSecret, SlowReport, WhoAmI};

/// The secret of this server, as its file declares it.
pub const SECRET: &str = "demo_crm_token";

/// Runs the server on the standard streams until its input ends.
///
/// # Errors
/// When the secret is missing, or the streams cannot be read or written.
pub async fn run_demo_server() -> io::Result<()> {
    let environment: Arc<dyn Environment> = Arc::new(ProcessEnvironment);
    let token = environment.get(SECRET).ok_or_else(|| io::Error::other(format!("{SECRET} is not set")))?;
    let crm = Crm::start(&token).await?;
    let client = CrmClient::new(crm.address(), token).map_err(io::Error::other)?;
    tokio::select! {
        ended = on_standard_streams(server(client, environment)?) => ended,
        ended = crm.serve() => ended,
    }
}

fn server(client: CrmClient, environment: Arc<dyn Environment>) -> io::Result<ToolServer> {
    let info = ServerInfo {
        name: "demo",
        title: "Demo CRM",
        instructions: "A small customer register. Use crm_lookup with ids such as c-1001.",
    };
    let client = Arc::new(client);
    let tools: Vec<Arc<dyn McpToolHandler>> = vec![
        Arc::new(CrmLookup(Arc::clone(&client))),
        Arc::new(EchoEnvironment(Arc::clone(&environment))),
        Arc::new(LeakSecret(Arc::clone(&client))),
        Arc::new(SlowReport),
        Arc::new(DeleteCustomer(client)),
        Arc::new(WhoAmI(environment)),
    ];
    ToolServer::new(info, tools)
}

#[cfg(test)]
mod tests;
