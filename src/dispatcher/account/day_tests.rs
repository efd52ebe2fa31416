use super::*;

#[test]
fn a_request_that_never_left_uses_up_nothing_of_the_day() {
    let now = clock::monotonic();
    let mut account = Account::new();
    enter(
        &mut account,
        &channel("uid", 1, &json!({"limits": {"recipientsPerDay": 2}}), &Value::Null),
        "token",
        now,
    );
    for tries in 0..10 {
        let later = now + Duration::from_secs(60 * tries);
        let way = door(&mut account, later).expect("the day is not full");
        account.take(later, WALL());
        account.feel(way, unreachable(), later, WALL());
    }
    assert_eq!(account.day().total(WALL()), 0);
}

#[test]
fn the_limit_of_a_day_holds_over_a_restart_and_says_until_when() {
    let now = clock::monotonic();
    let limits = json!({"limits": {"recipientsPerDay": 2}});
    let mut account = Account::new();
    enter(&mut account, &channel("uid", 1, &limits, &Value::Null), "token", now);
    for _ in 0..2 {
        assert!(door(&mut account, now).is_some());
        account.take(now, WALL());
    }
    assert_eq!(door(&mut account, now), None);
    let Health::DayIsFull(until) = account.health(true, now, WALL()) else { panic!("the day is full") };
    assert_eq!(until.to_string(), "2026-11-24T11:00:00Z");
    let stored = account.day().stored(WALL());
    assert!(account.may_send(0, now, until).is_ok(), "there is room then");

    let status = json!({"observedGeneration": 1, "throttledUntil": until, "conditions": [
        {"type": "Throttled", "status": "True", "reason": "DailyLimit", "message": "",
         "lastTransitionTime": "2026-11-23T10:00:00Z", "observedGeneration": 1},
    ], "sentByHour": stored});
    let mut next = Account::new();
    enter(&mut next, &channel("uid", 1, &limits, &status), "token", now);
    assert_eq!(door(&mut next, now), None);
}
