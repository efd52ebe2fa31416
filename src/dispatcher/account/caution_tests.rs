use super::*;

#[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a test")]
fn origin() -> (Instant, Timestamp) {
    (Instant::now(), "2026-11-23T10:00:00.250Z".parse().expect("time"))
}

fn left(caution: &Caution, now: Instant) -> Duration {
    caution.rest(now).map_or(Duration::ZERO, |rest| rest.left(now))
}

#[test]
fn an_absurd_wait_is_a_day_and_then_one_message_to_see() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    caution.fail(Duration::from_secs(u64::MAX), Why::Throttled, now, wall);
    assert_eq!(left(&caution, now), LONGEST_REST);
    let later = now + LONGEST_REST;
    caution.end_rest(later);
    assert!(caution.rest(later).is_none() && caution.is_probing());
}

#[test]
fn a_wait_taken_up_from_a_status_is_bounded_too() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    caution.take_up(Timestamp::MAX, Why::Throttled, now, wall);
    assert_eq!(left(&caution, now), LONGEST_REST);
}

#[test]
fn a_gateway_that_asks_for_no_wait_gets_one_that_grows() {
    let (mut now, wall) = origin();
    let mut caution = Caution::default();
    let mut waits = Vec::new();
    for _ in 0..8 {
        caution.fail(Duration::ZERO, Why::Throttled, now, wall);
        waits.push(left(&caution, now).as_secs());
        now += left(&caution, now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn requests_that_fail_together_are_one_failure() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    for _ in 0..64 {
        caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), now, wall);
    }
    assert_eq!(left(&caution, now), FIRST_BACKOFF);
    let later = now + FIRST_BACKOFF;
    caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), later, wall);
    assert_eq!(left(&caution, later), 2 * FIRST_BACKOFF);
}

#[test]
fn of_several_waits_the_longest_counts() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    for seconds in [3, 30, 7] {
        caution.fail(Duration::from_secs(seconds), Why::Throttled, now, wall);
    }
    assert_eq!(left(&caution, now), Duration::from_secs(30));
}

#[test]
fn the_end_of_a_wait_is_told_in_whole_seconds_and_never_too_early() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    caution.fail(Duration::from_secs(2), Why::Throttled, now, wall);
    let until = caution.rest(now).map(|rest| rest.until);
    assert_eq!(until, "2026-11-23T10:00:03Z".parse().ok());
}

#[test]
fn a_gateway_that_was_not_reached_is_in_doubt_until_it_takes_a_message() {
    let (mut caution, start) = (Caution::default(), crate::clock::monotonic());
    caution.fail(Duration::ZERO, Why::Unreachable("refused".into()), start, crate::clock::now());
    let later = start + Duration::from_secs(5);
    caution.end_rest(later);
    assert!(caution.rest(later).is_none() && caution.doubt().is_some());
    caution.relax();
    assert!(caution.doubt().is_none());
}

fn doubt(caution: &mut Caution, times: u32, now: Instant, wall: Timestamp) {
    (0..times).for_each(|_| caution.doubt_gateway(Why::Uncertain("502".into()), None, now, wall));
}

#[test]
fn a_run_of_messages_that_nobody_knows_about_is_followed_by_a_wait_and_one_message_to_see() {
    let (mut now, wall) = origin();
    let mut caution = Caution::default();
    doubt(&mut caution, UNCERTAIN_RUN - 1, now, wall);
    assert!(caution.rest(now).is_none() && !caution.is_probing());
    doubt(&mut caution, 1, now, wall);
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(left(&caution, now).as_secs());
        now += left(&caution, now);
        caution.end_rest(now);
        assert!(
            caution.is_probing() && caution.doubt().is_some(),
            "it is not well before a message shows it"
        );
        doubt(&mut caution, 1, now, wall);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    caution.relax();
    assert!(caution.doubt().is_none() && !caution.is_probing());
    let later = now + LONGEST_BACKOFF;
    doubt(&mut caution, UNCERTAIN_RUN - 1, later, wall);
    assert!(caution.rest(later).is_none(), "it counts anew");
}

#[test]
fn one_good_answer_ends_a_run() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    for _ in 0..10 {
        doubt(&mut caution, UNCERTAIN_RUN - 1, now, wall);
        caution.relax();
    }
    assert!(caution.rest(now).is_none());
}

#[test]
fn requests_in_flight_together_all_count_and_are_one_wait() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    doubt(&mut caution, 64, now, wall);
    assert_eq!(left(&caution, now), FIRST_BACKOFF);
}

#[test]
fn a_wait_that_is_asked_for_is_kept_although_nobody_knows_about_the_message() {
    let (now, wall) = origin();
    let mut caution = Caution::default();
    caution.doubt_gateway(Why::Uncertain("503".into()), Some(Duration::from_secs(120)), now, wall);
    let rest = caution.rest(now).expect("a wait");
    assert!(matches!(rest.why, Why::Throttled));
    assert_eq!(rest.left(now), Duration::from_secs(120));
}

fn in_trouble() -> Answer {
    Answer::refused(RefusalKind::Unavailable, "131016", "down")
}

#[test]
fn a_gateway_that_says_it_is_in_trouble_is_left_alone_after_a_few_messages() {
    let (mut now, wall) = origin();
    let mut caution = Caution::default();
    let trouble =
        |caution: &mut Caution, now| caution.doubt_gateway(Why::Unavailable("down".into()), None, now, wall);
    (1..UNAVAILABLE_RUN).for_each(|_| trouble(&mut caution, now));
    assert!(caution.rest(now).is_none() && !caution.is_probing());
    for wait in [1, 2, 4] {
        trouble(&mut caution, now);
        assert_eq!(left(&caution, now).as_secs(), wait);
        assert!(matches!(caution.rest(now).map(|rest| &rest.why), Some(Why::Unavailable(_))));
        now += left(&caution, now);
        caution.end_rest(now);
        assert!(
            caution.is_probing() && caution.doubt().is_some(),
            "it is not well before a message shows it"
        );
    }
    caution.relax();
    (1..UNAVAILABLE_RUN).for_each(|_| trouble(&mut caution, now));
    assert!(caution.rest(now).is_none(), "it counts anew");
}

#[test]
fn trouble_with_one_message_between_many_that_are_taken_is_that_of_its_chat() {
    let mut caution = Caution::default();
    let retryable = Answer::refused(RefusalKind::Retryable, "131016", "down");
    let take =
        |caution: &mut Caution, number| (0..number).for_each(|_| drop(caution.weigh(Answer::accepted("id"))));
    assert_eq!(caution.weigh(in_trouble()), in_trouble(), "nothing was taken yet");
    take(&mut caution, TAKEN_BEFORE - 1);
    assert_eq!(caution.weigh(in_trouble()), in_trouble());
    take(&mut caution, TAKEN_BEFORE);
    assert_eq!(caution.weigh(in_trouble()), retryable);
    for _ in 0..100 {
        assert_eq!(caution.weigh(in_trouble()), in_trouble(), "no other was taken since");
    }
    let other = Answer::refused(RefusalKind::Permanent, "131026", "no");
    assert_eq!(caution.weigh(other.clone()), other);
}
