use super::*;
use crate::governance::{Chain, Parts, Pipeline, RateLimiter};
use serde_json::json;
use std::sync::LazyLock;
use systemprompt_config::services::governance::{GovernanceConfig, PolicyConfig};
use systemprompt_models::ids::{CallId, TraceId};
use systemprompt_models::{ManualClock, Principal};

static SCANNER: LazyLock<Arc<SecretScanner>> = LazyLock::new(|| Arc::new(SecretScanner::builtin().unwrap()));

fn pipeline(params: serde_json::Value) -> Pipeline {
    let parts = Parts::new(SCANNER.clone(), Arc::new(RateLimiter::new()), Arc::new(ManualClock::at(1)));
    let policy = PolicyConfig { id: ID.to_owned(), enabled: true, after: None, params };
    Pipeline::from_config(&GovernanceConfig { enabled: true, policies: vec![policy] }, &parts).unwrap()
}

fn judge(pipeline: &Pipeline, text: &str) -> Chain {
    judge_json(pipeline, &json!({ "text": text }).to_string())
}

fn judge_json(pipeline: &Pipeline, body: &str) -> Chain {
    let principal = Principal::anonymous();
    let segments = [Segment { pointer: "".into(), json: body.as_bytes() }];
    let (call_id, trace_id, names) = (CallId::generate(), TraceId::generate(), pipeline.names([]));
    let facts = CallFacts {
        call_id: &call_id,
        counted: true,
        origin: crate::governance::Origin::Gateway,
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
        names: &names,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(pipeline.evaluate(&facts))
}

#[derive(serde::Deserialize)]
struct Case {
    kind: String,
    text: String,
    /// How many are in it.
    count: usize,
    /// Whether the policy may refuse for it where it is told to block.
    #[serde(default)]
    blocks: bool,
}

#[test]
fn case_28_personal_data_is_recognised_and_only_vouched_for_data_blocks() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("../../../rules/pii-examples.yaml")).unwrap();
    let blocking = pipeline(json!({"action": "block"}));
    let (mut wanted, mut found, mut wrong) = (0, 0, Vec::new());
    for case in &cases {
        let chain = judge(&blocking, &case.text);
        let count = chain.findings.iter().filter(|f| *f.rule_id == *case.kind).count();
        wanted += case.count;
        found += count.min(case.count);
        let blocks = chain.findings.iter().any(|f| *f.rule_id == *case.kind && f.blocks);
        if count != case.count || blocks != case.blocks {
            wrong.push(format!("{} {:?}: {count} of {}, blocks {blocks}", case.kind, case.text, case.count));
        }
    }
    println!("{found} of {wanted} found in {} texts\n{}", cases.len(), wrong.join("\n"));
    assert!(found * 100 >= wanted * 95, "{found} of {wanted}\n{}", wrong.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn it_flags_until_it_is_told_to_block_and_says_where() {
    let text = "pay with 4111 1111 1111 1111, mail ada@example.org";
    let chain = judge(&pipeline(json!({})), text);
    assert!(chain.is_allowed());
    let link = chain.links.iter().find(|l| &*l.policy_id == ID).unwrap();
    assert_eq!(link.result, crate::governance::LinkResult::Flag);
    let places: Vec<_> =
        chain.findings.iter().map(|f| (&*f.rule_id, &*f.pointer, f.offset, f.length)).collect();
    assert_eq!(places, [("pii-email", "/text", 35, 15), ("pii-payment-card", "/text", 9, 19)]);
    assert!(!serde_json::to_string(&chain).unwrap().contains("1111"));

    let chain = judge(&pipeline(json!({"kinds": {"pii-payment-card": "block"}})), text);
    assert_eq!(chain.denial().map(|d| (&*d.policy, &*d.reason)), Some((ID, "personal_data")));
    assert!(judge(&pipeline(json!({"kinds": {"pii-email": "flag"}, "action": "flag"})), text).is_allowed());
}

#[test]
fn numbers_and_disguised_digits_are_read_like_plain_ones() {
    let pipeline = pipeline(json!({"action": "block"}));
    for (body, want, place) in [
        (json!({"card": 4_111_111_111_111_111_u64}), "pii-payment-card", (0, 16)),
        (json!({"card": "\u{ff14}111 1111 1111 1111"}), "pii-payment-card", (0, 21)),
        (json!({"card": "4111\u{a0}1111\u{a0}1111\u{a0}1111"}), "pii-payment-card", (0, 22)),
        (json!({"card": "4111.1111.1111.1111"}), "pii-payment-card", (0, 19)),
        (json!({"card": "x 41\u{200b}11111111111111"}), "pii-payment-card", (2, 19)),
        (json!({"to": "pay xy12 to de89 3704 0044 0532 0130 00 please"}), "pii-iban", (12, 27)),
        (json!({"to": "de89370400440532013000"}), "pii-iban", (0, 22)),
    ] {
        let chain = judge_json(&pipeline, &body.to_string());
        let found: Vec<_> = chain.findings.iter().map(|f| (&*f.rule_id, (f.offset, f.length))).collect();
        assert_eq!((found, chain.is_allowed()), (vec![(want, place)], false), "{body}");
    }
    for body in [
        json!({"at": 1_763_812_345_678_u64, "id": 1_111_111_111_111_117_u64, "n": 0.411_111_111_111_111_1}),
        json!({"hash": "ab12cd34ef56ab12cd34ef56ab12cd34", "n": "123.456789012347"}),
        json!({"data": "ab12Cd34".repeat(5_000)}),
    ] {
        let chain = judge_json(&pipeline, &body.to_string());
        assert!(chain.findings.is_empty(), "{body}: {:?}", chain.findings);
    }
}

#[test]
fn parameters_are_read_strictly() {
    for (params, told) in [
        (json!({"actoin": "flag"}), "did you mean `action`"),
        (json!({"action": "forbid"}), "unknown variant"),
        (json!({"kinds": {"pii-emial": "flag"}}), "did you mean `pii-email`"),
    ] {
        let allowed = AllowList::empty(Arc::new(ManualClock::at(1)));
        let error = Pii::new(&params, SCANNER.clone(), allowed).err().unwrap().to_string();
        assert!(error.contains(told), "{params}: {error}");
    }
}
