use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response};
use jiff::SignedDuration;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::super::LeaseTimes;
use super::*;
use crate::metrics::Metrics;

/// What the API server answers to a call with this body.
type Answer = (u16, Value);

/// A heart whose API server is this function.
fn heart(answer: impl FnMut(&Method, Value) -> Answer + Send + 'static) -> Heart {
    let settings = LeaseSettings::fake(LeaseTimes {
        duration: Duration::from_secs(60),
        renew_deadline: Duration::from_secs(50),
        retry_period: Duration::from_millis(1),
    });
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.expect("a body");
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, body) = answer.lock().expect("no panic")(&method, body);
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let api = Api::namespaced(Client::new(service, "broadcast-system"), &settings.namespace);
    let shared = Arc::new(Shared::new(&settings, Metrics::new()));
    Heart::new(api, settings, shared, Readiness::default())
}

fn refused(code: u16, reason: &str) -> Answer {
    let details = json!({"name": "operator-0123456789", "kind": "leases"});
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "details": details}))
}

#[test]
fn a_machine_that_slept_is_known_by_the_other_clock() {
    let duration = Duration::from_secs(15);
    let began = Began::now();
    let after = |monotonic: u64, wall: i64| Began {
        monotonic: began.monotonic + Duration::from_secs(monotonic),
        wall: began.wall + SignedDuration::from_secs(wall),
    };
    assert!(began.is_within(duration, &after(14, 14)));
    assert!(!began.is_within(duration, &after(15, 15)));
    assert!(!began.is_within(duration, &after(2, 100_000)), "it slept");
    assert!(!began.is_within(duration, &after(20, 2)), "its clock was set");
    assert!(!began.is_within(duration, &after(2, -100)), "its clock was set back, and it may have slept");
}

#[tokio::test]
async fn a_lease_counts_from_the_first_call_that_may_have_stored_it() {
    let first_call = Arc::new(Mutex::new(None));
    let seen = first_call.clone();
    let (mut stored, mut asked) = (Value::Null, false);
    let heart = heart(move |method, body| match *method {
        Method::POST if stored.is_null() => {
            *seen.lock().expect("no panic") = Some(clock::monotonic());
            stored = body;
            refused(504, "Timeout")
        }
        Method::POST => refused(409, "AlreadyExists"),
        // So nobody knows whether the first one has stored it, and it is made again.
        _ if !std::mem::replace(&mut asked, true) => refused(500, "InternalError"),
        _ => (200, stored.clone()),
    });
    let id = heart.new_id();
    let (lease, began) = heart.join(&id).await;
    assert_eq!(objects::holder(&lease), Some(id));
    let first_call = first_call.lock().expect("no panic").expect("it was called");
    assert!(began.monotonic <= first_call);
}

#[tokio::test]
async fn what_a_replica_finds_in_the_place_of_its_lease_says_what_has_happened() {
    let id = ReplicaId::new("pod_0123456789".into());
    let known = |renewals: u64| {
        let settings = heart(|_, _| refused(500, "InternalError")).settings;
        let mut lease = objects::of_replica(&settings, "operator-0123456789", &id, clock::now());
        lease.metadata.uid = Some("uid".into());
        for _ in 0..renewals {
            lease = objects::renewed(&lease, false, clock::now());
        }
        lease
    };
    let given_up = |renewals| Some(objects::given_up(&known(renewals), clock::now()));
    let long_ago = Began { monotonic: clock::monotonic(), wall: Timestamp::UNIX_EPOCH };
    for (what, found, renewed, ended) in [
        ("another one gave it up", given_up(3), Began::now(), Some(End::GivenUp)),
        // One that knows less gave up what it saw in the backup.
        ("it is older", given_up(2), Began::now(), None),
        ("it is older", Some(known(2)), Began::now(), None),
        ("it is gone before its time", None, Began::now(), None),
        ("it is gone after its time", None, long_ago, Some(End::Gone)),
    ] {
        let found = found.map(|lease| serde_json::to_value(lease).expect("JSON"));
        let heart = heart(move |method, _| match (&found, method) {
            (None, _) => refused(404, "NotFound"),
            (Some(_), &Method::PUT) => refused(409, "Conflict"),
            (Some(found), _) => (200, found.clone()),
        });
        let stayed = heart.stay(&id, known(3), renewed).await;
        assert_eq!(stayed.ok(), ended, "{what}");
    }
}

#[tokio::test]
async fn a_lease_that_something_else_writes_into_all_the_time_is_tried_a_few_times_and_left_in_the_end() {
    let id = ReplicaId::new("pod_0123456789".into());
    let long_ago = Began { monotonic: clock::monotonic(), wall: Timestamp::UNIX_EPOCH };
    // So many tries are refused; how it ends, and how many tries and rounds that took.
    for (refused_tries, renewed, ended, tries, rounds) in [
        (usize::MAX, long_ago, End::Contested, TRIES, 1),
        // Before the lease duration is over, it tries on: here it finds its mark then.
        (2 * TRIES, Began::now(), End::GivenUp, 2 * TRIES + 1, 2),
    ] {
        let first = objects::of_replica(
            &heart(|_, _| refused(500, "InternalError")).settings,
            "operator-0123456789",
            &id,
            clock::now(),
        );
        let (asked, known) = (Arc::new(Mutex::new(0)), first.clone());
        let asking = asked.clone();
        let heart = heart(move |method, _| {
            let mut asked = asking.lock().expect("no panic");
            if *method == Method::PUT {
                *asked += 1;
                return refused(409, "Conflict");
            }
            let found =
                if *asked > refused_tries { objects::given_up(&known, clock::now()) } else { known.clone() };
            (200, serde_json::to_value(found).expect("JSON"))
        });
        assert_eq!(heart.stay(&id, first, renewed).await.ok(), Some(ended));
        assert_eq!(*asked.lock().expect("no panic"), tries);
        let text = heart.shared.metrics.encode().expect("text");
        let counted = format!("broadcast_lease_renewals_total{{result=\"Conflict\"}} {rounds}\n");
        assert!(text.contains(&counted), "{text}");
    }
}
