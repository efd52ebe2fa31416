//! What is around the operator stops, fills up or lies about the time: it goes on or says why not, and never just stands still.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::common::books;
use crate::common::chart::NAMESPACE;
use crate::common::operator::Operator;
use crate::common::stage::{CHANNEL, Stage, broadcast, counts};
use crate::common::wait::until;

/// Leases that run out soon.
const SHORT: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry-period", "500ms"];

/// Waits until the operator says that it sends nothing.
async fn says_that_it_sends_nothing(stage: &Stage) {
    until("it says that it sends nothing", async || match stage.operator.get("/readyz").await {
        Ok((503, text)) if text.contains("[-] leases: nothing is sent") => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(stage.operator.get("/livez").await.map(|(status, _)| status), Ok(200), "it is alive");
}

/// Waits until this many renewals of a replica have failed, which takes longer than a lease lasts.
async fn outlasts_the_lease(replica: &Operator) {
    until("the outage is longer than the lease", async || {
        let failed = replica.log().matches("failed to renew the lease").count();
        if failed >= 10 { Ok(()) } else { Err(failed) }
    })
    .await;
}

/// Two replicas that live have not given each other up.
fn nobody_was_given_up(replicas: [&Operator; 2]) {
    for replica in replicas {
        let log = replica.log();
        assert!(!log.contains("is silent for too long") && !log.contains("was given up"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_takes_calls_and_never_answers_stops_the_sending_and_costs_no_answer() {
    let stage = Stage::alone(&SHORT).await;
    let other = stage.join("pod-1", &SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 700, json!({})));
    stage.accepted("sale", 150).await;
    stage.plane.signal_api_server("STOP");
    says_that_it_sends_nothing(&stage).await;
    // Of what was claimed before, nothing more starts.
    let sent = stage.requests_now("sale");
    assert!(sent < 700, "it stopped in the middle");
    outlasts_the_lease(&stage.operator).await;
    assert_eq!(stage.requests_now("sale"), sent, "nothing more was sent");
    stage.plane.signal_api_server("CONT");
    stage.operator.ready().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 700).await;
    assert_eq!(counts(&done).sent, 700, "the answers were in memory, and are recorded now");
    nobody_was_given_up([&stage.operator, &other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_stops_the_sending_with_a_reason_and_it_goes_on_when_there_is_room() {
    let stage = Stage::alone(&SHORT).await;
    let other = stage.join("pod-1", &SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 700, json!({})));
    stage.accepted("sale", 150).await;
    // What etcd does by itself when its quota is used up.
    stage.plane.alarm_no_space().await;
    says_that_it_sends_nothing(&stage).await;
    let (_, text) = stage.operator.get("/readyz").await.expect("a page");
    assert!(text.contains("database space exceeded"), "{text}");
    // etcd still takes deletions: none of the other's lease is asked for.
    outlasts_the_lease(&stage.operator).await;
    stage.plane.disarm_alarms().await;
    stage.operator.ready().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 700).await;
    assert_eq!(counts(&done).sent, 700, "the answers were in memory, and are recorded now");
    nobody_was_given_up([&stage.operator, &other]);
}

/// A lease of a replica whose clock says another time.
fn lease(group: &str, name: &str, role: &str, holder: &str, time: &str) -> Lease {
    let manifest = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {
            "broadcast-operator.dev/replicas-of": group, "broadcast-operator.dev/lease": role,
        }},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3, "renewTime": time, "acquireTime": time},
    });
    serde_json::from_value(manifest).expect("should be a lease")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_judged_by_its_changes_and_never_by_the_times_in_it() {
    let mut stage = Stage::with_flags(&SHORT).await;
    stage.operator.signal("TERM");
    stage.operator.ended().await;
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let group = stage.namespace.clone();
    let (dead, alive) = (format!("{group}-ahead"), format!("{group}-behind"));
    let dead_too = format!("{group}-behind-too");
    // Two are dead, and their clocks were years ahead and months behind; one lives, and its clock is months behind.
    let made = [
        lease(&group, &dead_too, "replica", "behind-too", "2026-01-01T00:00:00.000000Z"),
        lease(&group, &dead, "replica", "ahead", "2099-01-01T00:00:00.000000Z"),
        lease(&group, &alive, "replica", "behind", "2026-01-01T00:00:00.000000Z"),
    ];
    for lease in &made {
        leases.create(&PostParams::default(), lease).await.expect("created");
    }
    let beating = {
        let (leases, alive) = (leases.clone(), alive.clone());
        tokio::spawn(async move {
            for beat in 0_u64.. {
                let annotation = json!({"metadata": {"annotations": {"broadcast-operator.dev/renewals": beat.to_string()}}});
                let _ = leases.patch(&alive, &PatchParams::default(), &Patch::Merge(annotation)).await;
                broadcast_operator::clock::wait(std::time::Duration::from_millis(300)).await;
            }
        })
    };
    stage.operator.restart().await;
    let is_given_up = async |name: &str| {
        let found = leases.get(name).await.expect("nobody deletes it");
        found.annotations().contains_key("broadcast-operator.dev/given-up")
    };
    let gives_up = async |name: &str| {
        until("it is given up", async || if is_given_up(name).await { Ok(()) } else { Err("it is not") })
            .await;
    };
    gives_up(&dead).await;
    gives_up(&dead_too).await;
    assert!(!is_given_up(&alive).await, "the living one is left alone");
    assert!(!stage.operator.log().contains("may be a backup"), "a wrong clock is no restore");
    beating.abort();
    // Without a sign of life it is given up too.
    gives_up(&alive).await;
}
