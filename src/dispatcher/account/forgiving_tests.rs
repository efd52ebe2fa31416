use SenderTrouble::{AccountRestricted, ByErrorPolicy};

use super::*;

const HOURS: Duration = Duration::from_secs(3 * 3600);

/// The same channel with this status and this value of the annotation.
fn asked_again(channel: &BroadcastChannel, status: &Value, token: &str) -> Arc<BroadcastChannel> {
    let mut channel = channel.clone();
    channel.metadata.annotations.get_or_insert_default().insert(TRY_AGAIN.into(), token.into());
    channel.status = serde_json::from_value(status.clone()).expect("a status");
    Arc::new(channel)
}

const TRY_AGAIN: &str = crate::api::TRY_AGAIN_ANNOTATION;

/// Looks at a channel, and reads it if that is wanted.
fn look(account: &mut Account, channel: &Arc<BroadcastChannel>, now: Instant) {
    if account.observe(Some(channel.clone()), now, WALL()).is_some() {
        account.open(Version::of(channel), Ok(opened(channel, "token")), now, WALL());
    }
    account.observe(Some(channel.clone()), now, WALL());
}

/// What is in the way of a channel: a wait, or a stop.
fn in_the_way() -> [ChannelEffect; 2] {
    let restricted = halt(SenderTrouble::AccountRestricted, "131031", "131031: locked");
    [ChannelEffect::Throttle(Some(HOURS)), restricted]
}

/// Changes of a spec by which no answer of the gateway can be another one.
fn changes() -> [Value; 5] {
    [
        json!({"limits": {"messagesPerSecond": 5}}),
        json!({"errorPolicy": [{"codes": ["7"], "action": "Fail"}]}),
        json!({"defaultRegion": "ES"}),
        json!({"paused": true}),
        json!({"http": {"url": "http://127.0.0.1:1/", "timeoutSeconds": 5}}),
    ]
}

#[test]
fn a_change_that_no_answer_can_depend_on_ends_neither_a_wait_nor_a_stop() {
    let now = clock::monotonic();
    for (effect, change) in in_the_way().into_iter().flat_map(|it| changes().map(|to| (it.clone(), to))) {
        let mut account = Account::new();
        enter(&mut account, &plain("uid", 1), "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, effect.clone(), now, WALL());
        let changed = channel("uid", 2, &change, &Value::Null);
        look(&mut account, &changed, now);
        let status = status_of(&mut account, &changed, now);
        let again = channel("uid", 3, &json!({}), &status);
        look(&mut account, &again, now);
        assert_eq!(door(&mut account, now), None, "{effect:?} {change}");
        // Nor with the next process, whichever version it begins with.
        for before in [channel("uid", 2, &change, &status), again] {
            let mut next = Account::new();
            look(&mut next, &before, now);
            look(&mut next, &channel("uid", 3, &json!({}), &status), now);
            assert_eq!(door(&mut next, now + HOURS / 2), None, "{effect:?} {change}");
        }
    }
}

#[test]
fn another_gateway_and_a_new_value_of_the_annotation_end_them_with_one_message_to_see() {
    let now = clock::monotonic();
    for effect in in_the_way() {
        let halted = || {
            let (mut account, channel) = (Account::new(), plain("uid", 1));
            enter(&mut account, &channel, "token", now);
            let way = door(&mut account, now).expect("should be open");
            account.feel(way, effect.clone(), now, WALL());
            let status = status_of(&mut account, &channel, now);
            (account, channel, way, status)
        };
        let (mut account, channel, way, status) = halted();
        look(&mut account, &at_another_url("uid", 2), now);
        assert!(door(&mut account, now).is_some_and(|new| new != way), "{effect:?}");
        assert_eq!(account.second_of_work(500), 1);

        let (mut same, ..) = halted();
        let asked = asked_again(&channel, &status, "1");
        look(&mut same, &asked, now);
        assert!(door(&mut same, now).is_some_and(|new| new != way), "{effect:?}: it is another door");
        for account in [&mut same, &mut Account::new()] {
            look(account, &asked, now);
            let new = door(account, now).expect("it tries again");
            // The door of another process has the same number by chance.
            if new != way {
                account.feel(way, effect.clone(), now, WALL());
                assert_eq!(door(account, now), Some(new), "{effect:?}: what was in flight before is over");
            }
            // The provider says it again: the same value, and none, end it no more.
            account.feel(new, effect.clone(), now, WALL());
            let status = status_of(account, &asked, now);
            assert_eq!(status["tryAgainToken"], "1");
            let mut without = BroadcastChannel::clone(&asked);
            without.metadata.annotations = None;
            without.status = serde_json::from_value(status.clone()).expect("a status");
            for still in [asked_again(&channel, &status, "1"), Arc::new(without)] {
                look(account, &still, now);
                assert_eq!(door(account, now), None, "{effect:?}");
                let mut next = Account::new();
                look(&mut next, &still, now);
                assert_eq!(door(&mut next, now), None, "{effect:?}");
            }
            look(account, &asked_again(&channel, &status, "2"), now);
            assert!(door(account, now).is_some(), "{effect:?}");
        }
    }
}

#[test]
fn what_was_in_flight_while_the_limits_were_changed_still_speaks_of_the_account() {
    let now = clock::monotonic();
    for change in changes() {
        let mut account = Account::new();
        enter(&mut account, &plain("uid", 1), "token", now);
        let way = door(&mut account, now).expect("should be open");
        look(&mut account, &channel("uid", 2, &change, &Value::Null), now);
        account.feel(way, ChannelEffect::Throttle(Some(HOURS)), now, WALL());
        assert!(account.caution.rest(now).is_some(), "{change}");
    }
}

#[test]
fn a_stop_ends_when_the_rules_say_that_its_code_is_none() {
    let now = clock::monotonic();
    let rules = |code: &str, action: &str| json!({"errorPolicy": [{"codes": [code], "action": action}]});
    let (stop, none) = (rules("7", "StopChannel"), json!({}));
    for (trouble, before, after, is_over) in [
        (ByErrorPolicy, &stop, &none, true),
        (ByErrorPolicy, &stop, &rules("7", "Fail"), true),
        (ByErrorPolicy, &stop, &json!({"limits": {"burst": 5}, "errorPolicy": stop["errorPolicy"]}), false),
        (AccountRestricted, &none, &rules("7", "Fail"), true),
        (AccountRestricted, &none, &rules("8", "Fail"), false),
        (AccountRestricted, &none, &stop, false),
    ] {
        let (mut account, first) = (Account::new(), channel("uid", 1, before, &Value::Null));
        enter(&mut account, &first, "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, halt(trouble, "7", "7: no"), now, WALL());
        let status = status_of(&mut account, &first, now);
        let changed = channel("uid", 2, after, &status);
        for account in [&mut account, &mut Account::new()] {
            look(account, &changed, now);
            let is_open = account.second_of_work(500) == 1 && account.is_open(now, WALL());
            assert_eq!(is_open, is_over, "{trouble:?} {before} {after}");
        }
        // An answer that was judged by the rules before comes late.
        if is_over {
            account.feel(account.door_number, halt(trouble, "7", "7: no"), now, WALL());
            assert!(account.is_open(now, WALL()), "{trouble:?} {before} {after}");
        }
    }
}

#[test]
fn credentials_that_a_provider_says_nothing_of_are_asked_about_again_until_it_does() {
    let now = clock::monotonic();
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    let asked = |account: &mut Account, probed: Probed, now: Instant| {
        assert!(account.observe(Some(channel.clone()), now, WALL()).is_some(), "should want to read");
        assert!(account.known(now).told.is_empty(), "the provider is asked");
        account.open(Version::of(&channel), Ok(Opened { probed, ..opened(&channel, "token") }), now, WALL());
        account.health(false, now, WALL())
    };
    let silent = || not_told("no connection", None);
    let unsure = Health::NotVerified("no connection".into());
    let mut later = now;
    assert_eq!(asked(&mut account, silent(), later), unsure);
    let way = door(&mut account, now).expect("messages are sent all the same");
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        let early = later + Duration::from_secs(seconds - 1);
        assert!(account.observe(Some(channel.clone()), early, WALL()).is_none(), "{seconds} s");
        later += Duration::from_secs(seconds);
        assert_eq!(asked(&mut account, silent(), later), unsure, "{seconds} s");
    }
    assert_eq!(door(&mut account, later), Some(way), "it is the same door");
    assert_eq!(asked(&mut account, Probed::Good, later + Duration::from_secs(300)), Health::Ready);

    let mut account = Account::new();
    assert_eq!(asked(&mut account, silent(), now), unsure);
    let way = door(&mut account, now).expect("open");
    account.feel(way, ChannelEffect::Working, now, WALL());
    assert_eq!(account.health(false, now, WALL()), Health::Ready, "it took a message");
}

#[test]
fn a_status_that_is_written_before_the_settings_are_read_anew_has_the_stop_unless_it_was_forgiven() {
    let now = clock::monotonic();
    let [_, restricted] = in_the_way();
    let stopped = || {
        let (mut account, channel) = (Account::new(), plain("uid", 1));
        enter(&mut account, &channel, "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, restricted.clone(), now, WALL());
        let status = status_of(&mut account, &channel, now);
        (account, channel, status)
    };
    for change in changes() {
        let (mut account, _, status) = stopped();
        let changed = channel("uid", 2, &change, &status);
        assert!(account.observe(Some(changed.clone()), now, WALL()).is_some(), "it is read anew");
        assert_eq!(status_of(&mut account, &changed, now)["stop"]["code"], "131031", "{change}");
    }
    let (mut account, channel, status) = stopped();
    let asked = asked_again(&channel, &status, "1");
    assert!(account.observe(Some(asked.clone()), now, WALL()).is_some(), "it is read anew");
    let status = status_of(&mut account, &asked, now);
    assert!(status["stop"].is_null() && status["settledTime"].is_string(), "{status}");
}

#[test]
fn a_stop_outlives_a_secret_that_cannot_be_read_and_the_process_after_that() {
    let now = clock::monotonic();
    let [_, restricted] = in_the_way();
    for (reason, is_passing, shown) in
        [("SecretUnreadable", true, "AccountRestricted"), ("SecretNotFound", false, "SecretNotFound")]
    {
        let (mut account, channel) = (Account::new(), plain("uid", 1));
        enter(&mut account, &channel, "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, restricted.clone(), now, WALL());
        let stopped = status_of(&mut account, &channel, now);
        assert!(account.observe(Some(channel.clone()), now, WALL()).is_some(), "the Secret is read");
        let trouble = Trouble { reason, message: "no Secret".into(), is_passing };
        account.open(Version::of(&channel), Err(trouble), now, WALL());
        let status = status_of(&mut account, &channel, now);
        assert_eq!(status["stop"], stopped["stop"], "{reason}");
        assert!(
            matches!(account.health(true, now, WALL()), Health::Stalled(why, _) if why == shown),
            "{reason}"
        );
        let later = now + SECRET_POLL;
        for account in [&mut account, &mut Account::new()] {
            look(account, &self::channel("uid", 1, &json!({}), &status), later);
            assert_eq!(door(account, later), None, "{reason}");
            assert_eq!(status_of(account, &channel, later)["stop"]["code"], "131031", "{reason}");
        }
        look(&mut account, &channel, later + SECRET_POLL);
        enter(&mut account, &channel, "another", later + SECRET_POLL * 2);
        assert!(door(&mut account, later + SECRET_POLL * 2).is_some(), "{reason}: other credentials");
    }
}

#[test]
fn a_stop_that_is_heard_of_while_settings_are_read_anew_is_no_less_one() {
    let now = clock::monotonic();
    let [_, restricted] = in_the_way();
    let reading = || {
        let (mut account, channel) = (Account::new(), plain("uid", 1));
        enter(&mut account, &channel, "token", now);
        let way = door(&mut account, now).expect("should be open");
        let changed = self::channel("uid", 2, &changes()[4], &Value::Null);
        assert!(account.observe(Some(changed.clone()), now, WALL()).is_some(), "it is read anew");
        (account, changed, way)
    };
    let (mut account, changed, way) = reading();
    account.feel(way, restricted, now, WALL());
    account.open(Version::of(&changed), Ok(opened(&changed, "token")), now, WALL());
    assert_eq!(door(&mut account, now), None);
    assert_eq!(status_of(&mut account, &changed, now)["stop"]["code"], "131031");

    let (mut account, changed, door_number) = reading();
    let (trouble, detail) = (AccountRestricted, "20005: suspended".into());
    account.lookup_refused(&LookupRefused { door: door_number, trouble, detail }, now);
    account.open(Version::of(&changed), Ok(opened(&changed, "token")), now, WALL());
    assert_eq!(door(&mut account, now), None);
}

/// Opens the door of the next process, which finds this status, after the provider was asked.
fn next_is_open(status: &Value, probed: Probed, now: Instant) -> (bool, Value) {
    let (mut account, channel) = (Account::new(), channel("uid", 1, &json!({}), status));
    assert!(account.observe(Some(channel.clone()), now, WALL()).is_some());
    account.open(Version::of(&channel), Ok(Opened { probed, ..opened(&channel, "token") }), now, WALL());
    (door(&mut account, now).is_some(), status_of(&mut account, &channel, now))
}

#[test]
fn what_a_question_showed_a_question_ends_after_a_restart_too() {
    let now = clock::monotonic();
    let suspended = Probed::Refused(AccountRestricted, "20005: suspended".into());
    let (is_open, mut status) = next_is_open(&Value::Null, suspended.clone(), now);
    assert!(!is_open);
    for (probed, expected) in [(Probed::NotAsked, false), (suspended, false), (Probed::Good, true)] {
        let (is_open, next) = next_is_open(&status, probed, now);
        assert_eq!(is_open, expected);
        status = next;
    }
    let by_answer = json!({"reason": "AccountRestricted", "code": "131031", "message": "locked"});
    let gateway = GatewayMark::of(&plain("uid", 1)).digest;
    let status = json!({"observedGeneration": 1, "observedGateway": gateway, "stop": by_answer});
    assert!(!next_is_open(&status, Probed::Good, now).0, "a message has shown it");
}

#[test]
fn a_stop_of_a_version_without_stops_says_what_ends_it_and_needs_a_person() {
    let now = clock::monotonic();
    for reason in ["AccountRestricted", "StoppedByErrorPolicy"] {
        let stalled = json!({"type": "Stalled", "status": "True", "reason": reason, "observedGeneration": 1,
                             "message": "set spec.paused to true and back to false",
                             "lastTransitionTime": "2026-11-23T10:00:00Z"});
        let mut status = json!({"observedGeneration": 1, "conditions": [stalled]});
        for _ in 0..3 {
            let (is_open, next) = next_is_open(&status, Probed::Good, now);
            assert!(!is_open, "{reason}");
            let message = next["stop"]["message"].as_str().expect("a text").to_owned();
            assert!(message.contains("try-again") && !message.contains("spec.paused"), "{message}");
            assert!(!message.contains("the rule is taken away"), "{message}");
            status = next;
        }
        let asked = asked_again(&plain("uid", 1), &status, "1");
        let mut account = Account::new();
        look(&mut account, &asked, now);
        assert!(door(&mut account, now).is_some(), "{reason}");
    }
}
