//! Receipts that never come: the provider is asked, where it can be.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::ReceiptSettings;
use serde_json::{Value, json};

use super::channel_state;
use crate::common::books;
use crate::common::providers::Provider::{self, Twilio, TwilioWhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, broadcast, chat_id, counts, merge};
use crate::common::wait::until;

/// The Broadcast that has the books of its provider to itself.
const NAME: &str = "twilio";

/// A channel of Twilio that asks a second after its messages.
fn polled(stage: &Stage, more: Value) -> Value {
    polled_of(stage, Twilio, more)
}

/// The same by SMS or by `WhatsApp`.
fn polled_of(stage: &Stage, provider: Provider, more: Value) -> Value {
    let mut channel = stage.provider_channel(provider, json!({"twilio": {"pollAfterSeconds": 1}}));
    merge(&mut channel["spec"], more);
    channel
}

/// What becomes of all messages, though nobody is told.
fn decide(stage: &Stage, settings: &ReceiptSettings) {
    stage.gateway.hold_receipts();
    stage.send_receipts_of_all(settings);
}

/// A Broadcast through the channel of Twilio.
fn to(name: &str, chats: usize) -> Value {
    broadcast(name, chats, json!({"channelRef": {"name": Twilio.name()}}))
}

/// How often each message of a Broadcast was asked about, in the order of its chats.
async fn asked(stage: &Stage, name: &str) -> Vec<usize> {
    let lookups = stage.gateway.ledger().lookups();
    let rows = books::rows(stage, name).await;
    rows.iter().map(|(_, row)| lookups.iter().filter(|id| **id == row.message_id).count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_were_lost_are_repaired_by_asking_and_nothing_secret_is_logged() {
    let stage = Stage::of_providers_with(&["--log-format", "json", "--log-filter", "trace"]).await;
    let settings =
        ReceiptSettings { delivered_percent: 60, failed_percent: 40, ..ReceiptSettings::default() };
    decide(&stage, &settings);
    stage.apply(&polled(&stage, json!({})));
    stage.apply(&to(NAME, 20));
    stage.complete(NAME).await;
    let repaired = stage.wait(NAME, "every chat has its last word", |broadcast| {
        let counts = counts(broadcast);
        counts.delivered + counts.failed == 20
    });
    let repaired = repaired.await;
    let counts = counts(&repaired);
    assert!(counts.delivered > 0 && counts.failed > 0, "{counts:?}");
    let percent = repaired.status.expect("status").delivered_percent;
    assert_eq!(percent, Some(counts.delivered * 100 / 20), "of those that Twilio took");
    for (chat, row) in books::rows(&stage, NAME).await {
        let expected = if row.outcome == Outcome::Failed { "30005" } else { "" };
        assert_eq!(row.code, expected, "{chat:?}: {row:?}");
    }
    assert_eq!(asked(&stage, NAME).await, [1; 20], "each of them is asked about once");
    let receipts = stage.gateway.ledger().summary().receipts;
    assert_eq!((receipts.delivered, receipts.pending), (0, 20), "no receipt came");
    assert_eq!(stage.operator.metric("broadcast_lookups_total", "\"News\"").await, 20);
    assert_eq!(
        stage.operator.metric("broadcast_receipts_total", "Applied").await,
        20,
        "they count as receipts"
    );

    // Receipts that come after all change nothing.
    stage.gateway.release_receipts();
    stage.gateway.ledger().wait_until(|summary| summary.receipts.pending == 0).await;
    stage.check_complete_of(Twilio, &stage.broadcast(NAME).await, 20).await;
    let log = stage.operator.log();
    assert!(log.contains("audience sealed"), "it is the log");
    let basic = STANDARD.encode(format!("{}:{}", Twilio.account(), Twilio.token()));
    for secret in [Twilio.token(), &basic, &chat_id(0)[..8]] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_nobody_can_reach_learns_by_asking_alone() {
    let stage = Stage::of_providers().await;
    decide(&stage, &ReceiptSettings { read_percent: 100, ..ReceiptSettings::default() });
    // Nobody knows of an SMS that it was read.
    with_each(&[Twilio, TwilioWhatsApp], async |provider| {
        let name = provider.name();
        stage.apply(&polled_of(&stage, provider, json!({"twilio": {"publicUrl": null}})));
        stage.apply(&broadcast(name, 5, json!({"channelRef": {"name": name}})));
        let read = provider.tells_of_reading().then_some(100);
        let known = stage.wait(name, "it is known what became of all of them", |broadcast| {
            let status = broadcast.status.as_ref();
            status.is_some_and(|status| (status.delivered_percent, status.read_percent) == (Some(100), read))
        });
        known.await;
        stage.check_complete_of(provider, &stage.complete(name).await, 5).await;
    })
    .await;
    assert_eq!(stage.gateway.ledger().summary().receipts.requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_while_the_channel_is_paused() {
    let stage = Stage::of_providers().await;
    decide(&stage, &ReceiptSettings { delay_ms: 86_400_000, ..ReceiptSettings::default() });
    stage.apply(&polled(&stage, json!({})));
    stage.apply(&to("sale", 60));
    stage.complete("sale").await;
    stage.gateway.ledger().wait_until(|summary| summary.lookups >= 5).await;
    stage.apply(&polled(&stage, json!({"paused": true})));
    channel_state(&stage, Twilio, "Paused").await;
    let of_sale = async || asked(&stage, "sale").await.iter().sum::<usize>();
    let before = of_sale().await;
    assert!(before < 60, "{before} were asked before the pause: the test is too slow to see it");

    // Another channel of the same account goes on meanwhile, to the second question about each message.
    let mut other = polled(&stage, json!({}));
    other["metadata"]["name"] = json!("other");
    stage.apply(&other);
    stage.apply(&broadcast("others", 3, json!({"channelRef": {"name": "other"}})));
    until("the other channel has asked twice", async || match asked(&stage, "others").await {
        asked if asked.len() == 3 && asked.iter().all(|times| *times >= 2) => Ok(()),
        asked => Err(asked),
    })
    .await;
    let after = of_sale().await;
    // The answer of one question may have been on its way.
    assert!(after <= before + 1, "{before} questions before, {after} after");

    stage.apply(&polled(&stage, json!({})));
    until("all are asked about", async || match asked(&stage, "sale").await {
        asked if asked.iter().all(|times| *times >= 1) => Ok(()),
        asked => Err(asked),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_to_ask_does_not() {
    let stage = Stage::of_providers().await;
    decide(&stage, &ReceiptSettings::default());
    let mut silent = polled(&stage, json!({"twilio": {"pollAfterSeconds": 0, "publicUrl": null}}));
    silent["metadata"]["name"] = json!("silent");
    stage.apply_all([silent, polled(&stage, json!({}))]);
    stage.apply(&broadcast("silence", 3, json!({"channelRef": {"name": "silent"}})));
    stage.complete("silence").await;
    stage.apply(&to("sale", 3));
    stage.wait("sale", "all are delivered", |broadcast| counts(broadcast).delivered == 3).await;
    assert_eq!(asked(&stage, "silence").await, [0; 3]);
    let silence = stage.broadcast("silence").await;
    assert_eq!((counts(&silence).sent, silence.status.expect("status").delivered_percent), (3, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_twilio_does_not_know_any_more_are_asked_about_once() {
    let stage = Stage::of_providers().await;
    decide(&stage, &ReceiptSettings { delay_ms: 86_400_000, ..ReceiptSettings::default() });
    stage.apply(&polled(&stage, json!({})));
    stage.apply(&to("sale", 3));
    stage.complete("sale").await;
    stage.gateway.ledger().delete();
    let gone = async || stage.operator.metric("broadcast_lookups_total", "Gone").await;
    until("Twilio knows none of them", async || match gone().await {
        3 => Ok(()),
        number => Err(number),
    })
    .await;
    // Messages that were sent later are asked about for the second time; those of before had their turn by then.
    stage.apply(&to("later", 3));
    until("the later ones are asked about twice", async || match asked(&stage, "later").await {
        asked if asked.len() == 3 && asked.iter().all(|times| *times >= 2) => Ok(()),
        asked => Err(asked),
    })
    .await;
    assert_eq!(gone().await, 3);
    let sale = stage.broadcast("sale").await;
    assert_eq!(counts(&sale).sent, 3, "they stay Sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_question_stops_the_channel_and_the_right_token_starts_it_again() {
    let stage = Stage::of_providers().await;
    decide(&stage, &ReceiptSettings::default());
    // In time to see the first question refused.
    stage.apply(&polled(&stage, json!({"twilio": {"pollAfterSeconds": 3}})));
    stage.apply(&to("sale", 3));
    stage.complete("sale").await;
    stage.revoke_tokens();
    let stalled = channel_state(&stage, Twilio, "AuthenticationFailed").await;
    let status = format!("{:?}", stalled.status);
    assert!(!status.contains(Twilio.token()), "{status}");
    assert_eq!(counts(&stage.broadcast("sale").await).failed, 0, "no chat fails by it");
    let refused = stage.gateway.ledger().summary().lookups;
    stage.renew_tokens();
    channel_state(&stage, Twilio, "Ready").await;
    assert_eq!((refused, stage.gateway.ledger().summary().lookups), (1, 1), "one question was refused");
}
