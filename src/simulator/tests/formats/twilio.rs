//! Twilio's Messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const PATH: &str = "/2010-04-01/Accounts/AC1/Messages.json";

type Field<'a> = (&'a str, &'a str);

const HI: [Field<'static>; 3] = [("To", "+15550100"), ("From", "+15550199"), ("Body", "Hi")];

fn request(bench: &Bench, fields: &[Field<'_>]) -> RequestBuilder {
    let form_type = "application/x-www-form-urlencoded";
    let request = bench.request(PATH).basic_auth("AC1", Some("auth"));
    request.header("content-type", form_type).body(form(fields))
}

async fn send(bench: &Bench, fields: &[Field<'_>]) -> (u16, Value) {
    answer(request(bench, fields)).await
}

/// The form with one field changed, or left out.
fn with<'a>(field: &'a str, value: &'a str) -> Vec<Field<'a>> {
    let others = HI.into_iter().filter(|(name, _)| *name != field);
    others.chain([(field, value)].into_iter().filter(|(_, value)| !value.is_empty())).collect()
}

#[tokio::test]
async fn messages_are_queued_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let callback = format!("http://127.0.0.1:9/receipts?token={TOKEN}");
    let (status, sent) = send(&bench, &with("StatusCallback", &callback)).await;
    let sid = format!("SM{:032}", 1);
    assert_eq!(status, 201);
    for (field, value) in [
        ("sid", json!(sid)),
        ("account_sid", json!("AC1")),
        ("status", json!("queued")),
        ("to", json!("+15550100")),
        ("from", json!("+15550199")),
        ("body", json!("Hi")),
        ("error_code", Value::Null),
        ("messaging_service_sid", Value::Null),
        ("uri", json!(format!("/2010-04-01/Accounts/AC1/Messages/{sid}.json"))),
    ] {
        assert_eq!(sent[field], value, "{field}");
    }
    let entry = bench.last_entry();
    assert_eq!((&*entry.token, &*entry.broadcast, &*entry.account), (TOKEN, UID, "AC1"));
    assert_eq!((&*entry.chat, entry.message_id.as_deref()), ("15550100", Some(&*sid)));
}

#[tokio::test]
async fn services_templates_and_media_are_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let fields = [
        ("To", "whatsapp:+15550100"),
        ("MessagingServiceSid", "MG1"),
        ("ContentSid", "HX1"),
        ("ContentVariables", r#"{"1":"Ana"}"#),
        ("MediaUrl", "https://shop.example/a.png"),
    ];
    let (status, sent) = send(&bench, &fields).await;
    assert_eq!(
        (status, &sent["status"], &sent["messaging_service_sid"]),
        (201, &json!("accepted"), &json!("MG1"))
    );
    let entry = bench.last_entry();
    assert_eq!((&*entry.chat, &*entry.media), ("15550100", "https://shop.example/a.png"));
    let template: Value = serde_json::from_str(&entry.template).expect("json");
    assert_eq!(template, json!({"contentSid": "HX1", "contentVariables": {"1": "Ana"}}));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_code() {
    let bench = Bench::start(Settings::default()).await;
    let long = "x".repeat(1601);
    for (fields, code) in [
        (with("To", ""), 21604),
        (with("From", ""), 21603),
        (with("Body", ""), 21619),
        (with("Body", &long), 21617),
        (with("To", "15550100"), 21211),
        (with("To", "+1555x"), 21211),
        (with("To", "whatsapp:+15550100"), 21910),
        (with("From", "whatsapp:+15550199"), 21910),
        (with("StatusCallback", "not a url"), 21609),
        (with("ContentVariables", "{"), 21656),
    ] {
        let (status, answer) = send(&bench, &fields).await;
        assert_eq!(
            (status, &answer["code"], &answer["status"]),
            (400, &json!(code), &json!(400)),
            "{answer}"
        );
        assert_eq!(answer["more_info"], json!(format!("https://www.twilio.com/docs/errors/{code}")));
    }
    assert_eq!(bench.simulator.ledger().summary().requests.accepted, 0);
}

#[tokio::test]
async fn faults_have_errors_as_twilio_writes_them() {
    for (fault, status, code) in [
        (
            json!({"refuse": {"code": "21610", "message": "Attempt to send to unsubscribed recipient"}}),
            400,
            21610,
        ),
        (json!({"refuse": {}}), 400, 21211),
        (json!({"refuse": {"code": "20003"}}), 401, 20003),
        (json!({"refuse": {"code": "20404"}}), 404, 20404),
        (json!({"refuse": {"code": "21408", "status": 403}}), 403, 21408),
        (json!({"tooManyRequests": {"retryAfterSeconds": 3}}), 429, 20429),
        (json!({"statusBeforeAccept": 500}), 500, 20500),
        (json!({"statusAfterAccept": 503}), 503, 20503),
    ] {
        let bench = Bench::with_faults(json!([{"do": fault}])).await;
        let answer = request(&bench, &HI).send().await.expect("answer");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429);
        let (got, json) = body(answer).await;
        assert_eq!((got, &json["code"], &json["status"]), (status, &json!(code), &json!(status)), "{json}");
    }
}

#[tokio::test]
async fn the_account_is_shown_to_who_knows_its_token() {
    let bench = Bench::start(Settings { token: Some("auth".into()), ..Settings::default() }).await;
    let get = |user: &str, token: &str| {
        let url = format!("{}/2010-04-01/Accounts/AC1.json", bench.simulator.url());
        answer(bench.client.get(url).basic_auth(user, Some(token)))
    };
    let (status, account) = get("AC1", "auth").await;
    assert_eq!((status, &account["sid"], &account["status"]), (200, &json!("AC1"), &json!("active")));
    for (user, token) in [("AC1", "other"), ("AC2", "auth")] {
        let (status, error) = get(user, token).await;
        assert_eq!((status, &error["code"], &error["message"]), (401, &json!(20003), &json!("Authenticate")));
    }
    assert_eq!(send(&bench, &HI).await.0, 201);
}

/// What Twilio's documentation says a receiver does.
fn expected_signature(url: &str, body: &str) -> String {
    let parsed: reqwest::Url = format!("http://localhost/?{body}").parse().expect("url");
    let mut fields: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    fields.sort();
    let content = fields.iter().fold(url.to_owned(), |content, (name, value)| content + name + value);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"auth");
    STANDARD.encode(ring::hmac::sign(&key, content.as_bytes()))
}

async fn bench_with_receipts(receiver: &Receiver, change: impl FnOnce(&mut ReceiptSettings)) -> Bench {
    let bench = receiver.bench(|settings| {
        settings.providers.twilio_auth_token = Some("auth".into());
        change(settings);
    });
    bench.await
}

/// The address of the receiver with a token, and where a request for it arrives.
fn callback(receiver: &Receiver) -> String {
    format!(
        "{}?token={TOKEN}&channel=a%20b",
        receiver.url.replace("{namespace}", "shop").replace("{channel}", "sms")
    )
}

#[tokio::test]
async fn callbacks_go_signed_to_where_the_message_says() {
    let receiver = Receiver::start(0).await;
    let bench = bench_with_receipts(&receiver, |settings| settings.sent_percent = 100).await;
    let url = callback(&receiver);
    send(&bench, &with("StatusCallback", &format!("{url}#rc=2"))).await;
    send(&bench, &HI).await;
    // Nobody hears whether an SMS was read.
    for status in ["sent", "delivered"] {
        let post = receiver.next().await;
        assert_eq!(post.uri.query(), Some(&*format!("token={TOKEN}&channel=a%20b")));
        assert_eq!(post.header("content-type"), "application/x-www-form-urlencoded; charset=UTF-8");
        let text = String::from_utf8(post.body.to_vec()).expect("text");
        assert_eq!(post.header("x-twilio-signature"), expected_signature(&url, &text));
        let parsed: reqwest::Url = format!("http://localhost/?{text}").parse().expect("url");
        let field = |wanted: &str| {
            parsed.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        for (name, value) in [
            ("MessageStatus", status),
            ("MessageSid", &*format!("SM{:032}", 1)),
            ("AccountSid", "AC1"),
            ("To", "+15550100"),
            ("From", "+15550199"),
        ] {
            assert_eq!(field(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(field("ErrorCode"), None);
        assert_eq!(field("RawDlrDoneDate").map(|date| date.len()), (status == "delivered").then_some(10));
    }
    // The message without an address for callbacks has none.
    let summary = bench.wait_until(|summary| summary.receipts.delivered == 2).await;
    assert_eq!((summary.receipts.pending, summary.requests.accepted), (0, 2));
}

#[tokio::test]
async fn a_callback_that_is_refused_is_given_up_and_the_message_can_be_asked_for() {
    let receiver = Receiver::start(1).await;
    let bench = bench_with_receipts(&receiver, |settings| {
        (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (0, 0, 100);
    })
    .await;
    let (_, sent) = send(&bench, &with("StatusCallback", &callback(&receiver))).await;
    let text = String::from_utf8(receiver.next().await.body.to_vec()).expect("text");
    assert!(text.contains("MessageStatus=undelivered") && text.contains("ErrorCode=30005"), "{text}");
    let summary = bench.wait_until(|summary| summary.receipts.pending == 0).await;
    assert_eq!((summary.receipts.failed, summary.receipts.requests), (1, 1));
    let message = bench.get(sent["uri"].as_str().expect("uri")).await;
    assert_eq!((&message["sid"], &message["body"]), (&sent["sid"], &json!("Hi")));
    assert_eq!((&message["status"], &message["error_code"]), (&json!("undelivered"), &json!(30005)));
}

#[tokio::test]
async fn a_callback_to_which_nobody_listens_is_tried_once_more() {
    let receiver = Receiver::start(0).await;
    let bench = bench_with_receipts(&receiver, |_| {}).await;
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let url = format!("http://{}/", listener.local_addr().expect("address"));
    drop(listener);
    send(&bench, &with("StatusCallback", &url)).await;
    let summary = bench.wait_until(|summary| summary.receipts.failed == 1).await;
    assert_eq!((summary.receipts.pending, summary.receipts.requests), (0, 2));
}

#[tokio::test]
async fn a_message_is_as_far_as_its_receipts_are_due() {
    let bench = Bench::start(Settings::default()).await;
    let (_, sms) = send(&bench, &HI).await;
    let by_whatsapp = [("To", "whatsapp:+15550100"), ("From", "whatsapp:+15550199"), ("Body", "Hi")];
    let (_, sent) = send(&bench, &by_whatsapp).await;
    let [sms, uri] = [&sms, &sent].map(|sent| sent["uri"].as_str().expect("uri"));
    for (settings, status) in [
        (Value::Null, "sent"),
        (json!({"readPercent": 100}), "read"),
        (json!({}), "delivered"),
        (json!({"deliveredPercent": 0}), "sent"),
        (json!({"delayMs": 86_400_000}), "queued"),
    ] {
        let mut settings: Value = settings;
        if settings.is_object() {
            settings["providers"] = json!({"twilioAuthToken": "auth"});
        }
        assert_eq!(bench.put("/simulator/receipts", settings.to_string()).await, 204);
        let message = bench.get(uri).await;
        assert_eq!((&message["status"], &message["error_code"]), (&json!(status), &Value::Null));
        let status = if status == "read" { "delivered" } else { status };
        assert_eq!(bench.get(sms).await["status"], json!(status));
    }
    for path in [uri.replace("AC1", "AC2"), uri.replace("SM", "MM")] {
        assert_eq!(bench.get(&path).await["code"], json!(20404), "{path}");
    }
}
