use super::error::BanError;
use super::*;
use std::sync::Arc;
use systemprompt_audit::testing::ledger;
use systemprompt_config::profile::values::Cidr;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_database::{on, on_tx, sql};
use systemprompt_events::Bridge;
use systemprompt_extension::Extension as _;
use systemprompt_models::ids::TraceId;
use systemprompt_models::{Clock, ManualClock, Principal, RequestContext};

const NOW: Millis = 1_800_000_000_000;
const SECOND: Millis = 1000;

async fn engines() -> [TestDb; 2] {
    let mut migrations = systemprompt_audit::testing::migrations();
    migrations.extend(BansExtension.migrations());
    databases(&migrations).await
}

async fn node(db: &TestDb, clock: &ManualClock) -> BanStore {
    BanStore::open((**db).clone(), ledger(db, &[]).await, Arc::new(clock.clone()), Bridge::default())
        .await
        .unwrap()
}

/// Two copies of one table. They share a ledger, whose streams are a node's own.
async fn nodes(db: &TestDb, clock: &ManualClock) -> (BanStore, BanStore) {
    let ledger = ledger(db, &[]).await;
    let open = async || {
        BanStore::open((**db).clone(), ledger.clone(), Arc::new(clock.clone()), Bridge::default())
            .await
            .unwrap()
    };
    (open().await, open().await)
}

/// A row that no node has written.
async fn by_hand(db: &TestDb, network: &str) {
    let mut tx = db.write_tx().await.unwrap();
    on_tx!(tx, conn => sqlx::query(sql!(
        "INSERT INTO banned_ips (id, network, reason, source, created_by, created_at, hits)
         VALUES ('ban_hand', $1, '', 'behavioral', 'hand', 0, 0)"
    )).bind(network).execute(&mut *conn).await.map(drop))
    .unwrap();
    tx.commit().await.unwrap();
}

fn caller(ip: &str) -> RequestContext {
    let mut context = RequestContext::new(Arc::new(Principal::anonymous()), TraceId::generate());
    context.client_ip = Some(ip.parse().unwrap());
    context
}

fn new(network: &str, expires_in_s: Option<u64>) -> NewBan {
    NewBan { network: network.to_owned(), reason: "a test".to_owned(), expires_in_s, force: false }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn kinds(db: &TestDb) -> Vec<String> {
    let rows: Vec<(String,)> = on!(&**db, pool => sqlx::query_as(sql!(
        "SELECT kind FROM ledger_entries WHERE kind LIKE 'admin.ban.%' ORDER BY seq"
    )).fetch_all(pool).await)
    .unwrap();
    rows.into_iter().map(|(kind,)| kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_holds_at_once_here_and_after_the_next_question_on_another_node() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let (a, b) = nodes(&db, &clock).await;
        let me = caller("198.51.100.1");
        let ban = a.add(&me, &new("203.0.113.0/24", None), &[]).await.unwrap();
        assert!(a.find(ip("203.0.113.77")).is_some() && a.find(ip("::ffff:203.0.113.77")).is_some());
        assert!(a.find(ip("203.0.114.1")).is_none());
        assert!(b.find(ip("203.0.113.77")).is_none());
        b.refresh().await.unwrap();
        assert_eq!(b.find(ip("203.0.113.77")).unwrap().id, ban.id);

        let again = a.add(&me, &new("203.0.113.9/24", None), &[]).await;
        assert!(matches!(again, Err(BanError::Exists(id)) if id == ban.id.as_str()));
        b.remove(&me, ban.id.as_str()).await.unwrap();
        assert!(b.find(ip("203.0.113.77")).is_none());
        a.refresh().await.unwrap();
        assert!(a.find(ip("203.0.113.77")).is_none());
        assert!(matches!(a.remove(&me, ban.id.as_str()).await, Err(BanError::NotFound(_))));
        assert_eq!(kinds(&db).await, ["admin.ban.added", "admin.ban.removed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_written_by_hand_is_taken_over_within_thirty_seconds() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let store = node(&db, &clock).await;
        by_hand(&db, "203.0.113.7/32").await;
        store.refresh().await.unwrap();
        assert!(store.find(ip("203.0.113.7")).is_none());
        clock.advance(30 * SECOND);
        store.refresh().await.unwrap();
        assert!(store.find(ip("203.0.113.7")).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_that_would_lock_somebody_out_need_force() {
    let [db, _] = engines().await;
    let store = node(&db, &ManualClock::at(NOW)).await;
    let proxies = [Cidr("10.0.0.0/24".parse().unwrap())];
    for (network, whom) in [
        ("127.0.0.3", Some("loopback")),
        ("127.1.2.0/24", Some("loopback")),
        ("::1", Some("loopback")),
        ("::ffff:127.0.0.1", Some("loopback")),
        ("10.0.0.9", Some("a trusted proxy")),
        ("10.0.0.0/8", Some("a trusted proxy")),
        ("198.51.100.0/24", Some("your own address")),
        ("198.51.101.0/24", None),
    ] {
        let mut ban = new(network, None);
        match (store.add(&caller("198.51.100.1"), &ban, &proxies).await, whom) {
            (Err(BanError::WouldLockOut(covered)), Some(whom)) => assert_eq!(covered, whom, "{network}"),
            (Ok(_), None) => {}
            (other, _) => panic!("{network}: {other:?}"),
        }
        ban.force = whom.is_some();
        if ban.force {
            store.add(&caller("198.51.100.1"), &ban, &proxies).await.unwrap();
        }
    }
}

#[test]
fn networks_are_folded_and_bounded() {
    for (text, want) in [
        ("192.0.2.7", Some("192.0.2.7/32")),
        ("192.0.2.7/24", Some("192.0.2.0/24")),
        ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
        ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
        ("2001:db8:1:2:3::/64", Some("2001:db8:1:2::/64")),
        ("10.0.0.0/8", Some("10.0.0.0/8")),
        ("0.0.0.0/0", None),
        ("10.0.0.0/7", None),
        ("2001::/31", None),
        ("::/0", None),
        ("example.org", None),
        ("192.0.2.7/33", None),
        ("", None),
    ] {
        let got = new(text, None).network().ok().map(|network| network.to_string());
        assert_eq!(got.as_deref(), want, "{text}");
    }
    for (seconds, fine) in [(0, false), (1, true), (MAX_LIFE_S, true), (MAX_LIFE_S + 1, false)] {
        assert_eq!(new("192.0.2.7", Some(seconds)).network().is_ok(), fine, "{seconds}");
    }
    assert_eq!(covering(ip("2001:db8:1:2:3:4:5:6")).to_string(), "2001:db8:1:2::/64");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_recorded_once_and_the_longest_ban_decides() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let (a, b) = nodes(&db, &clock).await;
        let me = caller("198.51.100.1");
        a.add(&me, &new("203.0.113.7", Some(10)), &[]).await.unwrap();
        let wide = a.add(&me, &new("203.0.113.0/24", Some(60)), &[]).await.unwrap();
        let found = a.find(ip("203.0.113.7")).unwrap();
        assert_eq!((&found.id, a.seconds_left(&found)), (&wide.id, Some(60)));
        clock.advance(61 * SECOND);
        assert!(a.find(ip("203.0.113.7")).is_none(), "an ended ban holds nobody, even before it is recorded");
        a.sweep().await.unwrap();
        b.sweep().await.unwrap();
        assert_eq!(
            kinds(&db).await,
            ["admin.ban.added", "admin.ban.added", "admin.ban.expired", "admin.ban.expired"]
        );
        clock.advance(31 * 86_400 * SECOND);
        a.sweep().await.unwrap();
        let rows: Vec<(String,)> =
            on!(&*db, pool => sqlx::query_as(sql!("SELECT id FROM banned_ips")).fetch_all(pool).await)
                .unwrap();
        assert!(rows.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_reach_the_row() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let store = node(&db, &clock).await;
        store.add(&caller("198.51.100.1"), &new("203.0.113.7", None), &[]).await.unwrap();
        for _ in 0..3 {
            store.find(ip("203.0.113.7")).unwrap();
        }
        store.sweep().await.unwrap();
        store.find(ip("203.0.113.7")).unwrap();
        store.sweep().await.unwrap();
        let ban = store.page("", 10).await.unwrap().remove(0);
        assert_eq!((ban.hits, ban.last_hit_at), (4, Some(NOW)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_an_unconfirmed_list_goes_on_banning_then_makes_the_node_unready_then_serves_nobody() {
    let [db, _] = engines().await;
    let clock = ManualClock::at(NOW);
    let store = node(&db, &clock).await;
    store.add(&caller("198.51.100.1"), &new("203.0.113.7", None), &[]).await.unwrap();
    db.close().await;
    for (after, standing) in [
        (60, Standing::Confirmed),
        (61, Standing::Unconfirmed),
        (300, Standing::Unconfirmed),
        (301, Standing::Unavailable),
    ] {
        clock.set(NOW + after * SECOND);
        assert!(store.refresh().await.is_err());
        assert_eq!(store.standing(), standing, "{after} s");
        assert!(store.find(ip("203.0.113.7")).is_some(), "the last set stays in force");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_is_no_empty_list() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        by_hand(&db, "203.0.113.300").await;
        let ledger = ledger(&db, &[]).await;
        let opened =
            BanStore::open((*db).clone(), ledger.clone(), Arc::new(clock.clone()), Bridge::default()).await;
        assert!(matches!(opened, Err(BanError::Row(id)) if id == "ban_hand"));
        db.close().await;
        assert!(BanStore::open((*db).clone(), ledger, Arc::new(clock), Bridge::default()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_bans_spare_loopback_and_proxies_and_grow_longer_for_ipv6() {
    for db in engines().await {
        let clock = ManualClock::at(NOW);
        let store = node(&db, &clock).await;
        let proxies = [Cidr("10.0.0.0/24".parse().unwrap())];
        let ban = async |address: &str| {
            let made = store.add_automatic(ip(address), BanSource::Scanner, "probes", 3600, &proxies).await;
            made.unwrap().map(|ban| (ban.network.to_string(), (ban.expires_at.unwrap() - clock.now()) / 1000))
        };
        assert_eq!(ban("127.0.0.1").await, None);
        assert_eq!(ban("10.0.0.3").await, None);
        assert_eq!(ban("203.0.113.7").await, Some(("203.0.113.7/32".into(), 3600)));
        assert_eq!(ban("203.0.113.7").await, None, "banned already");
        for hours in [1, 24, 168, 168] {
            let (network, seconds) = ban("2001:db8:1:2:3:4:5:6").await.unwrap();
            assert_eq!((network.as_str(), seconds), ("2001:db8:1:2::/64", hours * 3600));
            clock.advance((seconds + 1) * SECOND);
            store.sweep().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_automatic_bans_give_way_and_manual_ones_are_refused() {
    let [db, _] = engines().await;
    let clock = Arc::new(ManualClock::at(NOW));
    let ledger = ledger(&db, &[]).await;
    let store = BanStore::with_limit((*db).clone(), ledger, clock, Bridge::default(), 2).await.unwrap();
    let auto = async |address: &str| {
        store.add_automatic(ip(address), BanSource::Scanner, "probes", 3600, &[]).await.unwrap()
    };
    store.add(&caller("198.51.100.1"), &new("203.0.113.1", None), &[]).await.unwrap();
    auto("203.0.113.2").await.unwrap();
    auto("203.0.113.3").await.unwrap();
    assert!(store.find(ip("203.0.113.1")).is_some() && store.find(ip("203.0.113.3")).is_some());
    assert!(store.find(ip("203.0.113.2")).is_none());
    let more = store.add(&caller("198.51.100.1"), &new("203.0.113.4", None), &[]).await;
    assert!(matches!(more, Err(BanError::TooMany(2))));
    assert_eq!(
        kinds(&db).await,
        ["admin.ban.added", "admin.ban.added", "admin.ban.removed", "admin.ban.added"]
    );
}
