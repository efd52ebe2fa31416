use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An account whose gateway asked for a wait of a minute.
fn throttled(now: Instant) -> (Account, Arc<BroadcastChannel>, DoorNumber) {
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    enter(&mut account, &channel, "token", now);
    let way = door(&mut account, now).expect("should be open");
    account.feel(way, ChannelEffect::Throttle(Some(seconds(60))), now, WALL());
    (account, channel, way)
}

/// What happens to an account besides.
type InTheWay = Box<dyn Fn(&mut Account, &BroadcastChannel, DoorNumber)>;

#[test]
fn a_wait_that_the_gateway_asked_for_outlives_the_process_also_when_something_else_is_in_the_way() {
    let now = clock::monotonic();
    let halt = |trouble| halt(trouble, "1", "said so");
    let is_told = |effect: ChannelEffect| -> InTheWay {
        Box::new(move |account, _, way| account.feel(way, effect.clone(), now, WALL()))
    };
    let no_secret = move |account: &mut Account, channel: &BroadcastChannel, _| {
        let trouble =
            Trouble { reason: "SecretNotFound", message: "no such Secret".into(), is_passing: false };
        account.open(Version::of(channel), Err(trouble), now, WALL());
    };
    let in_the_way: [(&str, InTheWay); 4] = [
        ("AuthenticationFailed", is_told(refused())),
        ("AccountRestricted", is_told(halt(SenderTrouble::AccountRestricted))),
        // What will be over with the wait, or needs nobody before, is said after it.
        ("Throttled", Box::new(no_secret)),
        ("Throttled", is_told(unreachable())),
    ];
    for (reason, come) in in_the_way {
        let (mut account, channel, way) = throttled(now);
        come(&mut account, &channel, way);
        let status = status_of(&mut account, &channel, now);
        let ready = status["conditions"].as_array().expect("a list").iter().find(|it| it["type"] == "Ready");
        assert_eq!(ready.expect("Ready")["reason"], reason);
        assert_eq!(status["throttledUntil"], "2026-11-23T10:01:00Z", "{reason}");
        let mut next = Account::new();
        enter(&mut next, &self::channel("uid", 1, &json!({}), &status), "another", now);
        assert_eq!(door(&mut next, now + seconds(59)), None, "{reason}");
        let later = now + seconds(61);
        assert_eq!(account.state(true, later, WALL()).asked_until, None, "{reason}: it is over");
    }
}

#[test]
fn a_longer_wait_for_something_else_does_not_hide_what_the_gateway_asked_for() {
    let now = clock::monotonic();
    let (mut account, channel, way) = throttled(now);
    let later = now + seconds(20);
    let redirected = halt(SenderTrouble::Redirected, "302", "302");
    account.feel(way, redirected, later, "2026-11-23T10:00:20Z".parse().expect("time"));
    let Health::Stalled("UnexpectedRedirect", _) = account.health(true, later, WALL()) else {
        panic!("stalled")
    };
    assert_eq!(status_of(&mut account, &channel, later)["throttledUntil"], "2026-11-23T10:01:00Z");
    // A person has changed the gateway.
    assert!(account.observe(Some(at_another_url("uid", 2)), later, WALL()).is_some());
    assert_eq!(account.state(true, later, WALL()).asked_until, None);
}

#[test]
fn a_gateway_that_redirected_is_not_called_well_before_it_takes_a_message() {
    let now = clock::monotonic();
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    enter(&mut account, &channel, "token", now);
    let way = door(&mut account, now).expect("should be open");
    account.feel(way, halt(SenderTrouble::Redirected, "307", "307: elsewhere"), now, WALL());
    let later = now + seconds(61);
    account.observe(Some(channel), later, WALL());
    assert!(door(&mut account, later).is_some(), "one message, to see");
    let Health::Stalled("UnexpectedRedirect", message) = account.health(true, later, WALL()) else {
        panic!("stalled")
    };
    assert!(message.contains("307: elsewhere") && message.contains("baseUrl"), "{message}");
    account.feel(way, ChannelEffect::Working, later, WALL());
    assert_eq!(account.health(true, later, WALL()), Health::Ready);
}
