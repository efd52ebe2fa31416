//! A gateway with a certificate of a private authority: nothing goes to it before the channel names that authority.

use broadcast_operator::api::{BroadcastChannel, Condition};
use serde_json::{Value, json};

use super::channel_state;
use crate::common::providers::{Provider, with_each};
use crate::common::stage::{Stage, broadcast, counts, merge};
use crate::common::tls::{Authority, TlsFront};
use crate::common::wait::until;

/// Secret with certificates, and its keys: of the authority of the gateway, and of one that has just its name.
const SECRET: &str = "authorities";
const GOOD: &str = "gateway";
const NAMESAKE: &str = "namesake";

fn secret(good: &str, namesake: &str) -> Value {
    let data = json!({GOOD: good, NAMESAKE: namesake});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data})
}

/// The channels of all providers to this address, which trust the certificates under this key besides the public ones.
fn apply_channels(stage: &Stage, url: &str, key: Option<&str>) {
    stage.apply_all(Provider::ALL.map(|provider| {
        let mut channel = stage.provider_channel_at(provider, url, json!({}));
        if let Some(key) = key {
            merge(&mut channel["spec"], json!({"caSecretRef": {"name": SECRET, "key": key}}));
        }
        channel
    }));
}

/// Waits until the channel of a provider, in its present version, says that it does not trust the gateway's certificate, and what to do.
async fn is_not_trusted(stage: &Stage, provider: Provider) -> BroadcastChannel {
    until(&format!("{provider:?} does not trust the certificate"), async || {
        let channel = channel_state(stage, provider, "GatewayUnreachable").await;
        let conditions = channel.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let ready = Condition::find(conditions, "Ready").expect("Ready");
        let is_of_now = Some(ready.observed_generation) == channel.metadata.generation;
        let words = ["certificate", "spec.caSecretRef", "no chat fails by it"];
        match is_of_now && words.iter().all(|word| ready.message.contains(word)) {
            true => Ok(channel),
            false => Err(ready.message.clone()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_gateway_whose_certificate_nobody_vouches_for() {
    let stage = Stage::of_providers().await;
    let (authority, namesake) = (Authority::new("of the shop"), Authority::new("of the shop"));
    let front = TlsFront::start(&stage.gateway.url(), &authority).await;
    let url = front.url();
    stage.apply(&secret(&authority.pem(), &namesake.pem()));
    let requests = |provider| stage.requests_of(provider).len();

    // Without an authority, and with one that has only the name of the right one.
    stage.apply_broadcasts(&Provider::ALL, 30, &json!({}));
    for key in [None, Some(NAMESAKE)] {
        apply_channels(&stage, &url, key);
        with_each(&Provider::ALL, async |provider| {
            is_not_trusted(&stage, provider).await;
            let waiting = stage.wait_state(provider.name(), "GatewayUnreachable").await;
            let counts = counts(&waiting);
            assert_eq!(
                (counts.pending + counts.sending, requests(provider)),
                (30, 0),
                "{provider:?} {key:?}"
            );
        })
        .await;
    }

    apply_channels(&stage, &url, Some(GOOD));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 30).await;
        assert_eq!((counts(&done).sent, requests(provider)), (30, 30), "{provider:?}");
    })
    .await;

    // The gateway's authority is not trusted any more: nothing goes through connections that are still open.
    apply_channels(&stage, &url, Some(NAMESAKE));
    let later = |provider: Provider| format!("{}-later", provider.name());
    stage.apply_all(Provider::ALL.map(|provider| {
        let spec = json!({"channelRef": {"name": provider.name()}});
        broadcast(&later(provider), 5, spec)
    }));
    with_each(&Provider::ALL, async |provider| {
        is_not_trusted(&stage, provider).await;
        assert_eq!(requests(provider), 30, "{provider:?}");
    })
    .await;

    // The right one comes into its place: the Secret is looked at again by itself.
    stage.apply(&secret(&authority.pem(), &authority.pem()));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(&later(provider)).await;
        assert_eq!((counts(&done).sent, requests(provider)), (5, 35), "{provider:?}");
    })
    .await;
}
