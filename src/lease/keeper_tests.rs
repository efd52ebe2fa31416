use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};

use super::super::LeaseTimes;
use super::super::names::replica_lease;
use super::*;
use crate::domain::ids::ObjectKey;
use crate::metrics::Metrics;

/// An API server that stores leases, and refuses the note of a restore while it is told to.
#[derive(Default)]
struct Cluster {
    leases: BTreeMap<String, Value>,
    writes: Vec<String>,
    refuses_notes: bool,
}

impl Cluster {
    fn answer(&mut self, method: &Method, uri: &http::Uri, mut body: Value) -> (u16, Value) {
        let path = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        if *method == Method::GET {
            return self
                .leases
                .get(&path)
                .map_or_else(|| refused(404, "NotFound"), |lease| (200, lease.clone()));
        }
        let name = body["metadata"]["name"].as_str().map_or(path, str::to_owned);
        let is_note = body["metadata"]["annotations"]["broadcast-operator.dev/restored"].is_string();
        if is_note && self.refuses_notes {
            return refused(403, "Forbidden");
        }
        body["metadata"]["creationTimestamp"] = json!("2026-11-23T10:00:00Z");
        if uri.query().is_some_and(|query| query.contains("dryRun")) {
            return (201, body);
        }
        if *method == Method::POST && self.leases.contains_key(&name) {
            return refused(409, "AlreadyExists");
        }
        self.writes.push(format!("{method} {name}"));
        body["metadata"]["uid"] = json!(name);
        body["metadata"]["resourceVersion"] = json!((self.writes.len() + 100).to_string());
        match *method {
            Method::DELETE => drop(self.leases.remove(&name)),
            _ => drop(self.leases.insert(name, body.clone())),
        }
        (200, body)
    }
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    let details = json!({"name": "operator", "kind": "leases"});
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "details": details}))
}

fn settings(pod_uid: &str) -> LeaseSettings {
    LeaseSettings { pod_uid: Some(pod_uid.into()), ..LeaseSettings::fake(LeaseTimes::default()) }
}

/// A keeper in this cluster. Nothing that changes there comes to it.
fn keeper(cluster: &Arc<Mutex<Cluster>>) -> (Keeper, mpsc::Sender<Change<Lease>>) {
    let cluster = cluster.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let cluster = cluster.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.expect("a body");
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, body) = cluster.lock().expect("no panic").answer(&head.method, &head.uri, body);
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let settings = settings("pod");
    let api = Api::namespaced(Client::new(service, "broadcast-system"), &settings.namespace);
    let shared = Arc::new(Shared::new(&settings, Metrics::new()));
    let (sender, changes) = mpsc::channel(1);
    let keeper = Keeper {
        api,
        settings,
        shared,
        changes,
        view: View::default(),
        is_synced: true,
        noted: BTreeSet::new(),
        is_unnoted: false,
        next_giving_up: clock::monotonic(),
        readiness: Readiness::default(),
    };
    (keeper, sender)
}

fn stored(mut lease: Lease, version: u64) -> Arc<Lease> {
    lease.metadata.uid = Some(lease.name_any());
    lease.metadata.resource_version = Some(version.to_string());
    Arc::new(lease)
}

#[tokio::test]
async fn nothing_is_held_or_taken_before_it_stands_there_that_the_cluster_was_restored() {
    let cluster = Arc::new(Mutex::new(Cluster { refuses_notes: true, ..Cluster::default() }));
    let (mut keeper, _changes) = keeper(&cluster);
    let (id, dead) = (ReplicaId::new("pod_0000000001".into()), ReplicaId::new("pod_0000000002".into()));
    let (held, free) = (ObjectKey::new("shop", "held"), ObjectKey::new("shop", "free"));
    let now = clock::now();
    keeper.shared.renewed(&id, clock::monotonic());
    keeper.shared.want(BTreeSet::from([held.clone(), free.clone()]));
    let own = objects::of_replica(&keeper.settings, &replica_lease("operator", &id), &id, now);
    keeper.view.apply(stored(own, 1), clock::monotonic());
    let of_held = objects::of_channel(&keeper.settings, &held, &id, now);
    keeper.view.apply(stored(of_held, 2), clock::monotonic());
    let holds = |keeper: &Keeper| keeper.shared.tenures().borrow().keys().cloned().collect::<Vec<_>>();
    keeper.publish(&id);
    assert_eq!(holds(&keeper), std::slice::from_ref(&held));

    // An earlier process of the same pod, which is dead, of a time long before.
    let old = objects::of_replica(
        &settings("pod"),
        &replica_lease("operator", &dead),
        &dead,
        Timestamp::UNIX_EPOCH,
    );
    let old = stored(old, 3);
    keeper.view.apply(old.clone(), clock::monotonic());
    for goes_away in [false, true] {
        if goes_away {
            keeper.view.remove(&old);
        }
        assert!(!keeper.act().await, "it has to come back to it");
        assert!(holds(&keeper).is_empty() && !keeper.shared.is_leader());
        assert_eq!(keeper.shared.restored(), None);
        let (is_ready, report) = keeper.readiness.report();
        assert!(!is_ready && report.contains("[-] restore-note: nothing is sent"), "{report}");
        assert_eq!(cluster.lock().expect("no panic").writes, Vec::<String>::new(), "nothing is taken");
    }

    cluster.lock().expect("no panic").refuses_notes = false;
    assert!(keeper.act().await);
    assert!(keeper.shared.restored().is_some() && keeper.readiness.report().0);
    assert_eq!(cluster.lock().expect("no panic").writes[0], "POST operator", "the note is first");
    assert_eq!(holds(&keeper), [free, held]);
}

#[tokio::test]
async fn what_it_took_and_another_one_is_to_have_is_given_back_though_nobody_heard_that_it_was_taken() {
    let cluster = Arc::new(Mutex::new(Cluster::default()));
    let (mut keeper, _changes) = keeper(&cluster);
    let (id, other) = (ReplicaId::new("pod_0000000001".into()), ReplicaId::new("other_0000000002".into()));
    let channels = ["first", "second"].map(|name| ObjectKey::new("shop", name));
    let now = clock::now();
    keeper.shared.renewed(&id, clock::monotonic());
    keeper.shared.want(BTreeSet::from(channels.clone()));
    let of_replica = |settings: &LeaseSettings, id: &ReplicaId| {
        stored(objects::of_replica(settings, &replica_lease("operator", id), id, now), 1)
    };
    keeper.view.apply(of_replica(&settings("pod"), &id), clock::monotonic());
    assert!(keeper.act().await);
    // Another one joins before anybody has looked at what was taken.
    keeper.view.apply(of_replica(&settings("another pod"), &other), clock::monotonic());
    assert!(keeper.act().await);
    assert_eq!(keeper.shared.tenures().borrow().keys().collect::<Vec<_>>(), [&channels[0]]);
    let withdrawn = keeper.shared.withdrawn();
    assert_eq!(withdrawn.keys().collect::<Vec<_>>(), [&channels[1]]);
    let holder = || {
        let name = channel_lease("operator", &channels[1]);
        cluster.lock().expect("no panic").leases[&name]["spec"]["holderIdentity"].as_str().map(str::to_owned)
    };
    assert_eq!(holder().as_deref(), Some(id.as_str()));
    keeper.shared.gave_up(&withdrawn[&channels[1]]);
    assert!(keeper.act().await);
    assert_eq!(holder().as_deref(), Some(""), "the other one may take it");
}
