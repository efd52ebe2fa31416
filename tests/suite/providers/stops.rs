//! What is about the message: the Broadcast stops by itself, so that its chats do not pay for it, and goes on when it is told to.

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome, StopReason};
use broadcast_operator::simulator::ReceiptSettings;
use serde_json::{Value, json};

use crate::common::books;
use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, chat_id, condition, counts, merge, restart};

const IN_FLIGHT: i32 = 4;

fn limits() -> Value {
    json!({"limits": {"maxInFlight": IN_FLIGHT}})
}

/// Lets a provider refuse messages to these chats.
fn refuse(provider: Provider, chats: std::ops::Range<usize>, refusal: &Value) -> Value {
    let chats: Vec<String> = chats.map(chat_id).collect();
    json!({"when": {"account": provider.account(), "chats": chats}, "do": {"refuse": refusal}})
}

/// Checks why a Broadcast stopped by itself.
fn check_stop(stalled: &Broadcast, reason: StopReason, code: &str) {
    let stop = stalled.status.as_ref().and_then(|status| status.stop.as_ref()).expect("a stop");
    assert_eq!((stop.reason, &*stop.code), (reason, code));
    let message = condition(stalled, "Stalled").expect("Stalled").message;
    assert!(message.contains(code), "{message}");
}

/// Stops a Broadcast and lets it go on, as its condition says.
pub async fn go_on(stage: &Stage, name: &str) {
    stage.pause(name, true).await;
    stage.wait_state(name, "Stopped").await;
    stage.pause(name, false).await;
}

/// Errors that are about what is sent, of the providers that know such.
fn content_error(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "132015", "message": "Template is Paused"}), "132015"),
        Telegram => {
            (json!({"code": "400", "message": "Bad Request: can't parse entities: unclosed tag"}), "400")
        }
        Twilio => (json!({"code": "63013", "message": "Policy violation"}), "63013"),
        _ => (json!({"code": "63041", "message": "Template paused"}), "63041"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_get_stops_its_broadcast_and_fails_no_chat() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp];
    let rules = providers.map(|provider| refuse(provider, 10..60, &content_error(provider).0));
    stage.set_faults(json!(rules));
    stage.apply_channels(&providers, &limits());
    stage.apply_broadcasts(&providers, 60, &json!({}));
    with_each(&providers, async |provider| {
        let name = provider.name();
        let stalled = stage.wait_state(name, "TemplateUnavailable").await;
        check_stop(&stalled, StopReason::TemplateUnavailable, content_error(provider).1);
        // What was in flight is recorded a moment later.
        let settled =
            stage.wait(name, "nothing is in flight", |broadcast| counts(broadcast).sending == 0).await;
        let counts = counts(&settled);
        assert_eq!((counts.sent, counts.pending, counts.failed), (10, 50, 0), "{provider:?}: {counts:?}");
        let refused = stage.requests_of(provider).len() - 10;
        assert!(refused <= 4, "{provider:?}: {refused} requests were refused");
        super::channel_state(&stage, provider, "Ready").await;
    })
    .await;
    stage.set_faults(json!([]));
    with_each(&providers, async |provider| {
        go_on(&stage, provider.name()).await;
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!(counts(&done).sent, 60, "{provider:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_message_goes_to_the_rest_of_a_broadcast_that_nobody_could_get_any_more() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp];
    stage.set_faults(json!(providers.map(|provider| refuse(provider, 10..60, &content_error(provider).0))));
    stage.apply_channels(&providers, &limits());
    stage.apply_broadcasts(&providers, 60, &json!({}));
    with_each(&providers, async |provider| {
        let stalled = stage.wait_state(provider.name(), "TemplateUnavailable").await;
        let message = condition(&stalled, "Stalled").expect("Stalled").message;
        assert!(message.contains("spec.restartFrom"), "{message}");
    })
    .await;
    stage.set_faults(json!([]));
    let corrected = |provider: Provider| format!("{}-corrected", provider.name());
    with_each(&providers, async |provider| {
        let (name, corrected) = (provider.name(), corrected(provider));
        stage.pause(name, true).await;
        let message = json!({"message": {"text": "Hi {{ name }}, it starts on Friday."}});
        stage.apply(&restart(&corrected, name, message));
        let done = stage.complete(&corrected).await;
        assert_eq!((counts(&done).sent, books::sum(&done)), (50, 50), "{provider:?}");
        let accepted = stage.accepted_of(provider);
        for (number, sent) in accepted.iter().enumerate() {
            let is_corrected = sent.text.ends_with("it starts on Friday.");
            assert_eq!(is_corrected, number >= 10, "{provider:?}: {sent:?}");
        }
        let times = stage.times_by_chat(provider);
        assert!(times.len() == 60 && times.values().all(|times| *times == 1), "{provider:?}: {times:?}");
        let source = stage.broadcast(name).await;
        assert_eq!((counts(&source).sent, counts(&source).failed), (10, 0), "{provider:?}");
    })
    .await;
}

/// Errors that are about one chat, as far as the provider says.
fn chat_error(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "131009", "message": "Parameter value is not valid"}), "131009"),
        Telegram => (json!({"code": "400", "message": "Bad Request: chat not found"}), "400"),
        Twilio => (json!({"code": "21211", "message": "not a valid phone number"}), "21211"),
        TwilioWhatsApp => (json!({"code": "63003", "message": "Could not find To address"}), "63003"),
        Periskope => (json!({"code": "400", "message": "chat_id is not valid"}), "400"),
        Native => (json!({"status": 422, "code": "bad_number", "message": "no"}), "bad_number"),
        Postback => (json!({"status": 422, "code": "x", "message": "no"}), "422"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_messages_that_all_fail_alike_stop_the_broadcast_before_the_rest_fails_too() {
    let stage = Stage::of_providers().await;
    let rules = Provider::ALL.map(|provider| refuse(provider, 0..100, &chat_error(provider).0));
    stage.set_faults(json!(rules));
    // As many in flight at once as there are by default: the first ones are waited for all the same.
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 100, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let name = provider.name();
        let stalled = stage.wait_state(name, "FirstMessagesFailed").await;
        check_stop(&stalled, StopReason::FirstMessagesFailed, chat_error(provider).1);
        let settled =
            stage.wait(name, "nothing is in flight", |broadcast| counts(broadcast).sending == 0).await;
        let counts = counts(&settled);
        assert_eq!((counts.failed, counts.pending), (20, 80), "{provider:?}: {counts:?}");
    })
    .await;
    stage.set_faults(json!([]));
    with_each(&Provider::ALL, async |provider| {
        let name = provider.name();
        go_on(&stage, name).await;
        let done = stage.complete(name).await;
        stage.check_complete_of(provider, &done, 100).await;
        let rows = books::rows(&stage, name).await;
        let failed = rows.iter().filter(|(_, row)| row.outcome == Outcome::Failed).count();
        assert_eq!(usize::try_from(counts(&done).sent), Ok(100 - failed), "{provider:?}");
    })
    .await;
}

/// Codes that the providers' tables do not have.
fn unknown_error(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "139999", "message": "Something new"}), "139999"),
        Telegram => (json!({"code": "400", "message": "Bad Request: something new"}), "400"),
        Periskope => (json!({"code": "400", "message": "something new"}), "400"),
        _ => (json!({"code": "39999", "message": "Something new"}), "39999"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_nobody_knows_stops_the_broadcast_in_the_middle_before_it_has_failed_all() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp, Periskope];
    let rules = providers.map(|provider| refuse(provider, 20..200, &unknown_error(provider).0));
    stage.set_faults(json!(rules));
    stage.apply_channels(&providers, &limits());
    stage.apply_broadcasts(&providers, 200, &json!({}));
    with_each(&providers, async |provider| {
        let name = provider.name();
        let stalled = stage.wait_state(name, "UnknownErrors").await;
        check_stop(&stalled, StopReason::UnknownErrors, unknown_error(provider).1);
        let settled =
            stage.wait(name, "nothing is in flight", |broadcast| counts(broadcast).sending == 0).await;
        let counts = counts(&settled);
        // Those that failed before the answer to the last good one came are not of the run: they are few, if that one was slow.
        assert!((50..100).contains(&counts.failed), "{provider:?}: {counts:?}");
        assert_eq!((counts.sent, counts.failed + counts.pending), (20, 180), "{provider:?}: {counts:?}");
        super::channel_state(&stage, provider, "Ready").await;
    })
    .await;
    // Somebody has looked it up: it is about the chats.
    let rule = |provider| json!({"errorPolicy": [{"codes": [unknown_error(provider).1], "action": "Fail"}]});
    stage.apply_all(providers.map(|provider| {
        let mut spec = limits();
        merge(&mut spec, rule(provider));
        stage.provider_channel(provider, spec)
    }));
    with_each(&providers, async |provider| {
        let ready = super::channel_state(&stage, provider, "Ready").await;
        assert_eq!(ready.spec.error_policy.len(), 1);
        go_on(&stage, provider.name()).await;
        let done = stage.complete(provider.name()).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (20, 180), "{provider:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_messages_that_are_taken_and_all_fail_alike_by_their_receipts_stop_the_broadcast() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Twilio, Periskope, Native];
    stage.send_receipts_of_all(&ReceiptSettings {
        delivered_percent: 0,
        failed_percent: 100,
        ..ReceiptSettings::default()
    });
    stage.apply_channels(&providers, &json!({"limits": {"messagesPerSecond": 20}}));
    stage.apply_broadcasts(&providers, 100, &json!({}));
    with_each(&providers, async |provider| {
        let stalled = stage.wait_state(provider.name(), "FirstMessagesFailed").await;
        let stop = stalled.status.as_ref().and_then(|status| status.stop.clone()).expect("a stop");
        assert_eq!(stop.reason, StopReason::FirstMessagesFailed, "{provider:?}");
        let rows = books::rows(&stage, provider.name()).await;
        let failed: Vec<_> = rows.iter().filter(|(_, row)| row.outcome == Outcome::Failed).collect();
        assert!((20..100).contains(&failed.len()), "{provider:?}: {}", failed.len());
        assert!(failed.iter().all(|(_, row)| row.code == stop.code), "{provider:?}: {stop:?}");
    })
    .await;
    // Whoever lets it go on has seen these receipts: they do not stop it again, nor do others.
    with_each(&providers, async |provider| {
        let name = provider.name();
        go_on(&stage, name).await;
        let done = stage.wait(name, "all have failed", |broadcast| counts(broadcast).failed == 100).await;
        stage.check_complete_of(provider, &done, 100).await;
    })
    .await;
}
