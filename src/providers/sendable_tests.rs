//! What planning lets through, a request can be made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::{BroadcastName, Outgoing};
use super::{SecretValues, protocol};
use crate::api::{BroadcastChannelSpec, KeyRef, MessageContent};
use crate::clock;
use crate::domain::answer::{Answer, RefusalKind};
use crate::domain::capabilities::Capabilities;
use crate::domain::ids::ObjectKey;
use crate::domain::message::MessageTemplate;

/// A channel of each kind.
fn channels() -> Vec<BroadcastChannelSpec> {
    let key = json!({"name": "gateway", "key": "token"});
    let twilio = json!({"accountSid": format!("AC{}", "0".repeat(32)), "authTokenSecretRef": key, "from": "+15550199"});
    let channels = [
        json!({"provider": "HTTP", "http": {"url": "https://gateway.example"}}),
        json!({"provider": "HTTP", "http": {"url": "https://gateway.example", "format": "Postback"}}),
        json!({"provider": "WhatsApp", "whatsApp": {"phoneNumberId": "1063", "tokenSecretRef": key}}),
        json!({"provider": "Telegram", "telegram": {"tokenSecretRef": key}}),
        json!({"provider": "Twilio", "twilio": twilio}),
        json!({"provider": "Periskope", "periskope": {"phone": "15550199", "tokenSecretRef": key}}),
    ];
    channels.into_iter().map(|spec| serde_json::from_value(spec).expect("a channel")).collect()
}

/// Messages of all kinds, good and bad.
fn messages() -> Vec<Value> {
    let parameters =
        [json!({}), json!({"1": "a", "2": "b"}), json!({"1": "a", "3": "c"}), json!({"name": "a", "1": "b"})];
    let buttons = [json!({}), json!({"0": "x", "9": "y"})];
    let media = ["Image", "Video", "Audio", "Document"]
        .map(|kind| json!({"kind": kind, "url": "https://cdn.example/a"}));
    let mut bodies = vec![json!({}), json!({"text": "Hi"}), json!({"text": "<b>Hi</b>", "format": "HTML"})];
    for name in ["promo".to_owned(), format!("HX{}", "0".repeat(32))] {
        for language in [Value::Null, json!("en_US")] {
            for parameters in &parameters {
                for buttons in &buttons {
                    let template = json!({"name": name, "language": language, "parameters": parameters, "buttonParameters": buttons});
                    bodies.push(json!({"template": template}));
                }
            }
        }
    }
    let illustrated = bodies.iter().flat_map(|body| {
        media.iter().map(|media| {
            let mut body = body.clone();
            body["media"] = media.clone();
            body
        })
    });
    let all: Vec<Value> = illustrated.collect();
    all.into_iter().chain(bodies.into_iter().skip(1)).collect()
}

#[test]
fn a_request_can_be_made_of_whatever_a_channel_is_said_to_send() {
    let mut secrets = SecretValues::default();
    secrets.insert(&KeyRef { name: "gateway".into(), key: "token".into() }, "42:AA".into());
    for channel in channels() {
        let protocol = protocol(&ObjectKey::new("shop", "sms"), &channel, &secrets).expect("a protocol");
        let capabilities = Capabilities::of(&channel);
        let mut sendable = 0;
        for message in messages() {
            let content: MessageContent = serde_json::from_value(message.clone()).expect("a message");
            let is_sendable = capabilities.check(&content).is_ok();
            let template =
                MessageTemplate::parse(&content, capabilities.max_text_of(&content)).expect("valid");
            let params = BTreeMap::new();
            let made = template.render(0, &params).expect("made");
            let outgoing = Outgoing {
                token: "u.0.0",
                chat: "15550100",
                content: &made,
                params: &params,
                broadcast: BroadcastName { namespace: "shop", name: "sale" },
                now: clock::now(),
            };
            let request = protocol.request(&outgoing).map(drop);
            let provider = channel.provider;
            if is_sendable {
                sendable += 1;
                assert_eq!(request, Ok(()), "{provider:?} {message}");
            } else if let Err(Answer::Refused(refusal)) = request {
                assert_eq!(refusal.kind, RefusalKind::NotSupported, "{provider:?} {message}");
            }
        }
        assert!(sendable > 0, "{:?}", channel.provider);
    }
}
