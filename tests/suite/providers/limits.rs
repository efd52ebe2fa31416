//! How much a channel sends in a day, and whose numbers are those without a country code.

use broadcast_operator::api::Condition;
use broadcast_operator::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::channel_state;
use crate::common::books;
use crate::common::providers::Provider::{self, Native, Periskope, Twilio, TwilioWhatsApp, WhatsApp};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, broadcast, condition, counts};

/// Requests that are allowed in a day.
const A_DAY: i32 = 25;

fn limits(a_day: i32) -> Value {
    json!({"limits": {"recipientsPerDay": a_day}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_the_day_is_sent_up_to_and_says_until_when_also_after_a_restart() {
    let mut stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &limits(A_DAY));
    let before = clock::now();
    stage.apply_broadcasts(&Provider::ALL, 60, &json!({}));
    let check = async |stage: &Stage, provider: Provider| {
        let throttled = stage.wait_state(provider.name(), "Throttled").await;
        let channel = channel_state(stage, provider, "DailyLimit").await;
        let status = channel.status.expect("status");
        let condition = Condition::find(&status.conditions, "Throttled").expect("Throttled");
        assert!(condition.message.contains("recipientsPerDay"), "{}", condition.message);
        let until = status.throttled_until.expect("a time").0;
        assert_eq!(until.as_second() % 3600, 0, "{provider:?}: {until} is the end of an hour");
        // It counts for the rest of its hour, and 24 hours more.
        let times = hour_after(before)..=hour_after(clock::now());
        assert!(times.contains(&(until - SignedDuration::from_hours(24))), "{provider:?}: {until}");
        assert_eq!(status.sent_last24_hours, Some(A_DAY), "{provider:?}");
        throttled
    };
    with_each(&Provider::ALL, async |provider| {
        check(&stage, provider).await;
        let settled = stage.wait(provider.name(), "nothing is in flight", |it| counts(it).sending == 0).await;
        let counts = counts(&settled);
        assert_eq!((counts.sent, counts.pending), (A_DAY, 60 - A_DAY), "{provider:?}");
        assert!(condition(&settled, "Stalled").is_none(), "{provider:?}: it goes on by itself");
    })
    .await;
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 0);
    stage.operator.restart().await;
    // Something that the new process has to look at.
    stage.apply_all(Provider::ALL.map(|provider| {
        broadcast(&format!("{}-more", provider.name()), 1, json!({"channelRef": {"name": provider.name()}}))
    }));
    with_each(&Provider::ALL, async |provider| {
        stage.wait_state(&format!("{}-more", provider.name()), "Throttled").await;
        check(&stage, provider).await;
        assert_eq!(stage.requests_of(provider).len(), 25, "{provider:?}: the count outlives the process");
    })
    .await;
    stage.apply_channels(&Provider::ALL, &limits(100));
    with_each(&Provider::ALL, async |provider| {
        stage.complete(&format!("{}-more", provider.name())).await;
        let done = stage.complete(provider.name()).await;
        assert_eq!((counts(&done).sent, stage.requests_of(provider).len()), (60, 61), "{provider:?}");
    })
    .await;
}

/// When the hour of a time ends.
fn hour_after(time: Timestamp) -> Timestamp {
    let seconds = time.as_second() / 3600 * 3600 + 3600;
    Timestamp::from_second(seconds).expect("should be a time")
}

/// A number of Spain without its country code, the same with it, and numbers of other countries.
const NUMBERS: [&str; 4] = ["612 34 56 78", "+34 612 345 678", "+44 7700 900123", "0033 6 12 34 56 78"];

fn to_numbers(name: &str, provider: Provider, numbers: &[&str]) -> Value {
    let chats: Vec<Value> = numbers.iter().map(|number| json!({"id": number})).collect();
    json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "Broadcast", "metadata": {"name": name},
        "spec": {
            "channelRef": {"name": provider.name()}, "message": {"text": "Hi"}, "recipients": {"chats": chats},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_without_a_country_are_of_the_region_of_the_channel_and_others_keep_theirs() {
    let stage = Stage::of_providers().await;
    let providers = [WhatsApp, Twilio, TwilioWhatsApp, Periskope];
    stage.apply_channels(&providers, &json!({"defaultRegion": "ES"}));
    stage.apply_channels(&[Native], &json!({"defaultRegion": "ES"}));
    stage.apply_all(providers.map(|provider| to_numbers(provider.name(), provider, &NUMBERS)));
    stage.apply(&to_numbers(Native.name(), Native, &NUMBERS[..1]));
    let sent = |provider| {
        let requests = stage.requests_of(provider);
        let mut chats: Vec<String> = requests.iter().map(|request| request.chat.to_string()).collect();
        chats.sort();
        chats
    };
    with_each(&providers, async |provider| {
        let done = stage.complete(provider.name()).await;
        stage.check_complete_of(provider, &done, 4).await;
        assert_eq!(sent(provider), ["33612345678", "34612345678", "447700900123"], "{provider:?}");
        let rows = books::rows(&stage, provider.name()).await;
        let codes: Vec<&str> = rows.iter().map(|(_, row)| &*row.code).collect();
        assert_eq!(
            codes,
            ["", "Duplicate", "", ""],
            "{provider:?}: two spellings of one number are one chat"
        );
    })
    .await;
    stage.complete(Native.name()).await;
    assert_eq!(sent(Native), ["612345678"], "a gateway of one's own has the numbers as they are");
}
