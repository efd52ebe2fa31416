use SenderTrouble::{AccountRestricted, AuthenticationFailed, PaymentRequired};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// The same channel with this status, in which a receipt says this.
fn told(status: &Value, reason: &str, time: &str) -> Arc<BroadcastChannel> {
    let mut status = status.clone();
    if status.is_null() {
        status = json!({"observedGeneration": 1, "activeBroadcasts": 0});
    }
    status["reported"] = json!({"reason": reason, "code": "131042", "message": "said so", "time": time});
    channel("uid", 1, &json!({}), &status)
}

const JUST_NOW: &str = "2026-11-23T09:59:59Z";

fn missing() -> Trouble {
    Trouble { reason: "SecretNotFound", message: "no such Secret".into(), is_passing: false }
}

/// An account that is open with this token.
fn open(token: &str, now: Instant) -> (Account, Arc<BroadcastChannel>, DoorNumber) {
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    enter(&mut account, &channel, token, now);
    let way = door(&mut account, now).expect("should be open");
    (account, channel, way)
}

fn read(account: &mut Account, channel: &Arc<BroadcastChannel>, read: Result<Opened, Trouble>, now: Instant) {
    account.observe(Some(channel.clone()), now, WALL());
    account.is_reading = true;
    account.open(Version::of(channel), read, now, WALL());
    account.observe(Some(channel.clone()), now, WALL());
}

#[test]
fn what_a_receipt_says_is_about_the_credentials_that_were_used_and_not_about_those_that_come_after_them() {
    let now = clock::monotonic();
    let good = |channel: &BroadcastChannel, token| Opened { probed: Probed::Good, ..opened(channel, token) };
    let told = told(&Value::Null, "AuthenticationFailed", JUST_NOW);
    for (token, is_open) in [("new", true), ("old", false)] {
        let (mut account, channel, _) = open("old", now);
        read(&mut account, &channel, Err(missing()), now + BUSY_LOOK);
        account.observe(Some(told.clone()), now + BUSY_LOOK, WALL());
        let status = status_of(&mut account, &told, now + BUSY_LOOK);
        assert_eq!(status["stop"]["reason"], "AuthenticationFailed", "it counts at once");
        read(&mut account, &told, Ok(good(&told, token)), now + BUSY_LOOK * 2);
        assert_eq!(door(&mut account, now + BUSY_LOOK * 2).is_some(), is_open, "{token}");
        let status = status_of(&mut account, &told, now + BUSY_LOOK * 2);
        assert_eq!(status["reported"].is_null(), is_open, "{status}");
        assert_eq!(status["settledTime"].is_string(), is_open, "{status}");
    }
}

#[test]
fn a_receipt_that_comes_while_the_credentials_are_refused_for_something_else_condemns_no_others() {
    let now = clock::monotonic();
    let told = told(&Value::Null, "AccountRestricted", JUST_NOW);
    for (token, is_open) in [("new", true), ("old", false)] {
        let (mut account, _, way) = open("old", now);
        account.feel(way, refused(), now, WALL());
        account.observe(Some(told.clone()), now, WALL());
        let later = now + REFUSED_RETRY;
        read(&mut account, &told, Ok(opened(&told, token)), later);
        assert_eq!(door(&mut account, later).is_some(), is_open, "{token}");
        let status = status_of(&mut account, &told, later);
        assert_eq!(status["reported"].is_null(), is_open, "{status}");
    }
}

/// What the status of a channel says after a receipt of a message that was sent just now told of this, and whether it was written down.
fn hear(account: &mut Account, status: &mut Value, spec: &Value, (reason, code): (&str, &str)) -> bool {
    let mut heard = BroadcastChannel::clone(&channel("uid", 1, spec, status));
    let gateway = GatewayMark::of(&heard).digest;
    let report = json!({"reason": reason, "code": code, "message": "said so", "time": JUST_NOW, "observedGateway": gateway});
    let report = serde_json::from_value(report).expect("a report");
    let is_news = crate::stops::is_news(&heard, &report, a_second_later(), WALL());
    if is_news {
        heard.status.get_or_insert_default().reported = Some(report);
    }
    let (heard, now) = (Arc::new(heard), clock::monotonic());
    account.observe(Some(heard.clone()), now, WALL());
    *status = status_of(account, &heard, now);
    is_news
}

#[test]
fn receipts_that_tell_by_turns_of_two_troubles_are_written_down_once() {
    let (restricted, unpaid) = (("AccountRestricted", "131031"), ("PaymentRequired", "131042"));
    let now = clock::monotonic();
    let (mut account, mut status) = (Account::new(), Value::Null);
    let spec = json!({});
    enter(&mut account, &plain("uid", 1), "old", now);
    assert!(hear(&mut account, &mut status, &spec, restricted));
    // Others are put in, and these again: they are still refused.
    for token in ["new", "old"] {
        let channel = channel("uid", 1, &spec, &status);
        read(&mut account, &channel, Ok(opened(&channel, token)), now);
        status = status_of(&mut account, &channel, now);
    }
    assert!(status["reported"].is_null(), "{status}");
    let stop = status["stop"].clone();
    for _ in 0..3 {
        assert!(!hear(&mut account, &mut status, &spec, unpaid), "{status}");
        assert!(!hear(&mut account, &mut status, &spec, restricted), "{status}");
        assert_eq!(status["stop"], stop);
    }
}

#[test]
fn a_report_that_is_written_down_before_it_is_known_that_it_is_settled_condemns_no_other_credentials() {
    let now = clock::monotonic();
    // When its message was sent, where that is known, and when it failed.
    for (sent, failed, is_open) in [
        (Some("2026-11-23T09:59:58Z"), "2026-11-23T10:00:05Z", true),
        (Some("2026-11-23T10:00:00Z"), "2026-11-23T10:00:05Z", true),
        (Some("2026-11-23T10:00:01Z"), "2026-11-23T10:00:05Z", false),
        (None, "2026-11-23T09:59:59Z", true),
        (None, "2026-11-23T10:00:01Z", false),
    ] {
        let (mut account, channel, _) = open("old", now);
        read(&mut account, &channel, Ok(opened(&channel, "new")), now + BUSY_LOOK);
        let mut told = BroadcastChannel::clone(&told(&Value::Null, "AuthenticationFailed", failed));
        let reported = told.status.as_mut().and_then(|status| status.reported.as_mut()).expect("a report");
        reported.sent = sent.map(|sent| Time(sent.parse().expect("time")));
        let told = Arc::new(told);
        account.observe(Some(told.clone()), now + BUSY_LOOK, WALL());
        let status = status_of(&mut account, &told, now + BUSY_LOOK);
        assert_eq!(status["stop"].is_null() && status["reported"].is_null(), is_open, "{sent:?} {status}");
        // The next process knows when it was settled by the status alone.
        let mut both = BroadcastChannel::clone(&told);
        both.status.get_or_insert_default().settled_time = Some(Time(WALL()));
        let (mut next, both) = (Account::new(), Arc::new(both));
        enter(&mut next, &both, "new", now);
        next.observe(Some(both.clone()), now, WALL());
        assert_eq!(status_of(&mut next, &both, now)["stop"].is_null(), is_open, "{sent:?}");
    }
}

#[test]
fn what_receipts_say_of_an_account_outlasts_a_rule_that_stopped_it_first() {
    let now = clock::monotonic();
    let rule = json!({"errorPolicy": [{"codes": ["7"], "action": "StopChannel"}]});
    let (by_rule, restricted) = (("StoppedByErrorPolicy", "7"), ("AccountRestricted", "131031"));
    let (mut account, mut status) = (Account::new(), Value::Null);
    enter(&mut account, &channel("uid", 1, &rule, &status), "token", now);
    for (told, is_written) in [(by_rule, true), (restricted, true), (by_rule, false), (restricted, false)] {
        assert_eq!(hear(&mut account, &mut status, &rule, told), is_written, "{told:?} {status}");
    }
    assert_eq!(status["stop"]["reason"], "AccountRestricted", "{status}");
    let without = channel("uid", 2, &json!({}), &status);
    read(&mut account, &without, Ok(opened(&without, "token")), now);
    assert_eq!(door(&mut account, now), None, "no rule ends that");
}

#[test]
fn other_credentials_settle_what_was_sent_with_those_before() {
    let now = clock::monotonic();
    let (mut account, channel, _) = open("old", now);
    assert!(status_of(&mut account, &channel, now)["settledTime"].is_null());
    let later = now + BUSY_LOOK;
    read(&mut account, &channel, Ok(opened(&channel, "old")), later);
    assert!(status_of(&mut account, &channel, later)["settledTime"].is_null(), "they are the same");
    read(&mut account, &channel, Ok(opened(&channel, "new")), later + BUSY_LOOK);
    for _ in 0..2 {
        let status = status_of(&mut account, &channel, later + BUSY_LOOK);
        assert_eq!(status["settledTime"], "2026-11-23T10:00:00Z", "{status}");
    }
}

#[test]
fn other_credentials_after_a_secret_that_was_missing_begin_with_one_message_and_the_same_ones_do_not() {
    let now = clock::monotonic();
    for (token, rows) in [("new", 1), ("old", 500)] {
        let (mut account, channel, _) = open("old", now);
        read(&mut account, &channel, Err(missing()), now + BUSY_LOOK);
        read(&mut account, &channel, Ok(opened(&channel, token)), now + BUSY_LOOK * 2);
        assert!(door(&mut account, now + BUSY_LOOK * 2).is_some());
        assert_eq!(account.second_of_work(500), rows, "{token}");
    }
}

#[test]
fn a_wait_is_of_the_gateway_whatever_became_of_the_credentials_of_the_request() {
    let now = clock::monotonic();
    let asked = Some(Duration::from_secs(3 * 3600));
    let unavailable = ChannelEffect::Unavailable { detail: "503".into(), wait: asked };
    let uncertain = ChannelEffect::Uncertain { detail: "503".into(), wait: asked };
    for effect in [ChannelEffect::Throttle(asked), unavailable, uncertain] {
        for token in ["old", "new"] {
            let (mut account, channel, way) = open("old", now);
            let later = now + BUSY_LOOK;
            read(&mut account, &channel, Err(missing()), later);
            read(&mut account, &channel, Ok(opened(&channel, token)), later + SECRET_POLL);
            account.feel(way, effect.clone(), later + SECRET_POLL, WALL());
            assert_eq!(door(&mut account, later + SECRET_POLL), None, "{token} {effect:?}");
            account.feel(way, refused(), later + SECRET_POLL, WALL());
            let is_refused = account.state(true, later, WALL()).stop.is_some();
            assert_eq!(is_refused, token == "old", "a stop is of the credentials");
        }
    }
}

#[test]
fn of_what_requests_in_flight_together_say_the_graver_counts() {
    let now = clock::monotonic();
    let said = |trouble| halt(trouble, "1", "said so");
    for (first, second, expected) in [
        (AuthenticationFailed, AccountRestricted, AccountRestricted),
        (AccountRestricted, AuthenticationFailed, AccountRestricted),
        (AuthenticationFailed, PaymentRequired, PaymentRequired),
        (PaymentRequired, AccountRestricted, AccountRestricted),
    ] {
        let (mut account, channel, way) = open("token", now);
        account.feel(way, said(first), now, WALL());
        // The Secret is read at once.
        enter(&mut account, &channel, "token", now);
        account.feel(way, said(second), now, WALL());
        let state = account.state(true, now, WALL());
        assert_eq!(state.stop.map(|stop| stop.reason), Some(expected.reason()), "{first:?} {second:?}");
        let Health::Stalled(reason, _) = state.health else { panic!("stalled") };
        assert_eq!(reason, expected.reason().as_str());
    }
}

#[test]
fn the_next_process_sends_one_message_to_see_after_whatever_was_in_the_way_of_the_one_before() {
    let now = clock::monotonic();
    let stop = json!({"reason": "AccountRestricted", "code": "131048", "message": "spam"});
    let over = json!("2026-11-23T09:59:00Z");
    let gateway = GatewayMark::of(&plain("uid", 1)).digest;
    let daily = json!([{"type": "Throttled", "status": "True", "reason": "DailyLimit", "message": "", "observedGeneration": 1,
                        "lastTransitionTime": "2026-11-23T10:00:00Z"}]);
    for (gateway, status, rows) in [
        (&*gateway, json!({}), 500),
        (&*gateway, json!({"throttledUntil": over}), 1),
        (&*gateway, json!({"throttledUntil": over, "conditions": daily}), 500),
        ("of before", json!({"throttledUntil": over}), 1),
        ("of before", json!({"throttledUntil": "2026-11-23T13:00:00Z"}), 1),
        ("of before", json!({"stop": stop}), 1),
        ("of before", json!({}), 500),
    ] {
        let mut before = json!({"observedGeneration": 1, "activeBroadcasts": 0, "observedGateway": gateway});
        before.as_object_mut().expect("an object").extend(status.as_object().expect("an object").clone());
        let mut next = Account::new();
        enter(&mut next, &channel("uid", 1, &json!({}), &before), "token", now);
        assert!(door(&mut next, now).is_some(), "{before}");
        assert_eq!(next.second_of_work(500), rows, "{before}");
    }
}

#[test]
fn a_report_that_no_sender_has_slowed_down_for_slows_down_the_next_one() {
    let now = clock::monotonic();
    let throttled = json!([{"type": "Throttled", "status": "True", "reason": "RateLimitReported", "message": "",
                            "observedGeneration": 1, "lastTransitionTime": "2026-11-23T10:00:00Z"}]);
    let status = |more: Value| {
        let mut status = json!({"observedGeneration": 1, "activeBroadcasts": 0});
        status.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        status
    };
    for (time, more, until) in [
        (JUST_NOW, json!({}), Some("2026-11-23T10:00:10Z")),
        (
            JUST_NOW,
            json!({"throttledUntil": "2026-11-23T10:00:09Z", "conditions": throttled}),
            Some("2026-11-23T10:00:09Z"),
        ),
        ("2026-11-23T09:59:29Z", json!({}), None),
    ] {
        let told = told(&status(more), "RateLimited", time);
        let mut next = Account::new();
        enter(&mut next, &told, "token", now);
        next.observe(Some(told), now, WALL());
        let expected = until.map_or(Health::Ready, |until| Health::TooFast(until.parse().expect("time")));
        assert_eq!(next.health(true, now, WALL()), expected, "{time}");
    }
}
