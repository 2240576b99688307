//! Sessions that are added while those that they came from end (ID-63, ID-139).

#![expect(clippy::disallowed_methods, reason = "tests run transactions beside each other")]

use super::*;
use crate::session::UserEnd;
use systemprompt_audit::{Draft, EntryKind, Unit};
use systemprompt_database::{WriteTx, on, on_tx};

/// A unit under way: it keeps `parent` alive and has added a session of somebody else beneath it, which nobody sees yet.
async fn exchange(db: &TestDb, parent: &SessionId) -> (WriteTx, SessionId) {
    let child = SessionId::generate();
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query("UPDATE user_sessions SET last_seen_at = last_seen_at WHERE id = $1")
        .bind(parent.as_str()).execute(&mut *conn).await.map(drop))
    .unwrap();
    on_tx!(tx, conn => sqlx::query(
        "INSERT INTO user_sessions (id, user_id, source, created_at, last_seen_at, expires_at, parent_session_id)
         VALUES ($1, 'usr_bot', 'exchange', 1, 1, $2, $3)"
    ).bind(child.as_str()).bind(NOW + HOUR).bind(parent.as_str()).execute(&mut *conn).await.map(drop))
    .unwrap();
    (tx, child)
}

async fn until_one_waits(db: &TestDb) {
    loop {
        let (waiting,): (i64,) = on!(&**db, pool => sqlx::query_as(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetch_one(pool).await)
        .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn end(sessions: &Sessions, db: &Db, how: &str, parent: &SessionId) -> usize {
    let (user, entry, other) = (UserId::from("ada"), EntryId::generate(), SessionId::from("sess_other"));
    let mut tx = match how {
        "session" => return sessions.revoke(parent, how).await.unwrap(),
        "user" => return testing::end_user(sessions, db, &user, how).await,
        "cut" => return sessions.cut_off(&cutoff(CutoffKind::User, "ada", NOW), &entry).await.unwrap(),
        _ => db.write_tx().await.unwrap(),
    };
    let ended = match how {
        "client" => sessions.end_client_in(&mut tx, &"app".into(), how, &entry).await,
        "others" => sessions.end_in(&mut tx, &user, UserEnd::Others(&other), how).await,
        _ => sessions.end_in(&mut tx, &user, UserEnd::Told(&entry), how).await,
    };
    tx.commit().await.unwrap();
    sessions.apply_end(ended.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn id_139_a_session_that_is_added_while_its_parent_ends_ends_with_it() {
    let engine = Engine::on(TestDb::postgres(&testing::migrations()).await).await;
    let sessions = Arc::new(node(&engine, &ManualClock::at(NOW)).await);
    for how in ["session", "user", "cut", "client", "others", "told"] {
        let mut parent = CreateSessionInput::new(
            SessionId::generate(),
            Some("ada".into()),
            SessionSource::Exchange,
            NOW + HOUR,
        );
        parent.facts.client_id = Some("app".into());
        sessions.open(parent.clone()).await;
        let (unit, child) = exchange(&engine.db, &parent.id).await;
        let ending = {
            let (sessions, db, parent) = (Arc::clone(&sessions), (*engine.db).clone(), parent.id.clone());
            tokio::spawn(async move { end(&sessions, &db, how, &parent).await })
        };
        until_one_waits(&engine.db).await;
        unit.commit().await.unwrap();
        assert_eq!(ending.await.unwrap(), 2, "{how}");
        for id in [&parent.id, &child] {
            let row = sessions.find(id).await.unwrap().unwrap();
            assert!(row.revoked_at.is_some(), "{how}");
        }
        assert_eq!(ask(&sessions, &child, "usr_bot", "j", NOW).await, Err(JwtError::SessionEnded), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_between_the_look_and_the_end_counts_here_no_more_at_once() {
    for engine in engines().await {
        let sessions = node(&engine, &ManualClock::at(NOW)).await;
        let root = opened(&sessions, Some("usr_ada")).await;
        let ending = sessions.ending(Root::Session(&root), "test").await.unwrap();
        let mut child = CreateSessionInput::new(
            SessionId::generate(),
            Some("usr_bot".into()),
            SessionSource::Exchange,
            NOW + HOUR,
        );
        child.facts.parent = Some(root.clone());
        sessions.open(child.clone()).await;
        assert!(ask(&sessions, &child.id, "usr_bot", "j", NOW).await.is_ok(), "and is known here as alive");
        let mut unit = Unit::new();
        unit.record(Draft::system(EntryKind::OauthSessionRevoked, "ok"));
        let ended = ending.add_to(&mut unit);
        engine.ledger.append(unit).await.unwrap();
        assert_eq!(sessions.apply_written(ended).await, 1);
        for (id, user) in [(&root, "usr_ada"), (&child.id, "usr_bot")] {
            assert_eq!(ask(&sessions, id, user, "j", NOW).await, Err(JwtError::SessionEnded), "{user}");
        }
        assert!(sessions.refresh().await.unwrap(), "whoever waits for the epoch is told of it");
    }
}
