use super::*;

#[test]
fn nothing_is_asked_of_a_channel_that_is_paused_waits_or_has_no_room() {
    let now = clock::monotonic();
    let mut account = Account::new();
    assert!(account.may_look_up(0, now).is_none(), "nothing is known of it yet");
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    assert_eq!(account.may_look_up(0, now).map(|(door, _)| door), Some(way));
    assert!(account.may_look_up(64, now).is_none(), "a message waits for room");

    account.feel(way, ChannelEffect::Throttle(Some(Duration::from_secs(60))), now, WALL());
    assert!(account.may_look_up(0, now).is_none(), "it waits");
    let later = now + Duration::from_secs(61);
    assert!(account.may_look_up(0, later).is_some());

    account.observe(Some(channel("uid", 2, &json!({"paused": true}), &Value::Null)), later, WALL());
    assert!(account.may_look_up(0, later).is_none(), "the brake is on");
}

#[test]
fn a_refused_question_stops_the_channel_until_a_probe_says_that_the_token_is_good() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(&mut account, &plain("uid", 1), "token", now);
    let way = door(&mut account, now).expect("should be open");
    let refused = |door| LookupRefused {
        door,
        trouble: SenderTrouble::AuthenticationFailed,
        detail: "20003: Authenticate".into(),
    };
    account.lookup_refused(&refused(DoorNumber::default()), now);
    assert!(account.may_look_up(0, now).is_some(), "it went through another door");
    account.lookup_refused(&refused(way), now);
    assert!(account.may_look_up(0, now).is_none() && door(&mut account, now).is_none());
    assert!(matches!(account.health(false, now, WALL()), Health::Stalled("AuthenticationFailed", _)));

    assert!(account.observe(Some(plain("uid", 1)), now, WALL()).is_some(), "it is read at once");
    let good = Opened { probed: Probed::Good, ..opened(&plain("uid", 1), "token") };
    account.open(Version::of(&plain("uid", 1)), Ok(good), now, WALL());
    assert!(account.may_look_up(0, now).is_some());
}
