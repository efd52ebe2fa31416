//! Good manifests in which every field of every spec is there, so that each of them can be spoilt.

use serde_json::{Value, json};

use super::manifest;

fn key() -> Value {
    json!({"name": "a", "key": "b"})
}

/// Broadcasts: of several ways to say something, each in one of them.
pub fn broadcasts() -> Vec<Value> {
    let chats = json!({"chats": [{"id": "15550100001", "params": {"name": "Ana"}}]});
    let media = json!({"kind": "Document", "url": "https://cdn.example/a.pdf", "fileName": "a.pdf"});
    let template = json!({
        "name": "sale", "language": "en", "parameters": {"1": "{{ name }}"}, "buttonParameters": {"0": "x"},
    });
    let specs = [
        json!({
            "channelRef": {"name": "sms"},
            "message": {"text": "Hi", "format": "Plain", "media": media},
            "recipients": chats,
            "paused": true,
            "pacing": {"messagesPerSecond": 5},
            "retry": {"maxAttempts": 3, "minBackoffSeconds": 5, "maxBackoffSeconds": 300},
            "onUnknown": "Hold",
            "ttlSecondsAfterFinished": 60,
            "campaignKey": "spring",
            "campaignRetentionSeconds": 60,
        }),
        json!({
            "channelRef": {"name": "sms"},
            "message": {"template": template},
            "recipients": {"csv": "chat\n15550100001\n"},
        }),
        json!({
            "channelRef": {"name": "sms"},
            "message": {"text": "Hi"},
            "recipients": {"from": [{"configMapRef": key()}]},
        }),
        json!({
            "channelRef": {"name": "sms"},
            "message": {"text": "Hi"},
            "recipients": {"from": [{"secretRef": key()}]},
        }),
        json!({"restartFrom": {"name": "sale", "uid": "u", "include": ["Failed"]}}),
    ];
    specs.into_iter().map(|spec| manifest("Broadcast", "good", &spec)).collect()
}

/// Channels: one of each provider, and another one where its settings exclude each other.
pub fn channels() -> Vec<Value> {
    let sid = "0".repeat(32);
    let twilio = |sender: &str, value: &str| {
        json!({"provider": "Twilio", "twilio": {
            "accountSid": format!("AC{sid}"),
            "authTokenSecretRef": key(),
            sender: value,
            "publicUrl": "https://receipts.example.com",
            "pollAfterSeconds": 900,
            "validityPeriodSeconds": 60,
            "baseUrl": "https://api.example.com",
            "timeoutSeconds": 30,
        }})
    };
    let http = |header: Value| {
        json!({
            "provider": "HTTP",
            "http": {
                "url": "https://sms.example.com/send",
                "format": "Native",
                "headers": [header],
                "idempotent": true,
                "allowUnsigned": true,
                "tokenSecretRef": key(),
                "signingSecretRef": key(),
                "requestSigningSecretRef": key(),
                "timeoutSeconds": 30,
            },
            "caSecretRef": key(),
            "defaultRegion": "ES",
            "errorPolicy": [{"codes": ["1"], "action": "Fail"}],
            "limits": {"messagesPerSecond": 5, "burst": 5, "recipientsPerDay": 5, "maxInFlight": 5},
            "paused": true,
        })
    };
    let specs = [
        http(json!({"name": "X-Shop", "value": "a"})),
        http(json!({"name": "X-Shop", "secretRef": key()})),
        json!({"provider": "WhatsApp", "whatsApp": {
            "phoneNumberId": "1063",
            "tokenSecretRef": key(),
            "appSecretRef": key(),
            "verifyTokenSecretRef": key(),
            "apiVersion": "v24.0",
            "baseUrl": "https://graph.example.com",
            "timeoutSeconds": 30,
        }}),
        json!({"provider": "Telegram", "telegram": {
            "tokenSecretRef": key(),
            "webhookSecretRef": key(),
            "disableNotification": true,
            "disableLinkPreview": true,
            "baseUrl": "https://bots.example.com",
            "timeoutSeconds": 30,
        }}),
        twilio("from", "+15550199"),
        twilio("messagingServiceSid", &format!("MG{sid}")),
        json!({"provider": "Periskope", "periskope": {
            "phone": "15550199",
            "tokenSecretRef": key(),
            "signingSecretRef": key(),
            "baseUrl": "https://api.example.com/v1",
            "timeoutSeconds": 30,
        }}),
    ];
    specs.into_iter().map(|spec| manifest("BroadcastChannel", "good", &spec)).collect()
}

/// A suppression.
pub fn suppressions() -> Vec<Value> {
    let spec = json!({
        "channelRef": {"name": "sms"},
        "chat": "15550100001",
        "reason": "Manual",
        "code": "131050",
        "time": "2026-11-29T10:00:00Z",
    });
    vec![manifest("BroadcastSuppression", "good", &spec)]
}
