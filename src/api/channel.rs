//! `BroadcastChannel`: one sending account. People write the spec; the operator writes the status.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel_settings::{
    HttpChannel, PeriskopeChannel, TelegramChannel, TwilioChannel, WhatsAppChannel,
};
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
    printcolumn(name = "Rate", type_ = "integer", json_path = ".spec.limits.messagesPerSecond"),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
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
    #[schemars(length(min = 2, max = 2), regex(pattern = r"^[A-Z]{2}$"))]
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

impl BroadcastChannelSpec {
    /// Messages per second at most, as given or as usual for such a sender. `None`: no limit.
    ///
    /// The usual ones are those of the providers' documentation: the throughput of a new number of the Cloud API, somewhat less than the
    /// 30 of a Telegram bot, a US long code of Twilio and the least of its `WhatsApp` senders; Periskope sends a message a second.
    #[must_use]
    pub fn messages_per_second(&self) -> Option<u32> {
        let usual = match self.provider {
            ProviderName::Http => None,
            ProviderName::WhatsApp => Some(80),
            ProviderName::Telegram => Some(25),
            ProviderName::Twilio if self.twilio.as_ref().is_some_and(TwilioChannel::is_whats_app) => Some(10),
            ProviderName::Twilio | ProviderName::Periskope => Some(1),
        };
        self.limits.messages_per_second.and_then(|limit| u32::try_from(limit).ok()).or(usual)
    }
}

/// What to do about some error codes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRule {
    /// Codes as the provider gives them, and as the error of a chat shows them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub codes: Vec<String>,
    /// What to do.
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
    /// Ready=True: messages can be sent. Suspended=True: the brake is on. Throttled=True: the gateway asked to wait, and
    /// `throttledUntil` says how long. Stalled=True: it needs a person, and the message says for what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// No message is sent before this time, because the gateway asked for it or the limit of the day is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_until: Option<Time>,
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
    /// When the channel went on after it was last Stalled. Receipts of an earlier time do not stop it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_time: Option<Time>,
    /// Broadcasts of this channel that are being sent.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub active_broadcasts: i32,
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
    /// Generation of the channel's spec that it was reported under. It counts for no other.
    pub observed_generation: i64,
    /// When it happened, as the provider says.
    pub time: Time,
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

impl BroadcastChannelSpec {
    /// A channel of this provider without any settings.
    #[must_use]
    pub fn of(provider: ProviderName) -> Self {
        Self {
            provider,
            http: None,
            whats_app: None,
            telegram: None,
            twilio: None,
            periskope: None,
            ca_secret_ref: None,
            default_region: None,
            error_policy: Vec::new(),
            limits: Limits::default(),
            paused: false,
        }
    }

    /// The keys of Secrets that messages are sent with.
    pub fn sending_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        let Self { http, whats_app, telegram, twilio, periskope, ca_secret_ref, .. } = self;
        let http = http.iter().flat_map(HttpChannel::sending_secrets);
        let whats_app = whats_app.iter().map(|whats_app| &whats_app.token_secret_ref);
        let telegram = telegram.iter().map(|telegram| &telegram.token_secret_ref);
        let twilio = twilio.iter().map(|twilio| &twilio.auth_token_secret_ref);
        let periskope = periskope.iter().map(|periskope| &periskope.token_secret_ref);
        http.chain(whats_app).chain(telegram).chain(twilio).chain(periskope).chain(ca_secret_ref)
    }

    /// The keys of Secrets that receipts are checked with.
    pub fn receipt_secrets(&self) -> impl Iterator<Item = &KeyRef> {
        let Self { http, whats_app, telegram, twilio, periskope, .. } = self;
        let http = http.iter().filter_map(|http| http.signing_secret_ref.as_ref());
        let whats_app = whats_app.iter().flat_map(WhatsAppChannel::receipt_secrets);
        let telegram = telegram.iter().filter_map(|telegram| telegram.webhook_secret_ref.as_ref());
        let twilio = twilio.iter().map(|twilio| &twilio.auth_token_secret_ref);
        let periskope = periskope.iter().filter_map(|periskope| periskope.signing_secret_ref.as_ref());
        http.chain(whats_app).chain(telegram).chain(twilio).chain(periskope)
    }

    /// Whether this channel hears that its messages were delivered.
    #[must_use]
    pub fn hears_of_delivery(&self) -> bool {
        match self.provider {
            ProviderName::Http => self.http.as_ref().is_some_and(HttpChannel::has_receipts),
            ProviderName::WhatsApp => {
                self.whats_app.as_ref().is_some_and(|whats_app| whats_app.app_secret_ref.is_some())
            }
            ProviderName::Telegram => false,
            ProviderName::Twilio => {
                self.twilio.as_ref().is_some_and(|twilio| twilio.public_url.is_some())
                    || self.poll_after().is_some()
            }
            ProviderName::Periskope => {
                self.periskope.as_ref().is_some_and(|periskope| periskope.signing_secret_ref.is_some())
            }
        }
    }

    /// Whether this channel hears that its messages were read: an SMS never is, and who asks hears it by chance alone, because
    /// nothing is asked about a message that was delivered.
    #[must_use]
    pub fn hears_of_reading(&self) -> bool {
        let is_told = |twilio: &TwilioChannel| twilio.is_whats_app() && twilio.public_url.is_some();
        self.hears_of_delivery() && self.twilio.as_ref().is_none_or(is_told)
    }

    /// How long a last receipt is waited for before the provider is asked what became of a message. `None`: it is not asked, or
    /// cannot be.
    #[must_use]
    pub fn poll_after(&self) -> Option<Duration> {
        self.twilio.as_ref().and_then(TwilioChannel::poll_after)
    }

    /// Whether the provider drops a second request with the token of the first.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.idempotent)
    }

    /// Seconds that a request waits for its answer.
    #[must_use]
    pub fn timeout_seconds(&self) -> i32 {
        match self.provider {
            ProviderName::Http => self.http.as_ref().map(|http| http.timeout_seconds),
            ProviderName::WhatsApp => self.whats_app.as_ref().map(|whats_app| whats_app.timeout_seconds),
            ProviderName::Telegram => self.telegram.as_ref().map(|telegram| telegram.timeout_seconds),
            ProviderName::Twilio => self.twilio.as_ref().map(|twilio| twilio.timeout_seconds),
            ProviderName::Periskope => self.periskope.as_ref().map(|periskope| periskope.timeout_seconds),
        }
        .unwrap_or_default()
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
