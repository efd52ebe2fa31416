//! Receipts, as their receiver sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

use super::*;
use crate::clock;
use crate::simulator::ReceiptSettings;
use crate::webhooks::{ID_HEADER, SIGNATURE_HEADER, Secret, Signed, TIMESTAMP_HEADER, verify};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One request with receipts.
pub(super) struct Post {
    pub(super) path: String,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Post {
    /// A header as text, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("json")
    }
}

/// Takes receipts, after it has refused some.
pub(super) struct Receiver {
    pub(super) url: String,
    posts: Mutex<mpsc::UnboundedReceiver<Post>>,
}

impl Receiver {
    pub(super) async fn start(refusals: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let (sender, posts) = mpsc::unbounded_channel();
        let left = Arc::new(AtomicU32::new(refusals));
        let take = move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let _ = sender.send(Post { path: uri.path().to_owned(), uri, headers, body });
            let refuse = |left: u32| left.checked_sub(1);
            match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse) {
                Ok(_) => StatusCode::SERVICE_UNAVAILABLE,
                Err(_) => StatusCode::NO_CONTENT,
            }
        };
        // It ends with the runtime of its test.
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
        let url = format!("http://{address}/v1/namespaces/{{namespace}}/channels/{{channel}}/receipts");
        Self { url, posts: Mutex::new(posts) }
    }

    pub(super) async fn next(&self) -> Post {
        let mut posts = self.posts.lock().await;
        tokio::time::timeout(PATIENCE, posts.recv()).await.expect("should get receipts").expect("open")
    }

    async fn next_statuses(&self) -> Vec<(String, String)> {
        statuses(&self.next().await.body)
    }

    pub(super) async fn bench(&self, change: impl FnOnce(&mut ReceiptSettings)) -> Bench {
        let mut receipts = ReceiptSettings {
            url: self.url.clone(),
            read_percent: 100,
            flush_ms: 1,
            ..ReceiptSettings::default()
        };
        change(&mut receipts);
        Bench::start(Settings { receipts: Some(receipts), ..Settings::default() }).await
    }
}

/// Ids and statuses of a body.
fn statuses(body: &[u8]) -> Vec<(String, String)> {
    let receipts: Vec<Value> = serde_json::from_slice(body).expect("receipts");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    receipts.iter().map(|receipt| (text(&receipt["id"]), text(&receipt["status"]))).collect()
}

fn pair(id: &str, status: &str) -> Vec<(String, String)> {
    vec![(id.into(), status.into())]
}

#[tokio::test]
async fn delivered_comes_before_read_at_the_address_of_the_account() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|_| ()).await;
    bench.send("1").await.expect("answer");
    let post = receiver.next().await;
    assert_eq!(post.path, "/v1/namespaces/shop/channels/sales/receipts");
    assert!(!post.headers.contains_key(SIGNATURE_HEADER));
    assert_eq!(statuses(&post.body), pair("token-1", "delivered"));
    assert_eq!(receiver.next_statuses().await, pair("token-1", "read"));
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 2).await;
    assert_eq!((summary.receipts.pending, summary.receipts.failed, summary.receipts.requests), (0, 0, 2));
}

#[tokio::test]
async fn a_receipt_names_its_message_by_token_or_message_id() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| settings.read_percent = 0).await;
    bench.send("1").await.expect("answer");
    let time = bench.simulator.ledger().sends(&crate::simulator::SendQuery::default())[0].arrived;
    let receipt = json!([{"id": "token-1", "status": "delivered", "time": time}]);
    assert_eq!(receiver.next().await.json(), receipt);
    let failing =
        json!({"url": receiver.url, "deliveredPercent": 0, "failedPercent": 100, "useMessageId": true});
    for (code, settings) in [("undeliverable", json!({})), ("blocked", json!({"failedCode": "blocked"}))] {
        let mut settings: Value = settings;
        settings.as_object_mut().expect("object").extend(failing.as_object().expect("object").clone());
        assert_eq!(bench.put("/simulator/receipts", settings.to_string()).await, 204);
        bench.send("2").await.expect("answer");
        let receipt = &receiver.next().await.json()[0];
        assert_eq!((&receipt["status"], &receipt["code"]), (&json!("failed"), &json!(code)));
        assert!(receipt["id"].as_str().is_some_and(|id| id.starts_with("sim-")), "{receipt}");
    }
}

#[tokio::test]
async fn receipts_are_signed_anew_for_each_try() {
    let receiver = Receiver::start(2).await;
    let bench = receiver.bench(|settings| settings.secret = Some(SECRET.into())).await;
    bench.send("1").await.expect("answer");
    let secrets = [Secret::parse(SECRET).expect("secret")];
    let mut ids = Vec::new();
    for _ in 0..3 {
        let post = receiver.next().await;
        let header = |name: &str| post.headers[name].to_str().expect("header").to_owned();
        let (id, timestamp, signature) =
            (header(ID_HEADER), header(TIMESTAMP_HEADER), header(SIGNATURE_HEADER));
        let signed = Signed { id: &id, timestamp: &timestamp, signatures: &signature };
        assert_eq!(verify(&secrets, signed, &post.body, clock::now()), Ok(()));
        assert_eq!(statuses(&post.body), pair("token-1", "delivered"));
        ids.push(id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn refused_receipts_are_pending_until_they_are_taken() {
    let receiver = Receiver::start(2).await;
    let bench = receiver.bench(|settings| settings.read_percent = 0).await;
    bench.send("1").await.expect("answer");
    bench.wait_until(|summary| summary.receipts.pending == 1).await;
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 1).await;
    assert_eq!((summary.receipts.pending, summary.receipts.requests), (0, 3));
}

#[tokio::test]
async fn receipts_come_twice_and_reversed() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| (settings.times, settings.reverse) = (2, true)).await;
    bench.send("1").await.expect("answer");
    for status in ["read", "read", "delivered", "delivered"] {
        assert_eq!(receiver.next_statuses().await, pair("token-1", status));
    }
    bench.wait_until(|summary| summary.receipts.delivered == 4 && summary.receipts.pending == 0).await;
}

#[tokio::test]
async fn held_receipts_wait_for_their_release() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| (settings.read_percent, settings.before_answer) = (0, true)).await;
    let post = async |path: &str| {
        let url = format!("{}/simulator/receipts/{path}", bench.simulator.url());
        assert_eq!(bench.client.post(url).send().await.expect("answer").status(), 204);
    };
    post("hold").await;
    for chat in ["1", "2", "3"] {
        bench.send(chat).await.expect("answer");
    }
    let counts = bench.simulator.ledger().summary().receipts;
    assert_eq!((counts.pending, counts.requests), (3, 0));
    post("release").await;
    assert_eq!(receiver.next_statuses().await.len(), 3);
    bench.wait_until(|summary| summary.receipts.delivered == 3 && summary.receipts.pending == 0).await;
}

#[tokio::test]
async fn a_receipt_overtakes_the_answer_to_its_message() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| settings.before_answer = true).await;
    bench.send("1").await.expect("answer");
    // No waiting: it was there before the answer.
    let post = receiver.posts.lock().await.try_recv().expect("should be there already");
    assert_eq!(statuses(&post.body), pair("token-1", "delivered"));
}

#[tokio::test]
async fn a_message_is_answered_although_its_early_receipt_is_refused() {
    let receiver = Receiver::start(1).await;
    let bench = receiver.bench(|settings| settings.before_answer = true).await;
    assert_eq!(bench.send("1").await.expect("answer").status(), 200);
    bench.wait_until(|summary| summary.receipts.delivered == 2).await;
}

#[tokio::test]
async fn a_message_without_an_answer_gets_receipts_if_it_was_accepted() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| settings.use_message_id = true).await;
    let faults = json!([
        {"when": {"chats": ["1"]}, "do": {"resetBeforeAccept": {}}},
        {"do": {"resetAfterAccept": {}}},
    ]);
    bench.simulator.set_faults(serde_json::from_value(faults).expect("rules")).expect("valid");
    bench.send_into_reset("1").await;
    bench.send_into_reset("2").await;
    assert_eq!(receiver.next_statuses().await, pair("sim-1", "delivered"));
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 2).await;
    assert_eq!((summary.requests.accepted, summary.receipts.pending), (1, 0));
}

#[tokio::test]
async fn receipts_travel_in_batches_of_the_size_asked_for() {
    let receiver = Receiver::start(0).await;
    let bench = receiver.bench(|settings| (settings.read_percent, settings.batch_size) = (0, 4)).await;
    bench.simulator.hold_receipts();
    for chat in 0..10 {
        bench.send(&chat.to_string()).await.expect("answer");
    }
    bench.simulator.release_receipts();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(receiver.next_statuses().await.len());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4, 4]);
}

#[tokio::test]
async fn receipts_change_while_the_simulator_runs() {
    let receiver = Receiver::start(0).await;
    let bench = Bench::start(Settings::default()).await;
    bench.send("1").await.expect("answer");
    let failing = json!({"url": receiver.url, "deliveredPercent": 0, "failedPercent": 100});
    assert_eq!(bench.put("/simulator/receipts", failing.to_string()).await, 204);
    bench.send("2").await.expect("answer");
    assert_eq!(receiver.next_statuses().await, pair("token-2", "failed"));
    assert_eq!(bench.put("/simulator/receipts", "null".into()).await, 204);
    bench.send("3").await.expect("answer");
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 1).await;
    assert_eq!(summary.receipts.pending, 0);
}
