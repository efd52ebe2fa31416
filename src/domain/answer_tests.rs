use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

fn policy(resend: bool, idempotent: bool) -> SendPolicy {
    SendPolicy { retry: Retry::default(), resend, idempotent }
}

fn refused(retryable: bool) -> Answer {
    let kind = if retryable { RefusalKind::Retryable } else { RefusalKind::Permanent };
    Answer::refused(kind, "131026", "no")
}

fn outcome_of(policy: &SendPolicy, before: &Row, answer: Answer) -> Option<Outcome> {
    policy.settle(before, answer, at(9)).row.map(|row| row.outcome)
}

#[test]
fn only_errors_about_the_recipient_fail_a_chat() {
    let fresh = Row::pending();
    let plain = policy(false, false);
    assert_eq!(outcome_of(&plain, &fresh, refused(false)), Some(Outcome::Failed));
    for answer in [
        Answer::refused(RefusalKind::RateLimited, "130429", ""),
        Answer::refused(RefusalKind::Content, "132015", ""),
        Answer::refused(RefusalKind::NotSupported, "UnsupportedContent", ""),
        Answer::refused(RefusalKind::Sender(SenderTrouble::AuthenticationFailed), "190", ""),
        Answer::refused(RefusalKind::Sender(SenderTrouble::AccountRestricted), "131048", ""),
        Answer::Unreachable { detail: String::new() },
    ] {
        assert_eq!(outcome_of(&plain, &fresh, answer), None);
    }
}

#[test]
fn a_retryable_refusal_fails_the_chat_only_after_the_last_try() {
    let plain = policy(false, false);
    let second = Row::known(Outcome::Pending, 1, at(1));
    let last = Row::known(Outcome::Pending, 2, at(1));
    assert_eq!(outcome_of(&plain, &second, refused(true)), Some(Outcome::Pending));
    assert_eq!(outcome_of(&plain, &last, refused(true)), Some(Outcome::Failed));
}

#[test]
fn a_chat_that_gets_too_many_messages_waits_longer_each_time_and_never_fails() {
    let policy = SendPolicy {
        retry: Retry { max_attempts: 2, min_backoff_seconds: 0, max_backoff_seconds: 0 },
        ..policy(false, false)
    };
    let mut row = Row::pending();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let limited = Answer::refused(RefusalKind::ChatLimited, "131056", "pair rate");
        row = policy.settle(&row, limited, at(100)).row.expect("a row");
        assert_eq!(row.outcome, Outcome::Pending);
        waits.push(policy.due(&row).expect("due").as_second() - 100);
    }
    assert_eq!(waits, [6, 12, 24, 48, 60]);
}

#[test]
fn the_limit_of_a_chat_holds_whatever_retry_says_and_for_no_other_chat() {
    let policy = |min_backoff_seconds| SendPolicy {
        retry: Retry { max_attempts: 9, min_backoff_seconds, max_backoff_seconds: 300 },
        ..policy(false, false)
    };
    let due = |seconds, code| {
        let row = Row::known(Outcome::Pending, 1, at(100)).with_error(code, "");
        policy(seconds).due(&row).expect("due").as_second() - 100
    };
    assert_eq!([due(0, "131056"), due(1, "131056"), due(30, "131056")], [6, 6, 30]);
    assert_eq!([due(0, "131016"), due(1, "131016")], [0, 1]);
}

#[test]
fn a_chat_whose_message_something_on_the_way_refuses_goes_behind_the_others_and_never_fails() {
    let policy = policy(false, false);
    let mut row = Row::pending();
    for attempts in 1..20 {
        let kind = RefusalKind::Sender(SenderTrouble::UnexpectedAnswer);
        let settled = policy.settle(&row, Answer::refused(kind, "413", "a page"), at(100));
        assert!(matches!(
            settled.effect,
            ChannelEffect::Halt { trouble: SenderTrouble::UnexpectedAnswer, .. }
        ));
        row = settled.row.expect("a row");
        assert_eq!((row.outcome, row.attempts), (Outcome::Pending, attempts));
        assert!(policy.due(&row).is_some_and(|due| due > at(100)), "others are sent to first");
    }
    let unknown = Row::known(Outcome::Unknown, 1, at(1));
    let kind = RefusalKind::Sender(SenderTrouble::UnexpectedAnswer);
    let settled = policy.settle(&unknown, Answer::refused(kind, "413", "a page"), at(100));
    assert_eq!(settled.row.map(|row| row.outcome), Some(Outcome::Unknown), "its first try may have arrived");
}

#[test]
fn an_opt_out_fails_the_chat_and_is_told() {
    let settled = policy(false, false).settle(
        &Row::pending(),
        Answer::refused(RefusalKind::OptedOut, "131050", "stopped"),
        at(9),
    );
    assert!(settled.is_opt_out);
    assert_eq!(settled.row.map(|row| row.outcome), Some(Outcome::Failed));
}

#[test]
fn what_is_held_back_is_sent_with_the_providers_word_for_it() {
    let held = |is_near_limit| Answer::Accepted {
        message_id: "wamid.1".into(),
        held: "paused".into(),
        is_near_limit,
    };
    for (is_near_limit, expected) in [(false, ChannelEffect::Working), (true, ChannelEffect::NearLimit)] {
        let settled = policy(false, false).settle(&Row::pending(), held(is_near_limit), at(9));
        let row = settled.row.expect("a row");
        assert_eq!((row.outcome, row.code.as_str()), (Outcome::Sent, "paused"));
        assert_eq!(settled.effect, expected);
    }
}

#[test]
fn a_refused_resend_does_not_prove_that_the_first_try_failed() {
    let before = Row::known(Outcome::Unknown, 1, at(1));
    assert_eq!(outcome_of(&policy(true, false), &before, refused(false)), Some(Outcome::Unknown));
    assert_eq!(outcome_of(&policy(true, true), &before, refused(false)), Some(Outcome::Failed));
}

#[test]
fn no_definite_answer_is_unknown() {
    let lost = Answer::unknown("Timeout", "");
    assert_eq!(outcome_of(&policy(false, false), &Row::pending(), lost), Some(Outcome::Unknown));
}

#[test]
fn backoff_doubles_up_to_its_limit() {
    let plain = policy(true, false);
    let due = |attempts| plain.due(&Row::known(Outcome::Pending, attempts, at(100)));
    assert_eq!(due(1), Some(at(105)));
    assert_eq!(due(2), Some(at(110)));
    assert_eq!(due(9), Some(at(400)));
    assert_eq!(plain.due(&Row::pending()), Some(Timestamp::MIN));
}

#[test]
fn unknown_rows_are_sent_again_only_when_asked_and_not_for_ever() {
    let unknown = |attempts| Row::known(Outcome::Unknown, attempts, at(100));
    assert_eq!(policy(false, false).due(&unknown(1)), None);
    assert_eq!(policy(true, false).due(&unknown(1)), Some(at(105)));
    assert_eq!(policy(true, false).due(&unknown(3)), None);
}

#[test]
fn what_is_not_known_is_doubt_of_the_channel_and_keeps_a_wait_that_was_asked_for() {
    let wait = Some(Duration::from_secs(7));
    let lost = Answer::unknown("503", "the provider answered 503").with_wait(wait);
    let settled = policy(false, false).settle(&Row::pending(), lost, at(9));
    let detail = "the provider answered 503".to_owned();
    assert_eq!(settled.effect, ChannelEffect::Uncertain { detail, wait });
    let lost = policy(false, false).settle(&Row::pending(), Answer::unknown("Timeout", "no answer"), at(9));
    let detail = "Timeout: no answer".to_owned();
    assert_eq!(lost.effect, ChannelEffect::Uncertain { detail, wait: None });
}

#[test]
fn media_of_one_recipient_are_its_own_trouble_and_those_of_all_stop_the_broadcast() {
    let media = || Answer::refused(RefusalKind::Media, "400", "failed to get HTTP URL content");
    let settle = |answer| policy(false, false).settle(&Row::pending(), answer, at(9));
    let own = settle(media().about_media(true));
    assert_eq!((own.row.map(|row| row.outcome), own.stop), (Some(Outcome::Failed), None));
    for answer in [media().about_media(false), media()] {
        let of_all = settle(answer);
        assert_eq!(of_all.row, None);
        assert_eq!(of_all.stop.map(|stop| stop.reason), Some(StopReason::TemplateUnavailable));
    }
    let other = Answer::refused(RefusalKind::Content, "400", "can't parse entities");
    assert_eq!(other.clone().about_media(true), other);
}

#[test]
fn what_no_request_can_be_made_of_stops_the_broadcast_as_such() {
    let cannot = Answer::refused(RefusalKind::NotSupported, "UnsupportedContent", "no templates");
    let settled = policy(false, false).settle(&Row::pending(), cannot.about_media(true), at(9));
    assert_eq!((settled.row, settled.effect), (None, ChannelEffect::Working));
    assert_eq!(settled.stop.map(|stop| stop.reason), Some(StopReason::MessageNotSupported));
}

#[test]
fn a_provider_in_trouble_fails_no_chat_and_the_others_go_first() {
    let policy = SendPolicy { retry: Retry { max_attempts: 2, ..Retry::default() }, ..policy(false, false) };
    let mut row = Row::pending();
    let wait = Some(Duration::from_secs(9));
    for attempts in 1..20 {
        let down = Answer::refused(RefusalKind::Unavailable, "131016", "down").with_wait(wait);
        let settled = policy.settle(&row, down, at(100));
        assert_eq!(settled.effect, ChannelEffect::Unavailable { detail: "131016: down".into(), wait });
        row = settled.row.expect("a row");
        assert_eq!((row.outcome, row.attempts, row.code.as_str()), (Outcome::Pending, attempts, "131016"));
        assert!(policy.due(&row).is_some_and(|due| due > at(100)), "others are sent to first");
    }
    let unknown = Row::known(Outcome::Unknown, 1, at(1));
    let down = || Answer::refused(RefusalKind::Unavailable, "131016", "down");
    assert_eq!(
        outcome_of(&policy, &unknown, down()),
        Some(Outcome::Unknown),
        "its first try may have arrived"
    );
}

#[test]
fn media_of_all_that_cannot_be_fetched_stop_the_broadcast_after_the_last_try() {
    let plain = policy(false, false);
    let settle = |attempts, is_own| {
        let before = Row { attempts, ..Row::pending() };
        let media = Answer::refused(RefusalKind::MediaNotFetched, "131053", "no").about_media(is_own);
        let settled = plain.settle(&before, media, at(9));
        (settled.row.map(|row| row.outcome), settled.stop.map(|stop| stop.reason))
    };
    for is_own in [true, false] {
        for attempts in [0, 1] {
            assert_eq!(settle(attempts, is_own), (Some(Outcome::Pending), None));
        }
    }
    assert_eq!(settle(2, true), (Some(Outcome::Failed), None));
    for attempts in [2, 3] {
        assert_eq!(settle(attempts, false), (None, Some(StopReason::TemplateUnavailable)));
    }
}

#[test]
fn a_code_that_nobody_knows_fails_its_chat_and_is_told() {
    let unlisted = Answer::refused(RefusalKind::Unlisted, "999999", "new");
    let settled = policy(false, false).settle(&Row::pending(), unlisted, at(9));
    assert!(settled.is_unlisted && !settled.is_opt_out);
    assert_eq!(settled.row.map(|row| row.outcome), Some(Outcome::Failed));
    let known = policy(false, false).settle(&Row::pending(), refused(false), at(9));
    assert!(!known.is_unlisted);
}

#[test]
fn a_rule_for_an_opt_out_stops_what_it_stops_and_the_opt_out_counts_all_the_same() {
    use ErrorAction::{Fail, Retry, StopBroadcast, StopChannel, Suppress};
    for action in [Retry, Fail, Suppress, StopBroadcast, StopChannel] {
        let rules = [crate::api::ErrorRule { codes: vec!["131050".into()], action }];
        let opted_out = Answer::refused(RefusalKind::OptedOut, "131050", "stopped");
        let opted_out = crate::domain::error_policy::judged(&rules, opted_out);
        let Answer::Refused(Refusal { kind: RefusalKind::OptedOut, .. }) = &opted_out else {
            panic!("{action:?}: {opted_out:?}")
        };
        let settled = policy(false, false).settle(&Row::pending(), opted_out, at(9));
        assert!(settled.is_opt_out, "{action:?}");
        assert_eq!(settled.row.map(|row| row.outcome), Some(Outcome::Failed), "{action:?}");
        let stop = settled.stop.map(|stop| stop.reason);
        assert_eq!(stop, (action == StopBroadcast).then_some(StopReason::ErrorPolicy), "{action:?}");
        let is_halt =
            matches!(settled.effect, ChannelEffect::Halt { trouble: SenderTrouble::ByErrorPolicy, .. });
        assert_eq!(is_halt, action == StopChannel, "{action:?}");
    }
}
