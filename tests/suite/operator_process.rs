//! The process itself: what it waits for, what it says, how it ends.

use std::process::Command;

use serde_json::json;

use crate::common::control_plane::ControlPlane;
use crate::common::operator::Operator;
use crate::common::stage::{Stage, broadcast, chat_id, counts};
use crate::common::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_its_crds_and_says_so() {
    let plane = ControlPlane::start().await;
    let operator = Operator::launch(&plane, "admin", "default");
    until("it says what it waits for", async || match operator.get("/readyz").await {
        Ok((503, text)) if text.contains("[-] crds: kind Broadcast is not installed") => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(operator.get("/livez").await.map(|(status, _)| status), Ok(200), "it is alive meanwhile");
    plane.install_crds();
    operator.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_the_request_in_flight_is_unknown() {
    let mut stage = Stage::new().await;
    stage.set_faults(json!([{"do": {"hangAfterAccept": {}}}]));
    stage.apply(&broadcast("sale", 1, json!({})));
    stage.gateway.ledger().wait_until(|summary| summary.requests.in_flight == 1).await;
    stage.operator.signal("TERM");
    until("it is ending", async || match stage.operator.get("/readyz").await {
        Ok((503, text)) if text.contains("[-] running") => Ok(()),
        other => Err(other),
    })
    .await;
    stage.operator.signal("TERM");
    assert_eq!(stage.operator.ended().await, 130);
    stage.operator.restart().await;
    let done = stage.complete("sale").await;
    assert_eq!(counts(&done).unknown, 1);
    assert_eq!(stage.requests_now("sale"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_is_counted_under_the_names_that_dashboards_know() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"when": {"chats": [chat_id(3)]}, "do": {"refuse": {"status": 400}}}]));
    stage.apply(&broadcast("sale", 10, json!({})));
    stage.complete("sale").await;
    let operator = &stage.operator;
    assert_eq!(operator.metric("broadcast_messages_total", "outcome=\"Sent\"").await, 9);
    assert_eq!(operator.metric("broadcast_messages_total", "outcome=\"Failed\"").await, 1);
    assert_eq!(operator.metric("broadcast_send_duration_seconds_count", "channel=\"sms\"").await, 10);
    assert!(operator.metric("broadcast_claims_total", "result=\"Stored\"").await >= 1);
    assert!(operator.metric("controller_runtime_reconcile_total", "result=\"Success\"").await >= 1);
    assert!(operator.metric("rest_client_requests_total", "code=\"200\",method=\"PUT\"").await >= 3);
    let (_, text) = operator.get("/metrics").await.expect("metrics");
    assert!(!text.contains(&chat_id(3)), "no label is a chat");
}

#[test]
fn wrong_flags_are_refused_with_exit_code_2() {
    for (flags, words) in [
        (&["run", "--log-filter", "=="][..], "--log-filter is not valid"),
        (&["run", "--allow-address", "10.0.0.0/99"], "--allow-address"),
        (&["run", "--allow-address", "gateway"], "or an address as in 10.0.0.7"),
        (
            &["run", "--lease-duration", "5s"],
            "--lease-renew-deadline, 10s, must be shorter than --lease-duration, 5s",
        ),
        (&["run", "--lease-renew-deadline", "3s"], "--lease-retry-period, 2s, must be at most half"),
        (&["run", "--admin-address", "8081"], "--admin-address"),
        (&["start"], "unrecognized subcommand"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_broadcast-operator")).args(flags).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(words), "{flags:?}: {text}");
    }
}

#[test]
fn without_a_cluster_it_says_how_to_name_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_broadcast-operator"))
        .env("KUBECONFIG", "/nowhere")
        .args(["run", "--log-format", "text", "--allow-address", "10.0.0.7,fd00::/8,::1"])
        .args(["--admin-address", "127.0.0.1:0", "--receipts-address", "127.0.0.1:0"])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("set KUBECONFIG"), "{text}");
}
