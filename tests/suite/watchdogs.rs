//! What is around the operator stops, fills up or lies about the time: it goes on or says why not, and never just stands still.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::books;
use crate::common::chart::NAMESPACE;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_takes_calls_and_never_answers_stops_the_sending_and_costs_no_answer() {
    let stage = Stage::alone(&SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 700, json!({})));
    stage.accepted("sale", 150).await;
    stage.plane.signal_api_server("STOP");
    says_that_it_sends_nothing(&stage).await;
    // Of what was claimed before, nothing more starts.
    let sent = stage.requests_now("sale");
    assert!(sent < 700, "it stopped in the middle");
    stage.plane.signal_api_server("CONT");
    stage.operator.ready().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 700).await;
    assert_eq!(counts(&done).sent, 700, "the answers were in memory, and are recorded now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_stops_the_sending_with_a_reason_and_it_goes_on_when_there_is_room() {
    let stage = Stage::alone(&SHORT).await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"limits": {"messagesPerSecond": 100}})));
    stage.apply(&broadcast("sale", 700, json!({})));
    stage.accepted("sale", 150).await;
    // What etcd does by itself when its quota is used up.
    stage.plane.alarm_no_space().await;
    says_that_it_sends_nothing(&stage).await;
    let (_, text) = stage.operator.get("/readyz").await.expect("a page");
    assert!(text.contains("database space exceeded"), "{text}");
    stage.plane.disarm_alarms().await;
    stage.operator.ready().await;
    let done = stage.complete("sale").await;
    books::check_complete(&stage, &done, 700).await;
    assert_eq!(counts(&done).sent, 700, "the answers were in memory, and are recorded now");
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
    // One is dead and its clock was years ahead; one lives, and its clock is a day behind.
    let made = [
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
    until("the dead one is given up", async || {
        let found = leases.get_opt(&dead).await.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
    assert!(leases.get_opt(&alive).await.expect("answered").is_some(), "the living one is left alone");
    assert!(!stage.operator.log().contains("may be a backup"), "a wrong clock is no restore");
    beating.abort();
    until("without a sign of life it is given up too", async || {
        let found = leases.get_opt(&alive).await.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
}
