//! What people type.

use serde_json::json;

use crate::common::stage::{Stage, broadcast, chat_id};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_get_shows_state_progress_and_percentages() {
    let stage = Stage::new().await;
    stage.send_receipts(&broadcast_operator::simulator::ReceiptSettings::default());
    let fault = json!([{"when": {"chats": [chat_id(0)]}, "do": {"refuse": {"status": 400}}}]);
    stage.set_faults(fault);
    stage.apply(&broadcast("sale", 10, json!({})));
    stage
        .wait("sale", "delivered", |b| b.status.as_ref().is_some_and(|s| s.delivered_percent == Some(100)))
        .await;
    let table = stage.kubectl(&["get", "bc"]);
    let [header, row] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    let columns: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(columns, ["NAME", "STATE", "SENT", "DELIVERED%", "READ%", "FAILED", "UNKNOWN", "AGE"]);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["sale", "Succeeded", "9/10", "100", "0", "1"]);
    let wide = stage.kubectl(&["get", "broadcasts", "-o", "wide"]);
    assert!(wide.contains("CHANNEL") && wide.contains("RESTARTED-FROM"), "{wide}");
    let all = stage.kubectl(&["get", "broadcasts,bcc,bcb"]);
    assert!(all.contains("broadcastchannel.broadcast-operator.dev/sms"), "{all}");
    assert!(all.contains("broadcastbatch.broadcast-operator.dev/sale-00000"), "{all}");
    let category = stage.kubectl(&["get", "all"]);
    assert!(!category.contains("sale"), "Broadcasts are not in `all`: {category}");
    let paused = stage.kubectl(&["get", "bc", "--field-selector", "spec.paused=false", "-o", "name"]);
    assert_eq!(paused.trim(), "broadcast.broadcast-operator.dev/sale");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_wait_patch_and_delete_do_what_people_expect() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "bc/sale"]);
    stage.apply(&broadcast("later", 5, json!({"paused": true})));
    stage.kubectl(&["wait", "--for=condition=Suspended", "--timeout=60s", "bc/later"]);
    stage.kubectl(&["patch", "bc", "later", "--type=merge", "-p", r#"{"spec":{"paused":false}}"#]);
    stage.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "bc/later"]);
    stage.kubectl(&["delete", "bc", "sale", "later", "--timeout=60s"]);
    let left = stage.kubectl(&["get", "bc", "-o", "name"]);
    assert_eq!(left.trim(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explain_describes_every_level() {
    let stage = Stage::new().await;
    for (path, words) in [
        ("broadcast", "One bulk send"),
        ("broadcast.spec.restartFrom", "failed or were never reached"),
        ("broadcast.spec.recipients.csv", "CSV text with a header"),
        ("broadcast.status.counts.unknown", ""),
        ("broadcastchannel.spec.http.idempotent", "Idempotency-Key"),
        ("broadcastbatch.status.claim", "window of rows that is being sent"),
    ] {
        let text = stage.kubectl(&["explain", path]);
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words) && flat.contains("DESCRIPTION"), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_can_be_read_as_one_csv() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 260, json!({})));
    stage.complete("sale").await;
    let path = "jsonpath={range .items[*]}{.status.outcomes}{end}";
    let label = "broadcast-operator.dev/broadcast=sale";
    let csv = stage.kubectl(&["get", "bcb", "-l", label, "-o", path]);
    assert_eq!(csv.lines().filter(|line| line.contains(",Sent,")).count(), 260);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happened() {
    let stage = Stage::new().await;
    stage.apply(&broadcast("sale", 5, json!({})));
    stage.complete("sale").await;
    crate::common::wait::until("there are events", async || {
        let events = stage.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=sale",
            "-o",
            "jsonpath={.items[*].reason}",
        ]);
        if events.contains("Succeeded") { Ok(()) } else { Err(events) }
    })
    .await;
    let events = stage.kubectl(&["get", "events", "-o", "yaml"]);
    assert!(!events.contains(&chat_id(0)), "no chat in an event");
    assert!(!stage.operator.log().contains(&chat_id(0)), "no chat in the log");
    assert!(!stage.operator.log().contains('\u{1b}'), "no colours in a file");
}
