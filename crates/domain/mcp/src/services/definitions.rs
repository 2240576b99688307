//! The tools of a running child: their definitions as it sent them, cleaned of values in use, with what validates arguments.

use super::schema::{Schema, SchemaError};
use super::stdio::{Answer, CallOptions, Connection, StdioError};
use crate::wire::raw::{RawObject, raw, to_raw};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::time::Duration;
use systemprompt_leak::Scanner;
use tokio::time::Instant;

/// Most tools of a server, and most pages of its list (MCP-83).
const MAX_TOOLS: usize = 2000;
const MAX_PAGES: usize = 50;
/// Longest tool name, in bytes: `server/tool` must fit an entity id.
pub const MAX_TOOL_NAME: usize = 200;

/// One tool.
#[derive(Debug)]
pub struct Definition {
    pub name: Box<str>,
    pub raw: Box<RawValue>,
    pub schema: Schema,
}

/// The tools of one child, in its order.
#[derive(Debug)]
pub struct Definitions {
    pub tools: Vec<Definition>,
    pub loaded_at: Instant,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Transport(#[from] StdioError),
    #[error("the server answered tools/list with an error")]
    Refused,
    #[error("the server's list of tools is not what the protocol describes")]
    Malformed,
    #[error("the server has more than {MAX_TOOLS} tools or {MAX_PAGES} pages of them")]
    TooMany,
}

impl Definitions {
    pub fn none() -> Self {
        Self { tools: Vec::new(), loaded_at: Instant::now() }
    }

    pub fn find(&self, name: &str) -> Option<&Definition> {
        self.tools.iter().find(|tool| &*tool.name == name)
    }

    /// Asks a child for its tools, page by page.
    ///
    /// # Errors
    /// [`ListError`]. A single tool that cannot be used is left out and logged instead.
    pub async fn load(
        server: &str,
        connection: &Connection,
        timeout: Duration,
        scanner: &Scanner,
    ) -> Result<Self, ListError> {
        let mut list = Self::none();
        let mut names = HashSet::new();
        let mut cursor: Option<Box<RawValue>> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.take().map(|c| raw(format!("{{\"cursor\":{}}}", c.get())));
            let params = params.as_deref().and_then(RawObject::read);
            let answer = connection.call("tools/list", params, CallOptions::within(timeout)).await?;
            let Answer::Result(page) = answer else { return Err(ListError::Refused) };
            let page = RawObject::read(&page).ok_or(ListError::Malformed)?;
            let tools = page.get("tools").ok_or(ListError::Malformed)?;
            let tools: Vec<&RawValue> =
                serde_json::from_str(tools.get()).map_err(|_| ListError::Malformed)?;
            for tool in tools {
                match Definition::read(tool, scanner) {
                    Ok(tool) if names.insert(tool.name.clone()) => list.tools.push(tool),
                    Ok(tool) => {
                        tracing::warn!(server, tool = %tool.name, "a tool was listed twice; the first one counts");
                    }
                    Err(problem) => tracing::warn!(server, %problem, "a tool is withheld"),
                }
            }
            if list.tools.len() > MAX_TOOLS {
                return Err(ListError::TooMany);
            }
            cursor = page.get("nextCursor").filter(|c| c.get() != "null").map(ToOwned::to_owned);
            if cursor.is_none() {
                return Ok(list);
            }
        }
        Err(ListError::TooMany)
    }
}

/// Why a tool is left out.
#[derive(Debug, thiserror::Error)]
enum Withheld {
    #[error("its definition has no name of 1 to {MAX_TOOL_NAME} visible characters")]
    Name,
    #[error("the inputSchema of `{name}` cannot be used: {source}")]
    Schema { name: String, source: SchemaError },
}

impl Definition {
    fn read(text: &RawValue, scanner: &Scanner) -> Result<Self, Withheld> {
        let mut value: Value = serde_json::from_str(text.get()).map_err(|_| Withheld::Name)?;
        let hits = scanner.redact_message(&mut value);
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let visible = |c: char| !c.is_control() && !c.is_whitespace() && c != '/';
        if name.is_empty() || name.len() > MAX_TOOL_NAME || !name.chars().all(visible) {
            return Err(Withheld::Name);
        }
        let schema = value.get("inputSchema").cloned().unwrap_or(Value::Null);
        let schema =
            Schema::compile(&schema).map_err(|source| Withheld::Schema { name: name.clone(), source })?;
        let raw = if hits.is_empty() { text.to_owned() } else { to_raw(&value) };
        Ok(Self { name: name.into(), raw, schema })
    }
}
