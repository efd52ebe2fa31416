//! What is about the account: credentials, limits and restrictions. The channel stops, no chat fails by it, and it goes on.

use broadcast_operator::api::{BroadcastChannel, Condition};
use broadcast_operator::clock;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::channel_state;
use crate::common::providers::Provider::{self, Periskope, Telegram, Twilio, TwilioWhatsApp, WhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, chat_id, condition, counts};
use crate::common::wait::until;

const IN_FLIGHT: usize = 4;

fn limits() -> Value {
    json!({"limits": {"messagesPerSecond": 100, "maxInFlight": IN_FLIGHT}})
}

/// Changes what no answer of the providers can depend on, and waits until that is taken in.
async fn touch(stage: &Stage, providers: &[Provider], reason: &str) {
    let rule = json!([{"codes": ["no-such-code"], "action": "StopChannel"}]);
    let limits = json!({"messagesPerSecond": 200, "maxInFlight": IN_FLIGHT});
    stage.apply_channels(providers, &json!({"limits": limits, "errorPolicy": rule}));
    with_each(providers, async |provider| {
        until(&format!("{provider:?}: the new spec is taken in"), async || {
            let channel = channel_state(stage, provider, reason).await;
            let observed = channel.status.as_ref().map(|status| status.observed_generation);
            if observed == channel.metadata.generation { Ok(()) } else { Err(channel.status) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_stops_the_channel_and_the_new_one_starts_it_again() {
    let stage = Stage::of_providers().await;
    // So slow that none of them comes to its end before.
    let rest: Vec<String> = (20..100).map(chat_id).collect();
    stage.set_faults(json!([{"when": {"chats": rest}, "do": {"latencyMs": 500}}]));
    stage.apply_channels(&Provider::ALL, &limits());
    stage.apply_broadcasts(&Provider::ALL, 100, &json!({}));
    with_each(&Provider::ALL, async |provider| stage.accepted_by(provider, 22).await).await;
    stage.revoke_tokens();
    stage.set_faults(json!([]));
    with_each(&Provider::ALL, async |provider| {
        let stalled = stage.wait_state(provider.name(), "AuthenticationFailed").await;
        assert!(condition(&stalled, "Stalled").is_some(), "{provider:?}");
        assert_eq!(counts(&stalled).failed + counts(&stalled).unknown, 0, "{provider:?}");
        let channel = channel_state(&stage, provider, "AuthenticationFailed").await;
        let conditions = channel.status.expect("status").conditions;
        assert!(Condition::is_true(&conditions, "Stalled"), "{provider:?}: {conditions:#?}");
    })
    .await;
    let refused = |provider| stage.requests_of(provider).iter().filter(|request| !request.accepted).count();
    for provider in Provider::ALL {
        let refused = refused(provider);
        assert!((1..=IN_FLIGHT).contains(&refused), "{provider:?}: {refused} requests were refused");
    }
    stage.renew_tokens();
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 100).await;
        assert_eq!(counts(&done).sent, 100, "{provider:?}");
        assert!(refused(provider) <= IN_FLIGHT, "{provider:?}: nothing more was refused");
    })
    .await;
}

/// Hours are what Telegram has been seen to ask for.
const LONG_WAIT: SignedDuration = SignedDuration::from_hours(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_hours_outlives_the_operator_and_a_change_of_the_limits_and_ends_with_the_annotation() {
    let mut stage = Stage::of_providers().await;
    let rules = Provider::ALL.map(|provider| {
        let limited = json!({"tooManyRequests": {"retryAfterSeconds": LONG_WAIT.as_secs()}});
        json!({"when": {"account": provider.account(), "first": IN_FLIGHT}, "do": limited})
    });
    stage.set_faults(json!(rules));
    stage.apply_channels(&Provider::ALL, &limits());
    let before = clock::now();
    stage.apply_broadcasts(&Provider::ALL, 60, &json!({}));
    let first = with_each(&Provider::ALL, async |provider| {
        let throttled = stage.wait_state(provider.name(), "Throttled").await;
        assert_eq!(counts(&throttled).failed + counts(&throttled).unknown, 0, "{provider:?}");
        throttled_until(&stage, provider).await
    })
    .await;
    for (provider, until) in Provider::ALL.into_iter().zip(&first) {
        let wait = until.duration_since(before);
        let expected = LONG_WAIT..LONG_WAIT + SignedDuration::from_mins(2);
        assert!(expected.contains(&wait), "{provider:?} waits for {wait}");
    }
    let requests = Provider::ALL.map(|provider| stage.requests_of(provider).len());
    stage.set_faults(json!([]));
    stage.operator.kill();
    // Wrong, so that it is seen when the new process has made up its mind about a channel.
    let wrong = Patch::Merge(json!({"status": {"activeBroadcasts": 99}}));
    for provider in Provider::ALL {
        let channels = stage.api::<BroadcastChannel>();
        channels.patch_status(provider.name(), &PatchParams::default(), &wrong).await.expect("should patch");
    }
    stage.operator.restart().await;
    with_each(&Provider::ALL, async |provider| {
        let channel = until(&format!("{provider:?}: the new process has looked"), async || {
            let channel = stage.channel_now(provider.name()).await;
            let is_mended = channel.status.as_ref().is_some_and(|status| status.active_broadcasts == 0);
            if is_mended { Ok(channel) } else { Err(channel.status) }
        })
        .await;
        let status = channel.status.expect("status");
        let number = Provider::ALL.iter().position(|other| *other == provider).expect("one of them");
        assert_eq!(status.throttled_until.map(|until| until.0), Some(first[number]), "{provider:?}");
        assert_eq!(stage.requests_of(provider).len(), requests[number], "{provider:?}: nothing is sent");
    })
    .await;
    touch(&stage, &Provider::ALL, "Throttled").await;
    for (number, provider) in Provider::ALL.into_iter().enumerate() {
        assert_eq!(throttled_until(&stage, provider).await, first[number], "{provider:?}");
        assert_eq!(stage.requests_of(provider).len(), requests[number], "{provider:?}: nothing is sent");
        let sending = stage.wait_state(provider.name(), "Throttled").await;
        let message = condition(&sending, "Ready").expect("Ready").message;
        assert!(message.contains(&first[number].to_string()), "{provider:?}: {message}");
        stage.try_again(provider.name(), "1");
    }
    with_each(&Provider::ALL, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!(counts(&done).sent, 60, "{provider:?}");
    })
    .await;
}

async fn throttled_until(stage: &Stage, provider: Provider) -> Timestamp {
    let channel = channel_state(stage, provider, "Throttled").await;
    channel.status.and_then(|status| status.throttled_until).expect("a time").0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_account_sends_nothing_until_its_channel_is_told_to_try_again() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram, Twilio, TwilioWhatsApp, Periskope];
    let refusal = |provider| match provider {
        WhatsApp => (json!({"code": "131048", "message": "Spam rate limit hit"}), "AccountRestricted"),
        Telegram => (
            json!({"code": "409", "message": "Conflict: terminated by other long poll"}),
            "AccountRestricted",
        ),
        Twilio => (json!({"code": "20005", "message": "Account not active"}), "AccountRestricted"),
        TwilioWhatsApp => {
            (json!({"code": "63020", "message": "Business account not verified"}), "AccountRestricted")
        }
        _ => (json!({"code": "402", "message": "Payment required"}), "PaymentRequired"),
    };
    // Each of them takes some messages before.
    let rules = |number: usize| {
        let rules = providers.map(|provider| {
            let chats: Vec<String> = (number..60).map(chat_id).collect();
            let when = json!({"account": provider.account(), "chats": chats});
            json!({"when": when, "do": {"refuse": refusal(provider).0}})
        });
        json!(rules)
    };
    stage.set_faults(rules(10));
    stage.apply_channels(&providers, &limits());
    stage.apply_broadcasts(&providers, 60, &json!({}));
    with_each(&providers, async |provider| {
        let reason = refusal(provider).1;
        let stalled = stage.wait_state(provider.name(), reason).await;
        let channel = channel_state(&stage, provider, reason).await;
        let conditions = channel.status.expect("status").conditions;
        assert!(Condition::is_true(&conditions, "Stalled"), "{provider:?}: {conditions:#?}");
        assert_eq!(counts(&stalled).failed + counts(&stalled).unknown, 0, "{provider:?}");
        let refused = stage.requests_of(provider).iter().filter(|request| !request.accepted).count();
        assert!((1..=IN_FLIGHT).contains(&refused), "{provider:?}: {refused} requests were refused");
    })
    .await;
    stage.set_faults(json!([]));
    let requests = providers.map(|provider| stage.requests_of(provider).len());
    let reasons = ["AccountRestricted", "PaymentRequired"];
    let (restricted, unpaid): (Vec<_>, Vec<_>) =
        providers.into_iter().partition(|provider| refusal(*provider).1 == reasons[0]);
    for (providers, reason) in [restricted, unpaid].iter().zip(reasons) {
        touch(&stage, providers, reason).await;
    }
    for (provider, requests) in providers.into_iter().zip(requests) {
        assert_eq!(stage.requests_of(provider).len(), requests, "{provider:?}: nothing is sent");
        stage.try_again(provider.name(), "1");
    }
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
        assert_eq!(counts(&done).sent, 60, "{provider:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_try_again_that_comes_while_no_operator_runs_is_followed_with_one_message_to_see() {
    let mut stage = Stage::of_providers().await;
    let providers = [WhatsApp, Telegram];
    let limited = json!({"tooManyRequests": {"retryAfterSeconds": LONG_WAIT.as_secs()}});
    let rules = providers.map(|provider| json!({"when": {"account": provider.account()}, "do": limited}));
    stage.set_faults(json!(rules));
    stage.apply_channels(&providers, &limits());
    stage.apply_broadcasts(&providers, 60, &json!({}));
    with_each(&providers, async |provider| stage.wait_state(provider.name(), "Throttled").await).await;
    stage.operator.kill();
    for provider in providers {
        stage.try_again(provider.name(), "1");
    }
    let requests = providers.map(|provider| stage.requests_of(provider).len());
    stage.operator.restart().await;
    with_each(&providers, async |provider| {
        until(&format!("{provider:?}: it has tried again, and waits"), async || {
            let status = channel_state(&stage, provider, "Throttled").await.status.expect("status");
            if status.try_again_token.as_deref() == Some("1") { Ok(()) } else { Err(status) }
        })
        .await;
    })
    .await;
    for (provider, requests) in providers.into_iter().zip(requests) {
        assert_eq!(stage.requests_of(provider).len(), requests + 1, "{provider:?}");
    }
    stage.set_faults(json!([]));
    for provider in providers {
        stage.try_again(provider.name(), "2");
    }
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 60).await;
    })
    .await;
}
