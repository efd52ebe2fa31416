//! A Broadcast from apply to complete.

use broadcast_operator::api::{BroadcastChannel, OutcomeName as Outcome};
use broadcast_operator::simulator::{ReceiptSettings, SendQuery};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id, condition, counts, is_complete, state};
use crate::common::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn every_chat_gets_its_own_text_once_and_its_outcome_is_in_status() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 120, json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 120).await;
    let status = done.status.as_ref().expect("status");
    assert_eq!((counts(&done).sent, status.progress.as_deref()), (120, Some("120/120")));
    assert_eq!(status.outcomes.len(), 120, "all outcomes of a small audience stand in status");
    assert!(status.outcomes.iter().all(|chat| chat.outcome == Outcome::Sent));
    assert_eq!(status.observed_generation, 1);
    let sends = stage.gateway.ledger().sends(&SendQuery { chat: Some(chat_id(7)), ..SendQuery::default() });
    assert_eq!(sends.len(), 1);
    assert_eq!(&*sends[0].text, "Hi Guest 7, the sale starts tomorrow at nine.");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_skipped_with_a_reason_and_the_rest_is_sent() {
    let stage = Stage::new().await;
    let csv =
        "phone,name\n+1 555-010-0001,Ana\n15550100001,Ana again\n,Nobody\nnot a number!,X\n15550100002,Bo\n";
    stage.apply(&broadcast("sale", 0, json!({"recipients": {"csv": csv}})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 5).await;
    let rows = books::rows(&stage, "sale").await;
    let codes: Vec<&str> = rows.iter().map(|(_, row)| row.code.as_str()).collect();
    assert_eq!(codes, ["", "Duplicate", "InvalidChat", "InvalidChat", ""]);
    assert_eq!((counts(&done).sent, counts(&done).skipped), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_read_in_their_order_and_a_chat_of_two_sources_gets_one_message() {
    let stage = Stage::new().await;
    for (kind, data) in [
        (json!("ConfigMap"), json!({"data": {"chats.csv": "chat,name\n15550100001,Ana\n15550100002,Bo\n"}})),
        (json!("Secret"), json!({"stringData": {"chats.csv": "phone\n15550100003\n15550100001\n"}})),
    ] {
        let mut source = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "audience"}});
        crate::common::stage::merge(&mut source, data);
        stage.apply(&source);
    }
    let from = json!([
        {"configMapRef": {"name": "audience", "key": "chats.csv"}},
        {"secretRef": {"name": "audience", "key": "chats.csv"}},
    ]);
    let spec = json!({"recipients": {"csv": null, "from": from}, "message": {"text": "Hi {{ name | default('you') }}"}});
    stage.apply(&broadcast("sale", 0, spec));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 4).await;
    assert_eq!((counts(&done).sent, counts(&done).skipped), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_250_chats_are_sent_whole() {
    let stage = Stage::new().await;
    for (name, audience) in [("one", 1), ("page-less-one", 249), ("page", 250), ("page-and-one", 251)] {
        stage.apply(&broadcast(name, audience, json!({})));
    }
    for (name, audience, pages) in
        [("one", 1, 1), ("page-less-one", 249, 1), ("page", 250, 1), ("page-and-one", 251, 2)]
    {
        let done = stage.complete(name).await;
        books::check_complete(&stage, &done, audience).await;
        assert_eq!(stage.pages(name).await.len(), pages, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_the_channel_and_of_the_broadcast_hold() {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 100, "burst": 1, "maxInFlight": 4}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.apply(&broadcast("fast", 150, json!({})));
    stage.complete("fast").await;
    let summary = stage.gateway.ledger().summary().requests;
    // Arrivals jitter by the scheduler's milliseconds, so one or two more may fall into one second.
    assert!(summary.highest_arrivals_per_second <= 103, "{summary:?}");
    assert!(summary.highest_in_flight <= 4, "{summary:?}");
    stage.gateway.ledger().delete();
    stage.apply(&broadcast("slow", 40, json!({"pacing": {"messagesPerSecond": 20}})));
    stage.complete("slow").await;
    let summary = stage.gateway.ledger().summary().requests;
    assert!(summary.highest_arrivals_per_second <= 22, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_of_one_channel_share_it_fairly() {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 200}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.apply(&broadcast("big", 2000, json!({})));
    stage.accepted("big", 20).await;
    stage.apply(&broadcast("small", 100, json!({})));
    stage.complete("small").await;
    let big = stage.broadcast("big").await;
    assert!(!is_complete(&big), "the small one did not wait for the big one");
    stage.pause("big", true).await;
    stage.wait_state("big", "Stopped").await;
    books::check(&stage, "big").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_waits_for_its_channel_and_goes_on_when_it_comes() {
    let stage = Stage::bare().await;
    stage.apply(&broadcast("sale", 3, json!({})));
    let waiting = stage.wait_state("sale", "ChannelNotFound").await;
    let ready = condition(&waiting, "Ready").expect("Ready");
    assert!(ready.message.contains("BroadcastChannel sms does not exist"), "{}", ready.message);
    assert!(condition(&waiting, "Stalled").is_some());
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_broadcast_writes_nothing_more() {
    let stage = Stage::new().await;
    stage.send_receipts(&ReceiptSettings { read_percent: 50, ..ReceiptSettings::default() });
    stage.apply(&broadcast("sale", 30, json!({})));
    stage.complete("sale").await;
    let settled =
        |counts: broadcast_operator::api::Counts| counts.sent == 0 && counts.read + counts.delivered == 30;
    let done = stage.wait("sale", "all receipts are in", |broadcast| settled(counts(broadcast))).await;
    assert!(done.status.as_ref().is_some_and(|status| status.delivered_percent == Some(100)));
    // A change that means nothing to it: when the operator has seen it, it has had its reason to write.
    let reconciled = stage.operator.metric("controller_runtime_reconcile_total", "").await;
    let label = json!({"metadata": {"labels": {"seen": "yes"}}});
    stage.patch("sale", label).await;
    let versions = async || {
        let pages = stage.pages("sale").await.into_iter().map(|page| page.metadata.resource_version);
        pages.chain([stage.broadcast("sale").await.metadata.resource_version]).collect::<Vec<_>>()
    };
    let before = versions().await;
    until("the operator has looked at it again", async || {
        let now = stage.operator.metric("controller_runtime_reconcile_total", "").await;
        if now > reconciled { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(versions().await, before, "a settled Broadcast is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_deleted_when_its_time_is_over_and_its_pages_go_with_it() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 3, json!({"ttlSecondsAfterFinished": 1})));
    stage.gone("sale").await;
    stage.pages_gone("sale").await;
    assert_eq!(stage.accepted_now("sale"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_is_being_sent_is_refused_with_the_way_out() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 2, json!({})));
    stage.complete("sale").await;
    let refused =
        stage.try_apply(&broadcast("sale", 2, json!({"message": {"text": "Oops"}}))).expect_err("immutable");
    assert!(refused.contains("apply a new Broadcast") && refused.contains("restartFrom"), "{refused}");
    let refused = stage.try_apply(&broadcast("sale", 3, json!({}))).expect_err("immutable");
    assert!(refused.contains("recipients may not change"), "{refused}");
    stage.try_apply(&broadcast("sale", 2, json!({"ttlSecondsAfterFinished": 1000}))).expect("may change");
    assert_eq!(state(&stage.broadcast("sale").await), "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brake_of_a_channel_stops_and_releases_all_its_broadcasts() {
    let stage = Stage::bare().await;
    let limits = json!({"limits": {"messagesPerSecond": 100}});
    stage.apply(&stage.channel(CHANNEL, json!({}), limits));
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.accepted("sale", 20).await;
    let brake = |on: bool| Patch::Merge(json!({"spec": {"paused": on}}));
    let channels = stage.api::<BroadcastChannel>();
    channels.patch(CHANNEL, &PatchParams::default(), &brake(true)).await.expect("patch");
    let stopped = stage.wait_state("sale", "ChannelPaused").await;
    until("nothing is claimed", async || {
        let claimed = stage
            .pages("sale")
            .await
            .iter()
            .any(|page| page.status.as_ref().is_some_and(|s| s.claim.is_some()));
        if claimed { Err("a claim") } else { Ok(()) }
    })
    .await;
    assert!(!is_complete(&stopped));
    let requests = stage.requests_now("sale");
    assert!(requests < 300);
    channels.patch(CHANNEL, &PatchParams::default(), &brake(false)).await.expect("patch");
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_used_before_can_be_used_again_once_its_pages_are_gone() {
    let stage = Stage::new().await;
    for audience in [5, 7] {
        stage.apply(&broadcast("sale", audience, json!({})));
        let done = stage.complete("sale").await;
        assert_eq!(usize::try_from(counts(&done).sent), Ok(audience));
        stage.kubectl(&["delete", "bc", "sale", "--cascade=foreground", "--timeout=60s"]);
    }
    assert_eq!(stage.accepted_now("sale"), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_page_of_a_finished_log_does_not_open_it_again() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 300, json!({})));
    stage.complete("sale").await;
    stage.kubectl(&["delete", "bcb", "sale-00001"]);
    let seen = stage.wait("sale", "it is seen", |sale| {
        condition(sale, "Complete").is_some_and(|complete| complete.message.contains("batches of its log"))
    });
    assert!(is_complete(&seen.await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_page_stops_the_rest() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 600, json!({})));
    stage.accepted("sale", 5).await;
    stage.kubectl(&["delete", "bcb", "sale-00002"]);
    let last = stage.wait("sale", "no longer sending", |sale| {
        matches!(state(sale).as_str(), "Planning" | "BatchesMissing")
    });
    last.await;
    let sent = stage.requests_now("sale");
    stage.apply(&broadcast("other", 20, json!({})));
    stage.complete("other").await;
    // What was claimed when the page went away is a second of work.
    assert!(stage.requests_now("sale") <= sent + 100);
    assert!(stage.requests_now("sale") < 500);
}
