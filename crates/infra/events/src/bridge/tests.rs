use super::*;
use systemprompt_database::testing::{TestDb, databases};

const WAIT: Duration = Duration::from_secs(10);

async fn next(subscription: &mut Subscription) -> Notice {
    tokio::time::timeout(WAIT, subscription.next()).await.unwrap().unwrap()
}

async fn connected(bridge: &Bridge) {
    let wait = async {
        while !bridge.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, wait).await.unwrap();
}

fn id(text: &str) -> Notice {
    Notice::Id(text.into())
}

#[tokio::test]
async fn a_notice_reaches_its_channel_on_this_node_once_on_both_engines() {
    for db in databases(&[]).await {
        let (bridge, tasks) = (Bridge::new(&db), Tasks::default());
        let mut early = bridge.subscribe(Channel::Rules);
        bridge.start(&tasks);
        connected(&bridge).await;
        if db.engine() == Engine::Postgres {
            assert_eq!(
                next(&mut early).await,
                Notice::Missed,
                "before the connection anything may have changed"
            );
        }
        let mut bans = bridge.subscribe(Channel::Bans);
        bridge.publish(Channel::Rules, "7").await;
        bridge.publish(Channel::Rules, "8").await;
        bridge.publish(Channel::Bans, "ban").await;
        assert_eq!([next(&mut early).await, next(&mut early).await], [id("7"), id("8")]);
        assert_eq!(next(&mut bans).await, id("ban"));
        // Its own notification comes back from the database and is not delivered a second time.
        tokio::time::sleep(Duration::from_millis(200)).await;
        bridge.publish(Channel::Rules, "9").await;
        assert_eq!(next(&mut early).await, id("9"));
        assert!(tasks.drain(WAIT).await, "the listener ends with the node");
    }
}

async fn pair(db: &TestDb) -> (Bridge, Bridge, Tasks) {
    let (a, b, tasks) = (Bridge::new(db), Bridge::new(db), Tasks::default());
    a.start(&tasks);
    b.start(&tasks);
    connected(&a).await;
    connected(&b).await;
    (a, b, tasks)
}

#[tokio::test]
async fn a_notice_crosses_to_another_node_and_nonsense_means_look_at_everything() {
    let db = TestDb::postgres(&[]).await;
    let (a, b, tasks) = pair(&db).await;
    let mut there = b.subscribe(Channel::Revocations);
    a.publish(Channel::Revocations, "session:with:colons").await;
    assert_eq!(next(&mut there).await, id("session:with:colons"));
    a.publish(Channel::Revocations, &"x".repeat(MAX_ID + 1)).await;
    assert_eq!(next(&mut there).await, Notice::Missed);
    db.notify(Channel::Revocations.name(), "nonsense").await.unwrap();
    assert_eq!(next(&mut there).await, Notice::Missed);
    tasks.drain(WAIT).await;
}

#[tokio::test]
async fn a_lost_connection_is_opened_again_and_says_that_something_may_be_missed() {
    let db = TestDb::postgres(&[]).await;
    let (a, b, tasks) = pair(&db).await;
    let mut there = b.subscribe(Channel::Bans);
    let Db::Postgres(pool) = &*db else { unreachable!() };
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()")
        .bind(systemprompt_database::notify::LISTENER_NAME)
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(next(&mut there).await, Notice::Missed);
    connected(&b).await;
    a.publish(Channel::Bans, "after").await;
    assert_eq!(next(&mut there).await, id("after"));
    tasks.drain(WAIT).await;
}

#[tokio::test]
async fn a_slow_subscriber_costs_a_bounded_queue_and_is_told_that_it_missed_some() {
    let bridge = Bridge::default();
    let mut slow = bridge.subscribe(Channel::Rules);
    for number in 0..QUEUE + 10 {
        bridge.publish(Channel::Rules, &number.to_string()).await;
    }
    assert_eq!(next(&mut slow).await, Notice::Missed);
    assert_eq!(next(&mut slow).await, id("10"));
}
