use super::*;
use crate::domain::answer::RefusalKind;
use reading::IDLE_LOOK;

fn second() -> Duration {
    Duration::from_secs(1)
}

/// The door of a channel with this token, open since `now`.
fn open(token: &str, now: Instant) -> (Account, Arc<BroadcastChannel>, DoorNumber) {
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    enter(&mut account, &channel, token, now);
    let way = door(&mut account, now).expect("should be open");
    (account, channel, way)
}

fn wants_reading(account: &mut Account, channel: &Arc<BroadcastChannel>, now: Instant) -> bool {
    account.observe(Some(channel.clone()), now, WALL()).is_some()
}

fn trouble(reason: &'static str, is_passing: bool) -> Trouble {
    Trouble { reason, message: String::new(), is_passing }
}

#[test]
fn a_secret_that_is_read_again_and_is_the_same_disturbs_nothing() {
    let now = clock::monotonic();
    let (mut account, channel, way) = open("token", now);
    account.take(now, WALL());
    assert!(!wants_reading(&mut account, &channel, now + BUSY_LOOK.saturating_sub(second())));
    let later = now + BUSY_LOOK;
    enter(&mut account, &channel, "token", later);
    assert_eq!(door(&mut account, later), Some(way), "what is in flight still speaks of it");
    assert_eq!(account.second_of_work(500), 500, "it goes on at full speed");
    account.feel(way, ChannelEffect::Throttle(Some(IDLE_LOOK * 2)), later, WALL());
    assert!(
        !wants_reading(&mut account, &channel, later + IDLE_LOOK.saturating_sub(second())),
        "nothing is sent any more"
    );
    let idle = later + IDLE_LOOK;
    enter(&mut account, &channel, "token", idle);
    assert_eq!(door(&mut account, idle), None, "it has been told to wait");
}

#[test]
fn the_first_message_after_a_quiet_time_has_the_secret_read_again() {
    let now = clock::monotonic();
    let (mut account, channel, _) = open("token", now);
    let later = now + IDLE_LOOK / 2;
    assert!(!wants_reading(&mut account, &channel, later));
    account.take(later, WALL());
    assert!(wants_reading(&mut account, &channel, later));
}

#[test]
fn a_changed_secret_is_another_door_and_one_message_goes_first() {
    let now = clock::monotonic();
    let (mut account, channel, old) = open("token", now);
    account.take(now, WALL());
    let later = now + BUSY_LOOK;
    enter(&mut account, &channel, "another", later);
    let new = door(&mut account, later).expect("should be open");
    assert!(new != old && account.second_of_work(500) == 1);
    account.feel(old, refused(), later, WALL());
    assert_eq!(door(&mut account, later), Some(new), "what the old one was told is not about it");
    account.feel(new, ChannelEffect::Working, later, WALL());
    assert_eq!(account.second_of_work(500), 500);
}

#[test]
fn a_secret_that_is_gone_stops_the_channel_and_one_that_cannot_be_read_now_does_not() {
    let now = clock::monotonic();
    let (mut account, channel, way) = open("token", now);
    let later = now + IDLE_LOOK;
    assert!(wants_reading(&mut account, &channel, later));
    account.open(Version::of(&channel), Err(trouble("SecretUnreadable", true)), later, WALL());
    assert_eq!(door(&mut account, later), Some(way));
    let later = later + IDLE_LOOK;
    assert!(wants_reading(&mut account, &channel, later), "it is tried again");
    account.open(Version::of(&channel), Err(trouble("SecretNotFound", false)), later, WALL());
    assert_eq!(door(&mut account, later), None);
    assert!(matches!(account.health(false, later, WALL()), Health::Stalled("SecretNotFound", _)));
}

#[test]
fn a_gateway_that_is_not_reached_has_its_secrets_read_at_once_and_once_for_each_wait() {
    let now = clock::monotonic();
    let (mut account, channel, way) = open("certificates", now);
    (0..64).for_each(|_| account.feel(way, unreachable(), now, WALL()));
    enter(&mut account, &channel, "certificates", now);
    (0..64).for_each(|_| account.feel(way, unreachable(), now, WALL()));
    assert!(!wants_reading(&mut account, &channel, now));
    let later = now + second();
    account.feel(way, unreachable(), later, WALL());
    enter(&mut account, &channel, "others", later);
    let again = later + 2 * second();
    assert!(door(&mut account, again).is_some_and(|new| new != way));
}

#[test]
fn the_provider_is_asked_about_the_credentials_of_a_quiet_channel_alone() {
    let now = clock::monotonic();
    let token = opened(&plain("uid", 1), "token").credentials;
    let is_asked = |account: &Account, now| account.known(now).asks_about(token);
    let (mut account, _, way) = open("token", now);
    assert!(is_asked(&account, now));
    account.feel(way, ChannelEffect::Throttle(Some(second())), now, WALL());
    assert!(!is_asked(&account, now), "it wants to be left alone");
    assert!(is_asked(&account, now + second()));
    account.take(now + second(), WALL());
    assert!(!is_asked(&account, now + second()), "messages ask it all the time");

    let (mut account, ..) = open("token", now);
    account.observe(Some(channel("uid", 2, &json!({"paused": true}), &Value::Null)), now, WALL());
    account.open(Version::of(&plain("uid", 2)), Ok(opened(&plain("uid", 2), "token")), now, WALL());
    assert!(!is_asked(&account, now), "the brake is on");
}

#[test]
fn credentials_that_an_idle_channel_has_lost_make_it_not_ready_until_they_are_good() {
    let now = clock::monotonic();
    let (mut account, channel, _) = open("token", now);
    let later = now + IDLE_LOOK;
    assert!(wants_reading(&mut account, &channel, later));
    let probed = Probed::Refused(SenderTrouble::AuthenticationFailed, "190: expired".into());
    account.open(Version::of(&channel), Ok(Opened { probed, ..opened(&channel, "token") }), later, WALL());
    let Health::Stalled("AuthenticationFailed", message) = account.health(false, later, WALL()) else {
        panic!("it is not ready")
    };
    assert!(message.contains("190: expired"), "{message}");
    assert_eq!(door(&mut account, later), None);
    let again = later + SECRET_POLL;
    enter(&mut account, &channel, "another", again);
    assert_eq!(account.health(false, again, WALL()), Health::Ready);
}

#[test]
fn the_next_process_tries_one_message_with_credentials_that_were_refused() {
    let now = clock::monotonic();
    let status = json!({"observedGeneration": 1, "conditions": [
        {"type": "Stalled", "status": "True", "reason": "AuthenticationFailed", "message": "",
         "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": 1},
    ]});
    let mut account = Account::new();
    enter(&mut account, &channel("uid", 1, &json!({}), &status), "token", now);
    assert!(account.second_of_work(500) == 1 && account.may_send(1, now, WALL()).is_err());
}

#[test]
fn refused_credentials_that_come_back_are_not_tried_again_at_once() {
    let mut now = clock::monotonic();
    let (mut account, channel, _) = open("first", now);
    for token in ["first", "second"] {
        if token == "second" {
            now += SECRET_POLL;
            enter(&mut account, &channel, token, now);
        }
        let way = door(&mut account, now).expect("it is new");
        account.feel(way, refused(), now, WALL());
        enter(&mut account, &channel, token, now);
    }
    for token in ["first", "second", "first"] {
        now += SECRET_POLL;
        enter(&mut account, &channel, token, now);
        assert_eq!(door(&mut account, now), None, "{token}");
    }
    now += SECRET_POLL;
    enter(&mut account, &channel, "third", now);
    assert!(door(&mut account, now).is_some());
}

#[test]
fn a_provider_that_does_not_say_whether_refused_credentials_are_good_is_asked_less_and_less_often() {
    let now = clock::monotonic();
    for refused in [refused(), halt(SenderTrouble::AccountRestricted, "131048", "spam")] {
        let (mut account, channel, way) = open("token", now);
        let token = opened(&channel, "token").credentials;
        account.feel(way, refused, now, WALL());
        let mut later = now;
        for seconds in [10, 20, 40, 80] {
            assert!(wants_reading(&mut account, &channel, later));
            assert!(account.known(later).asks_about(token), "{seconds} s: it is asked");
            let probed = not_told("10: no permission to read", None);
            account.open(
                Version::of(&channel),
                Ok(Opened { probed, ..opened(&channel, "token") }),
                later,
                WALL(),
            );
            let early = later + Duration::from_secs(seconds).saturating_sub(SECRET_POLL);
            assert!(!account.known(early).asks_about(token), "{seconds} s: it is left alone");
            later += Duration::from_secs(seconds);
        }
    }
}

#[test]
fn a_wait_that_the_provider_asks_for_when_it_is_asked_is_kept_as_one_for_a_message() {
    let (now, wait) = (clock::monotonic(), Duration::from_secs(3600));
    let limited = Answer::refused(RefusalKind::RateLimited, "429", "retry after 3600");
    let unavailable = Answer::unknown("503", "try later");
    for (answer, is_open) in [(limited, true), (unavailable, false)] {
        let (mut account, channel) = (Account::new(), plain("uid", 1));
        if is_open {
            enter(&mut account, &channel, "token", now);
        }
        let start = if is_open { now + IDLE_LOOK } else { now };
        assert!(wants_reading(&mut account, &channel, start));
        let read = |answer: Answer| Opened { probed: Probed::by(answer), ..opened(&channel, "token") };
        account.open(Version::of(&channel), Ok(read(answer.with_wait(Some(wait)))), start, WALL());
        let until = "2026-11-23T11:00:00Z".parse().expect("time");
        assert_eq!(account.health(true, start, WALL()), Health::Throttled(until));
        assert_eq!(door(&mut account, start + wait.saturating_sub(second())), None);
        let early = start + FIRST_PROBE_AGAIN;
        assert!(!wants_reading(&mut account, &channel, early), "it is left alone");
        let later = start + wait;
        assert!(wants_reading(&mut account, &channel, later), "and asked after that");
        assert!(account.known(later).asks_about(read(Answer::accepted("")).credentials));
        assert!(door(&mut account, later).is_some() && account.second_of_work(500) == 1);
    }
}

#[test]
fn nothing_is_asked_while_the_gateway_wants_to_be_left_alone_whatever_is_known_of_the_credentials() {
    let now = clock::monotonic();
    let (mut account, channel, way) = open("token", now);
    let others = opened(&channel, "another").credentials;
    account.feel(way, ChannelEffect::Throttle(Some(IDLE_LOOK)), now, WALL());
    account.feel(way, refused(), now, WALL());
    assert!(!account.known(now).asks_about(others), "behind a closed door");
    assert!(account.known(now + IDLE_LOOK).asks_about(others));

    let status = status_of(&mut account, &channel, now);
    let mut next = Account::new();
    let channel = self::channel("uid", 1, &json!({}), &status);
    assert!(wants_reading(&mut next, &channel, now));
    assert!(!next.known(now).asks_about(others), "nor by the next process");
    assert!(next.known(now + IDLE_LOOK).asks_about(others));
}
