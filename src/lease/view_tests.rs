use jiff::Timestamp;

use super::super::objects::Reign;
use super::super::{LeaseSettings, LeaseTimes};
use super::*;
use crate::clock;

fn settings(pod_uid: Option<&str>) -> LeaseSettings {
    LeaseSettings { pod_uid: pod_uid.map(str::to_owned), ..LeaseSettings::fake(LeaseTimes::default()) }
}

fn id(name: &str) -> ReplicaId {
    ReplicaId::new(name.into())
}

/// A lease as it is stored in this version.
fn stored(mut lease: Lease, version: u64) -> Arc<Lease> {
    lease.metadata.uid = Some(lease.name_any());
    lease.metadata.resource_version = Some(version.to_string());
    Arc::new(lease)
}

fn replica(name: &str, pod_uid: Option<&str>, version: u64) -> Arc<Lease> {
    stored(
        objects::of_replica(
            &settings(pod_uid),
            &format!("operator-{name}"),
            &id(name),
            Timestamp::UNIX_EPOCH,
        ),
        version,
    )
}

/// The lease of a replica after so many renewals.
fn renewed(name: &str, times: u64, version: u64) -> Arc<Lease> {
    let first = replica(name, None, 0).as_ref().clone();
    let renew = |lease: Lease, _| objects::renewed(&lease, false, Timestamp::UNIX_EPOCH);
    stored((0..times).fold(first, renew), version)
}

fn channel_of(holder: &str, version: u64) -> Arc<Lease> {
    let channel = ObjectKey::new("shop", "sms");
    stored(objects::of_channel(&settings(None), &channel, &id(holder), Timestamp::UNIX_EPOCH), version)
}

fn silent(view: &View, pod_uid: Option<&str>, now: Instant) -> Vec<String> {
    let renews_since = Some(now.checked_sub(Duration::from_secs(3600)).expect("an hour of uptime"));
    let me = Myself { id: &id("a"), pod_uid, duration: LeaseTimes::default().duration, renews_since };
    view.silent(&me, now).iter().map(|lease| lease.name_any()).collect()
}

#[test]
fn a_replica_is_given_up_when_its_lease_did_not_change_for_the_lease_duration() {
    let (mut view, start) = (View::default(), clock::monotonic());
    let duration = LeaseTimes::default().duration;
    for replica in [replica("a", None, 1), replica("b", None, 2), replica("c", None, 3)] {
        view.apply(replica, start);
    }
    let halfway = start + duration / 2;
    view.apply(renewed("b", 1, 4), halfway);
    // The same version again, as a list brings it, is no sign of life.
    view.apply(replica("c", None, 3), halfway);
    assert!(silent(&view, None, start + duration.mul_f64(0.99)).is_empty());
    assert_eq!(silent(&view, None, start + duration), ["operator-c"], "never itself");
    assert_eq!(silent(&view, None, halfway + duration), ["operator-b", "operator-c"]);
    let me = Myself { id: &id("a"), pod_uid: None, duration, renews_since: Some(start) };
    assert_eq!(view.next_silence(&me, halfway), Some(duration / 2));
}

#[test]
fn what_somebody_else_writes_into_a_lease_is_no_sign_of_life_and_who_gives_it_up_knows_of_it() {
    let (mut view, start) = (View::default(), clock::monotonic());
    let duration = LeaseTimes::default().duration;
    view.apply(replica("b", None, 1), start);
    for version in 2..30 {
        let mut touched = replica("b", None, version).as_ref().clone();
        touched.annotations_mut().insert("example.com/seen".into(), version.to_string());
        view.apply(
            Arc::new(touched),
            start + duration.mul_f64(0.03) * u32::try_from(version).expect("small"),
        );
    }
    let renews_since = Some(start);
    let me = Myself { id: &id("a"), pod_uid: None, duration, renews_since };
    let silent = view.silent(&me, start + duration);
    let versions: Vec<Option<String>> = silent.iter().map(|lease| lease.resource_version()).collect();
    assert_eq!(versions, [Some("29".to_owned())]);
    // A farewell that was announced is a sign of life.
    view.apply(stored(objects::renewed(&silent[0], true, Timestamp::UNIX_EPOCH), 31), start + duration);
    assert!(view.silent(&me, start + duration).is_empty());
}

#[test]
fn silence_counts_only_while_this_replica_itself_could_renew() {
    let (mut view, start) = (View::default(), clock::monotonic());
    let duration = LeaseTimes::default().duration;
    view.apply(replica("b", None, 1), start);
    view.apply(replica("before", Some("uid-1"), 2), start);
    let silent = |renews_since, now| {
        let me = Myself { id: &id("a"), pod_uid: Some("uid-1"), duration, renews_since };
        let silent: Vec<String> = view.silent(&me, now).iter().map(|lease| lease.name_any()).collect();
        (silent, view.next_silence(&me, now))
    };
    let outage = start + 10 * duration;
    let of_the_pod = vec!["operator-before".to_owned()];
    assert_eq!(
        silent(None, outage),
        (of_the_pod.clone(), Some(Duration::ZERO)),
        "the dead are dead all the same"
    );
    let almost = outage + duration.mul_f64(0.99);
    assert_eq!(
        silent(Some(outage), almost).0,
        of_the_pod,
        "each gets a whole lease duration after the outage"
    );
    assert_eq!(silent(Some(outage), outage + duration).0, ["operator-b", "operator-before"]);
}

#[test]
fn a_replica_that_is_given_up_is_gone_for_the_others_and_its_mark_stays_for_a_while() {
    let (mut view, start) = (View::default(), clock::monotonic());
    let lease = replica("b", None, 1);
    view.apply(lease.clone(), start);
    view.apply(channel_of("b", 2), start);
    view.apply(stored(objects::given_up(&lease, Timestamp::MAX), 3), start);
    assert!(view.living().is_empty() && view.holders().is_empty());
    assert!(silent(&view, None, start + Duration::from_secs(3600)).is_empty(), "it is given up once");
    let me = Myself { id: &id("a"), pod_uid: None, duration: Duration::ZERO, renews_since: Some(start) };
    assert!(view.of_long_ago(&me, Timestamp::MAX).is_empty(), "somebody lived on after it");
    let renewed = Timestamp::UNIX_EPOCH;
    assert!(view.given_up_before(renewed).is_empty());
    let limit = renewed + jiff::SignedDuration::from_secs(1);
    let old: Vec<String> = view.given_up_before(limit).iter().map(|lease| lease.name_any()).collect();
    assert_eq!(old, ["operator-b"], "and no lease of anybody else");
}

#[test]
fn a_sign_of_life_is_as_old_as_the_api_server_says_whatever_the_clock_of_its_replica_said() {
    let lease = replica("b", None, 1);
    assert_eq!(
        objects::renew_time(&lease),
        Some(Timestamp::UNIX_EPOCH),
        "that of its holder, where there is no other"
    );
    let entry = |field: &str, time: &str| serde_json::json!({"operation": "Update", "time": time, "fieldsV1": {"f:spec": {field: {}}}});
    let entries = [
        entry("f:renewTime", "2026-05-01T10:00:00Z"),
        // Somebody touched something else.
        entry("f:strategy", "2026-05-01T12:00:00Z"),
    ];
    let mut noted = lease.as_ref().clone();
    noted.metadata.managed_fields = serde_json::from_value(entries.into()).expect("entries");
    let time: Timestamp = "2026-05-01T10:00:00Z".parse().expect("a time");
    assert_eq!(objects::renew_time(&noted), Some(time));
}

#[test]
fn an_earlier_process_of_the_same_pod_is_given_up_at_once() {
    let (mut view, now) = (View::default(), clock::monotonic());
    view.apply(replica("before", Some("uid-1"), 1), now);
    view.apply(replica("other", Some("uid-2"), 2), now);
    assert_eq!(silent(&view, Some("uid-1"), now), ["operator-before"]);
    assert!(silent(&view, None, now).is_empty());
}

#[test]
fn what_a_replica_holds_is_free_when_its_own_lease_is_gone() {
    let (mut view, now) = (View::default(), clock::monotonic());
    view.apply(replica("b", None, 1), now);
    view.apply(channel_of("b", 2), now);
    view.apply(stored(objects::of_leader(&settings(None), &id("b"), Timestamp::UNIX_EPOCH), 3), now);
    assert_eq!(view.holders(), BTreeMap::from([(ObjectKey::new("shop", "sms"), id("b"))]));
    assert_eq!(view.holder("operator"), Some(id("b")));
    view.remove(&replica("b", None, 1));
    assert!(view.holders().is_empty());
    assert_eq!(view.holder("operator"), None);
}

#[test]
fn an_older_version_of_a_lease_takes_nothing_back() {
    let (mut view, now) = (View::default(), clock::monotonic());
    view.apply(replica("b", None, 1), now);
    view.apply(replica("c", None, 1), now);
    view.apply(channel_of("c", 5), now);
    view.apply(channel_of("b", 4), now);
    assert_eq!(view.holders().into_values().collect::<Vec<_>>(), [id("c")]);
}

#[test]
fn a_replica_that_is_leaving_lives_but_is_given_nothing() {
    let (mut view, now) = (View::default(), clock::monotonic());
    let staying = replica("b", None, 1);
    view.apply(staying.clone(), now);
    view.apply(stored(objects::renewed(&staying, true, Timestamp::UNIX_EPOCH), 2), now);
    assert_eq!((view.living(), view.staying()), (BTreeSet::from([id("b")]), BTreeSet::new()));
}

#[test]
fn leases_of_channels_that_nobody_wants_or_holds_are_abandoned() {
    let (mut view, now) = (View::default(), clock::monotonic());
    view.apply(replica("b", None, 1), now);
    view.apply(channel_of("b", 2), now);
    assert!(view.abandoned(&BTreeSet::new()).is_empty(), "its holder has to give it up first");
    view.apply(stored(objects::given_back(&channel_of("b", 2), Timestamp::UNIX_EPOCH), 3), now);
    assert!(view.abandoned(&BTreeSet::from([ObjectKey::new("shop", "sms")])).is_empty());
    assert_eq!(view.abandoned(&BTreeSet::new()).len(), 1);
}

#[test]
fn a_replica_of_long_ago_is_one_that_gave_no_sign_of_life_since() {
    let (mut view, now) = (View::default(), clock::monotonic());
    let duration = LeaseTimes::default().duration;
    let me = Myself { id: &id("a"), pod_uid: None, duration, renews_since: Some(now) };
    let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(1);
    view.apply(replica("a", None, 1), now);
    view.apply(replica("b", None, 2), now);
    assert!(view.of_long_ago(&me, Timestamp::UNIX_EPOCH).is_empty());
    let old: Vec<String> = view.of_long_ago(&me, later).iter().map(|lease| lease.name_any()).collect();
    assert_eq!(old, ["operator-b"]);
    view.apply(replica("b", None, 3), now);
    assert_eq!(view.of_long_ago(&me, later).len(), 1, "somebody else wrote into its lease");
    // Its clock is wrong, but it lives.
    view.apply(renewed("b", 1, 4), now);
    assert!(view.of_long_ago(&me, later).is_empty());
}

#[test]
fn the_lease_of_the_leader_goes_back_only_with_its_cluster() {
    let led = |uid: &str, created: i64, transitions: i32| {
        let mut lease = objects::of_leader(&settings(None), &id("a"), Timestamp::UNIX_EPOCH);
        lease.metadata.uid = Some(uid.into());
        let created = Timestamp::from_second(created).expect("small");
        lease.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
        lease.spec.get_or_insert_default().lease_transitions = Some(transitions);
        Reign::of(&lease)
    };
    let known = led("one", 5, 3);
    for (found, is_before) in [
        (led("one", 5, 3), false),
        (led("one", 5, 4), false),
        (led("one", 5, 2), true),
        // Somebody has deleted it since.
        (led("two", 9, 0), false),
        // It was deleted and made anew after the snapshot.
        (led("zero", 1, 7), true),
    ] {
        assert_eq!(found.is_before(&known), is_before, "{found:?}");
    }
}
