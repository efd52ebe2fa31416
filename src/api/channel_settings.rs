//! What a channel has to say about its provider: one struct per provider, of which a channel has one.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KeyRef;
use super::rules::must_match;

/// Seconds to wait for an answer, unless the channel says otherwise.
fn default_timeout() -> i32 {
    30
}

/// A gateway that takes one JSON request per message.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpChannel {
    /// Where messages are posted to. Loopback, link-local and private addresses are refused unless the operator was
    /// started with `--allow-address` for them. It may not hold a user name or password: use `tokenSecretRef`.
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = must_match(r"^https?://[^\s/?#@\\]+([/?#]\S*)?$", "url begins with http:// or https:// and a host, without a user name, a password or spaces: a token belongs into tokenSecretRef"))
    )]
    pub url: String,
    /// Bearer token for the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<KeyRef>,
    /// Secret that receipts are signed with (Standard Webhooks). During a rotation the key may hold several secrets,
    /// separated by white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<KeyRef>,
    /// Take receipts without a signature. Anybody who can reach the receipts port can then forge outcomes.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// The gateway drops a second request with the same Idempotency-Key. Then a request without an answer is repeated
    /// with the same key, up to `retry.maxAttempts` times, instead of being left as Unknown.
    #[serde(default)]
    pub idempotent: bool,
    /// What a request looks like.
    #[serde(default)]
    pub format: HttpFormat,
    /// More headers of each request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HttpHeader>,
    /// Secret that requests are signed with (Standard Webhooks), so that the gateway knows where they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_signing_secret_ref: Option<KeyRef>,
    /// Seconds to wait for an answer.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

/// What a request to a gateway looks like.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum HttpFormat {
    /// As this operator has it: see `docs/http-channel.md`.
    #[default]
    Native,
    /// As listmonk sends it to its "postback" messengers. Such a bridge takes plain texts alone.
    Postback,
}

/// A header of each request: exactly one of `value` and `secretRef`.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secretRef)")
    .message("give exactly one of value and secretRef"))]
pub struct HttpHeader {
    /// Its name.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-validations" = must_match(r"^[A-Za-z0-9-]+$", "the name of a header has letters, digits and dashes only"))
    )]
    pub name: String,
    /// Its value. What is secret belongs into `secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        extend("x-kubernetes-validations" = must_match(r"^[\x20-\x7e]*$", "the value of a header has printable ASCII characters only"))
    )]
    pub value: Option<String>,
    /// A key of a Secret that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
}

impl HttpChannel {
    /// The keys of Secrets that messages are sent with.
    pub fn sending_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        let of_headers = self.headers.iter().filter_map(|header| header.secret_ref.as_ref());
        self.token_secret_ref.iter().chain(&self.request_signing_secret_ref).chain(of_headers)
    }

    /// Whether this channel hears what became of its messages.
    #[must_use]
    pub fn has_receipts(&self) -> bool {
        self.signing_secret_ref.is_some() || self.allow_unsigned
    }
}

/// A phone number of the `WhatsApp` Cloud API.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WhatsAppChannel {
    /// Id of the phone number that sends, as Meta shows it; not the number itself.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-validations" = must_match(r"^[0-9]+$", "phoneNumberId is the id that Meta shows beside the number, digits only"))
    )]
    pub phone_number_id: String,
    /// Access token of a system user, with permission `whatsapp_business_messaging`.
    pub token_secret_ref: KeyRef,
    /// App secret, which receipts are signed with. Without it the channel takes no receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_secret_ref: Option<KeyRef>,
    /// The word that Meta gives back when the webhook is set up: choose any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_token_secret_ref: Option<KeyRef>,
    /// Version of the API.
    #[serde(default = "WhatsAppChannel::default_version")]
    #[schemars(
        length(min = 2, max = 8),
        extend("x-kubernetes-validations" = must_match(r"^v[0-9]+\.[0-9]+$", "apiVersion is a version of the Graph API, such as v24.0"))
    )]
    pub api_version: String,
    /// Where the API is: a proxy, another region or a simulator.
    #[serde(default = "WhatsAppChannel::default_base_url")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = base_url_rules())
    )]
    pub base_url: String,
    /// Seconds to wait for an answer.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

impl WhatsAppChannel {
    fn default_version() -> String {
        "v24.0".into()
    }

    fn default_base_url() -> String {
        "https://graph.facebook.com".into()
    }

    /// The keys of Secrets that receipts are checked with.
    pub fn receipt_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        self.app_secret_ref.iter().chain(&self.verify_token_secret_ref)
    }
}

/// A bot of Telegram.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TelegramChannel {
    /// Token of the bot, as `BotFather` gives it.
    pub token_secret_ref: KeyRef,
    /// The `secret_token` that the webhook of the bot was set up with. With it the channel hears who blocked the bot. Telegram has no
    /// receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret_ref: Option<KeyRef>,
    /// Send without a sound.
    #[serde(default)]
    pub disable_notification: bool,
    /// Show no preview of links.
    #[serde(default)]
    pub disable_link_preview: bool,
    /// Where the API is: an own Bot API server, a proxy or a simulator.
    #[serde(default = "TelegramChannel::default_base_url")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = base_url_rules())
    )]
    pub base_url: String,
    /// Seconds to wait for an answer.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

impl TelegramChannel {
    fn default_base_url() -> String {
        "https://api.telegram.org".into()
    }
}

/// An account of Twilio, and what sends.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.from) != has(self.messagingServiceSid)")
    .message("give exactly one of from and messagingServiceSid"))]
pub struct TwilioChannel {
    /// Account, `AC…`.
    #[schemars(
        length(min = 34, max = 34),
        extend("x-kubernetes-validations" = must_match(r"^AC[0-9a-fA-F]{32}$", "accountSid is AC and 32 hexadecimal digits, as the console of Twilio shows it"))
    )]
    pub account_sid: String,
    /// Auth token of the account. Requests and receipts are checked with it.
    pub auth_token_secret_ref: KeyRef,
    /// Number, short code or sender id that sends; `whatsapp:+15550100` sends by `WhatsApp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub from: Option<String>,
    /// Messaging service that sends, `MG…`. Its messages go to phone numbers; for `WhatsApp` use `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 34, max = 34),
        extend("x-kubernetes-validations" = must_match(r"^MG[0-9a-fA-F]{32}$", "messagingServiceSid is MG and 32 hexadecimal digits, as the console of Twilio shows it"))
    )]
    pub messaging_service_sid: Option<String>,
    /// Where Twilio reaches the receipts port of the operator, such as `https://receipts.example.com`. Each message tells it where
    /// its receipts go, and their signature covers the address. Without it the channel takes no receipts, and
    /// asks for them alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        extend("x-kubernetes-validations" = must_match(r"^https?://[^\s/?#@\\_]+(/[^\s?#]*)?$", "publicUrl begins with http:// or https:// and a host without _, and has no user name, password, query or spaces"))
    )]
    pub public_url: Option<String>,
    /// Seconds after which Twilio is asked what became of a message of which no last receipt came, and at 4, 24 and 96 times as many
    /// again, for 4 days. 0: never.
    #[serde(default = "TwilioChannel::default_poll_after")]
    #[schemars(range(min = 0, max = 86_400))]
    pub poll_after_seconds: i32,
    /// Seconds after which Twilio gives up to deliver a message that waits in its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_000))]
    pub validity_period_seconds: Option<i32>,
    /// Where the API is: a region, a proxy or a simulator.
    #[serde(default = "TwilioChannel::default_base_url")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = base_url_rules())
    )]
    pub base_url: String,
    /// Seconds to wait for an answer.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

impl TwilioChannel {
    fn default_base_url() -> String {
        "https://api.twilio.com".into()
    }

    /// Most receipts come within seconds, and Twilio brings a lost one never again.
    fn default_poll_after() -> i32 {
        900
    }

    /// How long a last receipt is waited for before Twilio is asked. `None`: it is not asked.
    #[must_use]
    pub fn poll_after(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.poll_after_seconds).unwrap_or_default();
        (seconds > 0).then_some(Duration::from_secs(seconds))
    }

    /// Whether messages go out by `WhatsApp`, which tells who has read them.
    #[must_use]
    pub fn is_whats_app(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.starts_with("whatsapp:"))
    }
}

/// A phone that is connected to Periskope.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PeriskopeChannel {
    /// The phone that sends: its number in digits, or its id `phone-…`.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-validations" = must_match(r"^([0-9]{3,20}|phone-[A-Za-z0-9-]+)$", "phone is the number in digits, without +, or its id phone-…"))
    )]
    pub phone: String,
    /// API key.
    pub token_secret_ref: KeyRef,
    /// Key that Periskope signs its webhooks with. Without it the channel takes no receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<KeyRef>,
    /// Where the API is: a proxy or a simulator.
    #[serde(default = "PeriskopeChannel::default_base_url")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = base_url_rules())
    )]
    pub base_url: String,
    /// Seconds to wait for an answer.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,
}

impl PeriskopeChannel {
    fn default_base_url() -> String {
        "https://api.periskope.app/v1".into()
    }
}

/// What every `baseUrl` must be.
fn base_url_rules() -> serde_json::Value {
    must_match(
        r"^https?://[^\s/?#@\\]+(/[^\s?#]*)?$",
        "baseUrl begins with http:// or https:// and a host, without a user name, a password, a query or spaces",
    )
}
