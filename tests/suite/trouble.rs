//! A gateway in trouble: what nobody knows about, and what is not the gateway's, costs few chats or none.

use broadcast_operator::api::OutcomeName as Outcome;
use serde_json::json;

use crate::common::books;
use crate::common::providers::{Provider, with_each};
use crate::common::stage::{Stage, broadcast, chat_id, condition, counts, restart, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_in_trouble_leaves_some_chats_unknown_and_not_all() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"statusAfterAccept": 502}}]));
    stage.apply(&broadcast("sale", 300, json!({})));
    let waiting = stage.wait_state("sale", "GatewayUncertain").await;
    let ready = condition(&waiting, "Ready").expect("Ready");
    assert!(ready.message.contains("502"), "{}", ready.message);
    stage.set_faults(json!([]));
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 300).await;
    // A run of 20, those in flight beside it, and some messages to see.
    let counts = counts(&done);
    assert!((20..60).contains(&counts.unknown), "{counts:?}");
    assert_eq!(counts.sent + counts.unknown, 300);
    assert_eq!(stage.requests_now("sale"), 300, "nothing is sent again by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_proxy_in_the_middle_of_sending_fails_no_chat() {
    let stage = Stage::of_providers().await;
    // The third request of each channel and some after it, whichever they are.
    let pages = Provider::ALL.map(|provider| {
        json!({"when": {"account": provider.account(), "everyNth": 3, "first": 2}, "do": {"proxyPage": 404}})
    });
    stage.set_faults(json!(pages));
    stage.apply_channels(&Provider::ALL, &json!({}));
    stage.apply_broadcasts(&Provider::ALL, 60, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!(counts(&done).sent, 60, "{provider:?}: {:?}", counts(&done));
        let rows = books::rows(&stage, provider.name()).await;
        assert!(
            rows.iter().all(|(_, row)| row.outcome == Outcome::Sent && row.attempts == 1),
            "{provider:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_nobody_got_is_complete_and_no_success() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"refuse": {"status": 422, "code": "bad_template", "message": "no"}}}]));
    stage.apply(&broadcast("few", 5, json!({})));
    stage.apply(&broadcast("twenty", 20, json!({})));
    let few = stage.complete("few").await;
    let stalled = condition(&few, "Stalled").expect("it needs a person");
    assert_eq!(state(&few), "AllFailed");
    assert!(stalled.message.contains("bad_template"), "{}", stalled.message);
    stage.complete("twenty").await;
    stage.wait_state("twenty", "FirstMessagesFailed").await;
    stage.set_faults(json!([]));
    stage.apply(&restart("again", "few", json!({})));
    let again = stage.complete("again").await;
    assert_eq!((state(&again).as_str(), counts(&again).sent), ("Succeeded", 5));
    assert_eq!(stage.requests_now("again"), 5);
}

/// How a provider says that it is in trouble itself.
fn own_trouble(provider: Provider) -> serde_json::Value {
    match provider {
        // As Meta does it: with a 5xx, which would say nothing without the code.
        Provider::WhatsApp => json!({"status": 500, "code": "131016", "message": "Service unavailable"}),
        _ => json!({"code": "63012", "message": "Internal Service Error"}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_in_trouble_fails_no_chat_however_often_it_is_tried() {
    let stage = Stage::of_providers().await;
    let providers = [Provider::WhatsApp, Provider::Twilio, Provider::TwilioWhatsApp];
    let rules = providers.map(
        |provider| json!({"when": {"account": provider.account()}, "do": {"refuse": own_trouble(provider)}}),
    );
    stage.set_faults(json!(rules));
    stage.apply_channels(&providers, &json!({}));
    // No more than one try, so that a chat which is tried again would have failed.
    let retry = json!({"retry": {"maxAttempts": 1, "minBackoffSeconds": 0, "maxBackoffSeconds": 0}});
    stage.apply_broadcasts(&providers, 40, &retry);
    with_each(&providers, async |provider| {
        let waiting = stage.wait_state(provider.name(), "GatewayUnavailable").await;
        let ready = condition(&waiting, "Ready").expect("Ready");
        assert!(ready.message.contains("no chat fails by it"), "{}", ready.message);
        // A few times more.
        crate::common::wait::until(&format!("{provider:?} is tried again"), async || {
            let requests = stage.requests_of(provider).len();
            if requests >= 23 { Ok(()) } else { Err(requests) }
        })
        .await;
    })
    .await;
    stage.set_faults(json!([]));
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 40).await;
        assert_eq!(counts(&done).sent, 40, "{provider:?}: {:?}", counts(&done));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_with_one_chat_alone_fails_that_chat_after_its_last_try() {
    let stage = Stage::of_providers().await;
    let providers = [Provider::WhatsApp, Provider::Twilio, Provider::TwilioWhatsApp];
    let rules = providers.map(|provider| {
        let when = json!({"account": provider.account(), "chats": [chat_id(30)]});
        json!({"when": when, "do": {"refuse": own_trouble(provider)}})
    });
    stage.set_faults(json!(rules));
    stage.apply_channels(&providers, &json!({"limits": {"maxInFlight": 1}}));
    let retry = json!({"retry": {"maxAttempts": 1, "minBackoffSeconds": 0, "maxBackoffSeconds": 0}});
    stage.apply_broadcasts(&providers, 60, &retry);
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (59, 1), "{provider:?}");
    })
    .await;
}
