use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

use crate::api::{KeyRef, MediaKind};
use crate::domain::content::MediaContent;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::Receipt;
use crate::providers::wire::BroadcastName;
use RefusalKind::{
    Content as OfContent, Later, MediaNotFetched, NotSupported, OptedOut, Permanent, RateLimited, Retryable,
    Sender as OfSender, Unavailable, Unlisted,
};
use SenderTrouble::{AccountRestricted, AuthenticationFailed, Redirected, UnexpectedAnswer};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const SID: &str = "SM0123456789abcdef0123456789abcdef";
const CALLBACK: &str = "https://receipts.example.com/op/v1/namespaces/shop/channels/sms/receipts";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn key() -> KeyRef {
    KeyRef { name: "twilio".into(), key: "token".into() }
}

fn channel() -> TwilioChannel {
    serde_json::from_value(serde_json::json!({
        "accountSid": ACCOUNT, "authTokenSecretRef": key(), "from": "+15550999",
    }))
    .expect("a channel")
}

fn secrets(token: &str) -> SecretValues {
    let mut secrets = SecretValues::default();
    secrets.insert(&key(), token.into());
    secrets
}

fn twilio(channel: &TwilioChannel) -> Twilio {
    let public_url = Some("https://receipts.example.com/op/".into());
    let channel = TwilioChannel { public_url, ..channel.clone() };
    let callback = callback(&channel, &ObjectKey::new("shop", "sms")).expect("a url");
    Twilio::new(&channel, &secrets("s3cret"), callback).expect("valid")
}

fn request(twilio: &Twilio, chat: &str, content: &Content) -> Result<WireRequest, Answer> {
    let params = BTreeMap::new();
    let broadcast = BroadcastName { namespace: "shop", name: "sale" };
    twilio.request(&Outgoing { token: "u.0.1", chat, content, params: &params, broadcast, now: now() })
}

fn form(request: Result<WireRequest, Answer>) -> Vec<(String, String)> {
    let request = request.unwrap_or_else(|answer| panic!("{answer:?}"));
    form_urlencoded::parse(&request.body).into_owned().collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn template(parameters: &[(&str, &str)], buttons: &[(u8, &str)]) -> TemplateContent {
    TemplateContent {
        name: "HX0123456789abcdef0123456789abcdef".into(),
        language: "en".into(),
        parameters: pairs(parameters).into_iter().collect(),
        buttons: buttons.iter().map(|(number, text)| (*number, (*text).to_owned())).collect(),
    }
}

fn picture() -> MediaContent {
    let url = "https://cdn.example/a b.png?x=1&y=2".into();
    MediaContent { kind: MediaKind::Image, url, file_name: String::new() }
}

#[test]
fn a_message_is_a_form_with_basic_auth_that_is_not_shown() {
    let request = request(&twilio(&channel()), "15550100", &Content::text("Hi & 50% ✓")).expect("a request");
    assert_eq!(request.method, Method::POST);
    let url = format!("https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
    assert_eq!(request.url.as_str(), url);
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    let authorization = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:s3cret")));
    assert_eq!(request.headers["authorization"], authorization.as_str());
    assert!(!format!("{:?}", request.headers).contains(&authorization));
    let body = String::from_utf8(request.body).expect("text");
    assert!(body.starts_with("To=%2B15550100&From=%2B15550999&Body=Hi+%26+50%25+%E2%9C%93&"), "{body}");
}

#[test]
fn what_is_sent_depends_on_content_and_channel() {
    let callback = format!("{CALLBACK}?token=u.0.1");
    let from = |from: &str| TwilioChannel { from: Some(from.into()), ..channel() };
    let service = TwilioChannel { from: None, messaging_service_sid: Some("MG1".into()), ..channel() };
    let bounded = TwilioChannel { validity_period_seconds: Some(60), ..channel() };
    let text = Content::text("Hi");
    let media = Content { text: "Look".into(), media: Some(picture()), ..Content::default() };
    let plain = Content { template: Some(template(&[], &[])), ..Content::default() };
    let filled =
        Content { template: Some(template(&[("1", "Ana \"A\""), ("2", "x")], &[])), ..Content::default() };
    let hx = "HX0123456789abcdef0123456789abcdef";
    let (to, number) = (("To", "+15550100"), ("From", "+15550999"));
    for (channel, content, expected) in [
        (channel(), &text, vec![to, number, ("Body", "Hi")]),
        (
            from("whatsapp:+15550999"),
            &text,
            vec![("To", "whatsapp:+15550100"), ("From", "whatsapp:+15550999"), ("Body", "Hi")],
        ),
        (service, &text, vec![to, ("MessagingServiceSid", "MG1"), ("Body", "Hi")]),
        (channel(), &media, vec![to, number, ("Body", "Look"), ("MediaUrl", &picture().url)]),
        (channel(), &plain, vec![to, number, ("ContentSid", hx)]),
        (
            channel(),
            &filled,
            vec![to, number, ("ContentSid", hx), ("ContentVariables", r#"{"1":"Ana \"A\"","2":"x"}"#)],
        ),
        (bounded, &text, vec![to, number, ("Body", "Hi"), ("ValidityPeriod", "60")]),
    ] {
        let mut expected = pairs(&expected);
        expected.extend(pairs(&[("StatusCallback", &callback)]));
        assert_eq!(form(request(&twilio(&channel), "15550100", content)), expected);
    }
}

#[test]
fn without_a_public_url_twilio_is_told_of_none() {
    let callback = callback(&channel(), &ObjectKey::new("shop", "sms")).expect("none");
    let twilio = Twilio::new(&channel(), &secrets("s3cret"), callback).expect("valid");
    let form = form(request(&twilio, "15550100", &Content::text("Hi")));
    assert!(form.iter().all(|(name, _)| name != "StatusCallback"), "{form:?}");
}

#[test]
fn what_twilio_cannot_send_is_refused_before_it_is_asked() {
    let kind = |chat: &str, content: &Content| match request(&twilio(&channel()), chat, content) {
        Err(Answer::Refused(refusal)) => refusal.kind,
        other => panic!("{:?}", other.map(|_| "a request")),
    };
    let text = Content::text("Hi");
    for chat in ["", "ACME", "1203630@g.us", "-100123", "@channel", "+15550100"] {
        assert_eq!(kind(chat, &text), Permanent, "{chat}");
    }
    let with = |template, media| Content { template: Some(template), media, ..Content::default() };
    assert_eq!(kind("15550100", &with(template(&[], &[]), Some(picture()))), NotSupported);
    assert_eq!(kind("15550100", &with(template(&[], &[(0, "x")]), None)), NotSupported);
    let html = Content { format: TextFormat::Html, ..Content::text("<b>Hi</b>") };
    assert_eq!(kind("15550100", &html), NotSupported);
}

#[test]
fn a_channel_needs_a_sender_and_a_token_that_can_be_sent() {
    let nobody = TwilioChannel { from: None, ..channel() };
    assert!(matches!(Twilio::new(&nobody, &secrets("t"), None), Err(GatewayError::NoSettings(_))));
    assert!(matches!(Twilio::new(&channel(), &secrets("a\nb"), None), Err(GatewayError::InvalidToken(_))));
}

fn answer_with(status: u16, headers: &HeaderMap, body: &str) -> Answer {
    twilio(&channel()).answer(&WireAnswer { status, headers, body: body.as_bytes(), now: now() })
}

fn answer(status: u16, body: &str) -> Answer {
    answer_with(status, &HeaderMap::new(), body)
}

fn kind(answer: &Answer) -> Option<RefusalKind> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.kind),
        _ => None,
    }
}

/// Every code that the project knows of, and what it is to mean.
const CODES: &[(u32, RefusalKind)] = &[
    (20429, RateLimited),
    (21611, RateLimited),
    (30001, RateLimited),
    (30036, Retryable),
    (63017, RateLimited),
    (63018, RateLimited),
    (21211, Permanent),
    (21614, Permanent),
    (21612, Permanent),
    (30005, Permanent),
    (30006, Permanent),
    (21610, OptedOut),
    (30003, Later),
    (30008, Later),
    (30004, Permanent),
    (30007, Permanent),
    (21408, OfSender(AccountRestricted)),
    (30002, OfSender(AccountRestricted)),
    (63001, OfSender(AuthenticationFailed)),
    (63020, OfSender(AccountRestricted)),
    (20003, OfSender(AuthenticationFailed)),
    (63003, Permanent),
    (63024, Permanent),
    (63032, Permanent),
    (63016, Permanent),
    (63005, OfContent),
    (63013, OfContent),
    (63021, OfContent),
    (63012, Unavailable),
    (63019, MediaNotFetched),
    (63049, Later),
    (10001, OfSender(AccountRestricted)),
    (20005, OfSender(AccountRestricted)),
    (20404, OfSender(AuthenticationFailed)),
    (21212, OfSender(AccountRestricted)),
    (21655, OfContent),
    (21661, OfSender(AccountRestricted)),
    (21701, OfSender(AccountRestricted)),
    (21702, OfSender(AccountRestricted)),
    (21703, OfSender(AccountRestricted)),
    (21704, OfSender(AccountRestricted)),
    (21705, OfSender(AccountRestricted)),
    (63002, OfSender(AccountRestricted)),
    (63007, OfSender(AccountRestricted)),
    (63022, OfSender(AccountRestricted)),
    (63026, OfSender(AccountRestricted)),
    (63027, OfContent),
    (63028, OfContent),
    (63030, OfContent),
    (63038, RateLimited),
    (63040, OfContent),
    (63041, OfContent),
];

#[test]
fn every_code_means_what_it_says_in_an_answer_and_in_a_message_that_failed_at_once() {
    for &(code, expected) in CODES {
        for (status, body) in [
            (400, format!(r#"{{"code":{code},"message":"said","status":400,"more_info":"https://x"}}"#)),
            (400, format!(r#"{{"code":"{code}","message":"said"}}"#)),
            (
                201,
                format!(r#"{{"sid":"{SID}","status":"failed","error_code":{code},"error_message":"said"}}"#),
            ),
        ] {
            assert_eq!(answer(status, &body), Answer::refused(expected, code.to_string(), "said"), "{body}");
        }
    }
}

#[test]
fn every_code_means_the_same_in_a_receipt_as_far_as_that_still_matters() {
    for &(code, kind) in CODES {
        let told = webhook::Told { status: "undelivered", error: Some(code), message: "said", time: None };
        let receipt = told.receipt(SID, now()).ok().flatten().expect("a receipt");
        let plain = Receipt::new(SID, Outcome::Failed, None, now()).expect("a receipt");
        let expected = match kind {
            OfSender(trouble) => Receipt { trouble: Some(trouble), ..plain },
            RateLimited => Receipt { is_too_fast: true, ..plain },
            OptedOut => Receipt { is_opt_out: true, ..plain },
            OfContent => Receipt { is_about_content: true, ..plain },
            // Of this message alone: it was taken, and it failed.
            _ => plain,
        };
        assert_eq!(receipt, expected.with_error(&code.to_string(), "said"), "{code}");
    }
}

#[test]
fn a_5xx_is_unknown_whatever_is_in_it() {
    for status in [500, 502, 503, 504, 599] {
        for body in [r#"{"code":20500,"message":"Internal","status":500}"#, r#"{"code":21211}"#, "<html>", ""]
        {
            assert!(matches!(answer(status, body), Answer::Unknown { .. }), "{status} {body}");
        }
    }
    let said = answer(503, r#"{"code":20503,"message":"Service unavailable"}"#);
    assert_eq!(said, Answer::unknown("503", "Twilio answered 503: Service unavailable"));
    assert!(matches!(answer(408, r#"{"code":21211}"#), Answer::Unknown { .. }));
}

#[test]
fn other_errors_of_twilio_are_read_by_their_status_and_those_of_others_are_not_about_the_chat() {
    for (status, of_twilio, of_another) in [
        (301, OfSender(Redirected), OfSender(Redirected)),
        (400, Unlisted, OfSender(UnexpectedAnswer)),
        (401, OfSender(AuthenticationFailed), OfSender(AuthenticationFailed)),
        (403, OfSender(AuthenticationFailed), OfSender(AuthenticationFailed)),
        (404, Unlisted, OfSender(UnexpectedAnswer)),
        (405, Unlisted, OfSender(UnexpectedAnswer)),
        (407, OfSender(AuthenticationFailed), OfSender(AuthenticationFailed)),
        (422, Unlisted, OfSender(UnexpectedAnswer)),
        (429, RateLimited, RateLimited),
    ] {
        let new = r#"{"code":99999,"message":"new","status":400}"#;
        assert_eq!(kind(&answer(status, new)), Some(of_twilio), "{status}");
        for body in [r#"{"detail":"x"}"#, r#"{"message":"no Route matched"}"#, "<html>", "", "[]", "{}"] {
            assert_eq!(kind(&answer(status, body)), Some(of_another), "{status} {body}");
        }
    }
    for status in [408, 409, 499] {
        assert!(matches!(answer(status, "<html>"), Answer::Unknown { .. }), "{status}");
    }
    assert_eq!(answer(400, r#"{"code":99999,"message":"new"}"#), Answer::refused(Unlisted, "99999", "new"));
    let silent = Answer::refused(Unlisted, "99999", "Twilio answered 400");
    assert_eq!(answer(400, r#"{"code":99999}"#), silent);
    let known = Answer::refused(OptedOut, "21610", "the recipient has unsubscribed");
    assert_eq!(answer(400, r#"{"code":21610}"#), known);
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("7"))]);
    for (status, body, wait) in [
        (429, r#"{"code":20429,"message":"Too Many Requests","status":429}"#, Some(7)),
        (429, "", Some(7)),
        (429, "<html>", Some(7)),
        (400, r#"{"code":21611}"#, Some(7)),
        (400, r#"{"code":21211}"#, None),
    ] {
        let Answer::Refused(refusal) = answer_with(status, &headers, body) else { panic!("{body}") };
        assert_eq!(refusal.wait, wait.map(Duration::from_secs), "{body}");
    }
    for body in ["<html>", r#"{"code":20503,"message":"Service unavailable"}"#] {
        let lost = answer_with(503, &headers, body);
        assert!(matches!(lost, Answer::Unknown { wait: Some(wait), .. } if wait.as_secs() == 7), "{lost:?}");
    }
}

#[test]
fn a_message_is_accepted_by_its_sid_and_without_one_it_is_unknown() {
    let made = format!(r#"{{"sid":"{SID}","status":"queued","error_code":null,"error_message":null}}"#);
    for status in [200, 201, 202] {
        assert_eq!(answer(status, &made), Answer::accepted(SID));
    }
    for status in ["accepted", "scheduled", "queued", "sending", "sent", "new"] {
        assert_eq!(answer(201, &format!(r#"{{"sid":"{SID}","status":"{status}"}}"#)), Answer::accepted(SID));
    }
    let failed = answer(201, &format!(r#"{{"sid":"{SID}","status":"failed","error_code":null}}"#));
    assert_eq!(kind(&failed), Some(Permanent));
    for body in ["", "{}", "<html>", r#"{"sid":""}"#, &made[..20]] {
        assert!(matches!(answer(201, body), Answer::Unknown { .. }), "{body}");
    }
}

#[test]
fn the_probe_reads_the_account() {
    let twilio = twilio(&channel());
    let probe = twilio.probe().expect("one");
    assert_eq!(probe.url.as_str(), format!("https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}.json"));
    assert_eq!(probe.method, Method::GET);
    assert!(probe.headers["authorization"].is_sensitive());
    let probed = |status, body: &str| {
        let headers = HeaderMap::new();
        twilio.probed(&WireAnswer { status, headers: &headers, body: body.as_bytes(), now: now() })
    };
    assert_eq!(probed(200, r#"{"status":"active"}"#), Answer::accepted(""));
    assert_eq!(probed(200, ""), Answer::accepted(""));
    for status in ["suspended", "closed"] {
        let body = format!(r#"{{"status":"{status}"}}"#);
        assert_eq!(kind(&probed(200, &body)), Some(OfSender(AccountRestricted)));
    }
    let refused = probed(401, r#"{"code":20003,"message":"Authenticate","status":401}"#);
    assert_eq!(kind(&refused), Some(OfSender(AuthenticationFailed)));
    assert!(matches!(probed(503, ""), Answer::Unknown { .. }));
}

#[test]
fn a_base_url_may_have_a_path_and_a_sid_cannot_leave_the_account() {
    let channel = TwilioChannel { base_url: "http://127.0.0.1:9/twilio/".into(), ..channel() };
    let base = format!("http://127.0.0.1:9/twilio/2010-04-01/Accounts/{ACCOUNT}");
    let twilio = twilio(&channel);
    let sent = request(&twilio, "15550100", &Content::text("Hi")).expect("a request");
    assert_eq!(sent.url.as_str(), format!("{base}/Messages.json"));
    assert_eq!(twilio.probe().expect("one").url.as_str(), format!("{base}.json"));
    let lookup = twilio.lookup(SID).expect("one");
    assert_eq!(lookup.url.as_str(), format!("{base}/Messages/{SID}.json"));
    assert!(lookup.headers.contains_key("authorization"));
    let url = twilio.lookup("../../x?y#z").expect("one").url;
    assert_eq!(url.as_str(), format!("{base}/Messages/..%2F..%2Fx%3Fy%23z.json"));
}

#[path = "lookup_tests.rs"]
mod lookups;
