//! Objects stay within the sizes that a cluster carries.

use broadcast_operator::api::BroadcastBatch;
use serde_json::json;

use crate::common::books;
use crate::common::stage::{Stage, broadcast, chat_id};

/// Largest page, as the scalability guidance for custom resources has it.
const LARGEST_PAGE: usize = 50 * 1024;
/// What the tests of pages without a cluster take for the field managers of a page.
const FIELD_MANAGERS: usize = 1024;
/// Largest Broadcast, besides the recipients that a person wrote into it.
const LARGEST_STATUS: usize = 10 * 1024;

fn bytes(page: &BroadcastBatch) -> usize {
    serde_json::to_vec(page).expect("JSON").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_ids_texts_and_errors_fit_into_a_page() {
    let stage = Stage::new().await;
    let long = "ж".repeat(200);
    let refusal = json!({"refuse": {"status": 400, "code": "c".repeat(300), "message": long.repeat(20)}});
    // The first messages may not all fail in the same way.
    stage.set_faults(json!([{"when": {"everyNth": 10}, "do": {"latencyMs": 0}}, {"do": refusal}]));
    let mut csv = String::from("chat,name\n");
    for chat in 0..600 {
        csv += &format!("{}{chat}@chat.example,\"{}\"\n", "user".repeat(25), "Ж\"\"".repeat(40));
    }
    let spec = json!({"recipients": {"csv": csv}, "message": {"text": "Hi {{ name }}"}});
    stage.plane.kubectl(
        &["apply", "--server-side", "-n", &stage.namespace, "-f", "-"],
        &broadcast("long", 0, spec).to_string(),
    );
    let done = stage.complete("long").await;
    books::check_complete(&stage, &done, 600).await;
    for page in stage.pages("long").await {
        assert!(bytes(&page) <= LARGEST_PAGE, "{} has {} bytes", page.spec.index, bytes(&page));
        let managers = page.metadata.managed_fields.as_ref().expect("should have field managers");
        let managers = serde_json::to_vec(managers).expect("JSON").len();
        assert!(managers <= FIELD_MANAGERS, "the field managers of a page take {managers} bytes");
    }
    // Fifty failed chats with the longest errors are shown.
    let status = serde_json::to_vec(&done.status).expect("JSON").len();
    assert!(status <= 4 * LARGEST_STATUS, "the status has {status} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_chats_leave_small_objects() {
    let stage = Stage::new().await;
    let failing: Vec<String> = (0..80).map(|chat| chat_id(chat * 100)).collect();
    stage.set_faults(
        json!([{"when": {"chats": failing}, "do": {"refuse": {"status": 400, "code": "no_such_number"}}}]),
    );
    let audience = broadcast("big", 10_000, json!({}));
    stage
        .plane
        .kubectl(&["apply", "--server-side", "-n", &stage.namespace, "-f", "-"], &audience.to_string());
    let done = stage.complete("big").await;
    books::check_complete(&stage, &done, 10_000).await;
    let pages = stage.pages("big").await;
    assert_eq!(pages.len(), 40);
    assert!(pages.iter().all(|page| bytes(page) <= LARGEST_PAGE));
    let status = serde_json::to_vec(&done.status).expect("JSON").len();
    assert!(status <= LARGEST_STATUS, "the status has {status} bytes");
}
