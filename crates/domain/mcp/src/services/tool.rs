//! The one way to run a tool, for every caller (MCP-64, MCP-66): decided, recorded, called, scanned, recorded again, and only
//! then answered.

mod handler;
mod outcome;
mod question;
mod recover;
mod redacted;

pub use handler::{HandlerFuture, McpToolHandler, ToolContext, ToolError, ToolResult};
pub use outcome::{CallError, refusal_code};
pub use recover::RecoveryError;

use super::definitions::Definition;
use super::loader::tool_decision;
use super::registry::Server;
use super::schema::Violation;
use super::stdio::{Answer, CallOptions, StdioError};
use super::supervisor::{Instance, Supervisor};
use crate::middleware::rbac::server_entity;
use crate::repository::ToolUsageRepository;
use crate::repository::tool_usage::{
    CallSource, Completion, DUPLICATE_CALL, NewExecution, OpenExecution, Status,
};
use crate::wire::raw::{RawObject, to_raw};
use aws_lc_rs::hmac;
use bytes::Bytes;
use question::{ARGUMENTS, OTHERS, Question};
use redacted::Redacted;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_audit::{Draft, EntryKind, Ledger, LedgerError, Permit, Unit};
use systemprompt_leak::{Hit, Scanner};
use systemprompt_models::ids::{DecisionId, McpExecutionId};
use systemprompt_models::{Clock, Refusal, RequestContext, Tasks};
use systemprompt_security::authz::AuthzDecision;
use systemprompt_security::governance::FindingClass;
use systemprompt_security::plane::{Call, DecisionPlane, Denial, Segment};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Leaks of one call that get a record each; the closing record counts all.
const MAX_LEAK_RECORDS: usize = 10;
/// Shortest time between two progress notifications that are passed on (MCP-36).
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// Progress notifications that may wait.
const PROGRESS_QUEUE: usize = 64;
/// How often the end of a call is tried to be recorded after its answer was withheld.
const CLOSE_TRIES: u32 = 60;

/// A call of a tool.
pub struct ToolCall<'a> {
    pub server: &'a Arc<Server>,
    pub tool: &'a str,
    /// The parameters of `tools/call` as they came.
    pub params: RawObject<'a>,
    pub source: CallSource,
    /// Receives cleaned parameters of progress notifications.
    pub progress: Option<mpsc::Sender<Value>>,
    pub cancel: CancellationToken,
}

/// What a tool answered, free of values in use.
#[derive(Debug)]
pub struct ToolAnswer {
    pub execution: McpExecutionId,
    pub decision: DecisionId,
    pub answer: Answer,
}

/// Runs tools. Clones share everything.
#[derive(Clone)]
pub struct McpToolExecutor {
    pub(crate) plane: DecisionPlane,
    pub(crate) ledger: Ledger,
    pub(crate) usage: ToolUsageRepository,
    pub(crate) supervisor: Supervisor,
    pub(crate) scanner: Scanner,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    /// Key of the digests of arguments and results.
    pub(crate) digest_key: Arc<hmac::Key>,
}

impl McpToolExecutor {
    /// Runs a tool of a server that the principal may use. Must run in a task of its own: a caller that goes away must not
    /// leave a call without its end.
    ///
    /// # Errors
    /// [`CallError`]. Whatever the error, what was recorded as begun is recorded as ended.
    pub async fn execute(
        &self,
        context: &RequestContext,
        call: ToolCall<'_>,
    ) -> Result<ToolAnswer, CallError> {
        let server = call.server;
        let principal = &context.principal;
        let empty = to_raw(&serde_json::json!({}));
        let arguments = call.params.get("arguments").unwrap_or(&empty);
        let others = call.params.clone().without("arguments").to_raw();
        let question = Question::new(context, &call, (arguments, &others));
        if !server.config.tools.permits(call.tool) {
            self.refuse(question.ask(false), outcome::NOT_OFFERED).await?;
            return Err(CallError::UnknownTool);
        }
        let instance = self.instance(context, server).await?;
        let definitions = instance.definitions(false, &self.scanner).await;
        let definition = definitions.find(call.tool).ok_or(CallError::UnknownTool)?;
        let tool_rule = tool_decision(&self.plane, context, &server.name, call.tool).await;
        // A caller whom a rule keeps from the tool learns nothing of its schema.
        if tool_rule.as_ref().is_none_or(AuthzDecision::is_allow) {
            let violations = violations(definition, arguments);
            if !violations.is_empty() {
                let decision =
                    self.refuse(question.ask(tool_rule.is_some()), outcome::INVALID_ARGUMENTS).await?;
                return Err(CallError::invalid_arguments(&violations, decision));
            }
        }
        let _slot = server.slots.acquire(&principal.user_id).await.map_err(|_| CallError::busy())?;

        let mut judgement = self.plane.judge(question.ask(tool_rule.is_some())).await;
        let redacted = Redacted::of(judgement.redactions(), call.tool, definition);
        match &redacted {
            Ok(_) => judgement.accept_redactions(),
            Err(why) => judgement.refuse_redactions(why),
        }
        let redacted = redacted.unwrap_or_default();
        let mut unit = Unit::new();
        let decision = judgement.record(&mut unit);
        if let Some(refusal) = judgement.refusal() {
            self.ledger.append(unit).await?;
            return Err(CallError::refused(refusal.with_decision(decision)));
        }
        let sent = redacted.part(ARGUMENTS, arguments);
        let started = self.start(unit, context, &call, &instance, decision.clone(), sent).await;
        let (permit, open) = match started {
            Err(LedgerError::Guard(DUPLICATE_CALL)) => {
                // The unit with the decision was not written: what is on record is why the call was not made.
                let parts = (sent, redacted.part(OTHERS, &others));
                let question = Question::new(context, &call, parts);
                let decision = self.refuse(question.ask(tool_rule.is_some()), outcome::DUPLICATE).await?;
                return Err(CallError::duplicate(decision));
            }
            started => started?,
        };

        let began = Instant::now();
        let params = redacted.params(&call.params);
        let (answer, mut hits) = self.call(permit, &instance, &call, params).await;
        let (outcome, completion) = self.complete(answer, began, &mut hits);
        self.close(context, &open, &completion, hits).await?;
        Ok(ToolAnswer { execution: open.id, decision, answer: outcome? })
    }

    /// The child of the server. Before one is started the decision to use the server is on record.
    async fn instance(
        &self,
        context: &RequestContext,
        server: &Arc<Server>,
    ) -> Result<Arc<Instance>, CallError> {
        if let Some(instance) = self.supervisor.running(server) {
            return Ok(instance);
        }
        let (decision, id) = self.plane.decide_recorded(context, &server_entity(&server.name)).await?;
        if !decision.is_allow() {
            let refusal = Refusal::denied(decision.policy(), decision.reason());
            return Err(CallError::refused(refusal.with_decision(id)));
        }
        Ok(self.supervisor.ready(server, Some(context)).await?)
    }

    async fn start(
        &self,
        mut unit: Unit,
        context: &RequestContext,
        call: &ToolCall<'_>,
        instance: &Instance,
        decision: DecisionId,
        arguments: &RawValue,
    ) -> Result<(Permit, OpenExecution), LedgerError> {
        let new = NewExecution {
            tool: call.tool,
            server: &call.server.name,
            instance: &instance.id,
            source: call.source,
            decision: decision.clone(),
            leases: &instance.leases,
            node: self.supervisor.node(),
            input_digest: self.digest(arguments.get()),
            input_bytes: arguments.get().len(),
            started_at: self.clock.now(),
        };
        let open = self.usage.start_execution(&mut unit, context, new);
        Ok((self.ledger.commit(unit).await?, open))
    }

    /// Records that a call is refused for a fault of its own, which no policy is asked about (AUD-19).
    async fn refuse(
        &self,
        call: Call<'_>,
        (policy, reason): (&'static str, &'static str),
    ) -> Result<DecisionId, LedgerError> {
        let denial = Denial { policy: policy.into(), reason: reason.into(), message: reason.into() };
        let judgement = self.plane.refuse(call, denial).await;
        let mut unit = Unit::new();
        let decision = judgement.record(&mut unit);
        self.ledger.append(unit).await?;
        Ok(decision)
    }

    /// Calls the child and passes progress on, until there is an answer.
    async fn call(
        &self,
        permit: Permit,
        instance: &Instance,
        call: &ToolCall<'_>,
        params: RawObject<'_>,
    ) -> (Result<Answer, StdioError>, Vec<Hit>) {
        let timeouts = &call.server.config.timeouts;
        let (raw_progress, mut told) = mpsc::channel(PROGRESS_QUEUE);
        let options = CallOptions {
            timeout: Duration::from_millis(u64::from(timeouts.call_ms)),
            max: Duration::from_millis(u64::from(timeouts.call_max_ms.max(timeouts.call_ms))),
            cancel: call.cancel.clone(),
            progress: call.progress.is_some().then_some(raw_progress),
        };
        // Tasks are not offered, so a wish for one is not passed on.
        let params = params.without("task");
        let answer = instance.call_tool(permit, params, options, self.clock.now());
        tokio::pin!(answer);
        let (mut hits, mut last) = (Vec::new(), None::<Instant>);
        loop {
            tokio::select! {
                biased;
                Some(mut params) = told.recv() => {
                    hits.extend(self.scanner.redact_message(&mut params));
                    let due = last.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
                    if let Some(progress) = call.progress.as_ref().filter(|_| due) {
                        last = Some(Instant::now());
                        let _ = progress.try_send(params);
                    }
                }
                answer = &mut answer => return (answer, hits),
            }
        }
    }

    /// What the client gets, and what the row says of it.
    fn complete(
        &self,
        answer: Result<Answer, StdioError>,
        began: Instant,
        hits: &mut Vec<Hit>,
    ) -> (Result<Answer, CallError>, Completion) {
        let mut end = Completion {
            status: Status::Failed,
            error_kind: None,
            error_message: None,
            is_error: None,
            output_digest: None,
            output_bytes: None,
            output: None,
            completed_at: self.clock.now(),
            elapsed_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
            leaks: 0,
            secrets: std::collections::BTreeMap::new(),
        };
        let outcome = match answer {
            Ok(answer) => {
                let answer = self.clean(answer, &mut end, hits);
                let (Answer::Result(text) | Answer::Error(text)) = &answer;
                end.output = Some(Bytes::copy_from_slice(text.get().as_bytes()));
                Ok(answer)
            }
            Err(error) => {
                let (status, kind) = outcome::row_of(error);
                (end.status, end.error_kind) = (status, Some(kind));
                end.error_message = Some(error.to_string());
                Err(error.into())
            }
        };
        end.leaks = hits.len();
        (outcome, end)
    }

    /// Takes the values in use out of an answer. Without one its bytes stay as they are.
    fn clean(&self, answer: Answer, end: &mut Completion, hits: &mut Vec<Hit>) -> Answer {
        let (text, is_result) = match &answer {
            Answer::Result(text) => (text, true),
            Answer::Error(text) => (text, false),
        };
        end.output_digest = Some(self.digest(text.get()));
        end.output_bytes = Some(text.get().len());
        let is_error = is_result
            && RawObject::read(text).and_then(|r| r.get("isError")).is_some_and(|v| v.get() == "true");
        end.is_error = Some(is_error || !is_result);
        (end.status, end.error_kind) = match (is_result, is_error) {
            (true, false) => (Status::Success, None),
            (true, true) => (Status::Failed, Some("tool")),
            (false, _) => (Status::Failed, Some("protocol")),
        };
        // An answer that is too deep to be looked through is passed on all the same: what is found is only noted.
        let segment = Segment { pointer: "".into(), json: text.get().as_bytes() };
        for finding in self.plane.pipeline().scanner().scan_segment(&segment).unwrap_or_default() {
            if finding.class == FindingClass::Specific {
                *end.secrets.entry(finding.rule_id.to_string()).or_default() += 1;
            }
        }
        if self.scanner.is_empty() {
            return answer;
        }
        let mut value: Value = match serde_json::from_str(text.get()) {
            Ok(value) => value,
            // What cannot be read cannot be scanned, so it is not released.
            Err(_) => Value::Null,
        };
        let mut found = self.scanner.redact_message(&mut value);
        if found.is_empty() && !value.is_null() {
            // Of a member that was given twice only the last was read, and the client may read the first.
            found = self.scanner.scan(text.get().as_bytes());
            if found.is_empty() {
                return answer;
            }
        }
        hits.extend(found);
        let clean = to_raw(&value);
        if is_result { Answer::Result(clean) } else { Answer::Error(clean) }
    }

    /// Records the end of a call. The answer leaves only after this (AUD-17).
    async fn close(
        &self,
        context: &RequestContext,
        open: &OpenExecution,
        end: &Completion,
        hits: Vec<Hit>,
    ) -> Result<(), CallError> {
        let unit = self.closing(context, open, end, &hits);
        let Err(error) = self.ledger.append(unit).await else { return Ok(()) };
        tracing::error!(execution = %open.id, %error, "the end of a tool call could not be recorded; its answer is withheld");
        let (this, context, open, end) = (self.clone(), context.clone(), open.clone(), end.clone());
        let shutdown = self.tasks.shutdown_token();
        self.tasks.spawn("mcp close call", async move {
            // What stays open after this is closed by the next start.
            for _ in 0..CLOSE_TRIES {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
                if this.ledger.append(this.closing(&context, &open, &end, &hits)).await.is_ok() {
                    return;
                }
            }
        });
        Err(error.into())
    }

    fn closing(
        &self,
        context: &RequestContext,
        open: &OpenExecution,
        end: &Completion,
        hits: &[Hit],
    ) -> Unit {
        let mut unit = Unit::new();
        let mut base = Draft::new(EntryKind::ToolClosed, context, end.status.as_str());
        if !end.secrets.is_empty() {
            base = base.with("secrets", serde_json::json!(end.secrets));
        }
        self.usage.finish_execution(&mut unit, base, open, end);
        for hit in hits.iter().take(MAX_LEAK_RECORDS) {
            unit.record(
                Draft::new(EntryKind::SecretLeak, context, "redacted")
                    .with_subject("mcp_server", open.server.as_str())
                    .with("name", &*hit.name)
                    .with("form", hit.form.as_str())
                    .with("where", "tool_result")
                    .with("offset", hit.offset)
                    .with("direction", "out")
                    .with("execution_id", open.id.as_str()),
            );
        }
        unit
    }

    fn digest(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.digest_key, text.as_bytes()))
    }
}

/// Arguments against the tool's schema; what is wrong is told by place, never by value.
fn violations(definition: &Definition, arguments: &RawValue) -> Vec<Violation> {
    let value: Value = serde_json::from_str(arguments.get()).unwrap_or_default();
    definition.schema.violations(&value)
}
