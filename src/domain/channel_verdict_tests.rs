use super::*;
use crate::api::{BroadcastChannelSpec, Condition, ProviderName, TroubleReason};

fn state(channel: &BroadcastChannel, health: &Health) -> AccountState {
    let stop = match health {
        Health::Stalled("AccountRestricted", message) => Some(ChannelStop {
            reason: TroubleReason::AccountRestricted,
            code: "131031".into(),
            shown_by: None,
            message: message.clone(),
        }),
        _ => None,
    };
    let gateway = GatewayMark::of(channel);
    let before = channel.status.clone().unwrap_or_default();
    let stops = [&stop, &before.stop].map(|stop| stop.as_ref().map(|stop| stop.reason));
    // As an account does that has stopped for it, or its process before.
    let heeded = before.reported.filter(|reported| stops.contains(&Some(reported.reason)));
    let health = health.clone();
    AccountState { health, asked_until: None, stop, heeded, settled: None, gateway, receipts: None }
}

fn status(channel: &BroadcastChannel, health: &Health) -> ChannelStatus {
    let state = state(channel, health);
    channel_status(channel, &state, 0, &mut DayCount::default(), Timestamp::UNIX_EPOCH)
}

fn channel() -> BroadcastChannel {
    let mut channel = BroadcastChannel::new("sms", BroadcastChannelSpec::of(ProviderName::Http));
    channel.metadata.generation = Some(1);
    channel
}

fn report(channel: &mut BroadcastChannel, reason: TroubleReason) {
    let observed_gateway = GatewayMark::of(channel).digest;
    channel.status.get_or_insert_default().reported = Some(ReportedTrouble {
        reason,
        code: "131031".into(),
        message: String::new(),
        observed_gateway,
        time: Time(Timestamp::UNIX_EPOCH),
        sent: None,
    });
}

fn restricted() -> Health {
    Health::Stalled("AccountRestricted", "restricted".into())
}

#[test]
fn what_receipts_report_stands_there_until_the_channel_goes_on_after_it() {
    let mut channel = channel();
    report(&mut channel, TroubleReason::AccountRestricted);
    let mut is_there_with = |generation, health: &Health| {
        channel.metadata.generation = Some(generation);
        let status = status(&channel, health);
        let is_there = status.reported.is_some();
        channel.status =
            Some(ChannelStatus { reported: channel.status.take().and_then(|s| s.reported), ..status });
        is_there
    };
    assert!(is_there_with(1, &Health::Ready));
    assert!(is_there_with(1, &Health::Stalled("AuthenticationFailed", String::new())));
    assert!(is_there_with(1, &Health::Ready), "it stopped for something else");
    assert!(is_there_with(1, &restricted()));
    assert!(is_there_with(2, &restricted()), "another generation is not another gateway");
    assert!(!is_there_with(2, &Health::Ready));
    channel.spec.ca_secret_ref = Some(crate::api::KeyRef { name: "ca".into(), key: "ca".into() });
    assert_eq!(status(&channel, &restricted()).reported, None, "it was of another gateway");
}

#[test]
fn an_account_that_was_not_read_yet_has_settled_nothing() {
    let mut channel = channel();
    report(&mut channel, TroubleReason::AccountRestricted);
    let stopped = status(&channel, &restricted());
    channel.status = Some(stopped.clone());
    for _ in 0..2 {
        let opening = status(&channel, &Health::Opening);
        assert_eq!(
            (&opening.stop, &opening.reported, &opening.settled_time),
            (&stopped.stop, &stopped.reported, &None)
        );
        channel.status = Some(opening);
    }
    let ready = status(&channel, &Health::Ready);
    assert!(ready.stop.is_none() && ready.reported.is_none(), "{ready:?}");
}

#[test]
fn what_was_settled_last_stands_there_whatever_the_account_is_like_when_it_is_written() {
    let time = |second| Timestamp::from_second(second).ok();
    for (told, settled, expected) in [(None, 7, 7), (Some(5), 7, 7), (Some(9), 7, 9)] {
        for health in [Health::Opening, Health::Ready, restricted()] {
            let mut channel = channel();
            channel.status.get_or_insert_default().settled_time = told.and_then(time).map(Time);
            let state = AccountState { settled: time(settled), ..state(&channel, &health) };
            let now = time(100).expect("small");
            let after = channel_status(&channel, &state, 0, &mut DayCount::default(), now);
            assert_eq!(after.settled_time, time(expected).map(Time), "{told:?} {health:?}");
        }
    }
}

#[test]
fn that_it_was_too_fast_stands_there_for_some_minutes() {
    let mut channel = channel();
    report(&mut channel, TroubleReason::RateLimited);
    for (second, expected) in [(0, true), (300, true), (301, false)] {
        let now = Timestamp::from_second(second).expect("small");
        for health in [Health::Ready, Health::Throttled(now)] {
            let state = state(&channel, &health);
            let status = channel_status(&channel, &state, 0, &mut DayCount::default(), now);
            assert_eq!(status.reported.is_some(), expected, "{second} s, {health:?}");
        }
    }
}

#[test]
fn the_brake_hides_a_stop_from_people_and_from_no_process() {
    let mut channel = channel();
    channel.status = Some(status(&channel, &restricted()));
    channel.spec.paused = true;
    channel.status = Some(status(&channel, &restricted()));
    let paused = channel.status.clone().expect("a status");
    assert!(Condition::is_true(&paused.conditions, "Ready"));
    assert!(!Condition::is_true(&paused.conditions, "Stalled"));
    assert_eq!(paused.stop.map(|stop| stop.reason), Some(TroubleReason::AccountRestricted));
    let full = status(&channel, &Health::DayIsFull(Timestamp::UNIX_EPOCH));
    assert_eq!(full.throttled_until, None, "the next process would keep it as a wait of the gateway");
}

#[test]
fn texts_name_the_time_and_do_not_say_that_no_chat_fails_where_receipts_tell_of_failures() {
    let channel = channel();
    let until: Timestamp = "2026-11-23T13:00:00Z".parse().expect("time");
    for (health, reason, no_chat_fails) in [
        (Health::Throttled(until), "RateLimited", true),
        (Health::TooFast(until), RATE_LIMIT_REPORTED, false),
        (Health::DayIsFull(until), DAILY_LIMIT, true),
    ] {
        let status = status(&channel, &health);
        let throttled = Condition::find(&status.conditions, "Throttled").expect("Throttled");
        assert_eq!(throttled.reason, reason);
        assert!(throttled.message.contains("2026-11-23T13:00:00Z"), "{}", throttled.message);
        assert_eq!(throttled.message.contains("no chat fails"), no_chat_fails, "{}", throttled.message);
        assert_eq!(status.throttled_until, Some(Time(until)));
    }
}

#[test]
fn credentials_that_the_provider_said_nothing_of_make_ready_unknown_and_hold_nothing_up() {
    let status = status(&channel(), &Health::NotVerified("no connection: refused".into()));
    let ready = Condition::find(&status.conditions, "Ready").expect("Ready");
    assert_eq!((ready.status, &*ready.reason), (ConditionStatus::Unknown, NOT_VERIFIED));
    assert!(ready.message.contains("no connection: refused"), "{}", ready.message);
    for absent in ["Reconciling", "Stalled", "Throttled"] {
        assert_eq!(Condition::find(&status.conditions, absent), None);
    }
}

#[test]
fn receipts_that_cannot_be_checked_are_a_condition_of_their_own() {
    let channel = channel();
    let receipts = Some(("SecretNotFound".to_owned(), "create it".to_owned()));
    let state = AccountState { receipts, ..state(&channel, &Health::Ready) };
    let status = channel_status(&channel, &state, 0, &mut DayCount::default(), Timestamp::UNIX_EPOCH);
    assert!(Condition::is_true(&status.conditions, "Ready"), "messages are sent");
    let refused = Condition::find(&status.conditions, RECEIPTS_REFUSED).expect("the condition");
    assert_eq!((&*refused.reason, &*refused.message), ("SecretNotFound", "create it"));
}

#[test]
fn the_status_has_the_limit_that_counts() {
    let limit = |provider, limit| {
        let mut channel = BroadcastChannel::new("sms", BroadcastChannelSpec::of(provider));
        channel.spec.limits.messages_per_second = limit;
        status(&channel, &Health::Ready).messages_per_second
    };
    assert_eq!(limit(ProviderName::WhatsApp, None), Some(80));
    assert_eq!(limit(ProviderName::WhatsApp, Some(20)), Some(20));
    assert_eq!(limit(ProviderName::Http, None), None);
}
