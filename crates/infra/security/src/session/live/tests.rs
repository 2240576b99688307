use super::*;
use crate::session::TokensExtension;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_extension::Extension as _;
use systemprompt_models::ManualClock;

const NOW: Millis = 1_800_000_000_000;
const HOUR: Millis = 3_600_000;

async fn engines() -> [TestDb; 2] {
    databases(&TokensExtension.migrations()).await
}

async fn node(db: &TestDb, clock: &ManualClock) -> Sessions {
    Sessions::open((**db).clone(), Arc::new(clock.clone())).await.unwrap()
}

async fn opened(sessions: &Sessions, user: Option<&str>) -> SessionId {
    let new = NewSession {
        id: SessionId::generate(),
        user_id: user.map(UserId::from),
        source: SessionSource::Cli,
        expires_at: NOW + HOUR,
    };
    sessions.create(&new).await.unwrap();
    new.id
}

/// `Ok(end)`, or the step that failed.
async fn ask(
    sessions: &Sessions,
    session: &SessionId,
    user: &str,
    jti: &str,
    now: Millis,
) -> Result<Millis, JwtError> {
    let claimed =
        Claimed { jti: &Jti::from(jti), session, user: &UserId::from(user), anonymous: user == "anonymous" };
    sessions.check(claimed, now).await.map_err(|error| match error {
        AuthError::InvalidToken { error, .. } => error,
        other => panic!("{other}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_counts_for_its_user_until_it_ends() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let sessions = node(&db, &clock).await;
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
    for db in engines().await {
        let sessions = node(&db, &ManualClock::at(NOW)).await;
        let other = node(&db, &ManualClock::at(NOW)).await;
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
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let (here, there) = (node(&db, &clock).await, node(&db, &clock).await);
        let (one, two) = (opened(&here, Some("ada")).await, opened(&here, Some("ada")).await);
        let of_bob = opened(&here, Some("bob")).await;
        for node in [&here, &there] {
            assert!(ask(node, &one, "ada", "j1", NOW).await.is_ok());
        }

        let epoch = here.epoch();
        assert!(here.revoke(&one, "signed out").await.unwrap());
        assert!(!here.revoke(&one, "signed out").await.unwrap());
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

        assert_eq!(here.revoke_user(&"ada".into(), "suspended").await.unwrap(), 1);
        assert_eq!(ask(&here, &two, "ada", "j3", NOW).await, Err(JwtError::SessionEnded));
        assert!(ask(&here, &of_bob, "bob", "j4", NOW).await.is_ok());

        // A node that starts now knows all of it.
        let fresh = node(&db, &clock).await;
        assert_eq!(ask(&fresh, &two, "ada", "j3", NOW).await, Err(JwtError::SessionEnded));
        assert_eq!(ask(&fresh, &of_bob, "bob", "j2", NOW).await, Err(JwtError::Revoked));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_with_an_early_time_is_still_seen() {
    for db in engines().await {
        let (here, slow) = (ManualClock::at(NOW), ManualClock::at(NOW - 50_000));
        let (here, there) = (node(&db, &here).await, node(&db, &slow).await);
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
    let [db, _] = engines().await;
    let clock = ManualClock::at(NOW);
    let sessions = node(&db, &clock).await;
    sessions.revoke_token(&"j1".into(), NOW + 1000).await.unwrap();
    sessions.revoke_token(&"j2".into(), NOW + HOUR).await.unwrap();
    clock.advance(FULL_EVERY);
    sessions.refresh().await.unwrap();
    let revoked = sessions.revoked.read().unwrap();
    assert_eq!(revoked.tokens.keys().map(Jti::as_str).collect::<Vec<_>>(), ["j2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_for_thirty_seconds() {
    let [db, _] = engines().await;
    let clock = ManualClock::at(NOW);
    let sessions = node(&db, &clock).await;
    assert!(sessions.is_confirmed(NOW + MAX_UNCONFIRMED));
    assert!(!sessions.is_confirmed(NOW + MAX_UNCONFIRMED + 1));
    clock.advance(MAX_UNCONFIRMED + 1);
    assert_eq!(sessions.age(), MAX_UNCONFIRMED + 1);
    sessions.refresh().await.unwrap();
    assert!(sessions.is_confirmed(clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn use_of_a_session_is_noted_once_a_minute() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let sessions = node(&db, &clock).await;
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
