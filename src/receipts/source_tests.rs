//! What all providers have in common: who may speak for them, and that the order in which they tell of a message means nothing.

use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

use super::source::Source;
use crate::api::BroadcastChannelSpec;
use crate::domain::ids::Incarnation;
use crate::domain::outcome::Outcome::{self, Delivered, Failed, Read, Sent};
use crate::domain::outcome::Row;
use crate::domain::page::{Page, Recipient};
use crate::domain::receipt::Receipt;
use crate::webhooks::{self, Secret};

const TOKEN: &str = "0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10.0.0";
const MESSAGE_ID: &str = "3EB0A1";
const URL: &str = "/v1/namespaces/shop/channels/sms/receipts?token=0b3f9a3e-1c5e-4c8e-9d0a-7c3d2f1a9b10.0.0";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_WHSEC: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODk=";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    WhatsApp,
    Telegram,
    Twilio,
    Periskope,
    Http,
}

use Provider::{Http, Periskope, Telegram, Twilio, WhatsApp};

const ALL: [Provider; 5] = [WhatsApp, Telegram, Twilio, Periskope, Http];
const WITH_RECEIPTS: [Provider; 4] = [WhatsApp, Twilio, Periskope, Http];

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().expect("time")
}

fn hmac_hex(key: &str, content: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length").chain_update(content);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Provider {
    fn spec(self) -> BroadcastChannelSpec {
        let key = |key: &str| json!({"name": "secret", "key": key});
        let spec = match self {
            WhatsApp => json!({"provider": "WhatsApp", "whatsApp": {
                "phoneNumberId": "1", "tokenSecretRef": key("token"), "appSecretRef": key("signing"),
            }}),
            Telegram => json!({"provider": "Telegram", "telegram": {
                "tokenSecretRef": key("token"), "webhookSecretRef": key("signing"),
            }}),
            Twilio => json!({"provider": "Twilio", "twilio": {
                "accountSid": "AC0123456789abcdef0123456789abcdef", "authTokenSecretRef": key("signing"),
                "from": "+15550199", "publicUrl": "https://receipts.example.com",
            }}),
            Periskope => json!({"provider": "Periskope", "periskope": {
                "phone": "15550199", "tokenSecretRef": key("token"), "signingSecretRef": key("signing"),
            }}),
            Http => json!({"provider": "HTTP", "http": {
                "url": "https://gateway.example.com/messages", "signingSecretRef": key("signing"),
            }}),
        };
        serde_json::from_value(spec).expect("a channel")
    }

    fn secret(self) -> &'static str {
        if self == Http { WHSEC } else { "the secret" }
    }

    fn secret_of_somebody_else(self) -> &'static str {
        if self == Http { OTHER_WHSEC } else { "another secret" }
    }

    fn body(self, outcome: Outcome) -> String {
        let word = match outcome {
            Sent => "sent",
            Delivered => "delivered",
            Read => "read",
            _ => "failed",
        };
        match self {
            WhatsApp => {
                let status = json!({
                    "id": MESSAGE_ID,
                    "status": word,
                    "timestamp": "1795000000",
                    "biz_opaque_callback_data": TOKEN,
                    "errors": if outcome == Failed { json!([{"code": 131_026}]) } else { Value::Null },
                });
                let change = json!({"field": "messages", "value": {"statuses": [status]}});
                json!({"entry": [{"changes": [change]}]}).to_string()
            }
            Telegram => json!({"update_id": 1}).to_string(),
            Twilio => format!("MessageSid={MESSAGE_ID}&MessageStatus={word}&ErrorCode=30005"),
            Periskope => {
                let ack = match outcome {
                    Sent => 1,
                    Delivered => 3,
                    Read => 4,
                    _ => -1,
                };
                let data = json!({"unique_id": MESSAGE_ID, "ack": ack});
                json!({"event_type": "message.ack.updated", "timestamp": now(), "data": data}).to_string()
            }
            Http => json!([{"id": TOKEN, "status": word, "time": now()}]).to_string(),
        }
    }

    fn signed(self, secret: &str, body: &str) -> Vec<(&'static str, String)> {
        match self {
            WhatsApp => vec![("x-hub-signature-256", format!("sha256={}", hmac_hex(secret, body)))],
            Telegram => vec![("x-telegram-bot-api-secret-token", secret.to_owned())],
            Twilio => {
                let mut fields: Vec<_> = form_urlencoded::parse(body.as_bytes()).collect();
                fields.sort();
                let fields: String = fields.iter().map(|(name, value)| format!("{name}{value}")).collect();
                let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
                let mac = mac.chain_update(format!("https://receipts.example.com{URL}{fields}"));
                vec![("x-twilio-signature", STANDARD.encode(mac.finalize().into_bytes()))]
            }
            Periskope => vec![("x-periskope-signature", hmac_hex(secret, body))],
            Http => {
                let signature =
                    webhooks::sign(&[Secret::parse(secret).expect("whsec")], "1", now(), body.as_bytes());
                vec![
                    (webhooks::ID_HEADER, "1".into()),
                    (webhooks::TIMESTAMP_HEADER, now().as_second().to_string()),
                    (webhooks::SIGNATURE_HEADER, signature),
                ]
            }
        }
    }

    /// Whether a request with these headers and this body is taken, where this is the channel's secret.
    fn takes(self, secret: &str, headers: &[(&'static str, String)], body: &str) -> bool {
        let spec = self.spec();
        let mut request = Request::post(URL);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let checked = Source::of(&spec, &head).and_then(|source| {
            source.check(&[secret.to_owned()], &source.content(body.as_bytes()).expect("few"), now())
        });
        checked.is_ok()
    }

    /// What a genuine request tells.
    fn tells(self, outcome: Outcome) -> Receipt {
        let (spec, body) = (self.spec(), self.body(outcome));
        let mut request = Request::post(URL);
        for (name, value) in self.signed(self.secret(), &body) {
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let source = Source::of(&spec, &head).expect("signed");
        let notices = source.read(&source.content(body.as_bytes()).expect("few"), now()).expect("readable");
        let [receipt] = &notices.receipts[..] else { panic!("{self:?}: {notices:?}") };
        assert_eq!(receipt.evidence.outcome, outcome, "{self:?}");
        receipt.clone()
    }
}

/// All orders of these.
fn orders(of: &[Outcome]) -> Vec<Vec<Outcome>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let first = |at: usize| {
        let rest: Vec<Outcome> =
            of.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, o)| *o).collect();
        orders(&rest).into_iter().map(move |rest| [vec![of[at]], rest].concat())
    };
    (0..of.len()).flat_map(first).collect()
}

/// A page whose one row is being sent.
fn being_sent() -> Page {
    let recipient =
        Recipient { chat: "15550100".into(), skip: String::new(), params: std::collections::BTreeMap::new() };
    let mut page = Page::planned(vec![recipient]);
    page.make_claim(&(0..1), false, &Incarnation::new("1".into()), 1, now()).expect("free");
    page
}

#[test]
fn in_every_order_each_twice_and_around_the_answer_receipts_of_every_provider_end_alike() {
    let answer = Row::known(Sent, 1, now()).with_message_id(MESSAGE_ID);
    for provider in WITH_RECEIPTS {
        let mut ends: Vec<Page> = Vec::new();
        for order in orders(&[Sent, Delivered, Read, Failed]) {
            for answered_after in 0..=order.len() {
                let mut page = being_sent();
                for (number, outcome) in order.iter().enumerate() {
                    if number == answered_after {
                        page.merge(0, &answer);
                        page.release_claim();
                    }
                    let evidence = provider.tells(*outcome).evidence;
                    page.merge(0, &evidence);
                    assert!(
                        !page.merge(0, &evidence),
                        "{provider:?}, {order:?}: the second one changes nothing"
                    );
                    let rank = [Sent, Failed, Delivered, Read];
                    let strongest = rank.into_iter().rfind(|known| order[..=number].contains(known));
                    assert_eq!(Some(page.rows()[0].outcome), strongest, "{provider:?}, {order:?}");
                }
                page.merge(0, &answer);
                page.release_claim();
                ends.push(page);
            }
        }
        assert_eq!(ends.len(), 24 * 5);
        assert!(ends.iter().all(|end| *end == ends[0]), "{provider:?}");
        assert_eq!((ends[0].rows()[0].outcome, ends[0].rows()[0].message_id.as_str()), (Read, MESSAGE_ID));
    }
}

#[test]
fn only_the_secret_of_the_channel_over_the_very_bytes_opens_it() {
    for provider in ALL {
        let (secret, body) = (provider.secret(), provider.body(Read));
        let signed = provider.signed(secret, &body);
        assert!(provider.takes(secret, &signed, &body), "{provider:?}");
        assert!(!provider.takes(secret, &[], &body), "{provider:?}: unsigned");
        let foreign = provider.signed(provider.secret_of_somebody_else(), &body);
        assert!(!provider.takes(secret, &foreign, &body), "{provider:?}: signed by somebody else");
        // Telegram signs nothing: its secret is all that it shows.
        let other = if provider == Twilio { format!("{body}&More=1") } else { format!("{body} ") };
        assert_eq!(
            provider.takes(secret, &signed, &other),
            provider == Telegram,
            "{provider:?}: other bytes"
        );
    }
}

#[test]
fn an_empty_secret_opens_nothing() {
    for provider in ALL {
        let body = provider.body(Read);
        // What an empty key makes of it; in our own format nobody can write one.
        let key = if provider == Http { WHSEC } else { "" };
        assert!(!provider.takes("", &provider.signed(key, &body), &body), "{provider:?}");
    }
}
