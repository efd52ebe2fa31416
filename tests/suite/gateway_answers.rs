//! What each answer of a gateway does to a chat, and to the channel.

use broadcast_operator::api::{Broadcast, BroadcastChannel, Condition};
use broadcast_operator::domain::outcome::Outcome;
use serde_json::{Value, json};

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, TOKEN, broadcast, chat_id, condition, counts};
use crate::common::wait::until;

async fn outcome_of(stage: &Stage, name: &str, chat: &str) -> (Outcome, String, u32) {
    let rows = books::rows(stage, name).await;
    let (_, row) = rows.iter().find(|(recipient, _)| recipient.chat == chat).expect("a row");
    (row.outcome, row.code.clone(), row.attempts)
}

fn refuse(code: &str, retryable: bool) -> Value {
    json!({"refuse": {"status": 422, "code": code, "message": "no", "retryable": retryable}})
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_chat_fails_alone_with_its_reason() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"when": {"chats": [chat_id(1)]}, "do": refuse("no_such_number", false)}]));
    stage.apply(&broadcast("sale", 10, json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 10).await;
    assert_eq!((counts(&done).sent, counts(&done).failed), (9, 1));
    let failed = done
        .status
        .expect("status")
        .outcomes
        .into_iter()
        .find(|chat| chat.chat == chat_id(1))
        .expect("shown");
    assert_eq!(failed.error.map(|error| error.code).as_deref(), Some("no_such_number"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_surely_not_taken_is_tried_again_up_to_its_limit() {
    let stage = Stage::new().await;
    stage.set_faults(json!([
        {"when": {"chats": [chat_id(0)], "first": 2}, "do": refuse("busy", true)},
        {"when": {"chats": [chat_id(1)]}, "do": refuse("busy", true)},
    ]));
    let retry = json!({"retry": {"maxAttempts": 3, "minBackoffSeconds": 0, "maxBackoffSeconds": 0}});
    stage.apply(&broadcast("sale", 3, retry));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 3).await;
    assert_eq!(outcome_of(&stage, "sale", &chat_id(0)).await, (Outcome::Sent, String::new(), 3));
    assert_eq!(outcome_of(&stage, "sale", &chat_id(1)).await, (Outcome::Failed, "busy".into(), 3));
    assert_eq!(stage.requests_now("sale"), 3 + 3 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_unknown_and_held() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 1}), json!({})));
    let faults = [
        json!({"statusAfterAccept": 502}),
        json!({"statusBeforeAccept": 503}),
        json!({"resetAfterAccept": {}}),
        json!({"resetBeforeAccept": {}}),
        json!({"hang": {}}),
    ];
    let rules: Vec<Value> = faults
        .iter()
        .enumerate()
        .map(|(chat, fault)| json!({"when": {"chats": [chat_id(chat)]}, "do": fault}))
        .collect();
    stage.set_faults(json!(rules));
    stage.apply(&broadcast("sale", 8, json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 8).await;
    assert_eq!((counts(&done).unknown, counts(&done).sent), (5, 3));
    assert_eq!(stage.requests_now("sale"), 8, "nothing is sent again by itself");
    let message = condition(&done, "Complete").expect("Complete").message;
    assert!(message.contains("5 may or may not have it"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_unknown_resend_sends_again_until_there_is_an_answer() {
    let stage = Stage::new().await;
    stage
        .set_faults(json!([{"when": {"chats": [chat_id(0)], "first": 1}, "do": {"statusAfterAccept": 502}}]));
    stage.apply(&broadcast("sale", 3, json!({"onUnknown": "Resend", "retry": {"minBackoffSeconds": 0}})));
    let done = stage.complete("sale").await;
    assert_eq!((counts(&done).sent, counts(&done).unknown), (3, 0));
    assert_eq!(books::accepted(&stage, "sale")[&chat_id(0)], 2, "that is what Resend accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_resend_back_takes_effect_at_once() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 40}})));
    // Another Broadcast that is answered: otherwise the channel would wait.
    stage.apply(&broadcast("answered", 1000, json!({})));
    let sale = format!("{}/sale", stage.namespace);
    stage.set_faults(json!([{"when": {"broadcast": sale}, "do": {"statusAfterAccept": 502}}]));
    let resend = json!({"onUnknown": "Resend", "retry": {"maxAttempts": 20, "minBackoffSeconds": 0, "maxBackoffSeconds": 0}});
    stage.apply(&broadcast("sale", 60, resend));
    // Chats that are Pending get their first message all the same.
    let repeats = || books::accepted(&stage, "sale").into_values().map(|times| times - 1).sum::<usize>();
    until("second messages are sent", async || match repeats() {
        number if number > 10 => Ok(()),
        number => Err(number),
    })
    .await;
    stage.patch("sale", json!({"spec": {"onUnknown": "Hold"}})).await;
    let generation = stage.broadcast("sale").await.metadata.generation.unwrap_or_default();
    let is_seen = |sale: &Broadcast| {
        sale.status.as_ref().is_some_and(|status| status.observed_generation >= generation)
    };
    stage.wait("sale", "the change is seen", is_seen).await;
    let at_change = repeats();
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).unknown, 60);
    // What was in flight; a second of work would be 40.
    assert!(repeats() <= at_change + 10, "{at_change} at the change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_keeps_an_unknown_chat_from_a_second_message() {
    let stage = Stage::new().await;
    stage.send_receipts(&broadcast_operator::simulator::ReceiptSettings::default());
    stage.set_faults(json!([{"do": {"statusAfterAccept": 502}}]));
    let resend = json!({"onUnknown": "Resend", "retry": {"maxAttempts": 3, "minBackoffSeconds": 3, "maxBackoffSeconds": 3}});
    stage.apply(&broadcast("sale", 20, resend));
    let done = stage.complete("sale").await;
    assert_eq!((counts(&done).delivered, counts(&done).unknown), (20, 0));
    assert_eq!(stage.requests_now("sale"), 20, "the receipts came before the second try");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_gateway_gets_the_same_key_again_and_nobody_gets_it_twice() {
    let mut stage = Stage::bare().await;
    let settings = broadcast_operator::simulator::Settings {
        token: Some(TOKEN.into()),
        idempotent: true,
        ..Default::default()
    };
    stage.gateway = broadcast_operator::simulator::Simulator::start(settings).await.expect("starts");
    stage.apply(&stage.channel(CHANNEL, json!({"idempotent": true}), json!({})));
    stage.set_faults(json!([{"when": {"everyNth": 3, "first": 10}, "do": {"resetAfterAccept": {}}}]));
    stage.apply(&broadcast("sale", 30, json!({"retry": {"minBackoffSeconds": 0}})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 30).await;
    assert_eq!(counts(&done).sent, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_pauses_the_channel_and_fails_no_chat() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"when": {"first": 3}, "do": {"tooManyRequests": {"retryAfterSeconds": 5}}}]));
    stage.apply(&broadcast("sale", 200, json!({})));
    stage.wait_state("sale", "Throttled").await;
    let channel = stage.channel_now(CHANNEL).await;
    assert!(channel.status.is_some_and(|status| status.throttled_until.is_some()));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 200).await;
    assert_eq!(counts(&done).sent, 200);
    let rows = books::rows(&stage, "sale").await;
    assert!(rows.iter().all(|(_, row)| row.attempts == 1), "a wait is no attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_wait_is_ended_by_the_annotation() {
    let stage = Stage::new().await;
    let wait = json!({"tooManyRequests": {"retryAfterSeconds": u64::MAX}});
    stage.set_faults(json!([{"when": {"first": 1}, "do": wait}]));
    stage.apply(&broadcast("sale", 20, json!({})));
    stage.wait_state("sale", "Throttled").await;
    stage.try_again(CHANNEL, "1");
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 20).await;
    assert_eq!(counts(&done).sent, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_stop_the_channel_and_the_new_secret_starts_it_again() {
    let stage = Stage::new().await;
    stage.gateway.set_token(Some("another".into()));
    stage.apply(&broadcast("sale", 100, json!({})));
    let stalled = stage.wait_state("sale", "AuthenticationFailed").await;
    assert!(condition(&stalled, "Stalled").is_some());
    assert_eq!(counts(&stalled).failed + counts(&stalled).unknown, 0);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "stringData": {"token": "another"}});
    stage.apply(&secret);
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 100).await;
    assert_eq!(counts(&done).sent, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_gateway_fails_no_chat_and_is_tried_again() {
    let stage = Stage::bare().await;
    let port = crate::common::processes::free_port();
    let url = json!({"url": format!("http://127.0.0.1:{port}/messages/sms")});
    stage.apply(&stage.channel(CHANNEL, url, json!({})));
    stage.apply(&broadcast("sale", 20, json!({})));
    stage.wait_state("sale", "GatewayUnreachable").await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 20).await;
    assert_eq!(counts(&done).sent, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_made_again_under_its_name_sends_to_its_own_gateway() {
    let stage = Stage::bare().await;
    let port = crate::common::processes::free_port();
    let dead = json!({"url": format!("http://127.0.0.1:{port}/messages/sms")});
    stage.apply(&stage.channel(CHANNEL, dead, json!({})));
    stage.apply(&broadcast("sale", 20, json!({})));
    stage.wait_state("sale", "GatewayUnreachable").await;
    stage.kubectl(&["delete", "broadcastchannel", CHANNEL]);
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 20).await;
    assert_eq!(counts(&done).sent, 20);
    until("the new channel has a status of its own", async || {
        let status = stage.channel_now(CHANNEL).await.status.unwrap_or_default();
        match Condition::is_true(&status.conditions, "Ready") {
            true => Ok(()),
            false => Err(format!("{status:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"redirect": {"status": 307}}}]));
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.wait_state("sale", "UnexpectedRedirect").await;
    let summary = stage.gateway.ledger().summary().requests;
    assert_eq!((summary.requests, summary.redirected), (summary.redirected, summary.requests));
    assert_eq!(summary.accepted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_users_may_not_reach_is_refused_with_the_flag_that_allows_it() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(
        CHANNEL,
        json!({"url": "http://169.254.169.254/latest/meta-data"}),
        json!({}),
    ));
    until("the channel is stalled", async || {
        let channel: BroadcastChannel = stage.channel_now(CHANNEL).await;
        let conditions = channel.status.map(|status| status.conditions).unwrap_or_default();
        match Condition::find(&conditions, "Stalled") {
            Some(stalled)
                if stalled.reason == "AddressNotAllowed" && stalled.message.contains("--allow-address") =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_of_one_provider_never_go_out_through_another() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 20}})));
    stage.apply(&broadcast("sale", 60, json!({})));
    stage.accepted("sale", 3).await;
    let telegram = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel", "metadata": {"name": CHANNEL},
        "spec": {"provider": "Telegram", "http": null, "telegram": {
            "tokenSecretRef": {"name": "gateway", "key": "token"}, "baseUrl": stage.gateway.url(),
        }},
    });
    let refused = stage.try_apply(&telegram).expect_err("the provider never changes");
    assert!(refused.contains("create another BroadcastChannel"), "{refused}");
    stage.kubectl(&["delete", "broadcastchannel", CHANNEL]);
    stage.apply(&telegram);
    stage.wait_state("sale", "ProviderChanged").await;
    let requests = stage.gateway.ledger().sends(&broadcast_operator::simulator::SendQuery::default());
    assert!(requests.iter().all(|request| request.format == broadcast_operator::simulator::Format::Http));
    stage.kubectl(&["delete", "broadcastchannel", CHANNEL]);
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({})));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 60).await;
}
