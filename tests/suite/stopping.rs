//! Stop means stop: after the answer to the patch, what is in flight ends, and nothing else begins.

use std::time::Duration;

use broadcast_operator::api::{Broadcast, ConditionStatus};
use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, condition, counts};

/// Requests that may still arrive after the answer to a patch: the watch event is on its way for some milliseconds, at
/// 500 messages/s. A machine under load takes longer, so this bounds a mistake and is no measurement; the bench measures.
const ON_THE_WAY: usize = 250;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broadcast_sends_nothing_after_what_was_in_flight_and_goes_on_where_it_stopped() {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 500}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.apply(&broadcast("sale", 2000, json!({})));
    stage.accepted("sale", 200).await;
    stage.pause("sale", true).await;
    let at_patch = stage.requests_now("sale");
    let stopped = stage.wait_state("sale", "Stopped").await;
    let requests = stage.requests_now("sale");
    assert!(requests <= at_patch + ON_THE_WAY, "{at_patch} at the patch, {requests} in the end");
    assert!(requests < 2000);
    assert_eq!(
        condition(&stopped, "Suspended").map(|suspended| suspended.status),
        Some(ConditionStatus::True)
    );
    assert_eq!(condition(&stopped, "Ready").map(|ready| ready.status), Some(ConditionStatus::True));
    assert_eq!(counts(&stopped).sending, 0);
    assert_eq!(usize::try_from(counts(&stopped).sent), Ok(requests), "what was in flight is recorded");
    assert_eq!(books::sum(&stopped), 2000);
    let rows = books::rows(&stage, "sale").await;
    let unsent = rows.iter().filter(|(_, row)| row.outcome == Outcome::Pending).count();
    assert_eq!(unsent + requests, 2000, "claimed but unsent chats are Pending again");

    // Another Broadcast of the channel is sent to its end; nothing of the stopped one is among it.
    stage.apply(&broadcast("other", 50, json!({})));
    stage.complete("other").await;
    assert_eq!(stage.requests_now("sale"), requests);

    stage.pause("sale", false).await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_is_stopped_before_it_began_can_be_edited_and_then_started() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 3, json!({"paused": true})));
    stage.wait_state("sale", "Stopped").await;
    assert_eq!(stage.pages("sale").await.len(), 0);
    stage.apply(&broadcast("sale", 4, json!({"paused": true, "message": {"text": "Better"}})));
    stage.pause("sale", false).await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_broadcast_sends_nothing_more_and_goes_only_after_its_requests_are_recorded() {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 100}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.apply(&broadcast("sale", 1000, json!({})));
    stage.accepted("sale", 30).await;
    let broadcasts = stage.api::<Broadcast>();
    broadcasts.delete("sale", &DeleteParams::background()).await.expect("delete");
    stage.gone("sale").await;
    let requests = stage.requests_now("sale");
    assert!(requests < 1000);
    stage.pages_gone("sale").await;
    stage.apply(&broadcast("other", 20, json!({})));
    stage.complete("other").await;
    assert_eq!(stage.requests_now("sale"), requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_a_request_without_an_answer() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 2}), json!({})));
    stage.set_faults(json!([{"do": {"hang": {}}}]));
    stage.apply(&broadcast("sale", 1, json!({})));
    stage.gateway.ledger().wait_until(|summary| summary.requests.in_flight == 1).await;
    let broadcasts = stage.api::<Broadcast>();
    broadcasts.delete("sale", &DeleteParams::background()).await.expect("delete");
    stage.gone("sale").await;
    assert_eq!(
        stage.gateway.ledger().summary().requests.in_flight,
        0,
        "it was there until the request ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_the_foreground_takes_the_pages_first_and_sends_nothing_more() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 1000, json!({})));
    stage.accepted("sale", 30).await;
    stage.api::<Broadcast>().delete("sale", &DeleteParams::foreground()).await.expect("delete");
    stage.gone("sale").await;
    stage.pages_gone("sale").await;
    stage.apply(&broadcast("other", 20, json!({})));
    stage.complete("other").await;
    let requests = stage.requests_now("sale");
    stage.apply(&broadcast("another", 20, json!({})));
    stage.complete("another").await;
    assert_eq!(stage.requests_now("sale"), requests);
    assert!(requests < 500);
    assert_eq!(stage.gateway.ledger().summary().requests.twice.tokens, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_and_records_what_is_in_flight_and_loses_nothing() {
    let mut stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 400}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.set_faults(json!([{"do": {"latencyMs": 100}}]));
    stage.apply(&broadcast("sale", 800, json!({})));
    stage.accepted("sale", 200).await;
    let started = clock::monotonic();
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 0);
    assert!(started.elapsed() < Duration::from_secs(30));
    let rows = books::rows(&stage, "sale").await;
    assert!(
        rows.iter().all(|(_, row)| row.outcome != Outcome::Unknown),
        "a clean end leaves nothing unknown"
    );
    let sent = rows.iter().filter(|(_, row)| row.outcome == Outcome::Sent).count();
    assert_eq!(sent, stage.accepted_now("sale"), "everything that was sent is recorded");
    stage.operator.restart().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 800).await;
    assert_eq!(counts(&done).sent, 800);
}
