//! Each provider: all chats get their message once, also after a stop, a crash, and a restart.

use std::collections::BTreeSet;

use broadcast_operator::api::OutcomeName as Outcome;
use broadcast_operator::simulator::{Entry, ReceiptSettings};
use serde_json::{Value, json};

use crate::common::books;
use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::{queue_id, with_each};
use crate::common::stage::{Stage, chat_id, counts, restart, state};
use crate::common::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn every_chat_gets_its_own_text_once_and_its_message_id_is_in_status() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 60, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!((&*state(&done), counts(&done).sent), ("Succeeded", 60), "{provider:?}");
        let sends = stage.requests_of(provider);
        assert_eq!(sends.len(), 60, "{provider:?}: nothing is sent twice");
        let outcomes = done.status.expect("status").outcomes;
        for (guest, outcome) in outcomes.iter().enumerate() {
            let chat = chat_id(guest);
            let sent = sends.iter().find(|sent| *sent.chat == *chat).expect("a request");
            let text = format!("Hi Guest {guest}, the sale starts tomorrow at nine.");
            assert_eq!((&*outcome.chat, &*sent.text), (&*chat, &*text), "{provider:?}");
            assert_eq!(outcome.message_id, message_id(provider, sent), "{provider:?}");
        }
    })
    .await;
}

/// The id that a row has of a message.
fn message_id(provider: Provider, sent: &Entry) -> Option<String> {
    let id = sent.message_id.as_ref()?.to_string();
    match provider {
        Telegram => Some(format!("{}/{id}", &*sent.chat)),
        // Every other answer names the place in the queue alone.
        Periskope if id.bytes().last().is_some_and(|last| last % 2 == 0) => Some(queue_id(&id)),
        _ => Some(id).filter(|_| provider.has_message_ids()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_after_what_was_in_flight_and_the_rest_follows_when_it_is_taken_back() {
    let stage = Stage::of_providers().await;
    // One message at a time: what is in flight at the stop is one.
    stage.apply_channels(&Provider::ALL, &json!({"limits": {"messagesPerSecond": 60, "maxInFlight": 1}}));
    // So slow that none of them comes to its end before.
    let rest: Vec<String> = (20..150).map(chat_id).collect();
    stage.set_faults(json!([{"when": {"chats": rest}, "do": {"latencyMs": 200}}]));
    stage.apply_broadcasts(&Provider::ALL, 150, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let name = provider.name();
        stage.accepted_by(provider, 22).await;
        stage.pause(name, true).await;
        let stopped = stage.wait_state(name, "Stopped").await;
        let sent = stage.requests_of(provider).len();
        assert!(sent < 150, "{provider:?}: {sent} of 150 were sent before it stopped");
        assert_eq!(usize::try_from(counts(&stopped).sent), Ok(sent), "{provider:?}: all of it is recorded");
        assert_eq!(counts(&stopped).pending + counts(&stopped).sent, 150, "{provider:?}");
    })
    .await;
    stage.set_faults(json!([]));
    // Another one goes through the same channels to its end, and nothing of the stopped ones is with it.
    let before = Provider::ALL.map(|provider| stage.requests_of(provider).len());
    let others = Provider::ALL.map(|provider| format!("{}-other", provider.name()));
    let pairs = Provider::ALL.into_iter().zip(&others);
    stage.apply_all(pairs.map(|(provider, other)| one_message(other, provider, "15559990000")));
    for other in &others {
        stage.complete(other).await;
    }
    let after = Provider::ALL.map(|provider| stage.requests_of(provider).len());
    assert_eq!(before.map(|sent| sent + 1), after);
    with_each(&Provider::ALL, async |provider| {
        stage.pause(provider.name(), false).await;
        let done = stage.complete(provider.name()).await;
        assert_eq!(stage.requests_of(provider).len(), 151, "{provider:?}: each chat once");
        stage.check_complete_of(provider, &done, 150).await;
    })
    .await;
}

/// A Broadcast to one chat.
fn one_message(name: &str, provider: Provider, chat: &str) -> Value {
    json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast", "metadata": {"name": name},
        "spec": {
            "channelRef": {"name": provider.name()}, "message": {"text": "Hi"}, "recipients": {"chats": [{"id": chat}]},
        },
    })
}

/// How a provider says that one chat cannot have the message, and the code that its row has then.
pub(super) fn bad_chat(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "131026", "message": "Message undeliverable"}), "131026"),
        Telegram => (json!({"code": "400", "message": "Bad Request: chat not found"}), "400"),
        Twilio => {
            (json!({"code": "21211", "message": "The 'To' number is not a valid phone number."}), "21211")
        }
        TwilioWhatsApp => (json!({"code": "63024", "message": "Invalid message recipient"}), "63024"),
        Periskope => (json!({"code": "404", "message": "chat not found"}), "NOT_FOUND_ERROR"),
        Native => (json!({"status": 422, "code": "no_such_number", "message": "no"}), "no_such_number"),
        Postback => (json!({"status": 422, "code": "x", "message": "no"}), "422"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_chats_fail_alone_and_a_restart_goes_to_them_alone() {
    let stage = Stage::of_providers().await;
    let bad: Vec<String> = [0, 31, 59].map(chat_id).into();
    let rules = Provider::ALL.map(|provider| {
        let when = json!({"account": provider.account(), "chats": bad});
        json!({"when": when, "do": {"refuse": bad_chat(provider).0}})
    });
    stage.set_faults(json!(rules));
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 60, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (57, 3), "{provider:?}");
        let outcomes = done.status.expect("status").outcomes;
        let failed = outcomes.iter().filter(|outcome| outcome.outcome == Outcome::Failed);
        for failed in failed {
            assert!(bad.contains(&failed.chat), "{provider:?}: {}", failed.chat);
            let code = failed.error.as_ref().map(|error| &*error.code);
            assert_eq!(code, Some(bad_chat(provider).1), "{provider:?}");
        }
    })
    .await;
    stage.set_faults(json!([]));
    with_each(&Provider::ALL, async |provider| {
        let before = stage.requests_of(provider).len();
        let again = format!("{}-again", provider.name());
        stage.apply(&restart(&again, provider.name(), json!({})));
        let done = stage.complete(&again).await;
        assert_eq!((counts(&done).sent, books::sum(&done)), (3, 3), "{provider:?}");
        let requests = stage.requests_of(provider);
        let chats: BTreeSet<String> = requests[before..].iter().map(|sent| sent.chat.to_string()).collect();
        assert_eq!(chats, bad.iter().cloned().collect(), "{provider:?}");
        assert_eq!(requests.len(), before + 3, "{provider:?}");
        assert!(stage.times_by_chat(provider).values().all(|times| *times == 1), "{provider:?}");
    })
    .await;
}

/// Messages per second in the test of a crash. A claim is for one second of work.
const RATE: i32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_one_window_unknown_at_most_and_receipts_with_a_token_settle_it() {
    let mut stage = Stage::of_providers().await;
    stage.send_receipts_of_all(&ReceiptSettings::default());
    stage.gateway.hold_receipts();
    // These are in flight at the crash for sure: taken, and never answered.
    let hanging: Vec<String> = (20..24).map(chat_id).collect();
    stage.set_faults(json!([{"when": {"chats": hanging}, "do": {"hangAfterAccept": {}}}]));
    stage.apply_channels(&Provider::ALL, &json!({"limits": {"messagesPerSecond": RATE}}));
    stage.apply_broadcasts(&Provider::ALL, 150, &json!({}));
    with_each(&Provider::ALL, async |provider| stage.accepted_by(provider, 30).await).await;
    stage.operator.kill();
    stage.set_faults(json!([]));
    stage.operator.restart().await;
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 150).await;
        let unknown = counts(&done).unknown;
        assert!((4..=RATE).contains(&unknown), "{provider:?}: {unknown} are Unknown");
    })
    .await;
    stage.gateway.release_receipts();
    with_each(&Provider::ALL, async |provider| {
        let accepted = stage.times_by_chat(provider);
        let open = |outcome: Outcome| match outcome {
            Outcome::Sent => provider.has_receipts(),
            Outcome::Unknown => provider.echoes_tokens(),
            _ => false,
        };
        until(&format!("{provider:?}: what was accepted is settled"), async || {
            let rows = books::rows(&stage, provider.name()).await;
            let is_settled = |chat: &str, outcome| !accepted.contains_key(chat) || !open(outcome);
            let left = rows.iter().filter(|(to, row)| !is_settled(&to.chat, row.outcome)).count();
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        let rows = books::rows(&stage, provider.name()).await;
        let hung = rows.iter().filter(|(to, _)| hanging.contains(&to.chat));
        let expected = if provider.echoes_tokens() { Outcome::Delivered } else { Outcome::Unknown };
        assert!(hung.into_iter().all(|(_, row)| row.outcome == expected), "{provider:?}");
        books::check_against(&stage, provider.name(), &accepted).await;
    })
    .await;
}
