//! Several replicas: they share the channels, take over from each other, and together still send nothing twice.

use broadcast_operator::api::BroadcastChannel;
use broadcast_operator::simulator::{ReceiptSettings, SendQuery};
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::books;
use crate::common::operator::Operator;
use crate::common::stage::{CHANNEL, Stage, broadcast, counts};
use crate::common::wait::until;

/// Leases that run out soon, so that a test does not wait long for it.
const SHORT: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry-period", "500ms"];
/// Leases that do not run out while a test waits for anything: what is taken over was handed over.
const LONG: [&str; 4] = ["--lease-duration", "600s", "--lease-renew-deadline", "500s"];

/// Waits until these replicas hold so many channels each.
async fn hold(replicas: &[(&Operator, u64)]) {
    until("the channels are shared", async || {
        let mut held = Vec::new();
        for (replica, _) in replicas {
            held.push(replica.metric("broadcast_channels_held", "").await);
        }
        if held.iter().zip(replicas).all(|(held, (_, wanted))| held == wanted) { Ok(()) } else { Err(held) }
    })
    .await;
}

async fn leads(replica: &Operator) -> bool {
    replica.metric("leader_election_master_status", "").await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_channels_evenly_and_need_not_be_told_of_each_other() {
    let stage = Stage::bare().await;
    let channels = ["sms-0", "sms-1", "sms-2", "sms-3", "sms-4"];
    for channel in channels {
        stage.apply(&stage.channel(channel, json!({}), json!({"limits": {"messagesPerSecond": 300}})));
    }
    hold(&[(&stage.operator, 5)]).await;
    for channel in channels {
        stage.apply(&broadcast(channel, 600, json!({"channelRef": {"name": channel}})));
    }
    stage.accepted(channels[0], 50).await;
    // It joins in the middle of the sending, and what it gets was drained before: nobody is Unknown.
    let other = stage.join("pod-1", &LONG).await;
    hold(&[(&stage.operator, 3), (&other, 2)]).await;
    for channel in channels {
        let done = stage.complete(channel).await;
        books::check_complete(&stage, &done, 600).await;
        assert_eq!(counts(&done).sent, 600, "{channel}");
    }
    for replica in [&stage.operator, &other] {
        assert!(
            replica.metric("broadcast_messages_total", "outcome=\"Sent\"").await > 0,
            "each of them sends"
        );
    }
    assert!(leads(&stage.operator).await && !leads(&other).await, "one of them leads");

    // A channel that is gone needs nobody; its lease goes too.
    for channel in &channels[1..] {
        stage.api::<BroadcastChannel>().delete(channel, &DeleteParams::default()).await.expect("delete");
    }
    until("one channel is left", async || {
        let held = stage.operator.metric("broadcast_channels_held", "").await
            + other.metric("broadcast_channels_held", "").await;
        if held == 1 { Ok(()) } else { Err(held) }
    })
    .await;
    until("the leases of the others are gone", async || {
        let label = format!(
            "-l=broadcast-operator.dev/lease=channel,broadcast-operator.dev/replicas-of={}",
            stage.namespace
        );
        let leases =
            stage.plane.kubectl(&["get", "lease", "-n", "broadcast-system", "-o", "name", &label], "");
        if leases.lines().count() == 1 { Ok(()) } else { Err(leases) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_shut_down_hands_everything_over_and_the_limit_of_the_channel_holds() {
    let (rate, burst) = (400, 400);
    let mut stage = Stage::with_flags(&LONG).await;
    let limits = json!({"limits": {"messagesPerSecond": rate, "burst": burst}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.set_faults(json!([{"do": {"latencyMs": 20}}]));
    hold(&[(&stage.operator, 1)]).await;
    let other = stage.join("pod-1", &LONG).await;
    stage.apply(&broadcast("sale", 1200, json!({})));
    stage.accepted("sale", 200).await;
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 0);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 1200).await;
    assert_eq!(counts(&done).sent, 1200, "what was in flight was recorded before it was handed over");
    hold(&[(&other, 1)]).await;
    assert!(leads(&other).await);
    // The channel stood idle before, so there is one burst to spend, and no second one for who takes over. Arrivals are not
    // starts: requests that were held up on their way arrive together.
    let sends = stage.gateway.ledger().sends(&SendQuery::default());
    let (first, last) = (sends.first().expect("sent"), sends.last().expect("sent"));
    let steady = (last.arrived_micros - first.arrived_micros) * rate / 1_000_000;
    let allowed = steady + burst + burst / 4;
    assert!(sends.len() as u64 <= allowed, "{} sent, {allowed} are allowed", sends.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_is_replaced() {
    let rate = 300;
    let mut stage = Stage::with_flags(&SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": rate}})));
    hold(&[(&stage.operator, 1)]).await;
    let other = stage.join("pod-1", &SHORT).await;
    stage.apply(&broadcast("sale", 2000, json!({})));
    stage.accepted("sale", 400).await;
    stage.operator.kill();
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 2000).await;
    // What was claimed ahead, what was answered and not recorded yet, and what was in flight.
    assert!(counts(&done).unknown <= 2 * rate + 64, "{:?}", counts(&done));
    hold(&[(&other, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_frozen_past_its_lease_sends_nothing_that_another_has_taken_over() {
    let stage = Stage::with_flags(&SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 400}})));
    stage.set_faults(json!([{"do": {"latencyMs": 20}}]));
    hold(&[(&stage.operator, 1)]).await;
    let other = stage.join("pod-1", &SHORT).await;
    stage.apply(&broadcast("sale", 3000, json!({})));
    stage.accepted("sale", 300).await;
    stage.operator.signal("STOP");
    hold(&[(&other, 1)]).await;
    let taken_over = stage.requests_now("sale") + 200;
    stage.accepted("sale", taken_over).await;
    stage.operator.signal("CONT");
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 3000).await;
    // It joins again, as one who holds nothing.
    hold(&[(&stage.operator, 0), (&other, 1)]).await;
    assert!(leads(&other).await && !leads(&stage.operator).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_taken_by_a_replica_that_does_not_send() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    hold(&[(&stage.operator, 1)]).await;
    let other = stage.join("pod-1", &[]).await;
    stage.send_receipts_to(&other, &ReceiptSettings { use_message_id: true, ..ReceiptSettings::default() });
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.wait("sale", "all delivered", |broadcast| counts(broadcast).delivered == 300).await;
    books::check(&stage, "sale").await;
    assert_eq!(stage.gateway.ledger().sends(&SendQuery::default()).len(), 300);
    assert_eq!(other.metric("broadcast_messages_total", "").await, 0, "it sent nothing itself");
}
