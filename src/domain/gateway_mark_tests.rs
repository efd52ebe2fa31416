use std::collections::BTreeMap;

use super::*;
use crate::api::ChannelStatus;

fn channel(spec: &Value) -> BroadcastChannel {
    let channel = json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastChannel",
        "metadata": {"name": "sms", "generation": 2, "labels": {"team": "sales"}}, "spec": spec,
    });
    serde_json::from_value(channel).expect("a channel")
}

fn digest(spec: &Value) -> String {
    GatewayMark::of(&channel(spec)).digest
}

/// A spec with a field of it changed, which is named by its path.
fn changed(spec: &Value, path: &str, value: &Value) -> Value {
    let (mut spec, (parent, field)) = (spec.clone(), path.rsplit_once('/').expect("a path"));
    spec.pointer_mut(parent).expect("a parent")[field] = value.clone();
    spec
}

#[test]
fn what_an_answer_can_depend_on_is_another_gateway_and_nothing_else_is() {
    let key = json!({"name": "another", "key": "token"});
    let own = json!({"name": "own", "key": "token"});
    let http = json!({"provider": "HTTP", "http": {"url": "https://a/", "tokenSecretRef": own}});
    let whats_app =
        json!({"provider": "WhatsApp", "whatsApp": {"phoneNumberId": "1", "tokenSecretRef": own}});
    let telegram = json!({"provider": "Telegram", "telegram": {"tokenSecretRef": own}});
    let twilio = json!({"provider": "Twilio", "twilio": {"accountSid": "AC1", "authTokenSecretRef": own, "from": "1"}});
    let periskope = json!({"provider": "Periskope", "periskope": {"phone": "123", "tokenSecretRef": own}});
    let headers = json!([{"name": "x-account", "value": "2"}]);
    for (spec, path, value, is_same) in [
        (&http, "/limits", json!({"messagesPerSecond": 5, "recipientsPerDay": 9}), true),
        (&http, "/errorPolicy", json!([{"codes": ["1"], "action": "Fail"}]), true),
        (&http, "/defaultRegion", json!("ES"), true),
        (&http, "/paused", json!(true), true),
        (&http, "/http/signingSecretRef", key.clone(), true),
        (&http, "/http/allowUnsigned", json!(true), true),
        (&http, "/http/idempotent", json!(true), true),
        (&http, "/http/timeoutSeconds", json!(5), true),
        (&http, "/http/url", json!("https://b/"), false),
        (&http, "/http/tokenSecretRef", key.clone(), false),
        (&http, "/http/requestSigningSecretRef", key.clone(), false),
        (&http, "/http/format", json!("Postback"), false),
        (&http, "/http/headers", headers, false),
        (&http, "/caSecretRef", key.clone(), false),
        (&whats_app, "/whatsApp/appSecretRef", key.clone(), true),
        (&whats_app, "/whatsApp/verifyTokenSecretRef", key.clone(), true),
        (&whats_app, "/whatsApp/timeoutSeconds", json!(5), true),
        (&whats_app, "/whatsApp/phoneNumberId", json!("2"), false),
        (&whats_app, "/whatsApp/tokenSecretRef", key.clone(), false),
        (&whats_app, "/whatsApp/apiVersion", json!("v25.0"), false),
        (&whats_app, "/whatsApp/baseUrl", json!("https://b"), false),
        (&telegram, "/telegram/webhookSecretRef", key.clone(), true),
        (&telegram, "/telegram/disableLinkPreview", json!(true), true),
        (&telegram, "/telegram/tokenSecretRef", key.clone(), false),
        (&telegram, "/telegram/baseUrl", json!("https://b"), false),
        (&twilio, "/twilio/publicUrl", json!("https://b"), true),
        (&twilio, "/twilio/pollAfterSeconds", json!(0), true),
        (&twilio, "/twilio/validityPeriodSeconds", json!(60), true),
        (&twilio, "/twilio/accountSid", json!("AC2"), false),
        (&twilio, "/twilio/authTokenSecretRef", key.clone(), false),
        (&twilio, "/twilio/from", json!("2"), false),
        (&twilio, "/twilio/messagingServiceSid", json!("MG1"), false),
        (&periskope, "/periskope/signingSecretRef", key.clone(), true),
        (&periskope, "/periskope/phone", json!("124"), false),
        (&periskope, "/periskope/tokenSecretRef", key.clone(), false),
    ] {
        assert_eq!(digest(spec) == digest(&changed(spec, path, &value)), is_same, "{path}");
    }
}

fn asked(token: Option<&str>, followed: Option<&str>) -> GatewayMark {
    let mut channel = channel(&json!({"provider": "HTTP", "http": {"url": "https://a/"}}));
    let annotation = |token: &str| BTreeMap::from([(TRY_AGAIN_ANNOTATION.to_owned(), token.to_owned())]);
    channel.metadata.annotations = token.map(annotation);
    channel.status =
        Some(ChannelStatus { try_again_token: followed.map(str::to_owned), ..ChannelStatus::default() });
    GatewayMark::of(&channel)
}

#[test]
fn each_new_value_of_the_annotation_is_a_wish_and_taking_it_away_is_none() {
    let never = asked(None, None);
    let first = asked(Some("1"), None);
    assert_eq!(asked(Some(""), None), never);
    assert!(first != never && asked(Some("2"), Some("1")) != first);
    assert_eq!(asked(Some("1"), Some("1")), first);
    assert_eq!(asked(None, Some("1")), first);
    let long = "x".repeat(MAX_TRY_AGAIN_TOKEN + 1);
    assert_eq!(asked(Some(&long), None), asked(Some(&long[1..]), None));
}

#[test]
fn a_status_counts_for_its_gateway_and_one_of_an_earlier_version_for_its_generation() {
    let mut channel = channel(&json!({"provider": "HTTP", "http": {"url": "https://a/"}}));
    let mark = GatewayMark::of(&channel);
    assert!(!mark.is_of_status(&channel));
    let own = Some(mark.digest.clone());
    for (observed_gateway, observed_generation, expected) in [
        (own.clone(), 2, true),
        (own, 1, true),
        (Some("another".into()), 2, false),
        (None, 2, true),
        (None, 1, false),
    ] {
        channel.status =
            Some(ChannelStatus { observed_generation, observed_gateway, ..ChannelStatus::default() });
        assert_eq!(mark.is_of_status(&channel), expected, "{:?}", channel.status);
    }
}
