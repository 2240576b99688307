use super::*;
use crate::note::{Note, VerifierKey};
use crate::signing_key::{Signers, make};
use crate::verify::offline::{ExportError, OfflineScope, verify_export};
use crate::verify::{Report, Scope, verify};
use crate::{CheckpointOptions, Draft, EntryKind, Ledger, Unit, Witnesses, testing};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use systemprompt_database::Db;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_models::{Clock, ManualClock, Principal, RequestContext, SystemClock, Tasks};
use tempfile::TempDir;

struct Node {
    ledger: Ledger,
    folder: TempDir,
}

impl Node {
    async fn start(db: &Db) -> Self {
        Self::start_at(db, Arc::new(SystemClock)).await
    }

    async fn start_at(db: &Db, clock: Arc<dyn Clock>) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("keys/ledger.ed25519");
        let signers = Signers { path: Some(path.clone()), ..Signers::of(make(&path).unwrap()) };
        let options = crate::LedgerOptions {
            data_dir: folder.path().into(),
            checkpoints: Some(CheckpointOptions {
                signers,
                records: 1000,
                every: Duration::from_hours(1),
                heartbeat: Duration::from_hours(1),
                witnesses: Witnesses::default(),
            }),
            ..testing::options(db)
        };
        let ledger = Ledger::start(db, &[], options, clock, &Tasks::default()).await.unwrap();
        Self { ledger, folder }
    }

    async fn write(&self, drafts: impl IntoIterator<Item = Draft>) {
        for draft in drafts {
            let mut unit = Unit::new();
            unit.record(draft);
            self.ledger.append(unit).await.unwrap();
        }
    }

    /// Seven records, checkpoints over four of them and over all.
    async fn filled(db: &Db) -> Self {
        let node = Self::start(db).await;
        node.write((0..3).map(number)).await;
        node.ledger.make_checkpoint().await.unwrap();
        node.write((3..6).map(number)).await;
        node.ledger.make_checkpoint().await.unwrap();
        node
    }

    async fn export(&self, change: impl FnOnce(&mut ExportRequest)) -> String {
        let mut request = ExportRequest::all(Format::Jsonl);
        change(&mut request);
        let mut exporter =
            Exporter::open(self.ledger.reader(), self.ledger.lookup().cloned(), request).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = exporter.next().await.unwrap() {
            text.push_str(&piece);
        }
        text
    }

    fn key(&self) -> VerifierKey {
        self.ledger.vkey().unwrap()
    }
}

fn number(n: u64) -> Draft {
    let kind = if n.is_multiple_of(2) { EntryKind::ConfigReload } else { EntryKind::AdminBanAdded };
    Draft::system(kind, "ok").with("number", n).with_reason(format!("line\nend {n} é"))
}

fn with(keys: &[VerifierKey]) -> OfflineScope {
    OfflineScope { keys: keys.to_vec(), ..OfflineScope::default() }
}

fn verified(text: &str, scope: &OfflineScope) -> Report {
    verify_export(text.as_bytes(), scope).unwrap()
}

fn checks(text: &str, scope: &OfflineScope) -> Vec<&'static str> {
    verified(text, scope).findings.iter().map(|finding| finding.check).collect()
}

async fn stores() -> [TestDb; 2] {
    databases(&testing::migrations()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn case_11_an_export_verifies_with_its_key_and_with_no_other() {
    for db in stores().await {
        let node = Node::filled(&db).await;
        let text = node.export(|_| {}).await;
        let report = verified(&text, &with(&[node.key()]));
        assert!(report.is_intact(), "{report:?}\n{text}");
        assert_eq!((report.streams, report.records, report.checkpoints), (1, 7, 2));
        assert!(report.signed[0].trusted && report.signed[0].size == 7, "{report:?}");

        let other = crate::signing_key::make(&node.folder.path().join("other")).unwrap();
        let other = other.vkey(node.key().name());
        assert_eq!(checks(&text, &with(&[other])), ["key_unknown"]);
        assert_eq!(checks(&text, &with(&[])), ["no_trusted_key"]);
        let structure = OfflineScope { structure_only: true, ..OfflineScope::default() };
        let report = verified(&text, &structure);
        assert!(report.is_intact() && report.signed.is_empty(), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_export_is_found() {
    let [db, _postgres] = stores().await;
    let node = Node::filled(&db).await;
    let text = node.export(|_| {}).await;
    let (trusted, lines) = (with(&[node.key()]), text.lines().collect::<Vec<_>>());
    let line_of = |seq: u64| {
        lines
            .iter()
            .position(|line| line.contains(&format!("\"seq\":{seq},")) && line.contains("\"record\""))
            .unwrap()
    };
    let joined = |lines: &[String]| format!("{}\n", lines.join("\n"));
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        checks(&joined(&lines), &trusted)
    };
    let (third, fifth) = (line_of(3), line_of(5));
    let altered = changed(&|lines| lines[third] = lines[third].replace("\"number\":2", "\"number\":9"));
    assert_eq!(altered[..1], ["record_altered"], "{altered:?}");
    assert!(altered.contains(&"checkpoint_mismatch"), "{altered:?}");
    // Whoever changes a record also makes its hash anew: the chain breaks, and the signed root is another one.
    let rehashed = changed(&|lines| {
        let text = lines[third].replace("\"number\":2", "\"number\":9");
        let record = text.strip_prefix("{\"record\":").unwrap().split(",\"hash\":").next().unwrap();
        lines[third] = format!("{{\"record\":{record},\"hash\":\"{}\"}}", crate::leaf_hash(record));
    });
    assert_eq!(rehashed, ["checkpoint_mismatch", "chain_broken"]);
    assert!(changed(&|lines| drop(lines.remove(third))).contains(&"gap"));
    assert!(changed(&|lines| drop(lines.remove(fifth))).contains(&"gap"));
    assert_eq!(changed(&|lines| lines.swap(third, third - 1))[..1], ["gap"]);
    let cut = changed(&|lines| lines.truncate(fifth));
    assert_eq!(cut, ["tail_missing"]);
    let last = lines.len() - 1;
    assert_eq!(changed(&|lines| drop(lines.remove(last))), ["checkpoint_missing"]);
    let first_checkpoint = lines.iter().position(|line| line.contains("{\"checkpoint\"")).unwrap();
    assert_eq!(changed(&|lines| drop(lines.remove(first_checkpoint))), ["checkpoint_missing"]);
    // A cut that the header covers up is found by who kept a checkpoint elsewhere.
    let mut shorter: Vec<String> =
        lines.iter().take(first_checkpoint + 1).map(|line| (*line).to_owned()).collect();
    shorter[0] = shorter[0].replace("\"to\":7", "\"to\":3");
    assert_eq!(checks(&joined(&shorter), &trusted), Vec::<&str>::new());
    let newest = node.ledger.reader().checkpoint(node.ledger.stream()).await.unwrap();
    let notes = vec![newest.note.parse::<Note>().unwrap()];
    let kept = OfflineScope { notes, ..trusted.clone() };
    assert_eq!(checks(&joined(&shorter), &kept), ["tail_missing"]);
    assert_eq!(verified(&text, &kept).outside, 1);

    for bad in [
        "",
        "{}\n",
        "{\"record\":{},\"hash\":\"\"}\n",
        "no json\n",
        &text.replacen("ledger.v1", "ledger.v2", 1),
    ] {
        assert!(verify_export(bad.as_bytes(), &trusted).is_err(), "{bad}");
    }
    let ghost = OfflineScope { stream: Some("ghost".into()), ..trusted };
    assert!(matches!(verify_export(text.as_bytes(), &ghost), Err(ExportError::NoSuchStream(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_brings_what_its_proof_needs() {
    for db in stores().await {
        let node = Node::filled(&db).await;
        let stream = node.ledger.stream().to_string();
        for (from, to) in [(1, 2), (2, 3), (3, 6), (4, 7), (7, 7), (1, 7)] {
            let text = node
                .export(|request| {
                    (request.from, request.to) = (Some(from), Some(to));
                    request.filter.stream = Some(stream.clone());
                })
                .await;
            let report = verified(&text, &with(&[node.key()]));
            assert!(report.is_intact(), "{from}..{to}: {report:?}\n{text}");
            assert_eq!(report.records, (to - from + 1) as u64);
            assert_eq!(text.contains("\"complete\":true"), (from, to) == (1, 7));
            let cut = text.replacen("\"seq\":", "\"seq\": ", 1);
            assert!(!verified(&cut, &with(&[node.key()])).is_intact(), "{from}..{to}");
        }
        let refused = async |format, from, to| {
            let mut request = ExportRequest::all(format);
            (request.from, request.to) = (Some(from), to);
            request.filter.stream = Some(stream.clone());
            Exporter::open(node.ledger.reader(), node.ledger.lookup().cloned(), request).await.map(drop)
        };
        // Eight records, seven of them signed.
        for (format, from, to) in
            [(Format::Jsonl, 8, None), (Format::Jsonl, 9, Some(20)), (Format::Csv, 9, None)]
        {
            let error = refused(format, from, to).await.unwrap_err();
            assert!(matches!(error, ExportFault::BehindEnd { .. }), "{error}");
        }
        assert!(matches!(refused(Format::Csv, -3, Some(0)).await, Err(ExportFault::EmptyRange)));
        assert!(refused(Format::Csv, 8, None).await.is_ok());
        let since = node.export(|request| request.filter.since = Some(i64::MAX)).await;
        assert_eq!(since, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_export_proves_each_record_and_claims_no_completeness() {
    for db in stores().await {
        let node = Node::filled(&db).await;
        let filter = Filter { kind: Some("admin.*".into()), ..Filter::default() };
        let text = node.export(|request| request.filter = filter).await;
        let report = verified(&text, &with(&[node.key()]));
        assert!(report.is_intact(), "{report:?}\n{text}");
        assert_eq!((report.records, report.checkpoints), (3, 1));
        assert!(text.contains("\"complete\":false") && text.contains("\"inclusion\""), "{text}");
        let claims = |report: &Report| (report.exported[0].complete, report.exported[0].filtered);
        assert_eq!(claims(&report), (false, true));
        let whole = text.replacen("\"complete\":false", "\"complete\":true", 1);
        let report = verified(&whole, &with(&[node.key()]));
        assert_eq!((report.findings[0].check, claims(&report)), ("header_altered", (false, true)));
        let twice = checks(&format!("{text}{text}"), &with(&[node.key()]));
        assert_eq!(twice, ["stream_repeated"]);
        let report = verified(&node.export(|_| {}).await, &with(&[node.key()]));
        assert_eq!(claims(&report), (true, false));
        let changed = text.replace("\"number\":3", "\"number\":8");
        assert_eq!(checks(&changed, &with(&[node.key()]))[..2], ["record_altered", "not_included"]);
        assert_eq!(checks(&text, &with(&[])), ["no_trusted_key"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_follows_a_rotation_of_the_key_in_both_directions() {
    for db in stores().await {
        let node = Node::filled(&db).await;
        let old = node.key();
        let by = RequestContext::new(Arc::new(Principal::anonymous()), "trc_1".into());
        let new = node.ledger.rotate_key(&by).await.unwrap();
        assert!(new != old && node.key() == new);
        node.write([number(9)]).await;
        node.ledger.make_checkpoint().await.unwrap();
        let reader = node.ledger.reader();
        let text = node.export(|_| {}).await;
        for key in [&old, &new] {
            let report = verified(&text, &with(std::slice::from_ref(key)));
            assert!(report.is_intact(), "{key}: {report:?}");
            let scope = Scope { keys: vec![key.clone()], ..Scope::default() };
            let report = verify(&reader, &[], &scope).await.unwrap();
            assert!(report.is_intact(), "{key}: {report:?}");
        }
        // Before the rotation alone: the new key's own newest checkpoint proves the record that names the old one.
        let scope = Scope { to: Some(5), keys: vec![new.clone()], ..Scope::default() };
        let report = verify(&reader, &[], &scope).await.unwrap();
        assert!(report.is_intact(), "{report:?}");
        let path = node.folder.path().join("keys/ledger.ed25519");
        let stored = crate::signing_key::load(&path).unwrap().unwrap();
        assert_eq!(stored.public(), *new.public());
        assert!(!crate::signing_key::next_path(&path).exists());
        // And again, over two links.
        node.ledger.rotate_key(&by).await.unwrap();
        let text = node.export(|_| {}).await;
        assert!(verified(&text, &with(std::slice::from_ref(&old))).is_intact());
        node.ledger.stop().await;
    }
}

fn drafts() -> Vec<Draft> {
    let by = RequestContext::new(
        Arc::new(Principal { user_id: "usr_1".into(), ..Principal::anonymous() }),
        "trc_1".into(),
    );
    let outcomes = |kind: EntryKind| match kind {
        EntryKind::AuthzDecision | EntryKind::GovernanceDecision => vec!["allow", "deny", "redact"],
        EntryKind::SecretLeak => vec!["redacted", "blocked", "canary"],
        _ => vec!["ok", "error", "denied"],
    };
    EntryKind::ALL
        .iter()
        .flat_map(|kind| outcomes(*kind).into_iter().map(|outcome| (*kind, outcome)))
        .flat_map(|(kind, outcome)| {
            let full = Draft::new(kind, &by, outcome)
                .with_subject("mcp_server", "demo")
                .with_policy("secret_scan")
                .with_reason("a | b = c\nd")
                .with("server", "demo");
            [full, Draft::system(kind, outcome)]
        })
        .collect()
}

/// The schemas of the four classes that records become.
fn schemas() -> Vec<(i64, jsonschema::Validator)> {
    [
        (6003, include_str!("../../testdata/ocsf-1.6.0/api_activity.json")),
        (3002, include_str!("../../testdata/ocsf-1.6.0/authentication.json")),
        (3003, include_str!("../../testdata/ocsf-1.6.0/authorize_session.json")),
        (2004, include_str!("../../testdata/ocsf-1.6.0/detection_finding.json")),
    ]
    .into_iter()
    .map(|(class, text)| {
        let schema: Value = serde_json::from_str(text).unwrap();
        (class, jsonschema::validator_for(&schema).unwrap())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_14_every_kind_of_record_is_a_valid_ocsf_event() {
    let [db, _postgres] = stores().await;
    let node = Node::start(&db).await;
    let drafts = drafts();
    let count = drafts.len();
    node.write(drafts).await;
    let text = node.export(|request| request.format = Format::Ocsf).await;
    let schemas = schemas();
    let mut seen = std::collections::BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let class = event["class_uid"].as_i64().unwrap();
        let schema = &schemas.iter().find(|(uid, _)| *uid == class).unwrap().1;
        let faults: Vec<String> =
            schema.iter_errors(&event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{event:#}\n{faults:#?}");
        assert_eq!(event["type_uid"], json!(class * 100 + event["activity_id"].as_i64().unwrap()));
        assert!(event["metadata"]["uid"].as_str().unwrap().starts_with("led_"));
        *seen.entry(class).or_insert(0) += 1;
    }
    assert_eq!(seen.values().sum::<usize>(), count);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [2004, 3002, 3003, 6003]);
    // The schema does refuse what is wrong.
    let mut event: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    event["activity_id"] = json!(77);
    let class = event["class_uid"].as_i64().unwrap();
    assert!(!schemas.iter().find(|(uid, _)| *uid == class).unwrap().1.is_valid(&event));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_export_has_a_line_a_record_and_the_columns_of_the_view() {
    for db in stores().await {
        let node = Node::filled(&db).await;
        let text = node.export(|request| request.format = Format::Csv).await;
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("stream,seq,id,at,kind,actor_kind"), "{}", lines[0]);
        // Eight records (the last checkpoint's among them), the header, and nothing behind the last line end.
        assert_eq!(lines.len(), 10, "{text}");
        assert!(lines[1].contains("Z,config.reload,system,system"), "{}", lines[1]);
        assert!(lines[1].contains("\"line\nend 0 é\""), "{}", lines[1]);
    }
}

#[test]
fn only_formats_that_exist_are_offered() {
    let words: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(words, ["jsonl", "ocsf", "csv"]);
    assert!("cef".parse::<Format>().is_err() && "tiles".parse::<Format>().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn stubs_are_explained_by_the_retention_records_of_the_file_alone() {
    for db in stores().await {
        let clock = ManualClock::at(1_700_006_400_000);
        let node = Node::start_at(&db, Arc::new(clock.clone())).await;
        node.write((0..6).map(number)).await;
        clock.advance(500 * crate::retention::DAY_MS);
        let by = RequestContext::new(Arc::new(Principal::anonymous()), "trc_1".into());
        node.ledger.retain_now(&crate::retention::RetentionRules::default(), &by).await.unwrap();
        node.write((6..8).map(number)).await;
        node.ledger.make_checkpoint().await.unwrap();
        let trusted = with(&[node.key()]);
        let text = node.export(|_| {}).await;
        let report = verified(&text, &trusted);
        assert!(report.is_intact(), "{report:?}\n{text}");
        assert_eq!(report.pruned, 3, "{text}");

        // What forges a stub: the records are whole, the tree and the signature fit.
        let genuine: Value =
            serde_json::from_str(text.lines().find(|line| line.starts_with("{\"stub\"")).unwrap()).unwrap();
        let hide = |wanted: &dyn Fn(&Value) -> bool, change: &dyn Fn(&mut Value)| {
            let lines = text.lines().map(|line| {
                let read: Value = serde_json::from_str(line).unwrap();
                let record = &read["record"];
                if !record.is_object() || !wanted(record) {
                    return line.to_owned();
                }
                let mut stub = json!({"stub": {"seq": record["seq"], "kind": record["kind"], "at": record["at"],
                    "hash": read["hash"]}});
                change(&mut stub["stub"]);
                stub.to_string()
            });
            let lines: Vec<String> = lines.collect();
            assert_ne!(lines.join("\n"), text.trim_end());
            checks(&lines.join("\n"), &trusted)
        };
        let by = genuine["stub"]["by"].clone();
        let unexplained = ["stub_unexplained"];
        let old = |record: &Value| record["seq"] == 2;
        let new = |record: &Value| record["kind"] == "config.reload";
        let retention = |record: &Value| record["kind"] == "system.retention";
        assert_eq!(hide(&old, &|_| {}), unexplained);
        assert_eq!(hide(&old, &|stub| stub["by"] = by.clone()), unexplained);
        // Called another kind, one that retention had taken then.
        let renamed = |stub: &mut Value| {
            stub["by"] = by.clone();
            stub["kind"] = "config.reload".into();
        };
        assert_eq!(hide(&old, &renamed), unexplained);
        assert_eq!(hide(&new, &|stub| stub["by"] = by.clone()), unexplained);
        assert_eq!(hide(&old, &|stub| stub["by"] = "led_none".into()), unexplained);
        // Records of the system are kept for ever; without the one that explains, nothing is explained.
        assert_eq!(hide(&retention, &|_| {}), ["stub_unexplained"; 2]);
        let unnamed = text.replace(&format!(",\"by\":{by}"), "");
        assert_eq!(checks(&unnamed, &trusted), ["stub_unexplained"; 3]);

        // A range without the retention record does not explain what it holds.
        let stream = node.ledger.stream().to_string();
        let range = node.export(|request| {
            request.to = Some(4);
            request.filter.stream = Some(stream);
        });
        let report = verified(&range.await, &trusted);
        assert_eq!(
            (report.findings.len(), report.findings[0].check, report.pruned),
            (1, "stub_unexplained", 0)
        );
        assert!(report.findings[0].found.contains("not explained by this file"), "{report:?}");
    }
}
