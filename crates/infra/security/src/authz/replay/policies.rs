//! The part of a replay that asks the policies: reads what they need of a call, and lets them decide.

use super::record::Record;
use super::{ReplaySource, is_sha256_of};
use crate::governance::replay::{Again, Arguments, Notes, Recorded, RecordedLink, TriedPolicies};
use crate::governance::{CallFacts, Finding, LinkResult, Names, Origin, Segment, secret_scan};
use systemprompt_audit::payload::{Named, read::PayloadError};
use systemprompt_models::Principal;
use systemprompt_models::ids::{CallId, ContextId, EntryId, TaskId, TraceId};

/// Where the record stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub stream: &'a str,
    pub seq: i64,
    pub id: &'a str,
}

/// What was read of a call for the policies.
struct Kept {
    arguments: Arguments,
    body: Option<Vec<u8>>,
    findings: Vec<Finding>,
}

/// The row of a decision, as far as a replay reads it.
struct Row {
    args_sha256: Option<String>,
    findings: Vec<Finding>,
}

/// Lets the policies decide anew on a call that the rules let pass.
pub(super) async fn decide(
    source: &ReplaySource<'_>,
    policies: &TriedPolicies,
    record: &Record<'_>,
    place: Place<'_>,
    principal: &Principal,
    notes: &mut Notes,
) -> sqlx::Result<Again> {
    let detail = &record.detail;
    let Some(origin) = detail.origin() else { return Ok(Again::Allow) };
    let permissions = detail.permissions();
    let scope = detail.agent_scope.as_ref().map(|words| words.join(" "));
    let call_id = CallId::new(detail.call_id.as_ref());
    let trace_id = TraceId::new(record.trace_id.as_deref().unwrap_or_default());
    let context_id = record.context_id.as_deref().map(ContextId::new);
    let task_id = record.task_id.as_deref().map(TaskId::new);
    let names = Names::default();
    let mut facts = CallFacts {
        call_id: &call_id,
        origin,
        counted: false,
        principal,
        permissions: permissions.as_deref().unwrap_or_default(),
        tool: detail.tool.as_deref(),
        server: detail.server.as_deref().or_else(|| server(record)),
        plugin: detail.plugin.as_deref(),
        agent: detail.agent.as_deref(),
        agent_scope: scope.as_deref(),
        context_id: context_id.as_ref(),
        task_id: task_id.as_ref(),
        trace_id: &trace_id,
        act_chain: &principal.act_chain,
        segments: &[],
        refused_before: &[],
        names: &names,
    };
    let wants = policies.wants(&facts, &detail.chain, detail.has_findings());
    let Some(kept) = read(source, record, place, wants.arguments, wants.findings).await? else {
        return Ok(Again::Unknown("row_missing"));
    };
    let pointer = if origin == Origin::Hook { "/tool_input" } else { "/params/arguments" };
    let segments: Vec<Segment<'_>> =
        kept.body.iter().map(|body| Segment { pointer: pointer.into(), json: body }).collect();
    facts.segments = &segments;
    let recorded = Recorded {
        links: &detail.chain,
        findings: &kept.findings,
        redacted: detail.redacted_segments.is_some(),
        arguments: kept.arguments,
        permissions_known: permissions.is_some(),
        names_lost: detail.names_lost(),
    };
    Ok(policies.decide(&facts, &recorded, notes))
}

/// Older records tell the server among the entities alone.
fn server<'r>(record: &'r Record<'_>) -> Option<&'r str> {
    record.detail.matched.iter().find_map(|one| one.entity.strip_prefix("mcp_server:"))
}

async fn read(
    source: &ReplaySource<'_>,
    record: &Record<'_>,
    place: Place<'_>,
    wants_arguments: bool,
    wants_findings: bool,
) -> sqlx::Result<Option<Kept>> {
    let mut kept = Kept { arguments: Arguments::Whole, body: None, findings: Vec::new() };
    let mut known = None;
    if wants_findings {
        known = row(source, place).await?;
        if known.is_none() {
            return Ok(None);
        }
    }
    if wants_arguments {
        let named = record.arguments();
        (kept.arguments, kept.body) = match named {
            // A tool call without arguments. The content of everything else is not kept with its decision.
            None if record.detail.tool.is_some() => (Arguments::Whole, None),
            None => (Arguments::Lost("content_not_kept"), None),
            Some(named) => match body(source, place, named).await? {
                Err(why) => (Arguments::Lost(why), None),
                Ok(body) if is_known_clean(record) => (Arguments::Whole, Some(body)),
                Ok(body) => {
                    if known.is_none() {
                        known = row(source, place).await?;
                    }
                    let expected = known.as_ref().and_then(|row| row.args_sha256.as_deref());
                    match expected {
                        Some(expected) if is_sha256_of(expected, &body) => (Arguments::Whole, Some(body)),
                        _ => (Arguments::Lost("arguments_redacted"), None),
                    }
                }
            },
        };
    }
    kept.findings = known.map(|row| row.findings).unwrap_or_default();
    Ok(Some(kept))
}

/// Whether the arguments were stored as they came: the secret rules looked through them and found nothing to take out.
fn is_known_clean(record: &Record<'_>) -> bool {
    let detail = &record.detail;
    let passed =
        |link: &RecordedLink<'_>| link.policy_id == secret_scan::ID && link.result == LinkResult::Pass;
    !detail.has_findings() && detail.leaks.is_none() && detail.chain.iter().any(passed)
}

async fn body(
    source: &ReplaySource<'_>,
    place: Place<'_>,
    named: Named,
) -> sqlx::Result<Result<Vec<u8>, &'static str>> {
    if named.excerpt.is_some() {
        return Ok(Err("arguments_cut"));
    }
    if named.kept.is_some() {
        return Ok(Err("arguments_not_kept"));
    }
    match source.reader.named_payload(place.stream, place.seq, named).await {
        Ok(body) => Ok(Ok(body.bytes)),
        Err(PayloadError::Read(error)) => Err(error),
        Err(PayloadError::Altered(_)) => Ok(Err("arguments_altered")),
        Err(PayloadError::NotStored { .. } | PayloadError::NoSuch(_)) => Ok(Err("arguments_gone")),
    }
}

async fn row(source: &ReplaySource<'_>, place: Place<'_>) -> sqlx::Result<Option<Row>> {
    let id = EntryId::new(place.id).decision();
    let Some(row) = source.decisions.by_id(id.as_str()).await? else { return Ok(None) };
    let findings = serde_json::from_value(row.findings);
    Ok(findings.ok().map(|findings| Row { args_sha256: row.args_sha256, findings }))
}
