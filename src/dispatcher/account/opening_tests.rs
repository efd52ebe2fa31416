use SenderTrouble::{AccountRestricted, AuthenticationFailed, PaymentRequired};

use super::*;

/// The status that an account writes some seconds later, of a channel with this one.
fn written(account: &mut Account, channel: &BroadcastChannel, now: Instant) -> Value {
    let later = "2026-11-23T10:00:07Z".parse().expect("time");
    let state = account.state(true, now, later);
    let status = channel_status(channel, &state, 1, account.day(), later);
    serde_json::to_value(status).expect("JSON")
}

/// An account that the gateway has refused with this, and the version of its channel that says so.
fn stopped(spec: &Value, effect: ChannelEffect, now: Instant) -> (Account, Arc<BroadcastChannel>) {
    let (mut account, first) = (Account::new(), channel("uid", 1, spec, &Value::Null));
    enter(&mut account, &first, "token", now);
    let way = door(&mut account, now).expect("should be open");
    account.feel(way, effect, now, WALL());
    let status = status_of(&mut account, &first, now);
    assert!(status["stop"].is_object() && status["settledTime"].is_null(), "{status}");
    (account, channel("uid", 1, spec, &status))
}

/// Looks at a channel, and reads it.
fn read(account: &mut Account, channel: &Arc<BroadcastChannel>, probed: Probed, now: Instant) {
    account.observe(Some(channel.clone()), now, WALL());
    account.is_reading = true;
    account.open(Version::of(channel), Ok(Opened { probed, ..opened(channel, "token") }), now, WALL());
    account.observe(Some(channel.clone()), now, WALL());
}

fn settled_at(status: &Value) -> Option<&str> {
    status["settledTime"].as_str()
}

const AT_ONCE: Option<&str> = Some("2026-11-23T10:00:00Z");

#[test]
fn what_a_person_settles_is_settled_when_it_is_seen_and_the_message_to_see_goes_out_after_that() {
    let now = clock::monotonic();
    let restricted = halt(AccountRestricted, "131031", "locked");
    for is_restarted in [false, true] {
        let (mut account, stopped) = stopped(&json!({}), restricted.clone(), now);
        if is_restarted {
            account = Account::new();
        }
        let mut asked = BroadcastChannel::clone(&stopped);
        let wish = (crate::api::TRY_AGAIN_ANNOTATION.into(), "1".into());
        asked.metadata.annotations = Some([wish].into());
        let asked = Arc::new(asked);
        read(&mut account, &asked, Probed::NotAsked, now);
        let early = "2026-11-23T10:00:00.25Z".parse().expect("time");
        let wait = account.may_send(0, now, early).err().flatten();
        assert_eq!(
            wait,
            Some(Duration::from_millis(750)),
            "the second in which it was settled is over first"
        );
        assert!(door(&mut account, now).is_some());

        let status = written(&mut account, &asked, now);
        assert_eq!(settled_at(&status), AT_ONCE, "{status}");
        let mut shown = BroadcastChannel::clone(&asked);
        shown.status = serde_json::from_value(status).expect("a status");
        let report = json!({"reason": "AccountRestricted", "code": "131031", "message": "", "time": a_second_later(),
                            "observedGateway": GatewayMark::of(&shown).digest});
        let report = serde_json::from_value(report).expect("a report");
        let is_news = |sent| crate::stops::is_news(&shown, &report, sent, a_second_later());
        assert!(is_news(a_second_later()) && !is_news(WALL()));
    }
}

#[test]
fn only_what_somebody_or_the_provider_settled_keeps_receipts_of_before_out() {
    let now = clock::monotonic();
    let minutes = |minutes: u64| now + Duration::from_secs(minutes * 60);
    let by_message = |trouble| halt(trouble, "7", "no");
    for (effect, later) in
        [(by_message(AuthenticationFailed), minutes(5)), (by_message(PaymentRequired), minutes(60))]
    {
        let (mut account, stopped) = stopped(&json!({}), effect.clone(), now);
        read(&mut account, &stopped, Probed::NotAsked, later);
        assert!(door(&mut account, later).is_some(), "it is tried again by itself");
        let status = written(&mut account, &stopped, later);
        assert!(status["stop"].is_null() && settled_at(&status).is_none(), "{effect:?} {status}");
    }

    let rule = json!({"errorPolicy": [{"codes": ["7"], "action": "StopChannel"}]});
    let (mut account, stopped) = stopped(&rule, by_message(SenderTrouble::ByErrorPolicy), now);
    let status = serde_json::to_value(&stopped.status).expect("JSON");
    let without = channel("uid", 2, &json!({}), &status);
    for account in [&mut account, &mut Account::new()] {
        read(account, &without, Probed::NotAsked, now);
        assert!(door(account, now).is_some());
        assert_eq!(settled_at(&written(account, &without, now)), None, "a rule says nothing of the account");
    }

    // What a question showed, a question settles.
    let (mut account, first) = (Account::new(), plain("uid", 1));
    read(&mut account, &first, Probed::Refused(AccountRestricted, "20005: suspended".into()), now);
    let stopped = channel("uid", 1, &json!({}), &status_of(&mut account, &first, now));
    for account in [&mut account, &mut Account::new()] {
        assert_eq!(settled_at(&written(account, &stopped, now)), None);
        read(account, &stopped, Probed::Good, now);
        assert_eq!(settled_at(&written(account, &stopped, now)), AT_ONCE);
    }
}

#[test]
fn another_gateway_settles_what_was_sent_through_the_one_before_also_while_no_process_ran() {
    let now = clock::monotonic();
    let (mut account, first) = (Account::new(), plain("uid", 1));
    enter(&mut account, &first, "token", now);
    let status = status_of(&mut account, &first, now);
    let changed = channel("uid", 2, &json!({"http": {"url": "http://127.0.0.1:2/"}}), &status);
    for account in [&mut account, &mut Account::new()] {
        account.observe(Some(changed.clone()), now, WALL());
        assert_eq!(settled_at(&written(account, &changed, now)), AT_ONCE);
        read(account, &changed, Probed::NotAsked, now);
        assert_eq!(settled_at(&written(account, &changed, now)), AT_ONCE);
    }
}
