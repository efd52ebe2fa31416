//! What is about the message: the Broadcast stops by itself, so that its chats do not pay for it, and goes on when it is told to.

use broadcast_operator::api::{Broadcast, OutcomeName as Outcome, StopReason};
use serde_json::{Value, json};

use crate::common::books;
use crate::common::providers::Provider::{self, Native, Periskope, Postback, Telegram, Twilio, WhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, chat_id, condition, counts};

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
async fn go_on(stage: &Stage, name: &str) {
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
        _ => (json!({"code": "63013", "message": "Policy violation"}), "63013"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_get_stops_its_broadcast_and_fails_no_chat() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio];
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

/// Errors that are about one chat, as far as the provider says.
fn chat_error(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "131009", "message": "Parameter value is not valid"}), "131009"),
        Telegram => (json!({"code": "400", "message": "Bad Request: chat not found"}), "400"),
        Twilio => (json!({"code": "21211", "message": "not a valid phone number"}), "21211"),
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
    stage.apply_channels(&Provider::ALL, &limits());
    stage.apply_broadcasts(&Provider::ALL, 100, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let name = provider.name();
        let stalled = stage.wait_state(name, "FirstMessagesFailed").await;
        check_stop(&stalled, StopReason::FirstMessagesFailed, chat_error(provider).1);
        let settled =
            stage.wait(name, "nothing is in flight", |broadcast| counts(broadcast).sending == 0).await;
        let counts = counts(&settled);
        assert!((20..20 + IN_FLIGHT).contains(&counts.failed), "{provider:?}: {counts:?}");
        assert_eq!(counts.pending + counts.failed, 100, "{provider:?}: {counts:?}");
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
