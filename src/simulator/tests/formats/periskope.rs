//! Periskope.

use super::*;

fn request(bench: &Bench, path: &str, fields: &Value) -> RequestBuilder {
    bench.request(path).bearer_auth("secret").header("x-phone", "15550199").json(fields)
}

#[tokio::test]
async fn messages_are_queued_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    for (number, path) in [(1, "/message/send"), (2, "/v1/message/send")] {
        let fields = json!({"chat_id": "15550100@c.us", "message": "Hi"});
        let (status, sent) = answer(request(&bench, path, &fields)).await;
        let id = format!("3EB0{number:018}");
        assert_eq!((status, &sent["queue_position"]), (200, &json!(0)));
        // Every other answer names its place in the queue alone.
        assert_eq!(sent["unique_id"], if number == 1 { json!(id) } else { Value::Null });
        assert_eq!(sent["queue_id"], json!(format!("51000000-0000-4000-8000-{number:012}")));
        let entry = bench.last_entry();
        assert_eq!((&*entry.account, &*entry.chat, &*entry.text), ("15550199", "15550100", "Hi"));
        assert_eq!((&*entry.token, entry.message_id.as_deref()), ("", Some(&*id)));
    }
    let media = json!({"type": "image", "url": "https://shop.example/a.png", "filename": "a.png"});
    let fields = json!({"chat_id": "120363@g.us", "message": "Look", "media": media});
    assert_eq!(answer(request(&bench, "/message/send", &fields)).await.0, 200);
    let entry = bench.last_entry();
    assert_eq!(
        (&*entry.chat, &*entry.media, &*entry.text),
        ("120363@g.us", "https://shop.example/a.png", "Look")
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let bench = Bench::start(Settings::default()).await;
    for fields in [
        json!({"message": "Hi"}),
        json!({"chat_id": "15550100@x.us", "message": "Hi"}),
        json!({"chat_id": "15550100@c.us"}),
        json!({"chat_id": "15550100@c.us", "media": {"type": "image"}}),
        json!({"chat_id": "15550100@c.us", "media": {"url": "https://shop.example/a.png"}}),
    ] {
        let (status, answer) = answer(request(&bench, "/message/send", &fields)).await;
        assert!(status == 400 && answer["message"].is_string(), "{fields} {answer}");
    }
    let fields = json!({"chat_id": "15550100", "message": "Hi"});
    assert_eq!(answer(bench.request("/message/send").json(&fields)).await.0, 400);
    assert_eq!(bench.simulator.ledger().summary().requests.refused, 6);
}

#[tokio::test]
async fn faults_have_the_status_of_their_code() {
    for (fault, status) in [
        (json!({"refuse": {"code": "422", "message": "no such chat"}}), 422),
        (json!({"refuse": {"status": 403}}), 403),
        (json!({"tooManyRequests": {"retryAfterSeconds": 3}}), 429),
    ] {
        let bench = Bench::with_faults(json!([{"do": fault}])).await;
        let fields = json!({"chat_id": "15550100", "message": "Hi"});
        let answer = request(&bench, "/message/send", &fields).send().await.expect("answer");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429);
        let (got, json) = body(answer).await;
        assert_eq!((got, &json["code"]), (status, &json!(status.to_string())), "{json}");
    }
}

#[tokio::test]
async fn the_queue_is_shown_to_who_has_the_key() {
    let bench = Bench::start(Settings { token: Some("secret".into()), ..Settings::default() }).await;
    for path in ["/queue", "/v1/queue"] {
        let get = |token: &str| {
            let url = format!("{}{path}", bench.simulator.url());
            answer(bench.client.get(url).bearer_auth(token))
        };
        let (status, queue) = get("secret").await;
        assert_eq!((status, &queue["is_running"]), (200, &json!(true)));
        assert_eq!(get("other").await.0, 401);
    }
}

#[tokio::test]
async fn acknowledgements_come_signed_one_by_one() {
    let receiver = Receiver::start(0).await;
    let bench = receiver
        .bench(|settings| {
            settings.sent_percent = 100;
            settings.providers.periskope_url = Some(receiver.url.clone());
            settings.providers.periskope_signing_key = Some("signing key".into());
        })
        .await;
    let fields = json!({"chat_id": "15550100", "message": "Hi"});
    answer(request(&bench, "/message/send", &fields)).await;
    let id = format!("3EB0{:018}", 1);
    for ack in ["1", "3", "4"] {
        let post = receiver.next().await;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"signing key");
        let code: String =
            ring::hmac::sign(&key, &post.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(post.header("x-periskope-signature"), code);
        let event = post.json();
        assert_eq!(event["event_type"], "message.ack.updated");
        let data = &event["data"];
        assert_eq!((&data["ack"], &data["chat_id"]), (&json!(ack), &json!("15550100@c.us")));
        assert_eq!(data["message_id"], json!(format!("true_15550100@c.us_{id}")));
        assert_eq!((&data["id"]["id"], &data["org_phone"]), (&json!(id), &json!("15550199@c.us")));
    } // Each has a request of its own, however many wait.
    bench.simulator.hold_receipts();
    for _ in 0..2 {
        answer(request(&bench, "/message/send", &fields)).await;
    }
    bench.simulator.release_receipts();
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 9).await;
    assert_eq!((summary.receipts.pending, summary.receipts.requests), (0, 9));
}
