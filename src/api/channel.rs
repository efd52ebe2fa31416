//! `BroadcastChannel`: one sending account. People write the spec; the operator writes the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel_settings::{
    HttpChannel, PeriskopeChannel, TelegramChannel, TwilioChannel, WhatsAppChannel,
};
use super::rules::must_match;
use super::{Condition, KeyRef};

/// How to reach a gateway, and how much it takes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "broadcast-operator.dev",
    version = "v1alpha1",
    kind = "BroadcastChannel",
    plural = "broadcastchannels",
    shortname = "bcc",
    category = "broadcasts",
    namespaced,
    status = "ChannelStatus",
    doc = "One sending account: its gateway, credentials and limits. All Broadcasts of a channel share its limits and its \
           queue. spec.paused is the emergency brake for all of them.",
    derive = "PartialEq",
    selectable = ".spec.paused",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeBroadcasts"),
    printcolumn(name = "Rate", type_ = "integer", json_path = ".status.messagesPerSecond"),
    printcolumn(name = "Sent-24h", type_ = "integer", json_path = ".status.sentLast24Hours"),
    printcolumn(
        name = "Daily-Limit",
        type_ = "integer",
        json_path = ".spec.limits.recipientsPerDay",
        priority = 1
    ),
    printcolumn(
        name = "Throttled-Until",
        type_ = "string",
        json_path = ".status.throttledUntil",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Receipts-Refused",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"ReceiptsRefused\")].reason",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.provider == 'HTTP') == has(self.http) && (self.provider == 'WhatsApp') == has(self.whatsApp) && \
     (self.provider == 'Telegram') == has(self.telegram) && (self.provider == 'Twilio') == has(self.twilio) && \
     (self.provider == 'Periskope') == has(self.periskope)"
)
.message(
    "give the settings of the provider, and of no other: http for HTTP, whatsApp for WhatsApp, telegram for Telegram, twilio for \
     Twilio, periskope for Periskope"
))]
#[x_kube(validation = Rule::new("self.provider == oldSelf.provider")
    .message("the provider of a channel never changes: its chats would be other people; create another BroadcastChannel"))]
pub struct BroadcastChannelSpec {
    /// Whom messages are sent through. It says which one of the fields below is used.
    pub provider: ProviderName,
    /// Settings of provider HTTP: any gateway that takes one JSON request per message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpChannel>,
    /// Settings of provider `WhatsApp`: a phone number of the `WhatsApp` Cloud API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whats_app: Option<WhatsAppChannel>,
    /// Settings of provider Telegram: a bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telegram: Option<TelegramChannel>,
    /// Settings of provider Twilio: an account, and the number or service that sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio: Option<TwilioChannel>,
    /// Settings of provider Periskope: a phone that is connected to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periskope: Option<PeriskopeChannel>,
    /// Certificates, as PEM, of authorities that the provider's certificate may come from, besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyRef>,
    /// Country that phone numbers without a country code are of, such as `ES`, for `WhatsApp`, Twilio and Periskope. Absent: numbers
    /// must have their country code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-validations" = must_match(r"^[A-Z]{2}$", "defaultRegion is a country: two capital letters as in ISO 3166, such as ES"))
    )]
    pub default_region: Option<String>,
    /// What to do about error codes in the provider's answers and receipts, instead of what is usual for them. The first rule that names
    /// a code decides. A message that may have been taken is no matter of these rules, and an opt-out stays one whatever they say. They
    /// count for codes in receipts too, but there the chat fails in any case, and is not tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub error_policy: Vec<ErrorRule>,
    /// How much the account may send. Shared by all Broadcasts of this channel.
    #[serde(default)]
    pub limits: Limits,
    /// The emergency brake: true stops every Broadcast of this channel at once.
    #[serde(default)]
    pub paused: bool,
}

/// Whom messages are sent through.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderName {
    /// Any gateway that takes one JSON request per message.
    #[serde(rename = "HTTP")]
    Http,
    /// The `WhatsApp` Cloud API of Meta.
    WhatsApp,
    /// The Bot API of Telegram.
    Telegram,
    /// The Messages API of Twilio: SMS, MMS and `WhatsApp`.
    Twilio,
    /// Periskope: `WhatsApp` chats and groups of a connected phone.
    Periskope,
}

impl ProviderName {
    /// The name, as in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::WhatsApp => "WhatsApp",
            Self::Telegram => "Telegram",
            Self::Twilio => "Twilio",
            Self::Periskope => "Periskope",
        }
    }
}

/// What to do about some error codes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRule {
    /// Codes as the provider gives them, and as the error of a chat shows them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub codes: Vec<String>,
    /// What to do. `Retry`: try again, by the `retry` of the Broadcast. `Fail`: the chat fails. `StopBroadcast`, `StopChannel`: it stops, and no
    /// chat fails. `Suppress`: the chat fails, and later Broadcasts of this channel skip it.
    pub action: ErrorAction,
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ErrorAction {
    /// Try again, by the `retry` of the Broadcast.
    Retry,
    /// The chat fails.
    Fail,
    /// The Broadcast stops; no chat fails.
    StopBroadcast,
    /// The channel stops; no chat fails.
    StopChannel,
    /// The chat fails, and later Broadcasts of this channel skip it.
    Suppress,
}

/// How much an account may send.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Messages per second at most. Absent: what such a sender may send as a rule, so that no queue grows at the provider, where no stop
    /// reaches it: 80 for `WhatsApp`, 25 for Telegram, 1 for Twilio, 10 for Twilio by `WhatsApp`, 1 for Periskope. No limit for HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_second: Option<i32>,
    /// Messages that may be sent at once after a pause. Absent: a fiftieth of a second's messages, an even flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<i32>,
    /// Requests per 24 hours at most, second tries included, counted by the hour: the messaging limit of a `WhatsApp` account, for
    /// example. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub recipients_per_day: Option<i32>,
    /// Requests that may wait for an answer at the same time.
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages_per_second: None, burst: None, recipients_per_day: None, max_in_flight: 64 }
    }
}

/// What the operator knows of a channel.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Ready=True: messages can be sent. Ready=Unknown: the provider did not say whether the credentials are good; messages are sent
    /// all the same. Suspended=True: the brake is on. Throttled=True: the gateway asked to wait, and `throttledUntil` says how long.
    /// Stalled=True: it needs a person, and the message says for what. `ReceiptsRefused`=True: a Secret that receipts are checked with
    /// cannot be used, so none are taken; messages are sent all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Digest of the settings that say which gateway and account is sent through, and of the annotation
    /// `broadcast-operator.dev/try-again`. A wait and a stop count for these alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub observed_gateway: Option<String>,
    /// Value of the annotation `broadcast-operator.dev/try-again` that was followed last: the same value ends nothing again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub try_again_token: Option<String>,
    /// Why the provider takes nothing, also while `spec.paused` hides it: nothing is sent until the trouble is over, as the message
    /// says. Absent: it takes messages, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<ChannelStop>,
    /// No message is sent before this time, because the gateway asked for it or the limit of the day is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_until: Option<Time>,
    /// Messages per second at most, as `spec.limits` says or as usual for such a sender. Absent: no limit. After a rate limit it may be
    /// less for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub messages_per_second: Option<i32>,
    /// Requests of the last 24 hours, as far as this status knows: it follows within seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub sent_last24_hours: Option<i32>,
    /// The same by the hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub sent_by_hour: Vec<HourCount>,
    /// What receipts say of the account: that it may not send, until the channel goes on after it, or that it was too fast, for some
    /// minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<ReportedTrouble>,
    /// When what receipts say of messages of before was settled: by other credentials or another gateway, by a wish to try again, or by the
    /// provider, asked again. Receipts of messages that were sent until then do not stop the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_time: Option<Time>,
    /// Broadcasts of this channel that are being sent.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub active_broadcasts: i32,
}

/// Why a provider takes nothing from an account.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChannelStop {
    /// Why.
    pub reason: TroubleReason,
    /// The provider's error code. Empty where it was asked about the credentials and said so, `unknown` where an earlier version stored
    /// none. A rule of `errorPolicy` with another action than `StopChannel` for it lets the channel go on.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub code: String,
    /// What has shown it first: that can show as well that it is over. Absent, of an earlier version: as `reported` and `code` tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_by: Option<StopEvidence>,
    /// Why, and what to do, for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What has shown that a provider takes nothing from an account.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum StopEvidence {
    /// The answer to a message: another message is tried where the trouble may end by itself.
    Answer,
    /// A receipt alone, of a message that the provider had taken. It would take the next one as well, so none is tried before somebody has
    /// settled it.
    Receipt,
    /// The answer to a question, as about the credentials: the same question is asked again.
    Question,
}

/// What a receipt says of the account: that nothing can be sent, or not so fast.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReportedTrouble {
    /// Why nothing can be sent, or not so fast.
    pub reason: TroubleReason,
    /// The provider's error code.
    #[schemars(length(max = 64))]
    pub code: String,
    /// What it said.
    #[schemars(length(max = 160))]
    pub message: String,
    /// `observedGateway` of the channel when it was reported. It counts for no other. Empty, of an earlier version: it counts.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub observed_gateway: String,
    /// When it happened, as the provider says.
    pub time: Time,
    /// When its message was sent, as far as its row tells: what was settled since counts more. Absent, of an earlier version: `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Time>,
}

/// Why nothing can be sent through an account, or not so fast.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum TroubleReason {
    /// The provider refuses the credentials, or they may not send.
    AuthenticationFailed,
    /// The provider restricted, blocked or closed the account or the number.
    AccountRestricted,
    /// The account has no money, or no way to pay.
    PaymentRequired,
    /// The provider's address redirects.
    UnexpectedRedirect,
    /// Something else than the provider answers at its address.
    UnexpectedAnswer,
    /// A rule of the channel's `errorPolicy`.
    StoppedByErrorPolicy,
    /// It was too fast: the channel waits, and goes on at half of its speed.
    RateLimited,
}

impl TroubleReason {
    /// The reason as conditions have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::AccountRestricted => "AccountRestricted",
            Self::PaymentRequired => "PaymentRequired",
            Self::UnexpectedRedirect => "UnexpectedRedirect",
            Self::UnexpectedAnswer => "UnexpectedAnswer",
            Self::StoppedByErrorPolicy => "StoppedByErrorPolicy",
            Self::RateLimited => "RateLimited",
        }
    }
}

/// Messages of one hour.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HourCount {
    /// When the hour began.
    pub hour: Time,
    /// Messages that were sent in it.
    #[schemars(range(min = 0))]
    pub sent: i32,
}
