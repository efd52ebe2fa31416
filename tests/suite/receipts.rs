//! Receipts: in any order, doubled, early or late, signed or refused.

use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::simulator::ReceiptSettings;
use broadcast_operator::webhooks::{self, Secret};
use kube::ResourceExt;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::common::books;
use crate::common::stage::{CHANNEL, SIGNING_SECRET, Stage, broadcast, chat_id, counts};
use crate::common::wait::until;

/// Posts receipts, with a signature of this secret or none. Out: the status.
async fn post(stage: &Stage, channel: &str, secret: Option<&str>, body: &Value) -> StatusCode {
    answer(stage, channel, secret, body).await.status()
}

/// The same. Out: the whole answer.
async fn answer(stage: &Stage, channel: &str, secret: Option<&str>, body: &Value) -> Response {
    let url =
        stage.operator.receipts_url().replace("{namespace}", &stage.namespace).replace("{channel}", channel);
    let body = body.to_string();
    let mut request = reqwest::Client::new().post(url).body(body.clone());
    if let Some(secret) = secret {
        let (id, now) = ("msg_1", clock::now());
        let secret = Secret::parse(secret).expect("a secret");
        request = request
            .header(webhooks::ID_HEADER, id)
            .header(webhooks::TIMESTAMP_HEADER, now.as_second().to_string())
            .header(webhooks::SIGNATURE_HEADER, webhooks::sign(&[secret], id, now, body.as_bytes()));
    }
    request.send().await.expect("an answer")
}

async fn token(stage: &Stage, name: &str, row: usize) -> String {
    let uid = stage.broadcast(name).await.uid().expect("uid");
    let broadcast = broadcast_operator::domain::ids::BroadcastUid::new(uid);
    MessageToken { broadcast, page: 0, row }.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_and_read_percentages_follow_the_receipts() {
    let stage = Stage::new().await;
    let settings = ReceiptSettings { delivered_percent: 80, read_percent: 50, ..ReceiptSettings::default() };
    stage.send_receipts(&settings);
    stage.apply(&broadcast("sale", 100, json!({})));
    stage.complete("sale").await;
    let summary = stage.gateway.ledger().wait_until(|summary| summary.receipts.pending == 0).await;
    assert!(summary.receipts.delivered > 100, "{summary:?}");
    let rows = books::rows(&stage, "sale").await;
    let number = |outcome| rows.iter().filter(|(_, row)| row.outcome == outcome).count();
    let (delivered, read) = (number(Outcome::Delivered) + number(Outcome::Read), number(Outcome::Read));
    stage
        .wait("sale", "the percentages are right", |broadcast| {
            let status = broadcast.status.as_ref().expect("status");
            let percent = |part: usize| i32::try_from(part).ok();
            status.delivered_percent == percent(delivered) && status.read_percent == percent(read)
        })
        .await;
    books::check_complete(&stage, &stage.broadcast("sale").await, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_doubled_reversed_and_before_the_answer_of_the_send_change_nothing() {
    let stage = Stage::new().await;
    stage.send_receipts(&ReceiptSettings {
        read_percent: 100,
        times: 2,
        reverse: true,
        before_answer: true,
        ..ReceiptSettings::default()
    });
    stage.apply(&broadcast("sale", 60, json!({})));
    let done = stage.wait("sale", "all are read", |broadcast| counts(broadcast).read == 60).await;
    assert_eq!(books::sum(&done), 60);
    books::check(&stage, "sale").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_name_the_gateway_s_own_message_id_find_their_chat() {
    let mut stage = Stage::new().await;
    stage.send_receipts(&ReceiptSettings {
        use_message_id: true,
        read_percent: 100,
        ..ReceiptSettings::default()
    });
    stage.apply(&broadcast("sale", 40, json!({})));
    stage.wait("sale", "all are read", |broadcast| counts(broadcast).read == 40).await;

    // Also when the operator that sent the messages is gone.
    stage.gateway.hold_receipts();
    stage.apply(&broadcast("second", 40, json!({})));
    stage.complete("second").await;
    stage.operator.kill_and_restart().await;
    stage.gateway.release_receipts();
    stage.wait("second", "all are read", |broadcast| counts(broadcast).read == 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_settles_an_unknown_chat_and_nothing_downgrades_it() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"statusAfterAccept": 502}}]));
    stage.apply(&broadcast("sale", 1, json!({})));
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).unknown, 1);
    let id = token(&stage, "sale", 0).await;
    for status in ["read", "delivered", "failed", "sent"] {
        let body = json!([{"id": id, "status": status}]);
        assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await, StatusCode::NO_CONTENT);
    }
    stage
        .wait("sale", "it is read", |broadcast| counts(broadcast).read == 1 && counts(broadcast).unknown == 0)
        .await;
    let rows = books::rows(&stage, "sale").await;
    assert_eq!(rows[0].1.outcome, Outcome::Read);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_refused_unless_they_are_signed_by_the_channel_s_gateway() {
    let stage = Stage::new().await;
    stage.apply(&stage.channel("closed", json!({"signingSecretRef": null}), json!({})));
    stage.apply(&stage.channel("open", json!({"signingSecretRef": null, "allowUnsigned": true}), json!({})));
    stage.apply(&broadcast("sale", 1, json!({})));
    stage.complete("sale").await;
    let body = json!([{"id": token(&stage, "sale", 0).await, "status": "read"}]);
    let foreign = Some("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=");
    assert_eq!(post(&stage, CHANNEL, None, &body).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&stage, CHANNEL, foreign, &body).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&stage, "closed", None, &body).await, StatusCode::FORBIDDEN);
    assert_eq!(post(&stage, "nowhere", None, &body).await, StatusCode::NOT_FOUND);
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &json!("x")).await, StatusCode::BAD_REQUEST);
    let large = json!(["x".repeat(5 * 1024 * 1024)]);
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &large).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Another channel's gateway settles nothing here, and an unknown id is counted and done with.
    assert_eq!(post(&stage, "open", None, &body).await, StatusCode::NO_CONTENT);
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "UnknownId").await, 1);
    let rows = books::rows(&stage, "sale").await;
    assert_eq!(rows[0].1.outcome, Outcome::Sent);
}

/// Posts no receipts until they are answered so: the operator may not have heard of a channel or a Secret yet.
async fn until_answered(stage: &Stage, channel: &str, signing: &str, status: StatusCode) {
    until(&format!("{channel} answers {status}"), async || {
        match post(stage, channel, Some(signing), &json!([])).await {
            answer if answer == status => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_rotation_both_secrets_are_good_and_afterwards_only_the_new_one() {
    let stage = Stage::new().await;
    let new = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=";
    let secret = |signing: String| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "stringData": {"signing": signing}});
    until_answered(&stage, CHANNEL, SIGNING_SECRET, StatusCode::NO_CONTENT).await;
    stage.apply(&secret(format!("{new} {SIGNING_SECRET}")));
    for signing in [new, SIGNING_SECRET] {
        until_answered(&stage, CHANNEL, signing, StatusCode::NO_CONTENT).await;
    }
    stage.apply(&secret(new.into()));
    until_answered(&stage, CHANNEL, SIGNING_SECRET, StatusCode::UNAUTHORIZED).await;
}

/// A stage on which a message is in flight, and stays so.
async fn with_a_send_in_flight() -> Stage {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 60}), json!({})));
    stage.set_faults(json!([{"when": {"chats": [chat_id(0)]}, "do": {"hangAfterAccept": {}}}]));
    stage.apply(&broadcast("sale", 2, json!({})));
    stage.accepted("sale", 2).await;
    stage
}

async fn is_in_flight(stage: &Stage) -> bool {
    let pages = stage.pages("sale").await;
    pages.iter().any(|page| page.status.as_ref().is_some_and(|status| status.claim.is_some()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_no_broadcast_of_the_channel_holds_nothing_up_while_messages_are_sent() {
    let stage = with_a_send_in_flight().await;
    let (own, foreign) =
        (token(&stage, "sale", 1).await, "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10.0.1".to_owned());
    let beyond = token(&stage, "sale", 249).await;
    let body = Value::from_iter([own, foreign, beyond].map(|id| json!({"id": id, "status": "delivered"})));
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await, StatusCode::NO_CONTENT);
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "UnknownId").await, 2);
    assert!(is_in_flight(&stage).await, "a message is in flight all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_message_id_is_refused_only_while_the_send_that_it_may_be_of_is_in_flight() {
    let stage = with_a_send_in_flight().await;
    let own = token(&stage, "sale", 1).await;
    let body = json!([{"id": own, "status": "read"}, {"id": "msg-of-another-system", "status": "read"}]);
    let refused = answer(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    // The others of the batch are stored all the same.
    stage.wait("sale", "one is read", |broadcast| counts(broadcast).read == 1).await;
    // As if the sends of that time had come to their end by now.
    stage.apply(&stage.channel(CHANNEL, json!({"timeoutSeconds": 1}), json!({})));
    until("the id counts as unknown", async || {
        match post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await {
            StatusCode::NO_CONTENT => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "UnknownId").await, 1);
    assert!(is_in_flight(&stage).await, "a message is in flight all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_send_no_body_do_not_keep_others_out() {
    let stage = Stage::new().await;
    until_answered(&stage, CHANNEL, SIGNING_SECRET, StatusCode::NO_CONTENT).await;
    let url = stage.operator.receipts_url();
    let address = url.trim_start_matches("http://").split('/').next().expect("an address");
    let path = format!("/v1/namespaces/{}/channels/{CHANNEL}/receipts", stage.namespace);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 9\r\nwebhook-id: 1\r\nwebhook-timestamp: 1\r\n\
         webhook-signature: v1,AAAA\r\n\r\n["
    );
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut connection = tokio::net::TcpStream::connect(address).await.expect("a connection");
        connection.write_all(head.as_bytes()).await.expect("should write");
        slow.push(connection);
    }
    for _ in 0..20 {
        let status = post(&stage, CHANNEL, Some(SIGNING_SECRET), &json!([])).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forger_learns_nothing_of_a_missing_secret_and_causes_few_looks_for_it() {
    let stage = Stage::new().await;
    let missing = json!({"signingSecretRef": {"name": "nowhere", "key": "signing"}});
    stage.apply(&stage.channel("broken", missing, json!({})));
    until_answered(&stage, "broken", SIGNING_SECRET, StatusCode::SERVICE_UNAVAILABLE).await;
    let looks = async || stage.operator.metric("rest_client_requests_total", "404").await;
    let before = looks().await;
    let started = clock::monotonic();
    for _ in 0..50 {
        let refused = answer(&stage, "broken", Some(SIGNING_SECRET), &json!([])).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let text = refused.text().await.expect("text");
        assert!(text.contains("cannot be used") && !text.contains("nowhere"), "{text}");
    }
    let most = started.elapsed().as_secs() + 1;
    let looked = looks().await - before;
    // The sender looks for it too, every ten seconds.
    assert!(looked <= most + most.div_ceil(10), "{looked} looks in {most} s");
    assert!(stage.operator.log().contains("nowhere"), "the log says which Secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_a_year_before_zero_does_not_keep_its_page_from_being_stored() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 1, json!({})));
    stage.complete("sale").await;
    let id = token(&stage, "sale", 0).await;
    let body = json!([{"id": id, "status": "read", "time": "-000044-03-15T12:00:00Z"}]);
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await, StatusCode::NO_CONTENT);
    let done = stage.wait("sale", "it is read", |broadcast| counts(broadcast).read == 1).await;
    let outcomes = done.status.expect("status").outcomes;
    let time = outcomes[0].time.as_ref().expect("time");
    assert_eq!(time.0.to_string(), "2000-01-01T00:00:00Z");
}
