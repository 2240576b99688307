//! The shared counters, on PostgreSQL, from two nodes at once.

use super::super::{Charge, Origin, PastCall, RateLimiter, rate};
use crate::governance::GovernanceExtension;
use serde_json::json;
use systemprompt_database::Db;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_extension::Extension;
use systemprompt_models::ids::CallId;

const NOW: i64 = 1_795_000_000_000;

/// Two nodes of one database.
async fn nodes() -> (TestDb, [RateLimiter; 2]) {
    let [_, db] = databases(&GovernanceExtension.migrations()).await;
    let nodes = [(); 2].map(|()| RateLimiter::of(&db).unwrap());
    assert!(nodes.iter().all(|node| !node.wants_seed()));
    (db, nodes)
}

fn call<'a>(user: &'a str, session: &'a str, id: &'a str, origin: Origin, at: i64) -> PastCall<'a> {
    PastCall { user_id: user, session_id: session, call_id: id, origin, at }
}

/// Charges a call of its own.
async fn charge(node: &RateLimiter, limit: &serde_json::Value, user: &str, session: &str, at: i64) -> Charge {
    let id = CallId::generate();
    node.charge(&rate(limit).unwrap(), &call(user, session, id.as_str(), Origin::Hook, at)).await
}

fn admitted(charges: &[Charge]) -> usize {
    charges.iter().filter(|charge| **charge == Charge::Admitted).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_four_hundred_calls_over_two_nodes_are_admitted_exactly_to_the_limit() {
    let (_db, nodes) = nodes().await;
    let limit = json!({});
    let together = (0..400).map(|n| charge(&nodes[n % 2], &limit, "ada", "s", NOW));
    let charges = futures_util::future::join_all(together).await;
    assert_eq!(admitted(&charges), 300, "{charges:?}");
    assert!(charges.iter().all(|c| matches!(c, Charge::Admitted | Charge::Limited { retry_after: 1 })));
    // Five a second come back, whichever node is asked.
    let later = (0..20).map(|n| charge(&nodes[n % 2], &limit, "ada", "s", NOW + 1_000));
    assert_eq!(admitted(&futures_util::future::join_all(later).await), 5);
    // Other sessions of the user and other users have their own, and the clock of one node may be behind.
    assert_eq!(charge(&nodes[0], &limit, "ada", "t", NOW - 500).await, Charge::Admitted);
    assert_eq!(charge(&nodes[1], &limit, "bob", "s", NOW).await, Charge::Admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_together_get_five_times_as_much_and_give_back_what_the_user_is_refused() {
    let (_db, nodes) = nodes().await;
    let limit = json!({"limit": 10, "window_s": 3600});
    let sessions: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let wanted = (0..80).map(|n| charge(&nodes[n % 2], &limit, "ada", &sessions[n % 8], NOW));
    let charges = futures_util::future::join_all(wanted).await;
    assert_eq!(admitted(&charges), 50, "{charges:?}");
    // An hour later all is free again for the user; the sessions were not charged for the thirty calls that were refused.
    let again = (0..8).map(|n| charge(&nodes[n % 2], &limit, "ada", &sessions[n], NOW + 3_600_000));
    assert_eq!(admitted(&futures_util::future::join_all(again).await), 8);
    let later = NOW + 7_200_000;
    let burst = (0..20).map(|n| charge(&nodes[n % 2], &limit, "ada", "s0", later));
    assert_eq!(admitted(&futures_util::future::join_all(burst).await), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_25_a_call_is_charged_once_whichever_nodes_and_doors_it_passes() {
    let (_db, nodes) = nodes().await;
    let limit = rate(&json!({"limit": 3, "window_s": 3600})).unwrap();
    let pass = async |node: usize, id: &str, origin: Origin| {
        nodes[node].charge(&limit, &call("ada", "s", id, origin, NOW)).await
    };
    assert_eq!(pass(0, "toolu_1", Origin::Hook).await, Charge::Admitted);
    assert_eq!(pass(1, "toolu_1", Origin::Mcp).await, Charge::Known);
    // The same door again is another call, whatever it says.
    assert_eq!(pass(1, "toolu_1", Origin::Mcp).await, Charge::Admitted);
    // Both doors at once: one of them pays.
    let both = tokio::join!(pass(0, "toolu_2", Origin::Hook), pass(1, "toolu_2", Origin::Mcp));
    assert!(
        matches!(both, (Charge::Admitted, Charge::Known) | (Charge::Known, Charge::Admitted)),
        "{both:?}"
    );
    // A call that was refused at one door is not paid for at the other.
    for (node, origin) in [(0, Origin::Hook), (1, Origin::Mcp), (0, Origin::Mcp)] {
        assert!(matches!(pass(node, "toolu_3", origin).await, Charge::Limited { .. }));
    }
    // Another user's call of that name is another call.
    let other = nodes[1].charge(&limit, &call("bob", "s", "toolu_1", Origin::Mcp, NOW)).await;
    assert_eq!(other, Charge::Admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_out_is_swept_and_a_database_that_fails_refuses_until_it_is_back() {
    let (db, nodes) = nodes().await;
    let limit = json!({});
    assert_eq!(charge(&nodes[0], &limit, "ada", "s", NOW).await, Charge::Admitted);
    let named = call("ada", "s", "toolu_1", Origin::Hook, NOW);
    assert_eq!(nodes[0].charge(&rate(&limit).unwrap(), &named).await, Charge::Admitted);
    assert_eq!(nodes[1].sweep(NOW + 599_999).await.unwrap(), 0);
    assert_eq!(nodes[1].sweep(NOW + 600_000).await.unwrap(), 1);
    assert_eq!(nodes[1].sweep(NOW + 2 * 86_400_000).await.unwrap(), 2);
    let Db::Postgres(pool) = &*db else { panic!("the counters are shared on PostgreSQL") };
    sqlx::query("ALTER TABLE governance_rate RENAME TO gone").execute(pool).await.unwrap();
    assert_eq!(charge(&nodes[0], &limit, "ada", "s", NOW).await, Charge::Unavailable);
    sqlx::query("ALTER TABLE gone RENAME TO governance_rate").execute(pool).await.unwrap();
    assert_eq!(charge(&nodes[0], &limit, "ada", "s", NOW).await, Charge::Admitted);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(cut).execute(pool).await.unwrap();
    assert_eq!(charge(&nodes[0], &limit, "ada", "s", NOW).await, Charge::Unavailable);
    assert_eq!(charge(&nodes[0], &limit, "ada", "s", NOW).await, Charge::Admitted);
}
