use serde_json::{Value, json};

use super::*;
use crate::address_guard::AddressPolicy;
use crate::api::KeyRef;
use crate::clock;
use crate::domain::channel_verdict::{Health, channel_status};
use crate::domain::ids::ObjectKey;
use crate::providers::SecretValues;
use reading::{BUSY_LOOK, SECRET_POLL};
use refused::{FIRST_PROBE_AGAIN, REFUSED_RETRY};
use settings::Probed;

const WALL: fn() -> Timestamp = || "2026-11-23T10:00:00Z".parse().expect("time");

fn channel(uid: &str, generation: i64, spec: &Value, status: &Value) -> Arc<BroadcastChannel> {
    let mut channel = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel",
        "metadata": {"name": "sms", "namespace": "shop", "uid": uid, "generation": generation},
        "spec": {"provider": "HTTP", "http": {"url": "http://127.0.0.1:1/"}},
        "status": status,
    });
    let spec = spec.as_object().expect("an object").clone();
    channel["spec"].as_object_mut().expect("an object").extend(spec);
    let mut channel: BroadcastChannel = serde_json::from_value(channel).expect("should be a channel");
    let gateway = GatewayMark::of(&channel).digest;
    let reported = channel.status.as_mut().and_then(|status| status.reported.as_mut());
    if let Some(reported) = reported.filter(|reported| reported.observed_gateway.is_empty()) {
        reported.observed_gateway = gateway;
    }
    Arc::new(channel)
}

fn plain(uid: &str, generation: i64) -> Arc<BroadcastChannel> {
    channel(uid, generation, &json!({}), &Value::Null)
}

fn at_another_url(uid: &str, generation: i64) -> Arc<BroadcastChannel> {
    channel(uid, generation, &json!({"http": {"url": "http://127.0.0.1:2/"}}), &Value::Null)
}

fn opened(channel: &BroadcastChannel, token: &str) -> Opened {
    // Another test may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = "127.0.0.0/8".parse().expect("range");
    let policy = Arc::new(AddressPolicy::new(vec![loopback]));
    let mut secrets = SecretValues::default();
    secrets.insert(&KeyRef { name: "gateway".into(), key: "token".into() }, token.into());
    let key = ObjectKey::new("shop", "sms");
    let gateway = Gateway::new(&key, &channel.spec, &secrets, &policy).expect("gateway");
    Opened { gateway, credentials: secrets.digest(), probed: Probed::NotAsked }
}

/// Looks at a channel, reads it if that is wanted, and opens its door.
fn enter(account: &mut Account, channel: &Arc<BroadcastChannel>, token: &str, now: Instant) {
    assert!(account.observe(Some(channel.clone()), now, WALL()).is_some(), "should want to read");
    account.open(Version::of(channel), Ok(opened(channel, token)), now, WALL());
}

/// The way to the gateway, a second after all that was settled.
fn door(account: &mut Account, now: Instant) -> Option<DoorNumber> {
    account.may_send(0, now, a_second_later()).ok().map(|way| way.door)
}

fn a_second_later() -> Timestamp {
    "2026-11-23T10:00:01Z".parse().expect("time")
}

/// The status that an account writes, as the next process finds it.
fn status_of(account: &mut Account, channel: &BroadcastChannel, now: Instant) -> Value {
    let state = account.state(true, now, WALL());
    let status = channel_status(channel, &state, 1, account.day(), WALL());
    serde_json::to_value(status).expect("JSON")
}

fn not_told(detail: &str, wait: Option<Duration>) -> Probed {
    Probed::NotTold { detail: detail.into(), wait }
}

fn unreachable() -> ChannelEffect {
    ChannelEffect::Unreachable("connection refused".into())
}

fn refused() -> ChannelEffect {
    halt(SenderTrouble::AuthenticationFailed, "", "")
}

fn halt(trouble: SenderTrouble, code: &str, detail: &str) -> ChannelEffect {
    ChannelEffect::Halt { trouble, code: code.into(), detail: detail.into() }
}

#[test]
fn another_channel_of_the_same_name_is_read_anew_and_owes_nothing() {
    let now = clock::monotonic();
    for gap in [false, true] {
        let mut account = Account::new();
        enter(&mut account, &plain("first", 1), "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, ChannelEffect::Throttle(Some(Duration::from_secs(60))), now, WALL());
        assert_eq!(door(&mut account, now), None);

        if gap {
            assert!(account.observe(None, now, WALL()).is_none());
        }
        let second = at_another_url("second", 1);
        assert!(account.observe(Some(second.clone()), now, WALL()).is_some(), "its settings are read");
        assert_eq!(door(&mut account, now), None, "nothing goes to the gateway of the first");
        account.open(Version::of(&second), Ok(opened(&second, "token")), now, WALL());
        assert!(door(&mut account, now).is_some(), "the wait was of the first");
    }
}

#[test]
fn a_corrected_url_is_used_at_once_and_late_failures_of_the_old_one_do_not_count() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let old = door(&mut account, now).expect("should be open");
    for _ in 0..20 {
        account.feel(old, unreachable(), now, WALL());
    }
    assert!(matches!(account.health(false, now, WALL()), Health::Waiting("GatewayUnreachable", _)));

    let corrected = at_another_url("uid", 2);
    assert!(account.observe(Some(corrected.clone()), now, WALL()).is_some());
    assert!(!account.is_open(now, WALL()), "nothing goes to the old url");
    assert_eq!(door(&mut account, now), None, "nothing goes to the old url");
    account.feel(old, unreachable(), now, WALL());
    account.open(Version::of(&corrected), Ok(opened(&corrected, "token")), now, WALL());
    account.feel(old, unreachable(), now, WALL());
    assert!(door(&mut account, now).is_some());
    assert_eq!(account.health(false, now, WALL()), Health::Ready);
}

#[test]
fn settings_that_were_read_before_a_change_are_read_again() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let (before, after) = (plain("uid", 1), at_another_url("uid", 2));
    assert!(account.observe(Some(before.clone()), now, WALL()).is_some());
    assert!(account.observe(Some(after.clone()), now, WALL()).is_none(), "one reading at a time");
    account.open(Version::of(&before), Ok(opened(&before, "token")), now, WALL());
    assert_eq!(door(&mut account, now), None);
    enter(&mut account, &after, "token", now);
    assert!(door(&mut account, now).is_some());
}

#[test]
fn a_late_refusal_of_the_old_token_does_not_condemn_the_new_one() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let channel = plain("uid", 1);
    enter(&mut account, &channel, "old", now);
    let old = door(&mut account, now).expect("should be open");
    account.feel(old, refused(), now, WALL());
    assert_eq!(door(&mut account, now), None);

    enter(&mut account, &channel, "new", now);
    account.feel(old, refused(), now, WALL());
    let new = door(&mut account, now).expect("should still be open");
    account.feel(new, refused(), now, WALL());
    assert_eq!(door(&mut account, now), None, "this one is refused itself");
}

#[test]
fn the_same_token_is_not_tried_again_at_once() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let channel = plain("uid", 1);
    enter(&mut account, &channel, "token", now);
    let way = door(&mut account, now).expect("should be open");
    account.feel(way, refused(), now, WALL());
    enter(&mut account, &channel, "token", now);
    assert_eq!(door(&mut account, now), None);
    assert!(
        account.observe(Some(channel.clone()), now, WALL()).is_none(),
        "the Secret is polled, not hammered"
    );
    let later = now + REFUSED_RETRY;
    enter(&mut account, &channel, "token", later);
    assert!(door(&mut account, later).is_some());
}

#[test]
fn a_wait_in_a_status_of_an_earlier_version_counts_for_its_generation() {
    let now = clock::monotonic();
    let status = json!({"observedGeneration": 1, "throttledUntil": "2026-11-23T10:00:40Z"});
    for (generation, waits) in [(1, true), (2, false)] {
        let mut account = Account::new();
        enter(&mut account, &channel("uid", generation, &json!({}), &status), "token", now);
        assert_eq!(door(&mut account, now).is_none(), waits, "generation {generation}");
    }
}

#[test]
fn an_account_that_is_restricted_waits_for_a_person_also_in_the_next_process() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let before = plain("uid", 1);
    enter(&mut account, &before, "token", now);
    let way = door(&mut account, now).expect("should be open");
    let restricted = halt(SenderTrouble::AccountRestricted, "131048", "131048: spam");
    account.feel(way, restricted, now, WALL());
    let much_later = now + Duration::from_secs(86_400);
    enter(&mut account, &before, "token", much_later);
    assert_eq!(door(&mut account, much_later), None, "no message tries it again");

    let Health::Stalled(reason, message) = account.health(true, now, WALL()) else {
        panic!("it needs a person")
    };
    assert!(message.contains("131048: spam") && message.contains("/try-again"), "{message}");
    let status = json!({"observedGeneration": 1, "conditions": [
        {"type": "Stalled", "status": "True", "reason": reason, "message": message,
         "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": 1},
    ]});
    for (generation, is_open) in [(1, false), (2, true)] {
        let mut next = Account::new();
        enter(&mut next, &channel("uid", generation, &json!({}), &status), "token", now);
        assert_eq!(door(&mut next, now).is_some(), is_open, "generation {generation}");
    }
}

#[test]
fn a_throttled_account_goes_on_at_half_its_speed() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let channel = channel("uid", 1, &json!({"limits": {"messagesPerSecond": 80}}), &Value::Null);
    enter(&mut account, &channel, "token", now);
    let later = now + Duration::from_secs(1);
    let way = door(&mut account, later).expect("should be open");
    (0..80).for_each(|_| account.take(later, WALL()));
    account.feel(way, ChannelEffect::Throttle(Some(Duration::from_secs(5))), later, WALL());
    account.feel(way, ChannelEffect::Throttle(Some(Duration::from_secs(5))), later, WALL());
    account.feel(way, ChannelEffect::Working, later, WALL());
    assert!(account.observe(Some(channel), later, WALL()).is_none());
    assert_eq!(account.second_of_work(500), 40);
}

#[test]
fn an_account_that_is_near_a_limit_goes_on_at_half_its_speed_without_a_wait() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let channel = channel("uid", 1, &json!({"limits": {"messagesPerSecond": 80}}), &Value::Null);
    enter(&mut account, &channel, "token", now);
    let way = door(&mut account, now + Duration::from_secs(1)).expect("should be open");
    for (second, expected) in [(1, 40), (30, 59), (31, 30)] {
        let later = now + Duration::from_secs(second);
        (0..80).for_each(|_| account.take(later, WALL()));
        (0..64).for_each(|_| account.feel(way, ChannelEffect::NearLimit, later, WALL()));
        account.observe(Some(channel.clone()), later, WALL());
        assert_eq!(account.second_of_work(500), expected, "{second} s");
        assert_eq!(account.health(true, later, WALL()), Health::Ready);
    }
}

#[test]
fn credentials_that_a_probe_finds_good_again_are_used_at_once() {
    let now = clock::monotonic();
    let channel = plain("uid", 1);
    let probe = |account: &mut Account, probed: Probed, now: Instant| {
        assert!(account.observe(Some(channel.clone()), now, WALL()).is_some(), "should want to read");
        let opened = Opened { probed, ..opened(&channel, "token") };
        account.open(Version::of(&channel), Ok(opened), now, WALL());
        door(account, now).is_some()
    };
    let refused = || Probed::Refused(SenderTrouble::AuthenticationFailed, "190".into());
    let mut account = Account::new();
    assert!(!probe(&mut account, refused(), now));
    let soon = now + SECRET_POLL;
    assert!(!account.known(soon).told.is_empty(), "the provider is not hammered");
    assert!(!probe(&mut account, Probed::NotAsked, soon));
    let mut later = now;
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        let wait = Duration::from_secs(seconds);
        assert!(!account.known(later + wait.saturating_sub(SECRET_POLL)).told.is_empty(), "{wait:?}");
        later += wait;
        assert!(account.known(later).told.is_empty(), "{wait:?}");
        assert!(!probe(&mut account, refused(), later), "{wait:?}");
    }
    assert!(probe(&mut account, Probed::Good, later + FIRST_PROBE_AGAIN));
}

#[test]
fn an_answer_of_something_else_than_the_provider_is_tried_again_and_again_and_needs_no_change() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    let unexpected = || halt(SenderTrouble::UnexpectedAnswer, "404", "404: not the provider");
    (0..64).for_each(|_| account.feel(way, unexpected(), now, WALL()));
    assert_eq!(door(&mut account, now), None);
    let Health::Waiting("UnexpectedAnswer", message) = account.health(true, now, WALL()) else {
        panic!("it waits")
    };
    assert!(message.contains("404: not the provider") && message.contains("baseUrl"), "{message}");
    let later = now + Duration::from_secs(1);
    assert!(door(&mut account, later).is_some(), "one message, to see");
    assert!(account.may_send(1, later, WALL()).is_err());
    assert!(matches!(account.health(true, later, WALL()), Health::Waiting("UnexpectedAnswer", _)));
    account.feel(way, ChannelEffect::Working, later, WALL());
    assert_eq!(account.health(true, later, WALL()), Health::Ready);
}

#[test]
fn a_run_of_messages_that_nobody_knows_about_makes_the_channel_wait_also_in_the_next_process() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    let uncertain = || ChannelEffect::Uncertain { detail: "the provider answered 502".into(), wait: None };
    (0..19).for_each(|_| account.feel(way, uncertain(), now, WALL()));
    assert!(door(&mut account, now).is_some(), "so many may be an accident");
    // Requests that were in flight with the twentieth.
    (0..64).for_each(|_| account.feel(way, uncertain(), now, WALL()));
    assert_eq!(door(&mut account, now), None);
    let Health::Waiting(reason, message) = account.health(true, now, WALL()) else { panic!("it waits") };
    assert!(reason == "GatewayUncertain" && message.contains("answered 502"), "{reason}: {message}");
    let later = now + Duration::from_secs(1);
    assert!(door(&mut account, later).is_some() && account.second_of_work(500) == 1, "one message, to see");

    let status = json!({"observedGeneration": 1, "conditions": [
        {"type": "Ready", "status": "False", "reason": reason, "message": message,
         "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": 1},
    ]});
    for generation in [1, 2] {
        let mut next = Account::new();
        enter(&mut next, &channel("uid", generation, &json!({}), &status), "token", now);
        assert_eq!(next.second_of_work(500), 1, "generation {generation}");
    }
}

#[test]
fn a_provider_in_trouble_makes_the_channel_wait_also_in_the_next_process() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    let down = |wait| ChannelEffect::Unavailable { detail: "131016: down".into(), wait };
    (0..4).for_each(|_| account.feel(way, down(None), now, WALL()));
    assert!(door(&mut account, now).is_some(), "it may be about the messages");
    account.feel(way, down(None), now, WALL());
    assert_eq!(door(&mut account, now), None);
    let Health::Waiting(reason, message) = account.health(true, now, WALL()) else { panic!("it waits") };
    assert!(reason == "GatewayUnavailable" && message.contains("131016: down"), "{reason}: {message}");
    let status = json!({"observedGeneration": 1, "conditions": [
        {"type": "Ready", "status": "False", "reason": reason, "message": message,
         "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": 1},
    ]});
    let mut next = Account::new();
    enter(&mut next, &channel("uid", 1, &json!({}), &status), "token", now);
    assert_eq!(next.second_of_work(500), 1, "one message, to see");
    account.feel(way, down(Some(Duration::from_secs(120))), now, WALL());
    assert!(matches!(account.health(true, now, WALL()), Health::Throttled(_)), "it said how long");
}

#[test]
fn a_wait_in_the_answer_of_a_server_that_is_not_available_is_kept() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    let wait = Some(Duration::from_secs(120));
    account.feel(way, ChannelEffect::Uncertain { detail: "503".into(), wait }, now, WALL());
    assert_eq!(door(&mut account, now + Duration::from_secs(119)), None);
    let until = "2026-11-23T10:02:00Z".parse().expect("time");
    assert_eq!(account.health(true, now, WALL()), Health::Throttled(until));
}

#[path = "account/forgiving_tests.rs"]
mod forgiving;
#[path = "account/health_tests.rs"]
mod in_the_status;
#[path = "account/lookup_tests.rs"]
mod lookups;
#[path = "account/day_tests.rs"]
mod of_a_day;
#[path = "account/opening_tests.rs"]
mod opening;
#[path = "account/reading_tests.rs"]
mod reading_again;
#[path = "account/reported_tests.rs"]
mod reported_by_receipts;
#[path = "account/receipt_secrets_tests.rs"]
mod secrets_of_receipts;
#[path = "account/settled_tests.rs"]
mod settled;
