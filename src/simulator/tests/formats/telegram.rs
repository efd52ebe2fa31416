//! Telegram Bot API.

use super::*;

const PATH: &str = "/bot42:AA-secret/sendMessage";

async fn send(bench: &Bench, method: &str, fields: Value) -> (u16, Value) {
    answer(bench.request(&format!("/bot42:AA-secret/{method}")).json(&fields)).await
}

#[tokio::test]
async fn messages_are_accepted_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let (status, sent) = send(&bench, "sendMessage", json!({"chat_id": 15_550_100, "text": "Hi"})).await;
    assert_eq!((status, &sent["ok"]), (200, &json!(true)));
    let result = &sent["result"];
    assert_eq!((&result["message_id"], &result["text"]), (&json!(1), &json!("Hi")));
    assert_eq!((&result["chat"]["id"], &result["chat"]["type"]), (&json!(15_550_100), &json!("private")));
    let entry = bench.last_entry();
    assert_eq!(result["date"], json!(entry.arrived.as_second()));
    assert_eq!((&*entry.account, &*entry.chat, &*entry.token, &*entry.broadcast), ("42", "15550100", "", ""));
    assert_eq!(entry.message_id.as_deref(), Some("1"));
    let photo = json!({"chat_id": "-100200", "photo": "https://shop.example/a.png", "caption": "Look"});
    let (status, sent) = send(&bench, "sendPhoto", photo).await;
    assert_eq!((status, &sent["result"]["chat"]["id"]), (200, &json!(-100_200)));
    let entry = bench.last_entry();
    assert_eq!((&*entry.media, &*entry.text), ("https://shop.example/a.png", "Look"));
    let request = bench.request(PATH).header("content-type", "application/x-www-form-urlencoded");
    let (status, _) = answer(request.body("chat_id=%40news&text=Hi+there")).await;
    let entry = bench.last_entry();
    assert_eq!((status, &*entry.chat, &*entry.text), (200, "@news", "Hi there"));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_description() {
    let bench = Bench::start(Settings::default()).await;
    let long = "x".repeat(4097);
    for (method, fields, status, description) in [
        ("sendMessage", json!({"text": "Hi"}), 400, "Bad Request: chat_id is empty"),
        ("sendMessage", json!({"chat_id": 1}), 400, "Bad Request: message text is empty"),
        ("sendMessage", json!({"chat_id": 1, "text": long}), 400, "Bad Request: message is too long"),
        (
            "sendMessage",
            json!({"chat_id": 1, "text": "Hi", "parse_mode": "BBCode"}),
            400,
            "Bad Request: unsupported parse_mode",
        ),
        (
            "sendVideo",
            json!({"chat_id": 1, "photo": "https://shop.example/a.png"}),
            400,
            "Bad Request: there is no video in the request",
        ),
        (
            "sendPhoto",
            json!({"chat_id": 1, "photo": "a", "caption": "x".repeat(1025)}),
            400,
            "Bad Request: message caption is too long",
        ),
        ("sendPigeon", json!({"chat_id": 1, "text": "Hi"}), 404, "Not Found"),
    ] {
        let (got, answer) = send(&bench, method, fields).await;
        let expected = json!({"ok": false, "error_code": status, "description": description});
        assert_eq!((got, answer), (status, expected));
    }
    let (status, error) = answer(bench.request("/botnonsense/sendMessage").json(&json!({}))).await;
    assert_eq!((status, &error["description"]), (404, &json!("Not Found")));
    assert_eq!(bench.simulator.ledger().summary().requests.accepted, 0);
}

#[tokio::test]
async fn faults_have_errors_as_telegram_writes_them() {
    let upgraded = "Bad Request: group chat was upgraded to a supergroup chat";
    for (fault, status, expected) in [
        (
            json!({"refuse": {"code": "403", "message": "Forbidden: bot was blocked by the user"}}),
            403,
            json!({"ok": false, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}),
        ),
        (
            json!({"refuse": {"status": 409, "message": "Conflict"}}),
            409,
            json!({"ok": false, "error_code": 409, "description": "Conflict"}),
        ),
        (
            json!({"refuse": {"code": "400", "message": upgraded}}),
            400,
            json!({"ok": false, "error_code": 400, "description": upgraded,
                "parameters": {"migrate_to_chat_id": -100_500}}),
        ),
        (
            json!({"tooManyRequests": {"retryAfterSeconds": 35}}),
            429,
            json!({"ok": false, "error_code": 429, "description": "Too Many Requests: retry after 35",
                "parameters": {"retry_after": 35}}),
        ),
        (
            json!({"statusAfterAccept": 500}),
            500,
            json!({"ok": false, "error_code": 500, "description": "Internal Server Error"}),
        ),
    ] {
        let bench = Bench::with_faults(json!([{"do": fault}])).await;
        let answer =
            bench.request(PATH).json(&json!({"chat_id": -500, "text": "Hi"})).send().await.expect("answer");
        assert_eq!(answer.headers().get("retry-after").is_some(), status == 429);
        assert_eq!(body(answer).await, (status, expected));
        if status < 500 && status != 429 {
            let code = status.to_string();
            assert_eq!(bench.last_entry().done, Done::Refused { status, code });
        }
    }
}

#[tokio::test]
async fn a_bot_is_asked_who_it_is() {
    let bench = Bench::start(Settings { token: Some("42:AA-secret".into()), ..Settings::default() }).await;
    let bot = bench.get("/bot42:AA-secret/getMe").await;
    assert_eq!(
        (&bot["ok"], &bot["result"]["id"], &bot["result"]["is_bot"]),
        (&json!(true), &json!(42), &json!(true))
    );
    let expected = json!({"ok": false, "error_code": 401, "description": "Unauthorized"});
    assert_eq!(bench.get("/bot42:AA-other/getMe").await, expected);
    let sent =
        answer(bench.request("/bot42:AA-other/sendMessage").json(&json!({"chat_id": 1, "text": "Hi"}))).await;
    assert_eq!(sent, (401, expected));
}

#[tokio::test]
async fn a_message_that_fails_is_a_person_who_blocks_the_bot() {
    let receiver = Receiver::start(0).await;
    let bench = receiver
        .bench(|settings| {
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (0, 0, 100);
            settings.providers.telegram_url = Some(receiver.url.clone());
            settings.providers.telegram_secret = Some("hush".into());
        })
        .await;
    for chat in [-100_200, 15_550_100] {
        send(&bench, "sendMessage", json!({"chat_id": chat, "text": "Hi"})).await;
    }
    let post = receiver.next().await;
    assert_eq!(post.header("x-telegram-bot-api-secret-token"), "hush");
    let update = post.json();
    assert!(update["update_id"].is_u64());
    let member = &update["my_chat_member"];
    assert_eq!((&member["chat"]["id"], &member["chat"]["type"]), (&json!(15_550_100), &json!("private")));
    assert_eq!(
        (&member["old_chat_member"]["status"], &member["new_chat_member"]["status"]),
        (&json!("member"), &json!("kicked"))
    );
    assert_eq!(member["new_chat_member"]["user"]["id"], json!(42));
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 1).await;
    assert_eq!((summary.receipts.pending, summary.receipts.requests), (0, 1));
}
