use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{KeyRef, MediaKind, TextFormat};
use crate::domain::content::{Content, MediaContent, TemplateContent};
use crate::providers::wire::BroadcastName;

const TOKEN: &str = "EAABs3cretToken";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn channel() -> WhatsAppChannel {
    let settings = json!({
        "phoneNumberId": "106540352242922",
        "tokenSecretRef": {"name": "meta", "key": "token"},
        "baseUrl": "https://graph.example/",
    });
    serde_json::from_value(settings).expect("settings")
}

fn whatsapp() -> WhatsApp {
    let mut secrets = SecretValues::default();
    secrets.insert(&KeyRef { name: "meta".into(), key: "token".into() }, TOKEN.into());
    WhatsApp::new(&channel(), &secrets).expect("valid")
}

fn request_to(chat: &str, content: &Content) -> Result<WireRequest, Answer> {
    let (params, broadcast) = (BTreeMap::new(), BroadcastName { namespace: "shop", name: "sale" });
    whatsapp().request(&Outgoing { token: "0b3f.0.1", chat, content, params: &params, broadcast, now: now() })
}

fn body_of(content: &Content) -> Value {
    let request = request_to("15550100", content).expect("a request");
    serde_json::from_slice(&request.body).expect("JSON")
}

fn template(parameters: &[(&str, &str)]) -> TemplateContent {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    TemplateContent {
        name: "promo_a".into(),
        language: "en_US".into(),
        parameters: parameters.iter().map(pair).collect(),
        buttons: BTreeMap::new(),
    }
}

fn with_template(template: TemplateContent) -> Content {
    Content { template: Some(template), ..Content::default() }
}

fn media(kind: MediaKind) -> MediaContent {
    MediaContent { kind, url: "https://cdn.example/a".into(), file_name: String::new() }
}

fn media_with_text(kind: MediaKind, text: &str) -> Content {
    Content { text: text.into(), media: Some(media(kind)), ..Content::default() }
}

fn text_parameter(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

#[test]
fn a_text_goes_to_the_phone_number_with_the_token_and_the_key_in_a_secret_header() {
    let request = request_to("15550100", &Content::text("Hi https://shop.example")).expect("a request");
    assert_eq!(request.method, http::Method::POST);
    assert_eq!(request.url.as_str(), "https://graph.example/v24.0/106540352242922/messages");
    assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(request.headers["content-type"], "application/json");
    assert!(!format!("{:?}", request.headers).contains(TOKEN));
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "messaging_product": "whatsapp", "recipient_type": "individual", "to": "15550100", "type": "text",
            "text": {"body": "Hi https://shop.example", "preview_url": false},
            "biz_opaque_callback_data": "0b3f.0.1",
        })
    );
}

#[test]
fn a_group_of_the_cloud_api_is_written_to_as_a_group_and_ids_of_other_gateways_are_refused() {
    let group = "Y2FwaV9ncm91cDoxNzA1NTU1MDEzOToxMjAzNjM0MDQ2OTQyMzM4MjAZD";
    let request = request_to(group, &Content::text("Hi")).expect("a request");
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!((&body["recipient_type"], &body["to"]), (&json!("group"), &json!(group)));
    for chat in ["120363404694233820@g.us", "15550100@c.us", "@name", "-100123", "a b", "", "ü"] {
        match request_to(chat, &Content::text("Hi")) {
            Err(Answer::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::Permanent, "{chat}"),
            other => panic!("{chat}: {:?}", other.err()),
        }
    }
}

#[test]
fn templates_have_their_parameters_in_order() {
    let components = |parameters: &[(&str, &str)]| {
        let body = body_of(&with_template(template(parameters)));
        assert_eq!(body["type"], "template");
        assert_eq!(body["template"]["name"], "promo_a");
        assert_eq!(body["template"]["language"], json!({"code": "en_US"}));
        body["template"]["components"].clone()
    };
    assert_eq!(components(&[]), Value::Null);
    let names: Vec<String> = (1..=11).map(|number| number.to_string()).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let expected: Vec<Value> = names.iter().map(|name| text_parameter(name)).collect();
    assert_eq!(components(&pairs), json!([{"type": "body", "parameters": expected}]));
    assert_eq!(
        components(&[("name", "Ana"), ("shop", "Corner")]),
        json!([{"type": "body", "parameters": [
            {"type": "text", "parameter_name": "name", "text": "Ana"},
            {"type": "text", "parameter_name": "shop", "text": "Corner"},
        ]}])
    );
}

#[test]
fn a_template_has_media_in_its_header_and_texts_for_its_buttons() {
    let mut wanted = template(&[("1", "Ana")]);
    wanted.buttons = BTreeMap::from([(0, "ana".to_owned()), (10, "x".to_owned())]);
    let file = MediaContent { file_name: "offer.pdf".into(), ..media(MediaKind::Document) };
    let content = Content { template: Some(wanted), media: Some(file), ..Content::default() };
    let document = json!({"link": "https://cdn.example/a", "filename": "offer.pdf"});
    let button = |index: &str, text| json!({"type": "button", "sub_type": "url", "index": index, "parameters": [text_parameter(text)]});
    assert_eq!(
        body_of(&content)["template"]["components"],
        json!([
            {"type": "header", "parameters": [{"type": "document", "document": document}]},
            {"type": "body", "parameters": [text_parameter("Ana")]},
            button("0", "ana"),
            button("10", "x"),
        ])
    );
}

#[test]
fn media_go_out_by_link_with_the_text_as_caption() {
    let link = "https://cdn.example/a";
    let cases = [
        (MediaKind::Image, "Look", "image", json!({"link": link, "caption": "Look"})),
        (MediaKind::Video, "", "video", json!({"link": link})),
        (MediaKind::Audio, "", "audio", json!({"link": link})),
        (MediaKind::Document, "Read", "document", json!({"link": link, "caption": "Read"})),
    ];
    for (kind, text, name, expected) in cases {
        let body = body_of(&media_with_text(kind, text));
        assert_eq!((&body["type"], &body[name]), (&json!(name), &expected));
    }
    let file = MediaContent { file_name: "a.pdf".into(), ..media(MediaKind::Document) };
    let body = body_of(&Content { media: Some(file), ..Content::default() });
    assert_eq!(body["document"]["filename"], "a.pdf");
}

#[test]
fn what_whatsapp_cannot_show_is_refused_before_it_is_sent() {
    let no_language = TemplateContent { language: String::new(), ..template(&[]) };
    let sound_header =
        Content { template: Some(template(&[])), media: Some(media(MediaKind::Audio)), ..Content::default() };
    let cases = [
        ("gap", with_template(template(&[("1", "a"), ("3", "c")]))),
        ("no first", with_template(template(&[("0", "a"), ("1", "c")]))),
        ("twice", with_template(template(&[("1", "a"), ("01", "c")]))),
        ("both kinds", with_template(template(&[("1", "a"), ("name", "c")]))),
        ("far too great", with_template(template(&[("99999999999999999999999", "a")]))),
        ("no language", with_template(no_language)),
        ("sound in a header", sound_header),
        ("text with a sound", media_with_text(MediaKind::Audio, "Hear")),
        ("nothing", Content::default()),
        ("HTML", Content { format: TextFormat::Html, ..Content::text("<b>Hi</b>") }),
    ];
    for (name, content) in cases {
        match request_to("15550100", &content) {
            Err(Answer::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::NotSupported, "{name}"),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}

fn answer_with(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let pair = |(name, value): &(&'static str, &str)| {
        (header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("plain"))
    };
    let headers: HeaderMap = headers.iter().map(pair).collect();
    whatsapp().answer(&WireAnswer { status, headers: &headers, body: body.as_bytes(), now: now() })
}

fn answer(status: u16, body: &str) -> Answer {
    answer_with(status, &[], body)
}

fn error(code: i64) -> String {
    let details = json!({"messaging_product": "whatsapp", "details": "in detail"});
    json!({"error": {"code": code, "message": "(#1) short", "type": "OAuthException", "error_data": details}})
        .to_string()
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_was_taken_is_accepted_when_meta_says_so() {
    let taken = |status: &str| {
        let contacts = json!([{"input": "15550100", "wa_id": "15550100"}]);
        let message = json!({"id": "wamid.X", "message_status": status});
        json!({"messaging_product": "whatsapp", "contacts": contacts, "messages": [message]}).to_string()
    };
    let held = |word: &str| Answer::Accepted {
        message_id: "wamid.X".into(),
        held: word.into(),
        is_near_limit: false,
    };
    assert_eq!(answer(200, &taken("accepted")), Answer::accepted("wamid.X"));
    assert_eq!(answer(200, r#"{"messages":[{"id":"wamid.X"}]}"#), Answer::accepted("wamid.X"));
    for word in ["held_for_quality_assessment", "paused"] {
        assert_eq!(answer(200, &taken(word)), held(word));
    }
    assert_eq!(answer(200, r#"{"messaging_product":"whatsapp"}"#), Answer::accepted(""));
    // A page to log in is not Meta's, and of an answer that broke off nobody knows: its token settles it.
    for body in ["", "{}", "<html>", r#"{"messages":[{"id":"wam"#, r#"{"messages":7}"#, "[]"] {
        assert!(matches!(answer(200, body), Answer::Unknown { .. }), "{body}");
    }
}

#[test]
fn every_known_code_has_its_meaning_whatever_the_status() {
    let auth = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
    let restricted = RefusalKind::Sender(SenderTrouble::AccountRestricted);
    let payment = RefusalKind::Sender(SenderTrouble::PaymentRequired);
    let cases: [(RefusalKind, &[i64]); 11] = [
        (RefusalKind::RateLimited, &[4, 80_007, 80_008, 130_429, 131_057]),
        (RefusalKind::ChatLimited, &[131_056]),
        (restricted, &[131_048, 131_064, 368, 131_031, 131_045, 131_037, 33, 133_010]),
        (auth, &[0, 3, 10, 190, 200, 219, 299, 131_005]),
        (payment, &[131_042]),
        (RefusalKind::Content, &[132_001, 132_007, 132_015, 132_016, 132_068, 132_069, 131_063]),
        (
            RefusalKind::Permanent,
            &[
                132_000, 132_005, 132_008, 132_012, 131_008, 131_009, 100, 131_051, 131_026, 131_047,
                130_472, 131_021, 131_030, 131_062, 137_000, 130_497,
            ],
        ),
        (RefusalKind::Later, &[131_049]),
        (RefusalKind::OptedOut, &[131_050]),
        (RefusalKind::MediaNotFetched, &[131_052, 131_053]),
        (RefusalKind::Unavailable, &[1, 2, 131_000, 131_016, 135_000]),
    ];
    for (kind, codes) in cases {
        for code in codes {
            for status in [200, 400, 403, 404, 429, 500, 503] {
                let answer = answer(status, &error(*code));
                if status >= 500 && kind == RefusalKind::MediaNotFetched {
                    assert_eq!(
                        answer,
                        Answer::unknown(code.to_string(), "in detail"),
                        "{code} with {status}"
                    );
                    continue;
                }
                let refusal = refusal(answer);
                assert_eq!((refusal.kind, refusal.code), (kind, code.to_string()), "{code} with {status}");
                assert_eq!(refusal.detail, "in detail");
            }
        }
    }
}

#[test]
fn a_phone_number_that_the_token_does_not_know_is_trouble_of_the_sender() {
    let body = r#"{"error":{"code":100,"error_subcode":33,"message":"Unsupported post request."}}"#;
    let refusal = refusal(answer(400, body));
    assert_eq!(refusal.kind, RefusalKind::Sender(SenderTrouble::AuthenticationFailed));
    assert_eq!(refusal.detail, "Unsupported post request.");
}

#[test]
fn codes_that_nobody_knows_are_read_by_their_status() {
    let auth = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
    let kind = |status, body: &str| refusal(answer(status, body)).kind;
    assert_eq!(kind(400, &error(999_999)), RefusalKind::Unlisted);
    assert_eq!(kind(401, &error(999_999)), auth);
    assert_eq!(kind(403, &error(300)), auth);
    assert_eq!(kind(429, &error(999_999)), RefusalKind::RateLimited);
    let transient = r#"{"error":{"code":999999,"is_transient":true}}"#;
    assert_eq!(kind(400, transient), RefusalKind::Unavailable);
    // It failed on the inside, nobody knows how far it had come.
    assert!(matches!(answer(500, transient), Answer::Unknown { .. }));
    for status in [200, 500, 503] {
        assert_eq!(answer(status, &error(999_999)), Answer::unknown("999999", "in detail"), "{status}");
    }
}

#[test]
fn answers_that_are_not_metas_are_read_by_their_status_alone() {
    let auth = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
    let another = RefusalKind::Sender(SenderTrouble::UnexpectedAnswer);
    for body in ["<html>", "", r#"{"error":"no"}"#] {
        for status in [408, 409, 499, 500, 502, 503, 504] {
            assert!(matches!(answer(status, body), Answer::Unknown { .. }), "{status} {body}");
        }
        for (status, kind) in [
            (301, RefusalKind::Sender(SenderTrouble::Redirected)),
            (401, auth),
            (403, auth),
            (400, another),
            (404, another),
            (405, another),
            (407, auth),
            (413, another),
            (429, RefusalKind::RateLimited),
        ] {
            assert_eq!(refusal(answer(status, body)).kind, kind, "{status} {body}");
        }
    }
}

#[test]
fn a_rate_limit_waits_as_long_as_it_is_told_and_never_too_short() {
    let wait = |code: i64, headers: &[(&'static str, &str)]| {
        refusal(answer_with(429, headers, &error(code))).wait.as_ref().map(Duration::as_secs)
    };
    let usage = r#"{"1":[{"type":"messaging","call_count":100,"estimated_time_to_regain_access":19},
        {"estimated_time_to_regain_access":3}],"2":[{"estimated_time_to_regain_access":0}],"3":7}"#
        .replace('\n', "");
    let usage = ("x-business-use-case-usage", usage.as_str());
    for code in [4, 80_007, 130_429] {
        assert_eq!(wait(code, &[]), None);
        assert_eq!(wait(code, &[("retry-after", "7")]), Some(7));
        assert_eq!(wait(code, &[usage]), Some(19 * 60));
        assert_eq!(wait(code, &[usage, ("retry-after", "7")]), Some(7));
    }
    assert_eq!(wait(131_057, &[]), Some(60));
    for (asked, expected) in [("7", 60), ("72", 72)] {
        assert_eq!(wait(131_057, &[("retry-after", asked)]), Some(expected));
    }
    for nonsense in ["{}", "[]", "no", r#"{"1":[{"estimated_time_to_regain_access":0}]}"#, r#"{"1":[7]}"#] {
        assert_eq!(wait(4, &[("x-business-use-case-usage", nonsense)]), None, "{nonsense}");
    }
    let html = refusal(answer_with(429, &[("retry-after", "9")], "<html>"));
    assert_eq!(html.wait, Some(Duration::from_secs(9)));
    assert_eq!(refusal(answer_with(400, &[("retry-after", "9")], &error(131_026))).wait, None);
}

#[test]
fn a_503_keeps_the_wait_that_it_asks_for_and_says_nothing_of_the_message_unless_its_code_does() {
    let retry_after = [("retry-after", "9")];
    assert_eq!(refusal(answer_with(503, &retry_after, &error(131_016))).wait, Some(Duration::from_secs(9)));
    for body in ["<html>".to_owned(), error(999_999)] {
        let Answer::Unknown { wait, .. } = answer_with(503, &retry_after, &body) else { panic!("{body}") };
        assert_eq!(wait, Some(Duration::from_secs(9)), "{body}");
    }
    assert!(matches!(answer_with(502, &retry_after, ""), Answer::Unknown { wait: None, .. }));
}

#[test]
fn the_probe_reads_the_phone_number_and_says_whether_the_token_is_good() {
    let request = whatsapp().probe().expect("a probe");
    assert_eq!(request.method, http::Method::GET);
    assert_eq!(request.url.as_str(), "https://graph.example/v24.0/106540352242922?fields=id");
    assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    let probed = |status, body: &str| {
        let headers = HeaderMap::new();
        whatsapp().probed(&WireAnswer { status, headers: &headers, body: body.as_bytes(), now: now() })
    };
    assert_eq!(probed(200, r#"{"id":"106540352242922"}"#), Answer::accepted(""));
    for (status, body) in [(401, error(190)), (400, error(0)), (400, error(131_031)), (401, "<html>".into())]
    {
        assert!(matches!(refusal(probed(status, &body)).kind, RefusalKind::Sender(_)), "{status} {body}");
    }
    // Reading needs a permission that sending does not.
    let hidden = r#"{"error":{"code":100,"error_subcode":33}}"#;
    for (status, body) in [(403, error(10)), (403, error(200)), (400, hidden.into()), (502, String::new())] {
        assert!(matches!(probed(status, &body), Answer::Unknown { .. }), "{status} {body}");
    }
    assert!(matches!(probed(200, "<html>"), Answer::Unknown { .. }));
    assert_eq!(refusal(probed(429, &error(4))).kind, RefusalKind::RateLimited);
}

#[test]
fn a_token_with_a_line_break_is_refused_and_not_shown() {
    let mut secrets = SecretValues::default();
    secrets.insert(&KeyRef { name: "meta".into(), key: "token".into() }, format!("{TOKEN}\n"));
    let error = WhatsApp::new(&channel(), &secrets).err().expect("no header");
    assert_eq!(error.category(), "InvalidToken");
    assert!(!format!("{error} {error:?}").contains(TOKEN));
}
