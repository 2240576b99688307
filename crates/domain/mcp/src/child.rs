//! The child's side of our own servers: MCP over standard input and output, protocol 2025-11-25, tools only. It runs in a
//! process of its own (`systemprompt __mcp-server <name>`) and knows nothing of the gateway but its environment.

use crate::PROTOCOL_VERSIONS;
use crate::services::schema::Schema;
use crate::services::stdio::{Line, read_line};
use crate::services::tool::{McpToolHandler, ToolContext, ToolError, ToolResult};
use crate::wire::raw::RawObject;
use crate::wire::{Incoming, parse};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest line that is read.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// Calls at once.
const MAX_CALLS: usize = 256;
/// Lines that may wait to be written.
const OUTGOING: usize = 64;

/// What a server says of itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    pub name: &'static str,
    pub title: &'static str,
    pub instructions: &'static str,
}

/// The tools of a server.
pub struct ToolServer {
    info: ServerInfo,
    tools: Vec<Tool>,
}

struct Tool {
    handler: Arc<dyn McpToolHandler>,
    schema: Schema,
}

impl ToolServer {
    /// # Errors
    /// A tool whose schema is none.
    pub fn new(info: ServerInfo, handlers: Vec<Arc<dyn McpToolHandler>>) -> io::Result<Self> {
        let tools = handlers.into_iter().map(|handler| {
            let schema = Schema::compile(&handler.input_schema()).map_err(io::Error::other)?;
            Ok(Tool { handler, schema })
        });
        Ok(Self { info, tools: tools.collect::<io::Result<_>>()? })
    }

    /// Answers messages until the input ends.
    ///
    /// # Errors
    /// When the streams cannot be read or written.
    pub async fn serve<R, W>(self, input: R, mut output: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let server = Arc::new(self);
        let mut input = BufReader::new(input);
        let (outgoing, mut lines) = mpsc::channel::<Value>(OUTGOING);
        let mut calls: JoinSet<Box<str>> = JoinSet::new();
        let mut running: HashMap<Box<str>, CancellationToken> = HashMap::new();
        let mut line = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some(message) = lines.recv() => write(&mut output, &message).await?,
                Some(ended) = calls.join_next() => {
                    if let Ok(id) = ended {
                        running.remove(&id);
                    }
                }
                read = read_line(&mut input, &mut line, MAX_LINE) => match read? {
                    Line::End => break,
                    Line::TooLong => return Err(io::Error::other("a line is too long")),
                    Line::Whole => {
                        let answer = server.take(&line, &mut running, &mut calls, &outgoing);
                        if let Some(answer) = answer {
                            write(&mut output, &answer).await?;
                        }
                        line.clear();
                    }
                },
            }
        }
        calls.shutdown().await;
        Ok(())
    }

    /// Takes one message; a call runs on its own and answers later.
    fn take(
        self: &Arc<Self>,
        line: &[u8],
        running: &mut HashMap<Box<str>, CancellationToken>,
        calls: &mut JoinSet<Box<str>>,
        outgoing: &mpsc::Sender<Value>,
    ) -> Option<Value> {
        let message = match parse(line) {
            Ok(message) => message,
            Err(problem) => {
                return Some(json!({"jsonrpc": "2.0", "id": null,
                    "error": {"code": problem.code(), "message": problem.to_string()}}));
            }
        };
        match message {
            Incoming::Request { id, method, params } if method == "tools/call" => {
                if calls.len() >= MAX_CALLS {
                    return Some(error(id, -32000, "too many calls at once"));
                }
                let cancel = CancellationToken::new();
                running.insert(id.get().into(), cancel.clone());
                let (server, outgoing) = (Arc::clone(self), outgoing.clone());
                let (id, params) = (id.to_owned(), params.map(ToOwned::to_owned));
                calls.spawn(async move {
                    if let Some(answer) = server.call(&id, params.as_deref(), cancel, &outgoing).await {
                        let _ = outgoing.send(answer).await;
                    }
                    id.get().into()
                });
                None
            }
            Incoming::Request { id, method, params } => Some(self.answer(id, &method, params)),
            Incoming::Notification { method, params } => {
                if method == "notifications/cancelled"
                    && let Some(id) = params.and_then(RawObject::read).and_then(|p| p.get("requestId"))
                    && let Some(cancel) = running.get(id.get())
                {
                    cancel.cancel();
                }
                None
            }
            Incoming::Response => None,
        }
    }

    fn answer(&self, id: &RawValue, method: &str, params: Option<&RawValue>) -> Value {
        match method {
            "initialize" => {
                let wanted = params.and_then(RawObject::read).and_then(|p| p.string("protocolVersion"));
                let [latest, ..] = PROTOCOL_VERSIONS;
                let known = PROTOCOL_VERSIONS.into_iter().find(|v| Some(*v) == wanted.as_deref());
                success(
                    id,
                    &json!({
                        "protocolVersion": known.unwrap_or(latest),
                        "capabilities": {"tools": {}},
                        "serverInfo": {"name": self.info.name, "title": self.info.title, "version": env!("CARGO_PKG_VERSION")},
                        "instructions": self.info.instructions,
                    }),
                )
            }
            "ping" => success(id, &json!({})),
            "tools/list" => {
                let tools: Vec<Value> = self.tools.iter().map(|tool| definition(&*tool.handler)).collect();
                success(id, &json!({"tools": tools}))
            }
            _ => error(id, -32601, &format!("Method not found: {method}")),
        }
    }

    /// The answer of a call; none if it was cancelled.
    async fn call(
        &self,
        id: &RawValue,
        params: Option<&RawValue>,
        cancel: CancellationToken,
        outgoing: &mpsc::Sender<Value>,
    ) -> Option<Value> {
        let params = params.and_then(RawObject::read).unwrap_or_default();
        let name = params.string("name").unwrap_or_default();
        let Some(tool) = self.tools.iter().find(|tool| tool.handler.tool_name() == name) else {
            return Some(error(id, -32602, &format!("Unknown tool: {name}")));
        };
        let arguments = params.get("arguments").map_or_else(|| json!({}), value);
        if let Some(wrong) = tool.schema.violations(&arguments).first() {
            let text = format!("the arguments do not fit: {}: {}", wrong.pointer, wrong.message);
            return Some(success(id, &failed(&text)));
        }
        let meta = params.get("_meta").and_then(RawObject::read).unwrap_or_default();
        let token = meta.get("progressToken").map(value);
        let (progress, mut told) = mpsc::channel(8);
        let context = ToolContext { cancel: cancel.clone(), progress: token.is_some().then_some(progress) };
        let handled = tool.handler.handle(&arguments, &context);
        tokio::pin!(handled);
        let note = |(done, of, message): (u64, u64, String)| {
            let params = json!({"progressToken": token, "progress": done, "total": of, "message": message});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        };
        let outcome = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                Some(step) = told.recv() => drop(outgoing.send(note(step)).await),
                outcome = &mut handled => break outcome,
            }
        };
        // What was told in the last moment still goes before the answer.
        while let Ok(step) = told.try_recv() {
            drop(outgoing.send(note(step)).await);
        }
        match outcome {
            Ok(ToolResult { text, structured }) => {
                let mut result = json!({"content": [{"type": "text", "text": text}], "isError": false});
                if let (Some(structured), Some(map)) = (structured, result.as_object_mut()) {
                    map.insert("structuredContent".into(), structured);
                }
                Some(success(id, &result))
            }
            Err(ToolError::Failed(text)) => Some(success(id, &failed(&text))),
            Err(ToolError::Cancelled) => None,
        }
    }
}

fn definition(tool: &dyn McpToolHandler) -> Value {
    json!({
        "name": tool.tool_name(),
        "description": tool.description(),
        "inputSchema": tool.input_schema(),
        "annotations": tool.annotations(),
    })
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

fn failed(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": true})
}

fn success(id: &RawValue, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": value(id), "result": result})
}

fn error(id: &RawValue, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": value(id), "error": {"code": code, "message": message}})
}

async fn write<W: AsyncWrite + Unpin>(output: &mut W, message: &Value) -> io::Result<()> {
    let mut line = message.to_string();
    line.push('\n');
    output.write_all(line.as_bytes()).await?;
    output.flush().await
}

/// Serves on the standard streams of this process.
pub(crate) async fn on_standard_streams(server: ToolServer) -> io::Result<()> {
    server.serve(tokio::io::stdin(), tokio::io::stdout()).await
}
