//! Every wrong manifest that a person would write gets a clear error, and nothing is sent.

use serde_json::{Value, json};

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, chat_id, condition, counts};

/// Manifests that are refused because of their types and names, and what kubectl says. Those that break a rule of the schema are in
/// [`super::schema`].
#[tokio::test(flavor = "multi_thread")]
async fn wrong_manifests_are_refused_at_apply_with_a_message_that_helps() {
    let stage = Stage::new().await;
    let chats = |chats: Value| json!({"recipients": {"csv": null, "chats": chats}});
    let cases: Vec<(&str, Value, &str)> = vec![
        (
            "an unquoted phone number",
            broadcast("bad", 1, chats(json!([{"id": 15_550_100_001_u64}]))),
            "must be of type string",
        ),
        (
            "an unquoted parameter",
            broadcast("bad", 1, chats(json!([{"id": "15550100001", "params": {"n": 1}}]))),
            "must be of type string",
        ),
        ("a field that does not exist", broadcast("bad", 1, json!({"recipient": {}})), "unknown field"),
    ];
    for (what, manifest, expected) in cases {
        match stage.try_apply(&manifest) {
            Ok(_) => panic!("{what} was accepted"),
            Err(error) => assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{what}: {error}"),
        }
    }
    assert_eq!(stage.gateway.ledger().summary().requests.requests, 0);
}

/// Specs that the API server cannot judge, the reason that Stalled gives, and words that its message has.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_cannot_see_is_a_condition_with_a_reason_and_a_cure() {
    let stage = Stage::new().await;
    let secret = |name: &str| json!({"tokenSecretRef": {"name": name, "key": "token"}});
    stage.apply(&stage.channel("no-secret", secret("nowhere"), json!({})));
    stage.apply(&stage.channel(
        "no-key",
        json!({"tokenSecretRef": {"name": "gateway", "key": "other"}}),
        json!({}),
    ));
    stage.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "empty"}, "stringData": {"signing": " \n"}}));
    let empty = json!({"signingSecretRef": {"name": "empty", "key": "signing"}});
    stage.apply(&stage.channel("empty-key", empty, json!({})));
    let audience = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "audience"}, "data": {"empty.csv": ""},
        "binaryData": {"latin1.csv": "Y2hhdCxuYW1lCjE1NTUwMTAwMDAxLEpvc+kK"}});
    stage.apply(&audience);
    let csv = |text: &str| json!({"recipients": {"csv": text}});
    let from = |name: &str, key: &str| json!({"recipients": {"csv": null, "from": [{"configMapRef": {"name": name, "key": key}}]}});
    let text = |text: &str| json!({"message": {"text": text}});
    let channel = |name: &str| json!({"channelRef": {"name": name}});
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        (
            "missing-channel",
            channel("nowhere"),
            "ChannelNotFound",
            "create it, or correct spec.channelRef.name",
        ),
        ("missing-secret", channel("no-secret"), "SecretNotFound", "create it with key token"),
        ("missing-secret-key", channel("no-key"), "SecretKeyNotFound", "has no key other"),
        ("empty-secret-key", channel("empty-key"), "SecretKeyEmpty", "fill it"),
        (
            "unknown-markup",
            json!({"message": {"text": "Hi", "format": "HTML"}}),
            "MessageNotSupported",
            "remove message.format",
        ),
        (
            "media-at-home",
            json!({"message": {"media": {"kind": "Image", "url": "http://10.0.0.1/a.png"}}}),
            "AddressNotAllowed",
            "message.media.url",
        ),
        (
            "missing-configmap",
            from("nowhere", "chats.csv"),
            "ConfigMapNotFound",
            "create it with key chats.csv",
        ),
        ("missing-key", from("audience", "chats.csv"), "ConfigMapKeyNotFound", "has no key chats.csv"),
        ("empty-file", from("audience", "empty.csv"), "EmptyAudience", ""),
        ("not-utf8", from("audience", "latin1.csv"), "InvalidCsv", "save the CSV as UTF-8"),
        ("header-only", csv("chat,name\n"), "EmptyAudience", ""),
        ("two-chat-columns", csv("id,phone,name\n10000001,15550100001,Ana\n"), "InvalidColumn", "keep one"),
        ("numbers-as-floats", csv("phone\n15550100001.0\n1.555E+10\n"), "EmptyAudience", ""),
        ("no-chat-column", csv("name,city\nAna,Oslo\n"), "NoChatColumn", "chat"),
        ("column-twice", csv("chat,name,name\n15550100001,a,b\n"), "InvalidColumn", "name"),
        ("open-quote", csv("chat,name\n15550100001,\"Ana\n15550100002,Bo\n"), "InvalidCsv", "in line 2"),
        ("too-many-parameters", many_parameters(), "TooManyParameters", "same names for all recipients"),
        ("template-syntax", text("Hi {{ name"), "InvalidTemplate", ""),
        ("template-variable", text("Hi {{ nmae }}"), "MissingParameter", "nmae"),
        (
            "template-variables",
            text("Hi {{ nmae }}, {{ code }}"),
            "MissingParameter",
            "2 of the recipients (first: row 1) do not have what the message uses: {{ code }} in message.text, {{ nmae }}",
        ),
        ("template-filter", text("Hi {{ name | shout }}"), "InvalidTemplate", "shout"),
        ("only-bad-rows", csv("chat,name\nnobody at all,x\n17,y\n"), "EmptyAudience", "InvalidChat"),
    ];
    for (name, spec, _, _) in &cases {
        stage.apply(&broadcast(name, 2, spec.clone()));
    }
    let mut wrong = Vec::new();
    for (name, _, reason, words) in &cases {
        let stalled =
            stage.wait(name, "it is stalled", |broadcast| condition(broadcast, "Stalled").is_some()).await;
        let stalled = condition(&stalled, "Stalled").expect("Stalled");
        if stalled.reason != *reason || !stalled.message.contains(words) {
            wrong.push(format!("{name}: {} {}", stalled.reason, stalled.message));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(stage.gateway.ledger().summary().requests.requests, 0);
}

/// Ten chats, each with five parameters of its own.
fn many_parameters() -> Value {
    let params = |chat: usize| -> Value {
        (0..5)
            .map(|param| (format!("p_{chat}_{param}"), json!("x")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let chats: Vec<Value> =
        (0..10).map(|chat| json!({"id": chat_id(chat), "params": params(chat)})).collect();
    json!({"recipients": {"csv": null, "chats": chats}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_may_have_a_port_a_path_and_a_query_and_no_credentials() {
    let stage = Stage::bare().await;
    for url in [
        "https://sms.example.com",
        "http://gateway.shop.svc:8080/messages/@sales",
        "https://[2001:db8::1]:8443/send?account=me@example.com",
        "https://sms.example.com?account=sales",
    ] {
        stage.apply(&stage.channel("good", json!({"url": url}), json!({})));
    }
    for url in [
        "https://me@sms.example.com/",
        "https://me:secret@sms.example.com/",
        "https:///me:secret@sms.example.com/",
        "https://\\me:secret@sms.example.com/",
        "https://sms.example.com/a b",
        "ftp://sms.example.com/",
    ] {
        let refused = stage.try_apply(&stage.channel("bad", json!({"url": url}), json!({})));
        assert!(refused.is_err_and(|error| error.contains("url begins with http:// or https://")), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_as_spreadsheets_write_them_are_read() {
    let stage = Stage::new().await;
    let rows = "chat;name\r\n15550100001;Ana\r\n+1 (555) 010-0002;\"Bo; the second\"\r\n\r\n";
    stage.apply(&broadcast("windows", 0, json!({"recipients": {"csv": format!("\u{feff}{rows}")}})));
    let done = stage.complete("windows").await;
    books::check_complete(&stage, &done, 2).await;
    let ragged = "chat,name\n15550100001,Ana,and more\n15550100002\n15550100003,Cy\n";
    let spec = json!({"recipients": {"csv": ragged}, "message": {"text": "Hi"}});
    stage.apply(&broadcast("ragged", 0, spec));
    let done = stage.complete("ragged").await;
    let rows = books::rows(&stage, "ragged").await;
    let codes: Vec<&str> = rows.iter().map(|(_, row)| row.code.as_str()).collect();
    assert_eq!(
        codes,
        ["RaggedRow", "RaggedRow", ""],
        "a row with a field too many or too few is not guessed at"
    );
    assert_eq!((counts(&done).skipped, counts(&done).sent), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_of_a_mebibyte_is_read_whole() {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(CHANNEL, json!({}), json!({"paused": true})));
    let mut csv = String::from("chat\n");
    let mut chats = 0_usize;
    while csv.len() < 1_000_000 {
        csv += &format!("1555{:08}\n", 10_000_000 + chats);
        chats += 1;
    }
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "audience"}, "data": {"chats.csv": csv}});
    // Too large for the annotation that client-side apply keeps, as the docs say.
    let refused = stage.try_apply(&map).expect_err("too long");
    assert!(refused.contains("Too long"), "{refused}");
    stage.plane.kubectl(&["apply", "--server-side", "-n", &stage.namespace, "-f", "-"], &map.to_string());
    let from = json!({"recipients": {"csv": null, "from": [{"configMapRef": {"name": "audience", "key": "chats.csv"}}]}, "message": {"text": "Hi"}});
    stage.apply(&broadcast("big", 0, from));
    let sealed = stage.wait_state("big", "ChannelPaused").await;
    assert_eq!(sealed.status.and_then(|status| status.total), i32::try_from(chats).ok());
    assert_eq!(stage.pages("big").await.len(), chats.div_ceil(250));
    assert_eq!(stage.gateway.ledger().summary().requests.requests, 0);
}
