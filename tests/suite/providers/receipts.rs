//! Receipts of each provider: percentages, signatures, and the handshake of Meta.

use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::ReceiptSettings;
use reqwest::{Client, StatusCode};
use serde_json::json;

use crate::common::books;
use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::{VERIFY_TOKEN, with_each};
use crate::common::stage::{Stage, counts};
use crate::common::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn percentages_follow_the_receipts_and_are_absent_where_there_are_none() {
    let stage = Stage::of_providers().await;
    let settings = ReceiptSettings {
        sent_percent: 100,
        delivered_percent: 80,
        read_percent: 50,
        ..ReceiptSettings::default()
    };
    stage.send_receipts_of_all(&settings);
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 100, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        stage.complete(provider.name()).await;
    })
    .await;
    stage.gateway.ledger().wait_until(|summary| summary.receipts.pending == 0).await;
    with_each(&Provider::ALL, async |provider| {
        check_percentages(&stage, provider).await;
        stage.check_complete_of(provider, &stage.broadcast(provider.name()).await, 100).await;
    })
    .await;
}

/// Checks the percentages of the Broadcast of a provider against its rows.
async fn check_percentages(stage: &Stage, provider: Provider) {
    let name = provider.name();
    let rows = books::rows(stage, name).await;
    let number = |wanted: &[Outcome]| rows.iter().filter(|(_, row)| wanted.contains(&row.outcome)).count();
    let percent = |outcomes: &[Outcome]| i32::try_from(100 * number(outcomes) / rows.len()).ok();
    let delivered = percent(&[Outcome::Delivered, Outcome::Read]).filter(|_| provider.has_receipts());
    let read = percent(&[Outcome::Read]).filter(|_| provider.tells_of_reading());
    assert!(delivered.is_none_or(|percent| percent > 0), "{name}: {delivered:?} %");
    assert!(read.is_none_or(|percent| percent > 0), "{name}: {read:?} % are read");
    let what = format!("{delivered:?} % are delivered, {read:?} % read");
    let seen = stage.wait(name, &what, |broadcast| {
        let status = broadcast.status.as_ref().expect("status");
        status.delivered_percent == delivered && status.read_percent == read
    });
    seen.await;
}

/// The header that a provider signs with, and a signature that it did not make.
fn forged(provider: Provider) -> Vec<(&'static str, String)> {
    match provider {
        WhatsApp => vec![("x-hub-signature-256", format!("sha256={}", "0a".repeat(32)))],
        Telegram => vec![("x-telegram-bot-api-secret-token", "guessed".into())],
        Twilio | TwilioWhatsApp => vec![("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=".into())],
        Periskope => vec![("x-periskope-signature", "0a".repeat(32))],
        Native | Postback => vec![
            ("webhook-id", "msg_1".into()),
            ("webhook-timestamp", broadcast_operator::clock::now().as_second().to_string()),
            ("webhook-signature", "v1,MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_are_not_signed_by_the_provider_are_refused() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    // As the providers send them, but signed by somebody else.
    let settings =
        ReceiptSettings { delivered_percent: 0, failed_percent: 100, ..ReceiptSettings::default() };
    stage.send_receipts_signed(&settings, |provider| match provider {
        Native | Postback => "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=",
        _ => "secret-of-somebody-else",
    });
    stage.apply_broadcasts(&Provider::ALL, 1, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        until(&format!("{provider:?}: its receipt is refused"), async || match refusals(&stage, provider) {
            0 => Err("it is not"),
            _ => Ok(()),
        })
        .await;
        let done = stage.complete(provider.name()).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (1, 0), "{provider:?}");
        for headers in [vec![], forged(provider)] {
            let mut request = Client::new().post(stage.receipts_url_of(provider)).body("[]");
            for (name, value) in &headers {
                request = request.header(*name, value);
            }
            let status = request.send().await.expect("an answer").status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{provider:?}: {headers:?}");
        }
    })
    .await;
}

/// How often the log says that receipts of a provider were refused.
fn refusals(stage: &Stage, provider: Provider) -> usize {
    let log = stage.operator.log();
    let channel = format!("channel={}/{}", stage.namespace, provider.name());
    log.lines().filter(|line| line.contains("refused receipts") && line.contains(&channel)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_gets_its_challenge_back_only_with_the_word_of_the_channel() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[WhatsApp, Telegram], &json!({}));
    super::channel_state(&stage, WhatsApp, "Ready").await;
    let ask = async |provider: Provider, mode: &str, token: &str| {
        let url = stage.receipts_url_of(provider);
        let url = format!("{url}?hub.mode={mode}&hub.verify_token={token}&hub.challenge=1158201444");
        let answer = reqwest::get(url).await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    let (status, challenge) = ask(WhatsApp, "subscribe", VERIFY_TOKEN).await;
    assert_eq!((status, &*challenge), (StatusCode::OK, "1158201444"));
    for (provider, mode, token) in [
        (WhatsApp, "subscribe", "guessed"),
        (WhatsApp, "subscribe", ""),
        (WhatsApp, "unsubscribe", VERIFY_TOKEN),
        (Telegram, "subscribe", VERIFY_TOKEN),
    ] {
        let (status, text) = ask(provider, mode, token).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{provider:?} {mode} {token}");
        assert!(!text.contains("1158201444") && !text.contains(VERIFY_TOKEN), "{text}");
    }
}
