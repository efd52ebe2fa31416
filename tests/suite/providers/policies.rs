//! What a channel says about its provider's error codes, met by answers: each action, with each provider.

use broadcast_operator::api::{
    BroadcastChannel, BroadcastSuppression, Condition, OutcomeName as Outcome, StopReason, SuppressionReason,
};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::channel_state;
use super::sending::bad_chat;
use crate::common::books;
use crate::common::providers::Provider::{self, Periskope, Telegram, Twilio, TwilioWhatsApp, WhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, broadcast, chat_id, condition, counts, merge};

/// Of 30 chats the provider refuses these.
const REFUSED: std::ops::Range<usize> = 10..13;

/// Messages one after the other, so that those before the first refusal are taken.
fn one_by_one() -> Value {
    json!({"limits": {"maxInFlight": 1}})
}

/// The channels with a rule for the code by which their provider refuses a chat.
fn apply_channels(stage: &Stage, action: &str) {
    stage.apply_all(Provider::ALL.map(|provider| {
        let mut spec = one_by_one();
        let rule = json!({"codes": [bad_chat(provider).1], "action": action});
        merge(&mut spec, json!({"errorPolicy": [rule]}));
        stage.provider_channel(provider, spec)
    }));
}

/// Lets the providers refuse messages to some chats, this often where a number is given.
fn refuse(stage: &Stage, times: Option<usize>) {
    let chats: Vec<String> = REFUSED.map(chat_id).collect();
    let rules = Provider::ALL.map(|provider| {
        let mut when = json!({"account": provider.account(), "chats": chats});
        if let Some(times) = times {
            when["first"] = json!(times);
        }
        json!({"when": when, "do": {"refuse": bad_chat(provider).0}})
    });
    stage.set_faults(json!(rules));
}

fn no_waits(most: u32) -> Value {
    json!({"retry": {"maxAttempts": most, "minBackoffSeconds": 0, "maxBackoffSeconds": 0}})
}

/// The outcomes of the chats that the provider refuses, and how often they were tried.
async fn refused_rows(stage: &Stage, name: &str) -> Vec<(Outcome, u32)> {
    let rows = books::rows(stage, name).await;
    rows[REFUSED].iter().map(|(_, row)| (row.outcome, row.attempts)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_retry_tries_again_what_would_have_failed_and_fails_it_after_its_last_try() {
    let stage = Stage::of_providers().await;
    apply_channels(&stage, "Retry");
    // The first nine requests to the three chats are refused, whichever they are.
    refuse(&stage, Some(9));
    stage.apply_broadcasts(&Provider::ALL, 30, &no_waits(10));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 30).await;
        assert_eq!((counts(&done).sent, stage.requests_of(provider).len()), (30, 39), "{provider:?}");
    })
    .await;
    refuse(&stage, None);
    let last = |provider: Provider| format!("{}-last", provider.name());
    stage.apply_all(Provider::ALL.map(|provider| {
        let mut spec = no_waits(2);
        merge(&mut spec, json!({"channelRef": {"name": provider.name()}}));
        broadcast(&last(provider), 30, spec)
    }));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(&last(provider)).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (27, 3), "{provider:?}");
        assert_eq!(refused_rows(&stage, &last(provider)).await, [(Outcome::Failed, 2); 3], "{provider:?}");
    })
    .await;
}

/// How a provider says that the account may not send, which stops the channel where no rule says otherwise.
fn of_the_account(provider: Provider) -> (Value, &'static str) {
    match provider {
        WhatsApp => (json!({"code": "131048", "message": "Spam rate limit hit"}), "131048"),
        Telegram => (json!({"code": "409", "message": "Conflict"}), "409"),
        Twilio => (json!({"code": "21408", "message": "Permission to send to this region"}), "21408"),
        TwilioWhatsApp => (json!({"code": "63020", "message": "Business account not verified"}), "63020"),
        _ => (json!({"code": "402", "message": "Payment required"}), "402"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_fail_fails_the_chats_alone_whose_code_would_have_stopped_the_channel() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp, Periskope];
    let chats: Vec<String> = REFUSED.map(chat_id).collect();
    stage.set_faults(json!(providers.map(|provider| {
        let when = json!({"account": provider.account(), "chats": chats});
        json!({"when": when, "do": {"refuse": of_the_account(provider).0}})
    })));
    stage.apply_all(providers.map(|provider| {
        let rule = json!({"codes": [of_the_account(provider).1], "action": "Fail"});
        stage.provider_channel(provider, json!({"errorPolicy": [rule]}))
    }));
    stage.apply_broadcasts(&providers, 30, &json!({}));
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 30).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (27, 3), "{provider:?}");
        assert_eq!(refused_rows(&stage, provider.name()).await, [(Outcome::Failed, 1); 3], "{provider:?}");
        channel_state(&stage, provider, "Ready").await;
    })
    .await;
}

/// Checks that a provider was stopped at the first refusal, with no chat failed by it.
async fn check_stopped(stage: &Stage, provider: Provider) {
    let name = provider.name();
    let settled = stage.wait(name, "nothing is in flight", |broadcast| counts(broadcast).sending == 0).await;
    let counts = counts(&settled);
    assert_eq!((counts.sent, counts.pending, counts.failed), (10, 20, 0), "{provider:?}");
    assert_eq!(stage.requests_of(provider).len(), 11, "{provider:?}");
    assert_eq!(refused_rows(stage, name).await, [(Outcome::Pending, 0); 3], "{provider:?}: it is no try");
}

/// Waits for the end, at which each chat has its message once.
async fn check_done(stage: &Stage, provider: Provider) {
    let done = stage.complete(provider.name()).await;
    stage.check_complete_of(provider, &done, 30).await;
    assert_eq!(counts(&done).sent, 30, "{provider:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_stop_broadcast_stops_it_and_neither_a_chat_nor_the_channel() {
    let stage = Stage::of_providers().await;
    apply_channels(&stage, "StopBroadcast");
    refuse(&stage, None);
    stage.apply_broadcasts(&Provider::ALL, 30, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let stalled = stage.wait_state(provider.name(), "StoppedByErrorPolicy").await;
        let message = condition(&stalled, "Stalled").expect("Stalled").message;
        let stop = stalled.status.and_then(|status| status.stop).expect("a stop");
        assert_eq!((stop.reason, &*stop.code), (StopReason::ErrorPolicy, bad_chat(provider).1));
        assert!(message.contains(&stop.code), "{message}");
        check_stopped(&stage, provider).await;
        channel_state(&stage, provider, "Ready").await;
    })
    .await;
    stage.set_faults(json!([]));
    with_each(&Provider::ALL, async |provider| {
        super::stops::go_on(&stage, provider.name()).await;
        check_done(&stage, provider).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_stop_channel_stops_the_channel_until_it_is_taken_away_and_no_chat_fails() {
    let stage = Stage::of_providers().await;
    apply_channels(&stage, "StopChannel");
    refuse(&stage, None);
    stage.apply_broadcasts(&Provider::ALL, 30, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        stage.wait_state(provider.name(), "StoppedByErrorPolicy").await;
        let channel: BroadcastChannel = channel_state(&stage, provider, "StoppedByErrorPolicy").await;
        let conditions = channel.status.expect("status").conditions;
        let stalled = Condition::find(&conditions, "Stalled").expect("Stalled");
        assert!(stalled.message.contains(bad_chat(provider).1), "{provider:?}: {}", stalled.message);
        check_stopped(&stage, provider).await;
    })
    .await;
    stage.set_faults(json!([]));
    stage.apply_channels(&Provider::ALL, &one_by_one());
    with_each(&Provider::ALL, async |provider| check_done(&stage, provider).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_suppress_fails_the_chat_and_later_broadcasts_skip_it() {
    let stage = Stage::of_providers().await;
    apply_channels(&stage, "Suppress");
    refuse(&stage, None);
    stage.apply_broadcasts(&Provider::ALL, 30, &json!({}));
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 30).await;
        assert_eq!((counts(&done).sent, counts(&done).failed), (27, 3), "{provider:?}");
        let params = ListParams::default().fields(&format!("spec.channelRef.name={}", provider.name()));
        let stored = stage.api::<BroadcastSuppression>().list(&params).await.expect("a list").items;
        let mut chats: Vec<String> = stored.iter().map(|it| it.spec.chat.clone()).collect();
        chats.sort();
        assert_eq!(chats, REFUSED.map(chat_id).collect::<Vec<_>>(), "{provider:?}");
        let is_by_rule = |it: &BroadcastSuppression| {
            it.spec.reason == SuppressionReason::ErrorPolicy
                && it.spec.code.as_deref() == Some(bad_chat(provider).1)
        };
        assert!(stored.iter().all(is_by_rule), "{provider:?}: {stored:?}");
    })
    .await;
    let later = |provider: Provider| format!("{}-later", provider.name());
    stage.apply_all(
        Provider::ALL.map(|provider| {
            broadcast(&later(provider), 30, json!({"channelRef": {"name": provider.name()}}))
        }),
    );
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(&later(provider)).await;
        assert_eq!((counts(&done).sent, counts(&done).skipped), (27, 3), "{provider:?}");
        assert_eq!(stage.requests_of(provider).len(), 57, "{provider:?}");
    })
    .await;
}
