//! Chats that opted out of a channel are not sent to by later Broadcasts of it.

use broadcast_operator::api::BroadcastSuppression;
use broadcast_operator::domain::chat::ChatRules;
use broadcast_operator::domain::ids::ObjectKey;
use broadcast_operator::suppressions;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::common::books;
use crate::common::providers::Provider::{self, Telegram, Twilio, TwilioWhatsApp, WhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id, condition, counts, restart};

/// A suppression as a person writes it.
fn suppression(name: &str, channel: &str, chat: &str) -> Value {
    json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastSuppression", "metadata": {"name": name},
        "spec": {"channelRef": {"name": channel}, "chat": chat},
    })
}

/// A chat of the test audiences as an address book has it.
fn as_people_write_it(chat: usize) -> String {
    let digits = chat_id(chat);
    format!("+{} ({}) {}-{}", &digits[..1], &digits[1..4], &digits[4..7], &digits[7..])
}

/// What a Broadcast shows of its chats: the outcome, and the code of those that have one.
async fn shown(stage: &Stage, name: &str) -> Vec<String> {
    let outcomes = stage.broadcast(name).await.status.expect("a status").outcomes;
    let text = outcomes.iter().map(|row| match &row.error {
        Some(error) => format!("{:?} {} {}", row.outcome, error.code, error.message),
        None => format!("{:?}", row.outcome),
    });
    text.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_chat_is_skipped_until_its_suppression_is_deleted() {
    let stage = Stage::new().await;
    stage.apply(&suppression("ada", CHANNEL, &as_people_write_it(1)));
    stage.apply(&suppression("elsewhere", "another-channel", &chat_id(0)));
    stage.apply(&broadcast("sale", 3, json!({})));
    let sale = stage.complete("sale").await;
    assert_eq!((counts(&sale).sent, counts(&sale).skipped, stage.requests_now("sale")), (2, 1, 2));
    assert_eq!(shown(&stage, "sale").await, ["Sent", "Skipped Suppressed Manual", "Sent"]);
    stage.kubectl(&["delete", "bcs", "ada"]);
    stage.apply(&broadcast("news", 3, json!({})));
    stage.complete("news").await;
    assert_eq!(stage.accepted_now("news"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppression_is_read_as_the_channel_reads_chats_and_what_cannot_be_read_is_told() {
    let stage = Stage::of_providers().await;
    let channel = WhatsApp.name();
    stage.apply(&stage.provider_channel(WhatsApp, json!({"defaultRegion": "US"})));
    let chat = as_people_write_it(1);
    stage.apply(&suppression("national", channel, chat.strip_prefix("+1 ").expect("a number of the US")));
    stage.apply(&suppression("unread", channel, "12"));
    stage.apply(&broadcast("sale", 3, json!({"channelRef": {"name": channel}})));
    let sale = stage.complete("sale").await;
    assert_eq!((counts(&sale).sent, counts(&sale).skipped), (2, 1));
    assert_eq!(shown(&stage, "sale").await, ["Sent", "Skipped Suppressed Manual", "Sent"]);
    let told = stage.warnings("ChatNotRead").await;
    let [(suppression, note)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(suppression, "unread");
    assert!(note.contains("InvalidPhoneNumber: too short"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_to_suppressed_chats_alone_is_complete_and_sends_nothing() {
    let stage = Stage::new().await;
    for chat in 0..2 {
        stage.apply(&suppression(&format!("chat-{chat}"), CHANNEL, &chat_id(chat)));
    }
    stage.apply(&broadcast("sale", 2, json!({})));
    let sale = stage.complete("sale").await;
    assert_eq!((counts(&sale).skipped, stage.requests_now("sale")), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_send_to_who_opted_out_since() {
    let stage = Stage::new().await;
    let refuse =
        json!({"refuse": {"status": 422, "code": "no_such_number", "message": "no", "retryable": false}});
    stage.set_faults(json!([{"when": {"chats": [chat_id(1), chat_id(2)]}, "do": refuse}]));
    stage.apply(&broadcast("sale", 3, json!({})));
    assert_eq!(counts(&stage.complete("sale").await).failed, 2);
    stage.set_faults(json!([]));
    stage.apply(&suppression("ada", CHANNEL, &chat_id(1)));
    stage.apply(&restart("again", "sale", json!({})));
    let again = stage.complete("again").await;
    assert_eq!((counts(&again).sent, counts(&again).skipped, stage.requests_now("again")), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_skipped_and_forgotten_unless_a_person_wrote_it() {
    use broadcast_operator::api::SuppressionReason::{Manual, OptedOut};
    let stage = Stage::new().await;
    let channel = ObjectKey::new(&stage.namespace, CHANNEL);
    let at = broadcast_operator::clock::now();
    let record = async |chat: usize, reason| {
        let recorded =
            suppressions::record(&stage.client, &channel, &as_people_write_it(chat), reason, "131050", at)
                .await;
        recorded.expect("should be recorded");
    };
    record(0, OptedOut).await;
    record(0, OptedOut).await;
    record(1, Manual).await;
    record(2, OptedOut).await;
    assert_eq!(
        stage.api::<BroadcastSuppression>().list(&ListParams::default()).await.expect("a list").items.len(),
        3
    );
    let later = at + jiff::SignedDuration::from_secs(1);
    for chat in [0, 0, 1] {
        let chat = chat_id(chat);
        suppressions::forget(&stage.client, &channel, &chat, later).await.expect("should be forgotten");
    }
    let stored = suppressions::of_channel(&stage.client, &channel, ChatRules::default()).await;
    let suppressed = stored.expect("a list").suppressed;
    assert_eq!([0, 1, 2].map(|chat| suppressed.contains(&chat_id(chat))), [false, true, true]);
    stage.apply(&broadcast("sale", 3, json!({})));
    stage.complete("sale").await;
    let skipped = ["Skipped Suppressed Manual (131050)", "Skipped Suppressed OptedOut (131050)"];
    assert_eq!(shown(&stage, "sale").await, ["Sent", skipped[0], skipped[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opts_out_while_it_is_sent_is_no_change_of_the_audience_and_is_not_sent_to_again() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 200}})));
    stage.apply(&suppression("before", CHANNEL, &chat_id(1)));
    stage.apply(&broadcast("sale", 600, json!({"onUnknown": "Resend"})));
    stage.accepted("sale", 20).await;
    stage.pause("sale", true).await;
    let stopped = stage.wait_state("sale", "Stopped").await;
    assert_eq!(counts(&stopped).skipped, 1);
    // The first page has both, and is lost. Of the last page one chat opted out.
    stage.apply(&suppression("since", CHANNEL, &chat_id(2)));
    stage.apply(&suppression("later", CHANNEL, &chat_id(599)));
    stage.kubectl(&["delete", "bcb", "sale-00000"]);
    // It was sealed long enough ago that the page cannot be on its way.
    let long_ago = json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}).to_string();
    stage.kubectl(&["patch", "bc", "sale", "--subresource=status", "--type=merge", "-p", &long_ago]);
    let held = stage.wait_state("sale", "BatchesMissing").await;
    stage.pause("sale", false).await;
    stage.apply(&broadcast("other", 5, json!({})));
    assert_eq!(counts(&stage.complete("other").await).skipped, 2);
    let before = books::accepted(&stage, "sale");
    let message = condition(&held, "Stalled").expect("Stalled").message;
    let (_, command) = message.split_once("kubectl ").expect("a command");
    stage.plane.kubectl(&command.split_whitespace().collect::<Vec<_>>(), "");
    let done = stage.complete("sale").await;
    assert_eq!((counts(&done).skipped, counts(&done).sent), (2, 598));
    let after = books::accepted(&stage, "sale");
    assert_eq!(after.get(&chat_id(1)), None);
    assert_eq!(after.get(&chat_id(2)), before.get(&chat_id(2)), "not again");
    assert_eq!(after.get(&chat_id(599)), Some(&1), "it opted out after it was planned");
}

/// How a provider says that a person wants no more messages, with its code, and the reason that is written down.
fn opted_out(provider: Provider) -> (Value, &'static str, &'static str) {
    match provider {
        WhatsApp => {
            (json!({"code": "131050", "message": "User has stopped marketing"}), "131050", "OptedOut")
        }
        Telegram => {
            (json!({"code": "403", "message": "Forbidden: bot was blocked by the user"}), "403", "Blocked")
        }
        _ => (json!({"code": "21610", "message": "Attempt to send to unsubscribed"}), "21610", "OptedOut"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_in_an_answer_is_written_down_whatever_a_rule_says_and_again_after_it_was_lifted() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp];
    stage.set_faults(json!(providers.map(|provider| {
        let when = json!({"account": provider.account(), "chats": [chat_id(1)]});
        json!({"when": when, "do": {"refuse": opted_out(provider).0}})
    })));
    stage.apply_all(providers.map(|provider| {
        let rule = json!({"codes": [opted_out(provider).1], "action": "Retry"});
        stage.provider_channel(provider, json!({"errorPolicy": [rule]}))
    }));
    stage.apply_broadcasts(&providers, 3, &json!({}));
    with_each(&providers, async |provider| {
        let (name, (_, code, reason)) = (provider.name(), opted_out(provider));
        let send = async |to: &str| {
            stage.apply(&broadcast(to, 3, json!({"channelRef": {"name": name}})));
            counts(&stage.complete(to).await)
        };
        let first = counts(&stage.complete(name).await);
        assert_eq!((first.sent, first.failed), (2, 1), "{provider:?}");
        assert_eq!(stage.requests_of(provider).len(), 3, "{provider:?}: it is not tried again");
        let stored = suppressions_of(&stage, name).await;
        let [suppression] = &stored[..] else { panic!("{provider:?}: {stored:?}") };
        let spec = &suppression.spec;
        assert_eq!((&*spec.chat, spec.reason.as_str()), (&*chat_id(1), reason));
        assert_eq!(spec.code.as_deref(), Some(code));
        let later = send(&format!("{name}-later")).await;
        assert_eq!((later.sent, later.skipped), (2, 1), "{provider:?}");
        stage.kubectl(&["delete", "bcs", suppression.metadata.name.as_deref().expect("a name")]);
        let lifted = send(&format!("{name}-lifted")).await;
        assert_eq!((lifted.sent, lifted.failed), (2, 1), "{provider:?}: it is asked once more");
        assert_eq!(suppressions_of(&stage, name).await.len(), 1, "{provider:?}");
        let last = send(&format!("{name}-last")).await;
        assert_eq!((last.sent, last.skipped), (2, 1), "{provider:?}");
    })
    .await;
}

/// What is written down of a channel.
async fn suppressions_of(stage: &Stage, channel: &str) -> Vec<BroadcastSuppression> {
    let params = ListParams::default().fields(&format!("spec.channelRef.name={channel}"));
    stage.api::<BroadcastSuppression>().list(&params).await.expect("a list").items
}
