use super::*;

#[test]
fn what_a_receipt_says_of_the_account_stops_it_once_until_its_gateway_is_another() {
    let (mut account, start) = (Account::new(), clock::monotonic());
    enter(&mut account, &plain("1", 1), "good", start);
    assert!(door(&mut account, start).is_some());
    let reported = json!({
        "observedGeneration": 1, "activeBroadcasts": 0,
        "reported": {"reason": "AccountRestricted", "code": "131031", "message": "locked",
                     "time": "2026-11-23T09:59:00Z"},
    });
    let told = channel("1", 1, &json!({}), &reported);
    account.observe(Some(told.clone()), start, WALL());
    assert!(door(&mut account, start).is_none());
    let Health::Stalled(reason, message) = account.health(true, start, WALL()) else { panic!("stalled") };
    assert!(reason == "AccountRestricted" && message.contains("131031: locked"), "{message}");
    assert!(!message.contains("no chat fails") && message.contains("are Failed"), "{message}");
    // Other credentials open it, whatever the status still says of the old ones.
    account.observe(Some(told.clone()), start, WALL());
    account.open(Version::of(&told), Ok(opened(&told, "another")), start, WALL());
    account.observe(Some(told), start, WALL());
    assert!(door(&mut account, start).is_some());
    // A report of another gateway counts no more.
    let mut reported = reported;
    reported["reported"]["observedGateway"] = json!("another");
    let (mut other, again) = (Account::new(), channel("1", 1, &json!({}), &reported));
    enter(&mut other, &again, "good", start);
    other.observe(Some(again), start, WALL());
    assert!(door(&mut other, start).is_some());
}

#[test]
fn no_time_and_no_probe_ends_what_only_a_receipt_can_show() {
    let start = clock::monotonic();
    for reason in ["PaymentRequired", "AuthenticationFailed"] {
        let reported = json!({
            "observedGeneration": 1, "activeBroadcasts": 0,
            "reported": {"reason": reason, "code": "63001", "message": "no", "time": "2026-11-23T09:59:00Z"},
        });
        let told = channel("1", 1, &json!({}), &reported);
        let mut account = Account::new();
        enter(&mut account, &told, "good", start);
        let mut look = |later, token| {
            account.observe(Some(told.clone()), later, WALL());
            account.open(
                Version::of(&told),
                Ok(Opened { probed: Probed::Good, ..opened(&told, token) }),
                later,
                WALL(),
            );
            account.observe(Some(told.clone()), later, WALL());
            door(&mut account, later).is_some()
        };
        assert!(!look(start, "good"));
        assert!(!look(start + Duration::from_secs(2 * 86_400), "good"), "{reason}");
        assert!(look(start + Duration::from_secs(2 * 86_400), "another"), "{reason}");
    }
}

/// A channel that is Stalled for this reason, as a receipt said as well.
fn stalled_for(reason: &str) -> Arc<BroadcastChannel> {
    let condition = json!({"type": "Stalled", "status": "True", "observedGeneration": 1, "reason": reason, "message": "no",
                           "lastTransitionTime": "2026-11-23T09:59:00Z"});
    let status = json!({
        "observedGeneration": 1, "activeBroadcasts": 0, "conditions": [condition],
        "reported": {"reason": reason, "code": "131042", "message": "no", "time": "2026-11-23T09:59:00Z"},
    });
    channel("1", 1, &json!({}), &status)
}

#[test]
fn the_next_sender_knows_that_no_time_ends_it() {
    let (mut account, start) = (Account::new(), clock::monotonic());
    let told = stalled_for("PaymentRequired");
    for later in [start, start + Duration::from_secs(2 * 86_400)] {
        enter(&mut account, &told, "token", later);
        account.observe(Some(told.clone()), later, WALL());
        assert!(door(&mut account, later).is_none());
    }
}

#[test]
fn credentials_that_are_good_end_what_a_receipt_and_the_provider_said_of_others() {
    let (mut account, start) = (Account::new(), clock::monotonic());
    let told = stalled_for("AuthenticationFailed");
    let refused = Probed::Refused(SenderTrouble::AuthenticationFailed, "190".into());
    for (token, probed, is_open) in [("old", refused, false), ("new", Probed::Good, true)] {
        account.observe(Some(told.clone()), start, WALL());
        account.open(Version::of(&told), Ok(Opened { probed, ..opened(&told, token) }), start, WALL());
        account.observe(Some(told.clone()), start, WALL());
        assert_eq!(door(&mut account, start).is_some(), is_open, "{token}");
    }
}

/// A channel that receipts of that time say was too fast.
fn too_fast(time: &str) -> Arc<BroadcastChannel> {
    let reported = json!({
        "observedGeneration": 1, "activeBroadcasts": 0,
        "reported": {"reason": "RateLimited", "code": "130429", "message": "rate limit hit",
                     "time": time},
    });
    channel("uid", 1, &json!({"limits": {"messagesPerSecond": 80}}), &reported)
}

#[test]
fn a_receipt_that_says_that_it_was_too_fast_makes_it_wait_and_go_on_at_half_its_speed() {
    let start = clock::monotonic();
    let mut account = Account::new();
    let before = channel("uid", 1, &json!({"limits": {"messagesPerSecond": 80}}), &Value::Null);
    enter(&mut account, &before, "token", start);
    (0..80).for_each(|_| account.take(start, WALL()));
    account.observe(Some(too_fast("2026-11-23T09:54:59Z")), start, WALL());
    assert_eq!(account.health(true, start, WALL()), Health::Ready, "that was too long ago");

    let told = too_fast("2026-11-23T09:55:00Z");
    account.observe(Some(told.clone()), start, WALL());
    let until = "2026-11-23T10:00:10Z".parse().expect("time");
    assert_eq!(account.health(true, start, WALL()), Health::TooFast(until));
    assert_eq!(door(&mut account, start), None);
    let later = start + Duration::from_secs(10);
    account.observe(Some(told.clone()), later, WALL());
    assert_eq!(account.second_of_work(500), 1, "one message, to see");
    let way = door(&mut account, later).expect("it goes on, and does not wait for the same receipt again");
    account.feel(way, ChannelEffect::Working, later, WALL());
    account.observe(Some(told), later, WALL());
    assert_eq!(account.second_of_work(500), 40);
}

#[test]
fn the_next_sender_does_not_wait_again_for_the_receipt_that_the_one_before_waited_for() {
    let now = clock::monotonic();
    let mut account = Account::new();
    let told = too_fast("2026-11-23T09:59:00Z");
    enter(&mut account, &told, "token", now);
    account.observe(Some(told), now, WALL());
    assert_eq!(account.health(true, now, WALL()), Health::Ready);
}

#[test]
fn credentials_that_only_a_receipt_shows_to_be_refused_stop_the_next_process_before_it_has_read_anything() {
    let start = clock::monotonic();
    let reported = json!({
        "observedGeneration": 1, "activeBroadcasts": 0,
        "reported": {"reason": "AuthenticationFailed", "code": "63007", "message": "no", "time": "2026-11-23T09:59:00Z"},
    });
    let told = channel("1", 1, &json!({}), &reported);
    let mut account = Account::new();
    enter(&mut account, &told, "token", start);
    account.observe(Some(told.clone()), start, WALL());
    let status = status_of(&mut account, &told, start);
    let mut next = Account::new();
    let stopped = channel("1", 1, &json!({}), &status);
    assert!(next.observe(Some(stopped.clone()), start, WALL()).is_some(), "it reads");
    let trouble = Trouble { reason: "SecretNotFound", message: String::new(), is_passing: false };
    for read in
        [None, Some(Err(trouble)), Some(Ok(Opened { probed: Probed::Good, ..opened(&told, "token") }))]
    {
        if let Some(read) = read {
            next.open(Version::of(&stopped), read, start, WALL());
        }
        let again = status_of(&mut next, &stopped, start);
        assert_eq!(again["stop"]["reason"], "AuthenticationFailed", "{again}");
        assert_eq!(again["reported"], status["reported"], "{again}");
        assert!(again["settledTime"].is_null(), "{again}");
        assert_eq!(door(&mut next, start), None);
    }
}

#[test]
fn a_report_says_more_of_the_credentials_that_are_refused_and_not_of_those_before() {
    let now = clock::monotonic();
    let (mut account, before) = (Account::new(), plain("1", 1));
    enter(&mut account, &before, "first", now);
    let way = door(&mut account, now).expect("open");
    account.feel(way, halt(SenderTrouble::AccountRestricted, "131031", ""), now, WALL());
    enter(&mut account, &before, "second", now);
    let way = door(&mut account, now).expect("open");
    account.feel(way, refused(), now, WALL());
    enter(&mut account, &before, "first", now);
    let reported = json!({
        "observedGeneration": 1, "activeBroadcasts": 0,
        "reported": {"reason": "AccountRestricted", "code": "131031", "message": "no", "time": "2026-11-23T10:00:01Z"},
    });
    account.observe(Some(channel("1", 1, &json!({}), &reported)), now, WALL());
    let Health::Stalled("AccountRestricted", message) = account.health(true, now, WALL()) else {
        panic!("stalled")
    };
    assert!(message.contains("restricted the account") && message.contains("are Failed"), "{message}");
    let stop = account.state(true, now, WALL()).stop.expect("a stop");
    assert_eq!((stop.reason, stop.message), (crate::api::TroubleReason::AccountRestricted, message));
}

#[test]
fn a_report_of_a_version_without_marks_counts_for_the_present_gateway() {
    let now = clock::monotonic();
    let reported = json!({
        "observedGeneration": 1, "activeBroadcasts": 0,
        "reported": {"reason": "AccountRestricted", "code": "131031", "message": "no", "time": "2026-11-23T09:59:00Z"},
    });
    let mut told = BroadcastChannel::clone(&channel("1", 1, &json!({}), &reported));
    let report = told.status.as_mut().and_then(|status| status.reported.as_mut()).expect("a report");
    report.observed_gateway.clear();
    let told = Arc::new(told);
    let mut account = Account::new();
    enter(&mut account, &told, "token", now);
    account.observe(Some(told.clone()), now, WALL());
    assert_eq!(door(&mut account, now), None);
    let status = status_of(&mut account, &told, now);
    assert_eq!(status["reported"]["observedGateway"], status["observedGateway"], "{status}");
    account.observe(Some(at_another_url("1", 2)), now, WALL());
    account.open(
        Version::of(&at_another_url("1", 2)),
        Ok(opened(&at_another_url("1", 2), "token")),
        now,
        WALL(),
    );
    let again = channel("1", 2, &json!({"http": {"url": "http://127.0.0.1:2/"}}), &status);
    account.observe(Some(again), now, WALL());
    assert!(door(&mut account, now).is_some(), "it was of another gateway");
}

#[test]
fn what_an_answer_showed_is_tried_again_by_itself_after_a_failover_although_receipts_show_it_too() {
    let now = clock::monotonic();
    for (trouble, retry) in [(SenderTrouble::PaymentRequired, 3600), (SenderTrouble::AuthenticationFailed, 0)]
    {
        let mut account = Account::new();
        enter(&mut account, &plain("uid", 1), "token", now);
        let way = door(&mut account, now).expect("should be open");
        account.feel(way, halt(trouble, "131042", "131042: no"), now, WALL());
        let reported = json!({"reason": trouble.reason(), "code": "131042", "message": "no", "time": "2026-11-23T09:59:59Z"});
        let reported = json!({"observedGeneration": 1, "activeBroadcasts": 0, "reported": reported});
        let told = channel("uid", 1, &json!({}), &reported);
        account.observe(Some(told.clone()), now, WALL());
        let status = status_of(&mut account, &told, now);
        let message = status["stop"]["message"].as_str().expect("a text");
        assert!(message.contains("by itself") && message.contains("are Failed"), "{message}");
        assert!(status["reported"].is_object(), "{status}");

        let (mut next, stopped) = (Account::new(), channel("uid", 1, &json!({}), &status));
        let later = now + Duration::from_secs(retry);
        if later > now {
            enter(&mut next, &stopped, "token", now);
            assert_eq!(door(&mut next, now), None);
            assert_eq!(status_of(&mut next, &stopped, now)["stop"], status["stop"]);
        }
        enter(&mut next, &stopped, "token", later);
        next.observe(Some(stopped.clone()), later, WALL());
        assert!(door(&mut next, later).is_some(), "{trouble:?}");
        assert_eq!(next.second_of_work(500), 1, "one message, to see");
        let status = status_of(&mut next, &stopped, later);
        assert!(status["stop"].is_null() && status["reported"].is_null(), "{status}");
        // Credentials that were refused may be others by now; who wants to be paid was asked again, and settled nothing.
        assert_eq!(
            status["settledTime"].is_string(),
            trouble == SenderTrouble::AuthenticationFailed,
            "{status}"
        );
    }
}

#[test]
fn a_stop_by_a_rule_does_not_say_that_no_chat_failed_where_one_opted_out() {
    let now = clock::monotonic();
    let rules = json!({"errorPolicy": [{"codes": ["131050"], "action": "StopChannel"}]});
    let (mut account, before) = (Account::new(), channel("uid", 1, &rules, &Value::Null));
    enter(&mut account, &before, "token", now);
    let way = door(&mut account, now).expect("open");
    account.feel(way, halt(SenderTrouble::ByErrorPolicy, "131050", "131050: no"), now, WALL());
    let message = |account: &mut Account| account.state(true, now, WALL()).stop.expect("a stop").message;
    assert!(message(&mut account).ends_with("no chat fails by it but one that opted out"));
    let reported = json!({"reason": "StoppedByErrorPolicy", "code": "131050", "message": "no", "time": "2026-11-23T09:59:59Z"});
    let status = json!({"observedGeneration": 1, "activeBroadcasts": 0, "reported": reported});
    account.observe(Some(channel("uid", 1, &rules, &status)), now, WALL());
    let told = message(&mut account);
    assert!(told.contains("are Failed") && !told.contains("no chat fails"), "{told}");
}
