//! The trait of our own tools, which run in a child of this binary.

use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A running call of one of our tools.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<ToolResult, ToolError>> + Send + 'a>>;

/// A tool of our own.
pub trait McpToolHandler: Send + Sync {
    fn tool_name(&self) -> &str;

    /// Its definition's `description`.
    fn description(&self) -> &str;

    /// JSON Schema of its arguments.
    fn input_schema(&self) -> Value;

    /// Members of its definition's `annotations`.
    fn annotations(&self) -> Value {
        json!({})
    }

    /// Carries a call out. The arguments fit the schema.
    fn handle<'a>(&'a self, arguments: &'a Value, context: &'a ToolContext) -> HandlerFuture<'a>;
}

/// What surrounds a call.
#[derive(Clone, Debug, Default)]
pub struct ToolContext {
    /// Cancelled when the caller gives up.
    pub cancel: CancellationToken,
    /// Takes (done, of how much, message); absent if the caller wants no progress.
    pub progress: Option<mpsc::Sender<(u64, u64, String)>>,
}

/// What a tool gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    pub text: String,
    pub structured: Option<Value>,
}

/// Why a tool could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    #[error("{0}")]
    Failed(String),
    /// The caller gave up; no answer is sent.
    #[error("cancelled")]
    Cancelled,
}

impl ToolResult {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), structured: None }
    }

    /// An object, and the same as text for clients that read only text.
    pub fn structured(value: Value) -> Self {
        Self { text: value.to_string(), structured: Some(value) }
    }
}
