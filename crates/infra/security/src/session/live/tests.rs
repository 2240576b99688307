mod late;

use super::*;
use crate::session::{CutoffKind, EVERYBODY, Root, testing};
use std::ops::Deref;
use systemprompt_audit::Ledger;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_models::ManualClock;
use systemprompt_models::ids::EntryId;
use systemprompt_models::session::CreateSessionInput;

const NOW: Millis = 1_800_000_000_000;
const HOUR: Millis = 3_600_000;

/// A database with the one ledger of its nodes.
struct Engine {
    db: TestDb,
    ledger: Ledger,
}

impl Engine {
    async fn on(db: TestDb) -> Self {
        let ledger = testing::ledger(&db).await;
        Self { db, ledger }
    }
}

async fn engines() -> [Engine; 2] {
    let [sqlite, postgres] = databases(&testing::migrations()).await;
    [Engine::on(sqlite).await, Engine::on(postgres).await]
}

struct Node {
    sessions: Sessions,
    ledger: Ledger,
}

impl Deref for Node {
    type Target = Sessions;

    fn deref(&self) -> &Sessions {
        &self.sessions
    }
}

impl Node {
    async fn open(&self, new: CreateSessionInput) {
        testing::open(&self.ledger, new, self.clock.now()).await;
    }
}

async fn node(engine: &Engine, clock: &ManualClock) -> Node {
    let sessions = Sessions::open((*engine.db).clone(), Arc::new(clock.clone())).await.unwrap();
    Node { sessions, ledger: engine.ledger.clone() }
}

async fn opened(node: &Node, user: Option<&str>) -> SessionId {
    let id = SessionId::generate();
    let user = user.map(UserId::from);
    node.open(CreateSessionInput::new(id.clone(), user, SessionSource::Cli, NOW + HOUR)).await;
    id
}

/// `Ok(end)`, or the step that failed.
async fn ask(
    sessions: &Sessions,
    session: &SessionId,
    user: &str,
    jti: &str,
    now: Millis,
) -> Result<Millis, JwtError> {
    ask_of(sessions, session, user, jti, (None, NOW / 1000), now).await
}

/// The same for a token that was issued to a client, or at another second.
async fn ask_of(
    sessions: &Sessions,
    session: &SessionId,
    user: &str,
    jti: &str,
    (client, issued_at): (Option<&str>, i64),
    now: Millis,
) -> Result<Millis, JwtError> {
    let client = client.map(ClientId::from);
    let claimed = Claimed {
        jti: &Jti::from(jti),
        session,
        user: &UserId::from(user),
        client: client.as_ref(),
        issued_at,
        anonymous: user == "anonymous",
    };
    sessions.check(claimed, now).await.map(|session| session.at).map_err(|error| match error {
        AuthError::InvalidToken { error, .. } => error,
        other => panic!("{other}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_for_its_user_until_it_ends() {
    for engine in engines().await {
        let clock = ManualClock::at(NOW);
        let sessions = node(&engine, &clock).await;
        let id = opened(&sessions, Some("ada")).await;
        let visitor = opened(&sessions, None).await;
        assert_eq!(ask(&sessions, &id, "ada", "j", NOW).await, Ok(NOW + HOUR));
        assert_eq!(ask(&sessions, &id, "bob", "j", NOW).await, Err(JwtError::SessionForeign));
        assert_eq!(ask(&sessions, &visitor, "anonymous", "j", NOW).await, Ok(NOW + HOUR));
        assert_eq!(ask(&sessions, &visitor, "ada", "j", NOW).await, Err(JwtError::SessionForeign));
        assert_eq!(ask(&sessions, &"ses_none".into(), "ada", "j", NOW).await, Err(JwtError::SessionUnknown));
        assert_eq!(ask(&sessions, &id, "ada", "j", NOW + HOUR).await, Err(JwtError::SessionEnded));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_session_counts_longer() {
    for engine in engines().await {
        let sessions = node(&engine, &ManualClock::at(NOW)).await;
        let other = node(&engine, &ManualClock::at(NOW)).await;
        let id = opened(&sessions, Some("ada")).await;
        assert!(ask(&other, &id, "ada", "j", NOW).await.is_ok());
        assert!(sessions.extend(&id, NOW + 2 * HOUR).await.unwrap());
        for node in [&sessions, &other] {
            assert_eq!(ask(node, &id, "ada", "j", NOW + HOUR).await, Ok(NOW + 2 * HOUR));
        }
        sessions.revoke(&id, "test").await.unwrap();
        assert!(!sessions.extend(&id, NOW + 3 * HOUR).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_counts_here_at_once_and_elsewhere_after_a_refresh() {
    for engine in engines().await {
        let clock = ManualClock::at(NOW);
        let (here, there) = (node(&engine, &clock).await, node(&engine, &clock).await);
        let (one, two) = (opened(&here, Some("ada")).await, opened(&here, Some("ada")).await);
        let of_bob = opened(&here, Some("bob")).await;
        for node in [&here, &there] {
            assert!(ask(node, &one, "ada", "j1", NOW).await.is_ok());
        }

        let epoch = here.epoch();
        assert_eq!(here.revoke(&one, "signed out").await.unwrap(), 1);
        assert_eq!(here.revoke(&one, "signed out").await.unwrap(), 0);
        assert!(here.epoch() > epoch);
        assert_eq!(ask(&here, &one, "ada", "j1", NOW).await, Err(JwtError::SessionEnded));

        here.revoke_token(&"j2".into(), NOW + HOUR).await.unwrap();
        here.revoke_token(&"j2".into(), NOW + HOUR).await.unwrap();
        assert_eq!(ask(&here, &two, "ada", "j2", NOW).await, Err(JwtError::Revoked));
        assert!(ask(&here, &two, "ada", "j3", NOW).await.is_ok());

        let epoch = there.epoch();
        there.refresh().await.unwrap();
        assert!(there.epoch() > epoch);
        assert_eq!(ask(&there, &one, "ada", "j1", NOW).await, Err(JwtError::SessionEnded));
        assert_eq!(ask(&there, &two, "ada", "j2", NOW).await, Err(JwtError::Revoked));

        // What is read again changes nothing.
        let epoch = there.epoch();
        there.refresh().await.unwrap();
        assert_eq!(there.epoch(), epoch);

        assert_eq!(testing::end_user(&here, &engine.db, &"ada".into(), "suspended").await, 1);
        assert_eq!(ask(&here, &two, "ada", "j3", NOW).await, Err(JwtError::SessionEnded));
        assert!(ask(&here, &of_bob, "bob", "j4", NOW).await.is_ok());

        // A node that starts now knows all of it.
        let fresh = node(&engine, &clock).await;
        assert_eq!(ask(&fresh, &two, "ada", "j3", NOW).await, Err(JwtError::SessionEnded));
        assert_eq!(ask(&fresh, &of_bob, "bob", "j2", NOW).await, Err(JwtError::Revoked));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_with_an_early_time_is_still_seen() {
    for engine in engines().await {
        let (here, slow) = (ManualClock::at(NOW), ManualClock::at(NOW - 50_000));
        let (here, there) = (node(&engine, &here).await, node(&engine, &slow).await);
        let (one, two) = (opened(&here, Some("ada")).await, opened(&here, Some("ada")).await);
        here.revoke(&one, "test").await.unwrap();
        here.refresh().await.unwrap();
        there.revoke(&two, "test").await.unwrap();
        here.refresh().await.unwrap();
        assert_eq!(ask(&here, &two, "ada", "j", NOW).await, Err(JwtError::SessionEnded));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_dropped_from_the_copy() {
    let [engine, _] = engines().await;
    let clock = ManualClock::at(NOW);
    let sessions = node(&engine, &clock).await;
    sessions.revoke_token(&"j1".into(), NOW + 1000).await.unwrap();
    sessions.revoke_token(&"j2".into(), NOW + HOUR).await.unwrap();
    clock.advance(FULL_EVERY);
    sessions.refresh().await.unwrap();
    assert_eq!(sessions.revoked.read().unwrap().token_ids(), ["j2"]);
    assert!(sessions.is_token_revoked(&"j1".into()).await.unwrap(), "rows are the clean-up's to delete");
    assert_eq!(sessions.delete_revocations(clock.now(), 10).await.unwrap().rows, 1);
    assert!(!sessions.is_token_revoked(&"j1".into()).await.unwrap());
    assert!(sessions.is_token_revoked(&"j2".into()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_for_thirty_seconds() {
    let [engine, _] = engines().await;
    let clock = ManualClock::at(NOW);
    let sessions = node(&engine, &clock).await;
    assert!(sessions.is_confirmed(NOW + MAX_UNCONFIRMED));
    assert!(!sessions.is_confirmed(NOW + MAX_UNCONFIRMED + 1));
    clock.advance(MAX_UNCONFIRMED + 1);
    assert_eq!(sessions.age(), MAX_UNCONFIRMED + 1);
    sessions.refresh().await.unwrap();
    assert!(sessions.is_confirmed(clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn use_of_a_session_is_noted_once_a_minute() {
    for engine in engines().await {
        let clock = ManualClock::at(NOW);
        let sessions = node(&engine, &clock).await;
        let id = opened(&sessions, Some("ada")).await;
        let seen = AtomicI64::new(0);
        for (at, noted) in
            [(NOW + 61_000, NOW + 61_000), (NOW + 90_000, NOW + 61_000), (NOW + 121_000, NOW + 121_000)]
        {
            sessions.note_seen(&id, &seen, at);
            sessions.refresh().await.unwrap();
            let row = sessions.list(&"ada".into()).await.unwrap().remove(0);
            assert_eq!(row.last_seen_at, noted);
            assert_eq!((row.id, row.source, row.revoked_at), (id.clone(), Some(SessionSource::Cli), None));
        }
    }
}

fn cutoff(kind: CutoffKind, id: &str, not_before: Millis) -> Cutoff {
    let expires_at = Sessions::longest_end(not_before);
    Cutoff { kind, id: id.to_owned(), not_before, reason: "test".to_owned(), expires_at }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_what_its_subject_was_issued_up_to_that_second() {
    for engine in engines().await {
        let clock = ManualClock::at(NOW + 500);
        let (here, there) = (node(&engine, &clock).await, node(&engine, &clock).await);
        let second = NOW / 1000;
        let (of_ada, of_bob) = (opened(&here, Some("ada")).await, opened(&here, Some("bob")).await);
        let entry = EntryId::generate();

        let cut = cutoff(CutoffKind::Client, "cli_1", NOW + 500);
        assert_eq!(here.cut_off(&cut, &entry).await.unwrap(), 0);
        for (client, issued_at, dead) in [
            (Some("cli_1"), second - 1, true),
            (Some("cli_1"), second, true),
            (Some("cli_1"), second + 1, false),
            (Some("cli_2"), second, false),
            (None, second, false),
        ] {
            let want = if dead { Err(JwtError::Revoked) } else { Ok(NOW + HOUR) };
            there.refresh().await.unwrap();
            for node in [&here, &there] {
                let got = ask_of(node, &of_ada, "ada", "j", (client, issued_at), NOW).await;
                assert_eq!(got, want, "{client:?} {issued_at}");
            }
        }

        // Of a user the sessions end too.
        let cut = cutoff(CutoffKind::User, "ada", NOW + 500);
        assert_eq!(here.cut_off(&cut, &entry).await.unwrap(), 1);
        let got = ask_of(&here, &of_ada, "ada", "j", (None, second), NOW).await;
        assert_eq!(got, Err(JwtError::Revoked));
        let got = ask_of(&here, &of_ada, "ada", "j", (None, second + 1), NOW).await;
        assert_eq!(got, Err(JwtError::SessionEnded));
        assert_eq!(ask_of(&here, &of_bob, "bob", "j", (None, second), NOW).await, Ok(NOW + HOUR));

        let cut = cutoff(CutoffKind::All, EVERYBODY, NOW + 500);
        here.cut_off(&cut, &entry).await.unwrap();
        assert!(there.refresh().await.unwrap());
        assert!(!there.refresh().await.unwrap());
        for node in [&here, &there, &node(&engine, &clock).await] {
            assert_eq!(ask(node, &of_bob, "bob", "j", NOW).await, Err(JwtError::Revoked));
        }
        assert_eq!(here.cutoffs().await.unwrap().len(), 3);

        // An older cut does not take the place of a newer one.
        here.cut_off(&cutoff(CutoffKind::All, EVERYBODY, NOW - HOUR), &entry).await.unwrap();
        assert_eq!(here.cutoffs().await.unwrap()[0].not_before, NOW + 500);
        assert_eq!(ask(&here, &of_bob, "bob", "j", NOW).await, Err(JwtError::Revoked));

        clock.set(Sessions::longest_end(NOW + 500));
        here.refresh().await.unwrap();
        assert!(here.cutoffs().await.unwrap().is_empty(), "the rows go with the longest token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_cut_off_subject_waits_for_the_next_second() {
    let [engine, _] = engines().await;
    let clock = ManualClock::at(NOW + 900);
    let sessions = node(&engine, &clock).await;
    let entry = EntryId::generate();
    sessions.cut_off(&cutoff(CutoffKind::User, "ada", NOW + 900), &entry).await.unwrap();
    sessions.wait_to_issue(&"bob".into(), None).await.unwrap();
    let moved = clock.clone();
    let mover = async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        moved.set(NOW + 1000);
    };
    let (waited, ()) = tokio::join!(
        async {
            let begun = std::time::Instant::now();
            sessions.wait_to_issue(&"ada".into(), None).await.unwrap();
            begun.elapsed()
        },
        mover
    );
    assert!(waited >= Duration::from_millis(50), "{waited:?}");
    clock.set(NOW - 60_000);
    let refused = sessions.wait_to_issue(&"ada".into(), None).await;
    assert!(matches!(refused, Err(SessionError::ClockBehind)));
}

#[tokio::test]
async fn a_session_takes_those_that_came_from_it_along() {
    for engine in engines().await {
        let clock = ManualClock::at(NOW);
        let sessions = node(&engine, &clock).await;
        let parent = opened(&sessions, Some("usr_ada")).await;
        let mut child = CreateSessionInput::new(
            SessionId::generate(),
            Some("usr_ada".into()),
            SessionSource::Exchange,
            NOW + HOUR,
        );
        child.facts.parent = Some(parent.clone());
        sessions.open(child.clone()).await;
        let mut grandchild = CreateSessionInput::new(
            SessionId::generate(),
            Some("usr_bot".into()),
            SessionSource::Oauth,
            NOW + HOUR,
        );
        grandchild.facts.parent = Some(child.id.clone());
        grandchild.facts.grant_id = Some("grt_1".into());
        sessions.open(grandchild).await;
        let other = opened(&sessions, Some("usr_ada")).await;
        assert_eq!(sessions.ending(Root::Grant(&"grt_1".into()), "test").await.unwrap().sessions(), 1);
        assert_eq!(sessions.ending(Root::Session(&child.id), "test").await.unwrap().sessions(), 2);
        assert_eq!(sessions.revoke(&parent, "test").await.unwrap(), 3);
        assert!(!sessions.find(&child.id).await.unwrap().unwrap().is_live(NOW));
        assert!(sessions.find(&other).await.unwrap().unwrap().is_live(NOW));
        assert!(ask(&sessions, &child.id, "usr_ada", "jti_1", NOW).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_held_no_longer_than_a_token_of_it_can_live() {
    const DAY: Millis = 24 * HOUR;
    for engine in engines().await {
        let clock = ManualClock::at(NOW);
        let (here, there) = (node(&engine, &clock).await, node(&engine, &clock).await);
        // A grant's session lives for months.
        let (long, short) = (SessionId::generate(), opened(&here, Some("ada")).await);
        let new =
            CreateSessionInput::new(long.clone(), Some("ada".into()), SessionSource::Oauth, NOW + 90 * DAY);
        here.open(new).await;
        for id in [&long, &short] {
            here.revoke(id, "signed out").await.unwrap();
        }
        there.refresh().await.unwrap();
        let held = |node: &Node| node.revoked.read().unwrap().largest();
        assert_eq!((held(&here), held(&there)), (2, 2));

        clock.advance(DAY);
        for node in [&here, &there] {
            node.refresh().await.unwrap();
            assert_eq!(held(node), 1, "the one that has not ended by itself, as long as a token may");
        }
        clock.advance(KEEP_REVOKED - DAY);
        let fresh = node(&engine, &clock).await;
        for node in [&here, &there, &fresh] {
            node.refresh().await.unwrap();
            assert_eq!(held(node), 0);
            // The row still says so.
            let late = NOW + KEEP_REVOKED;
            assert_eq!(ask(node, &long, "ada", "j", late).await, Err(JwtError::SessionEnded));
        }
    }
}
