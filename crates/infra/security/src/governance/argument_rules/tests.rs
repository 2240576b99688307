use super::*;
use crate::governance::{Names, Origin, Segment};
use serde_json::json;
use systemprompt_models::ids::{CallId, TraceId};
use systemprompt_models::{ManualClock, Principal};

fn policy(params: &Value) -> Result<ArgumentRules, ParamError> {
    let scanner = Arc::new(SecretScanner::builtin().unwrap());
    ArgumentRules::new(params, scanner, AllowList::empty(Arc::new(ManualClock::at(1))))
}

fn evaluate(policy: &ArgumentRules, tool: Option<&str>, arguments: &str) -> Outcome {
    let principal = Principal::anonymous();
    policy.evaluate(&CallFacts {
        call_id: &CallId::generate(),
        origin: Origin::Hook,
        counted: true,
        principal: &principal,
        permissions: &[],
        tool,
        server: None,
        plugin: None,
        agent: None,
        agent_scope: None,
        context_id: None,
        task_id: None,
        trace_id: &TraceId::generate(),
        act_chain: &[],
        segments: &[Segment { pointer: "/tool_input".into(), json: arguments.as_bytes() }],
        refused_before: &[],
        names: &Names::default(),
    })
}

#[test]
fn a_rule_applies_to_its_tools_and_places_alone() {
    let policy = policy(&json!({"rules": [
        {"tool": "Bash", "pointer": "/command", "regex": r"\brm\s+-rf\s+/"},
        {"id": "prod", "tool": "mcp__db__*", "pointer": "*/database", "equals": "prod", "action": "flag"},
        {"tool": "mcp__db__*", "pointer": "/limit", "regex": "^[0-9]{5,}$"},
    ]}))
    .unwrap();
    let rules = |outcome: &Outcome| match outcome {
        Outcome::Fail { findings, .. } => ("fail", findings.iter().map(|f| f.rule_id.to_string()).collect()),
        Outcome::Flag { findings, .. } => ("flag", findings.iter().map(|f| f.rule_id.to_string()).collect()),
        Outcome::Pass { .. } => ("pass", vec![]),
        Outcome::Skip { .. } => ("skip", vec![]),
        _ => ("other", vec![]),
    };
    for (tool, arguments, result, want) in [
        (Some("Bash"), json!({"command": "rm -rf / --no-preserve-root"}), "fail", vec!["argument-1"]),
        (Some("Bash"), json!({"command": "ls", "note": "rm -rf /"}), "pass", vec![]),
        (Some("Write"), json!({"command": "rm -rf /"}), "pass", vec![]),
        (Some("mcp__db__query"), json!({"at": {"database": "prod"}}), "flag", vec!["argument-prod"]),
        (Some("mcp__db__query"), json!({"at": {"database": "test"}}), "pass", vec![]),
        (Some("mcp__db__query"), json!({"limit": 99_999}), "fail", vec!["argument-3"]),
        (Some("mcp__db__query"), json!({"limit": 99}), "pass", vec![]),
        (Some("Bash"), json!({"command": ["ls", "rm -rf /"]}), "fail", vec!["argument-1", "argument-1"]),
        (Some("Bash"), json!({"command": [["rm -rf /"]]}), "fail", vec!["argument-1"]),
        (Some("Bash"), json!({"command": ["rm", "-rf", "/"]}), "fail", vec!["argument-1"]),
        (Some("Bash"), json!({"command": [{"note": "rm -rf /"}]}), "pass", vec![]),
        (None, json!({"command": "rm -rf /"}), "skip", vec![]),
    ] {
        let outcome = evaluate(&policy, tool, &arguments.to_string());
        let (got, ids): (&str, Vec<String>) = rules(&outcome);
        assert_eq!(
            (got, ids),
            (result, want.iter().map(ToString::to_string).collect()),
            "{tool:?} {arguments}"
        );
    }
    for arguments in ["no json", r#"{"command":"rm -rf /","command":"ls"}"#, r#"[{"a":1,"\u0061":2}]"#] {
        assert!(matches!(evaluate(&policy, Some("Bash"), arguments), Outcome::Fail { .. }), "{arguments}");
    }
}

#[test]
fn rules_are_read_strictly() {
    for (params, told) in [
        (json!({"rules": [{"tool": "x", "pointer": "/a"}]}), "either `regex` or `equals`"),
        (json!({"rules": [{"tool": "x", "pointer": "/a", "regex": "("}]}), "rules.0.regex"),
        (json!({"rules": [{"tool": "x", "pointer": "a", "equals": 1}]}), "rules.0.pointer"),
        (json!({"rules": [{"tool": "x", "pointer": "/a", "equals": 1, "actoin": "flag"}]}), "unknown field"),
        (json!({"rule": []}), "did you mean `rules`"),
    ] {
        let error = policy(&params).err().unwrap().to_string();
        assert!(error.contains(told), "{params}: {error}");
    }
}
