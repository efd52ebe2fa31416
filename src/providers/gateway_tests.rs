use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::address_guard::Answers;
use crate::api::{HttpChannel, KeyRef, ProviderName};
use crate::domain::answer::{Refusal, RefusalKind};
use crate::domain::content::Content;
use crate::domain::outcome::Outcome;
use crate::domain::receipt::Receipt;
use crate::providers::wire::BroadcastName;

const TOKEN: &str = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw";
const CHAT: &str = "15550100123";

fn gateway(scheme: &str, listener: &TcpListener, timeout_seconds: i32) -> Gateway {
    let address = listener.local_addr().expect("address");
    let http =
        HttpChannel { url: format!("{scheme}://{address}/"), timeout_seconds, ..HttpChannel::default() };
    gateway_of(&BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) })
}

fn gateway_of(channel: &BroadcastChannelSpec) -> Gateway {
    // Another test may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = "127.0.0.0/8".parse().expect("range");
    let policy = Arc::new(AddressPolicy::new(vec![loopback]));
    let mut secrets = SecretValues::default();
    channel.sending_secrets().for_each(|reference| secrets.insert(reference, TOKEN.into()));
    Gateway::new(&ObjectKey::new("shop", "sms"), channel, &secrets, &policy).expect("gateway")
}

#[test]
fn a_channel_with_an_address_that_users_may_not_reach_is_never_opened() {
    let http = HttpChannel { url: "http://127.0.0.1:1/".into(), ..HttpChannel::default() };
    let channel = BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) };
    let policy = Arc::new(AddressPolicy::new(Vec::new()));
    let opened = Gateway::new(&ObjectKey::new("shop", "sms"), &channel, &SecretValues::default(), &policy);
    assert!(matches!(opened, Err(GatewayError::AddressNotAllowed(_))));
}

#[test]
fn each_secret_of_a_rotation_is_hidden_also_when_they_stand_on_lines_of_their_own() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signing = KeyRef { name: "gateway".into(), key: "signing".into() };
    let url = "https://gateway.example/".into();
    let http =
        HttpChannel { url, request_signing_secret_ref: Some(signing.clone()), ..HttpChannel::default() };
    let channel = BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) };
    let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=");
    let mut secrets = SecretValues::default();
    secrets.insert(&signing, format!("{old}\r\n{new}"));
    let policy = Arc::new(AddressPolicy::new(Vec::new()));
    let gateway = Gateway::new(&ObjectKey::new("shop", "sms"), &channel, &secrets, &policy).expect("gateway");
    let said = Answer::refused(RefusalKind::Permanent, "no", format!("not {old}, nor {new}"));
    let told = Answer::refused(RefusalKind::Permanent, "no", "not …, nor …");
    assert_eq!(gateway.discreet(said, ""), told);
}

/// A gateway at a name whose addresses these are, one after the other, with this range open.
fn gateway_at(port: u16, range: &str, addresses: &[&[&str]]) -> Gateway {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://gateway.example:{port}/");
    let http = HttpChannel { url, timeout_seconds: 2, ..HttpChannel::default() };
    let channel = BroadcastChannelSpec { http: Some(http), ..BroadcastChannelSpec::of(ProviderName::Http) };
    let policy = Arc::new(AddressPolicy::new(vec![range.parse().expect("range")]));
    let names = policy.resolver_over(Answers::new(addresses));
    let key = ObjectKey::new("shop", "sms");
    Gateway::with_names(&key, &channel, &SecretValues::default(), &policy, names).expect("gateway")
}

#[tokio::test]
async fn a_name_that_resolves_to_something_else_later_leads_nowhere_that_users_may_not_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let port = listener.local_addr().expect("address").port();
    // The first one stands for a public address: tests go to none. Nobody listens there.
    let addresses = [&["127.0.0.2"][..], &["127.0.0.1"]];
    let gateway = gateway_at(port, "127.0.0.2/32", &addresses);
    for is_reached in [true, false] {
        let answer = send(&gateway).await;
        let Answer::Unreachable { detail } = answer else { panic!("{answer:?}") };
        assert_eq!(!detail.contains("--allow-address 127.0.0.1/32"), is_reached, "{detail}");
    }
    let nobody = futures::FutureExt::now_or_never(listener.accept());
    assert!(nobody.is_none(), "nothing has connected to what may not be reached");
    // It would have been seen.
    let gateway = gateway_at(port, "127.0.0.0/8", &addresses[1..]);
    let (answer, connection) = tokio::join!(send(&gateway), listener.accept());
    connection.expect("a connection");
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
}

async fn send(gateway: &Gateway) -> Answer {
    send_to(gateway, "15550100").await
}

async fn send_to(gateway: &Gateway, chat: &str) -> Answer {
    let (content, params) = (Content::text("Hi"), BTreeMap::new());
    let broadcast = BroadcastName { namespace: "shop", name: "sale" };
    let message =
        Outgoing { token: "u.0.0", chat, content: &content, params: &params, broadcast, now: clock::now() };
    gateway.send(&message).await
}

/// Answers one request with `answer` and then says nothing more.
async fn answer_once(listener: TcpListener, answer: &[u8]) {
    let (mut connection, _) = listener.accept().await.expect("connection");
    let mut seen = Vec::new();
    while !seen.ends_with(b"}}") {
        assert_ne!(connection.read_buf(&mut seen).await.expect("request"), 0, "cut off");
    }
    connection.write_all(answer).await.expect("answer");
    // Held open until the caller has its answer.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_gateway_that_never_comes_to_a_connection_is_unreachable_also_with_a_short_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let answer = send(&gateway("https", &listener, 1)).await;
    assert!(matches!(answer, Answer::Unreachable { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_body_that_never_comes_leaves_the_status_as_the_answer() {
    let answers: [(&[u8], Answer); 2] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", Answer::accepted("")),
        (
            b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\n{",
            Answer::refused(RefusalKind::RateLimited, "429", "the provider answered 429")
                .with_wait(Some(Duration::from_secs(7))),
        ),
    ];
    for (stored, expected) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let gateway = gateway("http", &listener, 1);
        let answer = tokio::select! {
            answer = send(&gateway) => answer,
            () = answer_once(listener, stored) => unreachable!("the connection stays open"),
        };
        assert_eq!(answer, expected);
    }
}

/// Every provider, at this address, with its own words for a refusal that repeats the token and the number.
fn that_repeat_everything(address: &str) -> [(BroadcastChannelSpec, u16, String); 5] {
    let key = json!({"name": "gateway", "key": "token"});
    let said = format!("{TOKEN} may not write to +1 (555) 010-0123 or {CHAT}");
    let channel = |provider: &str, field: &str, settings: serde_json::Value| {
        let mut spec = json!({"provider": provider});
        spec[field] = settings;
        serde_json::from_value(spec).expect("a channel")
    };
    let sid = format!("AC{}", "0".repeat(32));
    [
        (
            channel("HTTP", "http", json!({"url": address, "tokenSecretRef": key})),
            422,
            json!({"error": {"code": TOKEN, "message": said}}).to_string(),
        ),
        (
            channel(
                "WhatsApp",
                "whatsApp",
                json!({"phoneNumberId": "1", "tokenSecretRef": key, "baseUrl": address}),
            ),
            401,
            json!({"error": {"code": 190, "message": said}}).to_string(),
        ),
        (
            channel("Telegram", "telegram", json!({"tokenSecretRef": key, "baseUrl": address})),
            404,
            json!({"ok": false, "error_code": 404, "description": said}).to_string(),
        ),
        (
            channel(
                "Twilio",
                "twilio",
                json!({"accountSid": sid, "authTokenSecretRef": key, "from": "+15550999", "baseUrl": address}),
            ),
            503,
            json!({"code": 20503, "message": said}).to_string(),
        ),
        (
            channel(
                "Periskope",
                "periskope",
                json!({"phone": "15550999", "tokenSecretRef": key, "baseUrl": address}),
            ),
            400,
            json!({"code": "BAD", "message": said}).to_string(),
        ),
    ]
}

#[tokio::test]
async fn what_a_provider_repeats_of_secrets_and_chats_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    for (channel, status, body) in that_repeat_everything(&address) {
        let provider = channel.provider;
        let gateway = gateway_of(&channel);
        let length = body.len();
        let stored =
            format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        let answering = async {
            let (mut connection, _) = listener.accept().await.expect("connection");
            let mut seen = Vec::new();
            while !is_whole(&seen) {
                assert_ne!(connection.read_buf(&mut seen).await.expect("request"), 0, "cut off");
            }
            connection.write_all(stored.as_bytes()).await.expect("answer");
        };
        let (answer, ()) = tokio::join!(send_to(&gateway, CHAT), answering);
        let (Answer::Refused(Refusal { code, detail, .. }) | Answer::Unknown { code, detail, .. }) = &answer
        else {
            panic!("{provider:?}: {answer:?}")
        };
        assert!(detail.contains("… may not write to +… or …"), "{provider:?}: {detail}");
        assert!(!code.contains(TOKEN) && !detail.contains(TOKEN), "{provider:?}: {code} {detail}");
    }
}

/// Whether a request has come with the whole of its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

#[tokio::test]
async fn what_is_asked_for_is_the_message_itself_and_tells_no_secret() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let gateway = Gateway { secrets: Arc::new(["s3cret".into()]), ..gateway("http", &listener, 1) };
    assert_eq!(gateway.look_up("SM1", "15550100").await, None, "HTTP gateways cannot be asked");
    let receipt = |id: &str, detail: &str| {
        let receipt = Receipt::new(id, Outcome::Failed, None, clock::now()).expect("a receipt");
        receipt.with_error("30003", detail)
    };
    let told = gateway.told(Lookup::News(receipt("SM1", "no +15550100, s3cret")), "SM1", "15550100");
    let Lookup::News(told) = told else { panic!("{told:?}") };
    assert_eq!((&*told.evidence.code, &*told.evidence.detail), ("30003", "no +…, …"));
    let other = gateway.told(Lookup::News(receipt("SM2", "")), "SM1", "15550100");
    assert!(matches!(other, Lookup::NotTold(Answer::Unknown { .. })), "{other:?}");
}

#[tokio::test]
async fn a_gateway_that_takes_the_request_and_says_nothing_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let gateway = gateway("http", &listener, 1);
    let answer = tokio::select! {
        answer = send(&gateway) => answer,
        () = answer_once(listener, b"") => unreachable!("the connection stays open"),
    };
    assert!(matches!(answer, Answer::Unknown { ref code, .. } if code == "Timeout"), "{answer:?}");
}
