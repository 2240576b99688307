use super::*;
use crate::note::VerifierKey;
use crate::proof::{InclusionProof, ProofFault};
use crate::repair::{NodeOfRepair, RepairError, repair};
use crate::repository::entries::Filter;
use crate::signing_key::Signer;
use crate::tree::{Frontier, Hash, verify_consistency};
use crate::verify::{COPY, Report, Scope, VerifyError, verify};
use crate::{Condition, Ledger, Witness, signing_key, testing};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use systemprompt_database::Db;
use systemprompt_database::on_tx;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_models::{Clock, ManualClock, SystemClock};
use systemprompt_net::egress::{Class, client};
use tempfile::TempDir;

async fn stores() -> [TestDb; 2] {
    databases(&testing::migrations()).await
}

/// A node with its data folder, apart from where the database is.
struct Node {
    folder: TempDir,
    name: &'static str,
    witnesses: Witnesses,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

impl Node {
    fn new() -> Self {
        Self::named("test")
    }

    fn named(name: &'static str) -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            name,
            witnesses: Witnesses::default(),
            clock: Arc::new(SystemClock),
            tasks: Tasks::default(),
        }
    }

    fn key_path(&self) -> PathBuf {
        self.folder.path().join("keys/ledger.ed25519")
    }

    fn repair<'a>(&'a self, signer: &'a Signer) -> NodeOfRepair<'a> {
        NodeOfRepair {
            node_id: self.name,
            origin_host: "localhost",
            data_dir: self.folder.path(),
            signer: Some(signer),
            notes: notes(self),
        }
    }

    fn signer(&self) -> SigningKey {
        let key = signing_key::load(&self.key_path()).unwrap();
        key.unwrap_or_else(|| signing_key::make(&self.key_path()).unwrap())
    }

    async fn start(&self, db: &Db) -> Ledger {
        let options = crate::LedgerOptions {
            node_id: self.name.into(),
            data_dir: self.folder.path().into(),
            checkpoints: Some(CheckpointOptions {
                signers: Signers { path: Some(self.key_path()), ..Signers::of(self.signer()) },
                records: 1000,
                every: Duration::from_secs(10),
                heartbeat: Duration::from_hours(1),
                witnesses: self.witnesses.clone(),
            }),
            ..testing::options(db)
        };
        Ledger::start(db, &[], options, Arc::clone(&self.clock), &self.tasks).await.unwrap()
    }

    /// A ledger of `n` records and a checkpoint over them, stopped: one record and one checkpoint more.
    async fn filled(&self, db: &Db, n: usize) -> Ledger {
        let ledger = self.start(db).await;
        write(&ledger, n).await;
        ledger.stop().await;
        ledger
    }
}

async fn write(ledger: &Ledger, n: usize) {
    for i in 0..n {
        append(ledger, i).await;
    }
}

async fn append(ledger: &Ledger, i: usize) {
    let mut unit = Unit::new();
    unit.record(Draft::system(EntryKind::ConfigReload, "ok").with("number", i as u64));
    ledger.append(unit).await.unwrap();
}

/// Many records in few commits.
async fn write_many(ledger: &Ledger, n: usize) {
    for chunk in (0..n).collect::<Vec<_>>().chunks(512) {
        let mut set = tokio::task::JoinSet::new();
        for numbers in chunk.chunks(16) {
            let (ledger, numbers) = (ledger.clone(), numbers.to_vec());
            set.spawn(async move {
                let mut unit = Unit::new();
                for i in numbers {
                    unit.record(Draft::system(EntryKind::ConfigReload, "ok").with("number", i as u64));
                }
                ledger.append(unit).await.unwrap();
            });
        }
        set.join_all().await;
    }
}

async fn execute(db: &Db, sql: impl Into<String>) {
    let sql = sql.into();
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await.map(drop)).unwrap();
    tx.commit().await.unwrap();
}

async fn verified(db: &Db, scope: &Scope) -> Report {
    verify(&LedgerReader::new((*db).clone()), &[], scope).await.unwrap()
}

async fn checks(db: &Db, scope: &Scope) -> Vec<&'static str> {
    verified(db, scope).await.findings.iter().map(|finding| finding.check).collect()
}

/// What somebody does who can write the database and knows everything but the key: all records from `seq` on are made anew.
async fn rewrite_from(db: &Db, stream: &str, seq: i64) {
    let reader = LedgerReader::new((*db).clone());
    let rows = reader.page(stream, 0, 100_000).await.unwrap();
    let (mut prev, mut frontier) = (rows[0].prev_hash.clone(), Frontier::default());
    for row in &rows {
        let mut record: Value = serde_json::from_str(row.record.as_deref().unwrap()).unwrap();
        if row.seq == seq {
            record["outcome"] = "forged".into();
        }
        record["prev_hash"] = prev.clone().into();
        let text = serde_json_canonicalizer::to_string(&record).unwrap();
        let leaf = chain::leaf_digest(text.as_bytes());
        let hash = hex::encode(leaf);
        let outcome = record["outcome"].as_str().unwrap();
        execute(
            db,
            format!(
                "UPDATE ledger_entries SET record = '{}', prev_hash = '{prev}', hash = '{hash}', outcome = '{outcome}'
                 WHERE seq = {}",
                text.replace('\'', "''"),
                row.seq
            ),
        )
        .await;
        frontier.push(leaf, |_, _| {});
        prev = hash;
    }
    set_head(db, frontier.size() as i64, &prev, &frontier).await;
}

async fn set_head(db: &Db, seq: i64, hash: &str, frontier: &Frontier) {
    let blob = match db {
        Db::Sqlite(_) => format!("X'{}'", hex::encode(frontier.to_bytes())),
        Db::Postgres(_) => format!("'\\x{}'", hex::encode(frontier.to_bytes())),
    };
    execute(
        db,
        format!("UPDATE ledger_streams SET head_seq = {seq}, head_hash = '{hash}', frontier = {blob}"),
    )
    .await;
}

/// Puts back what an older copy of the database holds: everything behind `seq` is gone, and nothing shows it inside.
async fn cut_to(db: &Db, stream: &str, seq: i64) {
    let rows = LedgerReader::new((*db).clone()).page(stream, 0, seq).await.unwrap();
    let mut frontier = Frontier::default();
    for row in &rows {
        frontier.push(crate::tree::from_hex(&row.hash).unwrap(), |_, _| {});
    }
    execute(db, format!("DELETE FROM ledger_entries WHERE seq > {seq}")).await;
    set_head(db, seq, &rows.last().unwrap().hash, &frontier).await;
}

fn notes(node: &Node) -> Vec<Note> {
    outside_notes(node.folder.path(), &[]).notes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heads_of_many_streams_are_a_payload_and_still_anchor_them() {
    for db in stores().await {
        let node = Node::new();
        node.filled(&db, 7).await;
        let ledger = node.start(&db).await;
        for number in 0..70 {
            let name = format!("copy-{number:02}");
            let copied = format!(
                "INSERT INTO ledger_streams (stream, origin, node_id, epoch, head_seq, head_hash, created_at, frontier)
                 SELECT '{name}', 'localhost/ledger/{name}', 'copy', 1, head_seq, head_hash, created_at, frontier
                 FROM ledger_streams WHERE stream NOT LIKE 'copy-%'"
            );
            execute(&db, copied).await;
        }
        append(&ledger, 8).await;
        assert!(ledger.make_checkpoint().await.unwrap());
        let filter = Filter { kind: Some("system.checkpoint".into()), ..Filter::default() };
        let records = ledger.reader().filtered(&filter, None, 1).await.unwrap();
        let record: Value = serde_json::from_str(records[0].record.as_deref().unwrap()).unwrap();
        assert_eq!(
            (&record["detail"]["heads_count"], &record["detail"]["heads"]),
            (&71.into(), &Value::Null)
        );
        let body = ledger.reader().payload(&records[0], "heads").await.unwrap();
        let heads: Value = serde_json::from_slice(&body.bytes).unwrap();
        assert_eq!(heads.as_object().unwrap().len(), 71);
        execute(&db, "DELETE FROM ledger_streams WHERE stream = 'copy-07'".to_owned()).await;
        let found = verified(&db, &Scope::default()).await.findings;
        assert!(found.iter().any(|f| (f.check, &*f.stream) == ("stream_missing", "copy-07")), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_at_start_and_stop_are_signed_recorded_and_verify() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.filled(&db, 7).await;
        let again = node.start(&db).await;
        append(&again, 8).await;
        assert!(again.make_checkpoint().await.unwrap());
        let vkey = again.vkey().unwrap();
        let newest = again.reader().checkpoint(again.stream()).await.unwrap();
        let note: Note = newest.note.parse().unwrap();
        note.verify([&vkey]).unwrap();
        assert_eq!(Some(newest.note.clone()), read_copy(node.folder.path()).unwrap());
        let filter = Filter { kind: Some("system.checkpoint".into()), ..Filter::default() };
        let records = again.reader().filtered(&filter, None, 9).await.unwrap();
        let record: Value = serde_json::from_str(records[0].record.as_deref().unwrap()).unwrap();
        assert_eq!(record["detail"]["note_sha256"], note_digest(&newest.note));
        assert_eq!(record["detail"]["heads"][&**ledger.stream()]["root"], newest.root);
        again.stop().await;
        let scope = Scope { keys: vec![vkey.clone()], notes: notes(&node), ..Scope::default() };
        let report = verified(&db, &scope).await;
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.outside, report.signed[0].trusted), (1, true));
        assert!(report.checkpoints >= 3, "{report:?}");
        assert_eq!(report.signed[0].vkey, vkey.to_string());
        // A part of a stream is verified with the signed tree, too.
        let part = Scope { from: Some(4), ..scope };
        let report = verified(&db, &part).await;
        assert!(report.is_intact() && report.checkpoints >= 2, "{report:?}");
        assert!(!verified(&db, &Scope::default()).await.signed[0].trusted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_due_by_records_by_time_and_by_heartbeat() {
    for db in stores().await {
        let (mut node, clock) = (Node::new(), Arc::new(ManualClock::at(1_000_000)));
        node.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let ledger = node.start(&db).await;
        let maker = {
            let options = CheckpointOptions {
                signers: Signers::of(node.signer()),
                records: 5,
                every: Duration::from_secs(10),
                heartbeat: Duration::from_mins(1),
                witnesses: Witnesses::default(),
            };
            let stream = ledger.reader().streams().await.unwrap().remove(0);
            let shared = ledger.shared_for_tests();
            Checkpointer::open(shared, ledger.reader(), &stream, options, node.folder.path()).await.unwrap()
        };
        node.tasks.drain(Duration::from_secs(5)).await;
        append(&ledger, 0).await;
        maker.make().await.unwrap();
        assert!(!maker.is_due().await, "its own record is no reason");
        clock.advance(11_000);
        assert!(!maker.is_due().await, "nothing is new");
        append(&ledger, 1).await;
        assert!(maker.is_due().await, "ten seconds with a new record");
        maker.make().await.unwrap();
        for i in 0..4 {
            append(&ledger, i).await;
        }
        assert!(!maker.is_due().await);
        append(&ledger, 5).await;
        assert!(maker.is_due().await, "five records");
        maker.make().await.unwrap();
        assert!(!maker.is_due().await);
        clock.advance(60_000);
        assert!(maker.is_due().await, "heartbeat");
        ledger.stop().await;
    }
}

/// The rows of AUD-52 that the tree and its checkpoints show; the others stand with the ledger's tests.
#[tokio::test(flavor = "multi_thread")]
async fn every_tampering_with_tree_and_checkpoints_has_its_finding() {
    for (sql, expected) in [
        ("DELETE FROM ledger_checkpoints", "checkpoint_missing"),
        ("UPDATE ledger_checkpoints SET note = REPLACE(note, '=', 'A')", "checkpoint_altered"),
        ("UPDATE ledger_checkpoints SET root = 'ff'", "checkpoint_altered"),
        ("UPDATE ledger_checkpoints SET key_id = 'other'", "checkpoint_altered"),
        ("UPDATE ledger_checkpoints SET size = size + 1", "checkpoint_altered"),
        ("UPDATE ledger_keys SET vkey = 'x+00000000+AAAA'", "key_altered"),
        ("DELETE FROM ledger_keys", "key_unknown"),
        ("DELETE FROM ledger_keys", "key_missing"),
        ("UPDATE ledger_checkpoints SET at = at + 1", "checkpoint_altered"),
        ("UPDATE ledger_keys SET state = 'retired'", "key_altered"),
        ("UPDATE ledger_keys SET retired_at = valid_from", "key_altered"),
        ("UPDATE ledger_keys SET valid_from = valid_from - 1", "key_altered"),
        ("UPDATE ledger_keys SET ledger_id = 'led_other'", "key_altered"),
        ("UPDATE ledger_streams SET created_at = created_at - 1", "stream_altered"),
        ("UPDATE ledger_streams SET node_id = 'other'", "stream_altered"),
        ("UPDATE ledger_streams SET epoch = 0", "stream_altered"),
        ("UPDATE ledger_streams SET predecessor = 'other'", "stream_altered"),
        ("UPDATE ledger_streams SET closed_at = 5", "stream_altered"),
        ("UPDATE ledger_streams SET closed_reason = 'nobody knows'", "stream_altered"),
        ("UPDATE ledger_streams SET frontier = NULL, head_seq = head_seq", ""),
        ("UPDATE ledger_streams SET frontier = (SELECT root FROM ledger_tiles LIMIT 1)", "frontier_altered"),
        ("DELETE FROM ledger_tiles", "tile_missing"),
        ("UPDATE ledger_tiles SET root = hashes", "tile_altered"),
        ("UPDATE ledger_tiles SET hashes = root", "tile_altered"),
        (
            "UPDATE ledger_entries SET record = REPLACE(record, 'number', 'numbre') WHERE seq = 2",
            "checkpoint_mismatch",
        ),
        ("DELETE FROM ledger_entries WHERE seq > 250", "tail_missing"),
    ] {
        for db in stores().await {
            let node = Node::new();
            let ledger = node.start(&db).await;
            write_many(&ledger, 300).await;
            ledger.stop().await;
            assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
            execute(&db, sql).await;
            let found = checks(&db, &Scope::default()).await;
            assert!(
                found.contains(&expected) || (expected.is_empty() && found.is_empty()),
                "{sql}: {found:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_suffix_does_not_fit_the_checkpoints_whatever_else_is_rewritten() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.filled(&db, 6).await;
        let (stream, kept) = (ledger.stream().to_string(), notes(&node));
        rewrite_from(&db, &stream, 3).await;
        let report = verified(&db, &Scope::default()).await;
        assert_eq!(report.findings.len(), 1, "{report:?}");
        assert_eq!(report.findings[0].check, "checkpoint_mismatch");
        // The node does not go on with it.
        let again = node.start(&db).await;
        assert!(
            matches!(&*again.condition(), Condition::Damaged(why) if why.contains("checkpoint_mismatch"))
        );
        again.stop().await;
        // Checkpoints signed anew with another key are not those of the node.
        let stranger = SigningKey::new(aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap());
        let rows = LedgerReader::new((*db).clone()).page(&stream, 0, 100).await.unwrap();
        let mut frontier = Frontier::default();
        let origin = ledger.vkey().unwrap().name().to_owned();
        execute(&db, "DELETE FROM ledger_keys").await;
        let vkey = stranger.vkey(&origin);
        execute(&db, format!("INSERT INTO ledger_keys (key_id, vkey, state, valid_from, ledger_id) VALUES ('{}', '{vkey}', 'active', 0, '')", vkey.id())).await;
        for row in &rows {
            frontier.push(crate::tree::from_hex(&row.hash).unwrap(), |_, _| {});
            let forged = Checkpoint { origin: origin.clone(), size: frontier.size(), root: frontier.root() };
            let (note, root) = (stranger.sign(&forged), hex::encode(forged.root));
            execute(&db, format!("UPDATE ledger_checkpoints SET note = '{note}', root = '{root}', key_id = '{}' WHERE size = {}", vkey.id(), row.seq)).await;
        }
        let given = Scope { keys: vec![ledger.vkey().unwrap()], ..Scope::default() };
        assert!(checks(&db, &given).await.contains(&"key_unknown"));
        let beside = Scope { keys: vec![ledger.vkey().unwrap()], notes: kept, ..Scope::default() };
        assert!(checks(&db, &beside).await.contains(&"checkpoint_mismatch"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_cut_before_a_stored_checkpoint_is_missing_and_an_older_database_is_a_rollback() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.filled(&db, 9).await;
        let (stream, vkey) = (ledger.stream().to_string(), ledger.vkey().unwrap());
        cut_to(&db, &stream, 4).await;
        let report = verified(&db, &Scope::default()).await;
        let missing = report.findings.iter().find(|f| f.check == "tail_missing").unwrap();
        assert_eq!((missing.seq, missing.expected.starts_with("records 5 to 9")), (5, true), "{missing:?}");
        let again = node.start(&db).await;
        assert!(matches!(&*again.condition(), Condition::Damaged(why) if why.contains("tail_missing")));
        again.stop().await;

        execute(&db, "DELETE FROM ledger_checkpoints WHERE size > 4").await;
        let again = node.start(&db).await;
        assert_eq!(again.condition().code(), "ledger_rollback", "{:?}", again.condition());
        let refused = again.append({
            let mut unit = Unit::new();
            unit.record(Draft::system(EntryKind::SystemStart, "ok"));
            unit
        });
        assert!(matches!(refused.await, Err(LedgerError::Damaged(_))));
        assert_eq!(again.reader().page(&stream, 0, 100).await.unwrap().len(), 4, "it is still read");
        again.stop().await;
        assert_eq!(
            checks(&db, &Scope::default()).await,
            ["key_altered"],
            "the record that the key came with"
        );
        execute(&db, "DELETE FROM ledger_keys").await;
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new(), "inside nothing shows it");
        let beside = Scope { keys: vec![vkey], notes: notes(&node), ..Scope::default() };
        assert_eq!(checks(&db, &beside).await, ["rollback"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_closes_the_stream_and_begins_a_successor_that_names_the_old_head() {
    for db in stores().await {
        let node = Node::new();
        let old = node.filled(&db, 9).await.stream().to_string();
        cut_to(&db, &old, 4).await;
        execute(&db, "DELETE FROM ledger_checkpoints").await;
        assert_eq!(node.start(&db).await.condition().code(), "ledger_rollback");
        let signer = node.signer().into();
        let done = repair(&db, &node.repair(&signer), "backup of Monday", 5).await.unwrap();
        assert_eq!((done.closed.stream.as_str(), done.closed.head_seq), (old.as_str(), 4));
        let ledger = node.start(&db).await;
        assert!(ledger.condition().is_ready(), "{:?}", ledger.condition());
        assert_eq!(**ledger.stream(), *done.successor.stream);
        let first = ledger.reader().page(ledger.stream(), 0, 1).await.unwrap().remove(0);
        let record: Value = serde_json::from_str(first.record.as_deref().unwrap()).unwrap();
        assert_eq!((first.kind.as_str(), &record["detail"]["predecessor"]), ("system.repair", &json!(old)));
        assert_eq!(record["detail"]["head_hash"], json!(done.closed.head_hash));
        ledger.stop().await;
        let found = checks(&db, &Scope { notes: notes(&node), ..Scope::default() }).await;
        assert_eq!(found, Vec::<&str>::new());
        let again = node.start(&db).await;
        assert_eq!(again.stream(), ledger.stream());
        assert!(again.condition().is_ready());
        again.stop().await;
        let refused = repair(&db, &node.repair(&signer), "once more", 6).await;
        assert!(matches!(refused, Err(RepairError::Intact(stream)) if stream == **ledger.stream()));
        let lost = NodeOfRepair { signer: None, ..node.repair(&signer) };
        assert!(repair(&db, &lost, "the key is lost", 6).await.is_ok(), "without its key no stream goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_stream_was_closed_is_what_its_successor_says() {
    for db in stores().await {
        let node = Node::new();
        let old = node.filled(&db, 9).await.stream().to_string();
        cut_to(&db, &old, 4).await;
        execute(&db, "DELETE FROM ledger_checkpoints").await;
        let signer = node.signer().into();
        let done = repair(&db, &node.repair(&signer), "backup of Monday", 5).await.unwrap();
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new(), "no successor was started yet");
        node.filled(&db, 3).await;
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
        let of = |column: &str, value: &str| {
            format!(
                "UPDATE ledger_streams SET {column} = {value} WHERE closed_at IS NOT NULL OR closed_reason IS NOT NULL"
            )
        };
        let found = |finding: &crate::verify::Finding| (finding.check, finding.stream.clone());
        for (column, other, back) in [
            ("closed_reason", "'backup of Tuesday'", "'backup of Monday'"),
            ("closed_reason", "NULL", "'backup of Monday'"),
            ("closed_at", "6", "5"),
            ("closed_at", "NULL", "5"),
        ] {
            execute(&db, of(column, other)).await;
            let report = verified(&db, &Scope::default()).await;
            let found: Vec<_> = report.findings.iter().map(found).collect();
            assert!(found.contains(&("stream_altered", old.clone())), "{column} {other}: {found:?}");
            execute(&db, of(column, back)).await;
        }
        execute(&db, "UPDATE ledger_streams SET predecessor = NULL").await;
        let report = verified(&db, &Scope::default()).await;
        let found: Vec<_> = report.findings.iter().map(found).collect();
        assert!(found.contains(&("stream_altered", done.successor.stream.clone())), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_stream_are_as_its_rotations_tell() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.start(&db).await;
        write(&ledger, 3).await;
        ledger.make_checkpoint().await.unwrap();
        let by = systemprompt_models::RequestContext::new(
            Arc::new(systemprompt_models::Principal::anonymous()),
            systemprompt_models::ids::TraceId::generate(),
        );
        ledger.rotate_key(&by).await.unwrap();
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new(), "while it is written");
        ledger.stop().await;
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
        for (change, back) in [
            (
                "retired_at = retired_at + 1 WHERE state = 'retired'",
                "retired_at = retired_at - 1 WHERE state = 'retired'",
            ),
            (
                "valid_from = valid_from + 1 WHERE state = 'active'",
                "valid_from = valid_from - 1 WHERE state = 'active'",
            ),
            ("state = 'active' WHERE state = 'retired'", "state = 'retired' WHERE retired_at IS NOT NULL"),
            ("state = 'retired' WHERE state = 'active'", "state = 'active' WHERE retired_at IS NULL"),
        ] {
            execute(&db, format!("UPDATE ledger_keys SET {change}")).await;
            assert_eq!(checks(&db, &Scope::default()).await, ["key_altered"], "{change}");
            execute(&db, format!("UPDATE ledger_keys SET {back}")).await;
        }
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_older_version_gets_its_tree_at_the_next_start() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.start(&db).await;
        write_many(&ledger, 700).await;
        let before = ledger.reader().streams().await.unwrap().remove(0).frontier;
        node.tasks.drain(Duration::from_secs(5)).await;
        ledger.stop().await;
        execute(&db, "DELETE FROM ledger_tiles").await;
        execute(&db, "DELETE FROM ledger_checkpoints").await;
        execute(&db, "DELETE FROM ledger_keys").await;
        execute(&db, "DELETE FROM ledger_entries WHERE kind = 'system.checkpoint'").await;
        let stream = ledger.stream().to_string();
        cut_to(&db, &stream, 700).await;
        execute(&db, "UPDATE ledger_streams SET frontier = NULL").await;
        retire_copy(node.folder.path(), "x").unwrap();
        let other = Node { tasks: Tasks::default(), ..node };
        let again = other.start(&db).await;
        assert!(again.condition().is_ready(), "{:?}", again.condition());
        let built = again.reader().streams().await.unwrap().remove(0).frontier;
        assert!(built.is_some() && before.is_some());
        append(&again, 701).await;
        again.stop().await;
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_verify_with_the_key_alone_and_a_changed_one_does_not() {
    for db in stores().await {
        let node = Node::new();
        let ledger = node.start(&db).await;
        write_many(&ledger, 1300).await;
        ledger.make_checkpoint().await.unwrap();
        let (reader, vkey) = (ledger.reader(), ledger.vkey().unwrap());
        let rows = reader.page(ledger.stream(), 0, 2000).await.unwrap();
        let checkpoint = reader.checkpoint(ledger.stream()).await.unwrap();
        let mut proved = None;
        for row in rows.iter().filter(|row| row.seq <= checkpoint.size).step_by(97).chain(rows.first()) {
            let proof = reader.prove(row).await.unwrap();
            let of = proof.verify(std::slice::from_ref(&vkey)).unwrap();
            assert_eq!((of.size as i64, hex::encode(of.root)), (checkpoint.size, checkpoint.root.clone()));
            proved = Some(proof);
        }
        let good: InclusionProof = proved.unwrap();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<InclusionProof>(&text).unwrap(), good);
        let keys = [vkey];
        let changed =
            InclusionProof { record: good.record.replace("\"number\"", "\"numbre\""), ..good.clone() };
        assert_eq!(changed.verify(&keys), Err(ProofFault::NotIncluded));
        let changed = InclusionProof { leaf_index: good.leaf_index + 1, ..good.clone() };
        assert_eq!(changed.verify(&keys), Err(ProofFault::Place));
        let changed = InclusionProof { inclusion: vec!["AAAA".into()], ..good.clone() };
        assert_eq!(changed.verify(&keys), Err(ProofFault::Hash));
        let changed = InclusionProof { checkpoint: good.checkpoint.replace("\n1", "\n2"), ..good.clone() };
        assert!(matches!(changed.verify(&keys), Err(ProofFault::Note(_))));
        let stranger: Vec<VerifierKey> = vec![Node::new().signer().vkey(keys[0].name())];
        assert!(matches!(good.verify(&stranger), Err(ProofFault::Note(_))));

        for (from, to) in [(1, 1), (1, 1300), (256, 1024), (255, 1299), (700, 700), (1024, 1025)] {
            let proof = reader.prove_consistency(ledger.stream(), from, to).await.unwrap();
            let hash = |text: &String| -> Hash { STANDARD.decode(text).unwrap().try_into().unwrap() };
            let leaves: Vec<Hash> =
                rows.iter().map(|row| crate::tree::from_hex(&row.hash).unwrap()).collect();
            assert_eq!(hash(&proof.from_root), merkle(&leaves[..from as usize]));
            assert_eq!(hash(&proof.to_root), merkle(&leaves[..to as usize]));
            let hashes: Vec<Hash> = proof.consistency.iter().map(hash).collect();
            assert!(verify_consistency(from, to, &hashes, &hash(&proof.from_root), &hash(&proof.to_root)));
        }
        for (from, to) in [(0, 1), (2, 1), (1, 9_999_999)] {
            let refused = reader.prove_consistency(ledger.stream(), from, to).await;
            assert!(matches!(refused, Err(ProofError::BadSizes(_))), "{from} {to}");
        }
        assert!(matches!(reader.checkpoint("x").await, Err(ProofError::NoSuchStream(_))));
        ledger.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_anchor_each_other() {
    for db in stores().await {
        let (one, two) = (Node::named("one"), Node::named("two"));
        let first = one.filled(&db, 5).await;
        let second = two.filled(&db, 3).await;
        assert_eq!(checks(&db, &Scope::default()).await, Vec::<&str>::new());
        // The first stream is cut with its own checkpoints; the second still knows.
        let rows = LedgerReader::new((*db).clone()).page(first.stream(), 0, 2).await.unwrap();
        let mut frontier = Frontier::default();
        for row in &rows {
            frontier.push(crate::tree::from_hex(&row.hash).unwrap(), |_, _| {});
        }
        let own = format!("stream = '{}'", first.stream());
        execute(&db, format!("DELETE FROM ledger_entries WHERE seq > 2 AND {own}")).await;
        execute(&db, format!("DELETE FROM ledger_checkpoints WHERE {own}")).await;
        execute(&db, format!("DELETE FROM ledger_keys WHERE key_id LIKE '%/{}+%'", first.stream())).await;
        let blob = match &*db {
            Db::Sqlite(_) => format!("X'{}'", hex::encode(frontier.to_bytes())),
            Db::Postgres(_) => format!("'\\x{}'", hex::encode(frontier.to_bytes())),
        };
        let head = &rows[1].hash;
        execute(
            &db,
            format!(
                "UPDATE ledger_streams SET head_seq = 2, head_hash = '{head}', frontier = {blob} WHERE {own}"
            ),
        )
        .await;
        let report = verified(&db, &Scope::default()).await;
        assert_eq!(report.findings.len(), 1, "{report:?}");
        assert_eq!((report.findings[0].check, report.findings[0].seq), ("tail_missing", 3));
        assert!(report.findings[0].expected.contains(&**second.stream()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_get_the_newest_checkpoint_and_what_they_lack_is_told() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/notes?token=t", server.local_addr().unwrap());
    let (sent, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (n, connection) in server.incoming().enumerate() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).unwrap() > 2 {
                let last = head.lines().last().unwrap().to_lowercase();
                length = last.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            // The first is refused, so that it is tried again.
            let status = if n == 0 { "500 No" } else { "200 OK" };
            write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .unwrap();
            if sent.send((n, head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    for db in stores().await {
        let mut node = Node::new();
        let file = node.folder.path().join("witness.notes");
        let http = Witness::Http { url: url.clone(), egress: client(Class::Loopback).unwrap() };
        node.witnesses = Witnesses::new(vec![Witness::File(file.clone()), http]);
        let ledger = node.start(&db).await;
        write(&ledger, 3).await;
        ledger.make_checkpoint().await.unwrap();
        let (_, head, body) = received.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            head.starts_with("POST /notes?token=t ")
                && head.to_lowercase().contains("content-type: text/plain")
        );
        body.parse::<Note>().unwrap().verify([&ledger.vkey().unwrap()]).unwrap();
        for _ in 0..200 {
            if node.witnesses.unwitnessed_ms(SystemClock.now()) == Some(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(node.witnesses.unwitnessed_ms(SystemClock.now()), Some(0));
        let kept = crate::note::split(&std::fs::read_to_string(&file).unwrap()).unwrap();
        kept.last().unwrap().verify([&ledger.vkey().unwrap()]).unwrap();
        let newest = ledger.reader().checkpoint(ledger.stream()).await.unwrap();
        assert!(
            newest.witnessed.contains("witness.notes") && newest.witnessed.contains("/notes\""),
            "{newest:?}"
        );
        let names = node.witnesses.names();
        let now = SystemClock.now() + 5000;
        assert_eq!(ledger.reader().unwitnessed_ms(ledger.stream(), &names, now).await.unwrap(), 0);
        execute(&db, "UPDATE ledger_checkpoints SET witnessed = '{}'").await;
        assert!(ledger.reader().unwitnessed_ms(ledger.stream(), &names, now).await.unwrap() >= 5000);
        ledger.stop().await;
        while received.try_recv().is_ok() {}
        assert!(ledger.outside_notes().await.notes.len() >= 2, "the copy and the file");
    }
}

#[test]
fn a_key_file_is_made_once_for_its_owner_alone() {
    let node = Node::new();
    let path = node.key_path();
    assert!(signing_key::load(&path).unwrap().is_none());
    let made = signing_key::make(&path).unwrap();
    assert_eq!(signing_key::load(&path).unwrap().unwrap().public(), made.public());
    let mode =
        |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o640);
    assert!(matches!(signing_key::load(&path), Err(signing_key::SigningKeyError::FileMode(_))));
    mode(0o600);
    std::fs::write(&path, "no key").unwrap();
    assert!(matches!(signing_key::load(&path), Err(signing_key::SigningKeyError::Content(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_no_checkpoint_is_a_finding_as_it_is_at_start() {
    for db in stores().await {
        let node = Node::new();
        node.filled(&db, 4).await;
        assert!(!outside_notes(node.folder.path(), &[]).is_copy_altered);
        for junk in [&b"junk\n"[..], b"", b"\xff\xfe"] {
            fs::write(copy_path(node.folder.path()), junk).unwrap();
            let outside = outside_notes(node.folder.path(), &[]);
            let scope = Scope { is_copy_altered: outside.is_copy_altered, ..Scope::default() };
            let found = verified(&db, &scope).await.findings;
            assert_eq!(
                (found.len(), found[0].check, found[0].stream.as_str()),
                (1, "checkpoint_altered", COPY)
            );
            let again = node.start(&db).await;
            let condition = again.condition();
            assert_eq!(condition.why(), Some("checkpoint_altered in ledger/last-checkpoint"));
            again.stop().await;
        }
        let signer = node.signer().into();
        assert!(repair(&db, &node.repair(&signer), "the copy is junk", 5).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_holds_nothing_is_no_finding() {
    for db in stores().await {
        let node = Node::new();
        let stream = node.filled(&db, 4).await.stream().to_string();
        let reader = LedgerReader::new((*db).clone());
        for stream in [None, Some(stream)] {
            for (from, to) in [(5, Some(3)), (0, None), (-1, None), (1, Some(0))] {
                let scope = Scope { stream: stream.clone(), from: Some(from), to, ..Scope::default() };
                assert!(matches!(verify(&reader, &[], &scope).await, Err(VerifyError::EmptyRange)));
            }
            let scope = Scope { stream: stream.clone(), from: Some(999_999), ..Scope::default() };
            assert!(matches!(verify(&reader, &[], &scope).await, Err(VerifyError::BehindEnd { .. })));
        }
    }
}
