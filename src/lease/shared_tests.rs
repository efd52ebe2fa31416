use std::time::Duration;

use super::*;

const TIMES: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

fn shared() -> Shared {
    let settings = LeaseSettings::fake(TIMES);
    Shared::new(&settings, Metrics::new())
}

fn id(name: &str) -> ReplicaId {
    ReplicaId::new(name.into())
}

fn keep(kept: Tenures) -> Held {
    Held { kept, withdrawn: Tenures::new() }
}

/// So many seconds before `now`.
fn ago(now: Instant, seconds: u64) -> Instant {
    now.checked_sub(Duration::from_secs(seconds)).expect("some minutes of uptime")
}

#[test]
fn renewals_are_unbroken_until_one_is_late_and_fresh_until_the_next_one_is() {
    let (shared, now) = (shared(), clock::monotonic());
    assert_eq!(shared.renews_since(now), None, "nobody yet");
    shared.renewed(&id("a"), ago(now, 27));
    let joined = shared.renews_since(ago(now, 20)).expect("it has just joined");
    for seconds in [20, 13] {
        shared.renewed(&id("a"), ago(now, seconds));
        assert_eq!(shared.renews_since(ago(now, seconds - 7)), Some(joined), "none of them was late");
    }
    assert_eq!(shared.renews_since(ago(now, 5)), None, "the next one is late");
    shared.renewed(&id("a"), ago(now, 5));
    let again = shared.renews_since(now).expect("it renews again");
    assert!(again >= now && again > joined, "from now on");
}

#[test]
fn who_joins_again_leads_only_as_who_it_is_now() {
    let (shared, now) = (shared(), clock::monotonic());
    shared.renewed(&id("a"), now);
    shared.publish(Some(&id("a")), Held::default(), true);
    assert!(shared.is_leader());
    shared.lost();
    assert!(!shared.is_leader());
    // What was still under way when it was given up.
    shared.publish(Some(&id("a")), Held::default(), true);
    shared.renewed(&id("b"), now);
    assert!(!shared.is_leader(), "another replica may lead by now");
    shared.publish(Some(&id("b")), Held::default(), true);
    assert!(shared.is_leader());
}

#[test]
fn who_could_not_renew_for_too_long_leads_and_holds_nothing_until_it_can() {
    let (shared, now) = (shared(), clock::monotonic());
    let channel = ObjectKey::new("shop", "sms");
    let tenure = Tenure { channel: channel.clone(), replica: id("a") };
    let tenures = Tenures::from([(channel, tenure.clone())]);
    let may = |shared: &Shared| (shared.is_leader(), shared.holds(&tenure), shared.is_lapsed());
    shared.renewed(&id("a"), ago(now, 11));
    shared.publish(Some(&id("a")), keep(tenures), true);
    assert_eq!(may(&shared), (false, false, true));
    let mut leadership = shared.leadership();
    leadership.mark_unchanged();
    shared.renewed(&id("a"), now);
    assert_eq!(may(&shared), (true, true, false));
    assert!(leadership.has_changed().expect("open"), "what was passed over meanwhile is looked at");
}

#[test]
fn the_time_of_the_api_server_goes_on_with_the_clock_of_this_process() {
    let (shared, now) = (shared(), clock::monotonic());
    assert_eq!(shared.server_time(now), None);
    shared.was_told(Timestamp::UNIX_EPOCH, now);
    let later = shared.server_time(now + Duration::from_secs(90)).expect("a time");
    assert_eq!(later, Timestamp::from_second(90).expect("small"));
}

#[test]
fn a_tenure_that_was_withdrawn_is_not_held_and_its_lease_names_this_process_until_that_one_is_lost() {
    let (shared, now) = (shared(), clock::monotonic());
    let tenure = Tenure { channel: ObjectKey::new("shop", "sms"), replica: id("a") };
    assert!(!shared.is_named_by(&tenure), "it has not joined");
    shared.renewed(&id("a"), now);
    let tenures = Tenures::from([(tenure.channel.clone(), tenure.clone())]);
    shared.publish(Some(&id("a")), keep(tenures), false);
    assert!(shared.holds(&tenure) && shared.is_named_by(&tenure));
    shared.publish(Some(&id("a")), Held::default(), false);
    assert!(!shared.holds(&tenure) && shared.is_named_by(&tenure));
    shared.renewed(&id("a"), ago(now, 11));
    assert!(!shared.is_named_by(&tenure), "somebody may have it by now");
    shared.renewed(&id("b"), now);
    assert!(!shared.is_named_by(&tenure), "it is another one's");
}

#[test]
fn what_was_given_up_is_held_no_more_until_it_was_given_back_and_taken_again() {
    let (shared, now) = (shared(), clock::monotonic());
    let (sms, mms) = (ObjectKey::new("shop", "sms"), ObjectKey::new("shop", "mms"));
    let tenure = |channel: &ObjectKey| Tenure { channel: channel.clone(), replica: id("a") };
    let both = || Tenures::from([&sms, &mms].map(|channel| (channel.clone(), tenure(channel))));
    shared.renewed(&id("a"), now);
    shared.publish(Some(&id("a")), keep(both()), false);
    let mut tenures = shared.tenures();
    tenures.mark_unchanged();
    shared.gave_up(&Tenure { replica: id("before"), ..tenure(&sms) });
    assert!(shared.holds(&tenure(&sms)), "that was of who it was before");
    shared.gave_up(&tenure(&sms));
    assert!(tenures.has_changed().expect("open"), "whoever follows them is told");
    assert!(!shared.holds(&tenure(&sms)) && shared.holds(&tenure(&mms)));
    // The keeper had looked before, and its lease still names this replica.
    shared.publish(Some(&id("a")), keep(both()), false);
    assert!(!shared.holds(&tenure(&sms)), "it is about to be another's");
    assert_eq!(shared.given_up(), BTreeSet::from([sms.clone()]));
    shared.gave_back(&sms);
    shared.publish(Some(&id("a")), keep(both()), false);
    assert!(shared.holds(&tenure(&sms)), "it is another tenure of the same channel");
}

#[test]
fn what_was_withdrawn_before_anybody_looked_is_told_until_it_is_given_up() {
    let (shared, now) = (shared(), clock::monotonic());
    let tenure = Tenure { channel: ObjectKey::new("shop", "sms"), replica: id("a") };
    let it = || Tenures::from([(tenure.channel.clone(), tenure.clone())]);
    let withdrawn = || Held { kept: Tenures::new(), withdrawn: it() };
    shared.renewed(&id("a"), now);
    let mut tenures = shared.tenures();
    shared.publish(Some(&id("a")), keep(it()), false);
    shared.publish(Some(&id("a")), withdrawn(), false);
    assert!(tenures.has_changed().expect("open") && tenures.borrow_and_update().is_empty());
    shared.publish(Some(&id("a")), Held::default(), false);
    shared.publish(Some(&id("a")), withdrawn(), false);
    assert!(tenures.has_changed().expect("open"), "whoever follows them is told of these too");
    assert_eq!(shared.withdrawn(), it());
    shared.gave_up(&tenure);
    // The keeper had looked before.
    shared.publish(Some(&id("a")), withdrawn(), false);
    assert_eq!((shared.withdrawn(), shared.given_up().len()), (Tenures::new(), 1));
}
