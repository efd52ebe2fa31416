//! SIGKILL at any moment: nobody is messaged twice, nobody is lost, and what may have been sent is Unknown.

use broadcast_operator::domain::outcome::Outcome;
use rand::RngExt;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, counts, restart};

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_at_a_crash_become_unknown_and_are_not_sent_again() {
    let mut stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"maxInFlight": 8}})));
    stage.set_faults(json!([{"do": {"hangAfterAccept": {}}}]));
    stage.apply(&broadcast("sale", 40, json!({})));
    stage.gateway.ledger().wait_until(|summary| summary.requests.in_flight == 8).await;
    stage.operator.kill();
    stage.set_faults(json!([]));
    stage.operator.restart().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 40).await;
    // The whole claimed window may have been sent, as far as the next process can know.
    assert!(counts(&done).unknown >= 8, "{:?}", counts(&done));
    assert_eq!(counts(&done).sent + counts(&done).unknown, 40);

    // A restart that asks for them reaches them; one that does not leaves them alone.
    stage.apply(&restart("again", "sale", json!({"restartFrom": {"include": ["Unknown"]}})));
    let again = stage.complete("again").await;
    assert_eq!(counts(&again).sent, counts(&done).unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_send_nothing_twice_and_lose_nothing() {
    let mut stage = Stage::bare().await;
    stage.apply(&stage.channel(
        CHANNEL,
        json!({}),
        json!({"limits": {"messagesPerSecond": 700, "maxInFlight": 32}}),
    ));
    stage.set_faults(json!([{"do": {"latencyMs": 5}}]));
    let audience = 2500;
    stage.apply(&broadcast("sale", audience, json!({})));
    let mut crashes = 0;
    let mut at = 0;
    loop {
        at += rand::rng().random_range(1..400);
        if at >= audience {
            break;
        }
        // The crashes themselves leave chats Unknown, so not every number is ever reached.
        let reached = stage.wait("sale", "sending or complete", |broadcast| {
            let complete = crate::common::stage::is_complete(broadcast);
            complete || stage.requests_now("sale") >= at
        });
        let now = reached.await;
        if crate::common::stage::is_complete(&now) {
            break;
        }
        stage.operator.kill_and_restart().await;
        crashes += 1;
        books::check(&stage, "sale").await;
    }
    assert!(crashes > 0, "it was killed at least once");
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, audience).await;
    // A window is about one second of work per crash at most.
    assert!(counts(&done).unknown <= crashes * 700, "{crashes} crashes, {:?}", counts(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_planning_leaves_no_half_a_plan() {
    let mut stage = Stage::new().await;
    for round in 0..3 {
        let name = format!("sale-{round}");
        stage.apply(&broadcast(&name, 5000, json!({})));
        stage.wait(&name, "planning", |broadcast| broadcast.status.is_some()).await;
        stage.operator.kill_and_restart().await;
        let done = stage.complete(&name).await;
        books::check_complete(&stage, &done, 5000).await;
        let rows = books::rows(&stage, &name).await;
        assert!(rows.iter().all(|(_, row)| matches!(row.outcome, Outcome::Sent | Outcome::Unknown)));
    }
}
