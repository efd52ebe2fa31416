//! What a channel says of itself while nothing is sent: whether its provider answers, and whether its receipts can be checked.

use broadcast_operator::api::{BroadcastChannel, Condition, ConditionStatus};
use broadcast_operator::simulator::{Settings, Simulator};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::notices::Notice;
use crate::common::providers::Provider::{Native, Telegram};
use crate::common::providers::{Provider, SECRET};
use crate::common::stage::{Stage, counts};
use crate::common::wait::until;
use crate::providers::channel_state;

fn ready(channel: &BroadcastChannel) -> Condition {
    let conditions = channel.status.as_ref().map_or(&[][..], |status| &status.conditions);
    Condition::find(conditions, "Ready").expect("Ready").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_cannot_be_asked_makes_ready_unknown_until_it_answers() {
    let stage = Stage::of_providers().await;
    // A port where nobody is yet.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    stage.apply(&stage.provider_channel_at(Telegram, &format!("http://{address}"), json!({})));
    let unsure = ready(&channel_state(&stage, Telegram, "NotVerified").await);
    assert_eq!(unsure.status, ConditionStatus::Unknown);
    assert!(unsure.message.contains("no connection"), "{}", unsure.message);
    let table = stage.kubectl(&["get", "bcc", Telegram.name()]);
    assert!(table.contains("NotVerified"), "{table}");
    let settings = Settings { listen: address, token: Some(Telegram.token().into()), ..Settings::default() };
    let gateway = Simulator::start(settings).await.expect("should start a gateway");
    let healed = ready(&channel_state(&stage, Telegram, "Ready").await);
    assert_eq!(healed.status, ConditionStatus::True);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_which_ready_is_unknown_is_planned_with_and_sent_through() {
    let stage = Stage::of_providers().await;
    // The credentials are asked about at an address that answers nothing of use, and messages go there too.
    stage.apply(&stage.provider_channel_at(Telegram, "http://127.0.0.1:1", json!({})));
    channel_state(&stage, Telegram, "NotVerified").await;
    stage.apply_broadcasts(&[Telegram], 5, &json!({}));
    stage.wait_state(Telegram.name(), "GatewayUnreachable").await;
    stage.apply_channels(&[Telegram], &json!({}));
    let done = stage.complete(Telegram.name()).await;
    assert_eq!(counts(&done).sent, 5);
    channel_state(&stage, Telegram, "Ready").await;
}

/// The condition that receipts cannot be checked, once it is there or gone.
async fn receipts_refused(stage: &Stage, provider: Provider, is_there: bool) -> Option<Condition> {
    until(&format!("ReceiptsRefused is there: {is_there}"), async || {
        let channel = stage.channel_now(provider.name()).await;
        let conditions = channel.status.map(|status| status.conditions).unwrap_or_default();
        let found = Condition::find(&conditions, "ReceiptsRefused").cloned();
        if found.is_some() == is_there { Ok(found) } else { Err(conditions) }
    })
    .await
}

/// Waits for an event of a channel whose note has these words.
async fn warned(stage: &Stage, provider: Provider, words: &str) {
    let of = format!("involvedObject.name={},type=Warning", provider.name());
    until(&format!("an event: {words}"), async || {
        let notes =
            stage.kubectl(&["get", "events", "--field-selector", &of, "-o", "jsonpath={.items[*].message}"]);
        if notes.contains(words) { Ok(()) } else { Err(notes) }
    })
    .await;
}

fn signing(value: &str) -> serde_json::Value {
    let mut data = json!({});
    data[format!("{}-signing", Native.name())] = json!(value);
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_secret_that_cannot_be_used_is_said_on_the_channel_and_stops_no_sending() {
    let stage = Stage::of_providers().await;
    stage.apply(&signing("not-a-signing-secret"));
    stage.apply_channels(&[Native], &json!({}));
    let refused = receipts_refused(&stage, Native, true).await.expect("the condition");
    assert_eq!((refused.status, &*refused.reason), (ConditionStatus::True, "InvalidSecret"));
    assert!(refused.message.contains("whsec_") && refused.message.contains(SECRET), "{}", refused.message);
    assert!(!refused.message.contains("not-a-signing-secret"), "{}", refused.message);
    warned(&stage, Native, "whsec_").await;
    stage.apply_broadcasts(&[Native], 5, &json!({}));
    stage.complete(Native.name()).await;
    assert_eq!(ready(&channel_state(&stage, Native, "Ready").await).status, ConditionStatus::True);
    stage.apply(&signing(Native.signing_secret()));
    receipts_refused(&stage, Native, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_secret_that_is_not_the_gateway_s_is_an_event_of_the_channel() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&[Native], &json!({}));
    stage.apply_broadcasts(&[Native], 1, &json!({}));
    stage.complete(Native.name()).await;
    let message = &stage.accepted_of(Native)[0];
    let outcome = broadcast_operator::domain::outcome::Outcome::Read;
    let notice =
        Notice::of(&stage, Native, message, outcome).signed_with("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=");
    assert_eq!(notice.post(&Client::new()).await, StatusCode::UNAUTHORIZED);
    warned(&stage, Native, "no signature matches").await;
}
