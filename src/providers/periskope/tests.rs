use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::KeyRef;
use crate::domain::content::TemplateContent;
use crate::providers::wire::BroadcastName;
use RefusalKind::{NotSupported, Permanent, RateLimited, Sender, Unlisted};
use SenderTrouble::{AuthenticationFailed, PaymentRequired, Redirected, UnexpectedAnswer};

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn periskope(phone: &str) -> Periskope {
    let key = KeyRef { name: "periskope".into(), key: "token".into() };
    let channel = serde_json::from_value(json!({"phone": phone, "tokenSecretRef": key})).expect("a channel");
    let mut secrets = SecretValues::default();
    secrets.insert(&key, "s3cret".into());
    Periskope::new(&channel, &secrets).expect("valid")
}

fn request(chat: &str, content: &Content) -> Result<WireRequest, Answer> {
    let params = BTreeMap::new();
    let broadcast = BroadcastName { namespace: "shop", name: "sale" };
    let message = Outgoing { token: "u.0.1", chat, content, params: &params, broadcast, now: now() };
    periskope("15550999").request(&message)
}

fn body(chat: &str, content: &Content) -> Value {
    let request = request(chat, content).unwrap_or_else(|answer| panic!("{answer:?}"));
    serde_json::from_slice(&request.body).expect("JSON")
}

fn media(kind: MediaKind, url: &str, file_name: &str) -> MediaContent {
    MediaContent { kind, url: url.into(), file_name: file_name.into() }
}

#[test]
fn a_message_names_the_phone_and_the_key_which_is_not_shown() {
    let request = request("15550100", &Content::text("Hi")).expect("a request");
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.url.as_str(), "https://api.periskope.app/v1/message/send");
    assert_eq!(request.headers["x-phone"], "15550999");
    assert_eq!(request.headers["authorization"], "Bearer s3cret");
    assert!(!format!("{:?}", request.headers).contains("s3cret"));
    assert_eq!(periskope("phone-abc").probe().expect("one").headers["x-phone"], "phone-abc");
}

#[test]
fn numbers_become_ids_and_ids_stay() {
    let text = Content::text("Hi");
    for (chat, id) in
        [("15550100", "15550100@c.us"), ("15550100@c.us", "15550100@c.us"), ("1203630@g.us", "1203630@g.us")]
    {
        assert_eq!(body(chat, &text), json!({"chat_id": id, "message": "Hi"}));
    }
    for chat in ["", "ACME", "-100123"] {
        assert!(
            matches!(request(chat, &text), Err(Answer::Refused(refusal)) if refusal.kind == Permanent),
            "{chat}"
        );
    }
}

#[test]
fn media_has_a_name_and_a_type() {
    for (given, kind, name, mime) in [
        (media(MediaKind::Image, "https://x.example/a.PNG?v=1", ""), "image", "a.PNG", "image/png"),
        (media(MediaKind::Image, "https://x.example/img/1", ""), "image", "1", "image/jpeg"),
        (media(MediaKind::Video, "https://x.example/", ""), "video", "video", "video/mp4"),
        (media(MediaKind::Audio, "https://x.example", ""), "audio", "audio", "audio/mpeg"),
        (
            media(MediaKind::Document, "https://x.example/f/1", "Offer.pdf"),
            "document",
            "Offer.pdf",
            "application/pdf",
        ),
        (
            media(MediaKind::Document, "https://x.example/f.pdf", "Offer"),
            "document",
            "Offer",
            "application/pdf",
        ),
        (
            media(MediaKind::Document, "https://x.example/f#a.pdf", ""),
            "document",
            "f",
            "application/octet-stream",
        ),
    ] {
        let content = Content { text: "See".into(), media: Some(given.clone()), ..Content::default() };
        let media = json!({"type": kind, "url": given.url, "filename": name, "mimetype": mime});
        assert_eq!(
            body("15550100", &content),
            json!({"chat_id": "15550100@c.us", "message": "See", "media": media})
        );
        let alone = Content { media: Some(given), ..Content::default() };
        assert_eq!(body("15550100", &alone).get("message"), None);
    }
}

#[test]
fn templates_and_markup_are_refused() {
    let template = TemplateContent {
        name: "promo".into(),
        language: String::new(),
        parameters: BTreeMap::new(),
        buttons: BTreeMap::new(),
    };
    let html = Content { format: TextFormat::Html, ..Content::text("<b>Hi</b>") };
    for content in [Content { template: Some(template), ..Content::default() }, html] {
        let refused = request("15550100", &content);
        assert!(matches!(refused, Err(Answer::Refused(refusal)) if refusal.kind == NotSupported));
    }
}

fn answer_with(status: u16, headers: &HeaderMap, body: &str) -> Answer {
    periskope("15550999").answer(&WireAnswer { status, headers, body: body.as_bytes(), now: now() })
}

fn answer(status: u16, body: &str) -> Answer {
    answer_with(status, &HeaderMap::new(), body)
}

#[test]
fn a_message_is_accepted_by_the_id_that_receipts_name() {
    for (body, id) in [
        (r#"{"queue_id":"ba32","queue_position":0,"unique_id":"3EB0"}"#, "3EB0"),
        (r#"{"queue_id":"ba32","queue_position":0}"#, "ba32"),
        (r#"{"queue_id":"ba32","unique_id":""}"#, "ba32"),
        (r#"{"queue_id":"ba32","unique_id":null}"#, "ba32"),
    ] {
        assert_eq!(answer(200, body), Answer::accepted(id));
    }
    for body in ["", "{}", "<html>", r#"{"unique_id":""}"#, "[]"] {
        assert!(matches!(answer(200, body), Answer::Unknown { .. }), "{body}");
    }
}

#[test]
fn errors_of_periskope_are_read_by_their_status_and_those_of_others_are_not_about_the_chat() {
    for (status, of_periskope, of_another) in [
        (307, Sender(Redirected), Sender(Redirected)),
        (400, Unlisted, Sender(UnexpectedAnswer)),
        (401, Sender(AuthenticationFailed), Sender(AuthenticationFailed)),
        (402, Sender(PaymentRequired), Sender(UnexpectedAnswer)),
        (403, Sender(AuthenticationFailed), Sender(AuthenticationFailed)),
        (404, Permanent, Sender(UnexpectedAnswer)),
        (405, Unlisted, Sender(UnexpectedAnswer)),
        (407, Sender(AuthenticationFailed), Sender(AuthenticationFailed)),
        (422, Unlisted, Sender(UnexpectedAnswer)),
        (429, RateLimited, RateLimited),
    ] {
        let kind = |body| match answer(status, body) {
            Answer::Refused(refusal) => refusal.kind,
            other => panic!("{status} {body}: {other:?}"),
        };
        let own = r#"{"code":"NOT_FOUND_ERROR","message":"Chat not found","status":404}"#;
        assert_eq!(kind(own), of_periskope, "{status}");
        // What gateways on the way answer looks the same, and a chat that is unknown has its own code.
        let less = if status == 404 { of_another } else { of_periskope };
        for body in [r#"{"code":7}"#, r#"{"message":"Not Found"}"#, r#"{"code":404,"message":"Not Found"}"#] {
            assert_eq!(kind(body), less, "{status} {body}");
        }
        for body in ["<html>", "", "[]", "{}", r#"{"code":null,"message":""}"#, "default backend - 404"] {
            assert_eq!(kind(body), of_another, "{status} {body}");
        }
    }
    for status in [408, 409, 499] {
        assert!(matches!(answer(status, "<html>"), Answer::Unknown { .. }), "{status}");
    }
    let body = r#"{"code":"NOT_FOUND_ERROR","message":"Chat not found","status":404}"#;
    assert_eq!(answer(404, body), Answer::refused(Permanent, "NOT_FOUND_ERROR", "Chat not found"));
    assert_eq!(answer(400, r#"{"message":"no"}"#), Answer::refused(Unlisted, "400", "no"));
    assert_eq!(answer(400, r#"{"code":7}"#), Answer::refused(Unlisted, "7", "Periskope answered 400"));
}

#[test]
fn nothing_is_known_after_a_5xx_even_with_an_error_in_it() {
    for status in [408, 500, 502, 503, 504] {
        for body in [r#"{"code":"INTERNAL_ERROR","message":"no"}"#, "<html>", ""] {
            assert!(matches!(answer(status, body), Answer::Unknown { .. }), "{status} {body}");
        }
    }
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("30"))]);
    let own = r#"{"code":"RATE_LIMIT","message":"slow down"}"#;
    for body in ["", "<html>", own] {
        let Answer::Refused(refusal) = answer_with(429, &headers, body) else { panic!("refused") };
        assert_eq!((refusal.kind, refusal.wait), (RateLimited, Some(Duration::from_secs(30))), "{body}");
        let lost = answer_with(503, &headers, body);
        assert!(matches!(lost, Answer::Unknown { wait: Some(wait), .. } if wait.as_secs() == 30), "{lost:?}");
    }
    let Answer::Refused(refusal) = answer_with(404, &headers, own) else { panic!("refused") };
    assert_eq!(refusal.wait, None);
}

#[test]
fn the_probe_asks_for_the_queue() {
    let periskope = periskope("15550999");
    let probe = periskope.probe().expect("one");
    assert_eq!(probe.method, Method::GET);
    assert_eq!(probe.url.as_str(), "https://api.periskope.app/v1/message/queues/health");
    assert!(probe.headers["authorization"].is_sensitive());
    let headers = HeaderMap::new();
    let probed =
        |status| periskope.probed(&WireAnswer { status, headers: &headers, body: b"{}", now: now() });
    assert_eq!(probed(200), Answer::accepted(""));
    assert!(matches!(probed(401), Answer::Refused(refusal) if refusal.kind == Sender(AuthenticationFailed)));
    assert!(matches!(probed(503), Answer::Unknown { .. }));
}
