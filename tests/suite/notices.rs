//! What receipts and webhooks mean beyond their chat: for the account, for later Broadcasts, for other messages of the same chat. And what
//! is written last of the account.

use broadcast_operator::api::{
    BroadcastSuppression, Condition, StopReason, SuppressionReason, TroubleReason,
};
use broadcast_operator::clock;
use broadcast_operator::domain::ids::BroadcastUid;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::webhooks::{self, Secret};
use hmac::{Hmac, KeyInit, Mac};
use kube::ResourceExt;
use kube::api::ListParams;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::books;
use crate::common::providers::Provider::WhatsApp;
use crate::common::stage::{CHANNEL, SIGNING_SECRET, Stage, broadcast, chat_id, condition, counts};
use crate::common::wait::until;

/// Posts receipts of the HTTP channel.
async fn post(stage: &Stage, body: &Value) {
    let url =
        stage.operator.receipts_url().replace("{namespace}", &stage.namespace).replace("{channel}", CHANNEL);
    let (id, now, body) = ("msg_1", clock::now(), body.to_string());
    let secret = Secret::parse(SIGNING_SECRET).expect("a secret");
    let request = Client::new()
        .post(url)
        .header(webhooks::ID_HEADER, id)
        .header(webhooks::TIMESTAMP_HEADER, now.as_second().to_string())
        .header(webhooks::SIGNATURE_HEADER, webhooks::sign(&[secret], id, now, body.as_bytes()))
        .body(body);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
}

/// Posts a webhook of Meta about one of its numbers.
async fn post_of_meta(stage: &Stage, field: &str, number: &str, mut value: Value) {
    value["metadata"] = json!({"phone_number_id": number});
    let body = json!({"entry": [{"id": "1", "changes": [{"field": field, "value": value}]}]}).to_string();
    let mac = Hmac::<Sha256>::new_from_slice(WhatsApp.signing_secret().as_bytes()).expect("any length");
    let code = mac.chain_update(body.as_bytes()).finalize().into_bytes();
    let code: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = stage.receipts_url_of(WhatsApp);
    let request = Client::new().post(url).header("x-hub-signature-256", format!("sha256={code}")).body(body);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
}

/// A receipt that the first message of the Broadcast of Meta's channel failed.
async fn failed_of_meta(stage: &Stage, code: u32) -> Value {
    // As the gateway knows it: the answer may not be recorded yet.
    let taken = stage.accepted_of(WhatsApp).into_iter().find(|message| &*message.chat == chat_id(0).as_str());
    let id = taken.and_then(|message| message.message_id);
    let id = id.as_deref().unwrap_or("wamid.X");
    json!({"id": id, "status": "failed", "recipient_id": chat_id(0),
        "biz_opaque_callback_data": token(stage, WhatsApp.name(), 0).await,
        "timestamp": clock::now().as_second().to_string(), "errors": [{"code": code, "title": "no"}]})
}

async fn token(stage: &Stage, name: &str, row: usize) -> String {
    let broadcast = BroadcastUid::new(stage.broadcast(name).await.uid().expect("uid"));
    MessageToken { broadcast, page: 0, row }.to_string()
}

/// Who is suppressed: channel, chat and reason, in order.
async fn suppressed(stage: &Stage) -> Vec<(String, String, SuppressionReason)> {
    let list = stage.api::<BroadcastSuppression>().list(&ListParams::default()).await.expect("a list");
    let all = list.items.into_iter().map(|it| (it.spec.channel_ref.name, it.spec.chat, it.spec.reason));
    let mut all: Vec<_> = all.collect();
    all.sort_by(|one, next| (&one.0, &one.1).cmp(&(&next.0, &next.1)));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_an_earlier_message_does_not_turn_the_one_that_was_taken_since() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 1, json!({})));
    stage.complete("sale").await;
    let (token, own) =
        (token(&stage, "sale", 0).await, books::rows(&stage, "sale").await[0].1.message_id.clone());
    let failed =
        |message: &str| json!({"id": token, "messageId": message, "status": "failed", "code": "blocked"});
    post(&stage, &failed("of-an-earlier-try")).await;
    let rows = books::rows(&stage, "sale").await;
    assert_eq!((rows[0].1.code.as_str(), &rows[0].1.message_id), ("blocked", &own));
    assert_eq!(counts(&stage.broadcast("sale").await).failed, 0);
    post(&stage, &failed(&own)).await;
    stage.wait("sale", "its own failure counts", |broadcast| counts(broadcast).failed == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_counts_whatever_became_of_its_message_and_when_its_broadcast_is_gone() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 2, json!({})));
    stage.complete("sale").await;
    let (first, second) = (token(&stage, "sale", 0).await, token(&stage, "sale", 1).await);
    post(&stage, &json!({"id": first, "status": "delivered", "optOut": true})).await;
    let wish = |chat| (CHANNEL.to_owned(), chat_id(chat), SuppressionReason::OptedOut);
    assert_eq!(suppressed(&stage).await, [wish(0)]);
    stage.kubectl(&["delete", "bc", "sale"]);
    stage.gone("sale").await;
    post(&stage, &json!({"id": second, "to": chat_id(1), "status": "failed", "optOut": true})).await;
    assert_eq!(suppressed(&stage).await, [wish(0), wish(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_in_receipts_follow_the_rules_of_the_channel() {
    let stage = Stage::bare().await;
    let rules = json!([
        {"codes": ["gone"], "action": "Suppress"},
        {"codes": ["template"], "action": "StopBroadcast"},
        {"codes": ["account"], "action": "StopChannel"},
    ]);
    stage.apply(&stage.channel(
        CHANNEL,
        json!({}),
        json!({"errorPolicy": rules, "limits": {"messagesPerSecond": 1}}),
    ));
    stage.apply(&broadcast("sale", 50, json!({})));
    stage.accepted("sale", 3).await;
    let failed = async |row: usize, code: &str| {
        let token = token(&stage, "sale", row).await;
        post(&stage, &json!({"id": token, "status": "failed", "code": code})).await;
    };
    failed(0, "gone").await;
    let by_rule = (CHANNEL.to_owned(), chat_id(0), SuppressionReason::ErrorPolicy);
    assert_eq!(suppressed(&stage).await, [by_rule]);
    failed(1, "template").await;
    let stopped = stage.wait_state("sale", "StoppedByErrorPolicy").await;
    assert_eq!(
        stopped.status.and_then(|status| status.stop).map(|stop| stop.code).as_deref(),
        Some("template")
    );
    // A person lets it go on, and receipts of messages that were sent before come: the same one, and that of another.
    stage.pause("sale", true).await;
    stage.pause("sale", false).await;
    failed(1, "template").await;
    failed(2, "template").await;
    let sent = stage.accepted_now("sale");
    stage.accepted("sale", sent + 3).await;
    assert_eq!(
        stage
            .broadcast("sale")
            .await
            .status
            .and_then(|status| status.stop.filter(|stop| stop.observed_generation > 1)),
        None
    );
    // That of a message that was sent since stops it again.
    failed(sent + 2, "template").await;
    stage.wait_state("sale", "StoppedByErrorPolicy").await;
    stage.pause("sale", true).await;
    stage.pause("sale", false).await;
    stage.wait_state("sale", "Sending").await;
    failed(3, "account").await;
    // Its own stop, which had the same name, may still be shown.
    until("sale says that the channel has stopped", async || {
        let sale = stage.broadcast("sale").await;
        match condition(&sale, "Stalled") {
            Some(stalled) if stalled.message.contains("account") => Ok(()),
            other => Err(other.map(|stalled| stalled.message.clone())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restriction_that_only_receipts_tell_of_stops_the_channel_until_it_is_told_to_try_again() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[WhatsApp], &json!({"limits": {"messagesPerSecond": 2}}));
    stage.apply_broadcasts(&[WhatsApp], 30, &json!({}));
    stage.accepted_by(WhatsApp, 2).await;
    let receipt = failed_of_meta(&stage, 131_031).await;
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    let channel = super::providers::channel_state(&stage, WhatsApp, "AccountRestricted").await;
    let reported =
        channel.status.clone().and_then(|status| status.reported).expect("the next sender needs it");
    assert_eq!(reported.code, "131031");
    let sent = stage.accepted_of(WhatsApp).len();
    let stalled = channel.status.map(|status| status.conditions).unwrap_or_default();
    let stalled = Condition::find(&stalled, "Stalled").map(|stalled| stalled.message.clone());
    let message = stalled.expect("Stalled");
    assert!(message.contains("are Failed") && !message.contains("no chat fails"), "{message}");
    let patch = |paused: bool| json!({"spec": {"paused": paused}}).to_string();
    for (paused, reason) in [(true, "Paused"), (false, "AccountRestricted")] {
        stage.kubectl(&["patch", "bcc", WhatsApp.name(), "--type=merge", "-p", &patch(paused)]);
        super::providers::channel_state(&stage, WhatsApp, reason).await;
    }
    assert_eq!(stage.accepted_of(WhatsApp).len(), sent, "the brake ends nothing");
    stage.try_again(WhatsApp.name(), "1");
    // The same receipt again is no news.
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    stage.accepted_by(WhatsApp, sent + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_only_receipts_say_is_paused_stops_its_broadcast_and_no_other() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[WhatsApp], &json!({"limits": {"messagesPerSecond": 2}}));
    stage.apply_broadcasts(&[WhatsApp], 8, &json!({}));
    stage.accepted_by(WhatsApp, 2).await;
    let receipt = failed_of_meta(&stage, 132_015).await;
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    let stopped = stage.wait_state(WhatsApp.name(), "TemplateUnavailable").await;
    let stop = stopped.status.and_then(|status| status.stop).expect("a stop");
    assert_eq!((stop.reason, stop.code.as_str()), (StopReason::TemplateUnavailable, "132015"));
    super::providers::channel_state(&stage, WhatsApp, "Ready").await;
    super::providers::stops::go_on(&stage, WhatsApp.name()).await;
    // The same receipt again is no news.
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    let done = stage.complete(WhatsApp.name()).await;
    assert_eq!((counts(&done).sent, counts(&done).failed), (7, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_an_answer_told_already_does_not_end_a_chat_that_is_to_be_tried_again() {
    let stage = Stage::of_providers().await;
    let refuse = json!({"refuse": {"code": "131056", "message": "Pair rate limit hit"}});
    let when = json!({"account": WhatsApp.account(), "chats": [chat_id(0)], "first": 1});
    stage.set_faults(json!([{"when": when, "do": refuse}]));
    stage.apply_channels(&[WhatsApp], &json!({}));
    stage.apply_broadcasts(&[WhatsApp], 3, &json!({}));
    let tried = || async {
        let rows = books::rows(&stage, WhatsApp.name()).await;
        rows.first().map_or((Outcome::Pending, 0), |(_, row)| (row.outcome, row.attempts))
    };
    until("the first try is refused", async || match tried().await {
        (Outcome::Pending, 1) => Ok(()),
        other => Err(other),
    })
    .await;
    let receipt = failed_of_meta(&stage, 131_056).await;
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    assert_eq!(tried().await, (Outcome::Pending, 1));
    let done = stage.complete(WhatsApp.name()).await;
    assert_eq!((counts(&done).sent, counts(&done).failed), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_wish_of_a_person_counts_and_for_the_channel_of_its_number() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[WhatsApp], &json!({}));
    let mut other = stage.provider_channel(WhatsApp, json!({"whatsApp": {"phoneNumberId": "4242"}}));
    other["metadata"]["name"] = json!("other");
    stage.apply(&other);
    super::providers::channel_state(&stage, WhatsApp, "Ready").await;
    let wish = async |number: &str, word: &str, ago: i64| {
        let time = (clock::now().as_second() - ago).to_string();
        let wish =
            json!({"wa_id": chat_id(0), "category": "marketing_messages", "value": word, "timestamp": time});
        post_of_meta(&stage, "user_preferences", number, json!({"user_preferences": [wish]})).await;
    };
    let of = |channel: &str| (channel.to_owned(), chat_id(0), SuppressionReason::OptedOut);
    until("both channels are seen", async || {
        wish("4242", "stop", 100).await;
        match suppressed(&stage).await {
            all if all == [of("other")] => Ok(()),
            all => Err(all),
        }
    })
    .await;
    wish(WhatsApp.account(), "stop", 100).await;
    wish("no-number-of-ours", "stop", 100).await;
    assert_eq!(suppressed(&stage).await, [of("other"), of(WhatsApp.name())]);
    wish("4242", "resume", 200).await;
    assert_eq!(suppressed(&stage).await.len(), 2, "an earlier wish that comes late");
    wish("4242", "stop", 50).await;
    wish("4242", "resume", 70).await;
    assert_eq!(suppressed(&stage).await.len(), 2, "it was said anew since");
    wish("4242", "resume", 10).await;
    assert_eq!(suppressed(&stage).await, [of(WhatsApp.name())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_taken_out_of_a_status_is_stored_again() {
    let stage = Stage::bare().await;
    let rules = json!([{"codes": ["template"], "action": "StopBroadcast"}]);
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"errorPolicy": rules})));
    let refuse = json!({"refuse": {"status": 422, "code": "template", "message": "no", "retryable": false}});
    stage.set_faults(json!([{"do": refuse}]));
    stage.apply(&broadcast("sale", 3, json!({})));
    stage.wait_state("sale", "StoppedByErrorPolicy").await;
    stage.set_faults(json!([]));
    let without = json!({"status": {"stop": null}}).to_string();
    stage.kubectl(&["patch", "bc", "sale", "--subresource=status", "--type=merge", "-p", &without]);
    let again = stage.wait("sale", "its stop is there again", |broadcast| {
        broadcast.status.as_ref().is_some_and(|status| status.stop.is_some())
    });
    again.await;
    assert_eq!(stage.accepted_now("sale"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_count_of_messages_is_written_when_a_process_is_shut_down() {
    let mut stage = Stage::new().await;
    for (name, chats) in [("sale", 40), ("news", 7)] {
        stage.apply(&broadcast(name, chats, json!({})));
        stage.complete(name).await;
    }
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 0);
    let status = stage.channel_now(CHANNEL).await.status.expect("a status");
    assert_eq!(status.sent_last24_hours, Some(47));
    assert_eq!(status.sent_by_hour.iter().map(|hour| hour.sent).sum::<i32>(), 47);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_says_while_a_process_shuts_down_is_there_for_the_next_one() {
    let mut stage = Stage::new().await;
    // The first answer asks to wait, and comes when nothing more is started: no status is written then but the last.
    let wait = json!({"retryAfterSeconds": 10_800});
    stage.set_faults(json!([{"do": {"latencyMs": 1500, "tooManyRequests": wait}}]));
    stage.apply(&broadcast("sale", 1, json!({})));
    until("the request is there", async || match stage.requests_now("sale") {
        0 => Err("none"),
        _ => Ok(()),
    })
    .await;
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 0);
    let status = stage.channel_now(CHANNEL).await.status.expect("a status");
    let until = status.throttled_until.expect("it is to wait").0;
    assert!(until.duration_since(clock::now()).as_secs() > 10_000, "{until}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_that_only_receipts_tell_of_slows_the_channel_down_and_it_goes_on() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[WhatsApp], &json!({"limits": {"messagesPerSecond": 5}}));
    stage.apply_broadcasts(&[WhatsApp], 20, &json!({}));
    stage.accepted_by(WhatsApp, 2).await;
    let receipt = failed_of_meta(&stage, 130_429).await;
    post_of_meta(&stage, "messages", WhatsApp.account(), json!({"statuses": [receipt]})).await;
    let channel = super::providers::channel_state(&stage, WhatsApp, "Throttled").await;
    let reported = channel.status.and_then(|status| status.reported).expect("it says why");
    assert_eq!((reported.reason, reported.code.as_str()), (TroubleReason::RateLimited, "130429"));
    stage.complete(WhatsApp.name()).await;
    assert_eq!(stage.accepted_of(WhatsApp).len(), 20);
}
