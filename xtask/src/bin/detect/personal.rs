//! What the policy on personal data finds in texts, and what it would refuse for.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use systemprompt_models::ids::{CallId, TraceId};
use systemprompt_models::{Principal, SystemClock};
use systemprompt_security::governance::pii::Pii;
use systemprompt_security::governance::{
    AllowList, CallFacts, Finding, GovernancePolicy, Names, Origin, Outcome, SecretScanner, Segment,
};

/// For each text how many findings of each kind there are, and how many of these block, under a policy told to block all it may.
pub fn judge(scanner: SecretScanner, texts: &[String]) -> Result<Value> {
    let allowed = AllowList::empty(Arc::new(SystemClock));
    let policy = Pii::new(&json!({"action": "block"}), Arc::new(scanner), allowed)?;
    let (call_id, trace_id, principal) = (CallId::generate(), TraceId::generate(), Principal::anonymous());
    let mut judged = Vec::new();
    for text in texts {
        let body = json!(text).to_string();
        let segments = [Segment { pointer: "".into(), json: body.as_bytes() }];
        let facts = CallFacts {
            call_id: &call_id,
            counted: true,
            origin: Origin::Gateway,
            principal: &principal,
            permissions: &[],
            tool: None,
            server: None,
            plugin: None,
            agent: None,
            agent_scope: None,
            context_id: None,
            task_id: None,
            trace_id: &trace_id,
            act_chain: &[],
            segments: &segments,
            refused_before: &[],
            names: &Names::default(),
        };
        let findings = match policy.evaluate(&facts) {
            Outcome::Pass { .. } => Vec::new(),
            Outcome::Flag { findings, .. } | Outcome::Fail { findings, .. } => findings,
            other => bail!("{text:?}: {other:?}"),
        };
        judged.push(json!({"found": count(&findings, |_| true), "blocks": count(&findings, |f| f.blocks)}));
    }
    Ok(judged.into())
}

fn count(findings: &[Finding], wanted: impl Fn(&Finding) -> bool) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for finding in findings.iter().filter(|finding| wanted(finding)) {
        *counts.entry(&*finding.rule_id).or_default() += 1;
    }
    counts
}
