//! `WhatsApp` Cloud API.

use super::*;

const PATH: &str = "/v24.0/106540352242922/messages";

fn text_message() -> Value {
    json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": "15550100",
        "type": "text", "text": {"body": "Hi", "preview_url": false}, "biz_opaque_callback_data": TOKEN,
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut message = text_message();
    message[field] = value;
    message
}

async fn send(bench: &Bench, body: &Value) -> (u16, Value) {
    answer(bench.request(PATH).bearer_auth("secret").json(body)).await
}

#[tokio::test]
async fn a_text_is_accepted_and_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let (status, accepted) = send(&bench, &text_message()).await;
    let expected = json!({
        "messaging_product": "whatsapp",
        "contacts": [{"input": "15550100", "wa_id": "15550100"}],
        "messages": [{"id": "wamid.sim-1"}],
    });
    assert_eq!((status, accepted), (200, expected));
    let entry = bench.last_entry();
    assert_eq!((&*entry.token, &*entry.broadcast, &*entry.account), (TOKEN, UID, "106540352242922"));
    assert_eq!(
        (&*entry.chat, &*entry.text, entry.message_id.as_deref()),
        ("15550100", "Hi", Some("wamid.sim-1"))
    );
}

#[tokio::test]
async fn templates_and_media_are_written_down() {
    let bench = Bench::start(Settings::default()).await;
    let template = json!({
        "name": "promo_a", "language": {"code": "en_US"}, "components": [
            {"type": "header", "parameters": [{"type": "image", "image": {"link": "https://shop.example/a.png"}}]},
            {"type": "body", "parameters": [{"type": "text", "text": "Ana"}]},
            {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "x1"}]},
        ],
    });
    let mut message = with("type", json!("template"));
    message["template"] = template.clone();
    let (status, accepted) = send(&bench, &message).await;
    assert_eq!((status, &accepted["messages"][0]["message_status"]), (200, &json!("accepted")));
    let entry = bench.last_entry();
    assert_eq!(serde_json::from_str::<Value>(&entry.template).expect("json"), template);
    let mut message = with("type", json!("image"));
    message["image"] = json!({"link": "https://shop.example/a.png", "caption": "Look"});
    assert_eq!(send(&bench, &message).await.0, 200);
    let entry = bench.last_entry();
    assert_eq!((&*entry.media, &*entry.text, &*entry.template), ("https://shop.example/a.png", "Look", ""));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_code() {
    let bench = Bench::start(Settings::default()).await;
    let template = |template: Value| {
        let mut message = with("type", json!("template"));
        message["template"] = template;
        message
    };
    let media = |kind: &str, media: Value| {
        let mut message = with("type", json!(kind));
        message[kind] = media;
        message
    };
    let parameter = json!({"type": "body", "parameters": [{"type": "text", "text": ""}]});
    let language = json!({"code": "en"});
    for (message, code) in [
        (json!([]), 100),
        (with("messaging_product", json!("sms")), 100),
        (with("to", Value::Null), 100),
        (with("recipient_type", json!("crowd")), 100),
        (with("text", json!({})), 100),
        (with("text", json!({"body": "x".repeat(4097)})), 100),
        (with("type", json!("poem")), 131_051),
        (template(json!({"name": "a"})), 100),
        (template(json!({"language": language})), 100),
        (template(json!({"name": "a", "language": language, "components": [{"type": "foot"}]})), 100),
        (template(json!({"name": "a", "language": language, "components": [{"type": "button"}]})), 100),
        (template(json!({"name": "a", "language": language, "components": [parameter]})), 131_008),
        (media("image", json!({"caption": "a"})), 100),
        (media("audio", json!({"id": "1", "caption": "a"})), 100),
    ] {
        let (status, answer) = send(&bench, &message).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{message}");
    }
    let counts = bench.simulator.ledger().summary().requests;
    assert_eq!((counts.refused, counts.accepted), (14, 0));
}

#[tokio::test]
async fn faults_have_errors_as_meta_writes_them() {
    for (fault, status, code, is_transient) in [
        (json!({"refuse": {"code": "131026", "message": "Message undeliverable"}}), 400, 131_026, None),
        (json!({"refuse": {}}), 400, 131_026, None),
        (json!({"refuse": {"code": "131016", "status": 503, "retryable": true}}), 503, 131_016, Some(true)),
        (json!({"refuse": {"code": "190", "status": 401}}), 401, 190, None),
        (json!({"tooManyRequests": {"retryAfterSeconds": 120}}), 429, 130_429, None),
    ] {
        let bench = Bench::with_faults(json!([{"do": fault}])).await;
        let answer = bench.request(PATH).json(&text_message()).send().await.expect("answer");
        let headers = answer.headers().clone();
        let (got, json) = body(answer).await;
        let error = &json["error"];
        assert_eq!((got, error["code"].as_u64()), (status, Some(code)), "{json}");
        assert_eq!(
            (&error["type"], error["is_transient"].as_bool()),
            (&json!("OAuthException"), is_transient)
        );
        assert!(error["error_data"]["details"].is_string() && error["fbtrace_id"].is_string(), "{json}");
        if status == 429 {
            assert_eq!(headers["retry-after"], "120");
            let usage: Value =
                serde_json::from_slice(headers["x-business-use-case-usage"].as_bytes()).expect("json");
            let usage = usage.as_object().and_then(|usage| usage.values().next()).expect("account");
            assert_eq!(usage[0]["estimated_time_to_regain_access"], json!(2));
        }
    }
}

#[tokio::test]
async fn the_number_is_shown_to_who_may_see_it() {
    let bench = Bench::start(Settings { token: Some("secret".into()), ..Settings::default() }).await;
    let get = |token: &str| {
        let url = format!("{}/v24.0/106540352242922?fields=id", bench.simulator.url());
        answer(bench.client.get(url).bearer_auth(token))
    };
    let (status, number) = get("secret").await;
    assert_eq!((status, &number["id"]), (200, &json!("106540352242922")));
    let (status, error) = get("other").await;
    assert_eq!((status, &error["error"]["code"]), (401, &json!(190)));
    assert_eq!(bench.simulator.ledger().summary().requests.requests, 0);
}

#[tokio::test]
async fn statuses_come_signed_with_the_token_of_their_message() {
    let receiver = Receiver::start(0).await;
    let bench = receiver
        .bench(|settings| {
            settings.sent_percent = 100;
            settings.providers = ProviderReceipts {
                whats_app_url: Some(receiver.url.clone()),
                whats_app_secret: Some("app secret".into()),
                ..ProviderReceipts::default()
            };
        })
        .await;
    send(&bench, &text_message()).await;
    let seconds = bench.last_entry().arrived.as_second().to_string();
    for status in ["sent", "delivered", "read"] {
        let post = receiver.next().await;
        assert_eq!(post.path, "/v1/namespaces//channels/106540352242922/receipts");
        let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"app secret");
        let code: String =
            ring::hmac::sign(&mac, &post.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(post.header("x-hub-signature-256"), format!("sha256={code}"));
        let json = post.json();
        assert_eq!(json["object"], "whatsapp_business_account");
        let change = &json["entry"][0]["changes"][0];
        assert_eq!(
            (&change["field"], &change["value"]["metadata"]["phone_number_id"]),
            (&json!("messages"), &json!("106540352242922"))
        );
        let expected = json!([{
            "id": "wamid.sim-1", "status": status, "timestamp": seconds, "recipient_id": "15550100",
            "biz_opaque_callback_data": TOKEN,
        }]);
        assert_eq!(change["value"]["statuses"], expected);
    }
}

#[tokio::test]
async fn a_failed_status_has_an_error_and_several_share_a_request() {
    let receiver = Receiver::start(0).await;
    let bench = receiver
        .bench(|settings| {
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (0, 0, 100);
            settings.failed_code = Some("131049".into());
            settings.use_message_id = true;
            settings.providers.whats_app_url = Some(receiver.url.clone());
        })
        .await;
    bench.simulator.hold_receipts();
    for chat in ["15550100", "15550101"] {
        send(&bench, &with("to", json!(chat))).await;
    }
    bench.simulator.release_receipts();
    let post = receiver.next().await;
    assert_eq!(post.header("x-hub-signature-256"), "");
    let statuses = &post.json()["entry"][0]["changes"][0]["value"]["statuses"];
    assert_eq!(statuses.as_array().map(Vec::len), Some(2));
    for (number, status) in [(0, &statuses[0]), (1, &statuses[1])] {
        assert_eq!((&status["status"], &status["errors"][0]["code"]), (&json!("failed"), &json!(131_049)));
        assert_eq!(status["recipient_id"], format!("1555010{number}"));
        assert_eq!(status.get("biz_opaque_callback_data"), None);
    }
}

#[tokio::test]
async fn statuses_of_a_group_come_for_each_participant_in_both_spellings() {
    const GROUP: &str = "Y2FwaV9ncm91cDoxNzA1NTU1MDEzOToxMjAzNjM0MDQ2OTQyMzM4MjAZD";
    let receiver = Receiver::start(0).await;
    let bench = receiver
        .bench(|settings| {
            (settings.sent_percent, settings.read_percent) = (100, 0);
            settings.providers.whats_app_url = Some(receiver.url.clone());
            settings.providers.whats_app_participants = ["15550191", "15550192"].map(str::to_owned).into();
        })
        .await;
    let mut message = with("to", json!(GROUP));
    message["recipient_type"] = json!("group");
    assert_eq!(send(&bench, &message).await.0, 200);
    for (status, field, participant) in [
        ("sent", "", ""),
        ("delivered", "recipient_participant_id", "15550191"),
        ("delivered", "participant_recipient_id", "15550192"),
    ] {
        let json = receiver.next().await.json();
        let told = &json["entry"][0]["changes"][0]["value"]["statuses"][0];
        assert_eq!((&told["status"], &told["recipient_id"]), (&json!(status), &json!(GROUP)));
        assert_eq!(told["recipient_type"], "group");
        let named = ["recipient_participant_id", "participant_recipient_id"];
        let named = named.into_iter().find_map(|field| Some((field, told[field].as_str()?)));
        assert_eq!(named.unwrap_or_default(), (field, participant));
    }
}
