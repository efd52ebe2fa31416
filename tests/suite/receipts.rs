//! Receipts: in any order, doubled, early or late, signed or refused.

use broadcast_operator::clock;
use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::domain::token::MessageToken;
use broadcast_operator::simulator::ReceiptSettings;
use broadcast_operator::webhooks::{self, Secret};
use kube::ResourceExt;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::books;
use crate::common::stage::{CHANNEL, SIGNING_SECRET, Stage, broadcast, counts};

/// Posts receipts, with a signature of this secret or none.
async fn post(stage: &Stage, channel: &str, secret: Option<&str>, body: &Value) -> StatusCode {
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
    request.send().await.expect("an answer").status()
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
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 100).await;
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
    let large = json!(["x".repeat(2 * 1024 * 1024)]);
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &large).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Another channel's gateway settles nothing here, and an unknown id is counted and done with.
    assert_eq!(post(&stage, "open", None, &body).await, StatusCode::NO_CONTENT);
    assert_eq!(stage.operator.metric("broadcast_receipts_total", "UnknownId").await, 1);
    let rows = books::rows(&stage, "sale").await;
    assert_eq!(rows[0].1.outcome, Outcome::Sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_rotation_both_secrets_are_good_and_afterwards_only_the_new_one() {
    let stage = Stage::new().await;
    let new = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=";
    let body = json!([]);
    let secret = |signing: String| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway"}, "stringData": {"signing": signing}});
    assert_eq!(post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await, StatusCode::NO_CONTENT);
    stage.apply(&secret(format!("{new} {SIGNING_SECRET}")));
    for signing in [new, SIGNING_SECRET] {
        crate::common::wait::until("the secret is good", async || {
            match post(&stage, CHANNEL, Some(signing), &body).await {
                StatusCode::NO_CONTENT => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    stage.apply(&secret(new.into()));
    crate::common::wait::until("the old secret is refused", async || {
        match post(&stage, CHANNEL, Some(SIGNING_SECRET), &body).await {
            StatusCode::UNAUTHORIZED => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
