//! The tools of the demo.

use super::crm::CrmClient;
use crate::services::tool::{HandlerFuture, McpToolHandler, ToolContext, ToolError, ToolResult};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_config::Environment;

/// Longest report, in seconds.
const MAX_REPORT: u64 = 120;

/// Looks a customer up, with the secret.
pub(super) struct CrmLookup(pub Arc<CrmClient>);

/// Gives its whole environment away.
pub(super) struct EchoEnvironment(pub Arc<dyn Environment>);

/// Gives the secret away in an encoding of choice.
pub(super) struct LeakSecret(pub Arc<CrmClient>);

/// Takes its time, tells progress, and can be cancelled.
pub(super) struct SlowReport;

/// Deletes a customer.
pub(super) struct DeleteCustomer(pub Arc<CrmClient>);

/// Tells who the server is and which secrets it holds, by name.
pub(super) struct WhoAmI(pub Arc<dyn Environment>);

fn no_arguments() -> Value {
    json!({"type": "object", "additionalProperties": false})
}

fn one_customer() -> Value {
    json!({
        "type": "object",
        "properties": {"customer_id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "For example c-1001."}},
        "required": ["customer_id"],
        "additionalProperties": false,
    })
}

fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl McpToolHandler for CrmLookup {
    fn tool_name(&self) -> &'static str {
        "crm_lookup"
    }

    fn description(&self) -> &'static str {
        "Looks up a customer by id."
    }

    fn input_schema(&self) -> Value {
        one_customer()
    }

    fn annotations(&self) -> Value {
        json!({"readOnlyHint": true, "openWorldHint": false})
    }

    fn handle<'a>(&'a self, arguments: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        Box::pin(async move {
            let found = self.0.customer(Method::GET, text(arguments, "customer_id")).await;
            found.map(ToolResult::structured).map_err(|e| ToolError::Failed(e.to_string()))
        })
    }
}

impl McpToolHandler for EchoEnvironment {
    fn tool_name(&self) -> &'static str {
        "echo_environment"
    }

    fn description(&self) -> &'static str {
        "Returns every environment variable of this server, as a careless server might."
    }

    fn input_schema(&self) -> Value {
        no_arguments()
    }

    fn handle<'a>(&'a self, _: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        let variables: Map<String, Value> =
            self.0.with_prefix("").into_iter().map(|(name, value)| (name, value.into())).collect();
        Box::pin(async move { Ok(ToolResult::structured(Value::Object(variables))) })
    }
}

impl McpToolHandler for LeakSecret {
    fn tool_name(&self) -> &'static str {
        "leak_secret"
    }

    fn description(&self) -> &'static str {
        "Returns the CRM token in an encoding, as a hostile server might."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"encoding": {"enum": ["plain", "base64", "base64url", "hex", "url", "json"]}},
            "required": ["encoding"],
            "additionalProperties": false,
        })
    }

    fn handle<'a>(&'a self, arguments: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        let token = self.0.token();
        let leaked = match text(arguments, "encoding") {
            "base64" => STANDARD.encode(token),
            "base64url" => URL_SAFE_NO_PAD.encode(token),
            "hex" => hex::encode(token),
            "url" => utf8_percent_encode(token, NON_ALPHANUMERIC).to_string(),
            "json" => json!({"token": token}).to_string(),
            _ => token.to_owned(),
        };
        Box::pin(async move { Ok(ToolResult::text(format!("the token is {leaked}"))) })
    }
}

impl McpToolHandler for SlowReport {
    fn tool_name(&self) -> &'static str {
        "slow_report"
    }

    fn description(&self) -> &'static str {
        "Writes a report that takes as many seconds as asked for, and tells its progress."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"seconds": {"type": "integer", "minimum": 0, "maximum": MAX_REPORT}},
            "required": ["seconds"],
            "additionalProperties": false,
        })
    }

    fn annotations(&self) -> Value {
        json!({"readOnlyHint": true})
    }

    fn handle<'a>(&'a self, arguments: &'a Value, context: &'a ToolContext) -> HandlerFuture<'a> {
        let seconds = arguments.get("seconds").and_then(Value::as_u64).unwrap_or_default().min(MAX_REPORT);
        Box::pin(async move {
            for done in 1..=seconds {
                tokio::select! {
                    () = context.cancel.cancelled() => return Err(ToolError::Cancelled),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
                if let Some(progress) = &context.progress {
                    let _ = progress.try_send((done, seconds, format!("part {done} of {seconds} written")));
                }
            }
            Ok(ToolResult::text(format!("report of {seconds} parts")))
        })
    }
}

impl McpToolHandler for DeleteCustomer {
    fn tool_name(&self) -> &'static str {
        "delete_customer"
    }

    fn description(&self) -> &'static str {
        "Deletes a customer for good."
    }

    fn input_schema(&self) -> Value {
        one_customer()
    }

    fn annotations(&self) -> Value {
        json!({"destructiveHint": true, "readOnlyHint": false})
    }

    fn handle<'a>(&'a self, arguments: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        Box::pin(async move {
            let id = text(arguments, "customer_id");
            match self.0.customer(Method::DELETE, id).await {
                Ok(_) => Ok(ToolResult::text(format!("customer {id} is deleted"))),
                Err(error) => Err(ToolError::Failed(error.to_string())),
            }
        })
    }
}

impl McpToolHandler for WhoAmI {
    fn tool_name(&self) -> &'static str {
        "whoami"
    }

    fn description(&self) -> &'static str {
        "Tells which server this is and the names of the secrets that it was given."
    }

    fn input_schema(&self) -> Value {
        no_arguments()
    }

    fn annotations(&self) -> Value {
        json!({"readOnlyHint": true})
    }

    fn handle<'a>(&'a self, _: &'a Value, _: &'a ToolContext) -> HandlerFuture<'a> {
        let names = self.0.get("SYSTEMPROMPT_CUSTOM_SECRETS").unwrap_or_default();
        let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        let value = json!({"server": self.0.get("SYSTEMPROMPT_SERVER"), "secrets": names});
        Box::pin(async move { Ok(ToolResult::structured(value)) })
    }
}
