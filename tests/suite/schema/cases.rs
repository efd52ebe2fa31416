//! What breaks each rule that is an expression, and words of its message.

use serde_json::{Value, json};

use super::{Kind, manifest};
use crate::common::stage::{broadcast, merge, restart};

/// What is done that is refused.
pub enum Attempt {
    /// An object is created.
    Create(Value),
    /// An object of this name, of which sending began if it is a Broadcast, gets another spec.
    Change(&'static str, Value),
}

use Attempt::{Change, Create};

/// Something wrong, and words of the one rule that it breaks.
pub struct Case {
    pub kind: Kind,
    pub attempt: Attempt,
    pub words: &'static str,
}

/// A Broadcast of which sending began.
pub const BEGUN: &str = "begun";
/// A restart of which sending began.
pub const BEGUN_AGAIN: &str = "begun-again";
/// A channel, and a suppression.
pub const THERE: &str = "there";

/// What is there before.
pub fn stored() -> [(Kind, Value); 4] {
    let begun = broadcast(BEGUN, 1, json!({"campaignKey": "spring"}));
    [
        (Kind::Broadcast, begun),
        (Kind::Broadcast, restart(BEGUN_AGAIN, "sale", json!({}))),
        (Kind::Channel, channel(THERE, &json!({}))),
        (Kind::Suppression, suppression()),
    ]
}

fn channel(name: &str, http: &Value) -> Value {
    let mut settings = json!({"url": "https://sms.example.com"});
    merge(&mut settings, http.clone());
    manifest("BroadcastChannel", name, &json!({"provider": "HTTP", "http": settings}))
}

fn suppression() -> Value {
    let spec = json!({"channelRef": {"name": "sms"}, "chat": "15550100001"});
    manifest("BroadcastSuppression", THERE, &spec)
}

fn new(spec: Value) -> Attempt {
    Create(broadcast("new", 1, spec))
}

/// A Broadcast whose message is this alone.
fn message(message: Value) -> Attempt {
    let mut broadcast = broadcast("new", 1, json!({}));
    broadcast["spec"]["message"] = message;
    Create(broadcast)
}

fn template(template: Value) -> Attempt {
    let mut all = json!({"template": {"name": "sale"}});
    merge(&mut all["template"], template);
    message(all)
}

/// Those of Broadcasts.
fn of_broadcasts() -> Vec<(Attempt, &'static str)> {
    let key = json!({"name": "a", "key": "b"});
    let from = |sources: Value| new(json!({"recipients": {"csv": null, "from": [sources]}}));
    let again = |spec: Value| Create(restart("new", "sale", spec));
    vec![
        (Create(broadcast(&"a".repeat(58), 1, json!({}))), "at most 57 characters"),
        (Create(restart("sale", "sale", json!({}))), "cannot restart itself"),
        (Change(BEGUN, json!({"message": {"text": "Oops"}})), "message may not change"),
        (Change(BEGUN, json!({"recipients": {"csv": "chat\n15550100009\n"}})), "recipients may not change"),
        (Change(BEGUN, json!({"channelRef": {"name": "other"}})), "channelRef may not change"),
        (Change(BEGUN_AGAIN, json!({"restartFrom": {"name": "other"}})), "restartFrom may not change"),
        (Change(BEGUN, json!({"campaignKey": "summer"})), "campaignKey may not change"),
        (Change(BEGUN, json!({"campaignKey": null})), "campaignKey may not change"),
        (new(json!({"recipients": null})), "recipients is missing"),
        (again(json!({"recipients": {"csv": "chat\n"}})), "a restart takes its recipients from the source"),
        (new(json!({"channelRef": null})), "channelRef is missing"),
        (new(json!({"message": null})), "message is missing"),
        (again(json!({"campaignKey": "spring"})), "remove campaignKey"),
        (new(json!({"campaignRetentionSeconds": 5})), "needs campaignKey"),
        (new(json!({"recipients": {"csv": null}})), "exactly one of chats, csv and from"),
        (
            new(json!({"recipients": {"chats": [{"id": "15550100001"}]}})),
            "exactly one of chats, csv and from",
        ),
        (from(json!({})), "exactly one of configMapRef and secretRef"),
        (from(json!({"configMapRef": key, "secretRef": key})), "exactly one of configMapRef and secretRef"),
        (message(json!({"text": "Hi", "template": {"name": "sale"}})), "give text or template, not both"),
        (message(json!({})), "the message is empty"),
        (
            message(json!({"format": "HTML", "template": {"name": "sale"}})),
            "format says how text is marked up",
        ),
        (
            message(json!({"media": {"kind": "Image", "url": "https://a.example/a", "fileName": "a.png"}})),
            "fileName is for documents",
        ),
        (
            message(json!({"media": {"kind": "Image", "url": "https://me@a.example/a"}})),
            "a host without a user name, a password or parameters",
        ),
        (template(json!({"buttonParameters": {"10": "x"}})), "buttons are numbered"),
        (template(json!({"parameters": {"first name": "x"}})), "names of template parameters"),
        (
            new(json!({"retry": {"minBackoffSeconds": 9, "maxBackoffSeconds": 3}})),
            "minBackoffSeconds may not be above",
        ),
    ]
}

/// Those of channels.
fn of_channels() -> Vec<(Attempt, &'static str)> {
    let of = |spec: Value| Create(manifest("BroadcastChannel", "new", &spec));
    let header = |header: Value| Create(channel("new", &json!({"headers": [header]})));
    let key = json!({"name": "a", "key": "b"});
    let from_http = json!({"provider": "Telegram", "http": null, "telegram": {"tokenSecretRef": key}});
    let twilio = |senders: Value| {
        let mut twilio = json!({"accountSid": format!("AC{}", "0".repeat(32)), "authTokenSecretRef": key});
        merge(&mut twilio, senders);
        of(json!({"provider": "Twilio", "twilio": twilio}))
    };
    let service = format!("MG{}", "0".repeat(32));
    let whats_app = |settings: Value| {
        let mut whats_app = json!({"phoneNumberId": "1063", "tokenSecretRef": key});
        merge(&mut whats_app, settings);
        of(json!({"provider": "WhatsApp", "whatsApp": whats_app}))
    };
    let periskope = |settings: Value| {
        let mut periskope = json!({"phone": "15550199", "tokenSecretRef": key});
        merge(&mut periskope, settings);
        of(json!({"provider": "Periskope", "periskope": periskope}))
    };
    let mut cases: Vec<_> = ["HTTP", "WhatsApp", "Telegram", "Twilio", "Periskope"]
        .map(|provider| (of(json!({"provider": provider})), "give the settings of the provider"))
        .into();
    cases.extend([
        (
            of(json!({
                "provider": "HTTP", "http": {"url": "https://a.example"}, "telegram": {"tokenSecretRef": key},
            })),
            "and of no other",
        ),
        (Change(THERE, from_http), "the provider of a channel never changes"),
        (header(json!({"name": "X-Shop"})), "exactly one of value and secretRef"),
        (
            header(json!({"name": "X-Shop", "value": "a", "secretRef": key})),
            "exactly one of value and secretRef",
        ),
        (twilio(json!({})), "exactly one of from and messagingServiceSid"),
        (
            twilio(json!({"from": "+15550199", "messagingServiceSid": service})),
            "exactly one of from and messagingServiceSid",
        ),
        (Change(THERE, json!({"defaultRegion": "es"})), "two capital letters as in ISO 3166"),
        (Change(THERE, json!({"defaultRegion": "Spain"})), "two capital letters as in ISO 3166"),
        (Create(channel("new", &json!({"url": "https://me@a.example"}))), "belongs into tokenSecretRef"),
        (header(json!({"name": "X Shop", "value": "a"})), "the name of a header"),
        (header(json!({"name": "X-Shop", "value": "ä"})), "the value of a header"),
        (twilio(json!({"accountSid": "0".repeat(34), "from": "+15550199"})), "accountSid is AC"),
        (twilio(json!({"messagingServiceSid": "0".repeat(34)})), "messagingServiceSid is MG"),
        (
            twilio(json!({"from": "+15550199", "publicUrl": "https://my_host.example"})),
            "publicUrl begins with http",
        ),
        (twilio(json!({"from": "+15550199", "baseUrl": "ftp://a.example"})), "baseUrl begins with http"),
        (
            twilio(json!({"from": "+15550199", "baseUrl": "https:///v1"})),
            "baseUrl begins with http:// or https:// and a host",
        ),
        (whats_app(json!({"phoneNumberId": "+1555"})), "phoneNumberId is the id"),
        (whats_app(json!({"apiVersion": "24.0"})), "apiVersion is a version"),
        (whats_app(json!({"baseUrl": "https://a.example?a=b"})), "baseUrl begins with http"),
        (
            of(json!({"provider": "Telegram", "telegram": {"tokenSecretRef": key, "baseUrl": "a.example"}})),
            "baseUrl begins with http",
        ),
        (periskope(json!({"phone": "+15550199"})), "phone is the number in digits"),
        (periskope(json!({"baseUrl": "https://a.example/v1 "})), "baseUrl begins with http"),
    ]);
    cases
}

/// Those of suppressions.
fn of_suppressions() -> Vec<(Attempt, &'static str)> {
    vec![
        (Change(THERE, json!({"chat": "15550100002"})), "the chat of a suppression never change"),
        (Change(THERE, json!({"channelRef": {"name": "other"}})), "the chat of a suppression never change"),
    ]
}

/// All of them.
pub fn all() -> Vec<Case> {
    let of = |kind: Kind, cases: Vec<(Attempt, &'static str)>| {
        cases.into_iter().map(move |(attempt, words)| Case { kind, attempt, words })
    };
    of(Kind::Broadcast, of_broadcasts())
        .chain(of(Kind::Channel, of_channels()))
        .chain(of(Kind::Suppression, of_suppressions()))
        .collect()
}
