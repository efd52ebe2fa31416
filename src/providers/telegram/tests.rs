use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::KeyRef;
use crate::domain::answer::{Refusal, SenderTrouble};
use crate::domain::content::TemplateContent;
use crate::providers::wire::BroadcastName;

const TOKEN: &str = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw_-";
const AUTH: RefusalKind = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
const ANOTHER: RefusalKind = RefusalKind::Sender(SenderTrouble::UnexpectedAnswer);

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn channel() -> TelegramChannel {
    let settings = json!({
        "tokenSecretRef": {"name": "bot", "key": "token"},
        "baseUrl": "https://telegram.example/",
    });
    serde_json::from_value(settings).expect("settings")
}

fn with_token(channel: &TelegramChannel, token: &str) -> Result<Telegram, GatewayError> {
    let mut secrets = SecretValues::default();
    secrets.insert(&KeyRef { name: "bot".into(), key: "token".into() }, token.into());
    Telegram::new(channel, &secrets)
}

fn telegram() -> Telegram {
    with_token(&channel(), TOKEN).expect("valid")
}

fn request_of(telegram: &Telegram, chat: &str, content: &Content) -> Result<(String, Value), Answer> {
    let params = BTreeMap::new();
    let broadcast = BroadcastName { namespace: "shop", name: "sale" };
    let message = Outgoing { token: "u.0.1", chat, content, params: &params, broadcast, now: now() };
    let request = telegram.request(&message)?;
    assert_eq!(request.method, http::Method::POST);
    let base = format!("https://telegram.example/bot{TOKEN}/");
    let method = request.url.as_str().strip_prefix(&base).expect("a method of the bot").to_owned();
    Ok((method, serde_json::from_slice(&request.body).expect("JSON")))
}

fn request(content: &Content) -> (String, Value) {
    request_of(&telegram(), "4711", content).expect("a request")
}

fn media(kind: MediaKind, text: &str) -> Content {
    let media = MediaContent { kind, url: "https://cdn.example/a".into(), file_name: "a.pdf".into() };
    Content { text: text.into(), media: Some(media), ..Content::default() }
}

#[test]
fn a_text_is_sent_as_it_is() {
    let (method, body) = request(&Content::text("Hi <b>*Ana*</b>"));
    assert_eq!(method, "sendMessage");
    assert_eq!(body, json!({"chat_id": 4711, "text": "Hi <b>*Ana*</b>"}));
}

#[test]
fn markup_and_the_settings_of_the_channel_are_said() {
    let quiet = TelegramChannel { disable_notification: true, disable_link_preview: true, ..channel() };
    let quiet = with_token(&quiet, TOKEN).expect("valid");
    let html = Content { format: TextFormat::Html, ..Content::text("<b>Hi</b>") };
    assert_eq!(
        request_of(&quiet, "4711", &html).expect("a request").1,
        json!({
            "chat_id": 4711, "text": "<b>Hi</b>", "parse_mode": "HTML", "disable_notification": true,
            "link_preview_options": {"is_disabled": true},
        })
    );
    let markdown = Content { format: TextFormat::MarkdownV2, ..media(MediaKind::Image, "*Hi*") };
    assert_eq!(
        request_of(&quiet, "4711", &markdown).expect("a request").1,
        json!({
            "chat_id": 4711, "photo": "https://cdn.example/a", "caption": "*Hi*", "parse_mode": "MarkdownV2",
            "disable_notification": true,
        })
    );
}

#[test]
fn each_kind_of_media_has_its_method() {
    for (kind, name, field) in [
        (MediaKind::Image, "sendPhoto", "photo"),
        (MediaKind::Video, "sendVideo", "video"),
        (MediaKind::Audio, "sendAudio", "audio"),
        (MediaKind::Document, "sendDocument", "document"),
    ] {
        let (method, body) = request(&media(kind, ""));
        assert_eq!(method, name);
        assert_eq!(body, json!({"chat_id": 4711, field: "https://cdn.example/a"}));
        assert_eq!(request(&media(kind, "Look")).1["caption"], "Look");
    }
}

#[test]
fn chats_are_numbers_or_public_names() {
    let chat = |chat: &str| {
        request_of(&telegram(), chat, &Content::text("Hi")).map(|(_, body)| body["chat_id"].clone())
    };
    assert_eq!(chat("4711"), Ok(json!(4711)));
    assert_eq!(chat("-1001234567890"), Ok(json!(-1_001_234_567_890_i64)));
    assert_eq!(chat("4503599627370495"), Ok(json!(4_503_599_627_370_495_i64)));
    assert_eq!(chat("@news"), Ok(json!("@news")));
    for other in ["news", "@", "-", "", "99999999999999999999", "1-2", "15550100@c.us", "+4711"] {
        match chat(other) {
            Err(Answer::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::Permanent, "{other}"),
            answer => panic!("{other}: {answer:?}"),
        }
    }
}

#[test]
fn what_telegram_does_not_have_is_refused_before_it_is_sent() {
    let template = TemplateContent {
        name: "promo".into(),
        language: "en".into(),
        parameters: BTreeMap::new(),
        buttons: BTreeMap::new(),
    };
    let template = Content { template: Some(template), ..Content::default() };
    for content in [template, Content::default()] {
        match request_of(&telegram(), "4711", &content) {
            Err(Answer::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::NotSupported),
            answer => panic!("{answer:?}"),
        }
    }
}

#[test]
fn a_token_that_would_change_the_url_is_refused_and_not_shown() {
    for token in ["", "1:a\n", "1:a/../x", "1:a?x", "1:a#x", "1:a b", "1:ä", "1:a%2f"] {
        let error = with_token(&channel(), token).err().expect("no token");
        assert_eq!(error.category(), "InvalidToken", "{token}");
        assert!(token.is_empty() || !format!("{error} {error:?}").contains(token), "{error}");
    }
    let broken = TelegramChannel { base_url: "https://:x".into(), ..channel() };
    let error = with_token(&broken, TOKEN).err().expect("no url");
    assert_eq!(error.category(), "InvalidUrl");
    assert!(!format!("{error} {error:?}").contains(TOKEN));
}

fn wire(
    status: u16,
    retry_after: Option<&str>,
    body: &str,
    read: impl Fn(&WireAnswer<'_>) -> Answer,
) -> Answer {
    let mut headers = HeaderMap::new();
    headers.extend(
        retry_after.map(|value| (http::header::RETRY_AFTER, HeaderValue::from_str(value).expect("plain"))),
    );
    read(&WireAnswer { status, headers: &headers, body: body.as_bytes(), now: now() })
}

fn answer(status: u16, body: &str) -> Answer {
    wire(status, None, body, |answer| telegram().answer(answer))
}

fn probed(status: u16, body: &str) -> Answer {
    wire(status, None, body, |answer| telegram().probed(answer))
}

fn error(code: u16, description: &str) -> String {
    json!({"ok": false, "error_code": code, "description": description}).to_string()
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_that_was_taken_has_an_id_with_its_chat() {
    let taken = r#"{"ok":true,"result":{"message_id":77,"date":1750000000,"chat":{"id":-1001234567890}}}"#;
    assert_eq!(answer(200, taken), Answer::accepted("-1001234567890/77"));
    for body in [r#"{"ok":true,"result":{"message_id":77}}"#, r#"{"ok":true}"#] {
        assert_eq!(answer(200, body), Answer::accepted(""), "{body}");
    }
    // A page to log in is no Telegram, and of an answer that broke off nobody knows.
    for body in [r#"{"ok":true,"resu"#, "", "<html>"] {
        assert!(matches!(answer(200, body), Answer::Unknown { .. }), "{body}");
    }
}

#[test]
fn every_known_refusal_has_its_meaning() {
    let restricted = RefusalKind::Sender(SenderTrouble::AccountRestricted);
    let cases: [(u16, RefusalKind, &[&str]); 12] = [
        (
            403,
            RefusalKind::OptedOut,
            &[
                "Forbidden: bot was blocked by the user",
                "Forbidden: user is deactivated",
                "Forbidden: bot was kicked from the group chat",
                "Forbidden: bot was kicked from the supergroup chat",
                "Forbidden: bot was kicked from the channel chat",
                "Forbidden: bot is not a member of the channel chat",
                "Forbidden: bot is not a member of the supergroup chat",
                "Forbidden: the group chat was deleted",
                "Forbidden: bot can't initiate conversation with a user",
            ],
        ),
        (403, RefusalKind::Permanent, &["Forbidden: bots can't send messages to bots"]),
        (403, RefusalKind::Unlisted, &["Forbidden: something new", ""]),
        (400, RefusalKind::Unlisted, &["Bad Request: something new"]),
        (
            400,
            RefusalKind::Permanent,
            &[
                "Bad Request: chat not found",
                "Bad Request: group chat was upgraded to a supergroup chat",
                "Bad Request: not enough rights to send text messages to the chat",
                "Bad Request: have no rights to send a message",
                "Bad Request: CHAT_WRITE_FORBIDDEN",
                "Bad Request: TOPIC_CLOSED",
                "Bad Request: chat_id is empty",
                "Bad Request: PEER_ID_INVALID",
            ],
        ),
        (
            400,
            RefusalKind::Content,
            &[
                "Bad Request: can't parse entities: Character '.' is reserved",
                "Bad Request: unsupported parse_mode",
                "Bad Request: message is too long",
                "Bad Request: message caption is too long",
                "Bad Request: MESSAGE_TOO_LONG",
                "Bad Request: MEDIA_CAPTION_TOO_LONG",
                "Bad Request: message text is empty",
                "Bad Request: text must be non-empty",
                "Bad Request: ENTITY_TEXT_INVALID",
            ],
        ),
        (
            400,
            RefusalKind::Media,
            &[
                "Bad Request: wrong HTTP URL specified",
                "Bad Request: invalid file HTTP URL specified: Unsupported URL protocol",
                "Bad Request: wrong file identifier/HTTP URL specified",
                "Bad Request: wrong remote file identifier specified: Wrong padding in the string",
                "Bad Request: failed to get HTTP URL content",
                "Bad Request: wrong type of the web page content",
                "Bad Request: can't upload file by URL",
                "Bad Request: file is too big",
                "Bad Request: PHOTO_INVALID_DIMENSIONS",
                "Bad Request: IMAGE_PROCESS_FAILED",
                "Bad Request: MEDIA_EMPTY",
            ],
        ),
        (400, AUTH, &["Bad Request: Logged out", "Logged out"]),
        (401, AUTH, &["Unauthorized", "Unauthorized: invalid token specified"]),
        (404, AUTH, &["Not Found", "Not Found: method not found"]),
        (409, restricted, &["Conflict: terminated by other getUpdates request"]),
        (413, RefusalKind::Media, &["Request Entity Too Large"]),
    ];
    for (code, kind, descriptions) in cases {
        for description in descriptions {
            // The code in the body is the one that counts.
            for status in [code, 200] {
                let refusal = refusal(answer(status, &error(code, description)));
                assert_eq!(refusal.kind, kind, "{code} {description}");
                assert_eq!((refusal.code, refusal.detail.as_str()), (code.to_string(), *description));
            }
        }
    }
}

#[test]
fn a_group_that_has_another_id_now_says_which() {
    let body = json!({
        "ok": false, "error_code": 400, "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1_001_234_567_890_i64},
    });
    let Refusal { kind, code, detail, .. } = refusal(answer(400, &body.to_string()));
    assert_eq!((kind, code.as_str()), (RefusalKind::Permanent, "migrated"));
    assert!(detail.contains("-1001234567890"), "{detail}");
}

#[test]
fn a_rate_limit_waits_as_long_as_the_body_says_or_else_the_header() {
    let limited = |header, parameters: Value| {
        let description = "Too Many Requests: retry after 35";
        let body =
            json!({"ok": false, "error_code": 429, "description": description, "parameters": parameters});
        let refusal = refusal(wire(429, header, &body.to_string(), |answer| telegram().answer(answer)));
        assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::RateLimited, "429"));
        refusal.wait.as_ref().map(Duration::as_secs)
    };
    assert_eq!(limited(None, json!({"retry_after": 35})), Some(35));
    assert_eq!(limited(Some("7"), json!({"retry_after": 10_072})), Some(10_072));
    assert_eq!(limited(Some("7"), json!(null)), Some(7));
    assert_eq!(limited(None, json!({"retry_after": "x"})), None);
    let proxy = refusal(wire(429, Some("9"), "<html>", |answer| telegram().answer(answer)));
    assert_eq!((proxy.kind, proxy.wait), (RefusalKind::RateLimited, Some(Duration::from_secs(9))));
}

#[test]
fn failures_of_a_server_say_nothing_of_the_message() {
    for description in ["Internal Server Error", "Request aborted", "Internal Server Error: restart"] {
        assert_eq!(answer(500, &error(500, description)), Answer::unknown("500", description));
    }
    for status in [408, 500, 502, 503, 504] {
        assert!(matches!(answer(status, "<html>"), Answer::Unknown { .. }), "{status}");
    }
    for body in ["<html>".to_owned(), error(503, "Service Unavailable")] {
        let lost = wire(503, Some("9"), &body, |answer| telegram().answer(answer));
        assert!(matches!(lost, Answer::Unknown { wait: Some(wait), .. } if wait.as_secs() == 9), "{lost:?}");
    }
    // What Telegram did not say is not about the chat.
    for (status, kind) in [
        (307, RefusalKind::Sender(SenderTrouble::Redirected)),
        (400, ANOTHER),
        (401, AUTH),
        (403, AUTH),
        (404, ANOTHER),
        (405, ANOTHER),
        (407, AUTH),
        (413, ANOTHER),
    ] {
        for body in ["<html>", "", r#"{"message":"no route"}"#] {
            assert_eq!(refusal(answer(status, body)).kind, kind, "{status} {body}");
        }
    }
}

#[test]
fn the_probe_asks_who_the_bot_is() {
    let request = telegram().probe().expect("a probe");
    assert_eq!(request.method, http::Method::GET);
    assert_eq!(request.url.as_str(), format!("https://telegram.example/bot{TOKEN}/getMe"));
    assert_eq!(probed(200, r#"{"ok":true,"result":{"id":110201543,"is_bot":true}}"#), Answer::accepted(""));
    for (status, body) in [(401, error(401, "Unauthorized")), (404, error(404, "Not Found"))] {
        assert_eq!(refusal(probed(status, &body)).kind, AUTH, "{status} {body}");
    }
    assert_eq!(refusal(probed(404, "")).kind, ANOTHER);
    assert_eq!(refusal(probed(429, &error(429, ""))).kind, RefusalKind::RateLimited);
    for (status, body) in [(200, "<html>"), (200, ""), (502, "<html>"), (500, &error(500, "restart"))] {
        assert!(matches!(probed(status, body), Answer::Unknown { .. }), "{status} {body}");
    }
}
