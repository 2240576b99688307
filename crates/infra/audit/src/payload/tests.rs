use super::read::{PayloadError, State};
use super::*;
use crate::repository::payloads;
use crate::testing;
use crate::verify::{Report, Scope, verify};
use crate::{Draft, EntryKind, Ledger, LedgerError, Unit};
use proptest::prelude::*;
use systemprompt_database::testing::databases;
use systemprompt_database::{Db, on_tx};
use systemprompt_leak::Scanner;
use systemprompt_models::ids::UserId;
use systemprompt_models::{Principal, RequestContext, Secret, Tasks, UserType};

fn by(user: &str) -> RequestContext {
    let mut principal = Principal::anonymous();
    principal.user_id = UserId::new(user);
    principal.user_type = UserType::User;
    RequestContext::new(Arc::new(principal), "trace-of-the-test".into())
}

/// Knows one secret, as the rules of a room above do.
struct Rules;

impl Redact for Rules {
    fn redact<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let text = std::str::from_utf8(body).ok()?;
        if text.contains("AKIA") {
            Some(text.replace("AKIA", "[aws]").into_bytes().into())
        } else {
            Some(body.into())
        }
    }
}

fn policy(mode: Mode) -> PayloadPolicy {
    let rules = PayloadRules { inference: mode, tool: mode, change: mode, client: mode, note: mode };
    PayloadPolicy { rules, redactor: Some(Arc::new(Rules)) }
}

async fn started(db: &Db, mode: Mode, leak: Scanner) -> Ledger {
    let mut options = testing::options(db);
    options.payloads = policy(mode);
    options.leak = leak;
    let clock = Arc::new(systemprompt_models::SystemClock);
    Ledger::start(db, &[], options, clock, &Tasks::default()).await.unwrap()
}

async fn stores() -> [systemprompt_database::testing::TestDb; 2] {
    databases(&testing::migrations()).await
}

async fn recorded(ledger: &Ledger, payload: Payload) -> crate::LedgerRow {
    let mut unit = Unit::new();
    let id = unit.record(Draft::new(EntryKind::ToolOpened, &by("usr_a"), "opened").with_payload(payload));
    ledger.append(unit).await.unwrap();
    ledger.reader().by_id(id.as_str()).await.unwrap().unwrap()
}

async fn checked(ledger: &Ledger) -> Report {
    verify(&ledger.reader(), &[], &Scope::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_comes_back_as_it_went_in_whatever_its_size() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        for size in [0, 1, 1024, 1025, 16 * 1024, 16 * 1024 + 1, 256 * 1024] {
            // Hardly compressible, so that the bound is met by what is stored, too.
            let mut body = vec![0; size];
            aws_lc_rs::rand::fill(&mut body).unwrap();
            let entry = recorded(&ledger, Payload::json(Role::Arguments, body.clone())).await;
            let read = ledger.reader().payload(&entry, "arguments").await.unwrap();
            assert_eq!((read.bytes, read.size), (body, size as i64));
        }
        let report = checked(&ledger).await;
        assert!(report.is_intact(), "{report:?}");
        assert_eq!(report.payloads, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_body_that_is_too_long_both_ends_are_kept_and_vouched_for() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        let body: Vec<u8> = (0..300 * 1024).map(|i: u32| (i / 7) as u8).collect();
        let entry = recorded(&ledger, Payload::json(Role::Result, body.clone())).await;
        let read = ledger.reader().payload(&entry, "result").await.unwrap();
        assert_eq!(read.size, body.len() as i64);
        assert_eq!(read.bytes[..EXCERPT_BYTES], body[..EXCERPT_BYTES]);
        assert_eq!(read.bytes[EXCERPT_BYTES..], body[body.len() - EXCERPT_BYTES..]);
        let found = ledger.reader().payloads(&entry).await.unwrap();
        assert_eq!(found[0].state, State::Excerpt);
        assert!(checked(&ledger).await.is_intact());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_keeps_what_it_says() {
    for db in stores().await {
        for (mode, state) in [
            (Mode::Full, State::Stored),
            (Mode::Redacted, State::Stored),
            (Mode::HashOnly, State::HashOnly),
            (Mode::Off, State::NotKept),
        ] {
            let ledger = started(&db, mode, Scanner::new()).await;
            let entry = recorded(&ledger, Payload::text(Role::Arguments, "key AKIA here")).await;
            let found = ledger.reader().payloads(&entry).await.unwrap();
            assert_eq!((found.len(), found[0].state), (1, state), "{mode:?}");
            assert_eq!(found[0].row.is_some(), mode != Mode::Off);
            let read = ledger.reader().payload(&entry, "arguments").await;
            match mode {
                Mode::Full => assert_eq!(read.unwrap().bytes, b"key AKIA here"),
                Mode::Redacted => assert_eq!(read.unwrap().bytes, b"key [aws] here"),
                _ => assert!(matches!(read, Err(PayloadError::NotStored { .. }))),
            }
            if mode == Mode::HashOnly {
                let (salt, body) = payloads::body(ledger.db(), found[0].row.as_ref().unwrap()).await.unwrap();
                assert_eq!(body, None);
                let shown = seal::commitment(&salt.unwrap(), b"key AKIA here");
                assert_eq!(shown, found[0].named.commitment, "who has the body can show that it is the one");
            }
            let report = checked(&ledger).await;
            assert!(report.is_intact(), "{mode:?} {report:?}");
            ledger.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_redacted_is_not_stored() {
    for db in stores().await {
        let ledger = started(&db, Mode::Redacted, Scanner::new()).await;
        let entry = recorded(&ledger, Payload::json(Role::Arguments, vec![0xff, 0xfe])).await;
        assert_eq!(ledger.reader().payloads(&entry).await.unwrap()[0].state, State::HashOnly);
        assert!(checked(&ledger).await.is_intact());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_use_reaches_no_body_in_any_mode() {
    for db in stores().await {
        let leak = Scanner::new();
        let _hold = leak.hold("token", &Secret::new("s3cr3t-value-in-use-0001".to_owned())).unwrap();
        let ledger = started(&db, Mode::Full, leak).await;
        for clean in [false, true] {
            let body = r#"{"a":"with s3cr3t-value-in-use-0001 in it"}"#;
            let payload = Payload::json(Role::Arguments, body).known_clean(clean);
            let entry = recorded(&ledger, payload).await;
            let read = ledger.reader().payload(&entry, "arguments").await.unwrap();
            assert_eq!(String::from_utf8(read.bytes).unwrap(), r#"{"a":"with [redacted:token] in it"}"#);
        }
        assert_eq!(ledger.metrics().scrubbed, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_no_record_names_is_swept_and_a_named_one_stays() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        let mut body = vec![0; 40_000];
        aws_lc_rs::rand::fill(&mut body).unwrap();
        let entry = recorded(&ledger, Payload::json(Role::Result, body.clone())).await;
        let left = vec![("body_left".to_owned(), Bytes::from_static(b"x"))];
        payloads::write_bodies(ledger.db(), left, ledger.now() - 599_000).await.unwrap();
        assert_eq!(ledger.sweep_bodies().await.unwrap(), 0, "not ten minutes yet");
        let old = vec![("body_old".to_owned(), Bytes::from_static(b"x"))];
        payloads::write_bodies(ledger.db(), old, ledger.now() - 601_000).await.unwrap();
        assert_eq!(ledger.sweep_bodies().await.unwrap(), 1);
        assert_eq!(
            payloads::sweep_bodies(ledger.db(), ledger.now() + 1).await.unwrap(),
            1,
            "the named one stays"
        );
        assert_eq!(ledger.reader().payload(&entry, "result").await.unwrap().bytes, body);
    }
}

#[test]
fn an_end_whose_long_body_cannot_be_stored_commits_to_it_alone() {
    let mut body = vec![0; 40_000];
    aws_lc_rs::rand::fill(&mut body).unwrap();
    let mut unit = Unit::new();
    let draft = Draft::new(EntryKind::ToolClosed, &by("usr_a"), "ok");
    unit.record(draft.with_payload(Payload::json(Role::Result, body.clone())));
    unit.seal(&policy(Mode::Full), &Scanner::new()).unwrap();
    assert_eq!(unit.take_large_bodies().len(), 1);
    unit.forget_large_bodies();
    let rendered = unit.render().unwrap();
    assert!(rendered.guards.is_empty());
    let sealed = &rendered.records[0].draft.sealed[0];
    assert_eq!((sealed.kept, sealed.body_ref.as_ref(), sealed.body.as_ref()), (Some("hash"), None, None));
    assert_eq!(sealed.commitment, seal::commitment(&sealed.salt, &body));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payloads_of_one_role_are_refused() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        let mut unit = Unit::new();
        let draft = Draft::new(EntryKind::ToolOpened, &by("usr_a"), "opened");
        let twice = draft
            .with_payload(Payload::text(Role::Reason, "one"))
            .with_payload(Payload::text(Role::Reason, "two"));
        unit.record(twice);
        assert!(matches!(ledger.append(unit).await, Err(LedgerError::Record(_))));
    }
}

/// Changes that somebody with the database's password makes, and what each shows as. All meet the record at seq 1.
const ATTACKS: &[(&str, &str, &str)] = &[
    (
        "another body",
        "UPDATE ledger_payloads SET body = (SELECT q.body FROM ledger_payloads q WHERE q.seq = 2) WHERE seq = 1",
        "payload_altered",
    ),
    (
        "another body and its salt",
        "UPDATE ledger_payloads SET body = (SELECT q.body FROM ledger_payloads q WHERE q.seq = 2),
             salt = (SELECT q.salt FROM ledger_payloads q WHERE q.seq = 2),
             commitment = (SELECT q.commitment FROM ledger_payloads q WHERE q.seq = 2) WHERE seq = 1",
        "payload_altered",
    ),
    ("another size", "UPDATE ledger_payloads SET size = size + 1 WHERE seq = 1", "payload_altered"),
    ("another time", "UPDATE ledger_payloads SET at = at - 1 WHERE seq = 1", "payload_altered"),
    ("deleted", "DELETE FROM ledger_payloads WHERE seq = 1", "payload_missing"),
    ("emptied", "UPDATE ledger_payloads SET body = NULL, salt = NULL WHERE seq = 1", "payload_missing"),
    ("without its salt", "UPDATE ledger_payloads SET salt = NULL WHERE seq = 1", "payload_missing"),
    (
        "as if erased",
        "UPDATE ledger_payloads SET body = NULL, salt = NULL, erased_at = at,
             erased_by = (SELECT e.id FROM ledger_entries e WHERE e.seq = 2) WHERE seq = 1",
        "payload_missing",
    ),
    (
        "as if erased with another person's",
        "UPDATE ledger_payloads SET body = NULL, salt = NULL, erased_at = at,
             erased_by = (SELECT e.id FROM ledger_entries e WHERE e.kind = 'admin.audit.erase') WHERE seq = 1",
        "payload_missing",
    ),
    (
        "called erased with its body",
        "UPDATE ledger_payloads SET erased_at = at,
             erased_by = (SELECT e.id FROM ledger_entries e WHERE e.kind = 'admin.audit.erase') WHERE seq = 1",
        "payload_altered",
    ),
    (
        "one more",
        "INSERT INTO ledger_payloads (class, stream, seq, role, at, commitment, size, media_type)
         SELECT 'note', stream, seq, 'reason', at, commitment, size, media_type FROM ledger_payloads WHERE seq = 1",
        "payload_altered",
    ),
    (
        "one more of its role under another class",
        "INSERT INTO ledger_payloads (class, stream, seq, role, at, commitment, size, media_type)
         SELECT 'inference', stream, seq, role, at, commitment, size, media_type FROM ledger_payloads WHERE seq = 1",
        "payload_altered",
    ),
    (
        "one more of a class that there is not",
        "INSERT INTO ledger_payloads (class, stream, seq, role, at, commitment, size, media_type)
         SELECT 'zzz', stream, seq, role, at, commitment, size, media_type FROM ledger_payloads WHERE seq = 1",
        "payload_altered",
    ),
    (
        "one more of no stream",
        "INSERT INTO ledger_payloads (class, stream, seq, role, at, commitment, size, media_type)
         SELECT class, 'nowhere', seq, role, at, commitment, size, media_type FROM ledger_payloads WHERE seq = 1",
        "payload_altered",
    ),
    ("another person's", "UPDATE ledger_payloads SET subject_user = 'usr_b' WHERE seq = 1", "payload_altered"),
    ("nobody's", "UPDATE ledger_payloads SET subject_user = NULL WHERE seq = 1", "payload_altered"),
    ("another kind of text", "UPDATE ledger_payloads SET media_type = 'text/html' WHERE seq = 1", "payload_altered"),
    (
        "a record emptied as if by retention",
        "UPDATE ledger_entries SET record = NULL, actor_kind = NULL, actor_id = NULL, trace_id = NULL,
             session_id = NULL, outcome = NULL WHERE seq = 1",
        "stub_unexplained",
    ),
    (
        "a record emptied under another record's name",
        "UPDATE ledger_entries SET record = NULL, actor_kind = NULL, actor_id = NULL, trace_id = NULL,
             session_id = NULL, outcome = NULL,
             pruned_by = (SELECT e.id FROM ledger_entries e WHERE e.kind = 'admin.audit.erase') WHERE seq = 1",
        "stub_unexplained",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn case_10_each_change_of_a_payload_shows_as_its_finding_at_its_seq() {
    for (what, sql, check) in ATTACKS {
        for db in stores().await {
            let ledger = started(&db, Mode::Full, Scanner::new()).await;
            recorded(&ledger, Payload::text(Role::Arguments, "the first")).await;
            recorded(&ledger, Payload::text(Role::Arguments, "the other")).await;
            let erasure = crate::erase::Erasure {
                subject_user: "usr_somebody".into(),
                classes: std::collections::BTreeSet::new(),
                reason: "asked for".into(),
            };
            ledger.erase(&by("usr_admin"), &erasure).await.unwrap();
            let before = checked(&ledger).await;
            assert!(before.is_intact(), "{before:?}");
            let mut tx = db.write_tx().await.unwrap();
            let done =
                on_tx!(tx, conn => sqlx::query(*sql).execute(&mut *conn).await.map(|d| d.rows_affected()));
            assert_eq!(done.unwrap(), 1, "{what}");
            tx.commit().await.unwrap();
            let report = checked(&ledger).await;
            let found: Vec<_> = report.findings.iter().map(|f| (f.check, f.seq)).collect();
            assert!(found.contains(&(*check, 1)), "{what} on {}: {found:?}", db.engine().as_str());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_payload_was_erased_is_what_the_record_of_its_erasure_says() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        recorded(&ledger, Payload::text(Role::Arguments, "the first")).await;
        let erasure = crate::erase::Erasure {
            subject_user: "usr_a".into(),
            classes: std::collections::BTreeSet::new(),
            reason: "asked for".into(),
        };
        ledger.erase(&by("usr_admin"), &erasure).await.unwrap();
        let before = checked(&ledger).await;
        assert!(before.is_intact() && before.erased == 1, "{before:?}");
        for change in ["erased_at - 1", "NULL"] {
            let sql = format!("UPDATE ledger_payloads SET erased_at = {change} WHERE erased_by IS NOT NULL");
            let mut tx = db.write_tx().await.unwrap();
            on_tx!(tx, conn => sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *conn).await.map(drop))
                .unwrap();
            tx.commit().await.unwrap();
            let report = checked(&ledger).await;
            let found: Vec<_> = report.findings.iter().map(|f| (f.check, f.seq)).collect();
            assert_eq!(found, [("payload_altered", 1)], "{change}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_was_changed_is_found_and_never_shown() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        let mut body = vec![0; 40_000];
        aws_lc_rs::rand::fill(&mut body).unwrap();
        let entry = recorded(&ledger, Payload::json(Role::Result, body.clone())).await;
        let other = recorded(&ledger, Payload::json(Role::Result, [&body[1..], b"x"].concat())).await;
        assert_eq!((entry.seq, other.seq), (1, 2));
        let mut tx = db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "UPDATE ledger_bodies SET body = (SELECT b.body FROM ledger_bodies b JOIN ledger_payloads p ON p.body_ref = b.id
                                              WHERE p.seq = 2)
             WHERE id = (SELECT p.body_ref FROM ledger_payloads p WHERE p.seq = 1)"
        ).execute(&mut *conn).await.map(drop)).unwrap();
        tx.commit().await.unwrap();
        let found = checked(&ledger).await.findings;
        assert_eq!((found.len(), found[0].check, found[0].seq), (1, "payload_altered", 1));
        assert!(matches!(ledger.reader().payload(&entry, "result").await, Err(PayloadError::Altered(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_behind_the_end_of_its_stream_is_found() {
    for db in stores().await {
        let ledger = started(&db, Mode::Full, Scanner::new()).await;
        recorded(&ledger, Payload::text(Role::Arguments, "the first")).await;
        let mut tx = db.write_tx().await.unwrap();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO ledger_payloads (class, stream, seq, role, at, commitment, size, media_type)
             SELECT class, stream, 999, role, at, commitment, size, media_type FROM ledger_payloads"
        ).execute(&mut *conn).await.map(drop))
        .unwrap();
        tx.commit().await.unwrap();
        let found = checked(&ledger).await.findings;
        assert_eq!((found.len(), found[0].check, found[0].seq), (1, "payload_altered", 999));
    }
}

#[test]
fn what_administration_changed_belongs_to_the_user_whose_it_is() {
    let of = |kind: &str, actor: &str, rest: serde_json::Value| {
        let mut record = serde_json::json!({"kind": kind, "actor": {"kind": actor, "id": "usr_admin"}});
        record.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Owners::of(&record)
    };
    let user = of(
        "admin.user.changed",
        "user",
        serde_json::json!({"subject_entity": {"kind": "user", "id": "usr_a"}}),
    );
    assert!(user.agree("before", Some("usr_a")) && !user.agree("after", Some("usr_admin")));
    assert!(user.agree("client", Some("usr_admin")) && !user.agree("client", Some("usr_a")));
    let key = of("oauth.api_key.revoked", "user", serde_json::json!({"detail": {"user_id": "usr_a"}}));
    assert!(key.agree("before", Some("usr_a")) && !key.agree("before", Some("usr_b")));
    let rule = of("admin.rule.changed", "user", serde_json::json!({}));
    assert!(rule.agree("before", Some("usr_admin")) && !rule.agree("before", Some("usr_a")));
    let system = of("system.checkpoint", "system", serde_json::json!({}));
    assert!(system.agree("heads", None) && !system.agree("heads", Some("usr_admin")));
}

proptest! {
    #[test]
    fn the_record_with_payloads_is_canonical(roles in proptest::sample::subsequence(Role::ALL.to_vec(), 0..8), mode in 0..4_usize) {
        let mode = [Mode::Full, Mode::Redacted, Mode::HashOnly, Mode::Off][mode];
        let mut draft = Draft::new(EntryKind::ToolOpened, &by("usr_a"), "opened").with_policy("p");
        for role in &roles {
            draft = draft.with_payload(Payload::text(*role, "text"));
        }
        draft.seal(&policy(mode), &Scanner::new()).unwrap();
        let rendered = draft.render(systemprompt_models::ids::EntryId::generate()).unwrap();
        let text = rendered.join("s", 1, 1, "00");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json_canonicalizer::to_string(&value).unwrap(), text);
        prop_assert_eq!(Named::of(&value).len(), roles.len());
    }
}
