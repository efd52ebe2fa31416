use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{HttpHeader, KeyRef, MediaKind};
use crate::domain::answer::Refusal;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn read_with(status: u16, headers: &HeaderMap, body: &str) -> Answer {
    read(&WireAnswer { status, headers, body: body.as_bytes(), now: now() })
}

fn answer(status: u16, body: &str) -> Answer {
    read_with(status, &HeaderMap::new(), body)
}

fn refused(retryable: bool, code: &str, detail: &str) -> Answer {
    let kind = if retryable { RefusalKind::Retryable } else { RefusalKind::Permanent };
    Answer::refused(kind, code, detail)
}

#[test]
fn answers_are_read_as_the_protocol_says() {
    let halted = |trouble| move |answer: &Answer| matches!(answer, Answer::Refused(refusal) if refusal.kind == RefusalKind::Sender(trouble));
    assert_eq!(answer(200, r#"{"id":"m1"}"#), Answer::accepted("m1"));
    assert_eq!(answer(202, r#"{"id":17}"#), Answer::accepted("17"));
    assert_eq!(answer(204, ""), Answer::accepted(""));
    assert_eq!(answer(200, "<html>"), Answer::accepted(""));
    assert_eq!(
        answer(400, r#"{"error":{"code":"bad_number","message":"no such number"}}"#),
        refused(false, "bad_number", "no such number")
    );
    assert_eq!(
        answer(503, r#"{"error":{"code":7,"message":"later","retryable":true}}"#),
        refused(true, "7", "later")
    );
    for status in [400, 404, 422] {
        assert!(matches!(answer(status, "nope"), Answer::Refused(_)), "{status}");
    }
    for status in [302, 303, 408, 500, 502, 503, 504, 600] {
        assert!(matches!(answer(status, "<html>"), Answer::Unknown { .. }), "{status}");
    }
    for status in [502, 504] {
        let of_a_proxy = answer(status, r#"{"error":{"code":504,"message":"upstream timed out"}}"#);
        assert!(matches!(of_a_proxy, Answer::Unknown { .. }), "{status}");
    }
    for status in [401, 403] {
        assert!(halted(SenderTrouble::AuthenticationFailed)(&answer(status, "")), "{status}");
    }
    for status in [301, 307, 308] {
        assert!(halted(SenderTrouble::Redirected)(&answer(status, "")), "{status}");
    }
}

#[test]
fn null_in_an_answer_is_the_same_as_absent_and_hides_nothing_beside_it() {
    assert_eq!(answer(200, r#"{"id":null,"error":null}"#), Answer::accepted(""));
    assert_eq!(
        answer(422, r#"{"error":{"code":-7,"message":null,"retryable":true}}"#),
        refused(true, "-7", "the gateway answered 422")
    );
    assert_eq!(
        answer(503, r#"{"error":{"code":null,"message":"no","retryable":null}}"#),
        refused(false, "503", "no")
    );
}

#[test]
fn what_is_a_proxys_is_not_about_the_chat_and_what_may_be_the_gateways_is() {
    let html = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))]);
    let plain = HeaderMap::new();
    let another = RefusalKind::Sender(SenderTrouble::UnexpectedAnswer);
    let auth = RefusalKind::Sender(SenderTrouble::AuthenticationFailed);
    let own = r#"{"error":{"code":"x","message":"no"}}"#;
    for (status, headers, body, expected) in [
        (404, &html, "<h1>no</h1>", another),
        (400, &plain, " <!DOCTYPE html><title>400</title>", another),
        (403, &html, "", auth),
        (407, &plain, "", auth),
        (404, &plain, "<HTML></HTML>", another),
        (404, &plain, "404 page not found\n", another),
        (404, &plain, "default backend - 404", another),
        (413, &html, "", another),
        (405, &plain, "", another),
        (421, &plain, "no", another),
        (431, &plain, "", another),
        (400, &plain, "", RefusalKind::Permanent),
        (404, &plain, "", RefusalKind::Permanent),
        (404, &plain, "unknown number", RefusalKind::Permanent),
        (422, &html, own, RefusalKind::Permanent),
        (405, &plain, own, RefusalKind::Permanent),
        (409, &html, "", RefusalKind::Permanent),
    ] {
        let answer = WireAnswer { status, headers, body: body.as_bytes(), now: now() };
        for (format, answer) in [("native", read(&answer)), ("postback", postback::read(&answer))] {
            // A bridge has no words of its own.
            let has_words = format == "native" || body != own;
            let is_as_said = matches!(&answer, Answer::Refused(refusal) if refusal.kind == expected);
            assert!(is_as_said || !has_words, "{format} {status} {body}: {answer:?}");
        }
    }
}

#[test]
fn a_503_keeps_the_wait_that_it_asks_for() {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("30"))]);
    let answer = WireAnswer { status: 503, headers: &headers, body: b"<html>", now: now() };
    for answer in [read(&answer), postback::read(&answer)] {
        assert!(
            matches!(&answer, Answer::Unknown { wait: Some(wait), .. } if wait.as_secs() == 30),
            "{answer:?}"
        );
    }
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let wait = |value: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers
            .extend(value.map(|value| (header::RETRY_AFTER, HeaderValue::from_str(value).expect("plain"))));
        match read_with(429, &headers, "") {
            Answer::Refused(Refusal { kind: RefusalKind::RateLimited, wait, .. }) => {
                wait.as_ref().map(Duration::as_secs)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(Some("120")), Some(120));
    assert_eq!(wait(Some("Mon, 23 Nov 2026 10:00:30 GMT")), Some(30));
    assert_eq!(wait(Some("Mon, 23 Nov 2026 09:00:00 GMT")), Some(0));
    assert_eq!(wait(Some("18446744073709551615")), Some(u64::MAX));
    assert_eq!(wait(Some("99999999999999999999999")), Some(u64::MAX));
    assert_eq!(wait(Some("soon")), None);
    assert_eq!(wait(Some("-1")), None);
    assert_eq!(wait(None), None);
}

fn request(channel: &HttpChannel, content: &Content) -> WireRequest {
    try_request(channel, content).expect("a request")
}

fn try_request(channel: &HttpChannel, content: &Content) -> Result<WireRequest, Answer> {
    let mut secrets = SecretValues::default();
    secrets.insert(&key("token"), "s3cret".into());
    secrets.insert(&key("signing"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
    let params = BTreeMap::from([("name".to_owned(), "Ana".to_owned())]);
    let broadcast = BroadcastName { namespace: "shop", name: "sale" };
    let (token, chat) = ("u.0.1", "15550100");
    let message = Outgoing { token, chat, content, params: &params, broadcast, now: now() };
    Http::new(channel, &secrets).expect("valid").request(&message)
}

fn key(key: &str) -> KeyRef {
    KeyRef { name: "gateway".into(), key: key.into() }
}

fn channel() -> HttpChannel {
    HttpChannel { url: "https://gw.example/send".into(), ..HttpChannel::default() }
}

fn body(request: &WireRequest) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

#[test]
fn a_request_carries_the_token_the_chat_and_the_text() {
    let request = request(&channel(), &Content::text("Hi"));
    assert_eq!(request.url.as_str(), "https://gw.example/send");
    assert_eq!(request.headers["idempotency-key"], "u.0.1");
    assert_eq!(
        body(&request),
        json!({"id":"u.0.1","to":"15550100","text":"Hi","broadcast":{"namespace":"shop","name":"sale"}})
    );
}

#[test]
fn a_request_carries_template_and_media() {
    let content = Content {
        template: Some(TemplateContent {
            name: "promo".into(),
            language: "en".into(),
            parameters: BTreeMap::from([("1".into(), "Ana".into())]),
            buttons: BTreeMap::new(),
        }),
        media: Some(MediaContent {
            kind: MediaKind::Document,
            url: "https://cdn.example/a.pdf".into(),
            file_name: "a.pdf".into(),
        }),
        ..Content::default()
    };
    let body = body(&request(&channel(), &content));
    assert_eq!(body["template"], json!({"name":"promo","language":"en","parameters":{"1":"Ana"}}));
    assert_eq!(
        body["media"],
        json!({"kind":"Document","url":"https://cdn.example/a.pdf","fileName":"a.pdf"})
    );
    assert_eq!(body.get("text"), None);
}

#[test]
fn headers_come_from_the_spec_and_from_secrets_and_secret_ones_are_not_shown() {
    let header = |name: &str, value: Option<&str>, secret: Option<&str>| HttpHeader {
        name: name.into(),
        value: value.map(str::to_owned),
        secret_ref: secret.map(key),
    };
    let channel = HttpChannel {
        headers: vec![header("X-Team", Some("shop"), None), header("X-Api-Key", None, Some("token"))],
        token_secret_ref: Some(key("token")),
        ..channel()
    };
    let request = request(&channel, &Content::text("Hi"));
    assert_eq!(request.headers["x-team"], "shop");
    assert_eq!(request.headers["x-api-key"], "s3cret");
    assert_eq!(request.headers["authorization"], "Bearer s3cret");
    assert!(!format!("{:?}", request.headers).contains("s3cret"));
}

#[test]
fn a_signed_request_can_be_checked_by_the_gateway() {
    let channel = HttpChannel { request_signing_secret_ref: Some(key("signing")), ..channel() };
    let request = request(&channel, &Content::text("Hi"));
    let header = |name| request.headers[name].to_str().expect("plain");
    let signed = webhooks::Signed {
        id: header(webhooks::ID_HEADER),
        timestamp: header(webhooks::TIMESTAMP_HEADER),
        signatures: header(webhooks::SIGNATURE_HEADER),
    };
    let secrets = Secret::parse_all("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("valid");
    assert_eq!(webhooks::verify(&secrets, signed, &request.body, now()), Ok(()));
    assert!(webhooks::verify(&secrets, signed, b"{}", now()).is_err());
}

#[test]
fn a_bridge_of_listmonk_gets_what_listmonk_would_send() {
    let channel = HttpChannel { format: HttpFormat::Postback, ..channel() };
    let request = request(&channel, &Content::text("Hi Ana"));
    assert_eq!(request.headers["user-agent"], "listmonk");
    assert_eq!(
        body(&request),
        json!({
            "subject": "sale", "from_email": "", "content_type": "plain", "body": "Hi Ana",
            "recipients": [{
                "uuid": "u.0.1", "email": "", "name": "Ana", "status": "enabled",
                "attribs": {"name": "Ana", "phone": "15550100", "chat": "15550100"},
            }],
            "campaign": {"uuid": "u", "name": "sale", "from_email": "", "headers": [], "tags": []},
            "attachments": [],
        })
    );
}

#[test]
fn a_bridge_of_listmonk_gets_no_empty_text_in_place_of_media() {
    let url = "https://cdn.example/a.png".into();
    let media = MediaContent { kind: MediaKind::Image, url, file_name: String::new() };
    let content = Content { media: Some(media), ..Content::default() };
    let channel = HttpChannel { format: HttpFormat::Postback, ..channel() };
    match try_request(&channel, &content) {
        Err(Answer::Refused(refusal)) => assert_eq!(refusal.kind, RefusalKind::NotSupported),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn only_200_of_a_bridge_of_listmonk_is_a_success() {
    let headers = HeaderMap::new();
    let read = |status| postback::read(&WireAnswer { status, headers: &headers, body: b"", now: now() });
    assert_eq!(read(200), Answer::accepted(""));
    for status in [201, 202, 204, 408, 500, 503] {
        assert!(matches!(read(status), Answer::Unknown { .. }), "{status}");
    }
    for status in [400, 404, 422] {
        assert!(
            matches!(read(status), Answer::Refused(refusal) if refusal.kind == RefusalKind::Permanent),
            "{status}"
        );
    }
    assert!(matches!(read(429), Answer::Refused(refusal) if refusal.kind == RefusalKind::RateLimited));
    assert!(matches!(read(401), Answer::Refused(refusal) if matches!(refusal.kind, RefusalKind::Sender(_))));
}
